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
INSTALL = "conda install -c conda-forge astromatic-source-extractor"
OUTPUT = (
    *("NUMBER", "XWIN_IMAGE", "YWIN_IMAGE", "X_IMAGE", "Y_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO", "FLAGS"),
    *("ERRX2WIN_IMAGE", "ERRY2WIN_IMAGE", "CLASS_STAR"),
)


def find_sextractor() -> str | None:
    """Return the path of the SExtractor program, or None."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


def needed_sextractor() -> str:
    """Return the path of the program; MissingError, with the command that installs it, if it is not on PATH."""
    program = find_sextractor()
    if program is None:
        raise MissingError(f"SExtractor ({' or '.join(PROGRAMS)}) is not on PATH; {INSTALL}")
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


def column(found: Table, name: str) -> np.ndarray:
    """Return a column of a catalogue as float; NaN where the catalogue lacks it (CLASS_STAR without its network)."""
    return np.asarray(found[name] if name in found.colnames else np.full(len(found), np.nan), float)


def positions(found: Table) -> dict[str, np.ndarray]:
    """Return windowed x, y counted from 0 with x_err, y_err; isophotal, without error, where undefined.

    The errors hold photon noise of the weighted sum, ERRX2WIN_IMAGE, in px.
    """
    windowed = (found["XWIN_IMAGE"] > 0) & (found["YWIN_IMAGE"] > 0)
    values = {}
    for axis in "xy":
        name = axis.upper()
        values[axis] = np.where(windowed, column(found, f"{name}WIN_IMAGE"), column(found, f"{name}_IMAGE")) - 1
        variance = column(found, f"ERR{name}2WIN_IMAGE")
        values[f"{axis}_err"] = np.where(windowed & (variance > 0), np.sqrt(np.maximum(variance, 0)), np.nan)
    return values


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
            f"beside the program; {INSTALL}"
        )
    return table[table["class_star"] >= least].reset_index(drop=True)


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
        for name in ("min_class_star", "min_contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, allowed is 0 to 1")

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
        needed_sextractor()
        with tempfile.TemporaryDirectory(prefix=f"pnet-{self.name}-") as folder:
            write_frame(Path(folder), frame)
            return starlike(self._measure(Path(folder), frame), self.min_class_star)

    def _measure(self, folder: Path, frame: Frame) -> pd.DataFrame:
        found = Table.read(extract(folder, frame, OUTPUT, self._configuration), hdu=2)
        fluxes = {"flux": column(found, "FLUX_AUTO"), "flux_err": column(found, "FLUXERR_AUTO")}
        more = {"class_star": column(found, "CLASS_STAR"), "flags": found["FLAGS"]}
        return assemble(frame, **positions(found), **fluxes, **more)

    @property
    def _configuration(self) -> dict[str, object]:
        return {
            "DETECT_THRESH": self.threshold,
            "ANALYSIS_THRESH": self.threshold,
            "DEBLEND_MINCONT": self.min_contrast,
        }

    def version(self) -> str:
        """Return what the program says of itself, and the settings in its words."""
        said = version_of(find_sextractor())
        if said == "not installed":
            return said
        cut = f", CLASS_STAR ≥ {self.min_class_star:g}" if self.min_class_star else ""
        return f"{said}, DETECT_THRESH {self.threshold:g}, DEBLEND_MINCONT {self.min_contrast:g}{cut}"
