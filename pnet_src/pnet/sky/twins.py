"""Dimmed twins: a frame's own bright stars, copied to empty places of it as fainter ones.

The pixels of a bright lone star, scaled down, keep the PSF that nobody needs to know; whole pixels of shift keep its
place between them; the noise that the fainter star's photons would have is added, that of the sky is there. What a
program measures of the copy less what it measures of the original is known without a catalogue: truth on real sky.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.spatial import cKDTree

from pnet.common.errors import DataError
from pnet.frame import Frame
from pnet.sky import background
from pnet.sky.psf_estimate import candidates

REACH = 9.0  # FWHM, half the side of what is copied
ALONE = 8.0  # FWHM, around an original: others have at most LIGHT of its light
LIGHT = 0.01
EMPTY = 7.0  # FWHM, from a copy to the next source or copy
INNER = 2.8  # FWHM, half the side of the square around a copy without a pixel above PEAK σ, its median within LEVEL σ
PEAK, LEVEL = 4.0, 0.35
FAR = 24.0  # FWHM, from an original to its copy along x and along y: farther off the PSF is another
DIMMER = 0.6  # largest ratio of the copy's flux to the original's
TRIES = 40  # places for each copy
NEEDED = 200.0  # ratio of flux to noise of an original


def make(
    frame: Frame,
    stars: pd.DataFrame,
    subtracted: background.Subtracted,
    magnitudes: Sequence[float],
    count: int,
    seed: int,
) -> tuple[Frame, pd.DataFrame]:
    """Return a frame with copies of its stars, and where they are.

    Parameters
    ----------
    frame : Frame
    stars : DataFrame
        Every star of the frame that is known: ``x``, ``y`` (px), ``flux`` (electrons).
    subtracted : Subtracted
        What `background.subtracted` gives for the frame.
    magnitudes : sequence of float
        Edges of the bins of magnitude, rising.
    count : int
        Copies in each bin, if there is room.
    seed : int

    Returns
    -------
    Frame
        Its name ends in ``+twins``.
    DataFrame
        One row a copy: ``x``, ``y`` (px), ``mag``, and ``x_original``, ``y_original``, ``dimming`` (mag).

    Raises
    ------
    DataError
        If the frame has no star bright and lone enough to copy, or no empty place for a copy.
    """
    image, rms, _ = subtracted
    rng = np.random.default_rng(seed)
    x, y, flux = (torch.tensor(stars[name].to_numpy(float)) for name in ("x", "y", "flux"))
    chosen, width = candidates(torch.from_numpy(image)[None], x, y, flux, rms, frame.saturation, 1.5)
    fwhm = 2.355 * width
    place, light = stars[["x", "y"]].to_numpy(float), stars["flux"].to_numpy(float)
    tree, half = cKDTree(place), round(REACH * fwhm) if len(chosen) else 0
    originals = [index for index in chosen.tolist() if _lone(frame, index, tree, light, rms, fwhm, half)]
    if not originals:
        wanted = (
            f"{NEEDED:g} times its noise, others within {ALONE:g} FWHM have less than {100 * LIGHT:g} % of its light"
        )
        raise DataError(
            f"frame {frame.name}: none of its {len(stars)} stars is bright, unsaturated and alone, "
            f"as the original of a copy must be ({wanted})"
        )
    pixels, variance, taken, rows = frame.image.copy(), frame.variance.copy(), place, []
    for low, high in zip(magnitudes, magnitudes[1:], strict=False):
        made = 0
        for _ in range(count * TRIES):
            if made == count:
                break
            index, mag = rng.choice(originals), rng.uniform(low, high)
            share = float(frame.flux(mag)) / light[index]
            target = place[index] + rng.integers(-FAR * fwhm, FAR * fwhm + 1, 2)
            if share > DIMMER or not _empty(frame, image, rms, target, taken, fwhm, half):
                continue
            here, there = (_square(point, half) for point in (place[index], target))
            copied = image[here].astype(float)
            own = (share - share**2) * copied.clip(min=0)  # variance of its photons, less what the copied noise has
            pixels[there] += share * copied + rng.poisson(own) - own
            variance[there] += share * copied.clip(min=0)
            taken = np.vstack([taken, target])
            rows.append((*target, mag, *place[index], -2.5 * np.log10(share)))
            made += 1
    if not rows:
        text = f"nowhere within {FAR * fwhm:.0f} px of its {len(originals)} bright lone stars is an empty place"
        raise DataError(f"frame {frame.name}: {text}, or all of them are too faint for copies of {magnitudes} mag")
    columns = ["x", "y", "mag", "x_original", "y_original", "dimming"]
    twins = replace(frame, name=f"{frame.name}+twins", image=pixels, variance=variance)
    return twins, pd.DataFrame(rows, columns=columns)


def _square(point: np.ndarray, half: int) -> tuple[slice, slice]:
    """Return rows and columns of the square around the pixel that holds a point (x, y)."""
    column, row = np.floor(point + 0.5).astype(int)
    return slice(row - half, row + half + 1), slice(column - half, column + half + 1)


def _inside(frame: Frame, point: np.ndarray, half: int) -> bool:
    height, width = frame.shape
    return bool(half < point[0] < width - 1 - half and half < point[1] < height - 1 - half)


def _lone(frame: Frame, index: int, tree: cKDTree, light: np.ndarray, rms: float, fwhm: float, half: int) -> bool:
    """Return whether a star may be copied: enough signal, nothing masked and little light of others around it."""
    point = tree.data[index]
    if light[index] < NEEDED * np.sqrt(light[index] + 14 * (fwhm * rms) ** 2) or not _inside(frame, point, half):
        return False
    others = [other for other in tree.query_ball_point(point, ALONE * fwhm) if other != index]
    return not frame.mask[_square(point, half // 2)].any() and light[others].sum() < LIGHT * light[index]


def _empty(
    frame: Frame, image: np.ndarray, rms: float, point: np.ndarray, taken: np.ndarray, fwhm: float, half: int
) -> bool:
    """Return whether there is nothing around a place but sky."""
    if not _inside(frame, point, half) or np.hypot(*(taken - point).T).min() < EMPTY * fwhm:
        return False
    around = _square(point, round(INNER * fwhm))
    quiet = image[around].max() < PEAK * rms and abs(np.median(image[around])) < LEVEL * rms
    return bool(quiet and not frame.mask[around].any())
