"""The point-spread function of a frame, and stars that are fitted with it.

The PSF is that of a long exposure through the atmosphere (Kolmogorov 1941; Fried 1966) at the width of the frame's
stars, plus what they show beyond it: other atmospheres and an r⁻² aureole (King 1971) for core and wings, and
Gauss-Hermite functions ("shapelets", Refregier 2003) for optics, guiding and camera, each changing linearly over the
frame. All are written in one-dimensional functions b, P(x, y) = Σ b_q(y) C_qp b_p(x): a star at any place between the
pixels is a product of small matrices.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
import torch
from torch import Tensor

from pnet.sky.psf import FIELD, OVERSAMPLING, Aureole, psf_map
from pnet.sky.render import add_stamps, cubic

REACH = 20  # px; a PSF counts as much light within it as the atmosphere alone would have there
STAMP = 2 * REACH + 1  # px, widest stamp
SAMPLES = 8  # of the one-dimensional functions, per px
ATMOSPHERES = (1.08, 2.0, 4.0)  # widths of the other atmospheres in units of the frame's
AUREOLE = 1.43e-3  # of a star's light per px² at 1 px: SkyMaker's 16 mag/arcsec² at 1' from a star of magnitude 0
FAMILY = (1.0, 0.3, 0.2, 0.7)  # prior of the amplitudes of these functions, standard deviations
ORDER = 8  # of the Gauss-Hermite functions
# Prior of their coefficients: a share of the peak, falling from order to order as the eigenvalues of a Gaussian
# process do (Rasmussen & Williams 2006, section 4.3). SLOPE is that of a change from the centre of the frame to its
# edge. All of them chosen on twins of nine frames of the training and validation splits.
AMPLITUDE, FALL, SLOPE = 0.02, 0.8, 0.1
WIDTH = 0.4487  # Gaussian width of the atmosphere's PSF in units of its FWHM
SEEING = (2.2745, -0.084)  # the atmosphere's FWHM from the PSF's Gaussian width, both in arcsec: slope, intercept
PRECISION = 1e-6  # of the circular functions in their one-dimensional basis, in units of the peak
WINGS, WIDE = 155, 4e5  # px, stamps on which the light of stars of so many electrons is drawn


@lru_cache(maxsize=1)
def _atmosphere() -> tuple[np.ndarray, np.ndarray]:
    """Return radii in FWHM and surface brightness times FWHM²: the Hankel transform of exp(−k^(5/3))."""
    k = np.linspace(0, 9, 4001)
    radius = np.concatenate([np.linspace(0, 6, 241), np.geomspace(6.1, 24, 40)])
    transfer = k * np.exp(-(k ** (5 / 3)))
    value = scipy.integrate.simpson(transfer * scipy.special.j0(radius[:, None] * k), x=k) / (2 * np.pi)
    fwhm = 2 * np.interp(-0.5, -value / value[0], radius)
    return radius / fwhm, value * fwhm**2


def _circular(r: np.ndarray, fwhm: float) -> np.ndarray:
    """Return the light per px² at distances r in px: the frame's atmosphere, the others and the aureole."""
    radius, value = _atmosphere()
    shapes = []
    for scale in (1.0, *ATMOSPHERES):
        scaled = r / (fwhm * scale)
        far = value[-1] * (np.maximum(scaled, radius[-1]) / radius[-1]) ** (-11 / 3)
        shapes.append(np.where(scaled < radius[-1], np.interp(scaled, radius, value), far) / (fwhm * scale) ** 2)
    return np.stack([*shapes, AUREOLE / np.maximum(r, 1.0) ** 2])


def _hermite(u: Tensor, width: float) -> Tensor:
    """Return (..., ORDER + 1) Gauss-Hermite functions of places u in px, each of norm 1."""
    t = u / width
    values = [torch.exp(-(t**2) / 2) / math.sqrt(width * math.sqrt(math.pi))]
    values.append(values[0] * t * math.sqrt(2))
    for n in range(1, ORDER):
        values.append(math.sqrt(2 / (n + 1)) * t * values[n] - math.sqrt(n / (n + 1)) * values[n - 1])
    return torch.stack(values, dim=-1)


