"""Stamps: small cut-outs around stars and what can be measured on them without a network, batched in torch."""

import torch
from torch import Tensor

from pnet.errors import ConfigError


def cut_stamps(images: Tensor, field: Tensor, column: Tensor, row: Tensor, size: int) -> Tensor:
    """Return (N, size, size) stamps centred on integer pixels; what lies beyond the border is 0.

    Parameters
    ----------
    images : Tensor, (B, H, W)
    field, column, row : Tensor, (N,), int64
        Index of the image and the middle pixel.
    size : int
        Odd width in pixels.
    """
    if size % 2 == 0 or size < 1:
        raise ConfigError(f"size is {size}, a stamp's width must be odd and positive")
    _, height, width = images.shape
    axis = torch.arange(size, device=images.device) - size // 2
    rows = row[:, None, None] + axis[None, :, None]
    columns = column[:, None, None] + axis[None, None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = (field[:, None, None] * height + rows.clamp(0, height - 1)) * width + columns.clamp(0, width - 1)
    return images.reshape(-1)[index] * inside


def offsets(size: int, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels' distances in x and y from a position (dx, dy) relative to the stamp's middle: (N, 1, S), (N, S, 1)."""
    axis = torch.arange(size, device=dx.device, dtype=dx.dtype) - size // 2
    return axis[None, None, :] - dx[:, None, None], axis[None, :, None] - dy[:, None, None]


def aperture_weights(size: int, dx: Tensor, dy: Tensor, radius: float, edge: float = 0.5) -> Tensor:
    """Return (N, size, size) weights of a round aperture whose edge is soft, so that it moves smoothly over pixels."""
    x, y = offsets(size, dx, dy)
    return torch.sigmoid((radius - torch.sqrt(x**2 + y**2 + 1e-12)) / edge)


def aperture_flux(images: Tensor, field: Tensor, x: Tensor, y: Tensor, radius: float = 6.0) -> Tensor:
    """Return (N,) sums in a soft aperture around positions in pixels, in the unit of `images` (sky subtracted)."""
    size = 2 * int(radius + 3) + 1
    column, row = torch.floor(x + 0.5).long(), torch.floor(y + 0.5).long()
    stamps = cut_stamps(images, field, column, row, size)
    weights = aperture_weights(size, (x - column).to(images.dtype), (y - row).to(images.dtype), radius)
    return (stamps * weights).sum(dim=(1, 2))
