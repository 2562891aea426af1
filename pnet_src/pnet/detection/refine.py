"""The refinement step of the detection net: positions and fluxes from full-resolution pixels, with their errors.

The net works on cells of 4 × 4 px, which is enough to find stars and too coarse to place them. Around each peak the
refiner looks at the pixels themselves and corrects windowed centroids and aperture fluxes; it is one network of the
family that the BPNN belongs to, with plain layers in place of Bayesian ones and a likelihood for its loss.
"""

import numpy as np
import pandas as pd
import torch
from torch import nn

from pnet.bpnn.predict import predict
from pnet.frame import Frame
from pnet.star.frame import frame_stamps
from pnet.star.inputs import POGSON

REACH = 1.5  # px; a star farther from where the net saw it would be another one


@torch.inference_mode()
def refine(
    model: nn.Module,
    frame: Frame,
    stars: pd.DataFrame,
    ratios: dict[str, float] | None = None,
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
    ratios : dict, optional
        Factor on the σ of 'mag', 'x' and 'y', from validation data; 1 by default.
    subtracted : (ndarray, float), optional
        What `background.subtracted` gives for the frame, where it is at hand.

    Returns
    -------
    DataFrame
        `stars` with new ``x``, ``y`` (px) and ``flux`` (electrons), and with ``x_err``, ``y_err`` (px) and ``mag_err``.
    """
    found = predict(model, frame_stamps(frame, stars, subtracted))
    ratios = {"mag": 1.0, "x": 1.0, "y": 1.0} | (ratios or {})
    result = stars.copy()
    for axis, side in (("x", frame.shape[1]), ("y", frame.shape[0])):
        before = stars[axis].to_numpy(float)
        place = np.floor(before + 0.5) + found[axis].mean
        result[axis] = place.clip(before - REACH, before + REACH).clip(-0.5, np.nextafter(side - 0.5, 0))
        result[f"{axis}_err"] = ratios[axis] * found[axis].sigma
    result["flux"] = np.exp(-found["mag"].mean / POGSON)
    result["mag_err"] = ratios["mag"] * found["mag"].sigma
    return result


def ratios_of(card: dict) -> dict[str, float]:
    """Return the factors on σ, by target, that a card of a network of single stars gives."""
    return {name: fitted["ratio"] for name, fitted in (card.get("recalibration") or {}).items()}
