"""Every number of Tables 1 and 2 and of Figures 6 to 9, computed from a measurement table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pnet.common import metrics
from pnet.common.errors import ConfigError
from pnet.common.metrics import Estimate
from pnet.common.seeds import derive
from pnet.evaluation import contaminants as realistic
from pnet.evaluation.measurements import THRESHOLDS
from pnet.sky import matching, zero_point

GROUPS = ("detection", "photometry", "astrometry", "uncertainty", "calibration", "positions", "confidence")
SIMULATED = ("simulation", "realistic", "validation")  # where the truth is the truth
CALIBRATED = ("sdss", "coadd")  # data sets whose frames have 50 reference stars or more
ENOUGH = 5  # matched stars from which on a frame's own offset is better known than that of all frames
PER_FRAME = ("psfex", "photutils")  # methods whose PSF, and with it the zero of their magnitudes, is each frame's own
BINS = np.arange(13.0, 21.0)  # magnitude bins 13...19, [m, m + 1)
POOLS = ((14.0, 20.0), (15.0, 19.0))  # beside single bins; saturation ends near 14
MAGNITUDES = (13.0, 20.0)  # the paper's range
TWO_AND_A_HALF_PERCENT = 2.5 * np.log10(1.025)  # mag
RADII = (0.1, 0.15, 0.21)  # px; section 4.1 and Fig. 8


@dataclass(frozen=True)
class Score:
    """An estimate with its name: what it is, its unit and, where there is one, the smallest value possible."""

    estimate: Estimate
    title: str
    unit: str = ""
    limit: float = np.nan


def rows(table: pd.DataFrame, dataset: str, method: str) -> pd.DataFrame:
    """Return the rows of one method on one data set."""
    return table[(table["dataset"] == dataset) & (table["method"] == method)]


def rates(table: pd.DataFrame) -> tuple[Estimate, Estimate]:
    """Return precision and recall of all rows of a table."""
    counts = table["status"].value_counts()
    true, missed, false = (int(counts.get(name, 0)) for name in (matching.MATCHED, matching.MISSED, matching.FALSE))
    return metrics.precision(true, false), metrics.recall(true, missed)


def select(table: pd.DataFrame, dataset: str, method: str, threshold: float | None = None) -> pd.DataFrame:
    """Return one method's rows on one data set, at its working threshold unless another is given.

    The constant offsets of the classical baselines are taken off, as in the paper. Where the PSF is measured on each
    frame (SExtractor + PSFEx, photutils), so are its normalisation and its centre: then each frame's own offset is
    taken off if five of its stars or more are matched, else that of all frames. PNet's magnitudes on SDSS get the
    photometric calibration of section 3.3.3, each star from the other reference stars of its frame, with a zero point
    that is a polynomial in x and y (`mae_one_zero_point` tells what one for the whole frame gives); its positions, and
    its magnitudes on the simulation, stay as they are.
    """
    if method not in THRESHOLDS:
        raise ConfigError(f"method is {method!r}, allowed are {', '.join(THRESHOLDS)}")
    chosen = matching.at_threshold(rows(table, dataset, method), THRESHOLDS[method] if threshold is None else threshold)
    if method != "pnet":
        return remove_offset(chosen, per_frame=method in PER_FRAME)[0]
    return calibrated(chosen) if dataset in CALIBRATED else chosen


def remove_offset(
    table: pd.DataFrame, columns: tuple[str, ...] = ("x", "y", "mag"), per_frame: bool = False
) -> tuple[pd.DataFrame, dict]:
    """Subtract a method's constant offset from its matched stars' truth, as the paper does for SExtractor (4.1).

    Parameters
    ----------
    table : DataFrame
        Measurement table of one method.
    columns : tuple of str
        Which of x, y (px) and mag to correct.
    per_frame : bool
        Take off each frame's own offset where at least `ENOUGH` of its stars are matched, else that of all. A PSF
        measured on the frame is normalised and centred by that frame's stars, so that the zero point and, by some
        thousandths of a pixel, the origin change from frame to frame.

    Returns
    -------
    table : DataFrame
        A corrected copy.
    offsets : dict
        Median of measurement minus truth of all matched stars, by column; 0 where no star is matched.
    """
    table, offsets = table.copy(), {}
    matched = table["status"] == matching.MATCHED
    for column in columns:
        difference = (table.loc[matched, column] - table.loc[matched, f"truth_{column}"]).dropna()
        offsets[column] = float(difference.median()) if len(difference) else 0.0
        if per_frame:
            stars = difference.groupby(table.loc[difference.index, "frame"]).agg(["median", "size"])
            own = stars.loc[stars["size"] >= ENOUGH, "median"]
            table[column] -= table["frame"].map(own).fillna(offsets[column]).astype(float)
        else:
            table[column] = table[column] - offsets[column]
    return table, offsets


def calibrated(table: pd.DataFrame, degrees: tuple[int, ...] = zero_point.DEGREES) -> pd.DataFrame:
    """Return the rows with the zero point of every frame fitted (Eq. 18): a polynomial of one of `degrees`."""
    table = table.copy()
    for _, index in table.groupby("frame").groups.items():
        frame = table.loc[index]
        isolated = (frame["status"] == matching.MATCHED).to_numpy()
        for column in ("mag", "mag_net"):
            values = frame[column].to_numpy(dtype=float)
            reference, x, y = (frame[name].to_numpy(dtype=float) for name in ("truth_mag", "x", "y"))
            offset = zero_point.without_itself(values, reference, isolated, x, y, degrees)
            table.loc[index, column] = values + offset
    return table


def baseline_of(table: pd.DataFrame, dataset: str) -> str | None:
    """Return the classical method that was run on a data set: 'sextractor', else 'sep', else None."""
    run = set(table.loc[table["dataset"] == dataset, "method"])
    return next((name for name in ("sextractor", "sep") if name in run), None)


def matched(rows: pd.DataFrame, *needed: str) -> pd.DataFrame:
    """Return the matched stars for which all `needed` columns have a value."""
    return rows[rows["status"] == matching.MATCHED].dropna(subset=list(needed))


def compute(
    table: pd.DataFrame,
    dataset: str,
    method: str,
    *,
    seed: int,
    groups: tuple[str, ...] = GROUPS,
    engine: str | None = None,
    confidence_calibration: Mapping[str, Any] | None = None,
) -> dict[str, Score]:
    """Return the scores of one method on one data set, by short key such as ``recall`` or ``mag_over_limit.14``.

    Parameters
    ----------
    table : DataFrame
        Measurement table (`evaluation.COLUMNS`).
    seed : int
        Of the bootstrap intervals.
    groups : tuple of str
        Which of `GROUPS`; "uncertainty" gives nothing for methods without error bars.
    engine : str, optional
        What made the frames (`simulation.ENGINES`), for "positions".
    confidence_calibration : mapping, optional
        From the card of the detection net that measured, for "confidence".
    """
    makers: dict[str, Callable] = {
        "detection": _detection,
        "photometry": _photometry,
        "astrometry": _astrometry,
        "uncertainty": _uncertainty,
        "calibration": _calibration,
        "positions": partial(_positions, engine=engine),
        "confidence": partial(_confidence, calibration=confidence_calibration),
    }
    unknown = [name for name in groups if name not in makers]
    if unknown:
        raise ConfigError(f"group(s) {', '.join(unknown)} unknown, allowed are {', '.join(GROUPS)}")
    chosen = rows(table, dataset, method)
    if chosen.empty:
        return {}
    result: dict[str, Score] = {}
    for group in groups:
        result |= makers[group](chosen, dataset, method, derive(seed, "bootstrap", dataset, method, group))
    return result


def _detection(table: pd.DataFrame, dataset: str, method: str, seed: int) -> dict[str, Score]:
    at = matching.at_threshold(table, THRESHOLDS[method])
    precision, recall = rates(at)
    true = int((at["status"] == matching.MATCHED).sum())
    false = int((at["status"] == matching.FALSE).sum() + on_contaminants(at).sum())
    *confidences, n_sources = curve_input(table)
    label = f"confidence ≥ {THRESHOLDS[method]:g}" if THRESHOLDS[method] else "all detections"
    scores = {
        "precision": Score(precision, f"precision, {label}", limit=1.0),
        "recall": Score(recall, f"recall, {label}", limit=1.0),
        "precision_strict": Score(
            metrics.precision(true, false),
            f"precision, {label}; galaxies and stars outside 13–20 mag count as false",
            limit=1.0,
        ),
    }
    if dataset == "realistic":
        scores |= _realistic(select(table, dataset, method), label)
    if n_sources:
        curve = metrics.precision_recall_curve(*confidences, n_sources)[:2]
        for key, how in (("ap", "envelope"), ("ap_step", "step")):
            value = metrics.average_precision(*curve, how)
            scores[key] = Score(Estimate(value, n=n_sources), f"average precision ({how})", limit=1.0)
    return scores


def _realistic(at: pd.DataFrame, label: str) -> dict[str, Score]:
    """The precisions of `pnet.evaluation.contaminants`; the main one takes the place of the simple frames'."""
    titles = {
        "precision": "galaxies measured brighter than 20 mag count as false",
        "precision_galaxies_ignored": "detections on galaxies left out",
        "precision_all_galaxies": "all galaxies count as false",
    }
    found = realistic.rates(at)
    return {name: Score(found[name], f"precision, {label}; {title}", limit=1.0) for name, title in titles.items()}


