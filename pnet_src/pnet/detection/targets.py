"""What the network is to learn: the batch that data sources deliver, and the maps made from it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pnet.detection.network import STRIDE

REACH = 3  # cells; a star's Gaussian is drawn up to here
SIGMA = 5 / 6  # cells; CenterNet's σ for a radius of 2 cells


@dataclass
class Batch:
    """Images with the stars in them.

    Parameters
    ----------
    image : Tensor, (B, H, W), float32
        Electrons, sky subtracted.
    sigma : Tensor, (B,)
        Noise of an empty pixel in electrons.
    fwhm : Tensor, (B,)
        FWHM of the PSF in pixels.
    field : Tensor, (N,), int64
        Image of each source.
    x, y : Tensor, (N,)
        Pixels from 0.
    flux : Tensor, (N,)
        Electrons.
    ignored : Tensor, (N,), bool
        Sources that are neither star nor empty sky to the network: fainter than the catalogue, hopelessly blended,
        masked. The heat map is not trained around them (section 4.1).
    """

    image: Tensor
    sigma: Tensor
    fwhm: Tensor
    field: Tensor
    x: Tensor
    y: Tensor
    flux: Tensor
    ignored: Tensor


@dataclass
class Targets:
    """Maps and lists that the losses compare with.

    `heatmap` (B, 1, h, w) holds Gaussians with 1 in each star's cell; `weight` (B, 1, h, w) is 0 where the map is not
    trained; `field`, `row`, `column` (M,) are cells that learn an offset, `offset` (M, 2) its value in cells (x, y);
    `star` (M,) indexes the batch's stars.
    """

    heatmap: Tensor
    weight: Tensor
    field: Tensor
    row: Tensor
    column: Tensor
    offset: Tensor
    star: Tensor


def make_targets(batch: Batch, offset_reach: int) -> Targets:
    """Return the targets of a batch; `offset_reach` as in `DetectionConfig`."""
    fields, height, width = batch.image.shape
    rows, columns = height // STRIDE, width // STRIDE
    device = batch.image.device
    u, v = (batch.x + 0.5) / STRIDE, (batch.y + 0.5) / STRIDE  # position in cells from the image's corner
    column, row = u.floor().long(), v.floor().long()
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)

    def around(chosen: Tensor, reach: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Every cell within `reach` of a chosen source's own: source, row, column, and its place in a flat map."""
        axis = torch.arange(-reach, reach + 1, device=device)
        source = chosen.nonzero()[:, 0, None, None]
        source, r, c = torch.broadcast_tensors(source, row[source] + axis[:, None], column[source] + axis)
        valid = (r >= 0) & (r < rows) & (c >= 0) & (c < columns)
        source, r, c = source[valid], r[valid], c[valid]
        return source, r, c, (batch.field[source] * rows + r) * columns + c

    def gaussian(source: Tensor, r: Tensor, c: Tensor) -> Tensor:
        return torch.exp(-((r - row[source]) ** 2 + (c - column[source]) ** 2) / (2 * SIGMA**2))

    used = inside & ~batch.ignored
    *near, cell = around(used, REACH)
    heatmap = torch.zeros(fields * rows * columns, device=device).scatter_reduce_(0, cell, gaussian(*near), "amax")
    *near, cell = around(batch.ignored, REACH)
    weight = torch.ones_like(heatmap)
    weight[cell[gaussian(*near) > 0.05]] = 0
    weight[heatmap == 1] = 1  # a star's own cell is always trained
    star, r, c, cell = around(used, offset_reach)
    # Between two stars a cell would learn the middle, where there is none: it follows the one it is nearest to, and a
    # star's own cell follows no other.
    own = (r == row[star]) & (c == column[star])
    distance = torch.where(own, -1.0, ((u[star] - c - 0.5) ** 2 + (v[star] - r - 0.5) ** 2).float())
    nearest = torch.full_like(heatmap, torch.inf).scatter_reduce_(0, cell, distance, reduce="amin")
    kept = distance == nearest[cell]
    star, r, c = star[kept], r[kept], c[kept]
    return Targets(
        heatmap=heatmap.reshape(fields, 1, rows, columns),
        weight=weight.reshape(fields, 1, rows, columns),
        field=batch.field[star],
        row=r,
        column=c,
        offset=torch.stack([u[star] - c, v[star] - r], dim=1).float(),
        star=star,
    )