def seeing_of(width: float) -> float:
    """Return the seeing in arcsec, to 0.02, at which the Sloan telescope's PSF has a Gaussian width in its pixels."""
    return max(round((SEEING[0] * width * 0.396 + SEEING[1]) / 0.02) * 0.02, 0.3)


class Basis:
    """The functions of which PSFs of one width are made.

    Parameters
    ----------
    width : float
        px, standard deviation of the Gaussian that matches the PSF.

    Attributes
    ----------
    fwhm : float
        px, of the atmosphere before the pixel.
    tables : Tensor, (2, K, Q)
        Values and slopes of the one-dimensional functions, `SAMPLES` a pixel.
    functions : Tensor, (1 + M, Q, Q)
        The atmosphere, and what may be added to it, none of which adds light.
    prior : Tensor, (3, M)
        Standard deviations of their coefficients: constant, and slopes along x and y.
    """

    def __init__(self, width: float):
        self.width, self.fwhm = width, math.sqrt(max(width**2 - 1 / 12, 0.09)) / WIDTH
        places = np.arange(-SAMPLES * (REACH + 2), SAMPLES * (REACH + 2) + 1) / SAMPLES
        shapes = _circular(np.hypot(places, places[:, None]), self.fwhm)
        pixel = np.full(SAMPLES + 1, 1 / SAMPLES)  # its mean, by the trapezoidal rule
        pixel[[0, -1]] /= 2
        for axis in (1, 2):
            shapes = scipy.ndimage.convolve1d(shapes, pixel, axis=axis, mode="nearest")
        middle, reach = FIELD * OVERSAMPLING // 2, SAMPLES * (REACH + 2)
        near = slice(middle - reach, middle + reach + 1)
        shapes[0] = psf_map(seeing_of(width), aureole=Aureole())[near, near]
        shapes = torch.from_numpy(shapes)
        power, vectors = torch.linalg.eigh(torch.einsum("kab,kcb->ac", shapes, shapes))
        kept = vectors[:, power.sqrt() > PRECISION * SAMPLES * power.max().sqrt()].flip(1)
        values = torch.cat([kept, _hermite(torch.from_numpy(places), 1.3 * width)], dim=1)
        self.tables = torch.stack([values, torch.gradient(values, spacing=1 / SAMPLES, dim=0)[0]])
        # an offset along one axis is a shift of the star, which its position takes up
        orders = [(i, n - i) for n in range(ORDER + 1) for i in range(n + 1) if n != 1]
        first, unit = kept.shape[1], AMPLITUDE / (2 * math.sqrt(math.pi) * 1.3 * width)
        self.functions = torch.zeros(len(shapes) + len(orders), *[values.shape[1]] * 2, dtype=torch.float64)
        self.functions[: len(shapes), :first, :first] = kept.T @ shapes @ kept
        for index, (i, j) in enumerate(orders, start=len(shapes)):
            self.functions[index, first + j, first + i] = 1
        sums = values[SAMPLES * 2 : -SAMPLES * 2 : SAMPLES].sum(dim=0)
        light = torch.einsum("q,mqp,p->m", sums, self.functions, sums)
        self.functions[1:] -= self.functions[0] * (light[1:] / light[0])[:, None, None]
        spread = [*FAMILY, *(unit * FALL ** (i + j) for i, j in orders)]
        self.prior = torch.outer(torch.tensor([1, SLOPE, SLOPE]), torch.tensor(spread)).double()
        # wings do not change over the frame: in a crowded field it is the light of unresolved stars that does
        self.prior[1:, 1 : len(FAMILY)] = 0

    def scaled(self, factors: tuple[float, float, float]) -> Tensor:
        """Return the prior with factors for the circular functions but the first, the others, and all slopes."""
        circular, others, slopes = factors
        prior = self.prior.clone()
        prior[:, 1 : len(FAMILY)] *= circular
        prior[:, len(FAMILY) :] *= others
        prior[1:] *= slopes
        return prior

    def at(self, offset: Tensor, size: int) -> Tensor:
        """Return (2, N, size, Q) values and slopes of the one-dimensional functions at the pixels of stamps whose
        stars lie at `offset` (N,) px from the middle."""
        place = (torch.arange(size) - size // 2 - offset[:, None].double()) * SAMPLES + self.tables.shape[1] // 2
        first, weights = cubic(place)
        first = first.clamp(0, self.tables.shape[1] - 4)  # beyond the tables there is no light
        return sum(self.tables[:, first + k] * weight[..., None] for k, weight in enumerate(weights))


@dataclass
class FramePSF:
    """The PSF of a frame.

    Parameters
    ----------
    basis : Basis
    shape : (int, int)
        Of the frame, rows and columns.
    coefficients : Tensor, (3, M)
        Of the basis's functions: constant, and slopes along x and y, from the centre of the frame to its edge.
    covariance : Tensor, (3 M, 3 M)
        Of the coefficients.
    stars : int
        How many stars they come from.
    """

    basis: Basis
    shape: tuple[int, int]
    coefficients: Tensor
    covariance: Tensor
    stars: int = 0

    @classmethod
    def unknown(cls, width: float, shape: tuple[int, int]) -> "FramePSF":
        """Return the atmosphere's PSF of a width in pixels, as uncertain as the prior."""
        basis = Basis(width)
        return cls(basis, shape, torch.zeros_like(basis.prior), torch.diag(basis.prior.flatten() ** 2))

    def terms(self, x: Tensor, y: Tensor) -> Tensor:
        """Return (N, 3) by which coefficients count at places in px: 1, and −1 to 1 over the frame along x and y."""
        height, width = self.shape
        return torch.stack([torch.ones_like(x), 2 * x / width - 1, 2 * y / height - 1], dim=1).double()

    def drawn(self, x: Tensor, y: Tensor, size: int, *, at: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return (3, N, size, size): the share of a star's light in each pixel of a stamp, and its slopes along x and y
        of the star's place.

        `x` and `y` (N,) are places on the frame in px. The stamps' middle is the pixel that holds them, or lies `at`
        (dx, dy) before them.
        """
        dx, dy = at if at is not None else (split(x)[1], split(y)[1])
        added = torch.einsum("nt,tm,mqp->nqp", self.terms(x, y), self.coefficients, self.basis.functions[1:])
        matrix = self.basis.functions[0] + added
        (columns, across), (rows, down) = (self.basis.at(offset, size) for offset in (dx, dy))
        right = matrix @ columns.transpose(1, 2)
        return torch.stack([rows @ right, -rows @ (matrix @ across.transpose(1, 2)), -down @ right])

    def light(self, x: Tensor, y: Tensor, flux: Tensor) -> Tensor:
        """Return the stars' light in electrons on the frame, (1, H, W)."""
        image = torch.zeros(1, *self.shape)
        (column, dx), (row, dy) = split(x), split(y)
        stamps = self.drawn(x, y, STAMP)[0] * flux[:, None, None]
        add_stamps(image, stamps.float(), torch.zeros_like(column), column, row)
        bright = torch.nonzero(flux > WIDE)[:, 0].tolist()
        if bright:
            axis, inner = np.arange(WINGS) - WINGS // 2, slice(WINGS // 2 - REACH, WINGS // 2 + REACH + 1)
            shares = np.append(1.0, self.coefficients[0, : len(FAMILY)].numpy())
            shares[0] -= shares[1:-1].sum()
            shares[-1] += 1  # the atmosphere's map has an aureole of its own
            wings = []
            for k in bright:
                far = np.tensordot(
                    shares, _circular(np.hypot(axis - float(dx[k]), axis[:, None] - float(dy[k])), self.basis.fwhm), 1
                )
                far[inner, inner] = 0
                wings.append(float(flux[k]) * far.clip(min=0))
            stamps = torch.from_numpy(np.stack(wings)).float()
            add_stamps(image, stamps, torch.zeros(len(bright), dtype=torch.long), column[bright], row[bright])
        return image


def split(place: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixel that holds each place, int64, and how far the place lies beyond its centre."""
    pixel = torch.floor(place + 0.5)
    return pixel.long(), place - pixel
