"""From what the detection net finds to stars fitted with the frame's own PSF, each once."""

import numpy as np
import pandas as pd
import scipy  # which loads its parts when they are used
import torch
from torch import Tensor

from pnet.detection.predict import REPEAT as SEEN_TWICE
from pnet.detection.predict import without_repeats
from pnet.frame import Frame
from pnet.sky import background, psf_estimate
from pnet.sky.frame_psf import FramePSF, split
from pnet.sky.psf_fit import FittedStars, cut, fit_stars, places, together
from pnet.sky.stamps import aperture_weights
from pnet.stars.cores import lost_cores

REACH = 1.0  # px; a star farther from where the net saw it would be another one
REPEAT = 2.5  # px; stars this near are one (the sharpest PSF has a FWHM of 2.5 px), and the net may see three in a pair
PHANTOM_REACH, PHANTOM_CONFIDENCE = 6.0, 0.6  # px; see `_distinct`
CERTAIN = 0.3  # px; the faintest stars in the worst seeing have errors of 0.07
WIDTH = 1.7  # px; for a PSF of a greater Gaussian width than a typical one, both are as much greater
BOUND = 0.5  # mag, added to the error of the magnitude of what is another star
CROWD = 5.0  # where no star is alone, so many times the light of others is allowed beside those of the PSF
LIT = 5.0  # times the noise; fainter stars are not looked for
NEEDED, NEAR_IT = 30.0, 1.5  # gain in χ² of a star beside another, and PSF widths within which it is summed
PASSES = 2  # after the first: stars of a close pair share their light anew in each
WIDTHS = (1.5, 8.0)  # px, FWHM of a PSF that no star tells


def fitted_stars(
    frame: Frame, found: pd.DataFrame, subtracted: background.Subtracted
) -> tuple[pd.DataFrame, FittedStars, np.ndarray]:
    """Return what the detection net found without repeats, its stars fitted with the frame's PSF, row by row, and which
    pixels (H, W) turned out to hold no measurement, see `cores`.

    Parameters
    ----------
    frame : Frame
    found : DataFrame
        As `detection.predict.detect` returns; ``fwhm`` (px) is the PSF's width where no star tells it.
    subtracted : Subtracted
        What `background.subtracted` gives for the frame.
    """
    # at the border of two patches a star may be seen from both, and neither would have light left
    found = found[_once(*places(found)[:2], found, SEEN_TWICE)].reset_index(drop=True)
    start, fits, lost = _round(frame, found, subtracted)
    if subtracted.clutter > subtracted.rms:  # places are better now, and with them the PSF
        x, y, flux = (value.numpy() for value in (fits.x, fits.y, fits.fit.flux))
        start, fits, lost = _round(frame, start.assign(x=x, y=y, flux=flux), subtracted)
    return found.loc[start.index].reset_index(drop=True), fits, lost


def _round(
    frame: Frame, found: pd.DataFrame, subtracted: background.Subtracted
) -> tuple[pd.DataFrame, FittedStars, np.ndarray]:
    """Return what `fitted_stars` does from first guesses, with those rows of them that are stars."""
    first, rms = subtracted.image, subtracted.rms
    image = torch.from_numpy(first)[None]
    width = float(np.clip(found["fwhm"].median(), *WIDTHS)) / 2.355 if len(found) else 1.5
    chosen, width = psf_estimate.candidates(image, *places(found), rms, frame.saturation, width)
    psf = FramePSF.unknown(width, frame.shape)
    usable = torch.from_numpy((~unusable(frame)).astype(np.float32))[None]
    crowded = subtracted.clutter > rms
    if crowded:
        found = _lit(psf, image, usable, found, rms)
        chosen, _ = psf_estimate.candidates(image, *places(found), rms, frame.saturation, width, CROWD)
    # Wings that a first sky has swallowed would be missing from the PSF: both are estimated twice.
    for last in (False, True):
        sky = background.beside(frame, psf.light(*places(found))[0].numpy(), rms)
        # masked pixels are filled
        image = torch.from_numpy(np.where(frame.mask, first, frame.image - sky.level))[None]
        psf = psf if last else psf_estimate.estimate(psf, image, found, chosen, sky.clutter)
    if crowded:
        found = _lit(psf, image, usable, found, rms)
    rms = sky.clutter  # that of the light that is no known star's
    once = fit_stars(psf, image, usable, found, rms)
    kept, again = _distinct(found, once), once.table()
    lost, wings = lost_cores(once, frame.shape)
    if len(wings):
        kept &= ~_on(lost, once)
        kept[wings.index] = True
        again.loc[wings.index, wings.columns] = wings
        usable = usable * torch.from_numpy(~lost)
    found, again = found[kept], _passed(psf, image, usable, again[kept], rms).table()
    needed = _needed(psf, image, usable, found, again, rms)
    return found[needed], _passed(psf, image, usable, again[needed], rms), lost


def _passed(psf: FramePSF, image: Tensor, usable: Tensor, stars: pd.DataFrame, rms: float) -> FittedStars:
    """Return stars fitted `PASSES` times."""
    for _ in range(PASSES):
        fits = fit_stars(psf, image, usable, stars, rms, iterations=2)
        stars = fits.table()
    return fits


