"""Photometry: errors of the magnitudes (Table 2, Figure 7), over the limit, and offsets that were taken off."""

import numpy as np
import pandas as pd

from pnet.common import metrics
from pnet.common.metrics import Estimate
from pnet.evaluation import scores
from pnet.evaluation.scores import Sample, Score

MAGNITUDES = (  # column, key, words; the first is the BPNN's, or a baseline's only one
    ("mag", "{}", "magnitude"),
    ("mag_net", "net_{}", "magnitude of the refinement step"),
    ("mag_det", "det_{}", "magnitude of the detection net alone"),
)
TWO_AND_A_HALF_PERCENT = 2.5 * np.log10(1.025)  # mag


def compute(sample: Sample) -> dict[str, Score]:
    """Return MAE, σ_NMAD, η, shares within 2.5 % and 0.5 mag, scatter over limit and bias of every magnitude."""
    found: dict[str, Score] = {}
    for column, key, label in MAGNITUDES:
        stars = sample.stars(column, "truth_mag")
        if len(stars):
            found |= _errors(sample, stars, column, key, label)
    measured, seed = scores.working(sample.rows, sample.dataset, sample.method), sample.seed
    raw = scores.errors(measured)["mag"].dropna()
    if sample.dataset in scores.CALIBRATED and len(raw):
        stars = scores.matched(scores.calibrated(measured, (0,)), "mag", "truth_mag")
        how, delta = "one zero point for the frame", (stars["truth_mag"] - stars["mag"]).to_numpy()
        nmad = metrics.sigma_nmad(stars["truth_mag"].to_numpy(), delta, seed=seed)
        found["mae_one_zero_point"] = Score(metrics.mean_absolute(delta, seed=seed), f"MAE, {how}", "mag")
        found["sigma_nmad_one_zero_point"] = Score(nmad, f"σ_NMAD (Eq. 6), {how}")
        if sample.network:
            offset = metrics.bias(raw.to_numpy(), seed=seed)
            found["offset_mag"] = Score(offset, "median offset in mag before the photometric calibration", "mag")
    if not sample.network:
        offsets, n = scores.errors(measured).median().fillna(0.0), len(scores.matched(sample.rows))
        what = "median offset in {}; each frame's own was taken off"
        what = what if sample.method in scores.PER_FRAME else "constant offset in {} that was taken off"
        for column, unit in (("mag", "mag"), ("x", "px"), ("y", "px")):
            found[f"offset_{column}"] = Score(Estimate(offsets[column], n=n), what.format(column), unit)
    return found


def _errors(sample: Sample, stars: pd.DataFrame, column: str, key: str, label: str) -> dict[str, Score]:
    truth, measured, bound = stars[["truth_mag", column, "limit_mag"]].to_numpy(dtype=float).T
    delta, known, seed = metrics.magnitude_error(truth, measured), np.isfinite(bound), sample.seed
    perfect_mae, perfect_eta = metrics.HALF_NORMAL * sample.mean_limit(stars, "mag"), np.nan
    if sample.dataset in scores.BOUNDED:
        perfect_eta = metrics.outliers_at_the_limit(truth[known], bound[known], seed=seed)
    relative = metrics.bootstrap(metrics.plain_scatter, metrics.relative_error(truth, measured), seed=seed)
    eta = metrics.outliers_beyond_three_sigma(truth, measured)
    near, nearer = (metrics.share(np.abs(delta) < bound) for bound in (0.5, TWO_AND_A_HALF_PERCENT))
    found = {
        "mae": Score(metrics.mean_absolute(delta, seed=seed), f"MAE, {label}", "mag", perfect_mae),
        "relative_scatter": Score(relative, f"standard deviation of the relative error, {label}"),
        "sigma_nmad": Score(metrics.sigma_nmad(truth, delta, seed=seed), f"σ_NMAD (Eq. 6), {label}"),
        "eta": Score(eta, f"η, beyond 3 σ_relative, {label}", limit=perfect_eta),
        "within_2.5_percent": Score(nearer, f"flux within 2.5 %, {label}"),
        "within_0.5_mag": Score(near, f"within 0.5 mag, {label}"),
    }
    if sample.network:  # the baselines' offset was taken off
        found["eta_perfect"] = Score(Estimate(perfect_eta, n=int(known.sum())), f"η of perfect errors, {label}")
        found["bias"] = Score(metrics.bias(delta, seed=seed), f"median error, {label}", "mag", 0.0)
    found = {key.format(name): score for name, score in found.items()}
    return found | sample.over_limit(stars, delta, "mag", label, key)
