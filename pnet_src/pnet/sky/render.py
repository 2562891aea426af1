"""The batched renderer: star fields with SkyMaker's physics, in torch, on any device.

Default simulator where SkyMaker is absent, source of endless training data, and the tool that injects stars into
real frames. Everything is in electrons until `read_out`.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pnet.sky.psf import FIELD, OVERSAMPLING, Aureole, Optics, psf_map
from pnet.sky.stamps import pixels

SLOAN = Optics()
BRIGHT = 4e5  # electrons; from here on a star's wings reach beyond the small stamp
SMALL, LARGE = 49, 155  # px, widths of the stamps that stars below and above BRIGHT are drawn on


@lru_cache(maxsize=128)
def psf_table(
    seeing: float, pixel_scale: float, optics: Optics, aureole: Aureole | None, device: str, size: int = LARGE
) -> Tensor:
    """Return the central part of the oversampled PSF that stamps of `size` px need, as (1, 1, S, S) float32."""
    half, centre = (size // 2 + 3) * OVERSAMPLING, FIELD * OVERSAMPLING // 2
    near = slice(centre - half, centre + half + 1)
    cut = psf_map(seeing, pixel_scale, optics, aureole)[near, near]
    return torch.from_numpy(cut.astype(np.float32, order="C"))[None, None].to(device)


def sample_psf(table: Tensor, dx: Tensor, dy: Tensor, size: int) -> Tensor:
    """Return stamps of light fractions for stars at sub-pixel offsets.

    Parameters
    ----------
    table : Tensor, (1, 1, S, S)
        Oversampled PSF with the star at its centre.
    dx, dy : Tensor, (N,)
        Position of each star relative to the centre of the stamp's middle pixel in pixels.
    size : int
        Odd width of the stamps.

    Returns
    -------
    Tensor, (N, size, size), float32
    """
    axis = (torch.arange(size, device=table.device) - size // 2) * OVERSAMPLING + (table.shape[-1] - 1) // 2
    (rows, row_weights), (columns, column_weights) = cubic(-dy * OVERSAMPLING), cubic(-dx * OVERSAMPLING)
    stamps = torch.zeros(len(dx), size, size, device=table.device)
    for i in range(4):
        here = (axis[None] + rows[:, None] + i)[:, :, None]
        for j in range(4):
            there = (axis[None] + columns[:, None] + j)[:, None, :]
            stamps += table[0, 0, here, there] * (row_weights[i] * column_weights[j])[:, None, None]
    return stamps


def cubic(position: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the first of four samples around each position and their Lagrange weights.

    torch's own bicubic kernel (a = −0.75) would err by 0.3 % of a pixel's value at the PSF's flanks.
    """
    below = torch.floor(position)
    t = (position - below).float()
    weights = [
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    ]
    return below.long() - 1, weights


def add_stamps(images: Tensor, stamps: Tensor, field: Tensor, column: Tensor, row: Tensor) -> None:
    """Add (N, S, S) stamps to (B, H, W) images in place, centred on integer pixels, cut at the borders."""
    index, inside = pixels(images.shape, field, column, row, stamps.shape[-1])
    images.view(-1).index_add_(0, index.flatten(), (stamps * inside).flatten())


def add_stars(
    images: Tensor,
    seeing: Sequence[float],
    *,
    field: Tensor,
    x: Tensor,
    y: Tensor,
    flux: Tensor,
    pixel_scale: float = 0.396,
    optics: Optics = SLOAN,
    aureole: Aureole | None = None,
) -> None:
    """Add stars to (B, H, W) images in place; `seeing` gives each field's FWHM in arcseconds.

    `field`, which image, int64, `x` and `y` (px from 0, float64 or float32) and `flux` (electrons, float32) are (N,);
    they may lie on the CPU, where stars are picked without a GPU that waits.
    """
    for index, fwhm in enumerate(seeing):
        table = psf_table(float(fwhm), pixel_scale, optics, aureole, str(images.device))
        here = field == index
        for size, chosen in ((SMALL, here & (flux < BRIGHT)), (LARGE, here & (flux >= BRIGHT))):
            if bool(chosen.any()):
                column, row = (torch.floor(at[chosen] + 0.5).long() for at in (x, y))
                parts = (x[chosen] - column, y[chosen] - row, flux[chosen, None, None], field[chosen], column, row)
                dx, dy, light, *where = (part.to(images.device) for part in parts)
                add_stamps(images, sample_psf(table, dx, dy, size) * light, *where)


