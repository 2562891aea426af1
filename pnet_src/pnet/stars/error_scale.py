"""How predicted errors of single stars become true ones: a factor and a floor, fitted on validation stars."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy

from pnet.common.errors import DataError
from pnet.common.metrics import flat, toolbox

MIN_STARS = 20  # below it a fitted ratio is noise: its relative error is 1 / sqrt(2 n)
BOUNDS = (1e-2, 1e2)  # range of ratios searched, uncertainty-toolbox's own
MEDIAN = 0.6744897501960817  # of |z| of a Gaussian
OUTLIER = 9.0  # z²; beyond 3 σ a star says nothing of the others' errors
LOWEST_FLOOR = 1e-6  # px


@dataclass(frozen=True)
class ErrorScale:
    """σ → √((ratio σ)² + floor²).

    Parameters
    ----------
    ratio : float
    floor : float
        What no photon statistics knows of, in the unit of σ: for positions, how well a star can be placed on the pixel
        grid at all (SkyMaker's own resampling of its PSF moves stars by 0.0013 px).
    n : int
        Validation stars.
    data : str
        Which.
    """

    ratio: float = 1.0
    floor: float = 0.0
    n: int = 0
    data: str = ""

    def __call__(self, sigma: np.ndarray) -> np.ndarray:
        """Return the recalibrated standard deviations."""
        return np.hypot(self.ratio * np.asarray(sigma, dtype=float), self.floor)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a card."""
        return asdict(self)


def checked(mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    """Return predictions of validation stars and their truth as flat float arrays.

    Raises
    ------
    DataError
        If there are fewer than `MIN_STARS` stars, a value is not finite, or a σ is not positive.
    """
    mean, sigma, truth = flat(mean=mean, sigma=sigma, truth=truth)
    if (sigma <= 0).any():
        raise DataError(f"sigma: {int((sigma <= 0).sum())} values are not positive")
    if mean.size < MIN_STARS:
        raise DataError(f"recalibration needs at least {MIN_STARS} validation stars, got {mean.size}")
    return [mean, sigma, truth]


def best_ratio(mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray) -> float:
    """Return the factor on σ with the smallest miscalibration area, by uncertainty-toolbox (section 4.2).

    Raises
    ------
    DataError
        If half of the predictions equal the truth, or the factor lies outside 0.01 to 100.
    """
    # The search is local: start it from σ scaled to the observed spread, so that a factor of 50 is no obstacle.
    start = float(np.median(np.abs(truth - mean) / sigma) / MEDIAN)
    if not start > 0:
        raise DataError("half of the predictions equal the truth exactly: no ratio of σ can be fitted")
    ratio = start * toolbox().optimize_recalibration_ratio(
        mean, start * sigma, truth, criterion="miscal", optimizer_bounds=(0.2, 5.0)
    )
    if not BOUNDS[0] < ratio < BOUNDS[1]:
        raise DataError(f"the best ratio is {ratio:.3g}, outside {BOUNDS[0]} to {BOUNDS[1]}: check the units of σ")
    return float(ratio)


def fit(mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray, *, floor: bool, data: str) -> ErrorScale:
    """Fit the scale of an error to validation stars.

    Without a floor the ratio is that of the least miscalibration area (`best_ratio`); with one, both follow from the
    likelihood of the errors, those beyond 3 σ capped.

    Raises
    ------
    DataError
        As from `checked` and `best_ratio`.
    """
    mean, sigma, truth = checked(mean, sigma, truth)
    ratio = best_ratio(mean, sigma, truth)
    if not floor:
        return ErrorScale(ratio, 0.0, mean.size, data)
    square = (truth - mean) ** 2

    def loss(logs: np.ndarray) -> float:
        variance = (np.exp(logs[0]) * sigma) ** 2 + np.exp(2 * logs[1])
        return float(np.mean(np.minimum(square / variance, OUTLIER) + np.log(variance)))

    start = [np.log(ratio), np.log(np.quantile(sigma, 0.05))]
    found = scipy.optimize.minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-8})
    if not found.success:
        raise DataError(f"ratio and floor of {data} could not be fitted: {found.message}")
    smallest = float(np.exp(found.x[1]))
    return ErrorScale(float(np.exp(found.x[0])), smallest if smallest > LOWEST_FLOOR else 0.0, mean.size, data)


class Scales(dict):
    """Scales by target; one that is missing changes nothing."""

    def __missing__(self, target: str) -> ErrorScale:
        return ErrorScale()


def scales_of(card: dict[str, Any]) -> Scales:
    """Return the scales of the errors, by target, that a card of a network of single stars gives."""
    return Scales({name: ErrorScale(**fitted) for name, fitted in (card.get("recalibration") or {}).items()})
