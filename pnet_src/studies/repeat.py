"""The same stars at two epochs: how far two measurements differ, beside what their error bars promise.

No truth is needed: what two frames of one place disagree in is noise, calibration and the sky's own changes (variable
stars, proper motion). SDSS crossed Stripe 82 many times; two of these frames, three years apart, come with all their
files (`data_manifests/stripe82.yml`), and two DR17 frames of the standard manifest overlap by a tenth.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from pnet.book import shown
from pnet.common import paths, provenance
from pnet.common.errors import DataError, MissingError
from pnet.evaluation import measurements
from pnet.frame import Frame
from pnet.sdss.catalogue import load_field
from pnet.sdss.files import fetch
from pnet.simulation.recipe import Recipe
from pnet.sky import catalogue, limits, matching
from pnet.stars import weights
from pnet.training import real_sky
from studies import stripe82

STRIPE82 = ("4192", "6377")  # runs of the two epochs
OVERLAP = ("2989-5-22", "6752-5-48")  # fields of the standard manifest
MEASURED = ("x", "y", "mag", "x_err", "y_err", "mag_err", "limit_x", "limit_y", "limit_mag")
COLUMNS = ("pair", "frame", "counted", *(f"{name}_{epoch}" for epoch in (1, 2) for name in MEASURED))
CONFIDENCE = 0.3  # the paper's
FIRST_MATCH = 4.0  # px; two celestial WCS of SDSS agree to a pixel or so
FEWEST = 6  # common stars; an affine transformation has three parameters an axis


@dataclass(frozen=True)
class Pair:
    """Two frames that share sky, each with its celestial WCS and ``meta["psf"]``, a PSFModel or None.

    `reference` is a catalogue of stars: ra, dec (degrees). Where there is one, only its stars count.
    """

    name: str
    first: Frame
    second: Frame
    reference: pd.DataFrame | None = None


def stripe82_pair() -> Pair:
    """Return the two epochs of Stripe 82 with the catalogue of its stars; MissingError if they cannot be had."""
    kinds = ("fpC", "psField", "tsField", "fpM")
    files = stripe82.fetch([f"{kind}-{run}" for run in STRIPE82 for kind in kinds] + ["reference"])
    first, second = (stripe82.read_fpc(*(files[f"{kind}-{run}"] for kind in kinds)) for run in STRIPE82)
    return Pair("stripe82", first, second, stripe82.read_reference(files["reference"]))


def overlap_pair(manifest: str = "sdss-standard") -> Pair:
    """Return the two DR17 frames that overlap; MissingError if they cannot be had."""
    report = fetch(manifest, fields=OVERLAP, progress=False)
    first, second = (load_field(report, name)[0] for name in OVERLAP)
    return Pair("overlap", first, second)


def measure(frame: Frame, measurer: measurements.Measurer) -> pd.DataFrame:
    """Return a frame's detections with their limits, `MEASURED`, and ``good``: isolated, off the edge and not masked.

    ``measurer(frame)`` gives x, y, confidence, flux, mag and what else of `MEASURED` it has.
    """
    found = measurer(frame)
    found = found[found["confidence"] >= CONFIDENCE].reset_index(drop=True)
    bounds = limits.frame_limits(frame, found, _psf_at(frame)).drop(columns="sky")
    # every detection is a neighbour, and a star if it lies where a star may
    marked = catalogue.mark_counted(found.assign(kind="star"), frame, magnitudes=(-np.inf, np.inf))
    found = found.join(bounds).reindex(columns=list(MEASURED)).astype(float)
    return found.assign(good=marked["counted"].to_numpy())


def _psf_at(frame: Frame) -> Callable[[Frame, float, float], limits.EffectivePSF]:
    """Return SDSS's own PSF where the frame has it, else the atmosphere's at the width of the frame's stars."""
    model = frame.meta.get("psf")
    if model is not None:
        return lambda _, x, y: limits.EffectivePSF.from_pixels(model.at(x, y))
    if frame.seeing is None:
        frame.seeing = real_sky.prepare(frame, Recipe.load()).seeing
    return limits.atmosphere


