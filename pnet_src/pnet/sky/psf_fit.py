"""Stars fitted with the PSF of their frame, and the PSF fitted to its stars.

A star's flux and position are the best fit of the PSF to its pixels, freed of its neighbours' light. The PSF's
coefficients are the posterior mean under their Gaussian prior, with every star's flux and position marginalised.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy  # which loads its parts when they are used
import torch
from torch import Tensor

from pnet.common.metrics import half_sample_mode
from pnet.frame import Frame
from pnet.sky import background
from pnet.sky.frame_psf import FramePSF, split
from pnet.sky.stamps import cut_stamps, gaussian_moments, gaussian_width

MOST, LEAST = 80, 3  # stars that the PSF comes from
SIGNAL = 40.0  # their least ratio of flux to noise
NEAR, CLOSE = 18.0, 8.0  # px; light of others within them at most NEAR_LIGHT and CLOSE_LIGHT of the star's
NEAR_LIGHT, CLOSE_LIGHT = 0.2, 0.02
MODEL_ERROR = 0.02  # of the PSF's own light: no model is better, and no star shall outweigh all others
PHOTONS = 0.03  # share of a star's photon noise in the weights of its fit; see `fit`
ROUNDS = 3  # of the PSF
PASSES = 2  # over all stars, each with better neighbours than before
MOVE = 1.5  # px, from the first guess of a position at most
# Factors of the prior of circular functions, Gauss-Hermite functions and slopes, between which the evidence decides
SCALES = tuple(itertools.product((0.03, 0.3, 1.0), repeat=3))
OUTLYING = 10.0  # times the median misfit; such a star is none, or not alone


@dataclass
class Fit:
    """Stars fitted with a PSF.

    Parameters
    ----------
    flux : Tensor, (N,)
        Electrons.
    dx, dy : Tensor, (N,)
        px from the middle of the stamp.
    covariance : Tensor, (N, 3, 3)
        Of flux, dx and dy, from the noise of the pixels.
    misfit : Tensor, (N,)
        Mean square of residual over noise.
    """

    flux: Tensor
    dx: Tensor
    dy: Tensor
    covariance: Tensor
    misfit: Tensor


def side(width: float) -> int:
    """Return the odd side in px of the stamps on which stars of a Gaussian width in px are fitted."""
    return int(np.clip(2 * round(7 * width) + 1, 15, 41))


def fit(
    psf: FramePSF,
    pixels: Tensor,
    x: Tensor,
    y: Tensor,
    start: tuple[Tensor, Tensor, Tensor],
    sky: float,
    *,
    iterations: int = 3,
    usable: Tensor | None = None,
) -> Fit:
    """Fit flux and place of stars on stamps.

    With weights from all of the photon noise the fit is the most likely one, and an error of the PSF moves bright
    stars, weighted more evenly, by another amount than faint ones. With weights from the noise of the sky it moves all
    by the same, which the zero point takes up, but the noise of the brightest grows by 15 %. `PHOTONS` lies between.

    Parameters
    ----------
    psf : FramePSF
    pixels : Tensor, (N, S, S), float64
        Electrons without sky and neighbours.
    x, y : Tensor, (N,)
        Places on the frame in px, for the PSF's change over it.
    start : (Tensor, Tensor, Tensor), (N,) each
        First guess of the flux in electrons and of dx and dy.
    sky : float
        Variance of an empty pixel in electrons².
    iterations : int
        Gauss-Newton steps.
    usable : Tensor, (N, S, S), optional
        False where a pixel must not be used.
    """
    flux, dx, dy = (value.double().clone() for value in start)
    good = torch.ones((), dtype=torch.float64) if usable is None else usable.double()
    for _ in range(iterations):
        share, slope_x, slope_y = psf.drawn(x, y, pixels.shape[-1], at=(dx, dy))
        light = flux[:, None, None] * share
        slopes = torch.stack([share, flux[:, None, None] * slope_x, flux[:, None, None] * slope_y], -1).flatten(1, 2)
        weight = (good / (sky + PHOTONS * light.clamp(min=0))).flatten(1)[..., None]
        residual = (pixels - light).flatten(1)[..., None]
        weighted = (weight * slopes).transpose(1, 2)
        normal = weighted @ slopes
        unit = torch.diagonal(normal, dim1=1, dim2=2).sqrt().clamp(min=1e-30)[:, :, None]  # parameters differ by 1e6
        inverse = torch.linalg.inv(normal / (unit * unit.transpose(1, 2)) + 1e-9 * torch.eye(3, dtype=torch.float64))
        inverse = inverse / (unit * unit.transpose(1, 2))
        step = (inverse @ (weighted @ residual))[..., 0]
        flux = (flux + step[:, 0]).clamp(min=1.0)
        dx, dy = (
            torch.minimum(torch.maximum(value + step[:, k].clamp(-0.5, 0.5), first - MOVE), first + MOVE)
            for k, value, first in ((1, dx, start[1].double()), (2, dy, start[2].double()))
        )
    noise = (good * (sky + light.clamp(min=0))).flatten(1)[..., None]
    covariance = inverse @ ((weighted * noise.transpose(1, 2)) @ weighted.transpose(1, 2)) @ inverse
    misfit = (residual**2 / noise.clamp(min=1e-9) * (noise > 0)).mean(dim=(1, 2))
    return Fit(flux, dx, dy, covariance, misfit)


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
    share, slope_x, slope_y = psf.drawn(x, y, size, at=(fitted.dx, fitted.dy))
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


def psf_errors(psf: FramePSF, x: Tensor, y: Tensor, fitted: Fit, size: int, sky: float) -> Tensor:
    """Return (N, 3), by how much the PSF's own uncertainty lets fitted flux (relative), x and y (px) err."""
    share, slope_x, slope_y = psf.drawn(x, y, size, at=(fitted.dx, fitted.dy))
    own = torch.stack([share, slope_x, slope_y])
    weight = 1 / (sky / fitted.flux[:, None, None] ** 2 + PHOTONS * share.clamp(min=0) / fitted.flux[:, None, None])
    normal = torch.einsum("knab,nab,lnab->nkl", own, weight, own)
    columns, rows = (psf.basis.at(offset, size)[0] for offset in (fitted.dx, fitted.dy))
    seen = rows.transpose(1, 2) @ (own * weight) @ columns  # (3, N, Q, Q)
    effect = torch.linalg.solve(normal, torch.einsum("knqp,mqp->nkm", seen, psf.basis.functions[1:]))
    spread = torch.einsum("nt,nkm->nktm", psf.terms(x, y), effect).flatten(2)
    return torch.einsum("nka,ab,nkb->nk", spread, psf.covariance, spread).clamp(min=0).sqrt()


