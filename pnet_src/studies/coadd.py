"""The frame that the Stripe 82 co-add covers, measured against it, and what its independence makes possible.

`ledger.compute` gives precision, recall, MAE and coverage for the data set ``coadd`` as for every other. Here: what
error of its own the co-add must have for our error bars to hold, since the catalogue gives none.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.spatial import cKDTree

from pnet.common import metrics
from pnet.common.seeds import derive
from pnet.evaluation import scores
from pnet.evaluation.frames import Source, sdss_psf
from pnet.evaluation.ledger import Entry, entries_of
from pnet.evaluation.scores import Score
from pnet.sdss.catalogue import load_field
from pnet.sdss.files import fetch
from pnet.sky import matching
from studies import stripe82

LARGEST = 0.5  # mag, of an error of the co-add
DRAWS = 300  # of the bootstrap
FEWEST = 5  # stars
DATASET = "coadd"


def source(manifest: str = "sdss-standard", progress: bool = False) -> Source:
    """Return the field that the co-add catalogue covers, with the co-add as truth (`stripe82.coadd_truth`).

    Raises
    ------
    MissingError
        If the frame or the catalogue cannot be had.
    """
    path = stripe82.fetch(["coadd"])["coadd"]
    report = fetch(manifest, fields=[stripe82.FIELD], progress=progress)
    frame, _ = load_field(report, stripe82.FIELD)
    truth = stripe82.coadd_truth(path, frame)
    where = "co-add catalogue (Annis et al. 2014) from a public copy; frame as for --dataset sdss"
    details = {"source": where, "manifest": manifest}
    return Source([stripe82.FIELD], lambda name: (frame, truth), sdss_psf, details)


def known(detections: pd.DataFrame, sources: pd.DataFrame) -> np.ndarray:
    """Return which detections (x, y) lie within 2 px of a source (x, y), of whatever kind and magnitude."""
    if detections.empty or sources.empty:
        return np.zeros(len(detections), bool)
    nearest, _ = cKDTree(sources[["x", "y"]].to_numpy()).query(detections[["x", "y"]].to_numpy())
    return nearest <= matching.RADIUS


def own_error(delta: np.ndarray, sigma: np.ndarray) -> float:
    """Return the error (mag) that the reference must have for the differences to be explained: the robust scatter of
    delta/√(σ² + s²) is 1 for it; 0 where σ alone is large enough."""
    delta, sigma = metrics.flat(delta=delta, sigma=sigma)

    def excess(own: float) -> float:
        return float(metrics.robust_scatter(delta / np.hypot(sigma, own))) - 1

    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, LARGEST)) if excess(LARGEST) < 0 else np.nan


def entries(table: pd.DataFrame, record: Mapping[str, Any], source: str) -> list[Entry]:
    """Return the ledger's entry ``coadd.pnet.own_error`` with a 95 % bootstrap interval; none of too few stars.

    Parameters
    ----------
    table : DataFrame
        Measurements of ``coadd``.
    record : mapping
        Provenance of the co-add's measurement.
    source : {"live", "released"}
    """
    stars = scores.matched(scores.select(table, DATASET, "pnet"), "mag", "truth_mag")
    stars = stars[stars["mag_err"] > 0]
    if len(stars) < FEWEST:
        return []
    delta, sigma = (stars["mag"] - stars["truth_mag"]).to_numpy(float), stars["mag_err"].to_numpy(float)
    rng = np.random.default_rng(derive(int(record.get("seed", 0)), "coadd", "pnet"))
    draws = (rng.integers(len(delta), size=len(delta)) for _ in range(DRAWS))
    values = np.array([own_error(delta[index], sigma[index]) for index in draws])
    values = values[np.isfinite(values)]
    interval = np.quantile(values, [0.025, 0.975]) if len(values) > DRAWS / 2 else (np.nan, np.nan)
    estimate = metrics.Estimate(own_error(delta, sigma), *interval, len(stars))
    title = "error of the co-add for which our error bars hold"
    return entries_of({"own_error": Score(estimate, title, "mag", 0.0)}, f"{DATASET}.pnet", source, record)
