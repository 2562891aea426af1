"""What a confidence is worth: its reliability diagram, the map that makes it a probability, and both for the ledger.

The share of stars among detections of known fate is compared with the mean confidence, bin by bin (Guo et al. 2017),
and a rising map from confidence to that share (`pnet.stars.confidence.Calibration`) is fitted to validation frames.

A detection is a star's if it lies on a star of the frame's list, whatever its magnitude; one on a galaxy or on nothing
is not. Detections in the border of 10 px, where the list of a frame says little, are left out. The share of stars
depends on what a field holds: a probability from validation frames holds for fields like them.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pnet.common import metrics, paths, provenance
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import read_json, write_json
from pnet.common.metrics import Estimate
from pnet.detection.predict import detect_image
from pnet.evaluation import contaminants, scores
from pnet.evaluation.frames import read_realistic
from pnet.evaluation.scores import Score
from pnet.simulation.datasets import list_frames
from pnet.simulation.recipe import Recipe
from pnet.sky import background, matching
from pnet.stars import weights
from pnet.stars.confidence import KEY, METHODS, Calibration, logit
from pnet.stars.error_scale import scales_of
from pnet.stars.refine import refine

FLOOR = 0.01  # detections are recorded from here on
EDGES = np.concatenate([[FLOOR], np.arange(0.1, 1.01, 0.1)])  # bins of the reliability diagram
WHOLE = np.linspace(0.0, 1.0, 11)  # bins of a probability, which has no floor
LEAST = 10  # detections of each kind below which a fit says nothing


def fit(
    confidence: np.ndarray,
    is_star: np.ndarray,
    method: str = "platt",
    *,
    threshold: float | None = None,
    data: str = "validation",
) -> Calibration:
    """Fit a calibration to detections of known fate.

    Parameters
    ----------
    confidence : ndarray, (N,)
    is_star : ndarray, (N,), bool
    method : {"platt", "isotonic"}
    threshold, data
        Kept with the result.

    Raises
    ------
    ConfigError
        If the method is unknown.
    DataError
        If there are fewer than `LEAST` stars or others, or the share of stars does not rise with the confidence.
    """
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}, allowed are {', '.join(METHODS)}")
    confidence, star = metrics.flat(confidence=confidence, is_star=is_star)
    star = star.astype(bool)
    n, stars = star.size, int(star.sum())
    if min(stars, n - stars) < LEAST:
        raise DataError(f"a calibration needs {LEAST} stars and {LEAST} others at least, got {stars} and {n - stars}")
    if method == "platt":
        from sklearn.linear_model import LogisticRegression  # a second that only a fit needs

        # no penalty: two parameters, and what they are must not depend on the number of detections
        model = LogisticRegression(C=np.inf).fit(logit(confidence)[:, None], star)
        slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
        if not slope > 0:
            raise DataError(f"the share of stars falls with the confidence (slope {slope:.3g}); nothing to calibrate")
        return Calibration("platt", n, stars, slope, intercept, threshold=threshold, data=data)
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True, out_of_bounds="clip").fit(confidence, star)
    knots, values = model.X_thresholds_.tolist(), model.y_thresholds_.tolist()
    return Calibration("isotonic", n, stars, knots=tuple(knots), values=tuple(values), threshold=threshold, data=data)


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram.

    Parameters
    ----------
    table : DataFrame
        One row per bin that holds detections: ``low, high`` (its edges), ``mean`` confidence, ``share`` of stars with
        ``share_low, share_high`` (Wilson, 95 %), ``n``.
    error : Estimate
        Expected calibration error: mean over detections of |share − mean| of their bin, with bootstrap interval.
    brier : float
        Mean of (confidence − 1 for a star, − 0 for another)².
    """

    table: pd.DataFrame
    error: Estimate
    brier: float


def reliability(confidence: np.ndarray, is_star: np.ndarray, *, seed: int, edges: np.ndarray = EDGES) -> Reliability:
    """Return how the share of stars goes with the confidence, or with a probability made of it.

    Parameters
    ----------
    confidence : ndarray, (N,)
    is_star : ndarray, (N,), bool
    seed : int
        Of the bootstrap.
    edges : ndarray
        Of the bins; what lies outside counts for the outermost.
    """
    confidence, star = metrics.flat(confidence=confidence, is_star=is_star)
    index = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, len(edges) - 2)
    rows = []
    for i in range(len(edges) - 1):
        member = index == i
        if member.any():
            share = metrics.rate(int(star[member].sum()), int(member.sum()))
            rows.append(
                (edges[i], edges[i + 1], confidence[member].mean(), share.value, share.low, share.high, share.n)
            )
    columns = ["low", "high", "mean", "share", "share_low", "share_high", "n"]
    bins = len(edges) - 1

    def expected_error(each: np.ndarray, stars: np.ndarray, where: np.ndarray, axis: int = -1) -> np.ndarray:
        gap = stars - each
        sums = [np.abs(np.where(where == i, gap, 0.0).sum(axis=axis)) for i in range(bins)]
        return np.sum(sums, axis=0) / gap.shape[axis]

    error = metrics.bootstrap(expected_error, confidence, star, index.astype(float), seed=seed)
    brier = float(np.mean((confidence - star) ** 2)) if star.size else np.nan
    return Reliability(pd.DataFrame(rows, columns=columns), error, brier)


