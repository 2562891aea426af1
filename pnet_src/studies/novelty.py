"""Telling stars unlike those of training by the network's own ignorance: the epistemic part of the uncertainty."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from pnet.common import metrics
from pnet.common.errors import DataError
from studies import recalibrations

QUANTILE = 0.99  # of the novelty of validation stars: beyond it a star is flagged
SMALLEST = 20  # validation stars of a magnitude bin


@dataclass(frozen=True)
class Flag:
    """The rule that calls a star unlike those of training, from the ratio of epistemic to aleatoric part.

    The ratio of ordinary stars falls with magnitude (bright stars are rare in training and their noise is small), so
    it is compared with that of validation stars of the same predicted magnitude: its logarithm less their median, in
    units of their scatter, is the star's novelty. One threshold on the novelty is fixed on validation stars. The same
    rule on σ judges by the whole uncertainty: where the noise itself looks strange, a network may say so in its
    aleatoric part.

    Parameters
    ----------
    edges : tuple of float
        Inner edges of the magnitude bins.
    centres, spreads : tuple of float
        Median and robust scatter of ln(ratio) in each bin.
    threshold : float
        Novelty that `quantile` of the `n` validation stars stay below.
    """

    edges: tuple[float, ...]
    centres: tuple[float, ...]
    spreads: tuple[float, ...]
    threshold: float
    quantile: float
    n: int

    @classmethod
    def fit(cls, mean: np.ndarray, ratio: np.ndarray) -> "Flag":
        """Fix the rule on validation stars of predicted magnitudes `mean`, both (N,).

        Raises
        ------
        DataError
            If they are so few that not one is expected beyond the threshold, or have no epistemic part.
        """
        n = len(ratio)
        if n * (1 - QUANTILE) < 1:
            raise DataError(f"{n} validation stars do not fix a quantile of {QUANTILE:g}; give more validation frames")
        if not (ratio > 0).all():
            raise DataError("validation stars have no epistemic part: a plain head knows nothing of its ignorance")
        bins, logs = recalibrations.Bins.of(mean, smallest=SMALLEST), np.log(np.asarray(ratio))
        centres = tuple(float(np.median(logs[members])) for members in bins.members)
        spreads = tuple(float(metrics.robust_scatter(logs[members])) for members in bins.members)
        rule = cls(bins.edges, centres, spreads, np.inf, QUANTILE, n)
        return dataclasses.replace(rule, threshold=float(np.quantile(rule.novelty(mean, ratio), QUANTILE)))

    def novelty(self, mean: np.ndarray, ratio: np.ndarray) -> np.ndarray:
        """Return (N,), how unusual the ratio of each star of these predicted magnitudes is."""
        index = np.searchsorted(self.edges, mean, side="right")
        return (np.log(np.asarray(ratio)) - np.array(self.centres)[index]) / np.array(self.spreads)[index]
