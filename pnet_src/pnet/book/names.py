"""How pages and figures call the methods and the data sets."""

METHOD_NAMES = {
    "pnet": "PNet",
    "sextractor": "SExtractor",
    "sextractor_default": "SExtractor, default settings",
    "sep": "SEP",
    "psfex": "SExtractor + PSFEx",
    "photutils": "photutils PSF",
}
DATASET_NAMES = {"sdss": "SDSS", "simulation": "simulation"}