def label(rows: pd.DataFrame, size: float | None = None, edge: float = matching.EDGE) -> pd.DataFrame:
    """Return the detections of a measurement table with their fate: confidence, is_star, frame.

    Parameters
    ----------
    rows : DataFrame
        One method's rows (`measurements.COLUMNS`, or those of `matching.compare` with ``frame``).
    size : float, optional
        Width and height of the frames in px; the recipe's by default.
    edge : float
        Detections nearer to the border are left out, px.
    """
    last = (Recipe.load().size if size is None else size) - 1 - edge
    known = rows["confidence"].ge(FLOOR) & rows["x"].between(edge, last) & rows["y"].between(edge, last)
    found = rows.loc[known, ["frame", "confidence"]].reset_index(drop=True)
    return found.assign(is_star=(rows.loc[known, "truth_kind"] == "star").to_numpy())


def from_frames(
    model: Any,
    files: Iterable[str | os.PathLike],
    refiner: tuple[Any, Mapping[str, Any]] | None = None,
    *,
    progress: Callable[[Iterable], Iterable] | None = None,
) -> pd.DataFrame:
    """Return what a detection net finds on simulated frames beside their lists, down to `FLOOR`.

    Parameters
    ----------
    model : PhotometryDetectionNet
        In evaluation mode.
    files : iterable of path
        Validation frames, plain or with galaxies.
    refiner : (network, card), optional
        Refinement step, as from `weights.load`; without it positions and fluxes are those of the map.
    progress : callable, optional
        Wraps the iterable, such as ``tqdm``.

    Returns
    -------
    DataFrame
        As from `matching.compare`, with ``frame`` and ``method``; counted as in `pnet.evaluation.contaminants`.
        ``mag`` is the net's own magnitude.
    """
    parts = []
    for file in progress(files) if progress else files:
        frame, truth = read_realistic(file)
        subtracted = background.subtracted(frame)
        found = detect_image(model, *subtracted, FLOOR)
        if refiner is not None:
            found = refine(refiner[0], frame, found, scales_of(refiner[1]), subtracted)
        found = found.assign(mag=frame.magnitude(found["flux"].to_numpy()))
        rows = matching.compare(truth, found, frame.shape, mask=frame.mask)
        # frames of two splits may bear one name
        parts.append(rows.assign(frame=f"{Path(file).parent.name}/{frame.name}", method="pnet"))
    if not parts:
        raise MissingError("no validation frames were given")
    return pd.concat(parts, ignore_index=True)


def validation_frames(folder: str | os.PathLike) -> list[Path]:
    """Return the frames of a folder with which a confidence is calibrated.

    They are the plain star fields of its ``val`` and the fields with galaxies of its ``val``, or of its ``train`` where
    ``val`` has none.

    Raises
    ------
    MissingError
        If there are none.
    """
    folder = Path(folder)
    galaxies = list_frames(folder / "val", "realistic") or list_frames(folder / "train", "realistic")
    found = [*list_frames(folder / "val", "paper"), *galaxies]
    if not found:
        raise MissingError(f"{folder}: neither val/paper-*.fits nor val/ or train/realistic-*.fits are there")
    return found


