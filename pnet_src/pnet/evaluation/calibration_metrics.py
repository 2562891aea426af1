"""Measures of error bars beyond the paper's: PIT, CRPS, sharpness, and the miscalibration area of many small groups.

What they take are standardised errors z = (truth − mean) / σ of Gaussian predictions, (N,) as `metrics.standardised`
returns them. Gneiting, Balabdaoui & Raftery (2007) give the principle: predictions should be as sharp as they can while
they stay calibrated.
"""

import numpy as np
from scipy import stats

from pnet.common.errors import DataError
from pnet.common.metrics import Estimate, central

STEPS = 99  # of a calibration curve: uncertainty-toolbox has 100 points
PIT_BINS = 20
RESAMPLES = 500
INVERSE_ROOT_PI = 1 / np.sqrt(np.pi)  # expected CRPS of a perfect Gaussian prediction in units of its σ


def pit(z: np.ndarray) -> np.ndarray:
    """Return the probability integral transform Φ(z): uniform on 0 to 1 when the prediction is right.

    A histogram that is high at both ends tells of error bars that are too small, a hill of ones that are too large, a
    slope of a bias (Dawid 1984).
    """
    return stats.norm.cdf(z)


def uniformity(z: np.ndarray) -> tuple[float, float]:
    """Test PIT values for uniformity by χ² over `PIT_BINS` equal bins.

    Returns
    -------
    chi2, p : float
        χ² per degree of freedom, about 1 where error bars are right, and the probability of so large a χ² if they are.
        A DataError for fewer than five values a bin: the χ² distribution does not hold.
    """
    if z.size < 5 * PIT_BINS:
        raise DataError(f"{z.size} values for {PIT_BINS} bins: the test needs at least 5 a bin")
    test = stats.chisquare(np.histogram(pit(z), PIT_BINS, (0, 1))[0])
    return float(test.statistic / (PIT_BINS - 1)), float(test.pvalue)


def crps(z: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return each star's continuous ranked probability score in the unit of σ; smaller is better.

    The closed form for a Gaussian, σ [z (2 Φ(z) − 1) + 2 φ(z) − 1/√π] (Gneiting & Raftery 2007, Eq. 21). It is the
    absolute error where σ vanishes; a perfect prediction has σ/√π on average.
    """
    return sigma * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - INVERSE_ROOT_PI)


def sharpness(sigma: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the root of the mean predicted variance, as uncertainty-toolbox defines sharpness."""
    return np.sqrt(np.mean(np.square(sigma), axis=axis))


def _counts(z: np.ndarray) -> np.ndarray:
    """Return how many stars each of the `STEPS` of the calibration curve adds."""
    smallest = 2 * stats.norm.cdf(np.abs(z)) - 1  # the narrowest central interval that holds the star
    step = np.searchsorted(np.linspace(0, 1, STEPS + 1), smallest, side="left") - 1
    return np.bincount(np.clip(step, 0, STEPS - 1), minlength=STEPS)


def _area(counts: np.ndarray) -> np.ndarray:
    """Return the area between calibration curves and the diagonal; (…, STEPS) counts.

    Of the polygon that uncertainty-toolbox hands to shapely: a step on one side of the diagonal is a trapezium, one
    that crosses it two triangles.
    """
    gap = np.cumsum(counts, axis=-1) / counts.sum(axis=-1, keepdims=True) - np.linspace(0, 1, STEPS + 1)[1:]
    gap = np.concatenate([np.zeros_like(gap[..., :1]), gap], axis=-1)
    a, b = np.abs(gap[..., :-1]), np.abs(gap[..., 1:])
    crossing = gap[..., :-1] * gap[..., 1:] < 0
    return np.where(crossing, (a**2 + b**2) / np.where(crossing, a + b, 1), a + b).sum(axis=-1) / (2 * STEPS)


def miscalibration_area(z: np.ndarray) -> float:
    """Area between the average calibration curve and the diagonal, as in uncertainty-toolbox; 0 to 0.5, NaN if empty.

    It depends only on how many stars each step of the curve adds, and hundreds of draws cannot wait for polygons.
    """
    return float(_area(_counts(z))) if z.size else np.nan


def miscalibration_floor(n: int, *, seed: int) -> float:
    """Mean miscalibration area of perfectly calibrated Gaussian predictions for n stars; NaN without any.

    No method can be expected to lie below it (0.0028 for the paper's 14,000 targets).
    """
    rng = np.random.default_rng(seed)
    return float(np.mean([miscalibration_area(rng.standard_normal(n)) for _ in range(50)]))


def miscalibration(z: np.ndarray, *, seed: int, by_star: bool = False) -> Estimate:
    """Return the miscalibration area with the percentile interval of a bootstrap over stars; NaN if empty.

    Resampled stars are multinomial counts of the curve's steps, which costs nothing for any number of groups, or, with
    `by_star`, drawn one by one: the same distribution from other random numbers, those of Table 2.
    """
    value, n, rng = miscalibration_area(z), z.size, np.random.default_rng(seed)
    if n < 5:
        return Estimate(value, n=n)
    if by_star:
        return Estimate(value, *central([miscalibration_area(z[i]) for i in rng.integers(0, n, (200, n))]), n)
    low, high = central(_area(rng.multinomial(n, _counts(z) / n, size=RESAMPLES)))
    # resampling adds noise, and noise adds area: near the floor the interval may lie above the value
    return Estimate(value, min(low, value), high, n)


def perfect(n: int, *, seed: int) -> Estimate:
    """Return the miscalibration area that perfect error bars have for n stars: mean and central 95 % range.

    Nothing can be expected to lie below the mean, and a group inside the range says nothing against its error bars.
    """
    if n < 1:
        return Estimate(np.nan)
    areas = _area(np.random.default_rng(seed).multinomial(n, np.full(STEPS, 1 / STEPS), size=2000))
    return Estimate(float(areas.mean()), *central(areas), n)
