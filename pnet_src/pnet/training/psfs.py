"""Frames with PSFs that no family holds, each with the PSF that `pnet.sky.psf_estimate` makes of its noisy stars.

A network that corrects fits must know how wrong a PSF may be. Seeing, outer scale, aberrations of the telescope,
guiding, charge diffusion and wings are drawn from wide ranges, and they change over the frame.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
import torch
from torch import Tensor

from pnet.common.seeds import derive
from pnet.sky import psf_estimate
from pnet.sky.frame_psf import AUREOLE, STAMP, FramePSF
from pnet.sky.psf import OVERSAMPLING
from pnet.sky.psf_fit import side
from pnet.sky.render import sample_psf
from pnet.sky.stamps import gaussian_moments, gaussian_width

MAP = 98  # px, width of the maps of PSFs
REACH = MAP - 5  # px, widest stamp that they fill
SEEING = (1.6, 7.0)  # px, FWHM of the atmosphere
FAMILY = 0.3  # share of the frames with the atmosphere alone, as SkyMaker makes them
OUTER_SCALE = (1.3, 3.0)  # log10 of it in units of Fried's r0
BLUR = 0.16  # rms of the rays of each aberration, in units of the FWHM; its standard deviation
GUIDING = 0.14  # the same for the guiding's Gaussian, along one axis
DIFFUSION = 0.35  # px, largest Gaussian width of the charge's diffusion
WINGS = (0.3, 0.9)  # mean and scatter of the ln of the aureole in units of SkyMaker's
SECOND = (0.2, 1.3, 3.0)  # largest share of a second atmosphere, and how much wider it is: the seeing changes
CHANGE, WIDER = 0.3, 0.02  # over the frame: of aberrations and guiding, and of the width
WANDER = 0.25  # of this change, how much at most goes to and fro
NARROW = 1.2  # power that prefers narrow ones
NOISE = 17.0  # electrons, of an empty pixel of the frames that PSFs are estimated on
RAYS = 20_000
SHAPE = (1500, 2000)  # px, of the frames
STARS = (3, 80)  # from which the PSF is estimated; their flux over noise:
SIGNAL = (40.0, 1500.0)


@dataclass
class SkyPSF:
    """A true PSF, which changes from `tables[0]` to `tables[1]` along one direction over the frame.

    Parameters
    ----------
    tables : list of two Tensors
        As `sample_psf` takes them; in `STAMP` px they hold as much light as the atmosphere of their width.
    origin : ndarray, (2, 2)
        px, x and y of the place of a star in them, the centroid in a Gaussian window of 1.3 widths: no Gauss-Hermite
        function of first order is in a `FramePSF`.
    width : float
        px, of the Gaussian that matches the PSF in the middle.
    angle, phase, wander : float
        Direction of the change, and phase and amplitude of what wanders beside it.
    """

    tables: list[Tensor]
    origin: np.ndarray
    width: float
    angle: float
    phase: float
    wander: float

    def stamps(self, u: Tensor, v: Tensor, dx: Tensor, dy: Tensor, size: int) -> Tensor:
        """Return (N, size, size) shares of light of stars at `u`, `v`, −1 to 1 over the frame, which lie at dx, dy px
        from the middle of their stamps."""
        share = 0.5 + 0.35 * (np.cos(self.angle) * u + np.sin(self.angle) * v)
        share = share + self.wander * torch.sin(4 * v + self.phase)
        first, second = (
            sample_psf(table, (dx - x).float(), (dy - y).float(), size)
            for table, (x, y) in zip(self.tables, self.origin.tolist(), strict=True)
        )
        return torch.lerp(first, second, share.float()[:, None, None])


def _rays(rng: np.random.Generator) -> np.ndarray:
    """Return (2, modes, RAYS) where rays through an annular pupil land in unit of each aberration: defocus, two of
    astigmatism, coma and trefoil each, spherical. Far from diffraction the wavefront's slopes are all of it."""
    radius, angle = np.sqrt(rng.uniform(0.22, 1, RAYS)), rng.uniform(0, 2 * np.pi, RAYS)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    r2 = x**2 + y**2
    modes = [(x, y), (x, -y), (y, x), (2 * x**2 + r2, 2 * x * y), (2 * x * y, 2 * y**2 + r2)]
    modes += [(x**2 - y**2, -2 * x * y), (2 * x * y, x**2 - y**2), (r2 * x, r2 * y)]
    rays = np.array(modes).transpose(1, 0, 2)
    rays = rays - rays.mean(axis=2, keepdims=True)
    return rays / np.sqrt((rays**2).sum(axis=0).mean(axis=1))[None, :, None]


