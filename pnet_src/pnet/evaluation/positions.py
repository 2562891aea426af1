"""Positions: errors (Figure 8), over the limit, whether their error bars hold, and about where SkyMaker put the light.

PNet's positions are those of its refinement step; its other stages have keys with a prefix, ``det_`` the detection net
alone, ``bpnn_`` the BPNN. For every method, and stage, with x_err and y_err:

- ``x_pull.<bin>``, ``y_pull.<bin>``: standard deviation of error / σ, 1 where σ is right;
- ``ellipse_68.all``, ``.bright`` (13 to 16.5 mag), ``.faint`` (16.5 to 20): share of the stars inside the 68 % error
  ellipse (`metrics.inside_ellipse`); ``ellipse_95`` likewise;
- ``x_over_limit_placed.<bin>``, and all of the above with ``_placed``: the same about the place where SkyMaker put the
  light (`limits.skymaker_displacement`), for frames that SkyMaker made.
"""

import numpy as np
import pandas as pd

from pnet.common import metrics
from pnet.common.metrics import Estimate
from pnet.evaluation import scores
from pnet.evaluation.scores import Sample, Score
from pnet.sky import limits

SKYMAKER_ENGINES = ("frames", "skymaker")  # of `datasets.ENGINES`, those whose frames SkyMaker made
RADII = (0.1, 0.15, 0.21)  # px; section 4.1 and Fig. 8
POSITIONS = (  # key, suffix of columns, words
    ("{}", "", ""),
    ("det_{}", "_det", " of the detection net alone"),
    ("bpnn_{}", "_bpnn", " of the BPNN"),
)

Axes = dict[str, np.ndarray]


def astrometry(sample: Sample) -> dict[str, Score]:
    """Return mean errors, scatter over the limit and shares within `RADII`."""
    found: dict[str, Score] = {}
    for key, suffix, words in POSITIONS:
        stars, errors = _errors(sample, suffix)
        for axis, delta in errors.items() if len(stars) else ():
            bound = metrics.HALF_NORMAL * sample.mean_limit(stars, axis)
            mean = metrics.mean_absolute(delta, seed=sample.seed)
            found[key.format(f"mean_abs_d{axis}")] = Score(mean, f"mean |Δ{axis}|{words}", "px", bound)
    stars, errors = _errors(sample, "")
    if stars.empty:
        return {}
    for axis, delta in errors.items():
        if sample.network:
            found[f"{axis}_bias"] = Score(metrics.bias(delta, seed=sample.seed), f"median Δ{axis}", "px", 0.0)
        found |= sample.over_limit(stars, delta, axis, axis)
    distance = metrics.distance(*errors.values())
    found["mean_distance"] = Score(metrics.mean_absolute(distance, seed=sample.seed), "mean distance (Eq. 2)", "px")
    for radius in RADII:
        found[f"within_{radius:g}_px"] = Score(metrics.within(distance, radius), f"nearer than {radius:g} px")
    return found


def error_bars(sample: Sample) -> dict[str, Score]:
    """Return ellipses, pulls and what is about the place of the light; ``_placed`` needs an ``engine`` that is
    SkyMaker's in the sample's record."""
    found: dict[str, Score] = {}
    for key, suffix, words in POSITIONS:
        stars, errors = _errors(sample, suffix)
        if stars.empty:
            continue
        variants = [(key, words, errors)]
        if sample.simulated and sample.record.get("engine") in SKYMAKER_ENGINES:
            places = {axis: limits.skymaker_displacement(stars[f"truth_{axis}"].to_numpy()) for axis in "xy"}
            moved = {axis: errors[axis] - places[axis] for axis in "xy"}
            variants.append((f"{key}_placed", f"{words}, about where SkyMaker put the light", moved))
        for name, label, delta in variants:
            for axis in "xy" if name != "{}" else ():  # the plain scatter is in the group "astrometry"
                found |= sample.over_limit(stars, delta[axis], axis, f"{axis}{label}", name)
            found |= _ellipses_and_pulls(sample, stars, delta, suffix, name, label)
    return found


def _errors(sample: Sample, suffix: str) -> tuple[pd.DataFrame, Axes]:
    """Return the stars with a position of this suffix, and its errors."""
    stars = sample.stars(f"x{suffix}", f"y{suffix}")
    return stars, {axis: (stars[f"{axis}{suffix}"] - stars[f"truth_{axis}"]).to_numpy() for axis in "xy" if len(stars)}


def _ellipses_and_pulls(
    sample: Sample, stars: pd.DataFrame, delta: Axes, suffix: str, key: str, label: str
) -> dict[str, Score]:
    """Error ellipses and standardised errors, where the method states its errors."""
    sigma = stars.reindex(columns=[f"{axis}{suffix}_err" for axis in "xy"])  # the detection net alone states none
    known = ((sigma > 0) & np.isfinite(sigma)).all(axis=1).to_numpy()
    if not known.any():
        return {}
    stars, sigmas = stars[known], dict(zip("xy", sigma[known].to_numpy().T, strict=True))
    delta = {axis: errors[known] for axis, errors in delta.items()}

    def share(member: np.ndarray, level: float) -> Estimate:
        return metrics.inside_ellipse(*(each[axis][member] for each in (delta, sigmas) for axis in "xy"), level)

    found = scores.coverage(stars, share, key.format("ellipse_{}"), f"positions{label}: share inside the {{}} ellipse")
    for axis in "xy":
        found |= sample.pulls(stars, delta[axis], sigmas[axis], key.format(f"{axis}_pull"), f"{axis}{label}")
    return found
