"""Whether the error bars of positions hold, and positions about where SkyMaker put the light.

For every method with x_err and y_err, and for the BPNN's own positions (prefix ``bpnn_``):

- ``x_pull.<bin>``, ``y_pull.<bin>``: standard deviation of error / σ, 1 where σ is right;
- ``ellipse_68.all``, ``.bright`` (13 to 16.5 mag), ``.faint`` (16.5 to 20): share of the stars inside the 68 % error
  ellipse (`metrics.inside_ellipse`); ``ellipse_95`` likewise;
- ``x_over_limit_placed.<bin>``, and all of the above with ``_placed``: the same about the place where SkyMaker put the
  light (`limits.skymaker_displacement`), for frames that SkyMaker made.

And for the magnitude of the detection net, where it has an error: ``net_mag_pull.<bin>``, ``net_coverage_68`` and
``net_coverage_95``.
"""

import numpy as np
import pandas as pd

from pnet.common import metrics
from pnet.evaluation import scores
from pnet.evaluation.scores import Score
from pnet.sky import limits

# Above 16.5 mag the star's own photons make most of the noise, below it the sky does.
HALVES = ((13.0, 20.0, "all"), (13.0, 16.5, "bright"), (16.5, 20.0, "faint"))
LEVELS = (0.68, 0.95)
POSITIONS = (("", "", ""), ("bpnn_", "_bpnn", " of the BPNN"))  # prefix of keys, suffix of columns, words
PLACED = ("_placed", ", about where SkyMaker put the light")

Axes = dict[str, np.ndarray]


def compute(table: pd.DataFrame, dataset: str, method: str, seed: int, engine: str | None = None) -> dict[str, Score]:
    """Return the scores of the module's head for one method on one data set.

    Parameters
    ----------
    table : DataFrame
        Rows of that method and data set (`evaluation.COLUMNS`); what they lack has no scores.
    seed : int
        Of the bootstrap intervals.
    engine : str, optional
        What made the frames (`simulation.ENGINES`); ``_placed`` needs SkyMaker's.
    """
    selected = scores.select(table, dataset, method)
    found: dict[str, Score] = {}
    for prefix, suffix, words in POSITIONS:
        stars = scores.matched(selected, f"x{suffix}", f"y{suffix}")
        if stars.empty:
            continue
        listed = {axis: stars[f"truth_{axis}"].to_numpy() for axis in "xy"}
        errors = {axis: (stars[f"{axis}{suffix}"] - listed[axis]).to_numpy() for axis in "xy"}
        variants = [("", "", errors)]
        if dataset in scores.SIMULATED and engine in limits.SKYMAKER_ENGINES:
            moved = {axis: errors[axis] - limits.skymaker_displacement(listed[axis]) for axis in "xy"}
            variants.append((*PLACED, moved))
        for variant, where, delta in variants:
            label = f"{words}{where}"
            if prefix or variant:  # the plain positions' scatter is in the group "astrometry"
                found |= _over_limit(stars, delta, dataset, prefix, variant, label, seed)
            found |= _ellipses_and_pulls(stars, delta, prefix, suffix, variant, label, seed)
    return found | _net_magnitudes(selected, seed)


def _over_limit(
    stars: pd.DataFrame, delta: Axes, dataset: str, prefix: str, variant: str, label: str, seed: int
) -> dict[str, Score]:
    """Scatter over the limit by axis, with the variant's name before the bin's."""
    found = {}
    for axis, errors in delta.items():
        of_axis = scores.against_limit(stars, errors, f"limit_{axis}", axis, f"{axis}{label}", "px", dataset, seed)
        found |= {f"{prefix}{name.replace('.', f'{variant}.', 1)}": score for name, score in of_axis.items()}
    return found


def _ellipses_and_pulls(
    stars: pd.DataFrame, delta: Axes, prefix: str, suffix: str, variant: str, label: str, seed: int
) -> dict[str, Score]:
    """Error ellipses and standardised errors, where the method states its errors."""
    columns = [f"{axis}{suffix}_err" for axis in "xy"]
    known = stars[columns].gt(0).all(axis=1).to_numpy() & np.isfinite(stars[columns]).all(axis=1).to_numpy()
    if not known.any():
        return {}
    stars, delta = stars[known], {axis: errors[known] for axis, errors in delta.items()}
    sigma = {axis: stars[column].to_numpy() for axis, column in zip("xy", columns, strict=True)}
    found: dict[str, Score] = {}
    for level in LEVELS:
        for low, high, name in HALVES:
            member = _within(stars, low, high)
            share = metrics.inside_ellipse(*(each[axis][member] for each in (delta, sigma) for axis in "xy"), level)
            title = f"positions{label}: share inside the {100 * level:.0f} % ellipse, {low:g} ≤ mag < {high:g}"
            found[f"{prefix}ellipse_{100 * level:.0f}{variant}.{name}"] = Score(share, title, limit=level)
    for axis in "xy":
        found |= _pulls(stars, delta[axis], sigma[axis], f"{prefix}{axis}_pull{variant}", f"{axis}{label}", seed)
    return found


def _pulls(
    stars: pd.DataFrame, delta: np.ndarray, sigma: np.ndarray, key: str, label: str, seed: int
) -> dict[str, Score]:
    """Standard deviation of error / σ per magnitude bin and pooled."""
    found: dict[str, Score] = {}
    for low, high, name in scores.ranges():
        member = _within(stars, low, high)
        if member.sum() >= 2:
            title = f"{label}: standard deviation of error / σ, {low:g} ≤ mag < {high:g}"
            found[f"{key}.{name}"] = Score(metrics.pull(delta[member], sigma[member], seed=seed), title, limit=1.0)
    return found


def _net_magnitudes(selected: pd.DataFrame, seed: int) -> dict[str, Score]:
    """Calibration of the detection net's own magnitudes."""
    stars = scores.matched(selected, "mag_net", "mag_net_err", "truth_mag")
    stars = stars[stars["mag_net_err"] > 0]
    if stars.empty:
        return {}
    label = "magnitude of the detection net"
    truth, mean, sigma = (stars[name].to_numpy() for name in ("truth_mag", "mag_net", "mag_net_err"))
    found = _pulls(stars, truth - mean, sigma, "net_mag_pull", label, seed)
    for level in LEVELS:
        for low, high, name in HALVES:
            member = _within(stars, low, high)
            share = metrics.coverage(truth[member], mean[member], sigma[member], level)
            title = f"{label}: share inside the {100 * level:.0f} % interval, {low:g} ≤ mag < {high:g}"
            found[f"net_coverage_{100 * level:.0f}.{name}"] = Score(share, title, limit=level)
    return found


def _within(stars: pd.DataFrame, low: float, high: float) -> np.ndarray:
    return stars["truth_mag"].between(low, high, inclusive="left").to_numpy()