def _map(fwhm: float, shape: dict, rays: np.ndarray) -> np.ndarray:
    """Return a PSF on the oversampled grid, of a pixel's light."""
    n = MAP * OVERSAMPLING
    frequency = scipy.fft.fftfreq(n, 1 / OVERSAMPLING)
    along, across = frequency[: n // 2 + 1][None], frequency[:, None]
    transfer = 0
    for share, wider in ((1 - shape["second"], 1.0), (shape["second"], shape["wider"])):
        baseline = np.hypot(along, across) * fwhm * wider / 0.975863  # in units of r0
        damped = 1 - 1.485 * np.cbrt(baseline / shape["outer"])  # Tokovinin 2002
        transfer = transfer + share * np.exp(-3.4419 * baseline ** (5 / 3) * np.maximum(damped, 0.3))
    (a, b), (c, s) = shape["guiding"], (np.cos(shape["angle"]), np.sin(shape["angle"]))
    major, minor = c * along + s * across, c * across - s * along
    blur = (a * fwhm * major) ** 2 + (b * fwhm * minor) ** 2 + shape["diffusion"] ** 2 * (along**2 + across**2)
    transfer = transfer * np.exp(-2 * np.pi**2 * blur) * np.sinc(along) * np.sinc(across)
    landed = np.rint(fwhm * np.tensordot(rays, shape["modes"], (1, 0)) * OVERSAMPLING).astype(int) % n
    spot = np.bincount(landed[1] * n + landed[0], minlength=n * n).reshape(n, n) / rays.shape[2]
    psf = scipy.fft.fftshift(scipy.fft.irfft2(transfer * scipy.fft.rfft2(spot), s=(n, n))) * OVERSAMPLING**2
    axis = (np.arange(n) - n // 2) / OVERSAMPLING
    return psf + shape["aureole"] / np.maximum(np.hypot(axis, axis[:, None]), 1) ** 2


def draw(rng: np.random.Generator, fwhm: float, family: float = FAMILY) -> SkyPSF:
    """Draw a PSF whose atmosphere has a FWHM in px, with a probability that there is nothing else."""
    plain, rays = rng.random() < family, _rays(rng)
    shape = {
        "outer": np.inf if plain or rng.random() < 0.3 else 10 ** rng.uniform(*OUTER_SCALE),
        "second": 0.0 if plain else rng.uniform(0, SECOND[0]),
        "wider": rng.uniform(*SECOND[1:]),
        "guiding": np.abs(rng.normal(0, GUIDING, 2)) * (1, 0.3) * (not plain),
        "angle": rng.uniform(0, np.pi),
        "diffusion": 0.0 if plain else rng.uniform(0, DIFFUSION),
        "modes": rng.normal(0, BLUR, 8) * rng.uniform(0, 1) * (not plain),
        "aureole": AUREOLE * np.exp(0 if plain else rng.normal(*WINGS)),
    }
    wider = 0.0 if plain and rng.random() < 0.7 else rng.normal(0, WIDER)
    other = shape | {
        "modes": shape["modes"] + CHANGE * BLUR * rng.normal(0, 1, 8) * rng.uniform(0, 1) * (not plain),
        "guiding": shape["guiding"] * np.exp(rng.normal(0, CHANGE, 2)),
    }
    tables, origin, widths = [], [], []
    phase = torch.arange(4).double() / 4 - 0.375
    dy, dx = (grid.reshape(-1) for grid in torch.meshgrid(phase, phase, indexing="ij"))
    for values, scale in ((shape, 1.0), (other, np.exp(wider))):
        psf = _map(fwhm * scale, values, rays)
        psf = np.pad(psf, (0, 1))  # as many samples on either side of the middle
        table = torch.from_numpy(psf.astype(np.float32))[None, None]
        stamps = sample_psf(table, dx, dy, STAMP).double()
        width = gaussian_width(stamps, dx, dy, fwhm / 2.355)
        widths.append(float(width.mean()))
        light = FramePSF.unknown(widths[-1], SHAPE).drawn(dx[:1], dy[:1], STAMP)[0].sum()
        tables.append(table * float(light / stamps.sum(dim=(1, 2)).mean()))
        window = torch.full_like(dx, 1.3 * widths[-1])
        x, y = gaussian_moments(stamps, dx, dy, window, scale=1.3, iterations=20)
        origin.append([float((x - dx).mean()), float((y - dy).mean())])
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    return SkyPSF(tables, np.array(origin), float(np.mean(widths)), angle, phase, rng.uniform(0, WANDER))


def places(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the places in px on frames of `SHAPE` of what lies at −1 to 1 over them."""
    return (u + 1) * SHAPE[1] / 2, (v + 1) * SHAPE[0] / 2


def estimated(true: SkyPSF, rng: np.random.Generator, rms: float) -> FramePSF:
    """Return what is estimated of a PSF from stars with noise; `rms` is that of an empty pixel in electrons."""
    n = int(round(np.exp(rng.uniform(*np.log(STARS))))) if rng.random() < 0.95 else 0
    if n < psf_estimate.LEAST:
        return FramePSF.unknown(true.width * np.exp(rng.normal(0, 0.02)), SHAPE)
    u, v, dx, dy = torch.from_numpy(rng.uniform([[-1], [-1], [-0.5], [-0.5]], [[1], [1], [0.5], [0.5]], (4, n)))
    low, high = np.log(SIGNAL[0]), rng.uniform(np.log(5 * SIGNAL[0]), np.log(SIGNAL[1]))
    signal = np.exp(rng.uniform(low, high, n))
    area = 4 * np.pi * true.width**2
    flux = torch.from_numpy((signal**2 + signal * np.sqrt(signal**2 + 4 * area * rms**2)) / 2)
    psf = FramePSF.unknown(true.width * np.exp(rng.normal(0, 0.004)), SHAPE)
    size = side(psf.basis.width)
    light = true.stamps(u, v, dx, dy, size) * flux[:, None, None].float()
    pixels = torch.from_numpy(rng.poisson(light.clamp(min=0).numpy()) + rng.normal(0, rms, light.shape))
    start = flux, dx + torch.from_numpy(rng.normal(0, 0.05, n)), dy + torch.from_numpy(rng.normal(0, 0.05, n))
    for _ in range(psf_estimate.ROUNDS):
        psf, fitted = psf_estimate.refined(psf, pixels, *places(u, v), start, rms**2)
        start = fitted.flux, fitted.dx, fitted.dy
    return psf


@lru_cache(maxsize=2)
def many(seed: int, count: int, seeing: tuple[float, float], estimates: int) -> list[tuple[SkyPSF, list[FramePSF]]]:
    """Return true PSFs, `count` of them with FWHM of the atmosphere in a range in px, each with so many estimates; half
    a second each. Where nothing is estimated, they are the atmosphere's alone."""
    rng, found = np.random.default_rng(derive(seed, "PSFs")), []
    low, high = np.log(seeing)
    for share in np.sort(rng.uniform(0, 1, count)):  # sorted: neighbours share maps that are cached
        true = draw(rng, float(np.exp(low + (high - low) * share**NARROW)), FAMILY if estimates else 1.0)
        found.append((true, [estimated(true, rng, NOISE) for _ in range(estimates)]))
    return found
