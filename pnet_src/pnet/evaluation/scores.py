"""What all scores share: which rows of a measurement table count, bins of magnitude, scatter over the limit.

The scores themselves are by subject: `detections`, `accuracy`, `error_bars`, `confidence`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from pnet.common import metrics
from pnet.common.metrics import Estimate
from pnet.evaluation.measurements import NETWORKS, THRESHOLDS
from pnet.sky import matching, zero_point

SIMULATED = ("simulation", "realistic", "validation")  # where the truth is the truth
# A catalogue of the same pixels (SDSS's psfMag) shares their noise: no bound holds for the difference from it.
BOUNDED = (*SIMULATED, "coadd")
CALIBRATED = ("sdss", "coadd")  # data sets whose frames have 50 reference stars or more
ENOUGH = 5  # matched stars from which on a frame's own offset is better known than that of all frames
PER_FRAME = ("psfex", "photutils")  # methods whose PSF, and with it the zero of their magnitudes, is each frame's own
BINS = np.arange(13.0, 21.0)  # magnitude bins 13...19, [m, m + 1)
# Those bins, then pools of them (saturation ends near 14): name → lower and upper edge.
RANGES = {f"{low:g}": (low, low + 1) for low in BINS[:-1]} | {"14-20": (14.0, 20.0), "15-19": (15.0, 19.0)}
HALVES = {"all": (13.0, 20.0), "bright": (13.0, 16.5), "faint": (16.5, 20.0)}  # mag; photons of the star, of the sky
LEVELS = (0.68, 0.95)  # of the intervals that error bars promise


@dataclass(frozen=True)
class Score:
    """An estimate with its name: what it is, its unit and, where there is one, the smallest value possible."""

    estimate: Estimate
    title: str
    unit: str = ""
    limit: float = np.nan


def rows(table: pd.DataFrame, dataset: str, method: str) -> pd.DataFrame:
    """Return the rows of one method on one data set."""
    return table[(table["dataset"] == dataset) & (table["method"] == method)]


def working(table: pd.DataFrame, dataset: str, method: str) -> pd.DataFrame:
    """Return one method's rows on one data set as measured, at its working threshold."""
    return matching.at_threshold(rows(table, dataset, method), THRESHOLDS[method])


def select(table: pd.DataFrame, dataset: str, method: str) -> pd.DataFrame:
    """Return the rows of `working` with offsets and zero points taken off.

    The constant offsets of the classical baselines are taken off, as in the paper. Where the PSF is measured on each
    frame (SExtractor + PSFEx, photutils), so are its normalisation and its centre: then each frame's own offset is
    taken off if five of its stars or more are matched, else that of all frames. On SDSS every method's magnitudes get
    the photometric calibration of section 3.3.3, each star from the other reference stars of its frame, with a zero
    point that is a polynomial in x and y (`mae_one_zero_point` tells what one for the whole frame gives). A network's
    positions, and its magnitudes on the simulation, stay as they are.
    """
    chosen = working(table, dataset, method)
    if method not in NETWORKS:
        chosen = remove_offset(chosen, per_frame=method in PER_FRAME)
    return calibrated(chosen) if dataset in CALIBRATED else chosen


def errors(table: pd.DataFrame) -> pd.DataFrame:
    """Return measurement minus truth of a method's matched stars: x, y (px) and mag."""
    stars = matched(table)
    return pd.DataFrame({name: stars[name] - stars[f"truth_{name}"] for name in ("x", "y", "mag")})


def remove_offset(table: pd.DataFrame, per_frame: bool = False) -> pd.DataFrame:
    """Return a copy of one method's rows without its median `errors`, as the paper does for SExtractor (4.1).

    With `per_frame` each frame's own offset is taken off where at least `ENOUGH` of its stars are matched, else that of
    all: a PSF measured on the frame is normalised and centred by that frame's stars, so that the zero point and, by
    some thousandths of a pixel, the origin change from frame to frame.
    """
    table = table.copy()
    for column, values in errors(table).items():
        offset = values.median() if values.notna().any() else 0.0
        if per_frame:
            stars = values.dropna().groupby(table["frame"]).agg(["median", "size"])
            own = stars.loc[stars["size"] >= ENOUGH, "median"]
            offset = table["frame"].map(own).fillna(offset).astype(float)
        table[column] -= offset
    return table


def calibrated(table: pd.DataFrame, degrees: tuple[int, ...] = zero_point.DEGREES) -> pd.DataFrame:
    """Return the rows with the zero point of every frame fitted (Eq. 18): a polynomial of one of `degrees`."""
    result = table.copy()
    for _, frame in table.groupby("frame"):
        isolated = (frame["status"] == matching.MATCHED).to_numpy()
        reference, x, y = (frame[name].to_numpy(dtype=float) for name in ("truth_mag", "x", "y"))
        for column in ("mag", "mag_psf", "mag_det"):
            values = frame[column].to_numpy(dtype=float)
            zero = zero_point.without_itself(values, reference, isolated, x, y, degrees)
            result.loc[frame.index, column] = values + zero
    return result


