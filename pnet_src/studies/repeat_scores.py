"""What two epochs tell: repeatability of magnitudes and positions beside the errors promised and the limit.

A difference of two measurements has the variance of both: scatters are divided by √2 to stand for one measurement, and
z is the difference over √(σ₁² + σ₂²). What the two frames disagree in smoothly over the field (zero point, PSF model,
the drift of the scan) is calibration and is taken off, each star's from the other stars.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pnet.common import metrics
from pnet.common.errors import ConfigError
from pnet.common.seeds import derive
from pnet.evaluation.ledger import Entry, entries_of
from pnet.evaluation.scores import Score, ranges
from studies import repeat

QUANTITIES = ("mag", "mag_net", "x", "y", "x_bpnn", "y_bpnn")
_LIMITS = {"mag": "limit_mag", "mag_net": "limit_mag", "x": "limit_x", "y": "limit_y"}
_LIMITS |= {"x_bpnn": "limit_x", "y_bpnn": "limit_y"}
TITLES = {
    "mag": "magnitude (BPNN)",
    "mag_net": "magnitude (detection net)",
    **{axis: f"{axis} (detection net)" for axis in "xy"},
    **{f"{axis}_bpnn": f"{axis} (BPNN)" for axis in "xy"},
}
DEGREE = 1  # of the smooth difference: affine for positions, a plane for the zero point
CLIP = 3.5  # scatters; what lies beyond (variable stars, proper motion) does not shape the smooth difference
COVERED = 0.6826894921370859  # of a Gaussian within one σ


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
            "limit": both(_LIMITS[quantity]),
        }
    ).reset_index(drop=True)


def by_bin(table: pd.DataFrame, pair: str, quantity: str = "mag", *, degree: int = DEGREE) -> pd.DataFrame:
    """Return repeatability, promised error and limit of one measurement by magnitude.

    Returns
    -------
    DataFrame
        name ('14', '14-20', …), low, high (mag), n, repeatability (1.4826 median absolute deviation over √2), plain
        (standard deviation over √2), predicted and limit (medians, of one measurement), z_scatter, z_std,
        covered (share with |z| < 1). NaN where there are no errors.
    """
    stars = differences(table, pair, quantity, degree=degree)
    parts = []
    for low, high, name in ranges():
        part = stars[stars["mag"].between(low, high, inclusive="left")]
        if len(part) < 3:
            continue
        z = (part["delta"] / part["sigma"]).dropna().to_numpy()
        parts.append(
            {
                "name": name,
                "low": low,
                "high": high,
                "n": len(part),
                "repeatability": float(metrics.robust_scatter(part["delta"].to_numpy()) / np.sqrt(2)),
                "plain": float(part["delta"].std() / np.sqrt(2)),
                "predicted": float(part["sigma"].median() / np.sqrt(2)),
                "limit": float(part["limit"].median() / np.sqrt(2)),
                "z_scatter": float(metrics.robust_scatter(z)) if len(z) > 2 else np.nan,
                "z_std": float(np.std(z, ddof=1)) if len(z) > 2 else np.nan,
                "covered": float(np.mean(np.abs(z) < 1)) if len(z) else np.nan,
            }
        )
    columns = ["name", "low", "high", "n", "repeatability", "plain", "predicted", "limit"]
    return pd.DataFrame(parts, columns=[*columns, "z_scatter", "z_std", "covered"])


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
    stars = differences(table, pair, quantity)
    unit = "mag" if quantity.startswith("mag") else "px"
    for low, high, name in ranges():
        part = stars[stars["mag"].between(low, high, inclusive="left")]
        if len(part) < 3:
            continue
        where = f"{pair}, {TITLES[quantity]}, {name} mag"
        delta = part["delta"].to_numpy() / np.sqrt(2)
        limit = float(part["limit"].median() / np.sqrt(2))
        key = f"{pair}.{quantity}_{{}}.{name}".format
        repeated = metrics.bootstrap(metrics.robust_scatter, delta, seed=seed)
        yield key("repeatability"), Score(repeated, f"scatter between epochs / √2, {where}", unit, limit)
        bounded = part[np.isfinite(part["limit"]) & (part["limit"] > 0)]
        if len(bounded) > 2:
            ratio = metrics.scatter_over_limit(bounded["delta"].to_numpy(), bounded["limit"].to_numpy(), seed=seed)
            yield key("over_limit"), Score(ratio, f"scatter between epochs over the limit, {where}", "", 1.0)
        part = part[np.isfinite(part["sigma"]) & (part["sigma"] > 0)]
        if len(part) < 3:
            continue
        z = (part["delta"] / part["sigma"]).to_numpy()
        predicted = metrics.bootstrap(np.median, part["sigma"].to_numpy() / np.sqrt(2), seed=seed)
        yield key("predicted"), Score(predicted, f"median error that was promised, {where}", unit, limit)
        yield (
            key("z"),
            Score(metrics.bootstrap(metrics.robust_scatter, z, seed=seed), f"scatter of z, {where}", "", 1.0),
        )
        plain = metrics.bootstrap(metrics.plain_scatter, z, seed=seed)
        yield key("z_std"), Score(plain, f"standard deviation of z, {where}", "", 1.0)
        held = metrics.rate(int((np.abs(z) < 1).sum()), len(z))
        yield key("coverage68"), Score(held, f"differences within the promised 68 %, {where}", "", COVERED)


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
        scatter = metrics.bootstrap(metrics.robust_scatter, delta, seed=seed)
        yield f"{pair}.reference{epoch}_scatter", Score(scatter, f"scatter, {where}", "mag")
        z = metrics.bootstrap(metrics.robust_scatter, delta / sigma, seed=seed)
        yield f"{pair}.reference{epoch}_z", Score(z, f"scatter of z, {where}", "", 1.0)
        held = metrics.rate(int((np.abs(delta) < sigma).sum()), len(part))
        yield f"{pair}.reference{epoch}_coverage68", Score(held, f"within 68 %, {where}", "", COVERED)
        offset = metrics.bias(raw, seed=seed)
        yield f"{pair}.reference{epoch}_offset", Score(offset, f"median difference, {where}", "mag", 0.0)


def entries(table: pd.DataFrame, record: Mapping[str, Any], source: str) -> list[Entry]:
    """Return the ledger's entries, ``repeat.pnet.<pair>.<what>.<bin>``.

    Parameters
    ----------
    table, record, source
        As `repeat.load` returns them.
    """
    return entries_of(compute(table, seed=repeat.seed_of(record)), "repeat.pnet", source, record)