def on_contaminants(table: pd.DataFrame) -> pd.Series:
    """Return where a detection fell on something that is no star of 13–20 mag: a galaxy, a fainter or brighter star."""
    wanted = (table["truth_kind"] == "star") & table["truth_mag"].between(*MAGNITUDES)
    return (table["status"] == matching.IGNORED) & table["x"].notna() & table["truth_x"].notna() & ~wanted


def curve_input(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the confidences of true and of false detections and the number of counted stars."""
    status = table["status"]
    return (
        table.loc[status == matching.MATCHED, "confidence"].to_numpy(),
        table.loc[status == matching.FALSE, "confidence"].to_numpy(),
        int(status.isin([matching.MATCHED, matching.MISSED]).sum()),
    )


def _photometry(table: pd.DataFrame, dataset: str, method: str, seed: int) -> dict[str, Score]:
    selected = select(table, dataset, method)
    scores: dict[str, Score] = {}
    for column, prefix, label in (("mag", "", "magnitude"), ("mag_net", "net_", "magnitude of the detection net")):
        stars = matched(selected, column, "truth_mag")
        if stars.empty:
            continue
        truth, measured = stars["truth_mag"].to_numpy(), stars[column].to_numpy()
        delta = metrics.magnitude_error(truth, measured)
        n = len(delta)
        bounds = stars["limit_mag"].to_numpy(dtype=float)
        bound, known = float(metrics.HALF_NORMAL * np.nanmean(bounds)), np.isfinite(bounds)
        scores |= {
            f"{prefix}mae": Score(metrics.mean_absolute(delta, seed=seed), f"MAE, {label}", "mag", bound),
            f"{prefix}sigma_nmad": Score(metrics.sigma_nmad(truth, delta, seed=seed), f"σ_NMAD (Eq. 6), {label}"),
            f"{prefix}eta": Score(
                metrics.outliers_beyond_three_sigma(truth, measured),
                f"η, beyond 3 σ_relative, {label}",
                limit=metrics.outliers_at_the_limit(truth[known], bounds[known], seed=seed),
            ),
            f"{prefix}within_2.5_percent": Score(
                metrics.rate(int((np.abs(delta) < TWO_AND_A_HALF_PERCENT).sum()), n), f"flux within 2.5 %, {label}"
            ),
            f"{prefix}within_0.5_mag": Score(
                metrics.rate(int((np.abs(delta) < 0.5).sum()), n), f"within 0.5 mag, {label}"
            ),
        }
        if method == "pnet":  # the baselines' offset was taken off
            scores[f"{prefix}bias"] = Score(metrics.bias(delta, seed=seed), f"median error, {label}", "mag", 0.0)
        scores |= against_limit(stars, delta, "limit_mag", f"{prefix}mag", label, "mag", dataset, seed)
    if method == "pnet" and dataset in CALIBRATED:
        stars = matched(calibrated(matching.at_threshold(table, THRESHOLDS[method]), (0,)), "mag", "truth_mag")
        truth, delta = stars["truth_mag"].to_numpy(), (stars["truth_mag"] - stars["mag"]).to_numpy()
        how = "one zero point for the frame"
        if len(stars):
            scores |= {
                "mae_one_zero_point": Score(metrics.mean_absolute(delta, seed=seed), f"MAE, {how}", "mag"),
                "sigma_nmad_one_zero_point": Score(
                    metrics.sigma_nmad(truth, delta, seed=seed), f"σ_NMAD (Eq. 6), {how}"
                ),
            }
    if method != "pnet":
        _, offsets = remove_offset(matching.at_threshold(table, THRESHOLDS[method]))
        n = len(matched(table))
        for column, unit in (("mag", "mag"), ("x", "px"), ("y", "px")):
            title = f"constant offset in {column} that was taken off"
            if method in PER_FRAME:
                title = f"median offset in {column}; each frame's own was taken off"
            scores[f"offset_{column}"] = Score(Estimate(offsets[column], n=n), title, unit)
    return scores


def against_limit(
    stars: pd.DataFrame, delta: np.ndarray, limit: str, key: str, label: str, unit: str, dataset: str, seed: int
) -> dict[str, Score]:
    """Scatter over the limit and bias, per magnitude bin and pooled.

    Only where the truth is the truth: SDSS catalogue values come from the same pixels as ours, so their
    noise is shared and the bound does not apply to the difference.
    """
    if dataset not in SIMULATED:
        return {}
    magnitude, bound = stars["truth_mag"].to_numpy(), stars[limit].to_numpy()
    usable = np.isfinite(bound)
    scores: dict[str, Score] = {}
    for low, high, name in ranges():
        member = usable & (magnitude >= low) & (magnitude < high)
        if member.sum() < 2:
            continue
        errors, bounds = delta[member], bound[member]
        where = f"{low:g} ≤ mag < {high:g}"
        scores |= {
            f"{key}_over_limit.{name}": Score(
                metrics.scatter_over_limit(errors, bounds, seed=seed), f"{label}: scatter / limit, {where}", "", 1.0
            ),
            f"{key}_over_limit_plain.{name}": Score(
                metrics.scatter_over_limit(errors, bounds, seed=seed, robust=False),
                f"{label}: standard deviation / limit, {where}",
                "",
                1.0,
            ),
            f"{key}_bias.{name}": Score(metrics.bias(errors, seed=seed), f"{label}: median error, {where}", unit, 0.0),
        }
    return scores


def _astrometry(table: pd.DataFrame, dataset: str, method: str, seed: int) -> dict[str, Score]:
    stars = matched(select(table, dataset, method), "x", "y")
    if stars.empty:
        return {}
    scores: dict[str, Score] = {}
    errors = {axis: (stars[axis] - stars[f"truth_{axis}"]).to_numpy() for axis in ("x", "y")}
    for axis, delta in errors.items():
        bound = float(metrics.HALF_NORMAL * stars[f"limit_{axis}"].mean())
        scores[f"mean_abs_d{axis}"] = Score(metrics.mean_absolute(delta, seed=seed), f"mean |Δ{axis}|", "px", bound)
        if method == "pnet":
            scores[f"{axis}_bias"] = Score(metrics.bias(delta, seed=seed), f"median Δ{axis}", "px", 0.0)
        scores |= against_limit(stars, delta, f"limit_{axis}", axis, axis, "px", dataset, seed)
    distance = metrics.distance(errors["x"], errors["y"])
    scores["mean_distance"] = Score(metrics.mean_absolute(distance, seed=seed), "mean distance (Eq. 2)", "px")
    for radius in RADII:
        scores[f"within_{radius:g}_px"] = Score(metrics.within(distance, radius), f"nearer than {radius:g} px")
    return scores


def _uncertainty(table: pd.DataFrame, dataset: str, method: str, seed: int) -> dict[str, Score]:
    if method != "pnet":
        return {}
    stars = matched(select(table, dataset, method), "mag", "mag_err", "truth_mag")
    if stars.empty:
        return {}
    truth, mean, sigma = (stars[name].to_numpy() for name in ("truth_mag", "mag", "mag_err"))
    n = len(stars)
    scores = {
        "e_bar": Score(_mean(sigma, seed), "Ē, mean σ", "mag", float(stars["limit_mag"].mean())),
        "e_bar_over_mae": Score(_ratio(sigma, truth - mean, seed), "Ē / MAE (1.25 where calibrated)"),
        "eta_sigma": Score(metrics.outliers_beyond_sigma(truth, mean, sigma), "η, |δ_mag| > σ_mag (31.7 % expected)"),
        "eta_literal": Score(metrics.outliers_literal(truth, mean, sigma), "η, |relative error| > σ_mag"),
        "miscalibration_area": Score(
            _area(truth, mean, sigma, seed),
            "miscalibration area",
            limit=metrics.miscalibration_floor(n, seed=seed),
        ),
        "z_scatter": Score(
            metrics.bootstrap(metrics.plain_scatter, metrics.standardised(truth, mean, sigma), seed=seed),
            "standard deviation of (truth − mean) / σ",
            limit=1.0,
        ),
    }
    for level in (0.68, 0.95):
        scores[f"coverage_{level * 100:.0f}"] = Score(
            metrics.coverage(truth, mean, sigma, level), f"share inside the {100 * level:.0f} % interval", limit=level
        )
    parts = stars.dropna(subset=["mag_aleatoric", "mag_epistemic"])
    raw = np.hypot(parts["mag_aleatoric"], parts["mag_epistemic"]).to_numpy()
    if len(parts) and (raw > 0).all():
        truth, mean = parts["truth_mag"].to_numpy(), parts["mag"].to_numpy()
        scores |= {
            "e_bar_raw": Score(_mean(raw, seed), "Ē before recalibration", "mag"),
            "e_bar_over_mae_raw": Score(_ratio(raw, truth - mean, seed), "Ē / MAE before recalibration"),
            "miscalibration_area_raw": Score(_area(truth, mean, raw, seed), "miscalibration area before recalibration"),
        }
    return scores


def ranges() -> list[tuple[float, float, str]]:
    """Return lower and upper edge and name of every magnitude bin and pool."""
    bins = [(float(low), float(low) + 1, f"{low:g}") for low in BINS[:-1]]
    return bins + [(*pool, f"{pool[0]:g}-{pool[1]:g}") for pool in POOLS]


def _positions(table: pd.DataFrame, dataset: str, method: str, seed: int, engine: str | None) -> dict[str, Score]:
    from pnet.evaluation import positions as position_scores  # which uses this module

    return position_scores.compute(table, dataset, method, seed, engine)


def _confidence(
    table: pd.DataFrame, dataset: str, method: str, seed: int, calibration: Mapping[str, Any] | None
) -> dict[str, Score]:
    if method != "pnet" or dataset not in SIMULATED:  # the others have none; a real catalogue is not complete
        return {}
    from pnet.evaluation import confidence  # which uses this module

    return confidence.compute(table, dataset, seed, calibration)


def _calibration(table: pd.DataFrame, dataset: str, method: str, seed: int) -> dict[str, Score]:
    from pnet.evaluation import error_bars as calibration_scores  # which uses this module

    return calibration_scores.compute(table, dataset, method, seed)


def _mean(values: np.ndarray, seed: int) -> Estimate:
    return metrics.bootstrap(np.mean, values, seed=seed)


def _ratio(sigma: np.ndarray, delta: np.ndarray, seed: int) -> Estimate:
    return metrics.bootstrap(
        lambda s, d, axis=-1: np.mean(s, axis=axis) / np.mean(np.abs(d), axis=axis), sigma, delta, seed=seed
    )


def _area(truth: np.ndarray, mean: np.ndarray, sigma: np.ndarray, seed: int, resamples: int = 200) -> Estimate:
    """Miscalibration area with a bootstrap interval; the toolbox takes flat arrays only, hence the loop."""
    n = truth.size
    value = metrics.miscalibration_area(truth, mean, sigma)
    if n < 5:
        return Estimate(value, n=n)
    rng = np.random.default_rng(seed)
    draws = [rng.integers(0, n, n) for _ in range(resamples)]
    areas = [metrics.miscalibration_area(truth[i], mean[i], sigma[i]) for i in draws]
    tail = (1 - metrics.LEVEL) / 2
    low, high = np.quantile(areas, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), n)
