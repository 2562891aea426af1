"""Detection: precision, recall, average precision (Table 1, Figure 6)."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pnet.common import metrics
from pnet.common.metrics import Estimate
from pnet.evaluation import contaminants, scores
from pnet.evaluation.measurements import THRESHOLDS
from pnet.evaluation.scores import Score
from pnet.sky import catalogue, matching


def compute(table: pd.DataFrame, dataset: str, method: str, seed: int, record: Mapping[str, Any]) -> dict[str, Score]:
    """Return precision, recall and average precision; on frames with galaxies the precisions of `contaminants` too."""
    at = scores.working(table, dataset, method)
    precision, recall = scores.rates(at)
    true = int((at["status"] == matching.MATCHED).sum())
    false = int((at["status"] == matching.FALSE).sum() + on_contaminants(at).sum())
    label = f"confidence ≥ {THRESHOLDS[method]:g}" if THRESHOLDS[method] else "all detections"
    found = {
        "precision": (precision, f"precision, {label}"),
        "recall": (recall, f"recall, {label}"),
        "precision_strict": (
            metrics.precision(true, false),
            f"precision, {label}; galaxies and stars outside 13–20 mag count as false",
        ),
    }
    if dataset == "realistic":  # the main precision takes the place of the simple frames'
        rates = contaminants.rates(scores.select(table, dataset, method))
        found |= {
            name: (rates[name], f"precision, {label}; {title}") for name, title in contaminants.PRECISIONS.items()
        }
    *confidences, n_sources = scores.curve_input(table)
    if n_sources:
        curve = metrics.precision_recall_curve(*confidences, n_sources)[:2]
        for key, how in (("ap", "envelope"), ("ap_step", "step")):
            value = Estimate(metrics.average_precision(*curve, how), n=n_sources)
            found[key] = (value, f"average precision ({how})")
    return {name: Score(estimate, title, limit=1.0) for name, (estimate, title) in found.items()}


def on_contaminants(table: pd.DataFrame) -> pd.Series:
    """Return where a detection fell on something that is no star of 13–20 mag: a galaxy, a fainter or brighter star."""
    wanted = (table["truth_kind"] == "star") & table["truth_mag"].between(*catalogue.MAGNITUDES)
    return (table["status"] == matching.IGNORED) & table["x"].notna() & table["truth_x"].notna() & ~wanted
