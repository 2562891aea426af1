"""A real frame made ready to receive stars: its sources sorted, its PSF measured.

What is already on a frame is sorted with SEP into two kinds. Clearly extended sources are empty sky to a network that
looks for stars, and stay so; so do the halos and diffraction spikes of the brightest stars, from which a network would
else make stars. Everything else (real stars, faint or doubtful sources, masked pixels, the cores of saturated stars) is
neither star nor sky: the heat map is not trained there.
"""

from dataclasses import dataclass

import numpy as np
import sep
import torch
from scipy import ndimage
from scipy.spatial import cKDTree

from pnet.common.errors import DataError
from pnet.common.metrics import half_sample_mode
from pnet.frame import Frame
from pnet.simulation.recipe import Recipe
from pnet.sky import background, render
from pnet.sky.stamps import cut_stamps, gaussian_moments, gaussian_width

DETECT = 1.5  # σ per pixel; SExtractor's default, reaches g ≈ 22 on a frame of SDSS
AREA = 5  # px, smallest source
APERTURE = 10.0  # px, radius of the fluxes that sort the sources
ALONE = 15.0  # px to the next source: a neighbour's light would make a star's half-light radius that of a galaxy
SIGNAL = 30.0  # ratio of flux to noise from which a half-light radius tells a galaxy from a star (g ≈ 20)
EXTENDED = 1.3  # times the stars' half-light radius: 90 % of the sources of 15–19 mag lie below 1.05
TOO_BRIGHT = 15.0  # mag; above it spikes, bleeding and interpolated cores make any shape doubtful
CORE_RADIUS = 8.0  # px around such a star that are always its own
CORE_SHARE = 0.1  # of its highest pixel; fainter parts of its segment are halo and diffraction spikes, not stars
FULL_WELL = 60000.0  # counts, where SDSS pixels saturate: the brightest good ones of our frames read 58,000 to 60,500
BLOCK = 8  # px; an ignored source clears two cells (8 px) on every side, so points this far apart clear an area
WIDTH_STAMP = 25  # px
SEEING_STEP = 0.1  # arcsec between rendered PSFs; what lies between is a mean of two


@dataclass
class RealSky:
    """A real frame ready to receive stars."""

    image: np.ndarray  # (H, W), float32: electrons, sky subtracted
    contamination: np.ndarray  # (H, W), float32: electrons of real sources within a FWHM; infinite on masked pixels
    ignored: np.ndarray  # (N, 2), float32: positions (x, y) around which the heat map is not trained
    sigma: float  # electrons, noise of an empty pixel
    sky: float  # electrons, median
    seeing: float  # arcsec, FWHM of the atmosphere whose rendered PSF is as wide as the frame's stars
    fwhm: float  # px, of the PSF, the telescope's own blur included
    zero_point: float  # magnitude of one electron
    full_well: float  # electrons at which pixels saturate


