"""Stars fitted with the PSF of their frame: flux and position are the best fit to a star's pixels, freed of its
neighbours' light."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pnet.sky.frame_psf import FramePSF, split
from pnet.sky.render import add_stamps
from pnet.sky.stamps import cut_stamps

PHOTONS = 0.03  # share of a star's photon noise in the weights of its fit; see `fit`
MOVE = 1.5  # px, from the first guess of a position at most
ITERATIONS = 3  # Gauss-Newton steps
RIDGE, TINY = 1e-9, 1e-30  # of a normal matrix in units of its diagonal, which no pixel may tell anything about
CONJUGATE = 30  # steps of conjugate gradients at most


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
    share : Tensor, (3, N, S, S)
        What each pixel has of the star's light by the PSF, and its slopes along dx and dy.
    residual, variance : Tensor, (N, S, S)
        Pixels less the fitted star in electrons, 0 where they are not usable, and the variance of their noise.
    weight : Tensor, (N, S, S)
        With which they were fitted, 0 where they are not usable.
    likelier : Tensor, (N, 3)
        By how much flux, dx and dy would change with weights from all of the photon noise.
    """

    flux: Tensor
    dx: Tensor
    dy: Tensor
    covariance: Tensor
    misfit: Tensor
    share: Tensor
    residual: Tensor
    variance: Tensor
    weight: Tensor
    likelier: Tensor

    @property
    def error(self) -> Tensor:
        """(N, 3) standard deviations of flux, dx and dy from the noise of the pixels."""
        return torch.diagonal(self.covariance, dim1=1, dim2=2).sqrt()


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
    iterations: int = ITERATIONS,
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
    usable : Tensor, (N, S, S), optional
        False where a pixel must not be used.
    """
    flux, dx, dy = (value.double().clone() for value in start)
    good = torch.ones_like(pixels) if usable is None else usable.double()
    for last in range(iterations + 1):
        share = psf.drawn(x, y, pixels.shape[-1], at=(dx, dy))
        light = flux[:, None, None] * share[0]
        slopes = torch.stack([share[0], flux[:, None, None] * share[1], flux[:, None, None] * share[2]], -1)
        residual = (pixels - light) * good
        weight = good / (sky + PHOTONS * light.clamp(min=0))
        step, inverse, weighted = _step(slopes, weight, residual)
        if last == iterations:
            break
        flux = (flux + step[:, 0]).clamp(min=1.0)
        dx, dy = (
            torch.minimum(torch.maximum(value + step[:, k].clamp(-0.5, 0.5), first - MOVE), first + MOVE)
            for k, value, first in ((1, dx, start[1].double()), (2, dy, start[2].double()))
        )
    variance = sky + light.clamp(min=0)
    seen = (weighted * variance.flatten(1)[:, None]) @ weighted.transpose(1, 2)
    # what no usable pixel tells is unknown, not certain
    unseen = RIDGE * torch.diag_embed(torch.diagonal(seen, dim1=1, dim2=2).clamp(min=TINY**2))
    covariance = inverse @ (seen + unseen) @ inverse
    misfit = (residual**2 / variance).sum(dim=(1, 2)) / good.sum(dim=(1, 2)).clamp(min=1)
    likelier = _step(slopes, good / variance, residual)[0]
    return Fit(flux, dx, dy, covariance, misfit, share, residual, variance, weight, likelier)


def _step(slopes: Tensor, weight: Tensor, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a weighted least-squares step (N, 3), the inverse of its normal matrix, and the weighted slopes."""
    slopes = slopes.flatten(1, 2)
    weighted = (weight.flatten(1)[..., None] * slopes).transpose(1, 2)
    normal = weighted @ slopes
    unit = torch.diagonal(normal, dim1=1, dim2=2).sqrt().clamp(min=TINY)[:, :, None]  # parameters differ by 1e6
    units = unit * unit.transpose(1, 2)
    inverse = torch.linalg.inv(normal / units + RIDGE * torch.eye(3, dtype=normal.dtype)) / units
    return (inverse @ (weighted @ residual.flatten(1)[..., None]))[..., 0], inverse, weighted


def psf_errors(psf: FramePSF, x: Tensor, y: Tensor, fitted: Fit) -> Tensor:
    """Return (N, 3), by how much the PSF's own uncertainty lets fitted flux (relative), x and y (px) err."""
    own, weight = fitted.share, fitted.weight * fitted.flux[:, None, None]
    normal = torch.einsum("knab,nab,lnab->nkl", own, weight, own)
    normal = normal + torch.diag_embed(1e-9 * torch.diagonal(normal, dim1=1, dim2=2) + 1e-30)
    columns, rows = (psf.basis.at(offset, own.shape[-1])[0] for offset in (fitted.dx, fitted.dy))
    seen = rows.transpose(1, 2) @ (own * weight) @ columns  # (3, N, Q, Q)
    effect = torch.linalg.solve(normal, torch.einsum("knqp,mqp->nkm", seen, psf.basis.functions[1:]))
    spread = torch.einsum("nt,nkm->nktm", psf.terms(x, y), effect).flatten(2)
    return torch.einsum("nka,ab,nkb->nk", spread, psf.covariance, spread).clamp(min=0).sqrt()


def cut(image: Tensor, x: Tensor, y: Tensor, size: int) -> Tensor:
    """Return (N, size, size) float64 stamps of an image (1, H, W) around the pixels that hold places in px."""
    column, row = split(x)[0], split(y)[0]
    return cut_stamps(image, torch.zeros_like(column), column, row, size).double()


