"""SExtractor (Bertin & Arnouts 1996): the program, run on a frame in a temporary folder."""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.table import Table

from pnet.common import programs
from pnet.common.errors import ConfigError, DataError, MissingError, PNetError
from pnet.evaluation.baselines.common import TYPICAL_FWHM, assemble, check_threshold
from pnet.frame import Frame

PROGRAMS = ("source-extractor", "sex")  # Debian's and conda-forge's name
MIN_CONTRAST = 0.005  # SExtractor's default DEBLEND_MINCONT
PYRAMID = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=np.float32)  # SExtractor's default detection filter
NEVER_SATURATED = 1e10  # electrons; the program refuses larger levels
TIME_LIMIT = 300  # s per frame; SExtractor needs a fraction of a second

OUTPUT = ("NUMBER", "XWIN_IMAGE", "YWIN_IMAGE", "X_IMAGE", "Y_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO", "FLAGS")
ERRORS = ("ERRX2WIN_IMAGE", "ERRY2WIN_IMAGE")


def find_sextractor() -> str | None:
    """Return the path of the SExtractor program, or None."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


def needed_sextractor() -> str:
    """Return the path of the program.

    Raises
    ------
    MissingError
        If it is not on PATH, with the command that installs it.
    """
    program = find_sextractor()
    if program is None:
        raise MissingError(
            f"SExtractor ({' or '.join(PROGRAMS)}) is not on PATH; "
            "conda install -c conda-forge astromatic-source-extractor"
        )
    return program


def version_of(program: str | None) -> str:
    """Return what an AstrOmatic program says of itself."""
    if program is None:
        return "not installed"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30)
    return (done.stdout or done.stderr).strip()


def network(program: str) -> str | None:
    """Return the file of CLASS_STAR's weights that was installed with the program, or None."""
    share = Path(program).resolve().parent.parent / "share"
    places = (share / name / "default.nnw" for name in ("source-extractor", "sextractor"))
    return next((str(place) for place in places if place.is_file()), None)


def write_frame(folder: Path, frame: Frame) -> None:
    """Write what the program reads: image in electrons, weights where pixels are masked, filter, empty settings."""
    header = fits.Header({"GAIN": 1.0})  # the image is in electrons
    fits.PrimaryHDU(frame.image, header).writeto(folder / "frame.fits")
    if frame.mask.any():
        fits.PrimaryHDU((~frame.mask).astype(np.float32)).writeto(folder / "weight.fits")
    rows = "\n".join(" ".join(f"{value:g}" for value in row) for row in PYRAMID)
    (folder / "filter.conv").write_text(f"CONV NORM\n{rows}\n")
    (folder / "empty.sex").write_text("")


def extract(folder: Path, frame: Frame, output: Sequence[str], settings: Mapping[str, object]) -> Path:
    """Run the program on the frame that `write_frame` wrote.

    Parameters
    ----------
    folder : Path
    frame : Frame
    output : sequence of str
        Columns of the catalogue; CLASS_STAR is left out where its network is not installed.
    settings : mapping
        What differs from the program's defaults, beside what follows from the frame.

    Returns
    -------
    Path
        The catalogue, FITS_LDAC.

    Raises
    ------
    MissingError
        If the program is not on PATH.
    DataError
        If it fails on this frame; the message ends with what it printed.
    """
    program = needed_sextractor()
    weights = network(program)
    given: dict[str, object] = {
        "CATALOG_NAME": "catalogue.fits",
        "CATALOG_TYPE": "FITS_LDAC",
        "PARAMETERS_NAME": "output.param",
        "FILTER_NAME": "filter.conv",
        "SATUR_LEVEL": min(frame.saturation, NEVER_SATURATED),
        "SATUR_KEY": "NONE",
        "MAG_ZEROPOINT": frame.zero_point,
        "GAIN": 1.0,
        "PIXEL_SCALE": frame.pixel_scale,
        "SEEING_FWHM": frame.seeing or TYPICAL_FWHM,
        "VERBOSE_TYPE": "QUIET",
        **settings,
    }
    if weights:
        given["STARNNW_NAME"] = weights
    if frame.mask.any():
        given |= {"WEIGHT_TYPE": "MAP_WEIGHT", "WEIGHT_IMAGE": "weight.fits"}
    columns = [name for name in output if weights or name != "CLASS_STAR"]
    (folder / "output.param").write_text("\n".join(columns) + "\n")
    run_program([program, "frame.fits", "-c", "empty.sex"], given, folder, frame, "SExtractor")
    catalogue = folder / str(given["CATALOG_NAME"])
    if not catalogue.exists():
        raise DataError(f"frame {frame.name}: SExtractor wrote no catalogue")
    return catalogue


