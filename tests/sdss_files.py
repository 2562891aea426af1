"""Writers of small files shaped like SDSS's own, for tests: frame, psField, fpM, photoObj, and a whole field."""

import bz2
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.wcs import WCS

from pnet.sdss.field import FieldId

BANDS = "ugriz"
BINNED1, BRIGHT, EDGE, PEAKCENTER, SATUR, NOTCHECKED = 1 << 28, 1 << 1, 1 << 2, 1 << 5, 1 << 18, 1 << 19
MASKS = (
    "INTERP",
    "SATUR",
    "NOTCHECKED",
    "OBJECT",
    "BRIGHTOBJECT",
    "BINOBJECT",
    "CATOBJECT",
    "SUBTRACTED",
    "GHOST",
    "CR",
)
PIXEL = 0.396  # arcsec


def write_hdus(path: Path, hdus: list, compress: bool = False) -> Path:
    """Write HDUs, with bzip2 if asked for, and return the path."""
    stream = io.BytesIO()
    fits.HDUList(hdus).writeto(stream)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bz2.compress(stream.getvalue()) if compress else stream.getvalue())
    return path


def write_frame(
    path: Path,
    nanomaggies: np.ndarray,
    calibration: np.ndarray,
    sky: np.ndarray,
    identity: FieldId,
    *,
    xinterp: np.ndarray | None = None,
    yinterp: np.ndarray | None = None,
    airmass: float = 1.2,
    compress: bool = True,
) -> Path:
    """Write a corrected frame; `sky` is the coarse sky in counts, interpolated over the image by default."""
    height, width = nanomaggies.shape
    xinterp = np.linspace(-0.4, sky.shape[1] - 0.6, width) if xinterp is None else xinterp
    yinterp = np.linspace(-0.4, sky.shape[0] - 0.6, height) if yinterp is None else yinterp
    primary = fits.PrimaryHDU(np.asarray(nanomaggies, ">f4"))
    scale = PIXEL / 3600
    primary.header.update(
        {
            "ORIGIN": "SDSS",
            "RUN": identity.run,
            "CAMCOL": identity.camcol,
            "FRAME": identity.field + 8,  # as in real g frames: not the field
            "FILTER": identity.band,
            "EXPTIME": "53.907456",  # a string, as in real ones
            "DATE-OBS": "19/09/98",
            "RADECSYS": "ICRS",
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            "CRPIX1": width / 2 + 1.0,
            "CRPIX2": height / 2 + 1.0,
            "CRVAL1": 150.0,
            "CRVAL2": 2.0,
            "CD1_1": 0.0,
            "CD1_2": scale,
            "CD2_1": scale,
            "CD2_2": 0.0,
        }
    )
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("ALLSKY", f"{sky.size}E", dim=f"({sky.shape[1]},{sky.shape[0]})", array=[sky]),
            fits.Column("XINTERP", f"{len(xinterp)}E", array=[xinterp]),
            fits.Column("YINTERP", f"{len(yinterp)}E", array=[yinterp]),
        ]
    )
    astrans = fits.BinTableHDU.from_columns(
        [
            fits.Column("RUN", "J", array=[identity.run]),
            fits.Column("RERUN", "3A", array=["301"]),
            fits.Column("CAMCOL", "J", array=[identity.camcol]),
            fits.Column("FILTER", "1A", array=[identity.band]),
            fits.Column("FIELD", "J", array=[identity.field]),
            fits.Column("AIRMASS", "D", array=[airmass]),
        ]
    )
    return write_hdus(path, [primary, fits.ImageHDU(np.asarray(calibration, ">f4")), table, astrans], compress)


def gaussian_psf(sigma: float, size: int = 51) -> np.ndarray:
    """Return a pixel-integrated Gaussian of sum 1, centred."""
    from scipy.special import erf

    edges = np.arange(size + 1) - size / 2
    line = np.diff(erf(edges / (np.sqrt(2) * sigma))) / 2
    return np.outer(line, line) / line.sum() ** 2


