"""The refinement step of the detection net: positions and fluxes from full-resolution pixels, with their errors.

The net works on cells of 4 × 4 px, which is enough to find stars and too coarse to place them. Around each peak the
refiner looks at the pixels themselves and corrects windowed centroids and aperture fluxes; it is one network of the
family that the BPNN belongs to, with plain layers in place of Bayesian ones and a likelihood for its loss.
"""

import numpy as np
import pandas as pd
import torch
from torch import nn

from pnet.detection.predict import without_repeats
from pnet.frame import Frame
from pnet.stars.cutouts import frame_stamps
from pnet.stars.error_scale import Scales
from pnet.stars.inputs import POGSON
from pnet.stars.predict import predict

REACH = 1.0  # px; a star farther from where the net saw it would be another one
REPEAT = 2.5  # px; stars this near are one (the sharpest PSF has a FWHM of 2.5 px), and the net may see three in a pair
PHANTOM_REACH, PHANTOM_CONFIDENCE = 6.0, 0.6  # px; see `_phantoms`
CERTAIN = 0.3  # px; the faintest stars in the worst seeing have errors of 0.07
UNREFINED_MAG = 0.5  # mag; error of the net's own flux in a blend


@torch.inference_mode()
def refine(
    model: nn.Module,
    frame: Frame,
    stars: pd.DataFrame,
    scales: Scales | None = None,
    subtracted: tuple[np.ndarray, float] | None = None,
) -> pd.DataFrame:
    """Return what the detection net found with better positions and fluxes.

    Parameters
    ----------
    model : nn.Module
        A network of single stars with the targets mag, x and y.
    frame : Frame
    stars : DataFrame
        As `detection.predict.detect` returns.
    scales : Scales, optional
        What makes the network's errors true ones, as its card gives it.
    subtracted : (ndarray, float), optional
        What `background.subtracted` gives for the frame, where it is at hand.

    Returns
    -------
    DataFrame
        `stars`, without those that turn out to be the same, with new ``x``, ``y`` (px) and ``flux`` (electrons), and
        with ``x_err``, ``y_err`` (px), ``mag_err`` and ``refined``; where this is False, the values are the net's own
        and the errors upper bounds.
    """
    found = predict(model, frame_stamps(frame, stars, subtracted))
    scales = scales or Scales()
    errors = {name: scales[name](prediction.sigma) for name, prediction in found.items()}
    before = stars[["x", "y"]].to_numpy(float).T
    place = np.floor(before + 0.5) + np.stack([found["x"].mean, found["y"].mean])
    # In a blend the pixels may belong to somebody else; the network says so by its error, and the net's word stands.
    good = (np.abs(place - before) <= REACH).all(axis=0) & (np.maximum(errors["x"], errors["y"]) <= CERTAIN)
    result = unrefined(stars).assign(refined=good, mag_err=np.where(good, errors["mag"], UNREFINED_MAG))
    for index, (axis, side) in enumerate((("x", frame.shape[1]), ("y", frame.shape[0]))):
        chosen = np.where(good, place[index], before[index])
        result[axis] = chosen.clip(-0.5, np.nextafter(side - 0.5, 0))
        result[f"{axis}_err"] = np.where(good, errors[axis], REACH)
    result["flux"] = np.where(good, np.exp(-np.where(good, found["mag"].mean, 0) / POGSON), stars["flux"])
    x, y, confidence = (torch.from_numpy(result[name].to_numpy(float, copy=True)) for name in ("x", "y", "confidence"))
    kept = without_repeats(torch.zeros_like(x, dtype=torch.long), x, y, confidence, REPEAT).numpy()
    result = result[kept].reset_index(drop=True)
    return result[~_phantoms(result)].reset_index(drop=True)


def unrefined(stars: pd.DataFrame) -> pd.DataFrame:
    """Return what the detection net found with the columns that `refine` adds: its own values, and upper bounds of
    their errors."""
    return stars.assign(refined=False, x_err=REACH, y_err=REACH, mag_err=UNREFINED_MAG)


def _phantoms(stars: pd.DataFrame) -> np.ndarray:
    """Return where a weak peak beside a more confident star has nothing in the pixels to show for itself.

    Between the two stars of a close pair the map may rise once more. On 170 frames that are not test frames 49
    detections could not be refined: the 4 below PHANTOM_CONFIDENCE and nearer than PHANTOM_REACH to a more
    confident one were no stars, of the others this near 13 of 14 were.
    """
    x, y, confidence = (stars[name].to_numpy(float) for name in ("x", "y", "confidence"))
    near = np.hypot(x[:, None] - x[None], y[:, None] - y[None]) < PHANTOM_REACH
    beside = (near & (confidence[None] > confidence[:, None])).any(axis=1)
    return beside & ~stars["refined"].to_numpy(bool) & (confidence < PHANTOM_CONFIDENCE)
