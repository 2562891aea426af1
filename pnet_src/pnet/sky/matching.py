"""One-to-one matching of detections with catalogue sources (paper, Eq. 2) and what follows for every row."""

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from pnet.common.errors import ConfigError, DataError

RADIUS = 2.0  # px; "within a certain threshold" of Eq. 2, DESIGN section 5
EDGE = 10.0  # px; the paper's border in which no star is counted

MATCHED, MISSED, FALSE, IGNORED = "matched", "missed", "false", "ignored"
TRUTH_COLUMNS = ("x", "y", "mag", "flux", "kind")
MEASURED_COLUMNS = (
    "x", "y", "x_err", "y_err", "confidence", "flux", "mag", "mag_err", "mag_aleatoric", "mag_epistemic", "mag_net",
    "mag_net_err", "x_bpnn", "y_bpnn", "x_bpnn_err", "y_bpnn_err", "x_det", "y_det", "mag_det",
)  # fmt: skip
LATER_COLUMNS = ("x_det", "y_det", "mag_det")  # of `MEASURED_COLUMNS`, which tables measured before them lack


def match(
    truth_x: np.ndarray,
    truth_y: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    confidence: np.ndarray,
    radius: float = RADIUS,
) -> np.ndarray:
    """Assign detections to sources, at most one to one.

    Detections are taken by falling confidence (those of equal confidence in the order given); each
    takes the nearest source within `radius` that no earlier detection has taken.

    Parameters
    ----------
    truth_x, truth_y : ndarray, (M,)
        Positions of the sources in px.
    x, y, confidence : ndarray, (N,)
        Positions of the detections in px and their confidence.
    radius : float
        Largest distance in px, inclusive.

    Returns
    -------
    ndarray of int, (N,)
        Index of the source that each detection took, -1 where it took none.

    Raises
    ------
    ConfigError
        If the radius is not positive.
    DataError
        If a position or a confidence is not finite, or the lengths disagree.
    """
    if not radius > 0:
        raise ConfigError(f"radius is {radius}, the matching radius must be positive (px)")
    sources = _positions("catalogue", truth_x, truth_y)
    found = _positions("detections", x, y)
    confidence = np.asarray(confidence, dtype=float)
    if confidence.shape != (len(found),) or not np.isfinite(confidence).all():
        raise DataError(f"confidence must hold one finite value for each of the {len(found)} detections")
    taken_by = np.full(len(found), -1)
    if len(sources) == 0 or len(found) == 0:
        return taken_by
    neighbours = cKDTree(sources).query_ball_point(found, radius)
    free = np.ones(len(sources), dtype=bool)
    for detection in np.argsort(-confidence, kind="stable"):
        candidates = np.array([source for source in neighbours[detection] if free[source]], dtype=int)
        if len(candidates) == 0:
            continue
        distance = np.hypot(*(sources[candidates] - found[detection]).T)
        # lexsort makes the choice between sources at the same distance independent of the tree's order
        nearest = candidates[np.lexsort((candidates, distance))[0]]
        taken_by[detection] = nearest
        free[nearest] = False
    return taken_by


