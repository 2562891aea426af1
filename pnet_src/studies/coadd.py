"""The frame that the Stripe 82 co-add covers, measured against it, and the scores that its independence makes possible.

`entries.compute` gives precision, recall, MAE and coverage for the data set ``coadd`` as for every other. Here: which
false detections are real, and what error of its own the co-add must have for our error bars to hold, since the
catalogue gives none.
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

COVERED = 0.6826894921370859  # of a Gaussian within one σ
SAME = 1.0  # px
LARGEST = 0.5  # mag, of an error of the co-add
DRAWS = 300  # of the bootstrap
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
    frame, own = load_field(report, stripe82.FIELD)
    truth = stripe82.coadd_truth(path, frame)
    where = "co-add catalogue (Annis et al. 2014) from a public copy; frame as for --dataset sdss"
    details: dict[str, Any] = {"source": where, "manifest": manifest}
    if own is not None:
        details["coadd_minus_photoobj"] = {name: round(value, 4) for name, value in offset(truth, own).items()}
    return Source([stripe82.FIELD], lambda name: (frame, truth), sdss_psf(report), details)


def offset(truth: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """Return how two catalogues of a frame differ: `truth` minus `other` over stars within 2 px that both count.

    Parameters
    ----------
    truth, other : DataFrame
        Columns x, y, mag, counted.

    Returns
    -------
    dict
        ``n``, ``x``, ``y`` (px), ``mag``: medians; ``x_scatter``, ``y_scatter``, ``mag_scatter``: 1.4826 times the
        median absolute deviation. NaN where there is no pair.
    """
    first, second = (table.loc[table["counted"], ["x", "y", "mag"]].to_numpy(float) for table in (truth, other))
    difference = np.full((1, 3), np.nan)
    n = 0
    if len(first) and len(second):
        distance, index = cKDTree(second[:, :2]).query(first[:, :2])
        near = distance <= matching.RADIUS
        n, difference = int(near.sum()), first[near] - second[index[near]] if near.any() else difference
    columns = dict(zip(("x", "y", "mag"), difference.T, strict=True))
    medians = {name: float(np.median(values)) for name, values in columns.items()}
    scatters = {f"{name}_scatter": float(metrics.robust_scatter(values)) for name, values in columns.items()}
    return {"n": n, **medians, **scatters}


def known(detections: pd.DataFrame, sources: pd.DataFrame, radius: float = matching.RADIUS) -> np.ndarray:
    """Return which detections (x, y) lie within `radius` px of a source (x, y), of whatever kind and magnitude."""
    if detections.empty or sources.empty:
        return np.zeros(len(detections), bool)
    return cKDTree(sources[["x", "y"]].to_numpy()).query(detections[["x", "y"]].to_numpy())[0] <= radius


def false_detections(table: pd.DataFrame) -> pd.DataFrame:
    """Return what either catalogue calls a false detection of PNet's on the field, and which catalogues know it.

    Parameters
    ----------
    table : DataFrame
        Measurements of the data sets ``sdss`` (photoObj) and ``coadd`` in one table.

    Returns
    -------
    DataFrame
        x, y (px), mag, confidence, in_photoobj, in_coadd (bool: a source of any kind and magnitude within 2 px).
    """
    table = table[table["frame"].isin(scores.rows(table, DATASET, "pnet")["frame"])]
    first, second = (
        rows.loc[rows["status"] == matching.FALSE, ["x", "y", "mag", "confidence"]]
        for rows in (scores.select(table, name, "pnet") for name in ("sdss", DATASET))
    )
    # the same detection in both: the Monte Carlo samples move it a little
    false = pd.concat([first, second[~known(second, first, SAME)]], ignore_index=True)
    for name, label in (("sdss", "in_photoobj"), (DATASET, "in_coadd")):
        sources = scores.rows(table, name, "pnet")[["truth_x", "truth_y"]].dropna()
        false[label] = known(false, sources.set_axis(["x", "y"], axis=1))
    return false


def own_error(delta: np.ndarray, sigma: np.ndarray) -> float:
    """Return the error (mag) that the reference must have for the differences to be explained: the robust scatter of
    delta/√(σ² + s²) is 1 for it; 0 where σ alone is large enough."""
    delta, sigma = metrics.flat(delta=delta, sigma=sigma)

    def excess(own: float) -> float:
        return float(metrics.robust_scatter(delta / np.hypot(sigma, own))) - 1

    if len(delta) < 3:
        return np.nan
    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, LARGEST)) if excess(LARGEST) < 0 else np.nan


def compute(table: pd.DataFrame, *, seed: int) -> dict[str, Score]:
    """Return PNet's scores by short key.

    Parameters
    ----------
    table : DataFrame
        Measurements of ``coadd`` and, for the false detections, ``sdss``.
    seed : int
        Of the bootstrap intervals.
    """
    seed = derive(seed, "coadd", "pnet")
    at = scores.select(table, DATASET, "pnet")
    found: dict[str, Score] = {}
    if len(at) and (table["dataset"] == "sdss").any():
        false = false_detections(table)
        doubted = false[~false["in_photoobj"]]
        real = metrics.rate(int(doubted["in_coadd"].sum()), len(doubted))
        title = "share of the detections unknown to photoObj that are a source of the co-add"
        found["photoobj_false_real"] = Score(real, title)
        true = int((at["status"] == matching.MATCHED).sum())
        precision = metrics.precision(true, int((~doubted["in_coadd"]).sum()))
        title = "precision, false only if in neither photoObj nor the co-add"
        found["precision_either"] = Score(precision, title, limit=1.0)
    stars = scores.matched(at, "mag")
    stars = stars.assign(delta=stars["mag"] - stars["truth_mag"])
    if len(stars) < 5:
        return found
    scatter = metrics.bootstrap(metrics.robust_scatter, stars["delta"].to_numpy(), seed=seed)
    found["mag_scatter"] = Score(scatter, "scatter against the co-add", "mag")
    limited = stars[stars["limit_mag"] > 0]
    if len(limited) > 2:
        ratio = metrics.scatter_over_limit(*limited[["delta", "limit_mag"]].to_numpy(float).T, seed=seed)
        title = "scatter against the co-add over the limit of the frame alone"
        found["mag_scatter_over_limit"] = Score(ratio, title, "", 1.0)
    stars = stars[stars["mag_err"] > 0]
    if len(stars) < 5:
        return found
    delta, sigma = stars[["delta", "mag_err"]].to_numpy(float).T
    own = own_error(delta, sigma)
    estimate = metrics.Estimate(own, *_interval(delta, sigma, seed), len(stars))
    found["own_error"] = Score(estimate, "error of the co-add for which our error bars hold", "mag", 0.0)
    for name, extra in (("coverage68_alone", 0.0), ("coverage68_with_own", own)):
        if np.isfinite(extra):
            held = metrics.rate(int((np.abs(delta) < np.hypot(sigma, extra)).sum()), len(stars))
            with_it = f"with {extra:.4f} mag of the co-add in quadrature" if extra else "with ours alone"
            found[name] = Score(held, f"differences from the co-add within the 68 % error bars, {with_it}", "", COVERED)
    return found


def _interval(delta: np.ndarray, sigma: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of `own_error`."""
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(delta), size=len(delta)) for _ in range(DRAWS))
    values = np.array([own_error(delta[index], sigma[index]) for index in draws])
    values = values[np.isfinite(values)]
    return tuple(np.quantile(values, [0.025, 0.975])) if len(values) > DRAWS / 2 else (np.nan, np.nan)


def entries(table: pd.DataFrame, record: Mapping[str, Any], source: str) -> list[Entry]:
    """Return the ledger's entries, ``coadd.pnet.<what>``.

    Parameters
    ----------
    table : DataFrame
        Measurements of ``coadd`` and ``sdss``.
    record : mapping
        Provenance of the co-add's measurement.
    source : {"live", "released"}
    """
    return entries_of(compute(table, seed=int(record.get("seed", 0))), f"{DATASET}.pnet", source, record)