def _cut(image: Tensor, x: Tensor, y: Tensor, size: int) -> Tensor:
    column, row = split(x)[0], split(y)[0]
    return cut_stamps(image, torch.zeros_like(column), column, row, size).double()


def candidates(
    image: Tensor, x: Tensor, y: Tensor, flux: Tensor, rms: float, saturation: float
) -> tuple[Tensor, float]:
    """Return the indices of bright, unsaturated, lone stars, and the Gaussian width in px of the PSF that they share.

    Widths follow a plane over the frame; what lies off it by more than noise and 3 % is a galaxy or a pair.
    """
    height, wide = image.shape[-2:]
    stamps = _cut(image, x, y, 21)
    place, light = torch.stack([x, y], dim=1).numpy(), flux.numpy()
    pairs = scipy.spatial.cKDTree(place).query_pairs(NEAR, output_type="ndarray")
    near, close = np.zeros((2, len(light)))
    if len(pairs):
        first, second = np.concatenate([pairs, pairs[:, ::-1]]).T
        np.add.at(near, first, light[second])
        beside = np.hypot(*(place[first] - place[second]).T) < CLOSE
        np.maximum.at(close, first[beside], light[second[beside]])
    signal = flux / torch.sqrt(flux + 150 * rms**2)
    alone = torch.from_numpy((near < NEAR_LIGHT * light) & (close < CLOSE_LIGHT * light))
    inside = (x > 12) & (x < wide - 13) & (y > 12) & (y < height - 13)
    good = inside & (stamps[:, 9:12, 9:12].amax(dim=(1, 2)) < 0.8 * saturation)
    for chosen in (good & alone & (signal > SIGNAL), good & (signal > SIGNAL / 4)):
        index = torch.nonzero(chosen)[:, 0]
        if len(index) >= LEAST:
            break
    index = index[flux[index].argsort(descending=True)][:MOST]
    if not len(index):
        return index, float("nan")
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


def _freed(psf: FramePSF, image: Tensor, light: Tensor, x: Tensor, y: Tensor, flux: Tensor, size: int) -> Tensor:
    """Return stamps of stars without the others' light, of which `light` is the sum, their own included."""
    return _cut(image - light, x, y, size) + psf.drawn(x, y, size)[0] * flux[:, None, None]


