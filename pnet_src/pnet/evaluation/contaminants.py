"""Frames with galaxies and faint stars: which stars count there, and which detections are false.

The paper's simulation holds stars of 13 to 20 mag alone. A real field also holds stars too faint for the catalogue
and galaxies, and its list goes deeper than any detection. Two rules of the simple frames do not fit any more:

Isolation. Nearly every star has some source of 22 mag within 10 px. Here a neighbour within 10 px excludes a star only
if it has more than a tenth of its light (is less than `CONTRAST` mag fainter); what is fainter is background.

False detections. On the simple frames whatever is found on a source that does not count is left out. Here galaxies are
the contaminants that the frames exist for. The figures, from lenient to strict, all with the same true detections:

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
from pnet.frame import Frame
from pnet.simulation.recipe import Recipe
from pnet.sky import catalogue, matching

PRECISIONS = {
    "precision": "galaxies measured brighter than 20 mag count as false",
    "precision_galaxies_ignored": "detections on galaxies left out",
    "precision_all_galaxies": "all galaxies count as false",
}
CONTRAST = 2.5  # mag; a neighbour fainter than a source by more does not exclude it: a tenth of its light
STEPS = np.round(np.arange(0.05, 0.991, 0.01), 2)  # thresholds that are tried


def isolated(x: np.ndarray, y: np.ndarray, mag: np.ndarray) -> np.ndarray:
    """Return which sources have no neighbour within 10 px that is less than `CONTRAST` mag fainter, (N,) bool.

    A bright star excludes its faint neighbour and is not excluded by it.
    """
    x, y, mag = metrics.flat(x=x, y=y, mag=mag)
    alone = np.ones(len(x), dtype=bool)
    if len(x) > 1:
        pairs = cKDTree(np.column_stack([x, y])).query_pairs(catalogue.ISOLATION, output_type="ndarray")
        for one, other in (pairs.T, pairs.T[::-1]):
            alone[one[mag[other] < mag[one] + CONTRAST]] = False
    return alone


def inside(rows: pd.DataFrame, x: str, y: str) -> pd.Series:
    """Return where a position on a simulated frame, of the columns `x` and `y`, lies outside the border of 10 px."""
    ends = catalogue.EDGE, Recipe.load().size - 1 - catalogue.EDGE
    return rows[x].between(*ends) & rows[y].between(*ends)


def mark_counted(table: pd.DataFrame, frame: Frame) -> pd.DataFrame:
    """As `catalogue.mark_counted`, but only neighbours with more than a tenth of its light exclude a star."""
    table = catalogue.mark_counted(table, frame, isolation=0.0)
    table["counted"] &= isolated(table["x"], table["y"], table["mag"])
    return table


def on_galaxies(rows: pd.DataFrame) -> pd.Series:
    """Return where a detection lies on a galaxy that is isolated and not at the edge.

    `rows` are measurements of one method on whole simulated frames: with several (DataError) every source would be its
    own neighbour.
    """
    if rows["method"].nunique() > 1:
        raise DataError(f"rows of {rows['method'].nunique()} methods were given, one at a time is needed")
    alone = pd.Series(False, index=rows.index)
    for _, each in rows[rows["truth_x"].notna()].groupby("frame", sort=False):
        alone[each.index] = isolated(each["truth_x"], each["truth_y"], each["truth_mag"])
    return (rows["truth_kind"] == "galaxy") & rows["x"].notna() & alone & inside(rows, "truth_x", "truth_y")


def rates(rows: pd.DataFrame, threshold: float = -np.inf, galaxies: pd.Series | None = None) -> dict[str, Estimate]:
    """Return the recall and the precisions of the module's head, of detections from a threshold of confidence on.

    `rows` are one method's on whole frames, with the classical methods' constant magnitude offset taken off;
    `galaxies` is as from `on_galaxies`, where it is known.
    """
    galaxies = on_galaxies(rows) if galaxies is None else galaxies
    status, kept = rows["status"], rows["confidence"] >= threshold
    true, false = (int((kept & (status == name)).sum()) for name in (matching.MATCHED, matching.FALSE))
    stars = int(status.isin([matching.MATCHED, matching.MISSED]).sum())
    listed = kept & galaxies & (rows["mag"] < catalogue.MAGNITUDES[1])
    return {
        "recall": metrics.recall(true, stars - true),
        "precision": metrics.precision(true, false + int(listed.sum())),
        "precision_galaxies_ignored": metrics.precision(true, false),
        "precision_all_galaxies": metrics.precision(true, false + int((kept & galaxies).sum())),
    }


def sweep(rows: pd.DataFrame, thresholds: np.ndarray = STEPS) -> pd.DataFrame:
    """Return precision and recall of `rates` for several thresholds of the confidence, a row each.

    Columns are threshold, precision, precision_low, precision_high, recall, recall_low, recall_high.
    """
    found, galaxies = [], on_galaxies(rows)
    for threshold in thresholds:
        at, row = rates(rows, threshold, galaxies), {"threshold": float(threshold)}
        for name in ("precision", "recall"):
            row |= {name: at[name].value, f"{name}_low": at[name].low, f"{name}_high": at[name].high}
        found.append(row)
    return pd.DataFrame(found)


def choose_threshold(rows: pd.DataFrame) -> float:
    """Return the threshold of the confidence with the largest F1, in the middle of the best ones where several tie.

    F1 = 2 · precision · recall / (precision + recall) with the main precision. For validation frames only: on frames
    that are reported on, a chosen threshold flatters. A DataError where no star was found at any threshold.
    """
    table = sweep(rows)
    f1 = 2 * table["precision"] * table["recall"] / (table["precision"] + table["recall"])
    if not f1.notna().any():
        raise DataError("no threshold can be chosen: these frames hold no star that counts and was found")
    best = np.flatnonzero(np.isclose(f1, f1.max(), atol=1e-12))
    return float(table["threshold"].iloc[best[len(best) // 2]])
