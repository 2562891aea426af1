"""Photometry: errors of the magnitudes (Table 2, Figure 7), over the limit, and offsets that were taken off."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pnet.common import metrics
from pnet.common.metrics import Estimate
from pnet.evaluation import scores
from pnet.evaluation.scores import Score

MAGNITUDES = (  # column, prefix of keys, words; the first is the BPNN's, or a baseline's only one
    ("mag", "", "magnitude"),
    ("mag_net", "net_", "magnitude of the refinement step"),
    ("mag_det", "det_", "magnitude of the detection net alone"),
)
TWO_AND_A_HALF_PERCENT = 2.5 * np.log10(1.025)  # mag


def compute(table: pd.DataFrame, dataset: str, method: str, seed: int, record: Mapping[str, Any]) -> dict[str, Score]:
    """Return MAE, σ_NMAD, η, shares within 2.5 % and 0.5 mag, scatter over limit and bias of every magnitude."""
    selected = scores.select(table, dataset, method)
    found: dict[str, Score] = {}
    for column, prefix, label in MAGNITUDES:
        stars = scores.matched(selected, column, "truth_mag")
        if len(stars):
            found |= _errors(stars, column, prefix, label, dataset, method, seed)
    measured = scores.working(table, dataset, method)
    raw = scores.errors(measured)["mag"].dropna()
    if dataset in scores.CALIBRATED and len(raw):
        stars = scores.matched(scores.calibrated(measured, (0,)), "mag", "truth_mag")
        how, delta = "one zero point for the frame", (stars["truth_mag"] - stars["mag"]).to_numpy()
        nmad = metrics.sigma_nmad(stars["truth_mag"].to_numpy(), delta, seed=seed)
        mae = metrics.mean_absolute(delta, seed=seed)
        found["mae_one_zero_point"] = Score(mae, f"MAE, {how}", "mag")
        found["sigma_nmad_one_zero_point"] = Score(nmad, f"σ_NMAD (Eq. 6), {how}")
        if method == "pnet":
            offset = metrics.bias(raw.to_numpy(), seed=seed)
            found["offset_mag"] = Score(offset, "median offset in mag before the photometric calibration", "mag")
    if method != "pnet":
        offsets, n = scores.errors(measured).median().fillna(0.0), len(scores.matched(table))
        what = "median offset in {}; each frame's own was taken off"
        what = what if method in scores.PER_FRAME else "constant offset in {} that was taken off"
        for column, unit in (("mag", "mag"), ("x", "px"), ("y", "px")):
            found[f"offset_{column}"] = Score(Estimate(offsets[column], n=n), what.format(column), unit)
    return found


def _errors(
    stars: pd.DataFrame, column: str, prefix: str, label: str, dataset: str, method: str, seed: int
) -> dict[str, Score]:
    truth, measured = stars["truth_mag"].to_numpy(), stars[column].to_numpy()
    bound = stars["limit_mag"].to_numpy(dtype=float)
    delta, known = metrics.magnitude_error(truth, measured), np.isfinite(bound)
    perfect_mae = metrics.HALF_NORMAL * scores.mean_limit(stars, "mag", dataset)
    perfect_eta = np.nan
    if dataset in scores.BOUNDED:
        perfect_eta = metrics.outliers_at_the_limit(truth[known], bound[known], seed=seed)
    relative = metrics.bootstrap(metrics.plain_scatter, metrics.relative_error(truth, measured), seed=seed)
    eta = metrics.outliers_beyond_three_sigma(truth, measured)
    found = {
        "mae": Score(metrics.mean_absolute(delta, seed=seed), f"MAE, {label}", "mag", perfect_mae),
        "relative_scatter": Score(relative, f"standard deviation of the relative error, {label}"),
        "sigma_nmad": Score(metrics.sigma_nmad(truth, delta, seed=seed), f"σ_NMAD (Eq. 6), {label}"),
        "eta": Score(eta, f"η, beyond 3 σ_relative, {label}", limit=perfect_eta),
        "within_2.5_percent": Score(_share(delta, TWO_AND_A_HALF_PERCENT), f"flux within 2.5 %, {label}"),
        "within_0.5_mag": Score(_share(delta, 0.5), f"within 0.5 mag, {label}"),
    }
    if method == "pnet":  # the baselines' offset was taken off
        found["eta_perfect"] = Score(Estimate(perfect_eta, n=int(known.sum())), f"η of perfect errors, {label}")
        found["bias"] = Score(metrics.bias(delta, seed=seed), f"median error, {label}", "mag", 0.0)
    found |= scores.over_limit(stars, delta, "mag", "mag", label, dataset, seed)
    return {f"{prefix}{name}": score for name, score in found.items()}


def _share(delta: np.ndarray, bound: float) -> Estimate:
    return metrics.rate(int((np.abs(delta) < bound).sum()), len(delta))
