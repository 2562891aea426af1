"""One-to-one matching of detections with catalogue sources (paper, Eq. 2) and what follows for every row."""

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from pnet.common.errors import ConfigError
from pnet.common.metrics import flat
from pnet.sky import catalogue

RADIUS = 2.0  # px; "within a certain threshold" of Eq. 2, DESIGN section 5

MATCHED, MISSED, FALSE, IGNORED = "matched", "missed", "false", "ignored"
TRUTH_COLUMNS = [f"truth_{name}" for name in catalogue.COLUMNS]
MEASURED_COLUMNS = [
    "x", "y", "x_err", "y_err", "confidence", "flux", "mag", "mag_err", "mag_aleatoric", "mag_epistemic",
    "x_psf", "y_psf", "mag_psf", "mag_psf_err", "x_det", "y_det", "mag_det",
]  # fmt: skip


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
    sources = np.column_stack(flat(truth_x=truth_x, truth_y=truth_y))
    x, y, confidence = flat(x=x, y=y, confidence=confidence)
    found = np.column_stack([x, y])
    taken_by = np.full(len(found), -1)
    pairs = cKDTree(found).sparse_distance_matrix(cKDTree(sources), radius, output_type="ndarray")
    turn = np.argsort(np.argsort(-confidence, kind="stable"))
    # the last key makes the choice between sources at the same distance independent of the tree's order
    order = np.lexsort((pairs["j"], pairs["v"], turn[pairs["i"]]))
    free = np.ones(len(sources), dtype=bool)
    for detection, source in zip(pairs["i"][order], pairs["j"][order], strict=True):
        if taken_by[detection] < 0 and free[source]:
            taken_by[detection], free[source] = source, False
    return taken_by


def compare(
    truth: pd.DataFrame,
    detections: pd.DataFrame,
    shape: tuple[int, int],
    *,
    mask: np.ndarray | None = None,
    radius: float = RADIUS,
) -> pd.DataFrame:
    """Put catalogue and detections of one frame side by side: a row per source and per unmatched detection.

    A counted source is 'matched' or 'missed'. A source that is not counted is 'ignored', with or without
    a detection, so such detections are neither true nor false. A detection that matches nothing is
    'false', unless it lies where no star is counted either (`catalogue.on_chip`): then it is 'ignored' too.

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
    catalogue.require(truth, (*catalogue.COLUMNS, "counted"), "truth")
    catalogue.require(detections, ("x", "y", "confidence", "flux", "mag"), "detections")
    sources = truth[list(catalogue.COLUMNS)].add_prefix("truth_").reset_index(drop=True)
    sources["counted"] = truth["counted"].to_numpy(dtype=bool)
    found = detections.reindex(columns=MEASURED_COLUMNS).astype(float).reset_index(drop=True)
    inside = catalogue.on_chip(found["x"].to_numpy(), found["y"].to_numpy(), shape, mask)
    table = _side_by_side(sources, found.assign(status=np.where(inside, FALSE, IGNORED)), radius)
    return table[["status", *TRUTH_COLUMNS, "counted", *MEASURED_COLUMNS, "match_radius"]]


def _side_by_side(sources: pd.DataFrame, found: pd.DataFrame, radius: float) -> pd.DataFrame:
    """Return `sources` (truth_x, truth_y, counted, ...) with what was measured of them and their status, then the
    detections that took none of them, with the status that they have in `found`."""
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
    sources[MEASURED_COLUMNS] = found[MEASURED_COLUMNS].reindex(detection_of).to_numpy()
    alone = found[taken < 0].assign(counted=False)
    of_sources = [name for name in alone.columns if name.startswith(("truth_", "limit_"))]
    alone = alone.drop(columns=of_sources).reindex(columns=sources.columns)
    parts = [part for part in (sources, alone) if len(part)]
    table = pd.concat(parts, ignore_index=True) if parts else sources
    return table.assign(match_radius=float(radius))


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
    result.loc[low, MEASURED_COLUMNS] = np.nan
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
        false = found["counted"] | (found["status"] == FALSE)
        parts.append(_side_by_side(sources, found.assign(status=np.where(false, FALSE, IGNORED)), radius))
    return pd.concat(parts, ignore_index=True) if parts else table.assign(match_radius=float(radius))
