"""What a star's network sees: the stamp, a few classical measurements on it, and what the frame knows.

The network corrects classical estimates instead of replacing them: windowed centroids and weighted fluxes of several
widths already come within 5 to 40 % of the Cramér-Rao bound, each in its own range of brightness, and their
differences, in units of the error that is to be expected, tell the network what to add.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from pnet.sky.psf import Aureole, Optics
from pnet.sky.render import psf_table, sample_psf
from pnet.sky.stamps import aperture_weights, gaussian_flux, gaussian_moments, gaussian_width

TARGETS = ("mag", "x", "y")
IMAGES = 3  # channels of the network's image
WIDTH_STAMP = 21  # px; side of the stamps on which the PSF's width and the classical values are measured
CENTROIDS = (1.0, 1.5, 2.2)  # widths of the windows of the centroids in units of the frame's PSF width
SCALES = (0.7, 1.0, 1.5)  # the same for the weighted fluxes
RADII = (4.5, 7.0, 10.0)  # px, round apertures with soft edges
BASE = len(SCALES)  # the flux that is corrected: the sum in the first aperture
FLUXES = len(SCALES) + len(RADII)
CONTEXT = 12 + 2 * (len(CENTROIDS) - 1) + FLUXES - 1  # numbers beside the image
MAGNITUDE_ZERO = 8.0  # ln(flux/σ) that the magnitude target is centred on: about g = 18 in an SDSS frame
SATURATED_SCALE = 0.1  # mag; a saturated star has lost light, so that its correction is on this scale
SATURATED_SHIFT = 0.05  # px, the same for positions
FLOOR = 1e-3  # mag; below it corrections are the same in all stars, not noise
SHIFT_FLOOR = 5e-4  # px, the same for positions
SHAPE = 10.0  # bound of the shape in the network's image; noise of the faintest stars reaches 5
LEAST_SCATTER = 5e-4  # of the PSF's width, relative: a logarithm needs something positive
KNOTS = 20  # PSF widths in the table of aperture corrections
POGSON = 2.5 / np.log(10)
BARE_UNIT = (
    17.0  # electrons, the noise of an empty pixel of a typical SDSS frame: the unit of a stamp that knows of none
)


class Rows:
    """Base of dataclasses of tensors, or of other Rows, with one row a star."""

    def __getitem__(self, chosen) -> Self:
        return type(self)(**{name: value[chosen] for name, value in vars(self).items()})

    def to(self, device: torch.device | str) -> Self:
        """Return the rows on another device."""
        return type(self)(**{name: value.to(device) for name, value in vars(self).items()})

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts in one."""
        columns = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
        return cls(
            **{name: torch.cat(c) if isinstance(c[0], Tensor) else type(c[0]).join(c) for name, c in columns.items()}
        )


@dataclass
class Stamps(Rows):
    """Cut-outs of stars and what the frame knows.

    Parameters
    ----------
    pixels : Tensor, (N, WIDTH_STAMP, WIDTH_STAMP)
        Electrons, sky subtracted.
    dx, dy : Tensor, (N,)
        Position from the detection, relative to the middle pixel in pixels.
    sigma : Tensor, (N,)
        Noise of an empty pixel of the frame in electrons.
    psf_width : Tensor, (N,)
        Standard deviation in pixels of the Gaussian that matches the frame's bright stars.
    psf_scatter : Tensor, (N,)
        Relative scatter of the PSF's width over the frame beyond noise: how far a star's own PSF may differ from it.
    saturated : Tensor, (N,), bool
        A pixel of the inner 9 × 9 is saturated.
    """

    pixels: Tensor
    dx: Tensor
    dy: Tensor
    sigma: Tensor
    psf_width: Tensor
    psf_scatter: Tensor
    saturated: Tensor

    def __len__(self) -> int:
        return len(self.dx)


@dataclass
class Inputs:
    """What the network takes, and how its output becomes a measurement: value = `base` + `scale` · output.

    `images` (N, IMAGES, S, S), `context` (N, CONTEXT); `base` and `scale` (N, 3) hold, in the order of TARGETS, the
    instrumental magnitude (−2.5 log10 of electrons) and x and y in pixels from the stamp's middle pixel.
    """

    images: Tensor
    context: Tensor
    base: Tensor
    scale: Tensor


