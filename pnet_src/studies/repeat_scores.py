"""What two epochs tell: repeatability of magnitudes and positions beside the errors promised and the limit.

A difference of two measurements has the variance of both: scatters are divided by √2 to stand for one measurement, and
z is the difference over √(σ₁² + σ₂²). What the two frames disagree in smoothly over the field (zero point, PSF model,
the drift of the scan) is calibration and is taken off, each star's from the other stars.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from pnet.common import metrics
from pnet.common.errors import ConfigError
from pnet.common.seeds import derive
from pnet.evaluation.ledger import Entry, entries_of
from pnet.evaluation.scores import Score, ranges

TITLES = {
    "mag": "magnitude (BPNN)",
    "mag_net": "magnitude (detection net)",
    "x": "x (detection net)",
    "y": "y (detection net)",
    "x_bpnn": "x (BPNN)",
    "y_bpnn": "y (BPNN)",
}
TERMS = 3  # of the smooth difference, a plane: affine for positions, a zero point that drifts
CLIP = 3.5  # scatters; what lies beyond (variable stars, proper motion) does not shape the smooth difference
ROUNDS = 10  # of clipping, at most
COVERED = 0.6826894921370859  # of a Gaussian within one σ
ROBUST = metrics.robust_scatter


def smooth_residual(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return values minus a plane over the positions that was fitted to all other stars.

    Stars whose residual exceeds `CLIP` scatters (1.4826 median absolute deviations) do not enter the fit.

    Parameters
    ----------
    values, x, y : ndarray, (N,)
        Positions are in pixels.

    Returns
    -------
    ndarray, (N,)
        For a star in the fit, its residual over 1 − h with its leverage h: what a fit without it would leave.

    Raises
    ------
    ConfigError
        If there are too few stars for a plane.
    """
    values, x, y = metrics.flat(values=values, x=x, y=y)
    if len(values) < 2 * TERMS:
        raise ConfigError(f"a plane has {TERMS} terms; {len(values)} stars are fewer than twice as many")
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

    Parameters
    ----------
    table : DataFrame
        `repeat.COLUMNS`.
    seed : int
        Of the bootstrap intervals.
    """
    found: dict[str, Score] = {}
    for pair in table["pair"].unique():
        for quantity in TITLES:
            found |= dict(_scores(table, pair, quantity, derive(seed, "repeat", pair, quantity)))
        found |= dict(_against_reference(table, pair, derive(seed, "repeat", pair, "reference")))
        counted = table[(table["pair"] == pair) & table["counted"]]
        offset = (counted["mag_2"] - counted["mag_1"]).dropna().to_numpy()
        found[f"{pair}.zero_point"] = Score(
            metrics.bias(offset, seed=seed), f"{pair}: median difference of the two epochs' magnitudes", "mag", 0.0
        )
    return found


def _scores(table: pd.DataFrame, pair: str, quantity: str, seed: int) -> Iterator[tuple[str, Score]]:
    """Yield repeatability, promised error and limit of one measurement by magnitude."""
    stars = differences(table, pair, quantity)
    unit = "mag" if quantity.startswith("mag") else "px"
    for low, high, name in ranges():
        part = stars[stars["mag"].between(low, high, inclusive="left")]
        if len(part) < 3:
            continue
        where = f"{pair}, {TITLES[quantity]}, {name} mag"
        limit, one = float(part["limit"].median() / np.sqrt(2)), part["delta"] / np.sqrt(2)
        found = {"repeatability": _score(ROBUST, one, seed, "scatter between epochs / √2", unit, limit)}
        bounded = part[np.isfinite(part["limit"]) & (part["limit"] > 0)]
        if len(bounded) > 2:
            ratio = bounded["delta"] / bounded["limit"]
            found["over_limit"] = _score(ROBUST, ratio, seed, "scatter between epochs over the limit", "", 1.0)
        part = part[np.isfinite(part["sigma"]) & (part["sigma"] > 0)]
        if len(part) >= 3:
            z = part["delta"] / part["sigma"]
            promised = part["sigma"] / np.sqrt(2)
            found["predicted"] = _score(np.median, promised, seed, "median error that was promised", unit, limit)
            found["z"] = _score(ROBUST, z, seed, "scatter of z", "", 1.0)
            found["z_std"] = _score(metrics.plain_scatter, z, seed, "standard deviation of z", "", 1.0)
            held = metrics.rate(int((np.abs(z) < 1).sum()), len(z))
            found["coverage68"] = Score(held, "differences within the promised 68 %", "", COVERED)
        for what, score in found.items():
            yield f"{pair}.{quantity}_{what}.{name}", replace(score, title=f"{score.title}, {where}")


def _score(
    statistic: Callable, values: pd.Series, seed: int, title: str, unit: str = "", limit: float | None = None
) -> Score:
    return Score(metrics.bootstrap(statistic, np.asarray(values, float), seed=seed), title, unit, limit)


def _against_reference(table: pd.DataFrame, pair: str, seed: int) -> Iterator[tuple[str, Score]]:
    """Each epoch against the reference catalogue, with the catalogue's own errors in quadrature."""
    rows = table[(table["pair"] == pair) & table["counted"]].dropna(subset=["reference_mag", "reference_mag_err"])
    for epoch in (1, 2):
        part = rows.dropna(subset=[f"mag_{epoch}", f"mag_err_{epoch}"])
        if len(part) < 6:
            continue
        raw = (part[f"mag_{epoch}"] - part["reference_mag"]).to_numpy()
        delta = smooth_residual(raw, part[f"x_{epoch}"].to_numpy(), part[f"y_{epoch}"].to_numpy())
        sigma = np.hypot(part[f"mag_err_{epoch}"], part["reference_mag_err"]).to_numpy()
        where = f"{pair}, epoch {epoch} against the reference catalogue"
        held = metrics.rate(int((np.abs(delta) < sigma).sum()), len(part))
        found = {
            "scatter": _score(ROBUST, delta, seed, f"scatter, {where}", "mag"),
            "z": _score(ROBUST, delta / sigma, seed, f"scatter of z, {where}", "", 1.0),
            "coverage68": Score(held, f"within 68 %, {where}", "", COVERED),
            "offset": _score(np.median, raw, seed, f"median difference, {where}", "mag", 0.0),
        }
        yield from ((f"{pair}.reference{epoch}_{what}", score) for what, score in found.items())


def entries(table: pd.DataFrame, record: Mapping[str, Any], source: str) -> list[Entry]:
    """Return the ledger's entries, ``repeat.pnet.<pair>.<what>.<bin>``.

    Parameters
    ----------
    table, record, source
        As `repeat.load` returns them.
    """
    seed = derive(int(record.get("seed", 0)), "repeat")
    return entries_of(compute(table, seed=seed), "repeat.pnet", source, record)
