"""Catalogues of truth: their columns, and which sources count in the evaluation (the paper's section 2)."""

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from pnet.common.errors import DataError
from pnet.frame import Frame

COLUMNS = ("x", "y", "mag", "flux", "kind")
MAGNITUDES = (13.0, 20.0)  # range of the paper
ISOLATION = 10.0  # px to the nearest other source, as in the paper
EDGE = 10.0  # px to the edge of the frame, as in the paper


def mark_counted(
    table: pd.DataFrame,
    frame: Frame,
    *,
    magnitudes: tuple[float, float] = MAGNITUDES,
    isolation: float = ISOLATION,
    edge: float = EDGE,
) -> pd.DataFrame:
    """Return a copy of `table` with a column ``counted``.

    A source counts if it is a star within `magnitudes`, at least `edge` pixels from the edge, with no other row of
    `table` within `isolation` pixels, on a pixel that is not masked: the three criteria of the paper's section 2.
    Whatever does not count is excluded: a detection on it is neither true nor false.

    Parameters
    ----------
    table : DataFrame
        Columns ``x``, ``y`` (px from 0), ``mag``, ``flux`` (electrons), ``kind`` ('star' or 'galaxy').
    frame : Frame
    magnitudes : (float, float)
        Inclusive range.
    isolation, edge : float
        Pixels.

    Raises
    ------
    DataError
        If a column is missing.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise DataError(f"catalogue of {frame.name} lacks the columns {missing}; it has {list(table.columns)}")
    table = table.copy()
    x, y = table["x"].to_numpy(float), table["y"].to_numpy(float)
    height, width = frame.shape
    inside = (x >= edge) & (x <= width - 1 - edge) & (y >= edge) & (y <= height - 1 - edge)
    alone = np.ones(len(table), dtype=bool)
    if len(table) > 1:
        distance, _ = cKDTree(np.column_stack([x, y])).query(np.column_stack([x, y]), k=2)
        alone = distance[:, 1] >= isolation
    column = np.clip(np.rint(x).astype(int), 0, width - 1)
    row = np.clip(np.rint(y).astype(int), 0, height - 1)
    mag = table["mag"].to_numpy(float)
    in_range = (mag >= magnitudes[0]) & (mag <= magnitudes[1])
    table["counted"] = (table["kind"] == "star").to_numpy() & in_range & inside & alone & ~frame.mask[row, column]
    return table
