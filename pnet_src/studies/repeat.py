"""The same stars at two epochs: how far two measurements differ, beside what their error bars promise.

No truth is needed: what two frames of one place disagree in is noise, calibration and the sky's own changes (variable
stars, proper motion). SDSS crossed Stripe 82 many times; two of these frames, three years apart, come with all their
files (`data_manifests/stripe82.yml`), and two DR17 frames of the standard manifest overlap by a tenth.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from pnet.common import paths, provenance
from pnet.common.errors import DataError, MissingError
from pnet.common.files import read_json, sha256
from pnet.common.fits_file import open_fits
from pnet.common.seeds import derive
from pnet.evaluation import measurements as evaluation
from pnet.frame import Frame
from pnet.sky import catalogue, limits, matching
from studies import stripe82

STRIPE82 = ("4192", "6377")  # runs of the two epochs
OVERLAP = ("2989-5-22", "6752-5-48")  # fields of the standard manifest
MEASURED = tuple(name for name in matching.MEASURED_COLUMNS) + ("limit_mag", "limit_x", "limit_y")
COLUMNS = (
    *("pair", "frame", "reference", "reference_mag", "reference_mag_err", "counted"),
    *(f"{name}_{epoch}" for epoch in (1, 2) for name in MEASURED),
)
CONFIDENCE = 0.3  # the paper's
FIRST_MATCH = 4.0  # px; two celestial WCS of SDSS agree to a pixel or so
FEWEST = 6  # common stars; an affine transformation has three parameters an axis
PSFAt = Callable[[Frame, float, float], limits.EffectivePSF]


@dataclass(frozen=True)
class Pair:
    """Two frames that share sky.

    Parameters
    ----------
    name : str
        As in ``stripe82``.
    first, second : Frame
        Each with its celestial WCS and ``meta["psf"]``, a PSFModel or None.
    reference : DataFrame, optional
        Catalogue of stars: ra, dec (degrees), mag, mag_err. Where there is one, only its stars count.
    """

    name: str
    first: Frame
    second: Frame
    reference: pd.DataFrame | None = None


def stripe82_pair() -> Pair:
    """Return the two epochs of Stripe 82 with the reference catalogue of its stars; MissingError if they cannot be
    had."""
    kinds = ("fpC", "psField", "tsField", "fpM")
    files = stripe82.fetch([f"{kind}-{run}" for run in STRIPE82 for kind in kinds] + ["reference"])
    first, second = (stripe82.read_fpc(*(files[f"{kind}-{run}"] for kind in kinds)) for run in STRIPE82)
    return Pair("stripe82", first, second, read_reference(files["reference"]))


def read_reference(path: str | os.PathLike, band: str = "g") -> pd.DataFrame:
    """Read the catalogue of Stripe 82 stars: ra, dec (degrees, 0 to 360), mag, mag_err (AB, of `band`).

    Raises
    ------
    DataError
        If it is damaged or lacks a column.
    """
    hdus = open_fits(path)
    table = hdus[1].data if len(hdus) > 1 else None
    names = {"ra": "ra", "dec": "dec", "mag": band, "mag_err": f"{band}_err"}
    present = getattr(table, "names", None) or ()
    missing = [name for name in (*names.values(), "starnotgal") if name not in present]
    if missing:
        raise DataError(f"{path}: lacks the columns {', '.join(missing)}; it is no reference catalogue of Stripe 82")
    rows = pd.DataFrame({name: np.asarray(table[column], dtype=float) for name, column in names.items()})
    rows["ra"] %= 360
    return rows[np.asarray(table["starnotgal"]) == 1].reset_index(drop=True)


def overlap_pair(manifest: str = "sdss-standard") -> Pair:
    """Return the two DR17 frames that overlap; MissingError if they cannot be had."""
    from pnet.sdss import catalogue as sdss_catalogue
    from pnet.sdss.files import fetch

    report = fetch(manifest, fields=OVERLAP, progress=False)
    first, second = (sdss_catalogue.load_field(report, name)[0] for name in OVERLAP)
    return Pair("overlap", first, second)


def measure(frame: Frame, measurer: Callable[[Frame], pd.DataFrame]) -> pd.DataFrame:
    """Return a frame's detections with their limits and ``good``: isolated, off the edge and not masked.

    Parameters
    ----------
    frame : Frame
    measurer : callable
        ``measurer(frame)`` → x, y, confidence, flux, mag and what else of `matching.MEASURED_COLUMNS` it has.
    """
    found = measurer(frame)
    found = found[found["confidence"] >= CONFIDENCE].reset_index(drop=True)
    bounds = limits.frame_limits(frame, found, _psf_at(frame)) if len(found) else pd.DataFrame()
    found = found.reindex(columns=list(matching.MEASURED_COLUMNS)).astype(float)
    for name in ("limit_mag", "limit_x", "limit_y"):
        found[name] = bounds[name].to_numpy() if name in bounds else np.nan
    # every detection is a neighbour, and a star if it lies where a star may
    marked = catalogue.mark_counted(found.assign(kind="star"), frame, magnitudes=(-np.inf, np.inf))
    return found.assign(good=marked["counted"].to_numpy())


def _psf_at(frame: Frame) -> PSFAt:
    """Return SDSS's own PSF where the frame has it, else the atmosphere's at the width of the frame's stars."""
    model = frame.meta.get("psf")
    if model is not None:
        return lambda _, x, y: limits.EffectivePSF.from_pixels(model.at(x, y))
    if frame.seeing is None:
        from pnet.simulation.recipe import Recipe
        from pnet.training import injection

        frame.seeing = injection.prepare(frame, Recipe.load()).seeing
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
    here = first[["x", "y"]].to_numpy()
    there = second[["x", "y"]].to_numpy()
    sky = pair.first.wcs.all_pix2world(here, 0) if len(here) else np.empty((0, 2))
    expected = pair.second.wcs.all_world2pix(sky, 0) if len(here) else sky
    one, two = _mutual(expected, there, FIRST_MATCH)
    if len(one) >= FEWEST:
        shift = there[two] - expected[one]
        centre = np.median(shift, axis=0)
        near = np.hypot(*(shift - centre).T) < 1
        design = np.column_stack([np.ones(len(expected)), expected])
        solution = np.linalg.lstsq(design[one][near], shift[near], rcond=None)[0]
        one, two = _mutual(expected + design @ solution, there, matching.RADIUS)
    if len(one) < FEWEST:
        raise DataError(
            f"frames {pair.first.name} and {pair.second.name}: {len(one)} common stars; {FEWEST} are needed"
        )
    rows = pd.concat(
        [
            table.loc[index, list(MEASURED)].reset_index(drop=True).add_suffix(f"_{epoch}")
            for epoch, table, index in ((1, first, one), (2, second, two))
        ],
        axis=1,
    )
    rows["pair"], rows["frame"] = pair.name, f"{pair.first.name} + {pair.second.name}"
    mean = (rows["mag_1"] + rows["mag_2"]) / 2
    rows["counted"] = (
        first.loc[one, "good"].to_numpy() & second.loc[two, "good"].to_numpy() & mean.between(*catalogue.MAGNITUDES)
    )
    rows["reference"] = False
    rows["reference_mag"] = rows["reference_mag_err"] = np.nan
    if pair.reference is not None:
        _add_reference(rows, pair)
    return rows[list(COLUMNS)]


