"""What two epochs tell: repeatability of magnitudes and positions beside the errors promised and the limit.

A difference of two measurements has the variance of both: scatters are divided by √2 to stand for one measurement, and
z is the difference over √(σ₁² + σ₂²). What the two frames disagree in smoothly over the field (zero point, PSF model,
the drift of the scan) is calibration and is taken off, each star's from the other stars.
"""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from pnet.common import metrics
from pnet.common.seeds import derive
from pnet.evaluation.ledger import Entry, entries_of
from pnet.evaluation.scores import RANGES, Score

TITLES = {"mag": "magnitude (BPNN)", "x": "x (BPNN)", "y": "y (BPNN)"}
TERMS = 3  # of the smooth difference, a plane: affine for positions, a zero point that drifts
CLIP = 3.5  # scatters; what lies beyond (variable stars, proper motion) does not shape the smooth difference
ROUNDS = 10  # of clipping, at most
COVERED = 0.6826894921370859  # of a Gaussian within one σ


def smooth_residual(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return values minus a plane over the positions that was fitted to all other stars.

    Stars whose residual exceeds `CLIP` scatters (1.4826 median absolute deviations) do not enter the fit.

    Parameters
    ----------
    values, x, y : ndarray, (N,)
        Of at least three stars. Positions are in pixels.

    Returns
    -------
    ndarray, (N,)
        For a star in the fit, its residual over 1 − h with its leverage h: what a fit without it would leave.
    """
    values, x, y = metrics.flat(values=values, x=x, y=y)
    # of order one on a frame of SDSS
    design = np.column_stack([np.ones(len(x)), y / 1000 - 0.75, x / 1000 - 1])

    def residual() -> np.ndarray:
        return values - design @ np.linalg.lstsq(design[used], values[used], rcond=None)[0]

    used = np.ones(len(values), bool)
    for _ in range(ROUNDS):
        left = residual()
        keep = np.abs(left - np.median(left[used])) <= CLIP * metrics.robust_scatter(left[used])
        if (keep == used).all() or keep.sum() < 2 * TERMS:
            break
        used = keep
    leverage = np.zeros(len(values))
    leverage[used] = (np.linalg.qr(design[used])[0] ** 2).sum(axis=1)
    return residual() / np.maximum(1 - leverage, 1e-3)


def differences(table: pd.DataFrame, pair: str, quantity: str) -> pd.DataFrame:
    """Return the differences between epochs of the stars that count.

    Parameters
    ----------
    table : DataFrame
        `repeat.COLUMNS`.
    pair : str
        As in ``stripe82``.
    quantity : str
        Of `TITLES`.

    Returns
    -------
    DataFrame
        mag (mean of both epochs), delta (second minus first, the smooth part taken off), sigma (√(σ₁² + σ₂²), NaN where
        the method gives no errors), limit (√ of the two bounds' squares). Empty where the method has no such quantity.
    """
    first, second = f"{quantity}_1", f"{quantity}_2"
    rows = table[(table["pair"] == pair) & table["counted"]].dropna(subset=[first, second]).reset_index(drop=True)
    if len(rows) < 2 * TERMS:
        return pd.DataFrame(columns=["mag", "delta", "sigma", "limit"], dtype=float)

    def both(name: str) -> pd.Series:
        return np.hypot(rows[f"{name}_1"], rows[f"{name}_2"])

    return pd.DataFrame(
        {
            "mag": (rows["mag_1"] + rows["mag_2"]) / 2,
            "delta": smooth_residual(rows[second] - rows[first], rows["x_1"], rows["y_1"]),
            "sigma": both(f"{quantity}_err"),
            "limit": both(f"limit_{quantity.split('_')[0]}"),
        }
    )


def compute(table: pd.DataFrame, *, seed: int) -> dict[str, Score]:
    """Return the scores of all pairs, by short key such as ``stripe82.mag_repeatability.14-20``.

    ``repeatability`` is the scatter of one measurement, ``predicted`` the median error that was promised, ``z`` the
    scatter of differences over their promised errors, ``coverage68`` the share of them within these.

    Parameters
    ----------
    table : DataFrame
        `repeat.COLUMNS`.
    seed : int
        Of the bootstrap intervals.
    """
    found: dict[str, Score] = {}
    for pair, (quantity, title) in itertools.product(table["pair"].unique(), TITLES.items()):
        own = derive(seed, "repeat", pair, quantity)
        stars = differences(table, pair, quantity)
        unit = "mag" if quantity == "mag" else "px"
        for name, (low, high) in RANGES.items():
            part = stars[stars["mag"].between(low, high, inclusive="left")]
            if len(part) < 3:
                continue
            limit, one = float(part["limit"].median() / np.sqrt(2)), part["delta"].to_numpy() / np.sqrt(2)
            scatter = metrics.bootstrap(metrics.robust_scatter, one, seed=own)
            scores = {"repeatability": Score(scatter, "scatter between epochs / √2", unit, limit)}
            part = part[np.isfinite(part["sigma"]) & (part["sigma"] > 0)]
            if len(part) >= 3:
                z, sigma = (part["delta"] / part["sigma"]).to_numpy(), part["sigma"].to_numpy()
                promised = metrics.bootstrap(np.median, sigma / np.sqrt(2), seed=own)
                scores["predicted"] = Score(promised, "median error that was promised", unit, limit)
                scores["z"] = Score(metrics.bootstrap(metrics.robust_scatter, z, seed=own), "scatter of z", "", 1.0)
                held = metrics.share(np.abs(z) < 1)
                scores["coverage68"] = Score(held, "differences within the promised 68 %", "", COVERED)
            for what, score in scores.items():
                score = replace(score, title=f"{score.title}, {pair}, {title}, {name} mag")
                found[f"{pair}.{quantity}_{what}.{name}"] = score
    return found


def entries(table: pd.DataFrame, record: Mapping[str, Any], source: str) -> list[Entry]:
    """Return the ledger's entries, ``repeat.pnet.<pair>.<what>.<bin>``.

    Parameters
    ----------
    table, record, source
        As `repeat.load` returns them.
    """
    seed = derive(int(record.get("seed", 0)), "repeat")
    return entries_of(compute(table, seed=seed), "repeat.pnet", source, record)
