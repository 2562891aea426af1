"""Other recalibrations of PNet's magnitudes than the one it is released with, and what each does to other stars.

Four ways, all fitted on validation data and never on the data that are reported on:

- "ratio": one factor for all σ, the one with the smallest miscalibration area (`pnet.stars.error_scale.best_ratio`);
- "ratios": one factor for each bin of magnitude, as far as the bins really differ (`ratios`);
- "isotonic": a rising map between nominal and observed proportion (Kuleshov et al. 2018; section 4.2 of the paper),
  which corrects the shape of the distribution too;
- "conformal": the largest |truth − mean| / σ that validation stars of the same magnitude reach bounds the interval
  (split conformal prediction: Papadopoulos et al. 2002, Lei et al. 2018; by group: Vovk 2012). Whatever the errors'
  distribution, a new star of a bin with n validation stars lies inside with a probability of at least the level, and
  of at most the level + 1 / (n + 1), as long as new stars are drawn as the validation stars were.

Bins are of the *predicted* magnitude: the guarantee needs groups that are known without the truth.
"""

import contextlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from pnet.book.tables import text
from pnet.common import metrics
from pnet.common.errors import DataError
from pnet.common.metrics import Estimate
from pnet.evaluation import calibration_metrics, error_bars
from pnet.evaluation.scores import Score
from pnet.stars.error_scale import best_ratio, checked

METHODS = {
    "raw": "as the network says",
    "ratio": "one ratio",
    "ratios": "a ratio by magnitude",
    "isotonic": "isotonic",
    "conformal": "conformal by magnitude",
}
EDGES = tuple(float(edge) for edge in range(13, 21))  # of the bins that are wanted
MIN_BIN = 50  # stars of a bin: with fewer a conformal interval of one fit wanders by more than 7 % in coverage


@dataclass(frozen=True)
class Bins:
    """Bins of predicted magnitude that hold enough stars: inner `edges`, indices of `members`, and what was joined."""

    edges: tuple[float, ...] = ()
    members: tuple[np.ndarray, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, mean: np.ndarray, edges: Sequence[float] = EDGES, smallest: int = MIN_BIN) -> "Bins":
        """Sort stars into bins; what lies beyond the outer edges joins the outer bins.

        A bin with fewer than `smallest` stars is joined with the smaller of its neighbours.
        """
        edges = [float(edge) for edge in edges]
        index = np.clip(np.searchsorted(edges, mean, side="right") - 1, 0, len(edges) - 2)
        bins = [np.flatnonzero(index == number) for number in range(len(edges) - 1)]
        notes = []
        while len(bins) > 1 and min(map(len, bins)) < smallest:
            few = int(np.argmin([len(members) for members in bins]))
            beside = [number for number in (few - 1, few + 1) if 0 <= number < len(bins)]
            left = min(few, min(beside, key=lambda number: len(bins[number])))
            named = [f"{edges[i]:g}–{edges[i + 1]:g} ({len(bins[i])} stars)" for i in (left, left + 1)]
            notes.append(f"{named[0]} and {named[1]} joined: fewer than {smallest} stars in one of them")
            bins[left : left + 2] = [np.concatenate(bins[left : left + 2])]
            del edges[left + 1]
        return cls(tuple(edges[1:-1]), tuple(bins), tuple(notes))


