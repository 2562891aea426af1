"""The stamps of a frame's stars: PSF width, neighbours' light, cut-outs."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pnet.frame import Frame
from pnet.sky import background, render
from pnet.sky.frame_psf import SEEING
from pnet.sky.psf import Aureole
from pnet.sky.stamps import cut_stamps, gaussian_moments, gaussian_width
from pnet.stars.inputs import WIDTH_STAMP, Stamps

BRIGHTEST = 25  # stars that the PSF's width is the mean of
STEP = 0.05  # arcsec; wings do not change within it
SIGNAL = 50.0  # smallest ratio of a star's flux to its noise for that
INNER = 9  # px; a star is saturated if a pixel of this middle part of its stamp is
CONFIDENT = 0.3  # detections below it are no neighbours


def _psf_width(
    image: Tensor, stars: pd.DataFrame, rms: float, saturation: float, fallback: float
) -> tuple[float, float]:
    """Return the width (px, standard deviation) of the frame's PSF from its bright, unsaturated, lone stars, and by how
    much it differs over the frame beyond the noise, relative.

    A mean weighted by each star's precision; those more than 5 % from the median (galaxies, pairs) are left out.
    """
    chosen = stars[stars["flux"] > SIGNAL * np.sqrt(stars["flux"].clip(lower=1) + 150 * rms**2)]
    chosen = chosen[(chosen["confidence"] >= CONFIDENT) if "confidence" in chosen else slice(None)]
    height, width = image.shape[-2:]
    half = WIDTH_STAMP // 2
    chosen = chosen[chosen["x"].between(half, width - 1 - half) & chosen["y"].between(half, height - 1 - half)]
    if len(stars) > 1 and len(chosen):
        positions = stars[["x", "y"]].to_numpy()
        separation = np.hypot(*(chosen[["x", "y"]].to_numpy()[:, None] - positions[None]).transpose(2, 0, 1))
        separation[separation == 0] = np.inf
        chosen = chosen[(separation > WIDTH_STAMP / 2 + 2).all(axis=1)]
    chosen = chosen.sort_values("flux", ascending=False)
    stamps, dx, dy = _cut(image, chosen, WIDTH_STAMP)
    good = stamps.amax(dim=(1, 2)) < 0.8 * saturation if len(chosen) else torch.zeros(0, dtype=torch.bool)
    stamps, dx, dy = stamps[good][:BRIGHTEST], dx[good][:BRIGHTEST], dy[good][:BRIGHTEST]
    if not len(stamps):
        return fallback, 0.0
    start = torch.full_like(dx, fallback)
    dx, dy = gaussian_moments(stamps, dx, dy, start)
    widths = gaussian_width(stamps, dx, dy, fallback).double()
    flux = torch.from_numpy(chosen["flux"].to_numpy(float).copy())[good][:BRIGHTEST].clamp(min=1)
    # A width is known to 1/(sqrt(2) S/N), and to no better than 0.2 % where the PSF is not a Gaussian.
    variance = 0.5 * (flux + 150 * rms**2) / flux**2 + 0.002**2
    weight = ((widths / widths.median() - 1).abs() < 0.05) / variance
    mean = (weight * widths).sum() / weight.sum()
    # Medians: a faint companion here and there is no scatter of the PSF.
    pull = 1.4826 * ((widths / mean - 1).abs() / variance.sqrt()).median()
    return float(mean), float(((pull**2 - 1) * variance.median()).clamp(min=0).sqrt())


def _cut(image: Tensor, stars: pd.DataFrame, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return stamps around the stars' nearest pixels and the stars' offsets from them."""
    x, y = torch.from_numpy(stars["x"].to_numpy(float).copy()), torch.from_numpy(stars["y"].to_numpy(float).copy())
    column, row = torch.floor(x + 0.5).long(), torch.floor(y + 0.5).long()
    pixels = cut_stamps(image, torch.zeros_like(column), column, row, size)
    return pixels, (x - column).float(), (y - row).float()


