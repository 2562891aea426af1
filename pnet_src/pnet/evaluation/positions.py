"""Positions: errors (Figure 8), over the limit, whether their error bars hold, and about where SkyMaker put the light.

PNet's positions are those of its refinement step; its other stages have keys with a prefix, ``det_`` the detection net
alone, ``bpnn_`` the BPNN. For every method, and stage, with x_err and y_err:

- ``x_pull.<bin>``, ``y_pull.<bin>``: standard deviation of error / σ, 1 where σ is right;
- ``ellipse_68.all``, ``.bright`` (13 to 16.5 mag), ``.faint`` (16.5 to 20): share of the stars inside the 68 % error
  ellipse (`metrics.inside_ellipse`); ``ellipse_95`` likewise;
- ``x_over_limit_placed.<bin>``, and all of the above with ``_placed``: the same about the place where SkyMaker put the
  light (`limits.skymaker_displacement`), for frames that SkyMaker made.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pnet.common import metrics
from pnet.common.metrics import Estimate
from pnet.evaluation import scores
from pnet.evaluation.scores import Score
from pnet.sky import limits

RADII = (0.1, 0.15, 0.21)  # px; section 4.1 and Fig. 8
POSITIONS = (  # prefix of keys, suffix of columns, words
    ("", "", ""),
    ("det_", "_det", " of the detection net alone"),
    ("bpnn_", "_bpnn", " of the BPNN"),
)

Axes = dict[str, np.ndarray]


def astrometry(
    table: pd.DataFrame, dataset: str, method: str, seed: int, record: Mapping[str, Any]
) -> dict[str, Score]:
    """Return mean errors, scatter over the limit and shares within `RADII`."""
    selected, found = scores.select(table, dataset, method), {}
    for prefix, suffix, words in POSITIONS:
        stars = scores.matched(selected, f"x{suffix}", f"y{suffix}")
        for axis, delta in _errors(stars, suffix).items() if len(stars) else ():
            bound = metrics.HALF_NORMAL * scores.mean_limit(stars, axis, dataset)
            mean = metrics.mean_absolute(delta, seed=seed)
            found[f"{prefix}mean_abs_d{axis}"] = Score(mean, f"mean |Δ{axis}|{words}", "px", bound)
    stars = scores.matched(selected, "x", "y")
    if stars.empty:
        return {}
    errors = _errors(stars, "")
    for axis, delta in errors.items():
        if method == "pnet":
            found[f"{axis}_bias"] = Score(metrics.bias(delta, seed=seed), f"median Δ{axis}", "px", 0.0)
        found |= scores.over_limit(stars, delta, axis, axis, axis, dataset, seed)
    distance = metrics.distance(errors["x"], errors["y"])
    found["mean_distance"] = Score(metrics.mean_absolute(distance, seed=seed), "mean distance (Eq. 2)", "px")
    for radius in RADII:
        found[f"within_{radius:g}_px"] = Score(metrics.within(distance, radius), f"nearer than {radius:g} px")
    return found


def error_bars(
    table: pd.DataFrame, dataset: str, method: str, seed: int, record: Mapping[str, Any]
) -> dict[str, Score]:
    """Return ellipses, pulls and what is about the place of the light; ``_placed`` needs an ``engine`` that is
    SkyMaker's in `record`."""
    selected = scores.select(table, dataset, method)
    found: dict[str, Score] = {}
    for prefix, suffix, words in POSITIONS:
        stars = scores.matched(selected, f"x{suffix}", f"y{suffix}")
        if stars.empty:
            continue
        errors = _errors(stars, suffix)
        variants = [("", words, errors)]
        if dataset in scores.SIMULATED and record.get("engine") in limits.SKYMAKER_ENGINES:
            places = {axis: limits.skymaker_displacement(stars[f"truth_{axis}"].to_numpy()) for axis in "xy"}
            moved = {axis: errors[axis] - places[axis] for axis in "xy"}
            variants.append(("_placed", f"{words}, about where SkyMaker put the light", moved))
        for variant, label, delta in variants:
            for axis in "xy" if prefix or variant else ():  # the plain scatter is in the group "astrometry"
                key, title = f"{prefix}{axis}", f"{axis}{label}"
                found |= scores.over_limit(stars, delta[axis], axis, key, title, dataset, seed, variant)
            found |= _ellipses_and_pulls(stars, delta, prefix, suffix, variant, label, seed)
    return found


def _errors(stars: pd.DataFrame, suffix: str) -> Axes:
    return {axis: (stars[f"{axis}{suffix}"] - stars[f"truth_{axis}"]).to_numpy() for axis in "xy"}


def _ellipses_and_pulls(
    stars: pd.DataFrame, delta: Axes, prefix: str, suffix: str, variant: str, label: str, seed: int
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

    found = scores.coverage(
        stars, share, f"{prefix}ellipse", f"positions{label}: share inside the {{}} ellipse", variant
    )
    for axis in "xy":
        found |= scores.pulls(stars, delta[axis], sigmas[axis], f"{prefix}{axis}_pull{variant}", f"{axis}{label}", seed)
    return found