def _mutual(first: np.ndarray, second: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of points that are each other's nearest, within `radius`."""
    if not len(first) or not len(second):
        return np.zeros(0, int), np.zeros(0, int)
    distance, index = cKDTree(second).query(first)
    _, back = cKDTree(first).query(second)
    one = np.flatnonzero((distance <= radius) & (back[index] == np.arange(len(first))))
    return one, index[one]


def _add_reference(rows: pd.DataFrame, pair: Pair) -> None:
    """Fill in the reference magnitudes of the stars that the catalogue holds; others no longer count."""
    x, y = pair.first.wcs.all_world2pix(pair.reference["ra"].to_numpy(), pair.reference["dec"].to_numpy(), 0)
    height, width = pair.first.shape
    on = np.flatnonzero((x > -10) & (x < width + 10) & (y > -10) & (y < height + 10))
    known = np.column_stack([x[on], y[on]])
    one, two = _mutual(rows[["x_1", "y_1"]].to_numpy(), known, FIRST_MATCH)
    if len(one) >= FEWEST:  # the WCS's own offset
        known = known + np.median(rows[["x_1", "y_1"]].to_numpy()[one] - known[two], axis=0)
    one, two = _mutual(rows[["x_1", "y_1"]].to_numpy(), known, matching.RADIUS)
    rows.loc[one, "reference"] = True
    for name in ("mag", "mag_err"):
        rows.loc[one, f"reference_{name}"] = pair.reference[name].to_numpy()[on[two]]
    rows["counted"] &= rows["reference"]


def run(
    output: str | os.PathLike,
    *,
    seed: int = 2023,
    manifest: str = "sdss-standard",
    measurer: Callable[[Frame], pd.DataFrame] | None = None,
    **weights: str,
) -> Path:
    """Measure both epochs of every pair with PNet and write ``<output>/measurements/repeat.parquet``.

    Parameters
    ----------
    output : path
        Folder of the run.
    seed : int
        Of the Monte Carlo samples.
    manifest : str
        Where the overlapping DR17 frames are listed.
    measurer : callable, optional
        PNet with `weights` by default.
    weights
        As for `evaluation.pnet_measurer`: detection, bpnn and the like.

    Returns
    -------
    Path
        The Parquet file; its provenance lies beside it.

    Raises
    ------
    MissingError
        If the frames of Stripe 82 cannot be had. Without the overlap the other pair is measured alone.
    """
    pairs = [stripe82_pair()]
    try:
        pairs.append(overlap_pair(manifest))
        left_out = ""
    except MissingError as error:
        left_out = f"overlap not measured: {str(error).splitlines()[0]}"
    measurer = measurer or evaluation.pnet_measurer(seed=seed, **weights)
    parts = [pair_up(pair, *(measure(frame, measurer) for frame in (pair.first, pair.second))) for pair in pairs]
    table = pd.concat(parts, ignore_index=True).astype({"pair": "str", "frame": "str"})
    path = Path(output) / "measurements" / "repeat.parquet"
    details: dict[str, Any] = {"device": "cpu", **getattr(measurer, "provenance", {})}
    details["source"] = "Stripe 82 frames of DR7 and DR17 frames from public copies"
    if left_out:
        details["left_out"] = left_out
    options = "".join(f" --{name} {value}" for name, value in weights.items() if value != "released")
    command = f"python -m studies repeat --output {paths.shown(output)} --seed {seed}{options}"
    evaluation.write(table, path, provenance.record(command, seed, **details))
    return path


def step(output: str | os.PathLike, *, optional: bool = False, **options: Any) -> dict[str, Any]:
    """Run as a step of the book and return the record beside the table; options as of `run`.

    Parameters
    ----------
    optional : bool
        Where data is missing, leave a record that says why instead of raising, and no older measurement of this run.
    """
    folder = paths.folder_of(output)
    try:
        return read_json(run(folder, **options).with_suffix(".json"))
    except MissingError as error:
        if not optional:
            raise
        return evaluation.unavailable(folder / "measurements" / "repeat.parquet", str(error))


def read(path: str | os.PathLike) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the table that `run` wrote and its provenance.

    Raises
    ------
    MissingError
        If one of the two is not there.
    DataError
        If they do not belong together, or columns are missing.
    """
    path = Path(path)
    beside = path.with_suffix(".json")
    for needed in (path, beside):
        if not needed.exists():
            raise MissingError(f"{needed}: no measurements of two epochs here; `python -m studies repeat` makes them")
    record: Mapping[str, Any] = read_json(beside)
    if record.get("sha256") != sha256(path):
        raise DataError(f"{path}: is not the table that {beside.name} tells of (SHA-256 differs); measure again")
    table = pd.read_parquet(path)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise DataError(f"{path}: column(s) {', '.join(missing)} missing; measure again")
    return table, dict(record)


def load(output: str | os.PathLike) -> tuple[pd.DataFrame, dict[str, Any], str]:
    """Return the table, its provenance and where it is from: 'live' (this run) or 'released' (``results/``).

    Raises
    ------
    MissingError
        If neither is there.
    """
    folder = Path(output) if Path(output).is_absolute() else paths.ROOT / output
    for origin, place in (("live", folder), ("released", paths.RESULTS)):
        path = place / "measurements" / "repeat.parquet"
        if path.exists():
            return (*read(path), origin)
    raise MissingError(
        "neither this run nor results/ holds measurements of two epochs; `python -m studies repeat` makes them"
    )


def seed_of(record: Mapping[str, Any]) -> int:
    """Return the seed for the intervals of the scores, derived from the run's own."""
    return derive(int(record.get("seed", 0)), "repeat")
