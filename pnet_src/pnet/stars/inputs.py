"""What a star's network sees: what the fit of the frame's PSF leaves of its pixels, and how far other measurements of
the same pixels differ from the fit.

The network corrects the fit instead of replacing it. With the right PSF and a star that is alone, the most likely flux
and position are at the Cramér-Rao bound; what is left to know is what the fit does not: unresolved neighbours,
galaxies, lost pixels, a PSF that is only an estimate, and how wrong all this may be. Every number is in units of the
error that is to be expected and relative to the frame's own PSF, so that telescopes look alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from pnet.sky.psf_fit import FittedStars
from pnet.sky.stamps import aperture_weights, offsets

TARGETS = ("mag", "x", "y")
IMAGES = 5  # channels of the network's image
STAMP = 15  # px; the smallest stamp that a star is fitted on, so the widest image
WINDOWS = (0.7, 1.0, 1.5, 2.2)  # widths of Gaussian windows in units of the PSF's
RADII = (2.5, 4.0, 5.5)  # the same for apertures with soft edges
MAGNITUDE_ZERO = 8.0  # ln(flux/σ) that the magnitude target is centred on: about g = 18 in an SDSS frame
FLOOR = 5e-4  # mag; below it corrections are the same in all stars, not noise
SHIFT_FLOOR = 3e-4  # px, the same for positions
MOST_ERROR, MOST_SHIFT = 0.5, 0.5  # mag and px; units of stars of which next to nothing is seen
SHAPE = 10.0  # bound of images, in units of the noise or of the peak
POGSON = 2.5 / np.log(10)
BARE_UNIT = 17.0  # electrons, the noise of an empty pixel of a typical SDSS frame: the unit of a stamp that knows none
# The context's columns that change their sign when the sky is mirrored along x, and along y
NUMBERS = 12  # columns that do not
ODD = 2 + len(WINDOWS)
CONTEXT = NUMBERS + 1 + len(WINDOWS) + len(RADII) + 2 * ODD


class Rows:
    """Base of dataclasses of tensors, or of other Rows, with one row a star."""

    def __getitem__(self, chosen) -> Self:
        return type(self)(**{name: value[chosen] for name, value in vars(self).items()})

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

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
class Inputs(Rows):
    """What the network takes, and how its output becomes a measurement: value = `base` + `scale` · output.

    Parameters
    ----------
    images : Tensor, (N, C, S, S)
        `IMAGES` channels of `STAMP` px, or one channel of bare pixels.
    context : Tensor, (N, CONTEXT)
        Numbers beside the image; none with bare pixels.
    base, scale : Tensor, (N, 3), float64 and float32
        In the order of TARGETS: the instrumental magnitude (−2.5 log10 of electrons), and x and y in pixels from the
        stamp's middle pixel.
    """

    images: Tensor
    context: Tensor
    base: Tensor
    scale: Tensor

    def mirrored(self, axis: str) -> "Inputs":
        """Return the inputs of the same stars in a sky that is mirrored along 'x' or 'y'."""
        which = "xy".index(axis)
        odd = slice(CONTEXT - (2 - which) * ODD, CONTEXT - (1 - which) * ODD)
        context, base = self.context.clone(), self.base.clone()
        context[:, odd] *= -1
        base[:, 1 + which] *= -1
        return Inputs(self.images.flip(3 - which), context, base, self.scale)


def bare_inputs(pixels: Tensor) -> Inputs:
    """Return the inputs of a network that sees (N, S, S) pixels in electrons and nothing else: one compressed image in
    a fixed unit; no context, and magnitudes about one constant."""
    n = len(pixels)
    base = torch.zeros(n, len(TARGETS), dtype=torch.float64, device=pixels.device)
    base[:, 0] = -POGSON * (np.log(BARE_UNIT) + MAGNITUDE_ZERO)
    images = torch.asinh(pixels.float()[:, None] / BARE_UNIT) / 3
    return Inputs(images, images.new_zeros(n, 0), base, torch.ones_like(base).float())


def make_inputs(stars: FittedStars) -> Inputs:
    """Return the inputs of a network that corrects a fit; stars without usable pixels have a boundless error there and
    get units of `MOST_ERROR` and `MOST_SHIFT`."""
    fit, width, rms = stars.fit, stars.psf.basis.width, stars.rms
    flux, usable = fit.flux, (fit.weight > 0).double()
    relative, shape = fit.error / torch.stack([flux, *torch.ones(2, len(flux), dtype=flux.dtype)], 1), stars.shape_error
    unit = torch.hypot(relative, shape)
    unit = torch.stack(
        [
            torch.hypot(POGSON * unit[:, 0], unit.new_tensor(FLOOR)).clamp(max=MOST_ERROR),
            *(torch.hypot(unit[:, k], unit.new_tensor(SHIFT_FLOOR)).clamp(max=MOST_SHIFT) for k in (1, 2)),
        ],
        dim=1,
    )
    even, odd_x, odd_y = _windows(stars, unit, usable)
    power = (fit.share[0] ** 2).sum(dim=(1, 2))
    pixels = usable.sum(dim=(1, 2)).clamp(min=1)
    numbers = [
        (torch.log(flux / rms) - MAGNITUDE_ZERO) / 2,
        torch.full_like(flux, np.log(width / 1.7)),
        torch.full_like(flux, np.log(rms) - 2.85) / 2,
        torch.log(relative[:, 0] + 1e-5) + 4.5,
        torch.log(shape[:, 0] + 1e-5) + 6,
        torch.log(relative[:, 1:].mean(dim=1) + 1e-5) + 4,
        torch.log(shape[:, 1:].mean(dim=1) + 1e-5) + 6,
        1 - (fit.share[0] * usable).sum(dim=(1, 2)),
        torch.asinh((fit.misfit - 1) * (pixels / 2).sqrt() / 3) / 2,
        torch.full_like(flux, np.log1p(stars.psf.stars) / 3),
        torch.asinh(10 * (fit.share[0] * stars.others).sum(dim=(1, 2)) / power / flux),
        _surroundings(stars, usable),
    ]
    likelier = fit.likelier / torch.stack([-flux / POGSON, *torch.ones(2, len(flux), dtype=flux.dtype)], 1) / unit
    phase = [value - torch.floor(value + 0.5) for value in (fit.dx, fit.dy)]
    columns = [
        *numbers,
        torch.asinh(likelier[:, 0]),
        *(torch.asinh(value) / 2 for value in even),
        *(phase[0], torch.asinh(likelier[:, 1]), *(torch.asinh(value) / 2 for value in odd_x)),
        *(phase[1], torch.asinh(likelier[:, 2]), *(torch.asinh(value) / 2 for value in odd_y)),
    ]
    base = torch.stack([-POGSON * torch.log(flux), fit.dx, fit.dy], dim=1)
    context = torch.nan_to_num(torch.stack(columns, dim=1), nan=0.0).clamp(-SHAPE, SHAPE)
    return Inputs(_images(stars, usable).float(), context.float(), base, unit.float())


def _windows(stars: FittedStars, unit: Tensor, usable: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return what the fit leaves in windows, as magnitudes and shifts along x and y in their units."""
    fit, width = stars.fit, stars.psf.basis.width
    size = fit.residual.shape[-1]
    x, y = offsets(size, fit.dx, fit.dy)
    even, odd_x, odd_y = [], [], []
    flux = fit.flux
    for scale in WINDOWS:
        window = torch.exp(-(x**2 + y**2) / (2 * (scale * width) ** 2)) * usable
        found = (window * fit.residual).sum(dim=(1, 2)) / (window * fit.share[0]).sum(dim=(1, 2)).clamp(min=1e-9)
        even.append(-POGSON * found / flux / unit[:, 0])
        for axis, slope, odd, k in ((x, fit.share[1], odd_x, 1), (y, fit.share[2], odd_y, 2)):
            moved = (window * axis * slope).sum(dim=(1, 2)).clamp(min=1e-9) * flux
            odd.append((window * axis * fit.residual).sum(dim=(1, 2)) / moved / unit[:, k])
    for radius in RADII:
        inside = aperture_weights(size, fit.dx, fit.dy, radius * width) * usable
        found = (inside * fit.residual).sum(dim=(1, 2)) / (inside * fit.share[0]).sum(dim=(1, 2)).clamp(min=1e-9)
        even.append(-POGSON * found / flux / unit[:, 0])
    return even, odd_x, odd_y


