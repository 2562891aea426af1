"""The map from a detection's confidence to the probability that it is a star, as the card of a detection net holds it.

The detection net gives every detection a confidence between 0 and 1, a peak of a map that was trained to be 1 on
stars and to fall off around them (Eq. 19). Nothing makes 0.8 of it mean that 80 % of such detections are stars; a
rising map that was fitted to validation frames (`pnet.evaluation.confidence`) does.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy

from pnet.common.errors import DataError

KEY = "confidence_calibration"  # the card's field


@dataclass(frozen=True)
class Calibration:
    """A fitted map from confidence c to the probability p that a detection is a star (Platt 1999).

    logit p = slope · logit c + intercept.

    Parameters
    ----------
    n, n_stars : int
        Detections it was fitted on, and how many of them are stars.
    slope, intercept : float
    threshold : float, optional
        Confidence that was chosen for fields with galaxies, see `pnet.evaluation.detections.choose_threshold`.
    data : str
        What it was fitted on.
    """

    n: int
    n_stars: int
    slope: float
    intercept: float
    threshold: float | None = None
    data: str = ""

    def __post_init__(self):
        if not (np.isfinite([self.slope, self.intercept]).all() and self.slope > 0):
            raise DataError(f"slope is {self.slope}, intercept {self.intercept}: a rising map is needed")

    def apply(self, confidence: np.ndarray) -> np.ndarray:
        """Return the probability that detections of these confidences are stars; NaN stays NaN."""
        return scipy.special.expit(self.slope * logit(np.asarray(confidence, dtype=float)) + self.intercept)

    def as_dict(self) -> dict[str, Any]:
        """Return what a card keeps."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Calibration":
        """Return the calibration that `as_dict` described; what else a card says beside it is left out.

        Raises
        ------
        DataError
            If a value is missing or of another kind.
        """
        try:
            return cls(**{name: content[name] for name in cls.__dataclass_fields__ if name in content})
        except (TypeError, ValueError) as error:
            raise DataError(f"{KEY} is not a calibration of the confidence: {error!r}") from error


def of_card(card: Mapping[str, Any]) -> Calibration | None:
    """Return the calibration on a detection net's card, None where it has none."""
    return Calibration.from_dict(card[KEY]) if card.get(KEY) else None


def logit(confidence: np.ndarray) -> np.ndarray:
    """Return ln(c / (1 − c)), bounded: single precision rounds the most certain detections to exactly 1."""
    return scipy.special.logit(np.clip(confidence, 1e-6, 1 - 1e-6))
