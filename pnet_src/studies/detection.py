"""The ablation of the detection net: from the paper's choices to ours, one change a row."""

import os
from collections.abc import Iterable
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
    first = np.arange(len(truth))
    chosen = (nearest[nearest] == first) & (first < nearest)
    chosen &= (distance >= PAIR_SEPARATION[0]) & (distance < PAIR_SEPARATION[1])
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
    dx = (stars["x"] - stars["truth_x"]).to_numpy()
    log_flux = np.log(stars["flux"] / stars["truth_flux"]).to_numpy()
    return {
        "precision": precision.value,
        "recall": recall.value,
        "ap": metrics.average_precision(*curve[:2]),
        "pairs_found": pairs[0] / pairs[1] if pairs[1] else float("nan"),
        "mean_dx": float(np.abs(dx).mean()) if len(dx) else float("nan"),
        "x_scatter": float(metrics.robust_scatter(dx)) if len(dx) else float("nan"),
        "log_flux_scatter": float(metrics.robust_scatter(log_flux)) if len(dx) else float("nan"),
    }


def run(
    output: str | os.PathLike,
    chosen: TrainingSet,
    budget: FitConfig,
    *,
    batch_size: int = 8,
    field_size: int = 256,
    manifest: str = "sdss-standard",
    command: str = "",
    path: str | os.PathLike | None = None,
    progress: bool = True,
) -> Path:
    """Train every variant with the same budget on the same batches and write ``results/studies/detection.json``.

    Parameters
    ----------
    output : path
        Folder of the run; checkpoints go to ``<output>/studies/detection``.
    chosen : TrainingSet
        Simulated frames with truth.
    budget : FitConfig
        Of every variant.
    batch_size, field_size : int
        Fields in a batch, and their side in px.
    manifest : str
        SDSS frames that stars are added to.
    command : str
        Recorded in the provenance.
    path : path, optional
        Where the table goes instead.
    """
    folder = paths.folder_of(output) / "studies" / "detection"
    frames, validation = chosen.prepared(), list(chosen.read("val"))
    data, models, rows = {}, {}, []
    for index, variant in enumerate(VARIANTS):
        key = (variant.pairs, variant.injected)
        made = (variant.config, *key)
        if made not in models:
            if key not in data:
                real = batch_size // 4 if variant.injected else 0
                cut = (batch_size - real) // 2 if frames else 0
                rendered = batch_size - real - cut
                sources = [fields.RenderedFields(Recipe.load(), rendered, field_size, pairs=variant.pairs)]
                sources += [fields.FrameFields(frames, cut, field_size)] if cut else []
                sources += [injection.fields(manifest, real, field_size)] if real else []
                # one at a time: half a gigabyte each
                data = {key: ablations.Remembered(Mixed(sources, fields.concatenate))}
            models[made] = ablations.trained(
                lambda: PhotometryDetectionNet(variant.config),  # noqa: B023 (called at once)
                detection_loss,
                data[key],
                budget,
                folder / str(index),
                progress,
            )
        model, seconds = models[made]
        row = {"name": variant.name, "steps": budget.epochs * budget.steps, "seconds": round(seconds)}
        rows.append(row | scores(model, validation, "released" if variant.refined else None))
    details = ablations.described(chosen, budget, batch_size=batch_size, field_size=field_size)
    return ablations.write("detection", rows, COLUMNS, path, command=command, seed=budget.seed, **details)