def _surroundings(stars: FittedStars, usable: Tensor) -> Tensor:
    """Return (N,) the mean of a stamp's outer ring in units of its noise: light of others, or an error of the sky."""
    fit = stars.fit
    ring = (1 - aperture_weights(fit.residual.shape[-1], fit.dx, fit.dy, 4.5 * stars.psf.basis.width)) * usable
    noise = (ring**2 * fit.variance).sum(dim=(1, 2)).sqrt().clamp(min=1e-9)
    return torch.asinh((ring * fit.residual).sum(dim=(1, 2)) / noise / 3)


def _images(stars: FittedStars, usable: Tensor) -> Tensor:
    """Return (N, IMAGES, STAMP, STAMP): what the fit leaves in units of its noise, the star in units of the sky's, the
    PSF in units of a Gaussian's peak, the light of others in units of the noise, and which pixels are usable."""
    fit = stars.fit
    margin = (fit.residual.shape[-1] - STAMP) // 2
    inner = (slice(None), slice(margin, margin + STAMP), slice(margin, margin + STAMP))
    noise, light = fit.variance.sqrt(), fit.flux[:, None, None] * fit.share[0]
    images = torch.stack(
        [
            torch.asinh(fit.residual[inner] / noise[inner]),
            torch.asinh((fit.residual + light)[inner] / stars.rms) / 3,
            fit.share[0][inner] * (2 * np.pi * stars.psf.basis.width**2),
            torch.asinh(stars.others[inner] / noise[inner]) / 3,
            usable[inner],
        ],
        dim=1,
    )
    return images.clamp(-SHAPE, SHAPE)
