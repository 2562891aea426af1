"""The ablation of the detection net: the paper's as written, each change to ours alone, and all of them together."""

import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
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
from pnet.sky import background, matching
from pnet.stars.fitted import fitted_stars
from pnet.training import fields, injection
from pnet.training.config import FitConfig
from pnet.training.fit import Mixed
from pnet.training.sets import TrainingSet
from studies import ablations

# The paper's reading as written and its changes; narrower than the released nets, so that a row takes minutes.
LITERAL = DetectionConfig(16, (24, 24, 32, 32, 32), 2, 24, "asinh", "linear", 0, "hard")
SOFT, CORRECTION, CHANNEL = {"focal": "soft"}, {"flux": "correction"}, {"inputs": "asinh+linear"}
OURS = replace(LITERAL, **SOFT, **CORRECTION, **CHANNEL, offset_reach=1)
PAIR_SEPARATION = (4.0, 8.0)  # px
CONFIDENCE = 0.3
BATCH_SIZE, FIELD_SIZE = 8, 256  # fields in a batch, and their side in px
COLUMNS = {
    "name": "variant",
    "precision": "precision",
    "recall": "recall",
    "ap": "average precision",
    "pairs_found": "pairs of 4–8 px: both found",
    "x_over_limit": "x: scatter / limit",
    "mag_over_limit": "mag: scatter / limit",
    "mag_bias": "mag: bias / mmag",
}


# Every variant: its name, its network, and whether the frame's own PSF is fitted to what it finds.
VARIANTS = {
    "the paper as written": (LITERAL, False),
    "only soft labels": (replace(LITERAL, **SOFT), False),
    "only ln flux": (replace(LITERAL, flux="log"), False),
    "only the flux as a correction to an aperture's": (replace(LITERAL, **CORRECTION), False),
    "only a linear channel": (replace(LITERAL, **CHANNEL), False),
    "only offsets in the cells around": (replace(LITERAL, offset_reach=1), False),
    "soft labels and ln flux": (replace(LITERAL, **SOFT, flux="log"), False),
    "… and the flux as a correction": (replace(LITERAL, **SOFT, **CORRECTION), False),
    "… and a linear channel": (replace(OURS, offset_reach=0), False),
    "… and offsets in the cells around: all of ours": (OURS, False),
    "… and the fit with the frame's PSF": (OURS, True),
}


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


def scores(model: nn.Module, frames: Iterable[tuple[Frame, pd.DataFrame]], fit: bool) -> dict[str, float]:
    """Return the columns of a row from frames with marked truth that is `ablations.bounded`.

    With `fit` positions and fluxes are those of the frame's PSF fitted to the stars that the net finds. Scatters are
    robust, those and the bias over stars of 14–20 mag; errors are measurement − truth.
    """
    tables, pairs = [], np.zeros(2, dtype=int)
    for frame, truth in frames:
        subtracted = background.subtracted(frame)
        found = detect(model, frame, LOWEST, subtracted)
        if fit:
            found, fits, _ = fitted_stars(frame, found, subtracted)
            found[["x", "y", "flux"]] = fits.table()[["x", "y", "flux"]]
        found["mag"] = frame.magnitude(found["flux"])
        pairs += pairs_found(truth, found[found["confidence"] >= CONFIDENCE])
        # the truth's rows come first
        tables.append(
            matching.compare(truth, found, frame.shape, mask=frame.mask).join(truth[["limit_x", "limit_mag"]])
        )
    table = pd.concat(tables, ignore_index=True)
    at = matching.at_threshold(table, CONFIDENCE)
    precision, recall = rates(at)
    curve = metrics.precision_recall_curve(*curve_input(table))
    row = {"precision": precision.value, "recall": recall.value, "ap": metrics.average_precision(*curve[:2])}
    row["pairs_found"] = pairs[0] / pairs[1] if pairs[1] else np.nan
    stars = at[(at["status"] == matching.MATCHED) & at["truth_mag"].between(14, 20, inclusive="left")]
    if stars.empty:
        return row | dict.fromkeys(("x_over_limit", "mag_over_limit", "mag_bias"), np.nan)
    for name in ("x", "mag"):
        ratio = (stars[name] - stars[f"truth_{name}"]) / stars[f"limit_{name}"]
        row[f"{name}_over_limit"] = float(metrics.robust_scatter(ratio))
    return row | {"mag_bias": 1e3 * float(np.median(stars["mag"] - stars["truth_mag"]))}


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
    data = ablations.remembered(_batches(chosen.prepared()))
    validation = [(frame, ablations.bounded(frame, truth)) for frame, truth in chosen.read("val")]
    models, rows = {}, []
    for index, (name, (config, fit)) in enumerate(VARIANTS.items()):
        if config not in models:
            build = functools.partial(PhotometryDetectionNet, config)
            models[config] = ablations.trained(build, detection_loss, data, budget, folder / str(index), progress)
        model, history = models[config]
        scored = scores(model, validation, fit)
        rows.append({"name": name, "seconds": ablations.seconds(history), **scored})
    details = ablations.described(chosen, budget, batch_size=BATCH_SIZE, field_size=FIELD_SIZE)
    return ablations.write("detection", rows, COLUMNS, command, budget.seed, **details)


def _batches(frames: Sequence[fields.PreparedFrame]) -> Mixed:
    """Return rendered fields, cut-outs of frames, and real sky with stars added, in one batch."""
    real = BATCH_SIZE // 4
    cut = (BATCH_SIZE - real) // 2 if frames else 0
    sources = [fields.RenderedFields(Recipe.load(), BATCH_SIZE - real - cut, FIELD_SIZE)]
    sources += [fields.FrameFields(frames, cut, FIELD_SIZE)] if cut else []
    return Mixed([*sources, injection.fields("sdss-standard", real, FIELD_SIZE)], fields.concatenate)
