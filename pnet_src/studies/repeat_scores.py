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
QUANTITIES = tuple(TITLES)
DEGREE = 1  # of the smooth difference: affine for positions, a plane for the zero point
CLIP = 3.5  # scatters; what lies beyond (variable stars, proper motion) does not shape the smooth difference
COVERED = 0.6826894921370859  # of a Gaussian within one σ
ROBUST = metrics.robust_scatter


def smooth_residual(
    values: np.ndarray, x: np.ndarray, y: np.ndarray, *, degree: int = DEGREE, clip: float = CLIP, rounds: int = 10
) -> np.ndarray:
    """Return values minus a polynomial of the position that was fitted to all other stars.

    Parameters
    ----------
    values : ndarray, (N,)
    x, y : ndarray, (N,)
        Positions in pixels.
    degree : int
        0 is a constant, 1 a plane, 2 has six terms.
    clip : float
        Stars whose residual exceeds this many scatters (1.4826 median absolute deviations) do not enter the fit.

    Returns
    -------
    ndarray, (N,)
        For a star in the fit, its residual over 1 − h with its leverage h: what a fit without it would leave.

    Raises
    ------
    ConfigError
        If there are too few stars for the polynomial.
    """
    values, x, y = metrics.flat(values=values, x=x, y=y)
    terms = (degree + 1) * (degree + 2) // 2
    if len(values) < 2 * terms:
        raise ConfigError(f"degree {degree} has {terms} terms; {len(values)} stars are fewer than twice as many")
    u, v = x / 1000 - 1, y / 1000 - 0.75  # of order one on a frame of SDSS
    design = np.column_stack([u**i * v**j for i in range(degree + 1) for j in range(degree + 1 - i)])
    used = np.ones(len(values), bool)
    for _ in range(rounds):
        residual = values - design @ np.linalg.lstsq(design[used], values[used], rcond=None)[0]
        scatter = metrics.robust_scatter(residual[used])
        keep = np.abs(residual - np.median(residual[used])) <= clip * scatter
        if (keep == used).all() or keep.sum() < 2 * terms:
            break
        used = keep
    residual = values - design @ np.linalg.lstsq(design[used], values[used], rcond=None)[0]
    q, _ = np.linalg.qr(design[used])
    leverage = np.zeros(len(values))
    leverage[used] = (q**2).sum(axis=1)
    return residual / np.maximum(1 - leverage, 1e-3)


def differences(table: pd.DataFrame, pair: str, quantity: str = "mag", *, degree: int = DEGREE) -> pd.DataFrame:
    """Return the differences between epochs of the stars that count.

    Parameters
    ----------
    table : DataFrame
        From `repeat.read`.
    pair : str
        As in ``stripe82``.
    quantity : {"mag", "mag_net", "x", "y", "x_bpnn", "y_bpnn"}
    degree : int
        See `smooth_residual`.

    Returns
    -------
    DataFrame
        mag (mean of both epochs), delta (second minus first, the smooth part taken off), sigma (√(σ₁² + σ₂²), NaN where
        the method gives no errors), limit (√ of the two bounds' squares). Empty where the method has no such quantity.
    """
    if quantity not in QUANTITIES:
        raise ConfigError(f"quantity is {quantity!r}, allowed are {', '.join(QUANTITIES)}")
    rows = table[(table["pair"] == pair) & table["counted"]].dropna(subset=[f"{quantity}_1", f"{quantity}_2"])
    terms = (degree + 1) * (degree + 2) // 2
    if len(rows) < 2 * terms:
        return pd.DataFrame({name: pd.Series(dtype=float) for name in ("mag", "delta", "sigma", "limit")})
    raw = (rows[f"{quantity}_2"] - rows[f"{quantity}_1"]).to_numpy()
    delta = smooth_residual(raw, rows["x_1"].to_numpy(), rows["y_1"].to_numpy(), degree=degree)

    def both(name: str) -> np.ndarray:
        return np.hypot(rows[f"{name}_1"].to_numpy(), rows[f"{name}_2"].to_numpy())

    return pd.DataFrame(
        {
            "mag": ((rows["mag_1"] + rows["mag_2"]) / 2).to_numpy(),
            "delta": delta,
            "sigma": both(f"{quantity}_err"),
            "limit": both(f"limit_{quantity.split('_')[0]}"),
        }
    ).reset_index(drop=True)


def compute(table: pd.DataFrame, *, seed: int) -> dict[str, Score]:
    """Return the scores of all pairs, by short key such as ``stripe82.mag_repeatability.14-20``.

    Parameters
    ----------
    table : DataFrame
        From `repeat.read`.
    seed : int
        Of the bootstrap intervals.
    """
    found: dict[str, Score] = {}
    for pair in table["pair"].unique():
        for quantity in QUANTITIES:
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
        limit = float(part["limit"].median() / np.sqrt(2))
        found = {
            "repeatability": _score(
                ROBUST, part["delta"] / np.sqrt(2), seed, "scatter between epochs / √2", unit, limit
            )
        }
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