def calibrate_card(
    card: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    refiner: str | os.PathLike | None = "released",
    method: str = "platt",
    seed: int = 2023,
    progress: Callable[[Iterable], Iterable] | None = None,
) -> tuple[Calibration, Reliability, Reliability]:
    """Calibrate the confidence of a detection net and keep the result on its card, which is rewritten atomically.

    The card gets `KEY`, with the threshold for fields with galaxies (`contaminants.choose_threshold`) where there are
    any, and says under ``confidence_calibrated`` by which command, when and by which commit. The reliability after the
    calibration is cross-validated: every frame is judged by a calibration that was fitted to others.

    Parameters
    ----------
    card : path
        Of a detection net, as in `weights.resolve`.
    folder : path
        See `validation_frames`.
    refiner : str or path, optional
        Weights of the refinement step, as in `weights.resolve`; None for the map's positions.
    method : {"platt", "isotonic"}
    seed : int
        Of the bootstrap intervals.
    progress : callable, optional
        Wraps the iterable of frames.

    Returns
    -------
    Calibration
        As on the card.
    before, after : Reliability
    """
    path = weights.resolve("detection", card)
    model, _ = weights.load("detection", path)
    files = validation_frames(folder)
    step = weights.load("refiner", refiner) if refiner else None
    rows = from_frames(model, files, step, progress=progress)
    detections = label(rows)
    galaxies = rows[rows["frame"].str.contains("/realistic-")]
    threshold = contaminants.choose_threshold(galaxies) if len(galaxies) else None
    counts = pd.Series([f"{file.parent.name}/{file.name.split('-')[0]}" for file in files]).value_counts()
    data = ", ".join(f"{n} frames {name}-*" for name, n in sorted(counts.items()))
    confidence, star = detections["confidence"].to_numpy(), detections["is_star"].to_numpy()
    result = fit(confidence, star, method, threshold=threshold, data=data)
    before = reliability(confidence, star, seed=seed)
    after = reliability(cross_validated(detections, method), star, seed=seed, edges=WHOLE)
    errors = {
        name: [each.error.value, each.error.low, each.error.high]
        for name, each in (("before", before), ("after", after))
    }
    content = read_json(path)
    content[KEY] = {**result.as_dict(), "expected_calibration_error": errors}
    command = (
        f"python -m pnet calibrate-confidence {paths.shown(card)} --frames {paths.shown(folder)} --method {method}"
    )
    content["confidence_calibrated"] = provenance.record(
        f"{command} --seed {seed}",
        seed,
        "cpu",
        frames=[f"{file.parent.name}/{file.name}" for file in files],
        found_by={"detection": content["sha256"]} | ({"refiner": step[1]["sha256"]} if step else {}),
    )
    write_json(path, content)
    return result, before, after


def cross_validated(detections: pd.DataFrame, method: str, folds: int = 5) -> np.ndarray:
    """Return each detection's probability from a calibration that was fitted to other frames.

    Parameters
    ----------
    detections : DataFrame
        As from `label`.
    method : {"platt", "isotonic"}
    folds : int
        Groups of frames.
    """
    group = pd.factorize(detections["frame"])[0] % folds
    result = np.full(len(detections), np.nan)
    for fold in range(folds):
        held = group == fold
        if held.any():
            others = detections[~held]
            result[held] = fit(others["confidence"], others["is_star"], method).apply(detections["confidence"][held])
    return result


# --- numbers for the ledger ---


def pair(rows: pd.DataFrame, calibration: Calibration | None, *, seed: int) -> tuple[Reliability, Reliability | None]:
    """Return the reliability of the confidence and of the calibrated probability (None without a calibration).

    Parameters
    ----------
    rows : DataFrame
        PNet's measurements on one simulated data set (`measurements.COLUMNS`).
    calibration : Calibration, optional
    seed : int
        Of the bootstrap intervals.
    """
    known = label(rows)
    values, star = known["confidence"].to_numpy(), known["is_star"].to_numpy()
    before = reliability(values, star, seed=seed)
    if calibration is None:
        return before, None
    return before, reliability(calibration.apply(values), star, seed=seed, edges=WHOLE)


def compute(table: pd.DataFrame, dataset: str, method: str, seed: int, record: Mapping[str, Any]) -> dict[str, Score]:
    """Return the calibration errors and, on frames with galaxies, the rates at the chosen threshold.

    Only of PNet, the others have no such confidence, and on simulated frames: a real catalogue is not complete. What
    was fitted is the field `pnet.stars.confidence.KEY` of `record`.
    """
    if method != "pnet" or dataset not in scores.SIMULATED:
        return {}
    fitted = Calibration.from_dict(record[KEY]) if record.get(KEY) else None
    found: dict[str, Score] = {}
    whats = {"confidence": "of the confidence", "probability": "of the calibrated probability"}
    for (name, what), known in zip(whats.items(), pair(table, fitted, seed=seed), strict=True):
        if known is not None and known.error.n:
            brier = Estimate(known.brier, n=known.error.n)
            found[f"{name}_error"] = Score(known.error, f"expected calibration error {what}", limit=0.0)
            found[f"{name}_brier"] = Score(brier, f"Brier score {what.replace('calibrated ', '')}")
    if not found or dataset != "realistic" or fitted is None or fitted.threshold is None:
        return found
    rates = contaminants.rates(scores.working(table, dataset, method, fitted.threshold))
    at_chosen = f"confidence ≥ {fitted.threshold:g}, chosen on validation frames"
    found["threshold_chosen"] = Score(Estimate(fitted.threshold, n=fitted.n), "threshold chosen on validation frames")
    found["recall_at_chosen"] = Score(rates["recall"], f"recall, {at_chosen}", limit=1.0)
    for name, title in contaminants.PRECISIONS.items():
        found[f"{name}_at_chosen"] = Score(rates[name], f"precision, {at_chosen}; {title}", limit=1.0)
    return found