def pair_up(pair: Pair, first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Put the stars of two epochs side by side.

    Positions of the second epoch are predicted from the first through both celestial WCS, corrected by an affine
    transformation of all pairs, and matched within 2 px.

    Parameters
    ----------
    pair : Pair
    first, second : DataFrame
        From `measure`.

    Returns
    -------
    DataFrame
        `COLUMNS`, one row a star found at both epochs. A star counts if it is `good` at both, of 13–20 mag in the
        mean, and in the reference catalogue where there is one.

    Raises
    ------
    DataError
        If a frame has no WCS, or fewer than `FEWEST` stars are found at both.
    """
    for frame in (pair.first, pair.second):
        if frame.wcs is None:
            raise DataError(f"frame {frame.name}: has no celestial WCS, so its stars cannot be found at another epoch")
    expected, there = first[["x", "y"]].to_numpy(), second[["x", "y"]].to_numpy()
    if len(expected):
        expected = pair.second.wcs.all_world2pix(pair.first.wcs.all_pix2world(expected, 0), 0)
    one, two = _mutual(expected, there, FIRST_MATCH)
    if len(one) >= FEWEST:
        shift = there[two] - expected[one]
        near = np.hypot(*(shift - np.median(shift, axis=0)).T) < 1
        design = np.column_stack([np.ones(len(expected)), expected])
        solution = np.linalg.lstsq(design[one][near], shift[near], rcond=None)[0]
        one, two = _mutual(expected + design @ solution, there, matching.RADIUS)
    if len(one) < FEWEST:
        names = f"{pair.first.name} and {pair.second.name}"
        raise DataError(f"frames {names}: {len(one)} common stars; {FEWEST} are needed")
    parts = [
        table.loc[index].reset_index(drop=True).add_suffix(f"_{epoch}")
        for epoch, table, index in ((1, first, one), (2, second, two))
    ]
    rows = pd.concat(parts, axis=1).assign(pair=pair.name, frame=f"{pair.first.name} + {pair.second.name}")
    seen = ((rows["mag_1"] + rows["mag_2"]) / 2).between(*catalogue.MAGNITUDES)
    rows["counted"] = rows["good_1"] & rows["good_2"] & seen
    if pair.reference is not None:
        rows["counted"] &= _in_reference(rows, pair)
    return rows[list(COLUMNS)]


def _mutual(first: np.ndarray, second: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of points that are each other's nearest, within `radius`."""
    if not len(first) or not len(second):
        return np.zeros(0, int), np.zeros(0, int)
    distance, index = cKDTree(second).query(first)
    _, back = cKDTree(first).query(second)
    one = np.flatnonzero((distance <= radius) & (back[index] == np.arange(len(first))))
    return one, index[one]


def _in_reference(rows: pd.DataFrame, pair: Pair) -> np.ndarray:
    """Return (N,) bool: which stars the pair's reference catalogue holds."""
    here = rows[["x_1", "y_1"]].to_numpy()
    known = pair.first.wcs.all_world2pix(pair.reference[["ra", "dec"]].to_numpy(), 0)
    known = known[((known > -10) & (known < np.array(pair.first.shape[::-1]) + 10)).all(axis=1)]
    one, two = _mutual(here, known, FIRST_MATCH)
    if len(one) >= FEWEST:  # the WCS's own offset
        known = known + np.median(here[one] - known[two], axis=0)
    return np.isin(np.arange(len(here)), _mutual(here, known, matching.RADIUS)[0])


def run(
    output: str | os.PathLike,
    *,
    seed: int = 2023,
    manifest: str = "sdss-standard",
    optional: bool = False,
    **networks: str | os.PathLike,
) -> dict[str, Any]:
    """Measure both epochs of every pair with PNet and write ``<output>/measurements/repeat.parquet``.

    Where a table of the same settings lies there, it returns at once. Parameters, return value and errors are those of
    `measurements.run`; `manifest` lists the DR17 frames that overlap. Without those the other pair is measured alone.
    """
    path = paths.folder_of(output) / "measurements" / "repeat.parquet"
    try:
        pairs = [stripe82_pair()]
    except MissingError as error:
        if not optional:
            raise
        return measurements.unavailable(path, str(error))
    details: dict[str, Any] = {"source": "Stripe 82 frames of DR7 and DR17 frames from public copies"}
    try:
        pairs.append(overlap_pair(manifest))
    except MissingError as error:
        details["left_out"] = f"overlap not measured: {str(error).splitlines()[0]}"
    used = measurements.hashes(weights.SETS["released"] | networks)
    settings = {"seed": seed, "pairs": [pair.name for pair in pairs], "weights": used}
    if known := measurements.known(path, settings, COLUMNS):
        return known
    measurer = measurements.pnet_measurer(**networks, seed=seed)
    parts = [pair_up(pair, *(measure(frame, measurer) for frame in (pair.first, pair.second))) for pair in pairs]
    table = pd.concat(parts, ignore_index=True).astype({"pair": "str", "frame": "str"})
    options = "".join(f" --{kind} {name}" for kind, name in networks.items() if name != "released")
    command = f"python -m studies repeat --output {paths.shown(output)} --seed {seed}{options}"
    record = provenance.record(command, seed, **{"device": "cpu", **measurer.provenance, **details}, settings=settings)
    return measurements.write(table, path, record)


def load(output: str | os.PathLike) -> tuple[pd.DataFrame, dict[str, Any], str]:
    """Return the table, its provenance and where it is from: 'live' (this run) or 'released' (``results/``).

    Raises
    ------
    MissingError
        If neither is there.
    """
    read = partial(measurements.read, columns=COLUMNS)
    table, record, origin = shown.find("measurements/repeat.parquet", output, read)
    if origin == shown.MISSING:
        raise MissingError(
            "neither this run nor results/ holds measurements of two epochs; `python -m studies repeat` makes them"
        )
    return table, record, origin
