"""Telling stars unlike those of training by the network's own ignorance: the epistemic part of the uncertainty."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pnet.common import metrics
from pnet.common.errors import DataError
from studies import recalibrations

QUANTILE = 0.99  # of the novelty of validation stars: beyond it a star is flagged
SMALLEST = 20  # validation stars of a magnitude bin


@dataclass
class Measured:
    """Stars with what the BPNN says of them; flat arrays, in magnitudes. `sigma` is recalibrated."""

    error: np.ndarray
    sigma: np.ndarray
    aleatoric: np.ndarray
    epistemic: np.ndarray
    limit: np.ndarray
    mean: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """Epistemic over aleatoric part: how far a star is from what the network knows."""
        return self.epistemic / self.aleatoric

    def __getitem__(self, chosen: np.ndarray) -> "Measured":
        return Measured(**{name: values[chosen] for name, values in vars(self).items()})

    @classmethod
    def joined(cls, parts: Iterable["Measured"]) -> "Measured":
        """Return the stars of several frames as one."""
        parts = list(parts)
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


@dataclass(frozen=True)
class Flag:
    """The rule that calls a star unlike those of training, from the ratio of epistemic to aleatoric part.

    The ratio of ordinary stars falls with magnitude (bright stars are rare in training and their noise is small), so
    it is compared with that of validation stars of the same predicted magnitude: its logarithm less their median, in
    units of their scatter, is the star's novelty. One threshold on the novelty is fixed on validation stars.

    Parameters
    ----------
    edges : tuple of float
        Inner edges of the magnitude bins.
    centres, spreads : tuple of float
        Median and robust scatter of ln(ratio) in each bin.
    threshold : float
        Novelty that `quantile` of the `n` validation stars stay below.
    quantity : {'ratio', 'sigma'}
        'sigma' judges by the whole uncertainty instead: where the noise itself looks strange, a network may say so in
        its aleatoric part.
    """

    edges: tuple[float, ...]
    centres: tuple[float, ...]
    spreads: tuple[float, ...]
    threshold: float
    quantile: float
    n: int
    quantity: str = "ratio"

    @classmethod
    def fit(cls, validation: Measured, quantity: str = "ratio") -> "Flag":
        """Fix the rule on validation stars.

        Raises
        ------
        DataError
            If they are so few that not one is expected beyond the threshold, or have no epistemic part.
        """
        n = len(validation.ratio)
        if n * (1 - QUANTILE) < 1:
            raise DataError(f"{n} validation stars do not fix a quantile of {QUANTILE:g}; give more validation frames")
        if not (validation.ratio > 0).all():
            raise DataError("validation stars have no epistemic part: a plain head knows nothing of its ignorance")
        bins = recalibrations.Bins.of(validation.mean, smallest=SMALLEST)
        logs = np.log(getattr(validation, quantity))
        centres = tuple(float(np.median(logs[members])) for members in bins.members)
        spreads = tuple(float(metrics.robust_scatter(logs[members])) for members in bins.members)
        rule = cls(bins.edges, centres, spreads, np.inf, QUANTILE, n, quantity)
        return dataclasses.replace(rule, threshold=float(np.quantile(rule.novelty(validation), QUANTILE)))

    def novelty(self, stars: Measured) -> np.ndarray:
        """Return how unusual each star's ratio (or σ) is for its magnitude."""
        index = np.searchsorted(self.edges, stars.mean, side="right")
        return (np.log(getattr(stars, self.quantity)) - np.array(self.centres)[index]) / np.array(self.spreads)[index]