@dataclass(frozen=True)
class Scaled:
    """A recalibration whose intervals are a factor times σ, which depends on the bin and on the level.

    Parameters
    ----------
    factors : callable
        ``factors(level)`` → (B,), each bin's half-width in units of σ of the interval of probability `level`, 0 to 1.
    edges : tuple of float
        Inner edges of the bins of predicted magnitude, rising; the first and the last bin are open.
    notes : tuple of str
        Which of the wanted bins had too few stars and were joined.
    """

    factors: Callable[[float], np.ndarray]
    edges: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    def interval(self, mean: np.ndarray, sigma: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper bound of the recalibrated central interval of probability `level`."""
        half = self.factors(level)[np.searchsorted(self.edges, mean, side="right")] * sigma
        return mean - half, mean + half

    def proportions(self, mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return expected and observed proportions, for a calibration curve; on the grid of uncertainty-toolbox."""
        expected = np.linspace(0, 1, 100)
        bins, score = np.searchsorted(self.edges, mean, side="right"), np.abs(truth - mean) / sigma
        inner = [float(np.mean(score <= self.factors(level)[bins])) for level in expected[1:-1]]
        return expected, np.array([0.0, *inner, 1.0])


def scaled(*ratios: float, bins: Bins = Bins()) -> Scaled:
    """Return a recalibration by one factor on σ for each of the bins, or a single one."""
    return Scaled(lambda level: stats.norm.ppf(0.5 + level / 2) * np.array(ratios), bins.edges, bins.notes)


def ratios(mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray, bins: Bins) -> Scaled:
    """Fit every bin's ratio to validation stars and draw them together as far as their noise explains how they differ.

    A random-effects mean (DerSimonian & Laird 1986), with each bin's posterior mean: where validation shows no need
    for more than one ratio, all are the same, and a bin of few stars never strays far.
    """
    logs = np.log([best_ratio(mean[i], sigma[i], truth[i]) for i in bins.members])
    weight = np.array([len(i) for i in bins.members], dtype=float)  # the variance of ln(ratio) is about 1/n
    excess = np.sum(weight * (logs - np.average(logs, weights=weight)) ** 2) - (len(logs) - 1)
    scale = weight.sum() - np.sum(weight**2) / weight.sum()
    # how much ln(ratio) truly differs between bins
    variance = max(0.0, float(excess / scale)) if scale > 0 else 0.0
    if variance > 0:
        centre = np.average(logs, weights=1 / (variance + 1 / weight))
        logs = (weight * logs + centre / variance) / (weight + 1 / variance)
    else:
        logs = np.full(len(logs), np.log(best_ratio(mean, sigma, truth)))
    return scaled(*np.exp(logs), bins=bins)


def conformal(mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray, bins: Bins) -> Scaled:
    """Return split-conformal intervals: a bin's factor is the ⌈(n + 1) level⌉-th smallest |truth − mean| / σ of its n
    validation stars.

    Infinite where n is too small for the level: below 19 stars nothing shorter is sure to hold 95 %.
    """
    found = [np.sort(np.append((np.abs(truth - mean) / sigma)[i], np.inf)) for i in bins.members]

    def factors(level: float) -> np.ndarray:
        # n + 1 values with the infinite one; 20 · 0.95 is not quite an integer to a computer
        return np.array([scores[math.ceil(len(scores) * level - 1e-9) - 1] for scores in found])

    return Scaled(factors, bins.edges, bins.notes)


@dataclass(frozen=True)
class Isotonic:
    """A rising map from wanted to nominal proportion, scikit-learn's by uncertainty-toolbox. It has no single σ."""

    model: Any

    @classmethod
    def fit(cls, mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray) -> "Isotonic":
        """Fit the map to validation stars."""
        expected, observed = metrics.toolbox().get_proportion_lists_vectorized(mean, sigma, truth)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a remark where the proportions do not reach 0 and 1
            return cls(metrics.toolbox().iso_recal(expected, observed))

    def interval(self, mean: np.ndarray, sigma: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds, as `Scaled.interval`."""
        bounds = metrics.toolbox().get_prediction_interval(mean, sigma, np.array([level]), recal_model=self.model)
        return bounds.lower, bounds.upper

    def proportions(self, mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return expected and observed proportions, as `Scaled.proportions`."""
        return metrics.toolbox().get_proportion_lists_vectorized(mean, sigma, truth, recal_model=self.model)


def _known(rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    """Return the stars that have both parts of σ, and their mean, σ as the network gave it (Eq. 15), and truth."""
    known = rows.dropna(subset=["mag_aleatoric", "mag_epistemic"])
    sigma = np.hypot(known["mag_aleatoric"], known["mag_epistemic"])
    return known, *(np.asarray(values, dtype=float) for values in (known["mag"], sigma, known["truth_mag"]))


def fit(rows: pd.DataFrame, data: str) -> dict[str, Scaled | Isotonic]:
    """Fit every kind of recalibration to validation stars (`error_bars.stars_of`), by the methods of `METHODS`.

    Raises
    ------
    DataError
        If too few of them have both parts of σ, or no ratio can be fitted; it names `data`.
    """
    try:
        mean, sigma, truth = checked(*_known(rows)[1:])
        bins = Bins.of(mean)
        return {
            "raw": scaled(1.0),
            "ratio": scaled(best_ratio(mean, sigma, truth)),
            "ratios": ratios(mean, sigma, truth, bins),
            "isotonic": Isotonic.fit(mean, sigma, truth),
            "conformal": conformal(mean, sigma, truth, bins),
        }
    except DataError as error:
        raise DataError(f"validation stars of {data}: {error}") from error


def compare(fitted: Mapping[str, Scaled | Isotonic], rows: pd.DataFrame, seed: int) -> dict[str, Score]:
    """Return the coverage, by method of recalibration, of stars that had no part in the fit.

    Keys are ``<what>.<method>`` with the methods of `METHODS`: ``coverage_68``, ``coverage_95``, their values for
    each magnitude bin (``coverage_68.conformal.mag.17``), ``miscalibration_area`` and ``half_width_68``, the mean
    half-width of the 68 % interval.
    """
    rows, mean, sigma, truth = _known(rows)
    if len(rows) < error_bars.SMALLEST:
        return {}
    bins = [group for group in error_bars.bins(rows) if group[2].sum() >= error_bars.SMALLEST]
    groups = [("", "", np.ones(len(rows), bool)), *((f".{key}", f", {label}", member) for key, label, member in bins)]
    area_of = metrics.toolbox().metrics_calibration.miscalibration_area_from_proportions
    floor = calibration_metrics.perfect(len(rows), seed=seed).value
    result: dict[str, Score] = {}
    for name, title in METHODS.items():
        intervals = {level: fitted[name].interval(mean, sigma, level) for level in error_bars.LEVELS}
        for level, (low, high) in intervals.items():
            inside, text = (low <= truth) & (truth <= high), f"share inside the {100 * level:.0f} % interval, {title}"
            for key, label, member in groups:
                score = Score(metrics.share(inside[member]), text + label, limit=level)
                result[f"coverage_{100 * level:.0f}.{name}{key}"] = score
        low, high = intervals[error_bars.LEVELS[0]]
        half = metrics.bootstrap(np.mean, (high - low) / 2, seed=seed)
        result[f"half_width_68.{name}"] = Score(half, f"mean half-width of the 68 % interval, {title}", "mag")
        area = Estimate(float(area_of(*fitted[name].proportions(mean, sigma, truth))), n=len(rows))
        result[f"miscalibration_area.{name}"] = Score(area, f"miscalibration area, {title}", limit=floor)
    return result


def table(compared: Mapping[str, Score]) -> pd.DataFrame:
    """Coverage before and after each recalibration of `compare`, pooled and in its worst bin."""
    rows = []
    for name, label in METHODS.items() if compared else ():
        row = {"recalibration": label}
        for level in error_bars.LEVELS:
            what = f"coverage_{100 * level:.0f}.{name}"
            share = compared[what].estimate
            value, low, high = (f"{100 * each:.1f}" for each in (share.value, share.low, share.high))
            row[f"inside {100 * level:.0f} % (95 %)"] = f"{value} ({low} … {high}) %"
            bins = {key.rpartition(".")[2]: score for key, score in compared.items() if key.startswith(f"{what}.mag.")}
            if bins:
                mag, worst = max(bins.items(), key=lambda item: abs(item[1].estimate.value - item[1].limit))
                row[f"{100 * level:.0f} %, worst bin"] = f"{text(worst.estimate.value, 'percent', 1)} at {mag} mag"
        row["area"] = text(compared[f"miscalibration_area.{name}"].estimate.value)
        row["half of the 68 % interval / mmag"] = text(1000 * compared[f"half_width_68.{name}"].estimate.value)
        rows.append(row)
    return pd.DataFrame(rows)
