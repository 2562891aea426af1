"""The ablation of the detection net: from the paper's choices to ours, one change a row."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.spatial import cKDTree
from torch import nn

from pnet.common import metrics, paths
from pnet.common.seeds import derive
from pnet.detection.losses import detection_loss
from pnet.detection.network import DetectionConfig, PhotometryDetectionNet
from pnet.detection.predict import LOWEST, detect
from pnet.frame import Frame
from pnet.simulation.recipe import Recipe
from pnet.sky import matching
from pnet.stars import weights
from pnet.stars.error_scale import scales_of
from pnet.stars.refine import refine
from pnet.training import fields as fielddata
from pnet.training import injection
from pnet.training import sets as trainingsets
from pnet.training.fit import FitConfig, Mixed, fit
from studies.stars import Remembered, write

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
    pairs: float = fielddata.PAIRS
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
    x, y = truth["x"].to_numpy(float), truth["y"].to_numpy(float)
    if len(truth) < 2:
        return 0, 0
    distance, nearest = cKDTree(np.column_stack([x, y])).query(np.column_stack([x, y]), k=2)
    distance, nearest = distance[:, 1], nearest[:, 1]
    first = np.arange(len(truth))
    chosen = (nearest[nearest] == first) & (first < nearest)
    chosen &= (distance >= PAIR_SEPARATION[0]) & (distance < PAIR_SEPARATION[1])
    source = matching.match(x, y, *(found[name].to_numpy(float) for name in ("x", "y", "confidence")))
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
    counts = at["status"].value_counts()
    true, false, missed = (int(counts.get(name, 0)) for name in (matching.MATCHED, matching.FALSE, matching.MISSED))
    curve = metrics.precision_recall_curve(
        table.loc[table["status"] == matching.MATCHED, "confidence"],
        table.loc[table["status"] == matching.FALSE, "confidence"],
        true + missed,
    )
    stars = at[at["status"] == matching.MATCHED]
    dx = (stars["x"] - stars["truth_x"]).to_numpy()
    log_flux = np.log(stars["flux"] / stars["truth_flux"]).to_numpy()
    return {
        "precision": metrics.precision(true, false).value,
        "recall": metrics.recall(true, missed).value,
        "ap": metrics.average_precision(*curve[:2]),
        "pairs_found": pairs[0] / pairs[1] if pairs[1] else float("nan"),
        "mean_dx": float(np.abs(dx).mean()) if len(dx) else float("nan"),
        "x_scatter": float(metrics.robust_scatter(dx)) if len(dx) else float("nan"),
        "log_flux_scatter": float(metrics.robust_scatter(log_flux)) if len(dx) else float("nan"),
    }


def run(
    output: str | os.PathLike,
    *,
    train: Sequence[str | os.PathLike],
    val: Sequence[str | os.PathLike],
    manifest: str = "sdss-standard",
    epochs: int = 4,
    steps: int = 100,
    batch_size: int = 8,
    field_size: int = 256,
    learning_rate: float = 2e-3,
    precision: str = "bf16-mixed",
    seed: int = 2023,
    command: str = "",
    path: str | os.PathLike | None = None,
    progress: bool = True,
) -> Path:
    """Train every variant with the same budget on the same batches and write ``results/studies/detection.json``.

    Parameters
    ----------
    output : path
        Folder of the run; checkpoints go to ``<output>/studies/detection``.
    train, val : sequence of path
        Simulated frames with truth.
    manifest : str
        SDSS frames that stars are added to.
    epochs, steps, batch_size, field_size, learning_rate, precision, seed
        The budget of every variant, see `FitConfig`.
    command : str
        Recorded in the provenance.
    path : path, optional
        Where the table goes instead.
    """
    folder = paths.folder_of(output) / "studies" / "detection"
    chosen = trainingsets.TrainingSet(train, val)
    frames, validation = chosen.prepared(), list(chosen.read("val"))
    recipe, data, models, rows = Recipe.load(), {}, {}, []
    for index, variant in enumerate(VARIANTS):
        key = (variant.pairs, variant.injected)
        made = (variant.config, *key)
        if made not in models:
            if key not in data:
                into_real = batch_size // 4 if variant.injected else 0
                cut = (batch_size - into_real) // 2 if frames else 0
                sources = [
                    fielddata.RenderedFields(recipe, batch_size - into_real - cut, field_size, pairs=variant.pairs)
                ]
                if cut:
                    sources.append(fielddata.FrameFields(frames, cut, field_size))
                if into_real:
                    sources.append(injection.fields(manifest, into_real, field_size))
                data = {key: Remembered(Mixed(sources, fielddata.concatenate))}  # one at a time: half a GB each
            torch.manual_seed(derive(seed, "initial weights"))
            model = PhotometryDetectionNet(variant.config).to(memory_format=torch.channels_last)
            fitting = FitConfig(epochs=epochs, steps=steps, learning_rate=learning_rate, precision=precision, seed=seed)
            history = fit(model, detection_loss, data[key], fitting, folder / str(index), devices=1, progress=progress)
            models[made] = (model.cpu().eval(), round(sum(row["seconds"] for row in history)))
        model, seconds = models[made]
        row = {"name": variant.name, "steps": epochs * steps, "seconds": seconds}
        rows.append(row | scores(model, validation, "released" if variant.refined else None))
    return write(
        "detection", rows, COLUMNS, command, seed, path,
        val_frames=chosen.names("val"), train_frames=len(chosen.train),
        budget={"epochs": epochs, "steps": steps, "batch_size": batch_size, "field_size": field_size,
                "learning_rate": learning_rate},
    )  # fmt: skip
