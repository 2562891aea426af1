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

from pnet.common.errors import ConfigError, DataError

METHODS = ("platt", "isotonic")
KEY = "confidence_calibration"  # the card's field


@dataclass(frozen=True)
class Calibration:
    """A fitted map from confidence to the probability that a detection is a star.

    Parameters
    ----------
    method : {"platt", "isotonic"}
        logit p = slope · logit c + intercept (Platt 1999), or any rising map (Zadrozny & Elkan 2002).
    n, n_stars : int
        Detections it was fitted on, and how many of them are stars.
    slope, intercept : float
        Of "platt".
    knots, values : tuple of float
        Of "isotonic": confidences, rising, and the probabilities there; straight lines between.
    threshold : float, optional
        Confidence that was chosen for fields with galaxies, see `pnet.evaluation.contaminants.choose_threshold`.
    data : str
        What it was fitted on.
    """

    method: str
    n: int
    n_stars: int
    slope: float = 1.0
    intercept: float = 0.0
    knots: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    threshold: float | None = None
    data: str = ""

    def __post_init__(self):
        if self.method not in METHODS:
            raise ConfigError(f"method is {self.method!r}, allowed are {', '.join(METHODS)}")
        if not (np.isfinite([self.slope, self.intercept]).all() and self.slope > 0):
            raise DataError(f"slope is {self.slope}, intercept {self.intercept}: a rising map is needed")
        rising = len(self.knots) == len(self.values) and all(
            np.diff(each).min(initial=0.0) >= 0 for each in (self.knots, self.values)
        )
        if self.method == "isotonic" and not (rising and len(self.knots)):
            raise DataError("an isotonic map needs the same number (1 or more) of knots and values, both rising")

    def apply(self, confidence: np.ndarray) -> np.ndarray:
        """Return the probability that detections of these confidences are stars; NaN stays NaN."""
        confidence = np.asarray(confidence, dtype=float)
        if self.method == "isotonic":
            return np.where(np.isnan(confidence), np.nan, np.interp(confidence, self.knots, self.values))
        return scipy.special.expit(self.slope * logit(confidence) + self.intercept)

    def as_dict(self) -> dict[str, Any]:
        """Return what a card keeps."""
        return {name: value for name, value in asdict(self).items() if value != ()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Calibration":
        """Return the calibration that `as_dict` described; what else a card says beside it is left out.

        Raises
        ------
        DataError
            If a value is missing or of another kind.
        """
        try:
            values = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
            values |= {name: tuple(map(float, values[name])) for name in ("knots", "values") if name in values}
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{KEY} is not a calibration of the confidence: {error!r}") from error


def of_card(card: Mapping[str, Any]) -> Calibration | None:
    """Return the calibration on a detection net's card, None where it has none."""
    return Calibration.from_dict(card[KEY]) if card.get(KEY) else None


def logit(confidence: np.ndarray) -> np.ndarray:
    """Return ln(c / (1 − c)), bounded: single precision rounds the most certain detections to exactly 1."""
    return scipy.special.logit(np.clip(confidence, 1e-6, 1 - 1e-6))
