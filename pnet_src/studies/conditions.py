"""Do the error bars hold in bad seeing and among neighbours? Calibration of PNet's magnitudes by both."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from pnet.common.seeds import derive
from pnet.evaluation import error_bars, scores
from pnet.evaluation.error_bars import Group
from pnet.evaluation.ledger import Entry, entries_of

GROUPS = ("mag", "seeing", "crowding")  # the first is `error_bars.bins`
NEAR, FAR = 10.0, 30.0  # px; nearer neighbours exclude a star, farther ones leave no light in its stamp
CROWDED = ("no neighbour", "one neighbour", "two neighbours or more")


def neighbours(table: pd.DataFrame) -> np.ndarray:
    """Return for every row how many other catalogue sources lie within 10 to 30 px of its own; −1 without a source.

    Parameters
    ----------
    table : DataFrame
        All rows of one method on one data set: those that do not count are neighbours too.
    """
    found = np.full(len(table), -1)
    rows = table.reset_index(drop=True)
    sources = rows[rows["truth_x"].notna()]
    for _, frame in sources.groupby("frame"):
        positions = frame[["truth_x", "truth_y"]].to_numpy(dtype=float)
        tree = cKDTree(positions)
        far, near = (tree.query_ball_point(positions, radius, return_length=True) for radius in (FAR, NEAR))
        found[frame.index] = far - near
    return found


def groups(table: pd.DataFrame, dataset: str) -> tuple[pd.DataFrame, list[Group]]:
    """Return PNet's stars, and key (``seeing.1.4``, ``crowding.2``), label and members of every class.

    Where all stars share one seeing or one class of crowding this is no group.
    """
    rows = scores.rows(table, dataset, "pnet")
    stars = error_bars.stars_of(rows.assign(crowding=neighbours(rows)), dataset)
    seeing = stars["seeing"].to_numpy(dtype=float).round(1)
    crowding = np.minimum(stars["crowding"].to_numpy(), len(CROWDED) - 1)
    found: list[Group] = []
    seen = np.unique(seeing[np.isfinite(seeing)])
    if len(seen) > 1:
        found += [(f"seeing.{value:.1f}", f"seeing {value:.1f}″", seeing == value) for value in seen]
    if len(np.unique(crowding)) > 1:
        found += [(f"crowding.{n}", f"{name} within 10 to 30 px", crowding == n) for n, name in enumerate(CROWDED)]
    return stars, found


def entries(table: pd.DataFrame, dataset: str, seed: int, record: Mapping[str, Any], source: str) -> list[Entry]:
    """Return the ledger's entries, ``<data set>.pnet.<what>.<group>`` with what `error_bars.by_group` gives.

    Parameters
    ----------
    table : DataFrame
        Measurements (`measurements.COLUMNS`).
    seed : int
        Of the bootstrap intervals, as for `entries_from_measurements`.
    record : mapping
        The JSON beside the measurements.
    source : {"live", "released"}
    """
    stars, found = groups(table, dataset)
    own = derive(seed, "bootstrap", dataset, "pnet", "calibration")
    return entries_of(error_bars.by_group(stars, found, own), f"{dataset}.pnet", source, record)
