"""Galaxies of simulated fields where Stuff is absent: a stated population, drawn with GalSim.

The population is deliberately plain: counts that rise as 10^(0.45 m) to 250 per square degree and magnitude at
g = 20 (the slope and density of g-band counts, Yasuda et al. 2001), a de Vaucouleurs bulge and an exponential disc, and
half-light radii that shrink with magnitude (Shen et al. 2003). Stuff's own lists are used wherever the program is.
"""

import galsim
import numpy as np
import pandas as pd
import torch

from pnet.common.seeds import derive
from pnet.simulation.recipe import Recipe, draw_magnitudes
from pnet.sky import render

SLOPE = 0.45  # of log10 N per magnitude
DENSITY = 250.0  # galaxies per square degree and magnitude at PIVOT
PIVOT = 20.0  # mag
HALF_LIGHT = 1.67835  # half-light radius of an exponential disc in scale lengths
STAMP = 129  # px
FOLDING = galsim.GSParams(maximum_fft_size=16384, folding_threshold=1e-2)


def draw_galaxies(recipe: Recipe, magnitudes: tuple[float, float], seed: int) -> pd.DataFrame:
    """Draw the galaxies of one frame: ``x``, ``y`` (px from 0), ``mag``, ``kind``, and their shapes as SkyMaker
    describes them (`skymaker.GALAXY_COLUMNS`).

    The bulge is round; ``disk_scale`` is the disc's scale length along the major axis and ``disk_radius`` its
    circularised half-light radius (arcsec), ``disk_angle`` is in degrees from the x axis.
    """
    rng = np.random.default_rng(derive(seed, "galaxies"))
    low, high = magnitudes
    area = (recipe.size * recipe.pixel_scale / 3600) ** 2  # square degrees
    rate = DENSITY / (SLOPE * np.log(10)) * (10 ** (SLOPE * (high - PIVOT)) - 10 ** (SLOPE * (low - PIVOT)))
    n = int(rng.poisson(area * rate))
    mag = draw_magnitudes(magnitudes, SLOPE, n, rng)
    size = 1.0 * 10 ** (-0.1 * (mag - PIVOT)) * rng.lognormal(0, 0.3, n)  # arcsec
    x, y = rng.uniform(-0.5, recipe.size - 0.5, size=(2, n))
    share, aspect = rng.beta(1.0, 2.0, n), np.clip(np.cos(np.arccos(rng.random(n))), 0.15, 1.0)
    drawn = pd.DataFrame({"x": x, "y": y, "mag": mag, "kind": "galaxy", "bulge_fraction": share})
    drawn = drawn.assign(bulge_radius=0.6 * size, disk_radius=size, disk_aspect=aspect)
    drawn = drawn.assign(disk_angle=rng.uniform(0, 180, n), disk_scale=size / np.sqrt(aspect) / HALF_LIGHT)
    return drawn.assign(bulge_aspect=1.0, bulge_angle=0.0, redshift=0.0, hubble_type=0.0)


def add_galaxies(
    image: torch.Tensor, galaxies: pd.DataFrame, flux: np.ndarray, seeing: float, pixel_scale: float, size: int = STAMP
) -> None:
    """Add galaxies of (N,) fluxes to an (H, W) image of expected electrons, in place, behind an atmosphere of `seeing`
    (arcsec FWHM), each on a stamp of `size` px; `pixel_scale` in arcsec per px."""
    for galaxy, total in zip(galaxies.itertuples(), flux, strict=True):
        shear = galsim.Shear(q=galaxy.disk_aspect, beta=galaxy.disk_angle * galsim.degrees)
        bulge = galsim.DeVaucouleurs(half_light_radius=galaxy.bulge_radius, trunc=8 * galaxy.bulge_radius)
        disc = galsim.Exponential(half_light_radius=galaxy.disk_radius).shear(shear)
        intrinsic = (galaxy.bulge_fraction * bulge + (1 - galaxy.bulge_fraction) * disc) * float(total)
        light = galsim.Convolve(intrinsic, galsim.Kolmogorov(fwhm=seeing), gsparams=FOLDING)
        column, row = int(np.floor(galaxy.x + 0.5)), int(np.floor(galaxy.y + 0.5))
        offset = (galaxy.x - column, galaxy.y - row)
        stamp = light.drawImage(nx=size, ny=size, scale=pixel_scale, offset=offset, dtype=np.float32).array
        where = torch.tensor([[0], [column], [row]], device=image.device)
        render.add_stamps(image[None], torch.from_numpy(stamp).to(image.device)[None], *where)
