"""Catalogues of truth: their columns, and which sources count in the evaluation (the paper's section 2)."""

from collections.abc import Iterable

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
    contrast: float = np.inf,
) -> pd.DataFrame:
    """Return a copy of `table` with a column ``counted``.

    A source counts if it is a star within `magnitudes`, at least `EDGE` pixels from the edge, `isolated` among the rows
    of `table`, on a pixel that is not masked: the three criteria of the paper's section 2. Whatever does not count is
    excluded: a detection on it is neither true nor false.

    Parameters
    ----------
    table : DataFrame
        Columns ``x``, ``y`` (px from 0), ``mag``, ``flux`` (electrons), ``kind`` ('star' or 'galaxy').
    frame : Frame
    magnitudes : (float, float)
        Inclusive range.
    contrast : float
        See `isolated`.

    Raises
    ------
    DataError
        If a column is missing.
    """
    require(table, COLUMNS, f"catalogue of {frame.name}")
    x, y, mag = (table[name].to_numpy(float) for name in ("x", "y", "mag"))
    counted = (table["kind"] == "star").to_numpy() & (mag >= magnitudes[0]) & (mag <= magnitudes[1])
    alone = isolated(x, y, mag, contrast)
    return table.assign(counted=counted & alone & on_chip(x, y, frame.shape, frame.mask))


def isolated(x: np.ndarray, y: np.ndarray, mag: np.ndarray, contrast: float = np.inf) -> np.ndarray:
    """Return which sources have no neighbour nearer than `ISOLATION` px that counts against them, (N,) bool.

    Every neighbour does, or those less than `contrast` mag fainter: then a bright star excludes its faint neighbour and
    is not excluded by it. `x`, `y` and `mag` are (N,), in px and mag.
    """
    alone = np.ones(len(x), dtype=bool)
    places = np.column_stack([x, y])
    pairs = cKDTree(places).query_pairs(ISOLATION, output_type="ndarray") if len(x) else np.zeros((0, 2), int)
    pairs = pairs[np.hypot(*(places[pairs[:, 0]] - places[pairs[:, 1]]).T) < ISOLATION]
    for one, other in (pairs.T, pairs.T[::-1]):
        alone[one[~(mag[other] >= mag[one] + contrast)]] = False
    return alone


def on_chip(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], mask: np.ndarray | None) -> np.ndarray:
    """Return (N,) bool: which positions in px lie at least `EDGE` from the edge of a frame of `shape`, and on no pixel
    of its `mask` (H, W)."""
    height, width = shape
    inside = (x >= EDGE) & (x <= width - 1 - EDGE) & (y >= EDGE) & (y <= height - 1 - EDGE)
    if mask is not None:
        row, column = (np.clip(np.rint(at), 0, side - 1).astype(int) for at, side in ((y, height), (x, width)))
        inside &= ~mask[row, column]
    return inside


def require(table: pd.DataFrame, columns: Iterable[str], name: str) -> None:
    """Raise DataError if a table, called `name`, lacks one of the columns."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise DataError(f"{name}: column(s) {', '.join(missing)} missing; it has {', '.join(map(str, table.columns))}")
