"""Recalibrations that know the magnitude: a ratio for each bin, and conformal intervals.

The bins are of the *predicted* magnitude, which is known without the truth.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from pnet.common.errors import ConfigError, DataError
from pnet.common.files import write_json
from pnet.common.metrics import flat, toolbox

EDGES = tuple(float(edge) for edge in range(13, 21))  # of the bins that are wanted
MIN_BIN = 50  # stars of a bin: with fewer a conformal interval of one fit wanders by more than 7 % in coverage
BOUNDS = (1e-2, 1e2)  # range of ratios searched, uncertainty-toolbox's own


def check_level(level: float) -> None:
    """Raise ConfigError unless `level` is a probability between 0 and 1."""
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}, it must lie between 0 and 1")


def predictions(mean: np.ndarray, sigma: np.ndarray) -> list[np.ndarray]:
    """Return both as flat float arrays; DataError unless they are finite and every σ is positive."""
    mean, sigma = flat(mean=mean, sigma=sigma)
    if (sigma <= 0).any():
        raise DataError(f"sigma: {int((sigma <= 0).sum())} values are not positive")
    return [mean, sigma]


def best_ratio(mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray) -> float:
    """Return the factor on σ with the smallest miscalibration area, by uncertainty-toolbox.

    Raises
    ------
    DataError
        If predictions equal the truth, or the factor lies outside 0.01 to 100.
    """
    # The search is local: start it from σ scaled to the observed spread, so that a factor of 50 is no obstacle.
    start = float(np.median(np.abs(truth - mean) / sigma) / stats.norm.ppf(0.75))
    if not start > 0:
        raise DataError("half of the predictions equal the truth exactly: no ratio of σ can be fitted")
    ratio = start * toolbox().optimize_recalibration_ratio(
        mean, start * sigma, truth, criterion="miscal", optimizer_bounds=(0.2, 5.0)
    )
    if not BOUNDS[0] < ratio < BOUNDS[1]:
        raise DataError(f"the best ratio is {ratio:.3g}, outside {BOUNDS[0]} to {BOUNDS[1]}: check the units of σ")
    return float(ratio)


@dataclass(frozen=True)
class Bins:
    """Bins of predicted magnitude that hold enough stars: inner `edges`, indices of `members`, and what was joined."""

    edges: tuple[float, ...]
    members: tuple[np.ndarray, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, mean: np.ndarray, edges: Sequence[float], smallest: int) -> "Bins":
        """Sort stars into bins; what lies beyond the outer edges joins the outer bins.

        A bin with fewer than `smallest` stars is joined with the smaller of its neighbours.
        """
        edges = [float(edge) for edge in edges]
        if len(edges) < 2 or (np.diff(edges) <= 0).any():
            raise ConfigError(f"edges are {edges}, at least two rising values are needed")
        if smallest < 1:
            raise ConfigError(f"smallest is {smallest}, a bin needs at least 1 star")
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
class Ratios:
    """One factor on σ for each bin of predicted magnitude; make it with `recalibration.fit` or `load`.

    The bins' own best ratios are drawn together as far as their noise explains how they differ (a random-effects
    mean, DerSimonian & Laird 1986, with each bin's posterior mean): where validation shows no need for more than one
    ratio, all are the same, and a bin of few stars never strays far.

    Parameters
    ----------
    edges : tuple of float
        Inner edges of the bins, rising; the first and the last bin are open.
    ratios : tuple of float
        One a bin.
    spread : float
        How much ln(ratio) truly differs between bins, as a standard deviation; 0 where it does not.
    n : int
        Validation stars it was fitted on.
    notes : tuple of str
        Which bins had too few stars and were joined.
    data : str
        What it was fitted on.
    """

    edges: tuple[float, ...]
    ratios: tuple[float, ...]
    spread: float
    n: int
    notes: tuple[str, ...] = ()
    data: str = ""

    method = "ratios"

    def __post_init__(self):
        if len(self.ratios) != len(self.edges) + 1:
            raise DataError(f"{len(self.edges)} inner edges need {len(self.edges) + 1} ratios")
        if not np.isfinite(self.edges).all() or (np.diff(self.edges) < 0).any():
            raise DataError("edges must be finite and rise")
        if not all(math.isfinite(ratio) and ratio > 0 for ratio in self.ratios):
            raise DataError(f"ratios are {self.ratios}, they must be positive")

    @classmethod
    def fit(
        cls, mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray, edges: Sequence[float], smallest: int, data: str
    ) -> "Ratios":
        """Fit every bin's ratio to validation stars and draw them together."""
        bins = Bins.of(mean, edges, smallest)
        logs = np.log([best_ratio(mean[i], sigma[i], truth[i]) for i in bins.members])
        weight = np.array([len(i) for i in bins.members], dtype=float)  # the variance of ln(ratio) is about 1/n
        centre = np.average(logs, weights=weight)
        excess = np.sum(weight * (logs - centre) ** 2) - (len(logs) - 1)
        scale = weight.sum() - np.sum(weight**2) / weight.sum()
        variance = max(0.0, float(excess / scale)) if scale > 0 else 0.0
        if variance > 0:
            total = 1 / (variance + 1 / weight)
            centre = np.average(logs, weights=total)
            logs = (weight * logs + centre / variance) / (weight + 1 / variance)
        else:
            logs = np.full(len(logs), np.log(best_ratio(mean, sigma, truth)))
        return cls(
            bins.edges, tuple(np.exp(logs).tolist()), float(np.sqrt(variance)), int(weight.sum()), bins.notes, data
        )

    def apply(self, mean: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Return the recalibrated standard deviations of stars with these predicted magnitudes."""
        index = np.searchsorted(self.edges, mean, side="right")
        return np.array(self.ratios)[index] * np.asarray(sigma, dtype=float)

    def interval(self, mean: np.ndarray, sigma: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper bound of the recalibrated central interval of probability `level`."""
        mean, sigma = predictions(mean, sigma)
        check_level(level)
        half = stats.norm.ppf(0.5 + level / 2) * self.apply(mean, sigma)
        return mean - half, mean + half

    def proportions(self, mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return expected and observed proportions, for a calibration curve."""
        mean, sigma = predictions(mean, sigma)
        (truth,) = flat(truth=truth)
        return toolbox().get_proportion_lists_vectorized(mean, self.apply(mean, sigma), truth)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a card or a file."""
        names = ("method", "edges", "ratios", "spread", "n", "notes", "data")
        return {name: getattr(self, name) for name in names}

    def save(self, path: str | os.PathLike) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.as_dict())


@dataclass(frozen=True)
class Conformal:
    """Split-conformal intervals by bins of the predicted magnitude; make it with `recalibration.fit` or `load`.

    The bins are of the *predicted* mean, since the guarantee needs groups that are known without the truth.

    Parameters
    ----------
    edges : tuple of float
        Inner edges of the bins, rising; the first and the last bin are open.
    scores : tuple of tuple of float
        Validation stars' |truth − mean| / σ, sorted, one tuple a bin.
    notes : tuple of str
        Which of the wanted bins had too few stars and were joined.
    data : str
        What it was fitted on.
    """

    edges: tuple[float, ...]
    scores: tuple[tuple[float, ...], ...]
    notes: tuple[str, ...] = ()
    data: str = ""

    method = "conformal"

    def __post_init__(self):
        if len(self.scores) != len(self.edges) + 1 or not all(self.scores):
            raise DataError(f"{len(self.edges)} inner edges need {len(self.edges) + 1} bins with scores")
        for values in (self.edges, *self.scores):
            if not np.isfinite(values).all() or (np.diff(values) < 0).any():
                raise DataError("edges and scores must be finite and rise")

    @property
    def n(self) -> int:
        """Validation stars it was fitted on."""
        return sum(len(values) for values in self.scores)

    def factors(self, level: float) -> np.ndarray:
        """Return each bin's half-width of the interval in units of σ: the ⌈(n + 1) level⌉-th smallest score.

        Infinite where n is too small for the level: below 19 stars nothing shorter is sure to hold 95 %.
        """
        check_level(level)
        found = []
        for values in self.scores:
            rank = math.ceil((len(values) + 1) * level - 1e-9)  # 19 · 0.95 is not quite an integer to a computer
            found.append(values[rank - 1] if rank <= len(values) else math.inf)
        return np.array(found)

    def interval(self, mean: np.ndarray, sigma: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper bound of the interval that holds at least `level` of the stars of each bin."""
        mean, sigma = predictions(mean, sigma)
        half = self.factors(level)[np.searchsorted(self.edges, mean, side="right")] * sigma
        return mean - half, mean + half

    def proportions(self, mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return expected and observed proportions, for a calibration curve; on the grid of uncertainty-toolbox."""
        mean, sigma = predictions(mean, sigma)
        mean, truth = flat(mean=mean, truth=truth)
        expected = np.linspace(0, 1, 100)
        bins = np.searchsorted(self.edges, mean, side="right")
        score = np.abs(truth - mean) / sigma
        inner = [float(np.mean(score <= self.factors(level)[bins])) for level in expected[1:-1]]
        return expected, np.array([0.0, *inner, 1.0])

    @classmethod
    def fit(
        cls, mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray, edges: Sequence[float], smallest: int, data: str
    ) -> "Conformal":
        """Sort the scores of validation stars into bins and join those that hold fewer than `smallest`."""
        bins = Bins.of(mean, edges, smallest)
        scores = np.abs(truth - mean) / sigma
        return cls(bins.edges, tuple(tuple(np.sort(scores[i]).tolist()) for i in bins.members), bins.notes, data)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a card or a file."""
        names = ("method", "edges", "scores", "notes", "data")
        return {name: getattr(self, name) for name in names}

    def save(self, path: str | os.PathLike) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.as_dict())
