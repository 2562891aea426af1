"""Detection: precision, recall, average precision (Table 1, Figure 6), and a threshold for frames with galaxies.

The paper's simulation holds stars of 13 to 20 mag alone. A real field also holds stars too faint for the catalogue
and galaxies, and its list goes deeper than any detection. Two rules of the simple frames do not fit any more:

Isolation. Nearly every star has some source of 22 mag within 10 px. There a neighbour within 10 px excludes a star only
if it has more than a tenth of its light (is less than `frames.CONTRAST` mag fainter); what is fainter is background.

False detections. On the simple frames whatever is found on a source that does not count is left out. On frames with
galaxies these are the contaminants that the frames exist for. The figures, from lenient to strict, all with the same
true detections:

- ``precision_galaxies_ignored``: false is what lies on nothing, the rule of the simple frames;
- ``precision`` (the main one): false are also detections on galaxies that the method measured brighter than 20 mag, so
  that they enter a catalogue of stars of 13 to 20 mag;
- ``precision_all_galaxies``: false are also those on galaxies which the method itself measured fainter;
- ``precision_strict``: false is also what lies on a star outside 13 to 20 mag, though it is a star.

A galaxy that overlaps a star, by the same rules of edge and isolation, is neither right nor wrong.
"""

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from pnet.common import metrics
from pnet.common.errors import DataError
from pnet.common.metrics import Estimate
from pnet.evaluation import scores
from pnet.evaluation.frames import CONTRAST
from pnet.evaluation.measurements import THRESHOLDS
from pnet.evaluation.scores import Sample, Score
from pnet.simulation.recipe import Recipe
from pnet.sky import catalogue, matching

PRECISIONS = {
    "precision": "galaxies measured brighter than 20 mag count as false",
    "precision_galaxies_ignored": "detections on galaxies left out",
    "precision_all_galaxies": "all galaxies count as false",
}
STRICT = "galaxies and stars outside 13–20 mag count as false"
PAIRS = (10.0, 3.0)  # px; nearer stars are not isolated, and nearer ones still lie in each other's core
STEPS = np.round(np.arange(0.05, 0.991, 0.01), 2)  # thresholds that are tried


def compute(sample: Sample) -> dict[str, Score]:
    """Return precision, recall and average precision; where there are galaxies the stricter precisions too."""
    at, threshold = sample.selected, THRESHOLDS[sample.method]
    label = f"confidence ≥ {threshold:g}" if threshold else "all detections"
    precision, recall = scores.rates(at)
    on_ignored = (at["status"] == matching.IGNORED) & at[["x", "truth_x"]].notna().all(axis=1)
    star = (at["truth_kind"] == "star") & at["truth_mag"].between(*catalogue.MAGNITUDES)
    found = {"precision": (precision, f"precision, {label}"), "recall": (recall, f"recall, {label}")}
    found["precision_strict"] = (_stricter(at, on_ignored & ~star), f"precision, {label}; {STRICT}")
    if sample.dataset == "realistic":  # the main precision takes the place of the simple frames'
        at_all = rates(at)
        found |= {name: (at_all[name], f"precision, {label}; {title}") for name, title in PRECISIONS.items()}
    if sample.dataset in scores.CALIBRATED:
        listed = on_ignored & (at["truth_kind"] == "galaxy") & (at["mag"] < catalogue.MAGNITUDES[1])
        title = f"precision, {label}; {PRECISIONS['precision']}"
        found["precision_bright_galaxies_false"] = (_stricter(at, listed), title)
    for separation in PAIRS if sample.dataset == "simulation" else ():
        title = f"recall, {label}, of stars with another nearer than {separation:g} px"
        found[f"recall_pairs_{separation:g}"] = (recall_of_pairs(at, separation), title)
    *confidences, n_sources = scores.curve_input(sample.rows)
    if n_sources:
        curve = metrics.precision_recall_curve(*confidences, n_sources)[:2]
        for key, how in (("ap", "envelope"), ("ap_step", "step")):
            area = metrics.average_precision(*curve, how)
            found[key] = (Estimate(area, n=n_sources), f"average precision ({how})")
    return {name: Score(estimate, title, limit=1.0) for name, (estimate, title) in found.items()}


