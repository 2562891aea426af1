"""A star's light on a stamp of pixels by cubic splines: what the library's renderer and networks are held against."""

import numpy as np
from scipy import ndimage

from pnet.sky.psf import FIELD, OVERSAMPLING, Aureole, psf_map


def pixel_psf(seeing, pixel_scale=0.396, x_offset=0.0, y_offset=0.0, size=31, aureole=Aureole()):  # noqa: B008
    """Return the share of a star's light in each pixel, (size, size), for a star off the centre of the middle pixel."""
    table = psf_map(float(seeing), pixel_scale, aureole=aureole)
    axis, centre = np.arange(size) - size // 2, FIELD * OVERSAMPLING // 2
    rows, columns = ((axis - offset) * OVERSAMPLING + centre for offset in (y_offset, x_offset))
    margin = 8  # the spline needs neighbours; the whole map would be slow to filter
    lo, hi = int(min(rows[0], columns[0])) - margin, int(max(rows[-1], columns[-1])) + margin
    grid = np.meshgrid(rows - lo, columns - lo, indexing="ij")
    return ndimage.map_coordinates(table[lo:hi, lo:hi], grid, order=3, mode="nearest")
