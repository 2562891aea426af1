"""What SkyMaker reads and writes: its configuration, its list of sources, its image and the list of what it painted.

Positions count from 1 in its lists and from 0 everywhere else; the change is made here.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pnet.common.errors import ConfigError, DataError
from pnet.common.fits_file import open_fits
from pnet.simulation.recipe import Conditions
from pnet.simulation.stuff import GALAXY_COLUMNS

OVERSAMPLING, MAP_SIZE = 11, 2048  # odd, so that the pixel stays centred; the map reaches to 93 px
LIST_DIGITS = 2e-4  # px and mag; the program writes four decimals


def configuration(conditions: Conditions, *, noise: bool = True) -> dict[str, object]:
    """Return SkyMaker's settings for a frame.

    Parameters
    ----------
    conditions : Conditions
    noise : bool
        False for the expected light alone: no noise, no bleeding, no saturation.

    Raises
    ------
    ConfigError
        If a value is not finite or out of range.
    """
    for name in ("seeing", "gain", "exposure", "pixel_scale", "saturation", "size"):
        _check(name, getattr(conditions, name), at_least=0, zero=False)
    for name in ("read_noise", "well_capacity"):
        _check(name, getattr(conditions, name), at_least=0)
    for name in ("sky_mag", "mag_zero"):
        _check(name, getattr(conditions, name))
    settings = {
        "IMAGE_NAME": "frame.fits",
        "IMAGE_SIZE": int(conditions.size),
        "IMAGE_TYPE": "SKY" if noise else "SKY_NONOISE",
        "GAIN": conditions.gain,
        "WELL_CAPACITY": conditions.well_capacity if noise else 0,
        "SATUR_LEVEL": conditions.saturation if noise else 1e17,
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
        "AUREOLE_RADIUS": 0,
        "BACK_MAG": conditions.sky_mag,
        "STARCOUNT_ZP": 0,  # only what the list says
        "VERBOSE_TYPE": "QUIET",
        "NTHREADS": 1,  # frames run side by side instead
    }
    if conditions.aureole is not None:
        settings |= {"AUREOLE_RADIUS": conditions.aureole.radius, "AUREOLE_SB": conditions.aureole.sb}
    return settings


def source_list(stars: pd.DataFrame) -> str:
    """Return SkyMaker's list of sources; positions from 0 become positions from 1 here.

    Parameters
    ----------
    stars : DataFrame
        x, y (px from 0), mag, kind ('star' or 'galaxy'; all are stars where the column is absent) and,
        for galaxies, `GALAXY_COLUMNS`.

    Raises
    ------
    DataError
        If a column is missing, or a value is not finite or not allowed.
    """
    lines = []
    for number, row in enumerate(stars.to_dict("records")):
        kind = row.get("kind", "star")
        if kind not in ("star", "galaxy"):
            raise DataError(f"source {number}: kind is {kind!r}, it must be 'star' or 'galaxy'")
        names = ("x", "y", "mag", *(GALAXY_COLUMNS if kind == "galaxy" else ()))
        missing = [name for name in names if name not in row]
        if missing:
            raise DataError(f"source {number} ({kind}) has no {', '.join(missing)}")
        try:
            values = np.array([row[name] for name in names], dtype=float)
        except (TypeError, ValueError) as error:
            raise DataError(f"source {number} ({kind}) holds something else than numbers: {error}") from error
        if not np.isfinite(values).all():
            raise DataError(f"source {number} ({kind}) holds a value that is not finite: {values.tolist()}")
        values[:2] += 1
        lines.append(" ".join(["200" if kind == "galaxy" else "100", *(f"{value:.8f}" for value in values)]))
    return "".join(f"{line}\n" for line in lines)


def read_image(path: Path, size: int, name: str) -> np.ndarray:
    """Return the (size, size) image in ADU that SkyMaker wrote; `name` is what error messages call the frame.

    Raises
    ------
    DataError
        If it is missing, damaged, of another size, or holds values that are not finite.
    """
    try:
        adu = open_fits(path)[0].data
    except DataError as error:
        raise DataError(f"{name}: SkyMaker ended without an image that can be read: {error}") from error
    if adu is None or adu.shape != (size, size) or not np.isfinite(adu).all():
        raise DataError(f"{name}: SkyMaker wrote no image of {size}×{size} finite pixels")
    return adu.astype(float)


def painted_sources(stars: pd.DataFrame, painted: list[list[float]], name: str) -> pd.DataFrame:
    """Return the rows of `stars` that the program reports, in their order.

    It passes over galaxies too small to draw and sources too far away to matter; its list has only
    four decimals, so the truth is taken from `stars`.

    Parameters
    ----------
    stars : DataFrame
        What it was given.
    painted : list of list of float
        The numbers of its list: type, x, y (from 1), mag, ...
    name : str
        What error messages call the frame.

    Raises
    ------
    DataError
        If its list holds a source that `stars` does not.
    """
    kept, row = [], 0
    wanted = stars[["x", "y", "mag"]].to_numpy(dtype=float).reshape(-1, 3) + [1.0, 1.0, 0.0]
    for line in painted:
        while len(line) >= 4 and row < len(wanted) and np.abs(wanted[row] - line[1:4]).max() > LIST_DIGITS:
            row += 1
        if len(line) < 4 or row == len(wanted):
            raise DataError(f"{name}: SkyMaker's list has a source that it was not given: {line}")
        kept.append(row)
        row += 1
    truth = stars.iloc[kept].reset_index(drop=True)
    return truth if "kind" in truth else truth.assign(kind="star")


def _check(name: str, value: float, *, at_least: float = -np.inf, zero: bool = True) -> None:
    wrong = not np.isfinite(value) or value < at_least or (value == 0 and not zero)
    if wrong:
        allowed = "" if at_least == -np.inf else " and at least 0" if zero else " and positive"
        raise ConfigError(f"conditions: {name} is {value}, it must be finite{allowed}")
