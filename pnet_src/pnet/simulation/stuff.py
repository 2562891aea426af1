"""Galaxies of SkyMaker's fields: drawn by Stuff (Bertin 2009) where it is installed, by `galaxies` elsewhere."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from pnet.common import programs
from pnet.common.errors import DataError
from pnet.common.seeds import derive
from pnet.simulation.galaxies import draw_galaxies
from pnet.simulation.recipe import Recipe
from pnet.simulation.skymaker_files import GALAXY, GALAXY_COLUMNS, read_list, write_settings

TIME_LIMIT = 120.0  # s; a 512 px field takes less than one
MARGIN = 25.0  # px around the frame; galaxies farther out than this add no light that shows
HALF_LIGHT = 1.67835  # half-light radius of an exponential disc in scale lengths


def galaxies(recipe: Recipe, magnitudes: tuple[float, float], seed: int) -> pd.DataFrame:
    """Draw the galaxies of a field in SDSS g′ (AB) as SkyMaker describes them. The same seed gives the same galaxies.

    Parameters
    ----------
    recipe : Recipe
        Its size (px) and pixel scale (arcsec).
    magnitudes : (float, float)
        Brightest and faintest.
    seed : int

    Returns
    -------
    DataFrame
        x, y (px from 0), mag, kind = 'galaxy' and `skymaker_files.GALAXY_COLUMNS`.

    Raises
    ------
    ConfigError, DataError, PNetError
        If $STUFF is not Stuff, its list cannot be used, or it fails.
    """
    path = programs.find("stuff", "STUFF")
    if path is None:
        return _as_skymaker(draw_galaxies(recipe, magnitudes, seed))
    program = programs.identify(path, "Stuff")
    bright, faint = magnitudes
    side = int(np.ceil(recipe.size + 2 * MARGIN))
    settings = {
        "CATALOG_NAME": "galaxies.list",
        "FIELD_SIZE": f"{side},{side}",
        "IMAGE_WIDTH": side,  # before 2.0; a version that does not know a keyword passes over it
        "IMAGE_HEIGHT": side,
        "PIXEL_SIZE": recipe.pixel_scale,
        # Stuff's limits hold in its reference band (Bj, Vega): ask for more and cut in g′
        "MAG_LIMITS": f"{bright - 2},{faint + 2}",
        "PASSBAND_OBS": "sdss/gprime",
        "CALIBSED_OBS": "AB",
        "SEED_GALAXIES": 1 + derive(seed, "stuff") % (2**31 - 2),  # 0 would mean the clock
        "VERBOSE_TYPE": "QUIET",
        "NTHREADS": 1,
    }
    with tempfile.TemporaryDirectory(prefix="pnet-stuff-") as folder:
        write_settings(Path(folder) / "program.conf", settings)
        programs.run([program.path, "-c", "program.conf"], Path(folder), "galaxies", TIME_LIMIT)
        rows = read_list(Path(folder) / "galaxies.list", "galaxies")
    width = 4 + len(GALAXY_COLUMNS)
    if any(len(row) != width or row[0] != GALAXY for row in rows):
        raise DataError(f"galaxies: {program} wrote a list that does not hold galaxies (lines of 200 and 12 numbers)")
    table = pd.DataFrame(np.reshape(rows, (-1, width))[:, 1:], columns=["x", "y", "mag", *GALAXY_COLUMNS])
    table.insert(3, "kind", "galaxy")
    # positions from 1 in the field with its margin become positions from 0 in the frame
    table[["x", "y"]] -= 1 + MARGIN
    # Stuff fills a little more than the field that it was asked for
    near = [table[axis].between(-0.5 - MARGIN, recipe.size - 0.5 + MARGIN) for axis in ("x", "y")]
    return table[near[0] & near[1] & table["mag"].between(bright, faint)].reset_index(drop=True)


def _as_skymaker(population: pd.DataFrame) -> pd.DataFrame:
    """Return galaxies of `draw_galaxies` as SkyMaker describes them: its disc has a scale length along the major axis,
    theirs a circularised half-light radius."""
    return population[["x", "y", "mag", "kind", "bulge_fraction", "bulge_radius"]].assign(
        bulge_aspect=1.0,
        bulge_angle=0.0,
        disk_scale=population["disc_radius"] / np.sqrt(population["axis_ratio"]) / HALF_LIGHT,
        disk_aspect=population["axis_ratio"],
        disk_angle=population["angle"],
        redshift=0.0,
        hubble_type=0.0,
    )
