"""Every number of a measurement table, as entries of the ledger."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from pnet.common.seeds import derive
from pnet.evaluation import accuracy, confidence, detections, error_bars, scores
from pnet.evaluation.ledger import Entry, entries_of
from pnet.evaluation.scores import Sample, Score

# Each takes a sample and gives nothing where its method or its data set lacks what it needs.
GROUPS: dict[str, tuple[Callable[[Sample], dict[str, Score]], ...]] = {
    "detection": (detections.compute,),
    "photometry": (accuracy.photometry,),
    "astrometry": (accuracy.astrometry,),
    "uncertainty": (error_bars.uncertainty,),
    "calibration": (error_bars.calibration,),
    "positions": (accuracy.position_error_bars, error_bars.refined),
    "confidence": (confidence.compute,),
}


def compute(
    table: pd.DataFrame,
    dataset: str,
    method: str,
    *,
    seed: int,
    groups: tuple[str, ...] = tuple(GROUPS),
    record: Mapping[str, Any] | None = None,
) -> dict[str, Score]:
    """Return the scores of one method on one data set, by short key such as ``recall`` or ``mag_over_limit.14``.

    Parameters
    ----------
    table : DataFrame
        Measurement table (`measurements.COLUMNS`).
    dataset, method, seed, record
        See `scores.Sample`.
    groups : tuple of str
        Which of `GROUPS`.
    """
    chosen, result = scores.rows(table, dataset, method), {}
    for group in groups if len(chosen) else ():
        own = derive(seed, "bootstrap", dataset, method, group)
        for function in GROUPS[group]:
            result |= function(Sample(chosen, dataset, method, own, record or {}))
    return result


def entries_from_measurements(
    table: pd.DataFrame,
    *,
    seed: int,
    source: str = "live",
    provenance: Mapping[str, Any] | None = None,
    groups: tuple[str, ...] = tuple(GROUPS),
) -> list[Entry]:
    """Return every number of Tables 1 and 2 and of Figures 6 to 9 for all data sets and methods of a table.

    Parameters are those of `compute`; `provenance` is its `record`, of which `entries_of` keeps a part.
    """
    entries = []
    for dataset, method in table[["dataset", "method"]].drop_duplicates().itertuples(index=False):
        found = compute(table, dataset, method, seed=seed, groups=groups, record=provenance)
        own = (provenance or {}).get("settings", {}).get("weights", {}).get(method)
        record = provenance if own is None else {**provenance, "weights": own}
        entries += entries_of(found, f"{dataset}.{method}", source, record)
    return entries
