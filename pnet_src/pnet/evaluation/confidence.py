"""What a confidence is worth: its reliability diagram, the map that makes it a probability, and both for the ledger.

The share of stars among detections of known fate is compared with the mean confidence, bin by bin (Guo et al. 2017),
and a rising map from confidence to that share (`pnet.stars.confidence.Calibration`) is fitted to validation frames.

A detection is a star's if it lies on a star of the frame's list, whatever its magnitude; one on a galaxy or on nothing
is not. Detections in the border of 10 px, where the list of a frame says little, are left out. The share of stars
depends on what a field holds: a probability from validation frames holds for fields like them.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pnet.common import metrics, paths, provenance
from pnet.common.errors import DataError, MissingError
from pnet.common.files import read_json, write_json
from pnet.common.metrics import Estimate
from pnet.evaluation import detections
from pnet.evaluation.frames import Source, read_realistic
from pnet.evaluation.measurements import FLOOR, Measurer, evaluate, pnet_measurer
from pnet.evaluation.scores import Sample, Score
from pnet.frame import Frame
from pnet.simulation.datasets import list_frames
from pnet.stars import weights
from pnet.stars.confidence import KEY, Calibration, logit, of_card

EDGES = np.concatenate([[FLOOR], np.arange(0.1, 1.01, 0.1)])  # bins of the reliability diagram
WHOLE = np.linspace(0.0, 1.0, 11)  # bins of a probability, which has no floor
LEAST = 10  # detections of each kind below which a fit says nothing
FOLDS = 5  # groups of frames of the cross-validation


def label(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the detections of a measurement table with their fate: frame, confidence, is_star.

    `rows` are one method's on simulated frames (`measurements.COLUMNS`). Detections in the border are left out.
    """
    known = rows[rows["confidence"].ge(FLOOR) & detections.inside(rows, "x", "y")]
    return known[["frame", "confidence"]].assign(is_star=known["truth_kind"] == "star").reset_index(drop=True)


def fit(known: pd.DataFrame, *, threshold: float | None = None, data: str = "validation") -> Calibration:
    """Fit a calibration to detections of known fate, as from `label`; `threshold` and `data` are kept with it.

    A DataError if there are fewer than `LEAST` stars or others, or their share does not rise with the confidence.
    """
    from sklearn.linear_model import LogisticRegression  # a second that only a fit needs

    n, stars = len(known), int(known["is_star"].sum())
    if min(stars, n - stars) < LEAST:
        raise DataError(f"a calibration needs {LEAST} stars and {LEAST} others at least, got {stars} and {n - stars}")
    # no penalty: two parameters, and what they are must not depend on the number of detections
    model = LogisticRegression(C=np.inf).fit(logit(known["confidence"].to_numpy())[:, None], known["is_star"])
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    if not slope > 0:
        raise DataError(f"the share of stars falls with the confidence (slope {slope:.3g}); nothing to calibrate")
    return Calibration(n, stars, slope, intercept, threshold, data)


