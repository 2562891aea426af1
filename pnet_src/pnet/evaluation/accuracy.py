"""Errors of magnitudes (Table 2, Figure 7) and positions (Figure 8), over the limit, and offsets that were taken off.

PNet's magnitudes and positions are those of its BPNN; its other stages have keys with a prefix, ``det_`` the detection
net alone, ``psf_`` the fit of the frame's PSF alone. For every method with x_err and y_err:

- ``x_pull.<bin>``, ``y_pull.<bin>``: standard deviation of error / σ, 1 where σ is right;
- ``ellipse_68.all``, ``.bright`` (13 to 16.5 mag), ``.faint`` (16.5 to 20): share of the stars inside the 68 % error
  ellipse (`metrics.inside_ellipse`); ``ellipse_95`` likewise;
- ``x_over_limit_placed.<bin>``, and all of the above with ``_placed``: the same about the place where SkyMaker put the
  light (`limits.skymaker_displacement`), for frames that SkyMaker made. The first is there for every stage.
"""

from functools import partial

import numpy as np
import pandas as pd

from pnet.common import metrics
from pnet.common.metrics import Estimate
from pnet.evaluation import scores
from pnet.evaluation.scores import Sample, Score
from pnet.sky import limits

MAGNITUDES = (  # column, key, words; the first is the BPNN's, or a baseline's only one
    ("mag", "{}", "magnitude"),
    ("mag_psf", "psf_{}", "magnitude of the fit alone"),
    ("mag_det", "det_{}", "magnitude of the detection net alone"),
)
TWO_AND_A_HALF_PERCENT = 2.5 * np.log10(1.025)  # mag
SKYMAKER_ENGINES = ("frames", "skymaker")  # of `datasets.ENGINES`, those whose frames SkyMaker made
RADII = (0.1, 0.15)  # px; section 4.1
POSITIONS = (  # key, suffix of columns, words
    ("{}", "", ""),
    ("det_{}", "_det", " of the detection net alone"),
    ("psf_{}", "_psf", " of the fit alone"),
)

Axes = dict[str, np.ndarray]


def photometry(sample: Sample) -> dict[str, Score]:
    """Return MAE, σ_NMAD, η, shares within 2.5 % and 0.5 mag, scatter over limit and bias of every magnitude."""
    found: dict[str, Score] = {}
    for column, key, label in MAGNITUDES:
        if len(stars := sample.stars(column, "truth_mag")):
            found |= _magnitude_errors(sample, stars, column, key, label)
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


def _magnitude_errors(sample: Sample, stars: pd.DataFrame, column: str, key: str, label: str) -> dict[str, Score]:
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


def astrometry(sample: Sample) -> dict[str, Score]:
    """Return the mean errors of every stage; of the method's own positions scatter over the limit and shares within
    `RADII`."""
    found: dict[str, Score] = {}
    for key, suffix, words in POSITIONS:
        stars, errors = _position_errors(sample, suffix)
        for axis, delta in errors.items():
            bound = metrics.HALF_NORMAL * sample.mean_limit(stars, axis)
            mean = metrics.mean_absolute(delta, seed=sample.seed)
            found[key.format(f"mean_abs_d{axis}")] = Score(mean, f"mean |Δ{axis}|{words}", "px", bound)
            if not suffix:
                found |= sample.over_limit(stars, delta, axis, axis)
            if not suffix and sample.network:
                found[f"{axis}_bias"] = Score(metrics.bias(delta, seed=sample.seed), f"median Δ{axis}", "px", 0.0)
    if errors := _position_errors(sample, "")[1]:
        distance = np.hypot(*errors.values())
        found["mean_distance"] = Score(metrics.mean_absolute(distance, seed=sample.seed), "mean distance (Eq. 2)", "px")
        for radius in RADII:
            found[f"within_{radius:g}_px"] = Score(metrics.share(distance < radius), f"nearer than {radius:g} px")
    return found


def position_error_bars(sample: Sample) -> dict[str, Score]:
    """Return ellipses, pulls and what is about the place of the light; ``_placed`` needs an ``engine`` that is
    SkyMaker's in the sample's record."""
    found: dict[str, Score] = {}
    for key, suffix, words in POSITIONS:
        stars, errors = _position_errors(sample, suffix)
        variants = [(key, words, errors)] if errors else []
        if errors and sample.simulated and sample.record.get("engine") in SKYMAKER_ENGINES:
            places = {axis: limits.skymaker_displacement(stars[f"truth_{axis}"].to_numpy()) for axis in "xy"}
            moved = {axis: errors[axis] - places[axis] for axis in "xy"}
            variants.append((f"{key}_placed", f"{words}, about where SkyMaker put the light", moved))
        for name, label, delta in variants:
            for axis in "xy" if name != "{}" else ():  # the plain scatter is in the group "astrometry"
                found |= sample.over_limit(stars, delta[axis], axis, f"{axis}{label}", name)
            if not suffix:  # the other stages' errors are not in the catalogue
                found |= _ellipses_and_pulls(sample, stars, delta, name, label)
    return found


def _position_errors(sample: Sample, suffix: str) -> tuple[pd.DataFrame, Axes]:
    """Return the stars with a position of this suffix, and its errors, none of no star."""
    stars = sample.stars(f"x{suffix}", f"y{suffix}")
    return stars, {axis: (stars[f"{axis}{suffix}"] - stars[f"truth_{axis}"]).to_numpy() for axis in "xy" if len(stars)}


def _ellipses_and_pulls(sample: Sample, stars: pd.DataFrame, delta: Axes, key: str, label: str) -> dict[str, Score]:
    """Error ellipses and standardised errors, where the method states its errors."""
    sigma = stars.reindex(columns=["x_err", "y_err"])
    known = ((sigma > 0) & np.isfinite(sigma)).all(axis=1).to_numpy()
    if not known.any():
        return {}
    stars, sigmas = stars[known], dict(zip("xy", sigma[known].to_numpy().T, strict=True))
    delta = {axis: errors[known] for axis, errors in delta.items()}

    found, values = {}, [each[axis] for each in (delta, sigmas) for axis in "xy"]

    def share(member: np.ndarray, level: float) -> Estimate:
        return metrics.inside_ellipse(*(each[member] for each in values), level)

    for level in scores.LEVELS:
        name, title = key.format(f"ellipse_{100 * level:.0f}"), f"share inside the {100 * level:.0f} % ellipse"
        title = f"positions{label}: {title}"
        found |= scores.by_bin(stars, partial(share, level=level), name, title, scores.HALVES, limit=level)
    for axis in "xy":
        found |= sample.pulls(stars, delta[axis], sigmas[axis], key.format(f"{axis}_pull"), f"{axis}{label}")
    return found
