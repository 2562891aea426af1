"""A star's light on pixels by cubic splines, what the library's renderer and networks are held against, and frames."""

import galsim
import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from pnet.frame import Frame
from pnet.sky.psf import FIELD, OVERSAMPLING, Aureole, psf_map
from pnet.sky.stamps import gaussian_width


def pixel_psf(seeing, pixel_scale=0.396, x_offset=0.0, y_offset=0.0, size=31, aureole=Aureole()):  # noqa: B008
    """Return the share of a star's light in each pixel, (size, size), for a star off the centre of the middle pixel."""
    table = psf_map(float(seeing), pixel_scale, aureole=aureole)
    axis, centre = np.arange(size) - size // 2, FIELD * OVERSAMPLING // 2
    rows, columns = ((axis - offset) * OVERSAMPLING + centre for offset in (y_offset, x_offset))
    margin = 8  # the spline needs neighbours; the whole map would be slow to filter
    lo, hi = int(min(rows[0], columns[0])) - margin, int(max(rows[-1], columns[-1])) + margin
    grid = np.meshgrid(rows - lo, columns - lo, indexing="ij")
    return ndimage.map_coordinates(table[lo:hi, lo:hi], grid, order=3, mode="nearest")


def frame_of(image, mask=None, **options):
    """Return a frame like SDSS's of an image in electrons."""
    values = {"gain": 4.0, "zero_point": 29.8, "read_noise": 5.0, "pixel_scale": 0.396, **options}
    image = np.asarray(image, dtype=np.float32)
    mask = np.zeros(image.shape, bool) if mask is None else mask
    return Frame("f", image, np.maximum(image, 1) + 25, mask, **values)


def width_of(seeing, size=25, **options):
    """Return the Gaussian width in px of a star on a stamp."""
    stamp, centre = torch.from_numpy(pixel_psf(seeing, size=size, **options)).float()[None], torch.zeros(1)
    return float(gaussian_width(stamp, centre, centre))


def light_of(stars, shape, size=41):
    """Return an image of stars (x, y, flux) at a seeing of 1.4 arcsec, each on a stamp of `size` px."""
    image, half = np.zeros(shape), size // 2
    for x, y, flux in stars[["x", "y", "flux"]].to_numpy():
        column, row = round(x), round(y)
        stamp = pixel_psf(1.4, 0.396, x - column, y - row, size)
        image[row - half : row + half + 1, column - half : column + half + 1] += stamp * flux
    return image


def frame_with(stars, shape, rng):
    """Return a noisy frame with stars (see `light_of`) on a sky of 280 electrons."""
    return frame_of(rng.poisson(light_of(stars, shape) + 280) + rng.normal(0, 5, shape), seeing=1.4)


PROFILES = {  # of no family of ours, in arcsec and without the pixel
    "Moffat": galsim.Moffat(beta=3.0, fwhm=1.3),
    "elliptical": galsim.Kolmogorov(fwhm=1.2).shear(g1=0.05, g2=-0.03),
    "comatic": galsim.Convolve(
        galsim.Kolmogorov(fwhm=1.1), galsim.OpticalPSF(lam=477, diam=2.5, obscuration=0.47, coma1=0.12, defocus=0.15)
    ),
    "two Gaussians": galsim.Gaussian(sigma=0.45, flux=0.85) + galsim.Gaussian(sigma=1.2, flux=0.15),
}


def on_pixels(profile, scale=0.396):
    """Return a profile in px with the pixel in it."""
    return galsim.Convolve(profile, galsim.Pixel(scale)).dilate(1 / scale)


def drawn(profile, stars, sky=300.0, side=512, noise=True, **options):
    """Return a frame of stars (x, y, flux) whose PSF, pixel included and in px, galsim draws."""
    image = galsim.ImageF(side, side, xmin=0, ymin=0)
    for x, y, flux in stars[["x", "y", "flux"]].to_numpy():
        near = galsim.BoundsI(*(int(v) for v in np.clip([x - 45, x + 45, y - 45, y + 45], 0, side - 1)))
        where = {"center": galsim.PositionD(x, y), "scale": 1.0, "method": "no_pixel", "add_to_image": True}
        profile.withFlux(flux).drawImage(image[near], **where)
    pixels = image.array.clip(min=0) + sky
    pixels = np.random.default_rng(11).poisson(pixels) if noise else pixels
    return frame_of(pixels, **{"gain": 1.0, "zero_point": 28.0, "read_noise": 0.0} | options)


def grid_of_stars(count, seed, side=512):
    """Return stars on a jittered grid, so that none has a neighbour, half of them bright; as a detection net finds
    them, by falling confidence."""
    rng = np.random.default_rng(seed)
    each = int(np.ceil(np.sqrt(count)))
    grid = np.stack(np.meshgrid(*[np.linspace(35, side - 36, each)] * 2), -1).reshape(-1, 2)[:count]
    x, y = (grid + rng.uniform(-3, 3, grid.shape)).T
    flux = np.where(np.arange(count) % 2, 10 ** rng.uniform(5, 6, count), 10 ** rng.uniform(3.6, 4.4, count))
    return pd.DataFrame({"x": x, "y": y, "flux": flux, "confidence": np.linspace(0.99, 0.5, count), "fwhm": 3.3})


def guessed(truth, seed):
    """Return stars a tenth of a pixel and 3 % off."""
    rng = np.random.default_rng(seed)
    moved = {axis: truth[axis] + rng.normal(0, 0.1, len(truth)) for axis in ("x", "y")}
    return truth.assign(**moved, flux=truth["flux"] * rng.normal(1, 0.03, len(truth)))
