"""How predicted errors of single stars become true ones: a factor and a floor, fitted on validation stars."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import optimize

from pnet.common.errors import DataError
from pnet.common.metrics import flat
from pnet.stars import recalibration

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


def fit(mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray, *, floor: bool, data: str) -> ErrorScale:
    """Fit the scale of an error to validation stars.

    Without a floor the ratio is that of the least miscalibration area (uncertainty-toolbox, through
    `pnet.stars.recalibration`); with one, both follow from the likelihood of the errors, those beyond 3 σ capped.

    Raises
    ------
    DataError
        If there are fewer than `recalibration.MIN_STARS` stars or a σ is not positive.
    """
    mean, sigma, truth = flat(mean=mean, sigma=sigma, truth=truth)
    ratio = recalibration.fit(mean, sigma, truth, data=data).ratio
    if not floor:
        return ErrorScale(ratio, 0.0, mean.size, data)
    square = (truth - mean) ** 2

    def loss(logs: np.ndarray) -> float:
        variance = (np.exp(logs[0]) * sigma) ** 2 + np.exp(2 * logs[1])
        return float(np.mean(np.minimum(square / variance, OUTLIER) + np.log(variance)))

    start = [np.log(ratio), np.log(np.quantile(sigma, 0.05))]
    found = optimize.minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-8})
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
