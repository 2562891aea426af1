"""Which experiment gives the four numbers of the paper's Table 2 together? Readings of it, simulated star by star.

A reading draws magnitudes, gives each star an error and an error bar, and computes η, σ_NMAD, MAE and Ē as the paper's
section 3.1 does. What a reading leaves open is solved for with the paper's numbers; the others are what it predicts.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize

from pnet.common import metrics
from pnet.simulation.recipe import Recipe
from pnet.sky import limits

N, SAMPLES = 14_000, 50  # targets and Monte Carlo samples of the paper's section 4.2
DRAWS = 400  # experiments of N stars: their scatter is the interval
SEEING = 1.4  # arcsec
MAGNITUDES = np.arange(10.0, 20.01, 0.25)
OPEN = ("depth", "floor", "width", "bars", "faint", "slope")  # what a reading may leave open
TITLES = {"simulation": "simulation", "sdss": "SDSS"}
NAMES = {"eta": "η", "sigma_nmad": "σ_NMAD", "mae": "MAE", "e_bar": "Ē"}


@dataclass(frozen=True)
class Reading:
    """What the paper's experiment may have been.

    Parameters
    ----------
    name : str
    depth : float or None
        Exposure in units of an SDSS frame's; infinite has no photon noise; None is solved for with the paper's MAE.
    sky : float
        Brightness of the sky in units of SDSS's.
    floor : float or None
        An error beside the photons', in mag at the stars' mean magnitude: in proportion to 1 + mag, as that of a
        network whose weights are off by so many per cent is; None is solved for with MAE.
    width : float or None
        Standard deviation in mag of the posterior that the samples of a star are drawn from, growing likewise: the
        error bars where it is not 0, and their mean is off by width/√SAMPLES; None is the paper's Ē.
    bars : float or None
        Error bars in units of the errors' standard deviation where `width` is 0; None is solved for with Ē.
    faint : float or None
        Magnitude of the faintest stars; None is solved for with MAE.
    slope : float or None
        Of log10 of the stars' counts by magnitude; None is solved for with σ_NMAD.
    """

    name: str
    depth: float | None = 1.0
    sky: float = 1.0
    floor: float | None = 0.0
    width: float | None = 0.0
    bars: float | None = 1.0
    faint: float | None = 20.0
    slope: float | None = 0.2

    @property
    def free(self) -> tuple[str, ...]:
        """Names of what is solved for."""
        return tuple(name for name in OPEN if getattr(self, name) is None)


READINGS = (
    Reading("as told: SDSS noise, errors at the limit, honest bars"),
    Reading("no noise of the sky", sky=0.0),
    Reading("a longer exposure", depth=None),
    Reading("brighter stars only", faint=None),
    Reading("one error for all stars, hardly any photon noise", depth=np.inf, floor=None),
    Reading("the same, and error bars of another size", depth=np.inf, floor=None, bars=None),
    Reading("the mean of 50 draws from a posterior, nothing else", depth=np.inf, width=None),
    Reading("the same, and an error of the network's own", depth=np.inf, floor=None, width=None),
    Reading("the same, and other counts of stars", depth=np.inf, floor=None, width=None, slope=None),
)


@functools.cache
def _limits(depth: float, sky: float) -> np.ndarray:
    """Return the Cramér-Rao bound in mag at MAGNITUDES in the middle of the recipe's conditions."""
    recipe = Recipe.load()
    gain, read_noise = float(np.median(recipe.gain)), float(np.mean(recipe.read_noise))
    zero_point = recipe.mag_zero + 2.5 * np.log10(recipe.exposure * gain)
    pixel = recipe.pixel_scale**2 * 10 ** (0.4 * (zero_point - recipe.sky_mag[0]))
    phase, flux = np.linspace(-0.4, 0.4, len(MAGNITUDES)), depth * 10 ** (0.4 * (zero_point - MAGNITUDES))
    light = limits.simulated(SEEING, recipe.pixel_scale)
    return limits.bound(light, phase, phase[::-1], flux, sky * depth * pixel, read_noise)["limit_mag"].to_numpy()


def bound(mag: np.ndarray, depth: float, sky: float) -> np.ndarray:
    """Return (N,) the Cramér-Rao bound in mag of stars of these magnitudes; 0 for an infinite exposure."""
    if not np.isfinite(depth):
        return np.zeros_like(mag)
    return np.exp(np.interp(mag, MAGNITUDES, np.log(_limits(depth, sky))))


def magnitudes(slope: float, faint: float, uniform: np.ndarray) -> np.ndarray:
    """Turn (n,) uniform random numbers into magnitudes from 13 to `faint` with counts as 10^(slope · mag)."""
    bright, steep = 13.0, np.log(10) * (slope if abs(slope) > 1e-6 else 1e-6)
    return bright + np.log1p(uniform * np.expm1(steep * (faint - bright))) / steep


