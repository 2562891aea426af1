"""Stamps: small cut-outs around stars and what can be measured on them without a network, batched in torch."""

import torch
from torch import Tensor

REACH = 1.0  # px, from a first guess of a position to its centroid at most


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
    index, inside = pixels(images.shape, field, column, row, size)
    return images.reshape(-1)[index] * inside


def pixels(shape: torch.Size, field: Tensor, column: Tensor, row: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return (N, size, size) indices into flattened images of `shape` (B, H, W) for `cut_stamps`, and which of them lie
    inside their image; the others are those of the pixels next to them."""
    _, height, width = shape
    axis = torch.arange(size, device=row.device) - size // 2
    rows, columns = row[:, None, None] + axis[None, :, None], column[:, None, None] + axis[None, None, :]
    near_rows, near_columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    inside = (rows == near_rows) & (columns == near_columns)
    return (field[:, None, None] * height + near_rows) * width + near_columns, inside


def offsets(size: int, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels' distances in x and y from a position (dx, dy) relative to the stamp's middle: (N, 1, S), (N,
    S, 1)."""
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


def gaussian_moments(
    stamps: Tensor, dx: Tensor, dy: Tensor, width: Tensor, scale: float = 1.0, iterations: int = 5
) -> tuple[Tensor, Tensor]:
    """Return centroids under a Gaussian window of fixed width: SExtractor's windowed position (XWIN, YWIN).

    They stay within `REACH` of the first guess in x and in y.

    Parameters
    ----------
    stamps : Tensor, (N, S, S)
        Sky subtracted.
    dx, dy : Tensor, (N,)
        First guess relative to the stamp's middle pixel.
    width : Tensor, (N,)
        Standard deviation of the window in pixels.
    scale : float
        The window's width in units of the star's own, which sets the size of a step.
    iterations : int
    """
    start_x, start_y = dx, dy
    for _ in range(iterations):
        x, y = (axis.flatten(1) for axis in offsets(stamps.shape[-1], dx, dy))
        # The window is a product of one in x and one in y: two small matrix products do the sums over the stamp.
        in_x, in_y = (torch.exp(-(axis**2) / (2 * width[:, None] ** 2)) for axis in (x, y))
        rows = stamps @ torch.stack([in_x, in_x * x], dim=2)  # (N, S, 2)
        total = (in_y * rows[:, :, 0]).sum(dim=1)
        total = torch.where(total.abs() < 1e-6, torch.full_like(total, 1e-6), total)
        # A window as wide as the star halves its displacement; twice the weighted mean is then the whole way.
        step = 1 + 1 / scale**2
        moved_x = dx + step * (in_y * rows[:, :, 1]).sum(dim=1) / total
        moved_y = dy + step * (in_y * y * rows[:, :, 0]).sum(dim=1) / total
        dx = moved_x.clamp(start_x - REACH, start_x + REACH)
        dy = moved_y.clamp(start_y - REACH, start_y + REACH)
    return dx, dy


def gaussian_width(stamps: Tensor, dx: Tensor, dy: Tensor, start: float = 1.5, iterations: int = 30) -> Tensor:
    """Return (N,) standard deviations in pixels of the Gaussians that match stars best (adaptive moments, Bernstein
    2002).

    A Gaussian star under a window of its own width has half of its variance: the width is iterated until this holds.
    """
    x, y = offsets(stamps.shape[-1], dx, dy)
    radius2 = x**2 + y**2
    variance = torch.full_like(dx, start**2)
    for _ in range(iterations):
        window = torch.exp(-radius2 / (2 * variance[:, None, None])) * stamps
        measured = (window * radius2).sum(dim=(1, 2)) / (2 * window.sum(dim=(1, 2)).clamp(min=1e-6))
        variance = (2 * measured).clamp(0.3**2, (stamps.shape[-1] / 3) ** 2)
    return variance.sqrt()
