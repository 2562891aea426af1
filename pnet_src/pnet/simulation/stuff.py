"""Galaxies of a simulated field: how SkyMaker describes them, and Stuff, which draws them (Bertin 2009)."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from pnet.common import programs
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.seeds import derive

INSTALL = "build it from https://github.com/astromatic/stuff (there is no package); put it on PATH or in $STUFF"
TIME_LIMIT = 120.0  # s; a 512 px field takes less than one
MARGIN = 25.0  # px; galaxies farther out than this add no light that shows
HALF_LIGHT = 1.67835  # half-light radius of an exponential disc in scale lengths

GALAXY_COLUMNS = (  # in the order of a "200" line of a SkyMaker list
    "bulge_fraction",
    "bulge_radius",  # arcsec, effective
    "bulge_aspect",
    "bulge_angle",  # degrees
    "disk_scale",  # arcsec
    "disk_aspect",
    "disk_angle",
    "redshift",
    "hubble_type",
)


def find_stuff() -> str | None:
    """Return the path of `stuff`: $STUFF where it is set, else the first on PATH, else None."""
    return programs.find("stuff", "STUFF")


def stuff_program() -> programs.Program:
    """Return Stuff with its version; MissingError where there is none, ConfigError if it is something else."""
    path = find_stuff()
    if path is None:
        raise MissingError(f"Stuff (stuff) is neither on PATH nor named by $STUFF; {INSTALL}")
    return programs.identify(path, "Stuff")


def galaxies(
    seed: int,
    *,
    size: int = 512,
    pixel_scale: float = 0.396,
    magnitudes: tuple[float, float] = (15.0, 23.0),
    margin: float = MARGIN,
    timeout: float = TIME_LIMIT,
) -> pd.DataFrame:
    """Draw the galaxies of a field with Stuff, in SDSS g′ (AB). The same seed gives the same galaxies.

    Parameters
    ----------
    seed : int
    size : int
        Side of the frame in pixels.
    pixel_scale : float
        Arcseconds per pixel.
    magnitudes : (float, float)
        Brightest and faintest.
    margin : float
        Pixels around the frame that get galaxies too.
    timeout : float
        Seconds after which `stuff` is ended.

    Returns
    -------
    DataFrame
        x, y (px from 0), mag, kind = 'galaxy' and `GALAXY_COLUMNS`; what `skymaker.source_list` takes.

    Raises
    ------
    MissingError, ConfigError, DataError, PNetError
        If there is no `stuff`, a parameter is not allowed, its list cannot be used, or it fails.
    """
    program = stuff_program()
    bright, faint = (float(value) for value in magnitudes)
    if not bright < faint:
        raise ConfigError(f"magnitudes are {magnitudes}, the brightest must come first")
    side = int(np.ceil(size + 2 * margin))
    settings = {
        "CATALOG_NAME": "galaxies.list",
        "FIELD_SIZE": f"{side},{side}",
        "IMAGE_WIDTH": side,  # before 2.0; a version that does not know a keyword passes over it
        "IMAGE_HEIGHT": side,
        "PIXEL_SIZE": pixel_scale,
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
        programs.run([program.path, "-c", "program.conf"], Path(folder), "galaxies", timeout)
        rows = read_list(Path(folder) / "galaxies.list", "galaxies")
    width = 4 + len(GALAXY_COLUMNS)
    if any(len(row) != width or row[0] != 200 for row in rows):
        raise DataError(f"galaxies: {program} wrote a list that does not hold galaxies (lines of 200 and 12 numbers)")
    table = pd.DataFrame(np.reshape(rows, (-1, width))[:, 1:], columns=["x", "y", "mag", *GALAXY_COLUMNS])
    # positions from 1 in the field with its margin become positions from 0 in the frame
    table[["x", "y"]] -= 1 + margin
    # Stuff fills a little more than the field that it was asked for
    inside = table[["x", "y"]].apply(lambda values: values.between(-0.5 - margin, size - 0.5 + margin)).all(axis=1)
    table = table[inside & table["mag"].between(bright, faint)].reset_index(drop=True)
    table.insert(3, "kind", "galaxy")
    return table


def as_stuff(population: pd.DataFrame) -> pd.DataFrame:
    """Return galaxies of `galaxies.draw_galaxies` as SkyMaker describes them, for where Stuff is absent.

    Parameters
    ----------
    population : DataFrame
        x, y, mag, kind, bulge_fraction, bulge_radius and disc_radius (half-light, circularised, arcsec),
        axis_ratio and angle of the disc.

    Returns
    -------
    DataFrame
        x, y, mag, kind and `GALAXY_COLUMNS`; SkyMaker's disc has a scale length along its major axis.
    """
    return population[["x", "y", "mag", "kind", "bulge_fraction", "bulge_radius"]].assign(
        bulge_aspect=1.0,
        bulge_angle=0.0,
        disk_scale=population["disc_radius"] / np.sqrt(population["axis_ratio"]) / HALF_LIGHT,
        disk_aspect=population["axis_ratio"],
        disk_angle=population["angle"],
        redshift=0.0,
        hubble_type=0.0,
    )


def write_settings(path: Path, settings: dict[str, object]) -> None:
    """Write a configuration file of the AstrOmatic programs."""
    path.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))


def read_list(path: Path, name: str) -> list[list[float]]:
    """Return the numbers of each line of a source list; `name` is what error messages call the job."""
    try:
        return [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:  # a UnicodeDecodeError is a ValueError
        raise DataError(f"{name}: the source list {path.name} is missing or holds something else: {error}") from error
