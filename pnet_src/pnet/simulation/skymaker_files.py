"""What SkyMaker and Stuff read and write: configurations, lists of sources, the image.

Positions count from 1 in their lists and from 0 everywhere else; the change is made here and in `stuff`.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pnet.common.errors import ConfigError, DataError
from pnet.common.fits_file import open_fits
from pnet.simulation.recipe import Conditions
from pnet.sky.psf import Aureole

OVERSAMPLING, MAP_SIZE = 11, 2048  # odd, so that the pixel stays centred; the map reaches to 93 px
LIST_DIGITS = 2e-4  # px and mag; the program writes four decimals
STAR, GALAXY = 100, 200  # first number of a line
GALAXY_COLUMNS = (  # in the order of a "200" line, after x, y, mag
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


def configuration(conditions: Conditions) -> dict[str, object]:
    """Return SkyMaker's settings for the expected light of a frame: no noise, no bleeding, no saturation.

    Raises
    ------
    ConfigError
        If a value is not finite or out of range.
    """
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

    Parameters
    ----------
    sources : DataFrame
        x, y (px from 0), mag, kind ('star' or 'galaxy'; all are stars where the column is absent) and,
        for galaxies, `GALAXY_COLUMNS`.

    Raises
    ------
    DataError
        If a column is missing, or a value is not finite or not allowed.
    """
    lines = []
    for number, row in enumerate(sources.to_dict("records")):
        kind = row.get("kind", "star")
        if kind not in ("star", "galaxy"):
            raise DataError(f"source {number}: kind is {kind!r}, it must be 'star' or 'galaxy'")
        names = ("x", "y", "mag", *(GALAXY_COLUMNS if kind == "galaxy" else ()))
        missing = [name for name in names if name not in row]
        if missing:
            raise DataError(f"source {number} ({kind}) has no {', '.join(missing)}")
        values = np.array([row[name] for name in names], dtype=float)
        if not np.isfinite(values).all():
            raise DataError(f"source {number} ({kind}) holds a value that is not finite: {values.tolist()}")
        values[:2] += 1
        lines.append(" ".join([str(GALAXY if kind == "galaxy" else STAR), *(f"{value:.8f}" for value in values)]))
    return "".join(f"{line}\n" for line in lines)


def read_image(path: Path, size: int, name: str) -> np.ndarray:
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


def painted_sources(sources: pd.DataFrame, painted: list[list[float]], name: str) -> pd.DataFrame:
    """Return the rows of `sources` that the program reports in `painted`, its list of type, x, y (from 1), mag, ...

    It passes over galaxies too small to draw and sources too far away to matter; its list has only four decimals, so
    the truth is taken from `sources`. A list with a source that `sources` does not hold is a DataError.
    """
    kept, row = [], 0
    wanted = sources[["x", "y", "mag"]].to_numpy(dtype=float).reshape(-1, 3) + [1.0, 1.0, 0.0]
    for line in painted:
        while len(line) >= 4 and row < len(wanted) and np.abs(wanted[row] - line[1:4]).max() > LIST_DIGITS:
            row += 1
        if len(line) < 4 or row == len(wanted):
            raise DataError(f"{name}: SkyMaker's list has a source that it was not given: {line}")
        kept.append(row)
        row += 1
    truth = sources.iloc[kept].reset_index(drop=True)
    return truth if "kind" in truth else truth.assign(kind="star")


def write_settings(path: Path, settings: dict[str, object]) -> None:
    """Write a configuration file of the AstrOmatic programs."""
    path.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))


def read_list(path: Path, name: str) -> list[list[float]]:
    """Return the numbers of each line of a source list; `name` is what error messages call the job."""
    try:
        return [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:  # a UnicodeDecodeError is a ValueError
        raise DataError(f"{name}: the source list {path.name} is missing or holds something else: {error}") from error
