"""Detection: precision, recall, average precision (Table 1, Figure 6)."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from scipy.spatial import cKDTree

from pnet.common import metrics
from pnet.common.metrics import Estimate
from pnet.evaluation import contaminants, scores
from pnet.evaluation.measurements import THRESHOLDS
from pnet.evaluation.scores import Score
from pnet.sky import catalogue, matching

PAIRS = (10.0, 3.0)  # px; nearer stars are not isolated, and nearer ones still lie in each other's core


def compute(table: pd.DataFrame, dataset: str, method: str, seed: int, record: Mapping[str, Any]) -> dict[str, Score]:
    """Return precision, recall and average precision; on frames with galaxies the precisions of `contaminants` too."""
    at, selected = scores.working(table, dataset, method), scores.select(table, dataset, method)
    precision, recall = scores.rates(at)
    true, false = (int((at["status"] == name).sum()) for name in (matching.MATCHED, matching.FALSE))
    label = f"confidence ≥ {THRESHOLDS[method]:g}" if THRESHOLDS[method] else "all detections"
    strict = "galaxies and stars outside 13–20 mag count as false"
    found = {
        "precision": (precision, f"precision, {label}"),
        "recall": (recall, f"recall, {label}"),
        "precision_strict": (metrics.precision(true, false + _on_contaminants(at)), f"precision, {label}; {strict}"),
    }
    if dataset == "realistic":  # the main precision takes the place of the simple frames'
        rates = contaminants.rates(selected)
        for name, title in contaminants.PRECISIONS.items():
            found[name] = (rates[name], f"precision, {label}; {title}")
    if dataset in scores.CALIBRATED:
        strict = metrics.precision(true, false + _bright_galaxies(selected))
        title = f"precision, {label}; {contaminants.PRECISIONS['precision']}"
        found["precision_bright_galaxies_false"] = (strict, title)
    if dataset == "simulation":
        for separation in PAIRS:
            title = f"recall, {label}, of stars with another nearer than {separation:g} px"
            found[f"recall_pairs_{separation:g}"] = (recall_of_pairs(at, separation), title)
    *confidences, n_sources = scores.curve_input(table)
    if n_sources:
        curve = metrics.precision_recall_curve(*confidences, n_sources)[:2]
        for key, how in (("ap", "envelope"), ("ap_step", "step")):
            value = Estimate(metrics.average_precision(*curve, how), n=n_sources)
            found[key] = (value, f"average precision ({how})")
    return {name: Score(estimate, title, limit=1.0) for name, (estimate, title) in found.items()}


def _on_contaminants(table: pd.DataFrame) -> int:
    """Return how many detections fell on something that is no star of 13–20 mag, such as a galaxy."""
    wanted = (table["truth_kind"] == "star") & table["truth_mag"].between(*catalogue.MAGNITUDES)
    return int(((table["status"] == matching.IGNORED) & table[["x", "truth_x"]].notna().all(axis=1) & ~wanted).sum())


def _bright_galaxies(table: pd.DataFrame) -> int:
    """Return how many galaxies a method lists as stars of the catalogue's range: measured brighter than 20 mag."""
    galaxy = (table["status"] == matching.IGNORED) & (table["truth_kind"] == "galaxy")
    return int((galaxy & table["x"].notna() & (table["mag"] < catalogue.MAGNITUDES[1])).sum())


def recall_of_pairs(table: pd.DataFrame, separation: float) -> Estimate:
    """Return the share of the stars with another source nearer than `separation` px that are found.

    Such stars do not count elsewhere, being not isolated. Stars in the border are left out. `table` holds one method's
    measurements of whole simulated frames, at a threshold.
    """
    found = stars = 0
    for _, frame in table[table["truth_x"].notna()].groupby("frame"):
        places = frame[["truth_x", "truth_y"]].to_numpy()
        if len(places) > 1:
            near = cKDTree(places).query(places, k=2)[0][:, 1] < separation
            near &= contaminants.inside(frame, "truth_x", "truth_y").to_numpy()
            found, stars = found + int(frame["x"].notna()[near].sum()), stars + int(near.sum())
    return metrics.rate(found, stars)