def run_program(command: list[str], settings: Mapping[str, object], folder: Path, frame: Frame, name: str) -> None:
    """Run one of the AstrOmatic programs with its settings on the command line; a failure names the frame."""
    options = [word for key, value in settings.items() for word in (f"-{key}", str(value))]
    try:
        programs.run([*command, *options], folder, name, TIME_LIMIT)
    except PNetError as error:
        raise DataError(f"frame {frame.name}: {error}") from error


def positions(found: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return windowed positions counted from 0 with their errors; isophotal, without error, where undefined.

    The errors hold photon noise of the weighted sum, ERRX2WIN_IMAGE, in px.
    """
    windowed = (found["XWIN_IMAGE"] > 0) & (found["YWIN_IMAGE"] > 0)
    x = np.where(windowed, found["XWIN_IMAGE"], found["X_IMAGE"]) - 1
    y = np.where(windowed, found["YWIN_IMAGE"], found["Y_IMAGE"]) - 1
    errors = (np.where(windowed & (found[name] > 0), np.sqrt(np.maximum(found[name], 0)), np.nan) for name in ERRORS)
    return (x, y, *errors)


def check_share(name: str, value: float) -> None:
    """Refuse a setting that does not lie between 0 and 1."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value}, allowed is 0 to 1")


def starlike(table: pd.DataFrame, least: float) -> pd.DataFrame:
    """Return the sources of at least this CLASS_STAR; 0 keeps all.

    Raises
    ------
    MissingError
        If the program's network for CLASS_STAR is not installed.
    """
    if not least:
        return table
    if network(needed_sextractor()) is None:
        raise MissingError(
            f"min_class_star is {least}, but CLASS_STAR needs default.nnw, which should lie in share/source-extractor "
            "beside the program; conda install -c conda-forge astromatic-source-extractor"
        )
    return table[table["class_star"] >= least].reset_index(drop=True)


def class_star(found: Table) -> np.ndarray:
    """Return CLASS_STAR, 0 (galaxy) to 1 (star); NaN where its network is not installed."""
    return np.asarray(found["CLASS_STAR"] if "CLASS_STAR" in found.colnames else np.full(len(found), np.nan), float)


@dataclass(frozen=True)
class SExtractor:
    """The program with its default configuration, apart from the settings below.

    MAG_AUTO, windowed positions, CLASS_STAR (where the program's neural-network weights are installed), FLAGS.

    Parameters
    ----------
    threshold : float
        DETECT_THRESH and ANALYSIS_THRESH in sigmas of the sky.
    min_class_star : float
        Sources of a lower CLASS_STAR are left out; 0 keeps all.
    min_contrast : float
        DEBLEND_MINCONT: the share of a blend's light from which on a part of it is a source of its own.
    """

    threshold: float = 1.5
    min_class_star: float = 0.0
    min_contrast: float = MIN_CONTRAST
    name: str = "sextractor"

    def __post_init__(self):
        check_threshold(self.threshold)
        check_share("min_class_star", self.min_class_star)
        check_share("min_contrast", self.min_contrast)

    def __call__(self, frame: Frame) -> pd.DataFrame:
        """Measure a frame.

        Returns
        -------
        DataFrame
            x, y (px), x_err, y_err, confidence, flux (electrons), mag, mag_err, snr, class_star, flags.

        Raises
        ------
        MissingError
            If the program is not on PATH, or CLASS_STAR is asked for and its weights are not installed.
        DataError
            If it fails on this frame; the message ends with what it printed.
        """
        settings = {
            "DETECT_THRESH": self.threshold,
            "ANALYSIS_THRESH": self.threshold,
            "DEBLEND_MINCONT": self.min_contrast,
        }
        with tempfile.TemporaryDirectory(prefix="pnet-sextractor-") as folder:
            write_frame(Path(folder), frame)
            catalogue = extract(Path(folder), frame, (*OUTPUT, *ERRORS, "CLASS_STAR"), settings)
            found = Table.read(catalogue, hdu=2)
        x, y, x_err, y_err = positions(found)
        table = assemble(
            x,
            y,
            found["FLUX_AUTO"],
            found["FLUXERR_AUTO"],
            frame,
            x_err=x_err,
            y_err=y_err,
            class_star=class_star(found),
            flags=found["FLAGS"],
        )
        return starlike(table, self.min_class_star)

    def version(self) -> str:
        """Return what the program says of itself, and the settings."""
        said = version_of(find_sextractor())
        return said if said == "not installed" else f"{said}, {self.settings()}"

    def settings(self) -> str:
        """Return the settings in the program's words."""
        cut = f", CLASS_STAR ≥ {self.min_class_star:g}" if self.min_class_star else ""
        return f"DETECT_THRESH {self.threshold:g}, DEBLEND_MINCONT {self.min_contrast:g}{cut}"
