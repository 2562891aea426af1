"""The paper's criteria (section 3.1) and ours, as pure functions on flat arrays.

Errors follow Eq. 5: truth minus measurement. Intervals are two-sided at 95 % unless said otherwise.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import scipy  # which loads its parts when they are used

from pnet.common.errors import ConfigError, DataError

LEVEL = 0.95
MAD_TO_SIGMA = 1.4826  # of a Gaussian; the text below Eq. 6 (the formula itself rounds to 1.48)
HALF_NORMAL = np.sqrt(2 / np.pi)  # mean |error| of a Gaussian of sigma 1
RESAMPLES = 500


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval and the number of stars behind it; NaN where it cannot be told."""

    value: float
    low: float = np.nan
    high: float = np.nan
    n: int = 0


def flat(**arrays: np.ndarray) -> list[np.ndarray]:
    """Return the arrays as float, after checking that they are flat, finite and of one length.

    Raises
    ------
    DataError
        Naming the array that is wrong.
    """
    checked, length = [], None
    for name, values in arrays.items():
        values = np.asarray(values, dtype=float)
        length = values.size if length is None else length
        if values.ndim != 1 or values.size != length:
            raise DataError(f"{name} has shape {values.shape}, a flat array of {length} values is needed")
        if not np.isfinite(values).all():
            raise DataError(f"{name}: {int((~np.isfinite(values)).sum())} of {length} values are not finite")
        checked.append(values)
    return checked


def rate(successes: int, n: int) -> Estimate:
    """Return a fraction with Wilson's score interval (Wilson 1927); NaN for n = 0.

    Precision is TP / (TP + FP), recall TP / (TP + FN), the share of the real stars that is found. Eq. 3 of the paper
    prints TP / (TP + TN) for it, but its text describes this ratio, and a detector has no countable true negatives.
    """
    if n == 0:
        return Estimate(np.nan)
    low, high = scipy.stats.binomtest(int(successes), int(n)).proportion_ci(LEVEL, method="wilson")
    return Estimate(successes / n, float(low), float(high), int(n))


def share(chosen: np.ndarray) -> Estimate:
    """Return the fraction of (N,) bool that is True, as `rate`."""
    return rate(int(np.sum(chosen)), np.size(chosen))


