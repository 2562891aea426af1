"""The PSF of a frame from its stars: which are good for it, and the posterior mean of its coefficients under their
Gaussian prior, with every star's flux and position marginalised."""

import itertools

import numpy as np
import pandas as pd
import scipy  # which loads its parts when they are used
import torch
from torch import Tensor

from pnet.common.metrics import half_sample_mode
from pnet.sky.frame_psf import FramePSF, split
from pnet.sky.psf_fit import Fit, cut, fit, freed, places
from pnet.sky.stamps import gaussian_moments, gaussian_width

MOST, LEAST = 80, 3  # stars that the PSF comes from
SIGNAL = 40.0  # their least ratio of flux to noise
NEAR, CLOSE = 18.0, 8.0  # px; light of others within them at most NEAR_LIGHT and CLOSE_LIGHT of the star's
NEAR_LIGHT, CLOSE_LIGHT = 0.2, 0.02
MODEL_ERROR = 0.02  # of the PSF's own light: no model is better, and no star shall outweigh all others
ROUNDS = 3  # of the PSF
# Factors of the prior of circular functions, Gauss-Hermite functions and slopes, between which the evidence decides
SCALES = tuple(itertools.product((0.03, 0.3, 1.0), repeat=3))
OUTLYING = 10.0  # times the median misfit; such a star is none, or not alone


def candidates(
    image: Tensor,
    x: Tensor,
    y: Tensor,
    flux: Tensor,
    rms: float,
    saturation: float,
    fallback: float,
    crowd: float = 1.0,
) -> tuple[Tensor, float]:
    """Return the indices of bright, unsaturated, lone stars, and the Gaussian width in px of the PSF that they share;
    `fallback` where there is none. Beside a lone star others may have `crowd` times their usual share of its light.

    Widths follow a plane over the frame; what lies off it by more than noise and 3 % is a galaxy or a pair.
    """
    height, wide = image.shape[-2:]
    stamps = cut(image, x, y, 21)
    place, light = torch.stack([x, y], dim=1).numpy(), flux.numpy()
    pairs = scipy.spatial.cKDTree(place).query_pairs(NEAR, output_type="ndarray")
    near, close = np.zeros((2, len(light)))
    if len(pairs):
        first, second = np.concatenate([pairs, pairs[:, ::-1]]).T
        np.add.at(near, first, light[second])
        beside = np.hypot(*(place[first] - place[second]).T) < CLOSE
        np.maximum.at(close, first[beside], light[second[beside]])
    signal = flux / torch.sqrt(flux + 150 * rms**2)
    alone = torch.from_numpy((near < crowd * NEAR_LIGHT * light) & (close < crowd * CLOSE_LIGHT * light))
    inside = (x > 12) & (x < wide - 13) & (y > 12) & (y < height - 13)
    good = inside & (stamps[:, 9:12, 9:12].amax(dim=(1, 2)) < 0.8 * saturation)
    for chosen in (good & alone & (signal > SIGNAL), good & (signal > SIGNAL / 4)):
        index = torch.nonzero(chosen)[:, 0]
        if len(index) >= LEAST:
            break
    index = index[flux[index].argsort(descending=True)][:MOST]
    if not len(index):
        return index, fallback
    stamps, dx, dy = stamps[index].float(), split(x[index])[1].float(), split(y[index])[1].float()
    dx, dy = gaussian_moments(stamps, dx, dy, torch.full_like(dx, 1.5))
    log_width = gaussian_width(stamps, dx, dy).double().log()
    error = torch.sqrt(0.5 / signal[index] ** 2 + 0.008**2)
    terms = torch.stack([torch.ones(len(index)), 2 * x[index] / wide - 1, 2 * y[index] / height - 1], dim=1).double()
    plane = torch.tensor([half_sample_mode(log_width.numpy()), 0, 0], dtype=torch.float64)
    few = torch.diag(torch.tensor([0, 0.03**-2, 0.03**-2], dtype=torch.float64))
    for reach in (0.12, 0.08, 0.05, 0.03, 0.03):
        weight = (((log_width - terms @ plane).abs() < reach + 2 * error) / error**2)[:, None]
        if weight.count_nonzero() >= LEAST:
            plane = torch.linalg.solve(terms.T @ (weight * terms) + few, terms.T @ (weight[:, 0] * log_width))
    kept = (log_width - terms @ plane).abs() < 0.03 + 2 * error
    return index[kept], float(plane[0].exp())