def freed(
    psf: FramePSF, image: Tensor, x: Tensor, y: Tensor, flux: Tensor, chosen: Tensor | slice = slice(None)
) -> tuple[Tensor, Tensor]:
    """Return stamps (N, S, S) in electrons of the chosen stars without the others' light, and that light."""
    light, size = psf.light(x, y, flux), side(psf.basis.width)
    x, y, flux = x[chosen], y[chosen], flux[chosen]
    others = cut(light, x, y, size) - psf.drawn(x, y, size)[0] * flux[:, None, None]
    return cut(image, x, y, size) - others, others


@dataclass
class FittedStars:
    """Stars of a frame fitted with its PSF, and what there is to say of their surroundings.

    Parameters
    ----------
    psf : FramePSF
    fit : Fit
    x, y : Tensor, (N,)
        px, places on the frame.
    shape_error : Tensor, (N, 3)
        By how much the PSF's own uncertainty lets the flux (relative), x and y (px) err.
    others : Tensor, (N, S, S)
        Electrons of other stars that were taken off.
    rms : float
        Noise of an empty pixel in electrons.
    """

    psf: FramePSF
    fit: Fit
    x: Tensor
    y: Tensor
    shape_error: Tensor
    others: Tensor
    rms: float

    @property
    def middle(self) -> Tensor:
        """(N, 2) column and row of the middle pixels of the stamps."""
        return torch.stack([self.x - self.fit.dx, self.y - self.fit.dy], dim=1).round()

    def table(self) -> pd.DataFrame:
        """Return ``x``, ``y`` (px), ``flux`` (electrons), their errors from the pixels' noise ``x_err``, ``y_err``,
        ``flux_err`` and from the PSF's uncertainty ``x_psf``, ``y_psf``, ``flux_psf``, and ``misfit``."""
        flux, error, shape = self.fit.flux, self.fit.error, self.shape_error
        columns = {"x": self.x, "y": self.y, "flux": flux}
        columns |= {"x_err": error[:, 1], "y_err": error[:, 2], "flux_err": error[:, 0]}
        columns |= {"x_psf": shape[:, 1], "y_psf": shape[:, 2], "flux_psf": shape[:, 0] * flux}
        return pd.DataFrame({name: value.numpy() for name, value in (columns | {"misfit": self.fit.misfit}).items()})


def fit_stars(
    psf: FramePSF, image: Tensor, usable: Tensor, stars: pd.DataFrame, rms: float, iterations: int = ITERATIONS
) -> FittedStars:
    """Fit all stars of a frame, each freed of the others' light.

    Parameters
    ----------
    psf : FramePSF
    image, usable : Tensor, (1, H, W)
        Electrons without sky, float32, and 1 where a pixel may be used, 0 elsewhere.
    stars : DataFrame
        ``x``, ``y`` (px) and ``flux`` (electrons), first guesses.
    rms : float
        Noise of an empty pixel in electrons.
    iterations : int
    """
    x, y, flux = places(stars)
    pixels, others = freed(psf, image, x, y, flux)
    good = cut(usable, x, y, pixels.shape[-1])
    start = flux, split(x)[1], split(y)[1]
    fitted = fit(psf, pixels, x, y, start, rms**2, iterations=iterations, usable=good)
    shape = psf_errors(psf, x, y, fitted)
    return FittedStars(psf, fitted, split(x)[0] + fitted.dx, split(y)[0] + fitted.dy, shape, others, rms)


def together(psf: FramePSF, image: Tensor, usable: Tensor, stars: pd.DataFrame) -> tuple[Tensor, Tensor]:
    """Return the fluxes (N,) in electrons of stars at their places that fit an image best together, and what a noise
    of one electron in each pixel would make of each alone. Stars that are the same share its light; some get none.

    Arguments are those of `fit_stars`. Conjugate gradients solve the normal equations.
    """
    x, y, _ = places(stars)
    (column, row), size = (split(x)[0], split(y)[0]), side(psf.basis.width)
    share, field = psf.drawn(x, y, size)[0].float(), torch.zeros_like(column)

    def seen(pixels: Tensor) -> Tensor:
        return (share * cut_stamps(pixels * usable, field, column, row, size)).sum(dim=(1, 2))

    def drawn(flux: Tensor) -> Tensor:
        pixels = torch.zeros_like(image)
        add_stamps(pixels, share * flux[:, None, None], field, column, row)
        return pixels

    power = (share**2 * cut_stamps(usable, field, column, row, size)).sum(dim=(1, 2)) + 1e-9
    flux = torch.zeros_like(power)
    residual = seen(image)
    direction = first = residual / power
    product = start = residual @ first
    for _ in range(CONJUGATE):
        if not product > 1e-8 * start:
            break
        moved = seen(drawn(direction))
        step = product / (direction @ moved)
        flux, residual = flux + step * direction, residual - step * moved
        first = residual / power
        product, before = residual @ first, product
        direction = first + product / before * direction
    return flux.double(), power.double() ** -0.5


def places(stars: pd.DataFrame) -> tuple[Tensor, Tensor, Tensor]:
    """Return x and y in px and flux in electrons, at least 10, as tensors of their own."""
    x, y, flux = (torch.from_numpy(stars[name].to_numpy(np.float64, copy=True)) for name in ("x", "y", "flux"))
    return x, y, flux.clamp(min=10.0)
