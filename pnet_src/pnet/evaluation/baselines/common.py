"""What the classical measurers share: their table and their confidence."""

import numpy as np
import pandas as pd

from pnet.common.errors import ConfigError
from pnet.frame import Frame

HALF_CONFIDENCE = 5.0  # signal-to-noise ratio of confidence 0.5
TYPICAL_FWHM = 1.3  # arcsec, where the frame does not know its seeing


def confidence_of(snr: np.ndarray) -> np.ndarray:
    """Return r / (r + 5) of a signal-to-noise ratio r; 0 where r is not positive or not finite."""
    snr = np.where(np.isfinite(snr), np.maximum(snr, 0), 0)
    return snr / (snr + HALF_CONFIDENCE)


def check_threshold(threshold: float) -> None:
    """Refuse a detection threshold that is not positive."""
    if not threshold > 0:
        raise ConfigError(f"threshold is {threshold}, it must be positive (sigmas of the sky)")


def fwhm_of(frame: Frame) -> float:
    """Return the seeing's FWHM in px as the frame tells it, or a typical one."""
    return (frame.seeing or TYPICAL_FWHM) / frame.pixel_scale


def odd(length: float) -> int:
    """Return an odd number of pixels near a length."""
    return 2 * round(length / 2) + 1


def assemble(frame: Frame, *, x, y, flux, flux_err, **more) -> pd.DataFrame:
    """Return the columns that all measurers have; a source without a positive flux has no magnitude.

    Parameters
    ----------
    frame : Frame
    x, y : array, (N,)
        px, centre of the first pixel at 0.
    flux, flux_err : array, (N,)
        Electrons.
    more
        Further columns.

    Returns
    -------
    DataFrame
        x, y, confidence, flux, mag, mag_err, snr and `more`, all float.
    """
    flux, flux_err = np.asarray(flux, dtype=float), np.asarray(flux_err, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = flux / flux_err
        mag_err = np.where(flux > 0, 2.5 / np.log(10) * flux_err / flux, np.nan)
    columns = {"x": x, "y": y, "confidence": confidence_of(snr), "flux": flux, "mag": frame.magnitude(flux)}
    return pd.DataFrame({**columns, "mag_err": mag_err, "snr": snr, **more}).astype(float)