@lru_cache(maxsize=8)
def _aureole_transfer(aureole: Aureole, rows: int, columns: int, device: str) -> Tensor:
    """Return the real FFT of the aureole's kernel on a padded image."""
    kernel = torch.zeros(rows, columns, dtype=torch.float32)
    size = 2 * aureole.radius + 1
    kernel[:size, :size] = torch.from_numpy(aureole.kernel().astype(np.float32))
    return torch.fft.rfft2(torch.roll(kernel, (-aureole.radius, -aureole.radius), (0, 1))).to(device)


def scatter(images: Tensor, aureole: Aureole) -> Tensor:
    """Return (B, H, W) noiseless images convolved with the aureole; what leaves the frame is lost."""
    # A multiple of 64 and the radius: fast for every FFT library, and nothing wraps around.
    height, width = images.shape[-2:]
    shape = tuple(-(-(n + aureole.radius) // 64) * 64 + aureole.radius for n in (height, width))
    transfer = _aureole_transfer(aureole, *shape, str(images.device))
    return torch.fft.irfft2(torch.fft.rfft2(images, s=shape) * transfer, s=shape)[..., :height, :width]


def bleed(images: Tensor, well_capacity: Tensor) -> Tensor:
    """Let charge above the well capacity flow along the columns, half of it up and half of it down.

    Each direction is one sweep: charge on the move fills every pixel that has room. What reaches the edge is lost.

    Parameters
    ----------
    images : Tensor, (B, H, W)
        Electrons; changed in place, and returned.
    well_capacity : Tensor, (B,)
        Electrons.
    """
    capacity = well_capacity[:, None, None]
    overfull = (images > capacity).any(dim=1)  # (B, W): only these columns need work
    if not bool(overfull.any()):
        return images
    columns = images.permute(0, 2, 1)[overfull]  # (K, H)
    limit = capacity[:, 0].expand_as(overfull)[overfull]
    moving = (columns - limit[:, None]).clamp(min=0) / 2
    columns = torch.minimum(columns, limit[:, None])
    for order in (range(columns.shape[1]), range(columns.shape[1] - 1, -1, -1)):
        carried = torch.zeros_like(limit)
        for row in order:
            carried = carried + moving[:, row]
            taken = torch.minimum(carried, limit - columns[:, row])
            columns[:, row] += taken
            carried = carried - taken
    images.permute(0, 2, 1)[overfull] = columns
    return images


def read_out(
    expected: Tensor,
    *,
    gain: Tensor,
    read_noise: Tensor,
    well_capacity: Tensor,
    saturation: float = 65535.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Turn expected electrons into what the camera delivers.

    Parameters
    ----------
    expected : Tensor, (B, H, W)
        Expected electrons, sky included.
    gain, read_noise, well_capacity : Tensor, (B,)
        e-/ADU, electrons rms, electrons.
    saturation : float
        Highest value of the converter in ADU.

    Returns
    -------
    Tensor, (B, H, W), float32
        ADU: whole numbers from 0 to `saturation`.
    """
    photons = torch.poisson(expected.clamp(min=0), generator=generator)
    noise = torch.randn(expected.shape, device=expected.device, generator=generator)
    images = bleed(photons + noise * read_noise[:, None, None], well_capacity)
    return torch.round(images / gain[:, None, None]).clamp(0, saturation)
