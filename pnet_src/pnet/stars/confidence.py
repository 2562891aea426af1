"""What a confidence is worth: its reliability diagram, and a map that makes it the probability of a star.

The detection net gives every detection a confidence between 0 and 1, a peak of a map that was trained to be 1 on
stars and to fall off around them (Eq. 19). Nothing makes 0.8 of it mean that 80 % of such detections are stars. Here
the share of stars among detections of known fate is compared with the mean confidence, bin by bin (Guo et al. 2017),
and a rising map from confidence to that share is fitted to validation frames:

- "platt": logit p = slope · logit c + intercept (Platt 1999), two numbers that cannot follow every shape;
- "isotonic": any rising map (Zadrozny & Elkan 2002), which needs more detections.

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
from scipy import special
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from pnet.common import metrics
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import read_json, write_json
from pnet.common.metrics import Estimate
from pnet.sky import matching

METHODS = ("platt", "isotonic")
FLOOR = 0.01  # as in `evaluation`: detections are recorded from here on
EDGES = np.concatenate([[FLOOR], np.arange(0.1, 1.01, 0.1)])  # bins of the reliability diagram
LEAST = 10  # detections of each kind below which a fit says nothing
KEY = "confidence_calibration"  # the card's field


@dataclass(frozen=True)
class Calibration:
    """A fitted map from confidence to the probability that a detection is a star; make it with `fit`.

    Parameters
    ----------
    method : {"platt", "isotonic"}
    n, n_stars : int
        Detections it was fitted on, and how many of them are stars.
    slope, intercept : float
        Of "platt".
    knots, values : tuple of float
        Of "isotonic": confidences, rising, and the probabilities there; straight lines between.
    threshold : float, optional
        Confidence that was chosen for fields with galaxies, see `realistic.choose_threshold`.
    data : str
        What it was fitted on.
    """

    method: str
    n: int
    n_stars: int
    slope: float = 1.0
    intercept: float = 0.0
    knots: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    threshold: float | None = None
    data: str = ""

    def __post_init__(self):
        if self.method not in METHODS:
            raise ConfigError(f"method is {self.method!r}, allowed are {', '.join(METHODS)}")
        if not (np.isfinite([self.slope, self.intercept]).all() and self.slope > 0):
            raise DataError(f"slope is {self.slope}, intercept {self.intercept}: a rising map is needed")
        rising = len(self.knots) == len(self.values) and all(
            np.diff(each).min(initial=0.0) >= 0 for each in (self.knots, self.values)
        )
        if self.method == "isotonic" and not (rising and len(self.knots)):
            raise DataError("an isotonic map needs the same number (1 or more) of knots and values, both rising")

    def apply(self, confidence: np.ndarray) -> np.ndarray:
        """Return the probability that detections of these confidences are stars; NaN stays NaN."""
        confidence = np.asarray(confidence, dtype=float)
        if self.method == "isotonic":
            return np.where(np.isnan(confidence), np.nan, np.interp(confidence, self.knots, self.values))
        return special.expit(self.slope * _logit(confidence) + self.intercept)

    def as_dict(self) -> dict[str, Any]:
        """Return what a card keeps."""
        kept = {"method": self.method, "n": self.n, "n_stars": self.n_stars}
        if self.method == "platt":
            kept |= {"slope": self.slope, "intercept": self.intercept}
        else:
            kept |= {"knots": list(self.knots), "values": list(self.values)}
        return kept | {"threshold": self.threshold, "data": self.data}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Calibration":
        """Return the calibration that `as_dict` described.

        Raises
        ------
        DataError
            If a value is missing or of another kind.
        """
        try:
            threshold = content.get("threshold")
            return cls(
                content["method"],
                int(content["n"]),
                int(content["n_stars"]),
                float(content.get("slope", 1.0)),
                float(content.get("intercept", 0.0)),
                tuple(float(value) for value in content.get("knots", ())),
                tuple(float(value) for value in content.get("values", ())),
                None if threshold is None else float(threshold),
                str(content.get("data", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{KEY} is not a calibration of the confidence: {error!r}") from error


def of_card(card: Mapping[str, Any]) -> Calibration | None:
    """Return the calibration on a detection net's card, None where it has none."""
    return Calibration.from_dict(card[KEY]) if card.get(KEY) else None


def _logit(confidence: np.ndarray) -> np.ndarray:
    # single precision rounds the most certain detections to exactly 1
    return special.logit(np.clip(confidence, 1e-6, 1 - 1e-6))


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
        # no penalty: two parameters, and what they are must not depend on the number of detections
        model = LogisticRegression(C=np.inf).fit(_logit(confidence)[:, None], star)
        slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
        if not slope > 0:
            raise DataError(f"the share of stars falls with the confidence (slope {slope:.3g}); nothing to calibrate")
        return Calibration("platt", n, stars, slope, intercept, threshold=threshold, data=data)
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
        One method's rows (`evaluation.COLUMNS`, or those of `matching.compare` with ``frame``).
    size : float, optional
        Width and height of the frames in px; the recipe's by default.
    edge : float
        Detections nearer to the border are left out, px.
    """
    from pnet.simulation.recipe import Recipe

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
    from pnet.detection.predict import detect_image
    from pnet.evaluation.frames import read_realistic
    from pnet.sky import background
    from pnet.stars.error_scale import scales_of
    from pnet.stars.refine import refine

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
    from pnet.simulation.recipe import list_frames

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

    The card gets `KEY`, with the threshold for fields with galaxies (`realistic.choose_threshold`) where there are
    any. The reliability after the calibration is cross-validated: every frame is judged by a calibration that was
    fitted to others.

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
    from pnet.evaluation import contaminants as realistic
    from pnet.stars import weights

    path = weights.resolve("detection", card)
    model, _ = weights.load("detection", path)
    files = validation_frames(folder)
    step = weights.load("refiner", refiner) if refiner else None
    rows = from_frames(model, files, step, progress=progress)
    detections = label(rows)
    galaxies = rows[rows["frame"].str.contains("/realistic-")]
    threshold = realistic.choose_threshold(galaxies) if len(galaxies) else None
    counts = pd.Series([f"{file.parent.name}/{file.name.split('-')[0]}" for file in files]).value_counts()
    data = ", ".join(f"{n} frames {name}-*" for name, n in sorted(counts.items()))
    confidence, star = detections["confidence"].to_numpy(), detections["is_star"].to_numpy()
    result = fit(confidence, star, method, threshold=threshold, data=data)
    before = reliability(confidence, star, seed=seed)
    after = reliability(cross_validated(detections, method), star, seed=seed, edges=np.linspace(0, 1, 11))
    errors = {
        name: [each.error.value, each.error.low, each.error.high]
        for name, each in (("before", before), ("after", after))
    }
    content = read_json(path)
    content[KEY] = {**result.as_dict(), "expected_calibration_error": errors}
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
