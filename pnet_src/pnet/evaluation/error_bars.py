"""Do the error bars hold for every star? Calibration of PNet's magnitudes by magnitude, seeing and crowding.

The σ of these scores is ``mag_err`` as it is released, recalibrated; what other recalibrations would give is a study,
`studies.recalibrations`.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from pnet.common import metrics
from pnet.common.metrics import Estimate
from pnet.common.seeds import derive
from pnet.evaluation import calibration_metrics, scores
from pnet.evaluation.calibration_metrics import INVERSE_ROOT_PI
from pnet.evaluation.scores import Score

SMALLEST = 20  # stars of a group: below it the scatter is not even known to 16 %
NEAR, FAR = 10.0, 30.0  # px; nearer neighbours exclude a star, farther ones leave no light in its stamp
CROWDED = 2  # so many neighbours and more are one group
LEVELS = (0.68, 0.95)
TOLERATED = (0.1, 1e-3)  # bias of a magnitude bin: share of the limit, mag
GROUPS = {"mag": "true magnitude", "seeing": "seeing / arcsec", "crowding": "neighbours within 10 to 30 px"}


def neighbours(table: pd.DataFrame) -> np.ndarray:
    """Return for every row how many other catalogue sources lie within 10 to 30 px of its own; −1 without a source.

    Parameters
    ----------
    table : DataFrame
        All rows of one method on one data set: those that do not count are neighbours too.
    """
    found = np.full(len(table), -1)
    rows = table.reset_index(drop=True)
    sources = rows[rows["truth_x"].notna()]
    for _, frame in sources.groupby("frame"):
        positions = frame[["truth_x", "truth_y"]].to_numpy(dtype=float)
        tree = cKDTree(positions)
        far, near = (tree.query_ball_point(positions, radius, return_length=True) for radius in (FAR, NEAR))
        found[frame.index] = far - near
    return found


def stars_of(table: pd.DataFrame, dataset: str, *, errors: str = "mag_err") -> pd.DataFrame:
    """Return PNet's matched stars with a magnitude and an error bar, and their column ``crowding``."""
    rows = scores.rows(table, dataset, "pnet")
    rows = rows.assign(crowding=neighbours(rows))
    return scores.matched(scores.select(rows, dataset, "pnet"), "mag", errors, "truth_mag")