def _stricter(rows: pd.DataFrame, false_too: pd.Series) -> Estimate:
    """Return the precision if some more detections, (N,) bool, are false."""
    true, false, _ = scores.curve_input(rows)
    return metrics.rate(len(true), len(true) + len(false) + int(false_too.sum()))


def inside(rows: pd.DataFrame, x: str, y: str) -> pd.Series:
    """Return where a position on a simulated frame, of the columns `x` and `y`, lies outside the border of 10 px."""
    ends = catalogue.EDGE, Recipe.load().size - 1 - catalogue.EDGE
    return rows[x].between(*ends) & rows[y].between(*ends)


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
            near &= inside(frame, "truth_x", "truth_y").to_numpy()
            found, stars = found + int(frame["x"].notna()[near].sum()), stars + int(near.sum())
    return metrics.rate(found, stars)


def on_galaxies(rows: pd.DataFrame) -> pd.Series:
    """Return where a detection lies on a galaxy that is isolated and not at the edge.

    `rows` are measurements of one method on whole simulated frames: with several (DataError) every source would be its
    own neighbour.
    """
    if rows["method"].nunique() > 1:
        raise DataError(f"rows of {rows['method'].nunique()} methods were given, one at a time is needed")
    alone = pd.Series(False, index=rows.index)
    for _, each in rows[rows["truth_x"].notna()].groupby("frame", sort=False):
        alone[each.index] = catalogue.isolated(*each[["truth_x", "truth_y", "truth_mag"]].to_numpy(float).T, CONTRAST)
    return (rows["truth_kind"] == "galaxy") & rows["x"].notna() & alone & inside(rows, "truth_x", "truth_y")


def rates(rows: pd.DataFrame, threshold: float = -np.inf, galaxies: pd.Series | None = None) -> dict[str, Estimate]:
    """Return the recall and the precisions of the module's head, of detections from a threshold of confidence on.

    `rows` are one method's on whole frames, with the classical methods' constant magnitude offset taken off;
    `galaxies` is as from `on_galaxies`, where it is known.
    """
    galaxies = on_galaxies(rows) if galaxies is None else galaxies
    stars = int(rows["status"].isin([matching.MATCHED, matching.MISSED]).sum())
    kept = rows[rows["confidence"] >= threshold]
    galaxies = galaxies[kept.index]
    true = int((kept["status"] == matching.MATCHED).sum())
    return {
        "recall": metrics.rate(true, stars),
        "precision": _stricter(kept, galaxies & (kept["mag"] < catalogue.MAGNITUDES[1])),
        "precision_galaxies_ignored": _stricter(kept, galaxies & False),
        "precision_all_galaxies": _stricter(kept, galaxies),
    }


def sweep(rows: pd.DataFrame, thresholds: np.ndarray = STEPS) -> pd.DataFrame:
    """Return `rates`, columns of estimates, for several thresholds of the confidence, the index."""
    galaxies = on_galaxies(rows)
    return pd.DataFrame([rates(rows, threshold, galaxies) for threshold in thresholds], index=thresholds)


def choose_threshold(rows: pd.DataFrame) -> float:
    """Return the threshold of the confidence with the largest F1, in the middle of the best ones where several tie.

    F1 = 2 · precision · recall / (precision + recall) with the main precision. For validation frames only: on frames
    that are reported on, a chosen threshold flatters. A DataError where no star was found at any threshold.
    """
    table = sweep(rows)
    precision, recall = (table[name].map(lambda rate: rate.value) for name in ("precision", "recall"))
    f1 = 2 * precision * recall / (precision + recall)
    if not f1.notna().any():
        raise DataError("no threshold can be chosen: these frames hold no star that counts and was found")
    best = np.flatnonzero(np.isclose(f1, f1.max(), atol=1e-12))
    return float(table.index[best[len(best) // 2]])