def prepare(frame: Frame, recipe: Recipe) -> RealSky:
    """Subtract a frame's sky, sort its sources and measure its PSF.

    Raises
    ------
    DataError
        If the frame has too few bright stars to measure its PSF.
    """
    image, sigma, _ = background.subtracted(frame)
    mask = frame.mask if frame.interpolated is None else frame.mask & ~frame.interpolated
    # room for crowded fields
    sep.set_extract_pixstack(max(sep.get_extract_pixstack(), image.size))
    sep.set_sub_object_limit(max(sep.get_sub_object_limit(), 4096))
    objects, segments = sep.extract(image, DETECT, err=sigma, mask=mask, minarea=AREA, segmentation_map=True)
    x, y, peak = (objects[name] for name in ("x", "y", "peak"))
    counts, error, _ = sep.sum_circle(image, x, y, APERTURE, err=sigma)
    radius, bad = sep.flux_radius(image, x, y, np.full(len(x), APERTURE), 0.5, normflux=counts, subpix=5)
    positions = np.column_stack([x, y])
    alone = (objects["flag"] == 0) & (bad == 0) & (cKDTree(positions).query(positions, k=2)[0][:, 1] >= ALONE)
    signal, mag = counts / error, frame.magnitude(counts)
    too_bright = mag < TOO_BRIGHT
    sky = float(np.median(frame.image[~frame.mask]))
    full_well = float(min(FULL_WELL * frame.gain, frame.saturation))
    bright = alone & (signal > 3 * SIGNAL) & (peak + sky < 0.8 * full_well)
    if bright.sum() < 5:
        raise DataError(
            f"frame {frame.name}: {bright.sum()} bright lone sources; at least 5 are needed to know its PSF"
        )
    stellar = half_sample_mode(radius[bright])
    stars = bright & (np.abs(radius / stellar - 1) < 0.05)
    seeing = seeing_of_width(_median_width(image, positions[stars], stellar / 1.18), frame.pixel_scale, recipe)
    fwhm = float(np.hypot(seeing, 0.2) / frame.pixel_scale)
    galaxy = alone & (signal > SIGNAL) & (radius > EXTENDED * stellar) & (mag > TOO_BRIGHT)
    doubtful = np.append(False, ~galaxy & ~too_bright)[segments]
    doubtful |= image > np.append(np.inf, np.where(too_bright, CORE_SHARE * peak, np.inf))[segments]
    cores = np.ones(image.shape, bool)
    cores[np.rint(y[too_bright]).astype(int), np.rint(x[too_bright]).astype(int)] = False
    if too_bright.any():
        doubtful |= ndimage.distance_transform_edt(cores) <= CORE_RADIUS
    return RealSky(
        image,
        contamination=_contamination(image, segments > 0, mask, fwhm),
        ignored=np.concatenate([_blocks(doubtful | mask), positions[~galaxy]]).astype(np.float32),
        sigma=sigma,
        sky=sky,
        seeing=seeing,
        fwhm=fwhm,
        zero_point=frame.zero_point,
        full_well=full_well,
    )


def _median_width(image: np.ndarray, positions: np.ndarray, start: float) -> float:
    """Return the median Gaussian width in pixels of stars at (N, 2) positions (x, y)."""
    places = torch.from_numpy(positions.astype(np.float64))
    middle = torch.floor(places + 0.5).long()
    stamps = cut_stamps(torch.from_numpy(image)[None], torch.zeros(len(places)).long(), *middle.T, WIDTH_STAMP)
    dx, dy = (places - middle).float().T
    dx, dy = gaussian_moments(stamps, dx, dy, torch.full_like(dx, start))
    return float(gaussian_width(stamps, dx, dy, start).median())


def seeing_of_width(width: float, pixel_scale: float, recipe: Recipe) -> float:
    """Return the atmosphere's FWHM in arcsec for which a rendered star has this Gaussian width in pixels."""
    centre = torch.zeros(1)

    def rendered(seeing: float) -> float:
        table = render.psf_table(round(seeing, 2), pixel_scale, recipe.optics, None, "cpu")
        return float(gaussian_width(render.sample_psf(table, centre, centre, WIDTH_STAMP), centre, centre))

    # A Gaussian of this width is a little wider than the atmosphere alone: walk down from there.
    upper = max(0.6, round(2.4 * width * pixel_scale / SEEING_STEP) * SEEING_STEP)
    high, low = rendered(upper), np.inf
    while upper > 0.6 and (low := rendered(upper - SEEING_STEP)) > width:
        upper, high = upper - SEEING_STEP, low
    return float(upper - SEEING_STEP * (high - width) / (high - low))


def _contamination(image: np.ndarray, sources: np.ndarray, mask: np.ndarray, fwhm: float) -> np.ndarray:
    """Return the light of real sources within a FWHM of each pixel."""
    reach = int(np.ceil(fwhm))
    near = ndimage.binary_dilation(sources, iterations=reach)
    axis = np.arange(-reach, reach + 1)
    disc = (axis**2 + axis[:, None] ** 2 <= fwhm**2).astype(np.float32)
    light = ndimage.convolve(np.where(near, image, 0), disc, mode="nearest")
    light[ndimage.binary_dilation(mask, iterations=2)] = np.inf
    return light.astype(np.float32)


def _blocks(area: np.ndarray) -> np.ndarray:
    """Return (N, 2) centres of the blocks that hold a pixel of the area."""
    blocks = np.unique(np.argwhere(area)[:, ::-1] // BLOCK, axis=0)
    return (blocks * BLOCK + (BLOCK - 1) / 2).astype(np.float32)
