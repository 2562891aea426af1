"""What the classical measurers share: their table, their confidence, their constant offsets."""

import numpy as np
import pandas as pd

from pnet.common.errors import ConfigError
from pnet.frame import Frame
from pnet.sky import matching

HALF_CONFIDENCE = 5.0  # signal-to-noise ratio of confidence 0.5
TYPICAL_FWHM = 1.3  # arcsec, where the frame does not know its seeing
ENOUGH = 5  # matched stars from which on a frame's own offset is better known than that of all frames
PER_FRAME = ("psfex", "photutils")  # methods whose PSF, and with it the zero of their magnitudes, is each frame's own


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


def assemble(x, y, flux, flux_err, frame: Frame, **more) -> pd.DataFrame:
    """Return the columns that all measurers have; a source without a positive flux has no magnitude.

    Parameters
    ----------
    x, y : array, (N,)
        px, centre of the first pixel at 0.
    flux, flux_err : array, (N,)
        Electrons.
    frame : Frame
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


def remove_offset(
    table: pd.DataFrame, columns: tuple[str, ...] = ("x", "y", "mag"), per_frame: bool = False
) -> tuple[pd.DataFrame, dict]:
    """Subtract a method's constant offset from its matched stars' truth, as the paper does for SExtractor (4.1).

    Parameters
    ----------
    table : DataFrame
        Measurement table of one method.
    columns : tuple of str
        Which of x, y (px) and mag to correct.
    per_frame : bool
        Take off each frame's own offset where at least `ENOUGH` of its stars are matched, else that of all. A PSF
        measured on the frame is normalised and centred by that frame's stars, so that the zero point and, by some
        thousandths of a pixel, the origin change from frame to frame.

    Returns
    -------
    table : DataFrame
        A corrected copy.
    offsets : dict
        Median of measurement minus truth of all matched stars, by column; 0 where no star is matched.
    """
    table, offsets = table.copy(), {}
    matched = table["status"] == matching.MATCHED
    for column in columns:
        difference = (table.loc[matched, column] - table.loc[matched, f"truth_{column}"]).dropna()
        offsets[column] = float(difference.median()) if len(difference) else 0.0
        if per_frame:
            stars = difference.groupby(table.loc[difference.index, "frame"]).agg(["median", "size"])
            own = stars.loc[stars["size"] >= ENOUGH, "median"]
            table[column] -= table["frame"].map(own).fillna(offsets[column]).astype(float)
        else:
            table[column] = table[column] - offsets[column]
    return table, offsets