def _needed(
    psf: FramePSF, image: Tensor, usable: Tensor, found: pd.DataFrame, stars: pd.DataFrame, rms: float
) -> np.ndarray:
    """Return which stars the pixels need: where one lies beside a more confident star, the others are fitted without
    it, and it is a phantom if they explain its place as well."""
    place, confidence = stars[["x", "y"]].to_numpy(float), found["confidence"].to_numpy(float)
    near = scipy.spatial.cKDTree(place).query_ball_point(place, PHANTOM_REACH) if len(place) else []
    beside = [any(confidence[other] > confidence[index] for other in others) for index, others in enumerate(near)]
    doubtful = np.array(beside, dtype=bool)
    if not doubtful.any():
        return np.ones(len(stars), dtype=bool)
    others = _passed(psf, image, usable, stars[~doubtful], rms).table()
    model, without = (psf.light(*places(table)) for table in (stars, others))
    variance = rms**2 + model.clamp(min=0) + (psf_estimate.MODEL_ERROR * model) ** 2
    worse = usable * ((image - without) ** 2 - (image - model) ** 2) / variance
    x, y = torch.from_numpy(place[doubtful].T.copy())
    radius = NEAR_IT * psf.basis.width
    disc = aperture_weights(2 * int(np.ceil(radius)) + 1, split(x)[1], split(y)[1], radius)
    needed = np.ones(len(stars), dtype=bool)
    needed[doubtful] = ((cut(worse, x, y, disc.shape[-1]) * disc).sum(dim=(1, 2)) > NEEDED).numpy()
    return needed


def _lit(psf: FramePSF, image: Tensor, usable: Tensor, found: pd.DataFrame, rms: float) -> pd.DataFrame:
    """Return the detections of a crowded frame that have light of their own, with the fluxes that explain it together:
    the detection net, which sees each alone, counts the light of one in another."""
    for _ in range(2):  # what has none takes some from the others
        flux, error = together(psf, image, usable, found)
        kept = (flux > LIT * rms * error).numpy()
        found = found.assign(flux=flux.numpy())[kept]
    return found


def _on(lost: np.ndarray, stars: FittedStars) -> np.ndarray:
    """Return which stars lie on pixels that hold no measurement."""
    column, row = (
        np.rint(place.numpy()).astype(int).clip(0, side - 1)
        for place, side in ((stars.x, lost.shape[1]), (stars.y, lost.shape[0]))
    )
    return lost[row, column]


def unusable(frame: Frame) -> np.ndarray:
    """Return which pixels of a frame, (H, W), no star is fitted with."""
    return frame.mask | grown(frame.saturated)


def grown(saturated: np.ndarray) -> np.ndarray:
    """Return saturated pixels (…, H, W) and those beside them, which hold what has spilled."""
    shape = (1,) * (saturated.ndim - 2) + (3, 3)
    return scipy.ndimage.binary_dilation(saturated, np.ones(shape)) if saturated.any() else saturated


def is_same(place: np.ndarray, error: np.ndarray, found: pd.DataFrame, width: float) -> np.ndarray:
    """Return which places (N, 2) with their errors in px are of the star that the detection net saw, with a PSF of a
    Gaussian width in px; in a blend the pixels may belong to somebody else."""
    moved, wide = np.abs(place - found[["x", "y"]].to_numpy(float)).max(axis=1), max(1.0, width / WIDTH)
    return (moved <= REACH * wide) & (error.max(axis=1) <= CERTAIN * wide)


def _once(x: Tensor, y: Tensor, found: pd.DataFrame, distance: float) -> np.ndarray:
    """Return where no more confident detection lies within a distance in px, by places of theirs."""
    confidence = torch.from_numpy(found["confidence"].to_numpy(float, copy=True))
    return without_repeats(torch.zeros(len(x), dtype=torch.long), x, y, confidence, distance).numpy()


def _distinct(found: pd.DataFrame, once: FittedStars) -> np.ndarray:
    """Return where a detection is neither the same star as a more confident one nor a phantom.

    Between the two stars of a close pair the map may rise once more. On 170 frames that are not test frames 49
    detections could not be refined: the 4 below PHANTOM_CONFIDENCE and nearer than PHANTOM_REACH to a more
    confident one were no stars, of the others this near 13 of 14 were.
    """
    kept, confidence = _once(once.x, once.y, found, REPEAT), found["confidence"].to_numpy(float)
    x, y = once.x.numpy(), once.y.numpy()
    near = np.hypot(x[:, None] - x[None], y[:, None] - y[None]) < PHANTOM_REACH
    beside = (near & (confidence[None] > confidence[:, None])).any(axis=1)
    error = torch.hypot(once.fit.error, once.shape_error)[:, 1:].numpy()
    phantom = (
        beside
        & ~is_same(np.stack([x, y], axis=1), error, found, once.psf.basis.width)
        & (confidence < PHANTOM_CONFIDENCE)
    )
    return kept & ~phantom


def bare_stamps(subtracted: background.Subtracted, found: pd.DataFrame, size: int) -> Tensor:
    """Return (N, size, size) pixels in electrons around stars as they are in the frame, less its sky."""
    x, y, _ = places(found)
    return cut(torch.from_numpy(subtracted.image)[None], x, y, size).float()
