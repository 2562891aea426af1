"""What the physics of a recipe predicts for a frame, without a renderer: star stamps and slopes, far light, sky."""

from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import signal
from scipy.interpolate import RectBivariateSpline

from pnet.common.errors import DataError
from pnet.frame import Frame
from pnet.simulation.recipe import Recipe
from pnet.sky.psf import FIELD, OVERSAMPLING, Aureole, Optics, pixel_psf, psf_map

HALF = 20  # px; stamps are 41 px wide
REACH = FIELD // 2 - 4  # px; as far as the PSF map goes


def far_light(frame: Frame, truth: pd.DataFrame, recipe: Recipe) -> np.ndarray:
    """Return the electrons that all sources of a frame send to each pixel, right far from them (positions are rounded).

    Parameters
    ----------
    frame : Frame
    truth : DataFrame
        x, y (px from 0), flux (electrons).
    recipe : Recipe
        Optics and aureole.

    Returns
    -------
    ndarray, (H, W)
    """
    image = np.zeros((frame.shape[0] + 2 * REACH, frame.shape[1] + 2 * REACH))
    for source in truth.itertuples():
        row, column = int(np.floor(source.y + 0.5)) + REACH, int(np.floor(source.x + 0.5)) + REACH
        if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
            image[row, column] += source.flux
    near = _wings(seeing_of(frame), frame.pixel_scale, recipe.optics)
    image = signal.fftconvolve(image, near, mode="same")
    if recipe.aureole is not None:
        image = signal.fftconvolve(image, recipe.aureole.kernel(), mode="same")
    return image[REACH:-REACH, REACH:-REACH]


def star_stamp(frame: Frame, recipe: Recipe, dx: float, dy: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the (41, 41) light fractions of a star at (dx, dy) px from the stamp's middle, and its slopes in x and y.

    The slopes are by pixel position (1/px): a star that moves by δ changes by −δ times the slope.
    """
    spline = _splines(seeing_of(frame), frame.pixel_scale, recipe.optics, recipe.aureole)
    axis = np.arange(-HALF, HALF + 1)
    return spline(axis - dy, axis - dx), spline(axis - dy, axis - dx, dy=1), spline(axis - dy, axis - dx, dx=1)


def far_stamp(frame: Frame, recipe: Recipe) -> np.ndarray:
    """Return what `far_light` gives to the (41, 41) stamp around a source of one electron."""
    return _far_stamp(seeing_of(frame), frame.pixel_scale, recipe.optics, recipe.aureole)


def sky(frame: Frame) -> float:
    """Return the electrons per pixel that the header's BACKMAG means."""
    return float(frame.flux(header(frame, "BACKMAG"))) * frame.pixel_scale**2


def seeing_of(frame: Frame) -> float:
    """Return the header's seeing in arcsec, or raise DataError."""
    if frame.seeing is None:
        raise DataError(f"frame {frame.name}: its header has no SEEING, which validation needs")
    return float(frame.seeing)


def header(frame: Frame, card: str) -> float:
    """Return a number of the frame's header, or raise DataError with the name of the card."""
    if card not in frame.meta:
        raise DataError(f"frame {frame.name}: its header has no {card}, which validation needs")
    return float(frame.meta[card])


@lru_cache(maxsize=32)
def _splines(seeing: float, pixel_scale: float, optics: Optics, aureole: Aureole | None) -> RectBivariateSpline:
    """Return the PSF as a function of (row, column) offset in px, within reach of a stamp."""
    table = psf_map(seeing, pixel_scale, optics, aureole)
    reach = (HALF + 2) * OVERSAMPLING
    middle = FIELD * OVERSAMPLING // 2
    axis = np.arange(-reach, reach + 1) / OVERSAMPLING
    return RectBivariateSpline(
        axis, axis, table[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    )


@lru_cache(maxsize=32)
def _wings(seeing: float, pixel_scale: float, optics: Optics) -> np.ndarray:
    """Return the whole PSF at pixel sampling, star in the middle of a pixel, without aureole."""
    return pixel_psf(seeing, pixel_scale, size=2 * REACH + 1, optics=optics, aureole=None)


@lru_cache(maxsize=32)
def _far_stamp(seeing: float, pixel_scale: float, optics: Optics, aureole: Aureole | None) -> np.ndarray:
    """Return what `far_light` gives to the (41, 41) stamp around a source of one electron."""
    light = _wings(seeing, pixel_scale, optics)
    if aureole is not None:
        light = signal.fftconvolve(light, aureole.kernel(), mode="same")
    return light[REACH - HALF : REACH + HALF + 1, REACH - HALF : REACH + HALF + 1]
