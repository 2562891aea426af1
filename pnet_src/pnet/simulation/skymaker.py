"""Driver of SkyMaker, the simulator of astronomical images, and of Stuff, its galaxies (Bertin 2009, Mem. S.A.It. 80,
422).

`sky` and `stuff` (on PATH, or named by $SKY and $STUFF) run in a temporary folder with a configuration and a source
list that are written here. SkyMaker 3.10.5 (conda-forge) and 4.x are supported: the same list gives the same light in
both. Both seed their noise from the clock, 3.10.5 by the whole second, so that frames made side by side would share one
noise image. So the program is asked for its noiseless light alone, and the camera's noise, bleeding and rounding are
drawn here from the frame's seed, by the renderer's model of the camera, which is SkyMaker's: the same seed gives the
same frame.

Positions count from 1 in the programs' lists and from 0 everywhere else; the change is made here.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pnet.common import programs
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.fits_file import open_fits
from pnet.common.seeds import derive
from pnet.simulation import renderer
from pnet.simulation.galaxies import draw_galaxies
from pnet.simulation.recipe import Conditions, Recipe
from pnet.sky.psf import Aureole

INSTALL = "mamba install -c conda-forge astromatic-skymaker"
OLDEST = (3, 10)
TIME_LIMIT = 300.0  # s; a 512 px frame takes 1 to 3 s
OVERSAMPLING, MAP_SIZE = 11, 2048  # odd, so that the pixel stays centred; the map reaches to 93 px
LIST_DIGITS = 2e-4  # px and mag; the program writes four decimals
KINDS = {"star": 100, "galaxy": 200}  # first number of a line
# In the order of a "200" line, after x, y, mag; bulge_radius (effective) and disk_scale in arcsec, angles in degrees
GALAXY_COLUMNS = (
    *("bulge_fraction", "bulge_radius", "bulge_aspect", "bulge_angle", "disk_scale", "disk_aspect", "disk_angle"),
    *("redshift", "hubble_type"),
)
MARGIN = 25.0  # px around a frame; galaxies farther out than this add no light that shows


def sky_program() -> programs.Program:
    """Return SkyMaker with its version; a MissingError if there is no `sky`, a ConfigError if it is something else or
    older than 3.10."""
    path = programs.find("sky", "SKY")
    if path is None:
        raise MissingError(f"SkyMaker (sky) is neither on PATH nor named by $SKY; {INSTALL}")
    program = programs.identify(path, "SkyMaker")
    if program.version < OLDEST:
        raise ConfigError(f"{path} is {program}; 3.10.5 or newer is needed: {INSTALL}")
    return program


def expected_image(
    conditions: Conditions, sources: pd.DataFrame, name: str = "frame"
) -> tuple[np.ndarray, pd.DataFrame]:
    """Let SkyMaker paint a field without noise: (size, size) float64 electrons, sky included, and the truth of
    `simulate_frame`."""
    with _run(sky_program(), configuration(conditions), name, source_list(sources)) as folder:
        adu = _read_image(folder / "frame.fits", conditions.size, name)
        painted = _read_list(folder / "frame.list", name)
    truth = _painted_sources(sources, painted, name)
    truth = truth.assign(flux=conditions.flux(truth["mag"]))[["x", "y", "mag", "flux", "kind"]]
    return adu * conditions.gain, truth


def simulate_frame(
    conditions: Conditions, sources: pd.DataFrame, seed: int, *, name: str = "frame"
) -> tuple[np.ndarray, pd.DataFrame]:
    """Make one frame of `sources` (see `source_list`): SkyMaker's light, and the camera's noise from `seed`.

    Sources outside the frame add the light that reaches it; `name` is what error messages call the frame.

    Returns
    -------
    image : ndarray, (size, size), uint16
        ADU.
    truth : DataFrame
        x, y (px from 0), mag, flux (electrons) and kind of every source that `sky` painted.

    Raises
    ------
    MissingError
        If there is no `sky`.
    ConfigError, DataError
        If the conditions are not allowed, or the program's output cannot be used.
    PNetError
        If it fails or does not end in time.
    """
    light, truth = expected_image(conditions, sources, name)
    return renderer.read_out(torch.from_numpy(light), conditions, derive(seed, "skymaker", "noise")), truth


def configuration(conditions: Conditions) -> dict[str, object]:
    """Return SkyMaker's settings for the expected light of a frame: no noise, no bleeding, no saturation; a ConfigError
    if a value is not finite or out of range."""
    positive = dict.fromkeys(("seeing", "gain", "exposure", "pixel_scale", "saturation", "size"), "finite and positive")
    other = dict.fromkeys(("read_noise", "well_capacity"), "finite and at least 0")
    for name, allowed in (positive | other | dict.fromkeys(("sky_mag", "mag_zero"), "finite")).items():
        value = getattr(conditions, name)
        if not np.isfinite(value) or (name in other and value < 0) or (name in positive and value <= 0):
            raise ConfigError(f"conditions: {name} is {value}, it must be {allowed}")
    aureole = conditions.aureole or Aureole(radius=0)
    return {
        "IMAGE_NAME": "frame.fits",
        "IMAGE_SIZE": int(conditions.size),
        "IMAGE_TYPE": "SKY_NONOISE",
        "GAIN": conditions.gain,
        "WELL_CAPACITY": 0,
        "SATUR_LEVEL": 1e17,
        "READOUT_NOISE": conditions.read_noise,
        "EXPOSURE_TIME": conditions.exposure,
        "MAG_ZEROPOINT": conditions.mag_zero,
        "PIXEL_SIZE": conditions.pixel_scale,
        "SEEING_TYPE": "LONG_EXPOSURE",
        "SEEING_FWHM": conditions.seeing,
        "PSF_OVERSAMP": OVERSAMPLING,
        "PSF_MAPSIZE": MAP_SIZE,
        "M1_DIAMETER": conditions.optics.m1,
        "M2_DIAMETER": conditions.optics.m2,
        "ARM_COUNT": conditions.optics.arms,
        "ARM_THICKNESS": conditions.optics.arm_thickness,
        "WAVELENGTH": conditions.optics.wavelength,
        "AUREOLE_RADIUS": aureole.radius,
        "AUREOLE_SB": aureole.sb,
        "BACK_MAG": conditions.sky_mag,
        "STARCOUNT_ZP": 0,  # only what the list says
        "VERBOSE_TYPE": "QUIET",
        "NTHREADS": 1,  # frames run side by side instead
    }


def source_list(sources: pd.DataFrame) -> str:
    """Return SkyMaker's list of sources; positions from 0 become positions from 1 here.

    `sources` has x, y (px from 0), mag, kind ('star' or 'galaxy') and, for galaxies, `GALAXY_COLUMNS`.
    """
    lines = []
    for row in sources.assign(x=sources["x"] + 1, y=sources["y"] + 1).to_dict("records"):
        names = ("x", "y", "mag", *(GALAXY_COLUMNS if row["kind"] == "galaxy" else ()))
        lines.append(" ".join([str(KINDS[row["kind"]]), *(f"{row[name]:.8f}" for name in names)]) + "\n")
    return "".join(lines)


def galaxies(recipe: Recipe, magnitudes: tuple[float, float], seed: int) -> pd.DataFrame:
    """Draw the galaxies of a field in SDSS g′ (AB) between two magnitudes as SkyMaker describes them: by Stuff, or by
    `draw_galaxies` where there is no `stuff`. The same seed gives the same galaxies.

    They have at least x, y (px from 0), mag, kind = 'galaxy' and `GALAXY_COLUMNS`. A ConfigError, DataError or
    PNetError if $STUFF is not Stuff, its list cannot be used, or it fails.
    """
    path = programs.find("stuff", "STUFF")
    if path is None:
        return draw_galaxies(recipe, magnitudes, seed)
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
    with _run(program, settings, "galaxies") as folder:
        rows = _read_list(folder / "galaxies.list", "galaxies")
    columns = ["kind", "x", "y", "mag", *GALAXY_COLUMNS]
    if any(len(row) != len(columns) or row[0] != KINDS["galaxy"] for row in rows):
        raise DataError(f"galaxies: {program} wrote a list that does not hold galaxies (lines of 200 and 12 numbers)")
    table = pd.DataFrame(rows, columns=columns, dtype=float).assign(kind="galaxy")
    # positions from 1 in the field with its margin become positions from 0 in the frame
    table[["x", "y"]] -= 1 + MARGIN
    # Stuff fills a little more than the field that it was asked for
    near = table[["x", "y"]].apply(lambda at: at.between(-0.5 - MARGIN, recipe.size - 0.5 + MARGIN)).all(axis=1)
    return table[near & table["mag"].between(bright, faint)].reset_index(drop=True)


def _read_image(path: Path, size: int, name: str) -> np.ndarray:
    """Return the (size, size) image in ADU that SkyMaker wrote; `name` is what error messages call the frame.

    One that is missing, damaged, of another size, or not finite everywhere is a DataError.
    """
    try:
        adu = open_fits(path)[0].data
    except DataError as error:
        raise DataError(f"{name}: SkyMaker ended without an image that can be read: {error}") from error
    if adu is None or adu.shape != (size, size) or not np.isfinite(adu).all():
        raise DataError(f"{name}: SkyMaker wrote no image of {size}×{size} finite pixels")
    return adu.astype(float)


def _painted_sources(sources: pd.DataFrame, painted: list[list[float]], name: str) -> pd.DataFrame:
    """Return the rows of `sources` that the program reports in `painted`, its list of type, x, y (from 1), mag, ...

    It passes over galaxies too small to draw and sources too far away to matter; its list has only four decimals, so
    the truth is taken from `sources`. A list with a source that `sources` does not hold is a DataError.
    """
    wanted, kept, row = sources[["x", "y", "mag"]].to_numpy(float) + [1.0, 1.0, 0.0], [], 0
    for line in painted:
        while len(line) >= 4 and row < len(wanted) and np.abs(wanted[row] - line[1:4]).max() > LIST_DIGITS:
            row += 1
        if len(line) < 4 or row == len(wanted):
            raise DataError(f"{name}: SkyMaker's list has a source that it was not given: {line}")
        kept.append(row)
        row += 1
    return sources.iloc[kept].reset_index(drop=True)


@contextlib.contextmanager
def _run(
    program: programs.Program, settings: dict[str, object], name: str, sources: str | None = None
) -> Iterator[Path]:
    """Run a program with a configuration and, for SkyMaker, a list of sources; yield the folder of what it wrote."""
    with tempfile.TemporaryDirectory(prefix="pnet-sky-") as temporary:
        folder, command = Path(temporary), [program.path, "-c", "program.conf"]
        (folder / "program.conf").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        if sources is not None:
            command.insert(1, "sources.txt")  # not frame.list: that is the output, and `sky` does not overwrite
            (folder / "sources.txt").write_text(sources)
        programs.run(command, folder, name, TIME_LIMIT)
        yield folder


def _read_list(path: Path, name: str) -> list[list[float]]:
    """Return the numbers of each line of a source list; `name` is what error messages call the job."""
    try:
        return [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:  # a UnicodeDecodeError is a ValueError
        raise DataError(f"{name}: the source list {path.name} is missing or holds something else: {error}") from error