def baseline_of(table: pd.DataFrame, dataset: str) -> str | None:
    """Return the classical method that was run on a data set: 'sextractor', else 'sep', else None."""
    run = set(table.loc[table["dataset"] == dataset, "method"])
    return next((name for name in ("sextractor", "sep") if name in run), None)


def matched(rows: pd.DataFrame, *needed: str) -> pd.DataFrame:
    """Return the matched stars for which all `needed` columns have a value; none where a column is not there."""
    if not set(needed) <= set(rows.columns):
        return rows.iloc[:0]
    return rows[rows["status"] == matching.MATCHED].dropna(subset=list(needed))


def curve_input(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the confidences of true and of false detections and the number of counted stars."""
    true, false = (table.loc[table["status"] == name, "confidence"] for name in (matching.MATCHED, matching.FALSE))
    return true.to_numpy(), false.to_numpy(), len(true) + int((table["status"] == matching.MISSED).sum())


def rates(table: pd.DataFrame) -> tuple[Estimate, Estimate]:
    """Return precision and recall of all rows of a table."""
    true, false, n = curve_input(table)
    return metrics.rate(len(true), len(true) + len(false)), metrics.rate(len(true), n)


def within(stars: pd.DataFrame, low: float, high: float) -> np.ndarray:
    """Return which stars have low ≤ mag < high, by their true magnitude."""
    return stars["truth_mag"].between(low, high, inclusive="left").to_numpy()


def by_bin(
    stars: pd.DataFrame,
    function: Callable[[np.ndarray], Estimate],
    key: str,
    title: str,
    ranges: Mapping[str, tuple[float, float]] = RANGES,
    **more: Any,
) -> dict[str, Score]:
    """Return ``<key>.<name>`` of all of `ranges` with two stars or more; of `HALVES` whatever they hold.

    The estimate is ``function(member)`` of the mask of a range's stars, (N,) bool; `more` are unit and limit.
    """
    found = {}
    for name, (low, high) in ranges.items():
        member = within(stars, low, high)
        if member.sum() >= 2 or ranges is HALVES:
            found[f"{key}.{name}"] = Score(function(member), f"{title}, {low:g} ≤ mag < {high:g}", **more)
    return found


@dataclass(frozen=True, eq=False)
class Sample:
    """What one method measured on one data set: all that a score may depend on.

    Parameters
    ----------
    rows : DataFrame
        As from `rows`.
    dataset, method : str
        Of `measurements.DATASETS` and `measurements.METHODS`.
    seed : int
        Of the bootstrap intervals.
    record : mapping
        The JSON beside the measurements, of which ``engine``, what made the frames (`datasets.ENGINES`), and
        ``confidence_calibration``, from the card of the detection net that measured, are used.
    """

    rows: pd.DataFrame
    dataset: str
    method: str
    seed: int = 0
    record: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def selected(self) -> pd.DataFrame:
        """The rows as from `select`."""
        return select(self.rows, self.dataset, self.method)

    def stars(self, *needed: str) -> pd.DataFrame:
        """Return the `matched` stars of `selected`."""
        return matched(self.selected, *needed)

    @property
    def network(self) -> bool:
        """Whether the method is a network, so that nothing is taken off its measurements but a zero point."""
        return self.method in NETWORKS

    @property
    def simulated(self) -> bool:
        """Whether the truth is the truth."""
        return self.dataset in SIMULATED

    def mean_limit(self, stars: pd.DataFrame, quantity: str) -> float:
        """Return the mean bound of stars, NaN where it does not bound the difference from the truth (`BOUNDED`)."""
        return float(stars[f"limit_{quantity}"].mean()) if self.dataset in BOUNDED else np.nan

    def over_limit(
        self, stars: pd.DataFrame, delta: np.ndarray, quantity: str, label: str, key: str = "{}"
    ) -> dict[str, Score]:
        """Return scatter over the limit, robust and plain, by magnitude, where the frames are simulated.

        `delta`, (N,), are errors of the stars' `quantity`, "mag", "x" or "y". Titles begin with the label;
        ``<quantity>_over_limit`` and the like fill the `key`, and the bin follows.
        """
        found: dict[str, Score] = {}
        known = np.isfinite(stars[f"limit_{quantity}"]).to_numpy() & self.simulated
        stars, delta, bound = stars[known], delta[known], stars.loc[known, f"limit_{quantity}"].to_numpy()
        for suffix, what in (("", "scatter"), ("_plain", "standard deviation")):
            ratio = partial(metrics.scatter_over_limit, seed=self.seed, robust=not suffix)
            name, title = key.format(f"{quantity}_over_limit{suffix}"), f"{label}: {what} / limit"
            found |= by_bin(stars, lambda i, ratio=ratio: ratio(delta[i], bound[i]), name, title, limit=1.0)
        return found

    def pulls(
        self, stars: pd.DataFrame, delta: np.ndarray, sigma: np.ndarray, key: str, label: str
    ) -> dict[str, Score]:
        """Return the standard deviation of error / σ by magnitude: ``<key>.<bin>``."""
        title = f"{label}: standard deviation of error / σ"
        pull = partial(metrics.scatter_over_limit, seed=self.seed, robust=False)
        return by_bin(stars, lambda i: pull(delta[i], sigma[i]), key, title, limit=1.0)
