"""What the BPNN sees of a star: the stamp, a few classical measurements on it, and what the frame knows."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pnet.psf import Aureole, Optics
from pnet.render import psf_table, sample_psf
from pnet.stamps import gaussian_flux, gaussian_moments, gaussian_width

IMAGES = 3  # channels of the network's image
CONTEXT = 10  # numbers beside it
SCALES = (0.7, 1.0, 1.5)  # widths of the Gaussian windows in units of the frame's PSF width
MAGNITUDE_ZERO = 8.0  # ln(flux/σ) that the magnitude target is centred on: about g = 18 in an SDSS frame
SATURATED_SCALE = 0.1  # mag; a saturated star has lost light, so that its correction is on this scale
FLOOR = 2e-3  # mag; below it corrections are the same in all stars, not noise
KNOTS = 20  # PSF widths in the table of aperture corrections
POGSON = 2.5 / np.log(10)


@dataclass
class Stamps:
    """Cut-outs of stars and what the frame knows.

    Parameters
    ----------
    pixels : Tensor, (N, S, S)
        Electrons, sky subtracted.
    dx, dy : Tensor, (N,)
        Position from the detection, relative to the middle pixel in pixels.
    sigma : Tensor, (N,)
        Noise of an empty pixel of the frame in electrons.
    psf_width : Tensor, (N,)
        Standard deviation in pixels of the Gaussian that matches the frame's bright stars.
    saturated : Tensor, (N,), bool
        A pixel of the stamp is saturated.
    """

    pixels: Tensor
    dx: Tensor
    dy: Tensor
    sigma: Tensor
    psf_width: Tensor
    saturated: Tensor


@dataclass
class Inputs:
    """What the network takes, and how its output becomes a magnitude: mag = `base` + `scale` · output.

    `images` (N, IMAGES, S, S), `context` (N, CONTEXT), `base` and `scale` (N,) in instrumental magnitudes
    (−2.5 log10 of electrons).
    """

    images: Tensor
    context: Tensor
    base: Tensor
    scale: Tensor


WIDTH_STAMP = 21  # px; the PSF's width is measured on stamps of this size


@dataclass
class Apertures:
    """What each window finds of a star's light, by the width of the PSF.

    Parameters
    ----------
    widths : Tensor, (K,)
        PSF widths in pixels, rising.
    logs : Tensor, (K, len(SCALES) + 1)
        ln of the share of the total flux that each Gaussian window and, last, the plain sum finds.
    """

    widths: Tensor
    logs: Tensor

    @classmethod
    def unknown(cls) -> "Apertures":
        """Return a table without corrections, to be overwritten by weights that are loaded."""
        return cls(torch.linspace(0, 1, KNOTS), torch.zeros(KNOTS, len(SCALES) + 1))

    @classmethod
    def calibrated(cls, stamp: int, pixel_scale: float = 0.396) -> "Apertures":
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
            margin = (WIDTH_STAMP - stamp) // 2
            cut = psf[:, margin : WIDTH_STAMP - margin, margin : WIDTH_STAMP - margin]
            widths.append(width)
            logs.append(torch.log(_fluxes(cut, dx, dy, width.expand_as(dx))).mean(dim=0))
        return cls(torch.stack(widths), torch.stack(logs))

    def at(self, psf_width: Tensor) -> Tensor:
        """Return (N, len(SCALES) + 1) logs at PSF widths (N,), interpolated; beyond the ends the last value holds."""
        widths = self.widths.to(psf_width.device)
        logs = self.logs.to(psf_width.device)
        upper = torch.bucketize(psf_width, widths).clamp(1, len(widths) - 1)
        share = ((psf_width - widths[upper - 1]) / (widths[upper] - widths[upper - 1])).clamp(0, 1)[:, None]
        return torch.lerp(logs[upper - 1], logs[upper], share)


def _fluxes(pixels: Tensor, dx: Tensor, dy: Tensor, width: Tensor) -> Tensor:
    """Return (N, len(SCALES) + 1) weighted fluxes and the plain sum."""
    weighted = [gaussian_flux(pixels, dx, dy, scale * width) for scale in SCALES]
    return torch.stack([*weighted, pixels.sum(dim=(1, 2))], dim=1)


def make_inputs(stamps: Stamps, target: str, apertures: Apertures) -> Inputs:
    """Measure the stamps and return the network's inputs; `target` as in `BPNNConfig`."""
    pixels, sigma, width = stamps.pixels.float(), stamps.sigma.float(), stamps.psf_width.float()
    size = pixels.shape[-1]
    dx, dy = gaussian_moments(pixels, stamps.dx.float(), stamps.dy.float(), width)
    fluxes = _fluxes(pixels, dx, dy, width) * torch.exp(-apertures.at(width))
    smallest = 3 * sigma[:, None]  # a logarithm needs something positive
    logs = torch.log(fluxes.clamp(min=1e-6).maximum(smallest))
    # The plain sum leads: a matched window finds 1 % less light where the PSF is 1 % wider than thought, the sum of
    # 9 × 9 pixels 0.1 to 0.3 %, and it costs the faintest stars only a fifth in noise, which the network wins back.
    log_base = logs[:, 3]
    flux = torch.exp(log_base)
    # Photon noise and the sky under the PSF (King 1983): what the base flux can be trusted to.
    expected = torch.sqrt(flux + 4 * torch.pi * width**2 * sigma**2) / flux
    scale = torch.sqrt((POGSON * expected) ** 2 + FLOOR**2)
    scale = torch.where(stamps.saturated, scale.clamp(min=SATURATED_SCALE), scale)
    axis = torch.arange(size, device=pixels.device) - size // 2
    x, y = axis[None, None, :] - dx[:, None, None], axis[None, :, None] - dy[:, None, None]
    variance = width[:, None, None] ** 2
    model = torch.exp(-(x**2 + y**2) / (2 * variance)) / (2 * torch.pi * variance) * flux[:, None, None]
    noise = torch.sqrt(sigma[:, None, None] ** 2 + model)
    images = torch.stack(
        [
            torch.asinh(pixels / sigma[:, None, None]) / 3,
            pixels / flux[:, None, None] * (2 * torch.pi * variance),  # shape: 1 at the peak of a Gaussian
            torch.asinh((pixels - model) / noise) / 3,
        ],
        dim=1,
    )
    unit = scale[:, None] / POGSON
    differences = torch.asinh((logs - log_base[:, None])[:, :3] / unit) / 2
    context = torch.stack(
        [
            (log_base - torch.log(sigma) - MAGNITUDE_ZERO) / 2,
            (width - 1.7) / 0.5,
            dx,
            dy,
            torch.log(POGSON * expected) + 4.5,
            torch.log(sigma) - 2.85,
            stamps.saturated.float(),
        ],
        dim=1,
    )
    context = torch.cat([context, differences], dim=1)
    if target == "magnitude":
        base = -POGSON * (torch.log(sigma) + MAGNITUDE_ZERO)
        scale = torch.ones_like(base)
    else:
        base = -POGSON * log_base
    return Inputs(images=images, context=context, base=base, scale=scale)