def improved(psf: FramePSF, pixels: Tensor, x: Tensor, y: Tensor, fitted: Fit, sky: float, trust: Tensor) -> FramePSF:
    """Return the PSF after one step towards stars that were fitted with it.

    Parameters
    ----------
    psf, pixels, x, y, sky
        As for `fit`.
    fitted : Fit
    trust : Tensor, (N,)
        Weight of each star.
    """
    size, basis = pixels.shape[-1], psf.basis
    share, slope_x, slope_y = fitted.share
    flux = fitted.flux[:, None, None]
    light = flux * share
    weight = 1 / (sky + light.clamp(min=0) + (MODEL_ERROR * light) ** 2)
    # Single precision suffices here, in units of each pixel's noise, and halves the time.
    root = weight.sqrt()
    own = torch.stack([light, flux * slope_x, flux * slope_y], dim=-1).mul(root[..., None]).flatten(1, 2).float()
    columns, rows = (basis.at(offset, size)[0].float() for offset in (fitted.dx, fitted.dy))
    count, q = len(basis.functions) - 1, rows.shape[-1]
    right = (columns @ basis.functions[1:].float().permute(2, 0, 1).reshape(q, -1)).unflatten(
        2, (count, q)
    )  # (N,S,M,Q)
    added = rows[:, None] @ right.permute(0, 2, 3, 1)  # (N, M, S, S)
    added = (added * (flux * root).float()[:, None]).flatten(2)
    residual = ((pixels - light) * root).float().flatten(1)[..., None]
    cross = added @ own
    taken = cross @ torch.linalg.pinv(own.transpose(1, 2) @ own, hermitian=True)  # flux and place are free
    normal = (added @ added.transpose(1, 2) - taken @ cross.transpose(1, 2)).double() * trust[:, None, None]
    gradient = (added @ residual - taken @ (own.transpose(1, 2) @ residual))[..., 0].double() * trust[:, None]
    terms = psf.terms(x, y)
    information = torch.einsum("nk,nl,nab->kalb", terms, terms, normal).reshape(3 * count, 3 * count)
    pull = torch.einsum("nk,na->ka", terms, gradient).flatten() + information @ psf.coefficients.flatten()
    best = max((_posterior(information, pull, basis.scaled(scales)) for scales in SCALES), key=lambda found: found[0])
    _, mean, covariance = best
    return FramePSF(basis, psf.shape, mean.reshape(psf.coefficients.shape), covariance, int((trust > 0).sum()))


def _posterior(information: Tensor, pull: Tensor, prior: Tensor) -> tuple[float, Tensor, Tensor]:
    """Return the logarithm of the evidence, but for a constant, mean and covariance of coefficients under a prior."""
    spread = prior.flatten()
    scaled = torch.eye(len(spread), dtype=torch.float64) + spread[:, None] * information * spread
    root = torch.linalg.cholesky(scaled)
    inverse = torch.cholesky_inverse(root)
    mean = spread * (inverse @ (spread * pull))
    evidence = 0.5 * float(pull @ mean) - float(root.diagonal().log().sum())
    return evidence, mean, spread[:, None] * inverse * spread


def refined(
    psf: FramePSF, pixels: Tensor, x: Tensor, y: Tensor, start: tuple[Tensor, Tensor, Tensor], sky: float
) -> tuple[FramePSF, Fit]:
    """Return the PSF after a round: its stars are fitted with it, and it with them. Arguments are those of `fit`.

    Stars that fit worse than usual count less, and those that fit `OUTLYING` times worse are none, or not alone.
    """
    fitted = fit(psf, pixels, x, y, start, sky, iterations=2)
    light = fitted.flux[:, None, None] * fitted.share[0]
    misfit = (fitted.residual**2 / (fitted.variance + (MODEL_ERROR * light) ** 2)).mean(dim=(1, 2))
    usual = misfit.median()
    trust = (1.5 * usual / misfit).clamp(max=1) * (misfit < OUTLYING * usual)
    return improved(psf, pixels, x, y, fitted, sky, trust), fitted


def estimate(psf: FramePSF, image: Tensor, stars: pd.DataFrame, chosen: Tensor, rms: float) -> FramePSF:
    """Return a frame's PSF from its bright, unsaturated, lone stars; `psf` where there are too few.

    Parameters
    ----------
    psf : FramePSF
        A first one, as `FramePSF.unknown` returns it.
    image : Tensor, (1, H, W), float32
        Electrons, sky subtracted.
    stars : DataFrame
        ``x``, ``y`` (px) and ``flux`` (electrons), first guesses.
    chosen : Tensor
        Indices of the stars that the PSF comes from, see `candidates`.
    rms : float
        Noise of an empty pixel in electrons.
    """
    if len(chosen) < LEAST:
        return psf
    x, y, flux = places(stars)
    for _ in range(ROUNDS):
        at = x[chosen], y[chosen]
        pixels, _ = freed(psf, image, x, y, flux, chosen)
        psf, fitted = refined(psf, pixels, *at, (flux[chosen], split(at[0])[1], split(at[1])[1]), rms**2)
        flux[chosen] = fitted.flux
        x[chosen], y[chosen] = (
            split(value)[0] + moved for value, moved in zip(at, (fitted.dx, fitted.dy), strict=True)
        )
    return psf