@functools.lru_cache(maxsize=DRAWS + 1)
def _chance(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) uniform and (n,) normal random numbers: every reading is tried with the same ones."""
    rng = np.random.default_rng(seed)
    return rng.random(n), rng.normal(size=n)


@functools.cache
def _errors(depth: float, sky: float, own: float, faint: float, slope: float, seed: int, n: int) -> tuple[float, ...]:
    """Return η, σ_NMAD, MAE and mean standard deviation of n stars whose errors are the photons' and, in quadrature,
    their `own`; readings that differ in something else share the experiment."""
    uniform, normal = _chance(seed, n)
    truth = magnitudes(slope, faint, uniform)
    scatter = np.hypot(bound(truth, depth, sky), own * (1 + truth) / (1 + truth).mean())
    delta = -scatter * normal
    relative = delta / (1 + truth)
    outliers = np.abs(relative) > 3 * np.std(relative)  # `metrics.outliers_beyond_three_sigma` without its interval
    nmad = metrics.MAD_TO_SIGMA * np.median(np.abs(delta - np.median(delta)) / (1 + truth))
    return outliers.mean(), nmad, np.abs(delta).mean(), scatter.mean()


def experiment(reading: Reading, values: Mapping[str, float], seed: int, n: int = N) -> dict[str, float]:
    """Return η, σ_NMAD, MAE and Ē of one experiment of n stars; `values` are those that the reading leaves open."""
    fixed = {name: getattr(reading, name) for name in OPEN if getattr(reading, name) is not None}
    depth, floor, width, bars, faint, slope = ({**values, **fixed}[name] for name in OPEN)
    own, unit = float(np.hypot(floor, width / np.sqrt(SAMPLES))), 1.0
    if np.isinf(depth):  # without photons' noise all errors are in proportion to their own
        own, unit = 1.0, own
    eta, nmad, mae, scatter = _errors(depth, reading.sky, own, faint, slope, seed, n)
    return {
        "eta": eta,
        "sigma_nmad": unit * nmad,
        "mae": unit * mae,
        "e_bar": width if width else bars * unit * scatter,
    }


SOLVED = {  # what is left open, in this order: the number it is solved with, and its range
    "slope": ("sigma_nmad", (-0.6, 0.9)),
    "depth": ("mae", (1.0, 1e5)),
    "floor": ("mae", (0.0, 0.1)),
    "faint": ("mae", (13.2, 20.0)),
    "bars": ("e_bar", (0.1, 100.0)),
}


def solved(reading: Reading, paper: Mapping[str, float]) -> dict[str, float]:
    """Return what the reading leaves open, so that it gives the paper's numbers; the nearest where nothing does."""
    values = {"width": paper["e_bar"]} if reading.width is None else {}
    values |= {name: 1.0 if name in ("depth", "bars") else 0.0 for name in reading.free if name != "width"}
    # Each by itself, twice: σ_NMAD depends on the floor, which is solved for after the slope.
    for name in 2 * [name for name in SOLVED if name in reading.free]:
        number, (low, high) = SOLVED[name]

        def miss(value: float, name: str = name, number: str = number) -> float:
            return experiment(reading, values | {name: value}, 0, 20 * N)[number] / paper[number] - 1

        if miss(low) * miss(high) < 0:
            values[name] = float(optimize.brentq(miss, low, high, rtol=1e-4))
        else:
            values[name] = min((low, high), key=lambda value: abs(miss(value)))
    return values


def stated(values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the four numbers of both columns of Table 2 from ``data_manifests/paper_values.yml``."""
    return {data: {name: values[f"{data}.pnet.{name}"]["value"] for name in NAMES} for data in ("simulation", "sdss")}


def solved_with(row: Mapping[str, Any]) -> set[str]:
    """Return the names of the paper's numbers that a row of `compare` was solved with, and which it cannot predict."""
    return {"e_bar" if name == "width" else SOLVED[name][0] for name in row["solved"]}


def compare(paper: Mapping[str, Mapping[str, float]], *, seed: int) -> list[dict[str, Any]]:
    """Return a row for every reading and column of Table 2.

    Parameters
    ----------
    paper : mapping
        Data set ('sdss', 'simulation') → the paper's eta, sigma_nmad, mae and e_bar.
    seed : int

    Returns
    -------
    list of dict
        ``dataset``, ``reading``, ``solved`` (values of what was left open), and for each of the four numbers its median
        over DRAWS experiments under its name, its central 95 % under ``<name>_low`` and ``_high``, and under
        ``<name>_fits`` whether the paper's lies there.
    """
    rows = []
    for dataset, stated in paper.items():
        for reading in READINGS:
            values = solved(reading, stated)
            drawn = pd.DataFrame(experiment(reading, values, seed + index) for index in range(DRAWS))
            row: dict[str, Any] = {"dataset": dataset, "reading": reading.name, "solved": values}
            for name in NAMES:
                low, middle, high = np.quantile(drawn[name], (0.025, 0.5, 0.975))
                row |= {name: float(middle), f"{name}_low": float(low), f"{name}_high": float(high)}
                row[f"{name}_fits"] = bool(low <= stated[name] <= high or np.isclose(stated[name], middle, rtol=1e-3))
            rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], paper: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Return what `compare` found as texts: a row for each reading, what was solved for, and the numbers in percent and
    mmag; those that differ from the paper's by more than chance are in parentheses."""
    units = {"eta": 1e2, "sigma_nmad": 1e3, "mae": 1e3, "e_bar": 1e3}
    heads = {"eta": "η / %", "sigma_nmad": "σ_NMAD / 10⁻³", "mae": "MAE / mmag", "e_bar": "Ē / mmag"}
    shown = []
    for data, numbers in paper.items():
        texts = {heads[name]: f"{numbers[name] * unit:.3g}" for name, unit in units.items()}
        shown.append({"data": TITLES[data], "reading": "the paper's Table 2", "solved for": "", **texts})
        for row in (row for row in rows if row["dataset"] == data):
            texts = {name: f"{row[name] * unit:.3g}" for name, unit in units.items()}
            texts = {heads[name]: text if row[f"{name}_fits"] else f"({text})" for name, text in texts.items()}
            free = ", ".join(f"{name} {value:.3g}" for name, value in row["solved"].items())
            shown.append({"data": TITLES[data], "reading": row["reading"], "solved for": free, **texts})
    return pd.DataFrame(shown)