@dataclass
class Apertures:
    """What each window finds of a star's light, by the width of the PSF.

    Parameters
    ----------
    widths : Tensor, (K,)
        PSF widths in pixels, rising.
    logs : Tensor, (K, FLUXES)
        ln of the share of the total flux that each Gaussian window and each aperture finds.
    """

    widths: Tensor
    logs: Tensor

    @classmethod
    def unknown(cls) -> "Apertures":
        """Return a table without corrections, to be overwritten by weights that are loaded."""
        return cls(torch.linspace(0, 1, KNOTS), torch.zeros(KNOTS, FLUXES))

    @classmethod
    def calibrated(cls, pixel_scale: float = 0.396) -> "Apertures":
        """Measure noiseless stars of Kolmogorov seeing behind the Sloan optics.

        Whatever another telescope does to its wings is a constant of the frame that the zero point (Eq. 18) takes up.
        """
        phase = torch.arange(8) / 8 - 0.4375
        dy, dx = (grid.reshape(-1) for grid in torch.meshgrid(phase, phase, indexing="ij"))
        widths, logs = [], []
        for seeing in np.linspace(0.7, 2.6, KNOTS).round(3):
            table = psf_table(float(seeing), pixel_scale, Optics(), Aureole(), "cpu", WIDTH_STAMP)
            psf = sample_psf(table, dx, dy, WIDTH_STAMP)
            width = gaussian_width(psf, dx, dy).median()
            widths.append(width)
            logs.append(torch.log(_fluxes(psf, dx, dy, width.expand_as(dx))).mean(dim=0))
        return cls(torch.stack(widths), torch.stack(logs))

    def at(self, psf_width: Tensor) -> Tensor:
        """Return (N, FLUXES) logs at PSF widths (N,), interpolated; beyond the ends the last value holds."""
        widths = self.widths.to(psf_width.device)
        logs = self.logs.to(psf_width.device)
        upper = torch.bucketize(psf_width, widths).clamp(1, len(widths) - 1)
        share = ((psf_width - widths[upper - 1]) / (widths[upper] - widths[upper - 1])).clamp(0, 1)[:, None]
        return torch.lerp(logs[upper - 1], logs[upper], share)


def bare_inputs(stamps: Stamps, size: int) -> Inputs:
    """Return the inputs of a network that sees the pixels and nothing else: (N, 1, size, size), one compressed image in
    a fixed unit; no context, and magnitudes about one constant."""
    pixels, n = stamps.pixels.float(), len(stamps)
    margin = (pixels.shape[-1] - size) // 2
    base = torch.zeros(n, len(TARGETS), device=pixels.device)
    base[:, 0] = -POGSON * (np.log(BARE_UNIT) + MAGNITUDE_ZERO)
    return Inputs(
        images=torch.asinh(pixels[:, None, margin : margin + size, margin : margin + size] / BARE_UNIT) / 3,
        context=pixels.new_zeros(n, 0),
        base=base,
        scale=torch.ones_like(base),
    )


def _fluxes(pixels: Tensor, dx: Tensor, dy: Tensor, width: Tensor) -> Tensor:
    """Return (N, FLUXES) weighted fluxes and aperture sums."""
    weighted = [gaussian_flux(pixels, dx, dy, scale * width) for scale in SCALES]
    sums = [(pixels * aperture_weights(pixels.shape[-1], dx, dy, radius)).sum(dim=(1, 2)) for radius in RADII]
    return torch.stack([*weighted, *sums], dim=1)