def cross_validated(known: pd.DataFrame) -> np.ndarray:
    """Return each detection's probability, (N,), from a calibration fitted to the other of `FOLDS` groups of frames.

    `known` is as from `label`.
    """
    group, result = pd.factorize(known["frame"])[0] % FOLDS, known["confidence"].to_numpy(copy=True)
    for held in (group == fold for fold in np.unique(group)):
        result[held] = fit(known[~held]).apply(result[held])
    return result


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram.

    Parameters
    ----------
    table : DataFrame
        One row per bin that holds detections: ``mean`` confidence and ``share`` of stars, an Estimate.
    error : Estimate
        Expected calibration error: mean over detections of |share − mean| of their bin, with bootstrap interval.
    brier : float
        Mean of (confidence − 1 for a star, − 0 for another)².
    """

    table: pd.DataFrame
    error: Estimate
    brier: float


def reliability(known: pd.DataFrame, *, seed: int, edges: np.ndarray = EDGES) -> Reliability:
    """Return how the share of stars goes with the confidence, or with a probability that stands in its column.

    `known` is as from `label`, `seed` is that of the bootstrap. What lies outside the bins' `edges` counts for the
    outermost.
    """
    confidence, star = (known[name].to_numpy(float) for name in ("confidence", "is_star"))
    bins = len(edges) - 1
    index = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    held = [index == i for i in np.unique(index)]
    rows = [(confidence[members].mean(), metrics.share(star[members] == 1)) for members in held]

    def expected_error(gap: np.ndarray, where: np.ndarray, axis: int = -1) -> np.ndarray:
        sums = [np.abs(np.where(where == i, gap, 0.0).sum(axis=axis)) for i in range(bins)]
        return np.sum(sums, axis=0) / gap.shape[axis]

    error = metrics.bootstrap(expected_error, star - confidence, index.astype(float), seed=seed)
    brier = float(np.mean((confidence - star) ** 2)) if star.size else np.nan
    return Reliability(pd.DataFrame(rows, columns=["mean", "share"]), error, brier)


def pair(rows: pd.DataFrame, calibration: Calibration | None, *, seed: int) -> tuple[Reliability, Reliability | None]:
    """Return the reliability of the confidence and of the calibrated probability (None without a calibration).

    `rows` are as for `label`, of PNet on one data set; `seed` is that of the bootstrap intervals.
    """
    known = label(rows)
    if calibration is None:
        return reliability(known, seed=seed), None
    probability = known.assign(confidence=calibration.apply(known["confidence"].to_numpy()))
    return reliability(known, seed=seed), reliability(probability, seed=seed, edges=WHOLE)


def compute(sample: Sample) -> dict[str, Score]:
    """Return the calibration errors and, on frames with galaxies, the rates at the chosen threshold.

    Only of networks, the others have no such confidence, and on simulated frames: a real catalogue is not complete.
    What was fitted is the field `pnet.stars.confidence.KEY` of the sample's record.
    """
    if not (sample.network and sample.simulated):
        return {}
    fitted, found = of_card(sample.record), {}
    for name, known in zip(("confidence", "probability"), pair(sample.rows, fitted, seed=sample.seed), strict=True):
        if known is not None and (n := known.error.n):
            what = f"of the {'calibrated ' if name == 'probability' else ''}{name}"
            found[f"{name}_error"] = Score(known.error, f"expected calibration error {what}", limit=0.0)
            found[f"{name}_brier"] = Score(Estimate(known.brier, n=n), f"Brier score of the {name}")
    if found and sample.dataset == "realistic" and fitted and fitted.threshold is not None:
        rates, threshold = detections.rates(sample.rows, fitted.threshold), Estimate(fitted.threshold, n=fitted.n)
        found["threshold_chosen"] = Score(threshold, "threshold chosen on validation frames")
        at = f"confidence ≥ {fitted.threshold:g}, chosen on validation frames"
        titles = {"recall": f"recall, {at}"}
        titles |= {name: f"precision, {at}; {title}" for name, title in detections.PRECISIONS.items()}
        found |= {f"{name}_at_chosen": Score(rates[name], title, limit=1.0) for name, title in titles.items()}
    return found


def from_frames(files: Sequence[Path], measurer: Measurer, progress: bool) -> pd.DataFrame:
    """Return what PNet finds on simulated frames beside their lists, as `measurements.evaluate` does.

    Frames are named with their folder, since those of two splits may bear one name.
    """

    def read(file: Path) -> tuple[Frame, pd.DataFrame]:
        frame, truth = read_realistic(file)
        return replace(frame, name=f"{file.parent.name}/{frame.name}"), truth

    return evaluate(Source(files, read), {"pnet": measurer}, "validation", progress=progress)


def validation_frames(folder: str | os.PathLike) -> list[Path]:
    """Return the frames of a folder with which a confidence is calibrated; a MissingError if there are none.

    They are the plain star fields of its ``val`` and the fields with galaxies of its ``val``, or of its ``train`` where
    ``val`` has none.
    """
    folder = Path(folder)
    galaxies = list_frames(folder / "val", "realistic") or list_frames(folder / "train", "realistic")
    found = [*list_frames(folder / "val", "paper"), *galaxies]
    if not found:
        raise MissingError(f"{folder}: neither val/paper-*.fits nor val/ or train/realistic-*.fits are there")
    return found


def calibrate_card(
    card: str | os.PathLike, folder: str | os.PathLike, *, seed: int = 2023, progress: bool = False
) -> tuple[Calibration, Reliability, Reliability]:
    """Calibrate the confidence of a detection net and keep the result on its card, which is rewritten atomically.

    The card gets `KEY`, with the threshold for fields with galaxies (`detections.choose_threshold`) where there are
    any, and says under ``confidence_calibrated`` by which command, when and by which commit.

    Parameters
    ----------
    card : str or path
        Weights of a detection net, as for `pnet.measure.PNet.load`; the released BPNN measures what it finds.
    folder : path
        See `validation_frames`.
    seed : int
        Of the bootstrap intervals.

    Returns
    -------
    Calibration
        As on the card.
    before, after : Reliability
        The latter is cross-validated: every frame is judged by a calibration that was fitted to others.
    """
    path, files = weights.resolve("detection", card), validation_frames(folder)
    measurer = pnet_measurer(detection=path, seed=seed)
    rows = from_frames(files, measurer, progress)
    galaxies = rows[rows["frame"].str.contains("/realistic-")]
    threshold = detections.choose_threshold(galaxies) if len(galaxies) else None
    counts = Counter(f"{file.parent.name}/{file.name.split('-')[0]}" for file in files)
    data = ", ".join(f"{n} frames {name}-*" for name, n in sorted(counts.items()))
    known = label(rows)
    result, before = fit(known, threshold=threshold, data=data), reliability(known, seed=seed)
    after = reliability(known.assign(confidence=cross_validated(known)), seed=seed, edges=WHOLE)
    errors = {name: [e.value, e.low, e.high] for name, e in (("before", before.error), ("after", after.error))}
    command = f"python -m pnet calibrate-confidence {paths.shown(card)} --frames {paths.shown(folder)} --seed {seed}"
    frames = [f"{file.parent.name}/{file.name}" for file in files]
    made = provenance.record(command, seed, "cpu", frames=frames, found_by=measurer.provenance["weights"])
    calibration = result.as_dict() | {"expected_calibration_error": errors}
    write_json(path, read_json(path) | {KEY: calibration, "confidence_calibrated": made})
    return result, before, after
