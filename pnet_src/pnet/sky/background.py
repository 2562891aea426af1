"""The sky of a frame: one estimate for every user of it (network input, stamps, baselines)."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import scipy
import sep

from pnet.frame import Frame
from pnet.sky import noise

SKEW = 2.5 / 6  # electrons; see `estimate`
BESIDE = 5  # meshes that the median smooths the sky over where the stars' light is off
CROWDED = 1.2  # clutter over noise; frames of SDSS and SkyMaker, galaxies and all, have 0.98 to 1.03
MESH = 64  # px; SExtractor's default, many times a star's width and far below the scale of sky gradients


class Background(NamedTuple):
    """Sky of a frame.

    `level` (H, W) float32 electrons; `rms` the standard deviation of an empty pixel in electrons, and `clutter` that of
    a pixel among sources, which is greater where there are so many that hardly a pixel is empty.
    """

    level: np.ndarray
    rms: float
    clutter: float


class Subtracted(NamedTuple):
    """A frame without its sky: `image` (H, W) float32 electrons, `rms` and `clutter` as in `Background`."""

    image: np.ndarray
    rms: float
    clutter: float


def estimate(frame: Frame, smooth: int = 3) -> Background:
    """Estimate the sky with SExtractor's mesh of clipped modes, through SEP (Bertin & Arnouts 1996; Barbary 2016).

    The mode is 2.5 medians less 1.5 means; `smooth` meshes are median filtered. On whole ADU the median jumps by a
    whole step, so that the sky of a mesh would be off by up to half a standard deviation; spreading the values over
    their step (always in the same way) mends it. And photons are skewed: where a Poisson part λ is in the variance σ²,
    the mean lies λ/(6σ²) above the median, and 2.5 medians less 1.5 means lie 2.5 times as far below the mean. That is
    0.4 electrons of 280, and over an aperture 2 to 3 mmag of a star of 19.5 mag; it is put back.
    """
    mesh = min(MESH, *frame.shape)
    spread = np.random.default_rng(0).uniform(-0.5, 0.5, frame.shape).astype(np.float32) * np.float32(frame.gain)
    sky = sep.Background(frame.image + spread, mask=frame.mask, bw=mesh, bh=mesh, fw=smooth, fh=smooth)
    level, rms = sky.back(dtype=np.float32), float(sky.globalrms)
    photons = np.clip(level / rms**2, 0, 1) if rms > 0 else np.float32(0)  # λ/σ²
    if not rms > 0:  # a frame without noise, or almost wholly masked
        rms = float(np.sqrt(np.median(frame.variance)))
    quiet = noise.sky_noise(frame.image, frame.mask)
    crowded = quiet is not None and rms > CROWDED * quiet.sigma
    return Background(level + np.float32(SKEW) * photons, quiet.sigma if crowded else rms, rms)


def beside(frame: Frame, light: np.ndarray, rms: float) -> Background:
    """Return the sky, estimated beside the stars' light instead of among it.

    Around bright stars a first estimate counts their wings and aureoles as sky: some hundredths of the noise in each
    pixel, which over a faint star's aperture adds an eighth to its error. Their cores, where a model fits to a per cent
    at best, are left out.

    Parameters
    ----------
    frame : Frame
    light : ndarray, (H, W)
        Electrons of the known stars.
    rms : float
        Noise of an empty pixel in electrons.
    """
    rest = replace(frame, image=frame.image - light, mask=frame.mask | (light > rms))
    return estimate(rest, BESIDE)


def subtracted(frame: Frame) -> Subtracted:
    """Return the frame without its sky.

    Each patch of masked pixels takes the median of the pixels around it: among sky it becomes sky, and the core of a
    saturated star, which surveys mask, a flat top. A hole there would look like a ring of stars. Pixels that hold an
    interpolated value keep it: a bad column is one patch from edge to edge, and a star on it would lose its middle.
    """
    sky = estimate(frame)
    image = (frame.image - sky.level).astype(np.float32)
    empty = frame.mask if frame.interpolated is None else frame.mask & ~frame.interpolated
    return Subtracted(filled(image, empty, frame.mask), sky.rms, sky.clutter)


def filled(image: np.ndarray, patches: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return an image whose connected patches take the median of the pixels around each that are not masked, 0 where
    there is none."""
    image = image.copy()
    labels, _ = scipy.ndimage.label(patches, structure=np.ones((3, 3)))
    for index, box in enumerate(scipy.ndimage.find_objects(labels), start=1):
        wider = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
        patch = labels[wider] == index
        around = image[wider][scipy.ndimage.binary_dilation(patch, np.ones((3, 3))) & ~mask[wider]]
        image[wider][patch] = np.median(around) if around.size else 0.0
    return image
