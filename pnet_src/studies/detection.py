"""The ablation of the detection net: from the paper's choices to ours, one change a row."""

import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from torch import nn

from pnet.common import metrics, paths
from pnet.detection.losses import detection_loss
from pnet.detection.network import DetectionConfig, PhotometryDetectionNet
from pnet.detection.predict import LOWEST, detect
from pnet.evaluation.scores import curve_input, rates
from pnet.frame import Frame
from pnet.simulation.recipe import Recipe
from pnet.sky import matching
from pnet.stars import weights
from pnet.stars.error_scale import scales_of
from pnet.stars.refine import refine
from pnet.training import fields, injection
from pnet.training.config import FitConfig
from pnet.training.fit import Mixed
from pnet.training.sets import TrainingSet
from studies import ablations

# Narrower than the released net, so that a row takes minutes.
LITERAL = DetectionConfig(16, (24, 24, 32, 32, 32), 2, 24, "asinh", "log", 0)
OURS = replace(LITERAL, inputs="asinh+linear", flux="correction", offset_reach=1)
PAIR_SEPARATION = (4.0, 8.0)  # px
CONFIDENCE = 0.3
BATCH_SIZE, FIELD_SIZE = 8, 256  # fields in a batch, and their side in px
COLUMNS = {
    "name": "variant",
    "precision": "precision",
    "recall": "recall",
    "ap": "average precision",
    "pairs_found": "pairs of 4–8 px: both found",
    "mean_dx": "mean |Δx| / px",
    "x_scatter": "scatter of x / px",
    "log_flux_scatter": "scatter of ln flux",
    "steps": "steps",
}


@dataclass(frozen=True)
class Variant:
    """A row: the network and the shares of the training data that differ."""

    name: str
    config: DetectionConfig
    pairs: float = fields.PAIRS
    injected: bool = True
    refined: bool = False


VARIANTS = (
    Variant("the paper's choices: asinh input, ln flux, offset in the star's own cell", LITERAL),
    Variant("+ a linear channel", replace(LITERAL, inputs="asinh+linear")),
    Variant("+ flux as a correction to an aperture's", replace(OURS, offset_reach=0)),
    Variant("+ offsets in the cells around (ours)", OURS),
    Variant("ours, no partners in the rendered fields", OURS, pairs=0.0),
    Variant("ours, no real sky", OURS, injected=False),
    Variant("ours and the released refinement step", OURS, refined=True),
)


def pairs_found(truth: pd.DataFrame, found: pd.DataFrame) -> tuple[int, int]:
    """Return of how many pairs of stars of PAIR_SEPARATION both are found, and how many pairs there are.

    A pair is two stars that are each other's nearest neighbour.
    """
    if len(truth) < 2:
        return 0, 0
    places = truth[["x", "y"]].to_numpy(float)
    distance, nearest = (each[:, 1] for each in cKDTree(places).query(places, k=2))
    first, (least, most) = np.arange(len(truth)), PAIR_SEPARATION
    chosen = (nearest[nearest] == first) & (first < nearest) & (distance >= least) & (distance < most)
    source = matching.match(*places.T, *(found[name].to_numpy(float) for name in ("x", "y", "confidence")))
    hit = np.isin(first, source)
    return int((hit & hit[nearest] & chosen).sum()), int(chosen.sum())


def scores(model: nn.Module, frames: Iterable[tuple[Frame, pd.DataFrame]], refiner: str | None) -> dict[str, float]:
    """Return the columns of a row from validation frames with marked truth."""
    step, card = weights.load("refiner", refiner) if refiner else (None, {})
    tables, pairs = [], np.zeros(2, dtype=int)
    for frame, truth in frames:
        found = detect(model, frame, LOWEST)
        if step is not None:
            found = refine(step, frame, found, scales_of(card))
        found["mag"] = frame.magnitude(found["flux"])
        pairs += pairs_found(truth, found[found["confidence"] >= CONFIDENCE])
        tables.append(matching.compare(truth, found, frame.shape))
    table = pd.concat(tables, ignore_index=True)
    at = matching.at_threshold(table, CONFIDENCE)
    precision, recall = rates(at)
    curve = metrics.precision_recall_curve(*curve_input(table))
    stars = at[at["status"] == matching.MATCHED]
    row = {"precision": precision.value, "recall": recall.value, "ap": metrics.average_precision(*curve[:2])}
    row["pairs_found"] = pairs[0] / pairs[1] if pairs[1] else np.nan
    if stars.empty:
        return row | dict.fromkeys(("mean_dx", "x_scatter", "log_flux_scatter"), np.nan)
    dx = (stars["x"] - stars["truth_x"]).to_numpy()
    log_flux = np.log(stars["flux"] / stars["truth_flux"]).to_numpy()
    scatters = {"x_scatter": metrics.robust_scatter(dx), "log_flux_scatter": metrics.robust_scatter(log_flux)}
    return row | {name: float(value) for name, value in {"mean_dx": np.abs(dx).mean(), **scatters}.items()}


def run(
    output: str | os.PathLike, chosen: TrainingSet, budget: FitConfig, *, command: str, progress: bool = True
) -> Path:
    """Train every variant with the same budget on the same batches and write ``results/studies/detection.json``.

    Parameters
    ----------
    output : path
        Folder of the run; checkpoints go to ``<output>/studies/detection``, so that an interrupted study goes on.
    chosen : TrainingSet
        Simulated frames with truth.
    budget : FitConfig
        Of every variant.
    command : str
        Recorded in the provenance.
    """
    folder = paths.folder_of(output) / "studies" / "detection"
    frames, validation = chosen.prepared(), list(chosen.read("val"))
    data, models, rows = {}, {}, []
    for index, variant in enumerate(VARIANTS):
        key = (variant.pairs, variant.injected)
        made = (variant.config, *key)
        if made not in models:
            # one at a time: half a gigabyte each
            data = data if key in data else {key: ablations.remembered(_batches(frames, *key))}
            build = functools.partial(PhotometryDetectionNet, variant.config)
            models[made] = ablations.trained(build, detection_loss, data[key], budget, folder / str(index), progress)
        model, seconds = models[made]
        row = {"name": variant.name, "steps": budget.epochs * budget.steps, "seconds": round(seconds)}
        rows.append(row | scores(model, validation, "released" if variant.refined else None))
    details = ablations.described(chosen, budget, batch_size=BATCH_SIZE, field_size=FIELD_SIZE)
    return ablations.write("detection", rows, COLUMNS, command, budget.seed, **details)


def _batches(frames: Sequence[fields.PreparedFrame], pairs: float, injected: bool) -> Mixed:
    """Return rendered fields, cut-outs of frames, and real sky with stars added, in one batch."""
    real = BATCH_SIZE // 4 if injected else 0
    cut = (BATCH_SIZE - real) // 2 if frames else 0
    sources = [fields.RenderedFields(Recipe.load(), BATCH_SIZE - real - cut, FIELD_SIZE, pairs=pairs)]
    sources += [fields.FrameFields(frames, cut, FIELD_SIZE)] if cut else []
    sources += [injection.fields("sdss-standard", real, FIELD_SIZE)] if real else []
    return Mixed(sources, fields.concatenate)