def write_psfield(
    path: Path,
    identity: FieldId,
    *,
    images: np.ndarray | None = None,
    coefficients: np.ndarray | None = None,
    gain: float = 4.0,
    dark_variance: float = 1.5,
    sigma: float = 1.5,
) -> Path:
    """Write a psField; `images` (K, 51, 51), `coefficients` (K, R, C) of every band."""
    images = gaussian_psf(sigma)[None] if images is None else images
    coefficients = np.ones((len(images), 1, 1)) if coefficients is None else coefficients
    rows, columns = coefficients.shape[1:]
    full = np.full((len(images), 5, 5), 7.7)  # outside its corner a real file holds whatever was in memory
    full[:, :rows, :columns] = coefficients
    count = len(images)
    planes = np.empty(count, dtype=object)
    for k, image in enumerate(images):
        planes[k] = image.ravel().astype(">f4")
    eigen = [
        fits.Column("nrow_b", "1J", array=[rows] * count),
        fits.Column("ncol_b", "1J", array=[columns] * count),
        fits.Column("c", "25E", dim="(5,5)", array=full),
        fits.Column("RNROW", "1J", array=[images.shape[1]] * count),
        fits.Column("RNCOL", "1J", array=[images.shape[2]] * count),
        fits.Column("RROWS", "PE()", array=planes),
    ]
    summary = [
        fits.Column("gain", "5E", array=[np.full(5, gain)]),
        fits.Column("dark_variance", "5E", array=[np.full(5, dark_variance)]),
    ]
    primary = fits.PrimaryHDU()
    primary.header.update({"RUN": identity.run, "CAMCOL": identity.camcol, "FIELD": identity.field})
    hdus = [primary, *(fits.BinTableHDU.from_columns(eigen) for _ in BANDS), fits.BinTableHDU.from_columns(summary)]
    return write_hdus(path, hdus)


def write_fpm(path: Path, identity: FieldId, shape: tuple[int, int], spans: dict[str, list]) -> Path:
    """Write an fpM; `spans` maps a mask type to a list of objects, each a list of (row, first, last)."""
    primary = fits.PrimaryHDU()
    primary.header.update(
        {
            "RUN": identity.run,
            "CAMCOL": identity.camcol,
            "FIELD": identity.field,
            "MASKROWS": shape[0],
            "MASKCOLS": shape[1],
        }
    )
    hdus = [primary]
    for kind in MASKS:
        objects = spans.get(kind, [])
        packed = np.empty(len(objects), dtype=object)
        for n, runs in enumerate(objects):
            packed[n] = np.array(runs, dtype=">u2").view(np.uint8).ravel()
        columns = [
            fits.Column("nspan", "1J", array=[len(runs) for runs in objects]),
            fits.Column("s", "PB()", array=packed),
        ]
        hdus.append(fits.BinTableHDU.from_columns(columns))
    names = [f"S_MASK_{kind}" for kind in MASKS] + ["S_NMASK_TYPES"]
    hdus.append(
        fits.BinTableHDU.from_columns(
            [
                fits.Column("defName", "31A", array=["S_MASKTYPE"] * len(names)),
                fits.Column("attributeName", "31A", array=names),
                fits.Column("Value", "1J", array=list(range(len(names)))),
            ]
        )
    )
    return write_hdus(path, hdus)


def write_photoobj(path: Path, identity: FieldId, objects: pd.DataFrame) -> Path:
    """Write a photoObj file.

    `objects` has x, y (px from 0, in the band of `identity`) and nmgy; optional columns with their defaults: type 6,
    flags BINNED1, objc_flags 0, nchild 0, mode 1, clean 1, cmodel (= nmgy), ra 150, dec 2.
    """
    n = len(objects)
    band = BANDS.index(identity.band)

    def get(name: str, default: float) -> np.ndarray:
        return np.asarray(objects[name]) if name in objects else np.full(n, default)

    def five(values: np.ndarray, elsewhere: float, dtype: str) -> np.ndarray:
        result = np.full((n, 5), elsewhere, dtype=dtype)
        result[:, band] = values
        return result

    nmgy = get("nmgy", 1.0)
    objids = [f"12376{identity.run:06d}{identity.field:04d}{k:04d}" for k in range(n)]
    columns = [
        fits.Column("OBJID", "19A", array=objids),
        fits.Column("RUN", "I", array=np.full(n, identity.run)),
        fits.Column("CAMCOL", "B", array=np.full(n, identity.camcol)),
        fits.Column("FIELD", "I", array=np.full(n, identity.field)),
        fits.Column("MODE", "B", array=get("mode", 1)),
        fits.Column("CLEAN", "B", array=get("clean", 1)),
        fits.Column("NCHILD", "I", array=get("nchild", 0)),
        fits.Column("OBJC_TYPE", "J", array=get("type", 6)),
        fits.Column("OBJC_FLAGS", "J", array=get("objc_flags", 0)),
        fits.Column("FLAGS", "5J", array=five(get("flags", BINNED1), 0, ">i4")),
        # other bands hold other positions: taking those of r must fail a test
        fits.Column("ROWC", "5E", array=five(get("y", 0.0) + 0.5, -77.0, ">f4")),
        fits.Column("COLC", "5E", array=five(get("x", 0.0) + 0.5, -77.0, ">f4")),
        fits.Column("PSFFLUX", "5E", array=five(nmgy, 1e5, ">f4")),
        fits.Column("PSFMAGERR", "5E", array=five(np.full(n, 0.02), 9.0, ">f4")),
        fits.Column("CMODELFLUX", "5E", array=five(objects.get("cmodel", pd.Series(nmgy)).to_numpy(), 1e5, ">f4")),
        fits.Column("RA", "D", array=get("ra", 150.0)),
        fits.Column("DEC", "D", array=get("dec", 2.0)),
    ]
    return write_hdus(path, [fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)])


