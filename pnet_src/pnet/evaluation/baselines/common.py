"""What the classical measurers share: their table, their confidence, and the AstrOmatic programs."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pnet.common import programs
from pnet.common.errors import ConfigError, MissingError
from pnet.frame import Frame

HALF_CONFIDENCE = 5.0  # signal-to-noise ratio of confidence 0.5
TYPICAL_FWHM = 1.3  # arcsec, where the frame does not know its seeing
TIME_LIMIT = 300  # s per frame; a program needs a second
NOT_INSTALLED = "not installed"


@dataclass(frozen=True)
class AstrOmatic:
    """One of the AstrOmatic programs: its name, the names of its executable, and how to install it."""

    name: str
    commands: tuple[str, ...]
    install: str

    def find(self) -> str | None:
        """Return the path of the program, or None."""
        return next(filter(None, map(shutil.which, self.commands)), None)

    def needed(self) -> str:
        """Return the path of the program; MissingError, with the command that installs it, if it is not on PATH."""
        if program := self.find():
            return program
        raise MissingError(f"{self.name} ({' or '.join(self.commands)}) is not on PATH; {self.install}")

    def version(self) -> str:
        """Return what the program says of itself."""
        if not (program := self.find()):
            return NOT_INSTALLED
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30)
        return (done.stdout or done.stderr).strip()

    def run(self, arguments: list[str], settings: Mapping[str, object], folder: Path) -> None:
        """Run the program in `folder` with its settings on the command line; a PNetError says what it printed."""
        options = [word for key, value in settings.items() for word in (f"-{key}", str(value))]
        programs.run([self.needed(), *arguments, *options], folder, self.name, TIME_LIMIT)


SEXTRACTOR = AstrOmatic(
    "SExtractor", ("source-extractor", "sex"), "conda install -c conda-forge astromatic-source-extractor"
)
PSFEX = AstrOmatic("PSFEx", ("psfex",), "conda install -c conda-forge astromatic-psfex")


def confidence_of(snr: np.ndarray) -> np.ndarray:
    """Return r / (r + 5) of a signal-to-noise ratio r; 0 where r is not positive or not finite."""
    snr = np.where(np.isfinite(snr), np.maximum(snr, 0), 0)
    return snr / (snr + HALF_CONFIDENCE)


@dataclass(frozen=True)
class Baseline:
    """A classical measurer: it takes a frame, and ``version()`` says what it is and with which settings."""

    threshold: float

    def __post_init__(self):
        if not self.threshold > 0:
            raise ConfigError(f"threshold is {self.threshold}, it must be positive (sigmas of the sky)")


def fwhm_of(frame: Frame) -> float:
    """Return the seeing's FWHM in px as the frame tells it, or a typical one."""
    return (frame.seeing or TYPICAL_FWHM) / frame.pixel_scale


def odd(length: float) -> int:
    """Return an odd number of pixels near a length."""
    return 2 * round(length / 2) + 1


def assemble(frame: Frame, *, x, y, flux, flux_err, **more) -> pd.DataFrame:
    """Return the columns that all measurers have: x, y, confidence, flux, mag, mag_err and `more`, all float.

    Arrays are (N,): x, y in px, centre of the first pixel at 0, fluxes in electrons. A source without a positive flux
    has no magnitude.
    """
    flux, flux_err = np.asarray(flux, dtype=float), np.asarray(flux_err, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        confidence = confidence_of(flux / flux_err)
        mag_err = np.where(flux > 0, 2.5 / np.log(10) * flux_err / flux, np.nan)
    columns = {"x": x, "y": y, "confidence": confidence, "flux": flux, "mag": frame.magnitude(flux)}
    return pd.DataFrame({**columns, "mag_err": mag_err, **more}).astype(float)