def precision_recall_curve(
    true_confidence: np.ndarray, false_confidence: np.ndarray, n_sources: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and threshold at every distinct confidence, from strict to loose (Fig. 6 a, b).

    At a threshold the detections of at least this confidence are kept.

    Parameters
    ----------
    true_confidence, false_confidence : ndarray
        Confidence of the matched and of the false detections.
    n_sources : int
        Number of counted stars, found or not; without any, recall is NaN.

    Raises
    ------
    DataError
        If more true detections than sources are given (the matching is one to one).
    """
    (true_confidence,) = flat(true_confidence=true_confidence)
    (false_confidence,) = flat(false_confidence=false_confidence)
    if true_confidence.size > n_sources:
        raise DataError(f"{true_confidence.size} true detections of {n_sources} sources: matching must be one to one")
    thresholds = np.unique(np.concatenate([true_confidence, false_confidence]))[::-1]
    true, false = (
        values.size - np.searchsorted(np.sort(values), thresholds, side="left")
        for values in (true_confidence, false_confidence)
    )
    recall = true / n_sources if n_sources else np.full(len(thresholds), np.nan)
    return true / (true + false), recall, thresholds


def average_precision(precision: np.ndarray, recall: np.ndarray, interpolation: str = "envelope") -> float:
    """Area under the precision-recall curve; recall that is never reached counts as precision 0.

    Parameters
    ----------
    precision, recall : ndarray
        From `precision_recall_curve`, recall rising.
    interpolation : {"envelope", "step"}
        "envelope" takes at each recall the best precision at that recall or beyond (all points, as in
        PASCAL VOC since 2010 and as detectors report it); "step" sums (R_n - R_n-1) P_n as it stands.
    """
    precision, recall = flat(precision=precision, recall=recall)
    if interpolation == "envelope":
        precision = np.maximum.accumulate(precision[::-1])[::-1]
    elif interpolation != "step":
        raise ConfigError(f"interpolation is {interpolation!r}, allowed are 'envelope' and 'step'")
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def magnitude_error(truth: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Eq. 5: δ_mag = truth − measurement, in mag."""
    truth, measured = flat(truth=truth, measured=measured)
    return truth - measured


def relative_error(truth: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Eq. 5: δ_mag / (1 + mag_true), without unit. The divisor is photometric redshifts' 1 + z, about 19 here."""
    return magnitude_error(truth, measured) / (1 + np.asarray(truth, dtype=float))


def sigma_nmad(truth: np.ndarray, delta: np.ndarray, *, seed: int) -> Estimate:
    """Eq. 6: 1.4826 × median(|δ − median δ| / (1 + mag_true)) with bootstrap interval."""

    def statistic(divisor, errors, axis=-1):
        centre = np.median(errors, axis=axis, keepdims=True)
        return MAD_TO_SIGMA * np.median(np.abs(errors - centre) / divisor, axis=axis)

    return bootstrap(statistic, 1 + np.asarray(truth, dtype=float), delta, seed=seed)


def outliers_beyond_three_sigma(truth: np.ndarray, measured: np.ndarray) -> Estimate:
    """η as under Table 2: |relative error| > 3 times the standard deviation of all relative errors.

    It normalises itself, so it measures tails only. It would be 0.27 % for Gaussian errors of one size; what perfect
    errors of given stars have, `outliers_at_the_limit` tells.
    """
    relative = relative_error(truth, measured)
    return share(np.abs(relative) > 3 * np.std(relative)) if relative.size else rate(0, 0)


def outliers_at_the_limit(truth: np.ndarray, limit: np.ndarray, *, seed: int) -> float:
    """Return the η of `outliers_beyond_three_sigma` that perfect measurements of these stars would have.

    One threshold for stars of 13 and of 20 mag: the faintest, whose errors are twenty times those of the rest, pass it
    as a matter of course, and η is far above 0.27 % without any outlier.

    Parameters
    ----------
    truth, limit : ndarray, (N,)
        Magnitudes and their Cramér-Rao bounds, mag.
    """
    truth, limit = flat(truth=truth, limit=limit)
    if truth.size == 0:
        return np.nan
    rng = np.random.default_rng(seed)
    noise = (truth + limit * rng.normal(size=truth.size) for _ in range(100))
    return float(np.mean([outliers_beyond_three_sigma(truth, measured).value for measured in noise]))


def robust_scatter(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """1.4826 × the median absolute deviation from the median: σ of a Gaussian, blind to outliers."""
    return scipy.stats.median_abs_deviation(values, axis=axis, scale=1 / MAD_TO_SIGMA)


def half_sample_mode(values: np.ndarray) -> float:
    """Return the mode by repeatedly taking the densest half (Robertson & Cryer 1974)."""
    values = np.sort(values)
    while len(values) > 3:
        half = (len(values) + 1) // 2
        first = int(np.argmin(values[half - 1 :] - values[: len(values) - half + 1]))
        values = values[first : first + half]
    return float(values.mean())


def plain_scatter(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Standard deviation (n − 1)."""
    return np.std(values, axis=axis, ddof=1)


def bootstrap(statistic: Callable, *arrays: np.ndarray, seed: int) -> Estimate:
    """Return statistic(*arrays) with the percentile interval of a bootstrap over stars (Efron 1979).

    Parameters
    ----------
    statistic : callable
        ``statistic(*arrays, axis=-1)``, working along any axis.
    arrays : ndarray, (N,)
        Resampled together.
    seed : int
        The same seed gives the same interval.

    With fewer than five stars an interval from resampling means nothing: it is NaN.
    """
    arrays = flat(**{f"array {i}": values for i, values in enumerate(arrays)})
    n = arrays[0].size
    if n < 2:
        return Estimate(np.nan, n=n)
    value = float(statistic(*arrays, axis=-1))
    if n < 5:
        return Estimate(value, n=n)
    interval = scipy.stats.bootstrap(
        arrays,
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, int(4e6 // n)),  # keeps the resampled copies below some 100 MB
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=LEVEL,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), n)


def central(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of the central 95 % of values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def scatter_over_limit(delta: np.ndarray, limit: np.ndarray, *, seed: int, robust: bool = True) -> Estimate:
    """Scatter of error / limit with bootstrap interval; 1 is a perfect measurement.

    Each star's error is divided by its own Cramér-Rao bound, or by its predicted σ; the scatter is taken about the
    median (robust) or mean (plain) of these ratios, so that a common bias, reported on its own, drops out.

    Parameters
    ----------
    delta, limit : ndarray, (N,)
        Errors and bounds in the same unit.
    robust : bool
        MAD-based, or the plain standard deviation, which sees every outlier.
    """
    return bootstrap(robust_scatter if robust else plain_scatter, _ratio(delta, limit=limit), seed=seed)


def bias(delta: np.ndarray, *, seed: int) -> Estimate:
    """Median error with bootstrap interval, in the unit of `delta`."""
    return bootstrap(np.median, delta, seed=seed)


def mean_absolute(delta: np.ndarray, *, seed: int) -> Estimate:
    """MAE with bootstrap interval, in the unit of `delta`."""
    return bootstrap(lambda values, axis=-1: np.mean(np.abs(values), axis=axis), delta, seed=seed)


def by_bin(values: np.ndarray, edges: np.ndarray) -> list[np.ndarray]:
    """Return, for each bin [edge_i, edge_i+1), a boolean mask of its members; the last bin includes its upper edge."""
    values, edges = np.asarray(values, dtype=float), np.asarray(edges, dtype=float)
    if edges.size < 2 or (np.diff(edges) <= 0).any():
        raise ConfigError(f"edges are {edges.tolist()}, at least two rising values are needed")
    index = np.searchsorted(edges, values, side="right") - 1
    index[values == edges[-1]] = edges.size - 2
    return [index == i for i in range(edges.size - 1)]


def inside_ellipse(
    dx: np.ndarray, dy: np.ndarray, sigma_x: np.ndarray, sigma_y: np.ndarray, level: float = 0.68
) -> Estimate:
    """Share of stars whose true position lies inside the error ellipse of probability `level`, with Wilson's interval.

    For Gaussian errors in x and y that do not depend on each other (Δx/σ_x)² + (Δy/σ_y)² follows a χ² distribution of
    two degrees of freedom, so that the ellipse is where it is below −2 ln(1 − level): 2.28 for 68 %, which is 1.51 σ
    and not 1 σ.

    Parameters
    ----------
    dx, dy : ndarray, (N,)
        Errors in px.
    sigma_x, sigma_y : ndarray, (N,)
        Their predicted standard deviations in px.
    level : float
        Between 0 and 1.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}, it must lie between 0 and 1")
    squared = _ratio(dx, sigma=sigma_x) ** 2 + _ratio(dy, sigma=sigma_y) ** 2
    return share(squared < -2 * np.log(1 - level))


def toolbox() -> ModuleType:
    """Return uncertainty-toolbox, imported where it is needed since it brings matplotlib and scikit-learn along."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # release 0.1.1 holds an invalid escape, which Python warns of once
        import uncertainty_toolbox
    return uncertainty_toolbox


def standardised(truth: np.ndarray, mean: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Eq. 21: (truth − mean) / σ, a standard normal variate when the uncertainty is right."""
    truth, mean = flat(truth=truth, mean=mean)
    return _ratio(truth - mean, sigma=sigma)


def _ratio(delta: np.ndarray, **scale: np.ndarray) -> np.ndarray:
    """Return errors over their scale, one named array of positive values."""
    ((name, values),) = scale.items()
    delta, values = flat(delta=delta, **{name: values})
    if (values <= 0).any():
        raise DataError(f"{name}: {int((values <= 0).sum())} values are not positive")
    return delta / values


def coverage(z: np.ndarray, level: float) -> Estimate:
    """Share of `standardised` errors inside the central interval of probability `level`, with Wilson's interval."""
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}, it must lie between 0 and 1")
    return share(np.abs(z) <= scipy.stats.norm.ppf(0.5 + level / 2))