@dataclass
class Scene:
    """A field written by :func:`write_field` and what is in it."""

    identity: FieldId
    paths: dict[str, Path]  # frame, photoObj, psField, fpM
    objects: pd.DataFrame  # x, y, nmgy, type
    calibration: np.ndarray
    sky: float
    gain: float
    dark_variance: float

    @property
    def zero_point(self) -> float:
        """Magnitude of one electron."""
        return 22.5 - 2.5 * np.log10(float(np.median(self.calibration)) / self.gain)


def write_field(
    root: Path,
    rng: np.random.Generator,
    *,
    run: int = 1234,
    camcol: int = 3,
    field: int = 56,
    shape: tuple[int, int] = (512, 640),
    stars: int = 30,
    magnitudes: tuple[float, float] = (15.0, 20.0),
    noise: bool = True,
    mode: int = 1,
    clean: int = 1,
) -> Scene:
    """Write a whole field into a ``sas`` tree below `root`: Gaussian stars on a grid, so that all are isolated."""
    identity = FieldId(run, camcol, field, "g")
    gain, dark, sky, sigma = 3.845, 1.3225, 90.0, 1.6
    height, width = shape
    calibration = 0.0037 * (1 + 0.01 * np.sin(np.arange(width) / 40.0))
    grid = np.array([(x, y) for y in range(40, height - 20, 45) for x in range(40, width - 20, 45)], float)
    if stars > len(grid):
        raise ValueError(f"{stars} stars do not fit on a grid of {len(grid)}")
    x, y = (rng.permutation(grid)[:stars] + rng.uniform(-0.5, 0.5, (stars, 2))).T
    nmgy = 10 ** (0.4 * (22.5 - rng.uniform(*magnitudes, stars)))
    image = np.zeros(shape)
    columns, rows = np.arange(width), np.arange(height)
    from scipy.special import erf

    for px, py, flux in zip(x, y, nmgy, strict=True):
        lines = []
        for axis, position in ((columns, px), (rows, py)):
            root2 = np.sqrt(2) * sigma
            lines.append((erf((axis + 0.5 - position) / root2) - erf((axis - 0.5 - position) / root2)) / 2)
        image += flux * np.outer(lines[1], lines[0])
    if noise:
        counts = image / calibration + sky
        counts = rng.poisson(counts * gain) / gain + rng.normal(0, np.sqrt(dark), shape)
        image = (counts - sky) * calibration
    where = {role: root / identity.server_path(role) for role in ("frame", "photoObj", "psField", "fpM")}
    write_frame(where["frame"], image, calibration, np.full((12, 16), sky), identity)
    write_psfield(where["psField"], identity, gain=gain, dark_variance=dark, sigma=sigma)
    write_fpm(where["fpM"], identity, shape, {"INTERP": [[(r, 5, 6) for r in range(height)]]})
    objects = pd.DataFrame({"x": x, "y": y, "nmgy": nmgy, "type": 6, "mode": mode, "clean": clean})
    write_photoobj(where["photoObj"], identity, objects)
    return Scene(identity, where, objects, calibration.astype(np.float32), sky, gain, dark)


def wcs() -> WCS:
    result = WCS(naxis=2)
    result.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    result.wcs.crval, result.wcs.crpix = [336.6, -0.9], [250.5, 200.5]
    result.wcs.cd = np.array([[0, 1.1e-4], [1.1e-4, 0]])
    return result


def real(shared: Path) -> dict[str, Path]:
    """Return the files of field 94-1-12 by role."""
    identity = FieldId(94, 1, 12, "g")
    return {role: shared / "sdss/sas" / identity.server_path(role) for role in ("frame", "psField", "fpM", "photoObj")}