def groups(stars: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield key (``mag.17``, ``seeing.1.4``, ``crowding.2``), label and members of every group with enough stars.

    Where all stars share one seeing or one class of crowding this is no group.
    """
    magnitude, seeing = stars["truth_mag"].to_numpy(dtype=float), stars["seeing"].to_numpy(dtype=float).round(1)
    crowding = np.minimum(stars["crowding"].to_numpy(), CROWDED)
    found = [
        (f"mag.{low:g}", f"{low:g} ≤ mag < {low + 1:g}", (magnitude >= low) & (magnitude < low + 1))
        for low in scores.BINS[:-1]
    ]
    seen = np.unique(seeing[np.isfinite(seeing)])
    if len(seen) > 1:
        found += [(f"seeing.{value:.1f}", f"seeing {value:.1f}″", seeing == value) for value in seen]
    names = ("no neighbour", "one neighbour", "two neighbours or more")
    if len(np.unique(crowding)) > 1:
        found += [
            (f"crowding.{number}", f"{name} within 10 to 30 px", crowding == number)
            for number, name in enumerate(names)
        ]
    for key, label, member in found:
        if member.sum() >= SMALLEST:
            yield key, label, member


def compute(table: pd.DataFrame, dataset: str, method: str, seed: int) -> dict[str, Score]:
    """Return scores by short key: ``crps``, ``sharpness``, ``pit_chi2`` and ``<what>.<group>`` such as
    ``z_scatter.mag.17``, ``miscalibration_area.seeing.1.4``, ``coverage_68.crowding.2``.

    Nothing for methods without error bars. Limits: the CRPS and the sharpness of perfect measurements, and the area
    that perfect error bars have for as many stars.
    """
    if method != "pnet":
        return {}
    stars = stars_of(table, dataset)
    if len(stars) < SMALLEST:
        return {}
    truth, mean, sigma = (stars[name].to_numpy(dtype=float) for name in ("truth_mag", "mag", "mag_err"))
    result = _whole(stars, truth, mean, sigma, dataset, seed)
    for key, label, member in groups(stars):
        result |= _group(truth[member], mean[member], sigma[member], key, label, derive(seed, key))
        if key.startswith("mag.") and dataset in scores.SIMULATED:
            limit = stars["limit_mag"].to_numpy(dtype=float)[member]
            result[f"bias_over_allowed.{key}"] = _bias(truth[member] - mean[member], limit, label, derive(seed, key))
    return result


def _bias(delta: np.ndarray, limit: np.ndarray, label: str, seed: int) -> Score:
    """Median error in units of what is harmless: a tenth of the median limit, or 1 mmag where that is more."""
    allowed = max(TOLERATED[0] * float(np.median(limit)), TOLERATED[1])
    title = f"median error over what is allowed ({1000 * allowed:.2g} mmag), {label}"
    return Score(metrics.bias(delta / allowed, seed=seed), title, "", 0.0)


def _whole(
    stars: pd.DataFrame, truth: np.ndarray, mean: np.ndarray, sigma: np.ndarray, dataset: str, seed: int
) -> dict[str, Score]:
    """CRPS, sharpness and PIT of all stars."""
    # a catalogue is measured itself: the bound of one measurement does not hold for a difference, see `scores`
    limit = stars["limit_mag"].to_numpy(dtype=float) if dataset in scores.SIMULATED else np.array([np.nan])
    values = calibration_metrics.crps(truth, mean, sigma)
    best = float(INVERSE_ROOT_PI * np.mean(limit))
    result = {
        "crps": Score(metrics.bootstrap(np.mean, values, seed=seed), "CRPS, mean", "mag", best),
        "sharpness": Score(
            metrics.bootstrap(calibration_metrics.sharpness, sigma, seed=seed),
            "sharpness, root of the mean σ²",
            "mag",
            float(calibration_metrics.sharpness(limit)),
        ),
    }
    if np.isfinite(best):
        ratio = metrics.bootstrap(
            lambda a, b, axis=-1: np.mean(a, axis=axis) / np.mean(b, axis=axis),
            values,
            INVERSE_ROOT_PI * limit,
            seed=seed,
        )
        result["crps_over_limit"] = Score(ratio, "CRPS over that of a perfect measurement", "", 1.0)
    if len(stars) >= 5 * calibration_metrics.PIT_BINS:
        test = calibration_metrics.uniformity(calibration_metrics.pit(truth, mean, sigma))
        bins = calibration_metrics.PIT_BINS
        result["pit_chi2"] = Score(
            Estimate(test.chi2, n=len(stars)), f"PIT in {bins} bins: χ² per degree of freedom", "", 1.0
        )
        result["pit_p"] = Score(Estimate(test.p, n=len(stars)), "PIT: probability of so large a χ² if σ is right")
    return result


def _group(truth: np.ndarray, mean: np.ndarray, sigma: np.ndarray, key: str, label: str, seed: int) -> dict[str, Score]:
    """Area, scatter and coverage of one group."""
    n = len(truth)
    z = metrics.standardised(truth, mean, sigma)
    found = {
        f"miscalibration_area.{key}": Score(
            calibration_metrics.miscalibration(truth, mean, sigma, seed=seed),
            f"miscalibration area, {label}",
            limit=calibration_metrics.perfect(n, seed=seed).value,
        ),
        f"z_scatter.{key}": Score(
            metrics.bootstrap(metrics.plain_scatter, z, seed=seed),
            f"standard deviation of (truth − mean) / σ, {label}",
            limit=1.0,
        ),
        f"z_scatter_robust.{key}": Score(
            metrics.bootstrap(metrics.robust_scatter, z, seed=seed),
            f"robust scatter of (truth − mean) / σ, {label}",
            limit=1.0,
        ),
    }
    for level in LEVELS:
        found[f"coverage_{100 * level:.0f}.{key}"] = Score(
            metrics.coverage(truth, mean, sigma, level),
            f"share inside the {100 * level:.0f} % interval, {label}",
            limit=level,
        )
    return found