def make_inputs(stamps: Stamps, size: int, apertures: Apertures, correction: bool = True) -> Inputs:
    """Measure the stamps and return the network's inputs.

    Parameters
    ----------
    stamps : Stamps
    size : int
        Odd side in pixels of the part that the network sees as an image.
    apertures : Apertures
    correction : bool
        Whether the network's magnitude corrects the base flux or stands by itself (`BPNNConfig.target`).
    """
    pixels, sigma, width = stamps.pixels.float(), stamps.sigma.float(), stamps.psf_width.float()
    start_x, start_y = stamps.dx.float(), stamps.dy.float()
    centroids = [gaussian_moments(pixels, start_x, start_y, scale * width, scale=scale) for scale in CENTROIDS]
    x, y = centroids[0]
    logs = torch.log((_fluxes(pixels, x, y, width) * torch.exp(-apertures.at(width))).maximum(3 * sigma[:, None]))
    # An aperture leads: a matched window finds 1 % less light where the PSF is 1 % wider than thought, the aperture
    # 0.1 to 0.3 %, and it costs the faintest stars only a fifth in noise, which the network wins back.
    log_base = logs[:, BASE]
    flux = torch.exp(log_base)
    # What base flux and centroid can be trusted to: photon noise, and the sky under the PSF (King 1983).
    expected = torch.sqrt(flux + 4 * torch.pi * width**2 * sigma**2) / flux
    scale = torch.sqrt((POGSON * expected) ** 2 + FLOOR**2)
    shift = torch.sqrt(width**2 * (flux + 8 * torch.pi * width**2 * sigma**2) / flux**2 + SHIFT_FLOOR**2)
    scale = torch.where(stamps.saturated, scale.clamp(min=SATURATED_SCALE), scale)
    shift = torch.where(stamps.saturated, shift.clamp(min=SATURATED_SHIFT), shift)
    differences = torch.cat(
        [
            *((torch.stack([cx - x, cy - y], dim=1) / shift[:, None]) for cx, cy in centroids[1:]),
            (logs - log_base[:, None])[:, [index for index in range(FLUXES) if index != BASE]]
            * POGSON
            / scale[:, None],
        ],
        dim=1,
    )
    context = torch.stack(
        [
            (log_base - torch.log(sigma) - MAGNITUDE_ZERO) / 2,
            (width - 1.7) / 0.5,
            x - torch.floor(x + 0.5),
            y - torch.floor(y + 0.5),
            torch.log(POGSON * expected) + 4.5,
            torch.log(sigma) - 2.85,
            stamps.saturated.float(),
            ((start_x - x) / 0.1).clamp(-5, 5),
            ((start_y - y) / 0.1).clamp(-5, 5),
            _surroundings(pixels, x, y, sigma),
            torch.asinh(pixels.amax(dim=(1, 2)) / flux * 2 * torch.pi * width**2 - 1),
            torch.log(stamps.psf_scatter.float() + LEAST_SCATTER) + 6,
        ],
        dim=1,
    )
    base = torch.stack([-POGSON * log_base, x, y], dim=1)
    units = torch.stack([scale, shift, shift], dim=1)
    if not correction:
        base[:, 0] = -POGSON * (torch.log(sigma) + MAGNITUDE_ZERO)
        units[:, 0] = 1
    return Inputs(
        images=_images(pixels, size, x, y, width, flux, sigma),
        context=torch.cat([context, torch.asinh(differences) / 2], dim=1),
        base=base,
        scale=units,
    )


def _surroundings(pixels: Tensor, x: Tensor, y: Tensor, sigma: Tensor) -> Tensor:
    """Return (N,) the mean of the stamp's outer ring in units of its noise: light of others, or an error of the sky."""
    ring = 1 - aperture_weights(pixels.shape[-1], x, y, RADII[-1] - 1.5)
    total = ring.sum(dim=(1, 2))
    return torch.asinh((ring * pixels).sum(dim=(1, 2)) / torch.sqrt(total) / sigma / 3)


def _images(pixels: Tensor, size: int, x: Tensor, y: Tensor, width: Tensor, flux: Tensor, sigma: Tensor) -> Tensor:
    """Return (N, IMAGES, size, size): the stamp's middle compressed, as a shape, and against a Gaussian."""
    margin = (pixels.shape[-1] - size) // 2
    pixels = pixels[:, margin : margin + size, margin : margin + size]
    axis = torch.arange(size, device=pixels.device) - size // 2
    along, across = axis[None, None, :] - x[:, None, None], axis[None, :, None] - y[:, None, None]
    variance = width[:, None, None] ** 2
    model = torch.exp(-(along**2 + across**2) / (2 * variance)) / (2 * torch.pi * variance) * flux[:, None, None]
    noise = torch.sqrt(sigma[:, None, None] ** 2 + model)
    return torch.stack(
        [
            torch.asinh(pixels / sigma[:, None, None]) / 3,
            # shape: 1 at the peak of a Gaussian; without bounds where a neighbour took more light than there is
            (pixels / flux[:, None, None] * (2 * torch.pi * variance)).clamp(-SHAPE, SHAPE),
            torch.asinh((pixels - model) / noise) / 3,
        ],
        dim=1,
    )