def _positions(label: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (N, 2) finite positions or say which table is wrong."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 1 or x.shape != y.shape:
        raise DataError(f"{label}: x has shape {x.shape} and y {y.shape}, two flat arrays of one length are needed")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(f"{label}: {int((~np.isfinite(x) | ~np.isfinite(y)).sum())} positions are not finite")
    return np.column_stack([x, y])


def compare(
    truth: pd.DataFrame,
    detections: pd.DataFrame,
    shape: tuple[int, int],
    *,
    mask: np.ndarray | None = None,
    radius: float = RADIUS,
    edge: float = EDGE,
) -> pd.DataFrame:
    """Put catalogue and detections of one frame side by side: a row per source and per unmatched detection.

    A counted source is 'matched' or 'missed'. A source that is not counted is 'ignored', with or without
    a detection, so such detections are neither true nor false. A detection that matches nothing is
    'false', unless it lies outside of the counted area (nearer than `edge` to the border, or on a masked
    pixel), where a counted star could not be either: then it is 'ignored' too.

    Parameters
    ----------
    truth : DataFrame
        Columns x, y (px), mag, flux (electrons), kind and counted (bool), see `pnet.sky.catalogue`.
    detections : DataFrame
        Columns x, y, confidence, flux, mag; the others of `MEASURED_COLUMNS` where there are any.
    shape : (int, int)
        Rows and columns of the frame.
    mask : ndarray, (H, W), bool, optional
        True where the frame holds no measurement.

    Returns
    -------
    DataFrame
        status, truth_x ... truth_kind, counted, `MEASURED_COLUMNS`, match_radius; sources first, in the order of
        `truth`, then unmatched detections.
    """
    _need_columns("truth", truth, (*TRUTH_COLUMNS, "counted"))
    _need_columns("detections", detections, ("x", "y", "confidence", "flux", "mag"))
    sources = truth[list(TRUTH_COLUMNS)].add_prefix("truth_").reset_index(drop=True)
    sources["counted"] = truth["counted"].to_numpy(dtype=bool)
    found = detections.reindex(columns=list(MEASURED_COLUMNS)).astype(float).reset_index(drop=True)
    sources, alone = _side_by_side(sources, found, radius)
    outside = _outside(alone["x"].to_numpy(), alone["y"].to_numpy(), shape, mask, edge)
    alone["status"] = np.where(outside, IGNORED, FALSE)
    alone["counted"] = False
    alone = alone.reindex(columns=sources.columns)
    table = sources if alone.empty else alone if sources.empty else pd.concat([sources, alone], ignore_index=True)
    table["match_radius"] = float(radius)
    first = ["status", *(f"truth_{name}" for name in TRUTH_COLUMNS), "counted", *MEASURED_COLUMNS, "match_radius"]
    return table[first]


def _side_by_side(sources: pd.DataFrame, found: pd.DataFrame, radius: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `sources` (truth_x, truth_y, counted, ...) with what was measured of them and their status, and the
    detections that took none of them."""
    taken = match(
        *(sources[f"truth_{axis}"].to_numpy() for axis in "xy"),
        *(found[name].to_numpy() for name in ("x", "y", "confidence")),
        radius,
    )
    detection_of = np.full(len(sources), -1)
    detection_of[taken[taken >= 0]] = np.flatnonzero(taken >= 0)
    status = np.where(~sources["counted"], IGNORED, np.where(detection_of >= 0, MATCHED, MISSED))
    sources = sources.assign(status=status)
    # reindex with -1 gives a row of NaN: no detection carries that label
    sources[list(MEASURED_COLUMNS)] = found[list(MEASURED_COLUMNS)].reindex(detection_of).to_numpy()
    return sources, found[taken < 0].reset_index(drop=True)


def _outside(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], mask: np.ndarray | None, edge: float) -> np.ndarray:
    """Return where a position lies in the border or on a masked pixel."""
    height, width = shape
    outside = (x < edge) | (y < edge) | (x > width - 1 - edge) | (y > height - 1 - edge)
    if mask is not None:
        column = np.clip(np.rint(x), 0, width - 1).astype(int)
        row = np.clip(np.rint(y), 0, height - 1).astype(int)
        outside |= mask[row, column]
    return outside


def at_threshold(table: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Return the rows as they stand when only detections of at least this confidence are kept.

    A matched star below the threshold becomes missed, a false detection below it disappears. (With
    one-to-one matching by falling confidence, the detections above a threshold are matched as if
    those below did not exist.)
    """
    low = ~(table["confidence"] >= confidence)  # NaN is low: no detection at all
    result = table[~((table["status"] == FALSE) & low)].copy()
    low = low[result.index]
    result.loc[low & (result["status"] == MATCHED), "status"] = MISSED
    result.loc[low, list(MEASURED_COLUMNS)] = np.nan
    # an unmatched detection in the border leaves nothing behind when it falls below the threshold
    return result[~(result["truth_x"].isna() & result["x"].isna())].reset_index(drop=True)


def rematch(table: pd.DataFrame, radius: float) -> pd.DataFrame:
    """Return one method's measurement table as it would stand for another matching radius.

    A detection that loses a counted star becomes 'false'; one that loses a source that does not count
    stays 'ignored', since it lies where nothing is counted.

    Parameters
    ----------
    table : DataFrame
        Rows of one method on one data set, with a column ``frame``.
    radius : float
        Pixels.
    """
    parts = []
    for _, rows in table.groupby("frame", sort=False):
        sources = rows[rows["truth_x"].notna()].reset_index(drop=True)
        found = rows[rows["x"].notna()].reset_index(drop=True)
        sources, alone = _side_by_side(sources, found, radius)
        alone["status"] = np.where(alone["counted"] | (alone["status"] == FALSE), FALSE, IGNORED)
        alone["counted"] = False
        empty = [name for name in alone.columns if name.startswith(("truth_", "limit_"))]
        alone = alone.drop(columns=empty).reindex(columns=sources.columns)
        parts.append(pd.concat([part for part in (sources, alone) if len(part)], ignore_index=True))
    result = pd.concat(parts, ignore_index=True) if parts else table.copy()
    return result.assign(match_radius=float(radius))


def _need_columns(label: str, table: pd.DataFrame, needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise DataError(f"{label}: column(s) {', '.join(missing)} missing; it has {', '.join(map(str, table.columns))}")
