"""Numbers of the confidence for the ledger: its calibration error, and the rates at the threshold chosen with it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pnet.common.metrics import Estimate
from pnet.evaluation import contaminants as realistic
from pnet.evaluation import scores
from pnet.evaluation.scores import Score
from pnet.sky import matching
from pnet.stars import confidence
from pnet.stars.confidence import Calibration, Reliability

WHOLE = np.linspace(0.0, 1.0, 11)  # bins of a probability, which has no floor


def pair(rows: pd.DataFrame, calibration: Calibration | None, *, seed: int) -> tuple[Reliability, Reliability | None]:
    """Return the reliability of the confidence and of the calibrated probability (None without a calibration).

    Parameters
    ----------
    rows : DataFrame
        PNet's measurements on one simulated data set (`evaluation.COLUMNS`).
    calibration : Calibration, optional
    seed : int
        Of the bootstrap intervals.
    """
    known = confidence.label(rows)
    values, star = known["confidence"].to_numpy(), known["is_star"].to_numpy()
    before = confidence.reliability(values, star, seed=seed)
    if calibration is None:
        return before, None
    return before, confidence.reliability(calibration.apply(values), star, seed=seed, edges=WHOLE)


def compute(rows: pd.DataFrame, dataset: str, seed: int, calibration: Mapping[str, Any] | None) -> dict[str, Score]:
    """Return the calibration errors and, on frames with galaxies, the rates at the chosen threshold.

    Parameters
    ----------
    rows : DataFrame
        As for `pair`.
    calibration : mapping, optional
        The field `confidence.KEY` of the card of the net that measured.
    """
    fitted = Calibration.from_dict(calibration) if calibration else None
    before, after = pair(rows, fitted, seed=seed)
    if not before.error.n:
        return {}
    found = {
        "confidence_error": Score(before.error, "expected calibration error of the confidence", limit=0.0),
        "confidence_brier": Score(Estimate(before.brier, n=before.error.n), "Brier score of the confidence"),
    }
    if after is not None:
        title = "expected calibration error of the calibrated probability"
        found |= {
            "probability_error": Score(after.error, title, limit=0.0),
            "probability_brier": Score(Estimate(after.brier, n=after.error.n), "Brier score of the probability"),
        }
    if dataset != "realistic" or fitted is None or fitted.threshold is None:
        return found
    threshold = fitted.threshold
    at = realistic.rates(matching.at_threshold(scores.rows(rows, dataset, "pnet"), threshold))
    label = f"confidence ≥ {threshold:g}, chosen on validation frames"
    titles = {
        "precision": f"precision, {label}; galaxies measured brighter than 20 mag count as false",
        "precision_galaxies_ignored": f"precision, {label}; detections on galaxies left out",
        "precision_all_galaxies": f"precision, {label}; all galaxies count as false",
        "recall": f"recall, {label}",
    }
    found["threshold_chosen"] = Score(Estimate(threshold, n=fitted.n), "threshold chosen on validation frames")
    return found | {f"{name}_at_chosen": Score(at[name], title, limit=1.0) for name, title in titles.items()}
