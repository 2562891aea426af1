"""SExtractor (Bertin & Arnouts 1996): the program, run on a frame in a temporary folder."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.table import Table

from pnet.common.errors import DataError, MissingError
from pnet.evaluation.baselines.common import (
    NOT_INSTALLED,
    SEXTRACTOR,
    TYPICAL_FWHM,
    AstrOmatic,
    Baseline,
    assemble,
)
from pnet.frame import Frame

PYRAMID = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=np.float32)  # SExtractor's default detection filter
NEVER_SATURATED = 1e10  # electrons; the program refuses larger levels
OUTPUT = (
    *("NUMBER", "XWIN_IMAGE", "YWIN_IMAGE", "X_IMAGE", "Y_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO"),
    *("ERRX2WIN_IMAGE", "ERRY2WIN_IMAGE", "CLASS_STAR"),
)


def network() -> Path | None:
    """Return the file of CLASS_STAR's weights that was installed with the program, or None."""
    share = Path(SEXTRACTOR.needed()).resolve().parent.parent / "share"
    places = (share / name / "default.nnw" for name in ("source-extractor", "sextractor"))
    return next((place for place in places if place.is_file()), None)


@dataclass(frozen=True)
class SExtractor(Baseline):
    """The program with its default configuration, apart from the settings below.

    MAG_AUTO, windowed positions, and CLASS_STAR where the program's neural-network weights are installed.

    Parameters
    ----------
    threshold : float
        DETECT_THRESH and ANALYSIS_THRESH in sigmas of the sky.
    min_class_star, min_contrast : float
        Sources of a lower CLASS_STAR are left out, 0 keeps all; DEBLEND_MINCONT, the share of a blend's light from
        which on a part of it is a source of its own.
    """

    threshold: float = 1.5
    min_class_star: float = 0.0
    min_contrast: float = 0.005
    name: str = "sextractor"
    programs: ClassVar[tuple[AstrOmatic, ...]] = (SEXTRACTOR,)

    def __call__(self, frame: Frame) -> pd.DataFrame:
        """Measure a frame: x, y (px), x_err, y_err, confidence, flux (electrons), mag, mag_err, class_star.

        A MissingError if the program is not on PATH, or CLASS_STAR is asked for and its weights are not installed; a
        PNetError if it fails, which ends with what it printed.
        """
        for program in self.programs:
            program.needed()
        if self.min_class_star and network() is None:
            raise MissingError(
                f"min_class_star is {self.min_class_star}, but CLASS_STAR needs default.nnw, which should lie in "
                f"share/source-extractor beside the program; {SEXTRACTOR.install}"
            )
        with tempfile.TemporaryDirectory(prefix=f"pnet-{self.name}-") as name:
            folder = Path(name)
            # the image is in electrons
            fits.PrimaryHDU(frame.image, fits.Header({"GAIN": 1.0})).writeto(folder / "frame.fits")
            if frame.mask.any():
                fits.PrimaryHDU((~frame.mask).astype(np.float32)).writeto(folder / "weight.fits")
            rows = "\n".join(" ".join(f"{value:g}" for value in row) for row in PYRAMID)
            (folder / "filter.conv").write_text(f"CONV NORM\n{rows}\n")
            (folder / "empty").write_text("")
            found = self._measure(folder, frame)
        # NaN where the weights are not installed
        return found[~(found["class_star"] < self.min_class_star)].reset_index(drop=True)

    def _measure(self, folder: Path, frame: Frame) -> pd.DataFrame:
        return assemble(frame, **columns_of(self._catalogue(folder, frame, OUTPUT)))

    def _catalogue(self, folder: Path, frame: Frame, output: Sequence[str], **settings: object) -> pd.DataFrame:
        """Run the program; return its columns as float, CLASS_STAR NaN where its network is not installed."""
        found = Table.read(self._extract(folder, frame, output, "measured.fits", **settings), hdu=2).to_pandas()
        return found.reindex(columns=list(output)).astype(float)

    def _extract(self, folder: Path, frame: Frame, output: Sequence[str], catalogue: str, **settings: object) -> Path:
        """Run the program on ``frame.fits``; return its catalogue, FITS_LDAC, with these columns."""
        weights = network()
        given = {
            **{"CATALOG_NAME": catalogue, "CATALOG_TYPE": "FITS_LDAC", "VERBOSE_TYPE": "QUIET"},
            **{"PARAMETERS_NAME": "output.param", "FILTER_NAME": "filter.conv"},
            **{"SATUR_LEVEL": min(frame.saturation, NEVER_SATURATED), "SATUR_KEY": "NONE", "GAIN": 1.0},
            **{"MAG_ZEROPOINT": frame.zero_point, "PIXEL_SCALE": frame.pixel_scale},
            **{"SEEING_FWHM": frame.seeing or TYPICAL_FWHM, "DEBLEND_MINCONT": self.min_contrast},
            **{"DETECT_THRESH": self.threshold, "ANALYSIS_THRESH": self.threshold, **settings},
            **({"STARNNW_NAME": weights} if weights else {}),
            **({"WEIGHT_TYPE": "MAP_WEIGHT", "WEIGHT_IMAGE": "weight.fits"} if frame.mask.any() else {}),
        }
        columns = [name for name in output if weights or name != "CLASS_STAR"]
        (folder / "output.param").write_text("\n".join(columns) + "\n")
        SEXTRACTOR.run(["frame.fits", "-c", "empty"], given, folder)
        if not (folder / catalogue).exists():
            raise DataError("SExtractor wrote no catalogue")
        return folder / catalogue

    def version(self) -> str:
        """Return what the programs say of themselves, and the settings in their words."""
        said = [program.version() for program in self.programs]
        if NOT_INSTALLED in said:
            return NOT_INSTALLED
        cut = f", CLASS_STAR ≥ {self.min_class_star:g}" if self.min_class_star else ""
        settings = f"DETECT_THRESH {self.threshold:g}, DEBLEND_MINCONT {self.min_contrast:g}{cut}"
        return f"{' + '.join(said)}, {settings}"


def columns_of(found: pd.DataFrame) -> dict[str, pd.Series]:
    """Return x, y, x_err, y_err (px), flux, flux_err (electrons) and class_star of a catalogue.

    Positions are windowed and counted from 0; their errors hold photon noise of the weighted sum, ERRX2WIN_IMAGE. Where
    they are undefined the isophotal position stands, without error.
    """
    known = (found["XWIN_IMAGE"] > 0) & (found["YWIN_IMAGE"] > 0)
    names = {"flux": "FLUX_AUTO", "flux_err": "FLUXERR_AUTO", "class_star": "CLASS_STAR"}
    values = {name: found[column] for name, column in names.items()}
    for axis, name in (("x", "X"), ("y", "Y")):
        variance = found[f"ERR{name}2WIN_IMAGE"]
        values[axis] = found[f"{name}WIN_IMAGE"].where(known, found[f"{name}_IMAGE"]) - 1
        values[f"{axis}_err"] = np.sqrt(variance.where(known & (variance > 0)))
    return values