def _light(image: Tensor, stars: pd.DataFrame, width: float, pixel_scale: float) -> tuple[Tensor, Tensor]:
    """Return what the known stars send into each pixel, (1, H, W), and into their own stamps, (N, S, S), in electrons.

    A star of 14 mag puts more light into a stamp 12 px away than the noise of a star of 20 mag; the detection net
    knows where it is and how bright, the frame's PSF width the rest.
    """
    known = stars[(stars["flux"] > 0) & (stars["confidence"] >= CONFIDENT)] if "confidence" in stars else stars
    seeing = float(np.clip(round((SEEING[0] * width * pixel_scale + SEEING[1]) / STEP) * STEP, 0.5, 3.0))
    field = torch.zeros(len(known), dtype=torch.long)
    x, y, flux = (torch.from_numpy(known[name].to_numpy(float).copy()) for name in ("x", "y", "flux"))
    light = torch.zeros_like(image)
    options = {"pixel_scale": pixel_scale, "aureole": Aureole()}
    render.add_stars(light, [seeing], field=field, x=x, y=y, flux=flux.float(), **options)
    _, dx, dy = _cut(light, stars, 1)
    table = render.psf_table(seeing, pixel_scale, render.SLOAN, Aureole(), str(image.device))
    drawn = torch.from_numpy(stars.index.isin(known.index).astype(np.float32) * stars["flux"].to_numpy(np.float32))
    return light, render.sample_psf(table, dx, dy, WIDTH_STAMP) * drawn[:, None, None]


def frame_stamps(
    frame: Frame, stars: pd.DataFrame, subtracted: tuple[np.ndarray, float] | None = None, *, bare: bool = False
) -> Stamps:
    """Cut the stamps of a frame's stars, without sky and without the light of their neighbours.

    Parameters
    ----------
    frame : Frame
    stars : DataFrame
        ``x``, ``y`` (px), ``flux`` (electrons), ``fwhm`` (px; the fallback where no bright star gives the PSF's width),
        optionally ``confidence``.
    subtracted : (ndarray, float), optional
        What `background.subtracted` gives for the frame, where it is at hand.
    bare : bool
        As in `BPNNConfig`: the neighbours' light stays, and no PSF width is measured.
    """
    electrons, rms = background.subtracted(frame) if subtracted is None else subtracted
    image = torch.from_numpy(electrons)[None]
    full = torch.from_numpy(frame.saturated.astype(np.float32))[None]
    n, saturated = len(stars), _cut(full, stars, INNER)[0].flatten(1).any(dim=1)
    if bare:
        pixels, dx, dy = _cut(image, stars, WIDTH_STAMP)
        return Stamps(pixels, dx, dy, torch.full((n,), rms), *torch.full((2, n), torch.nan), saturated)
    seeing = frame.seeing / frame.pixel_scale if frame.seeing else 3.5
    guess = float(stars["fwhm"].median()) if len(stars) and "fwhm" in stars else seeing
    width, scatter = _psf_width(image, stars, rms, frame.saturation, fallback=float(np.clip(guess, 1.5, 8)) / 2.355)
    light, own = _light(image, stars, width, frame.pixel_scale)
    # Masked pixels were filled from around, sky already off.
    first = torch.from_numpy(frame.image) - image[0]
    again = torch.where(
        torch.from_numpy(frame.mask),
        torch.zeros_like(first),
        first - torch.from_numpy(background.beside(frame, light[0].numpy(), rms)),
    )
    image = image + again - light
    pixels, dx, dy = _cut(image, stars, WIDTH_STAMP)
    pixels = pixels + own
    return Stamps(
        pixels=pixels,
        dx=dx,
        dy=dy,
        sigma=torch.full((n,), rms),
        psf_width=torch.full((n,), width),
        psf_scatter=torch.full((n,), scatter),
        saturated=saturated,
    )