def estimate(image: Tensor, stars: pd.DataFrame, rms: float, saturation: float, fallback: float) -> FramePSF:
    """Return a frame's PSF from its bright, unsaturated, lone stars; the atmosphere's where it has too few.

    Parameters
    ----------
    image : Tensor, (1, H, W), float32
        Electrons, sky subtracted.
    stars : DataFrame
        ``x``, ``y`` (px) and ``flux`` (electrons), first guesses.
    rms : float
        Noise of an empty pixel in electrons.
    saturation : float
        Electrons from which on a pixel is saturated.
    fallback : float
        px, Gaussian width of the PSF where no star tells it.
    """
    x, y, flux = _places(stars)
    chosen, width = candidates(image, x, y, flux, rms, saturation)
    psf = FramePSF.unknown(width if len(chosen) else fallback, image.shape[-2:])
    if len(chosen) < LEAST:
        return psf
    size = side(psf.basis.width)
    for _ in range(ROUNDS):
        at = x[chosen], y[chosen]
        pixels = _freed(psf, image, psf.light(x, y, flux), *at, flux[chosen], size)
        fitted = fit(psf, pixels, *at, (flux[chosen], split(at[0])[1], split(at[1])[1]), rms**2, iterations=2)
        light = psf.drawn(*at, size, at=(fitted.dx, fitted.dy))[0] * fitted.flux[:, None, None]
        noise = rms**2 + light.clamp(min=0) + (MODEL_ERROR * light) ** 2
        misfit = ((pixels - light) ** 2 / noise).mean(dim=(1, 2))
        usual = misfit.median()
        trust = (1.5 * usual / misfit).clamp(max=1) * (misfit < OUTLYING * usual)
        psf = improved(psf, pixels, *at, fitted, rms**2, trust)
        flux[chosen] = fitted.flux
        x[chosen], y[chosen] = (
            split(value)[0] + moved for value, moved in zip(at, (fitted.dx, fitted.dy), strict=True)
        )
    return psf


def fit_all(psf: FramePSF, image: Tensor, stars: pd.DataFrame, rms: float) -> pd.DataFrame:
    """Fit all stars of a frame, each freed of the others' light.

    Parameters
    ----------
    psf : FramePSF
    image, stars, rms
        As for `estimate`.

    Returns
    -------
    DataFrame
        Index of `stars`; ``x``, ``y`` (px), ``flux`` (electrons), their errors from the pixels' noise ``x_err``,
        ``y_err``, ``flux_err`` and from the PSF's uncertainty ``x_psf``, ``y_psf``, ``flux_psf``, and ``misfit``.
    """
    x, y, flux = _places(stars)
    size = side(psf.basis.width)
    for _ in range(PASSES):
        pixels = _freed(psf, image, psf.light(x, y, flux), x, y, flux, size)
        fitted = fit(psf, pixels, x, y, (flux, split(x)[1], split(y)[1]), rms**2)
        x, y, flux = split(x)[0] + fitted.dx, split(y)[0] + fitted.dy, fitted.flux
    error = torch.diagonal(fitted.covariance, dim1=1, dim2=2).sqrt()
    shape = psf_errors(psf, x, y, fitted, size, rms**2)
    columns = {"x": x, "y": y, "flux": flux, "x_err": error[:, 1], "y_err": error[:, 2], "flux_err": error[:, 0]}
    columns |= {"x_psf": shape[:, 1], "y_psf": shape[:, 2], "flux_psf": shape[:, 0] * flux, "misfit": fitted.misfit}
    return pd.DataFrame({name: value.numpy() for name, value in columns.items()}, index=stars.index)


def of_frame(frame: Frame, stars: pd.DataFrame, subtracted: tuple[np.ndarray, float]) -> tuple[FramePSF, pd.DataFrame]:
    """Return a frame's own PSF, and its stars as `fit_all` gives them, on a sky that was estimated beside them.

    Parameters
    ----------
    frame : Frame
    stars : DataFrame
        As for `estimate`; the median of ``fwhm`` (px) is the PSF's width where no star tells it.
    subtracted : (ndarray, float)
        What `background.subtracted` gives for the frame.
    """
    first, rms = subtracted
    image = torch.from_numpy(first)[None]
    width = float(np.clip(stars["fwhm"].median(), 1.5, 8)) / 2.355 if len(stars) else 1.5
    psf = estimate(image, stars, rms, frame.saturation, width)
    sky = background.beside(frame, psf.light(*_places(stars))[0].numpy(), rms)
    image = torch.from_numpy(np.where(frame.mask, first, frame.image - sky))[None]  # masked pixels are filled
    return psf, fit_all(psf, image, stars, rms)


def _places(stars: pd.DataFrame) -> tuple[Tensor, Tensor, Tensor]:
    x, y, flux = (torch.from_numpy(stars[name].to_numpy(np.float64, copy=True)) for name in ("x", "y", "flux"))
    return x, y, flux.clamp(min=10.0)
