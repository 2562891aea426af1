"""The training story of the paper's section 4.1: a trained detection net meets real frames, half of the time with its
hourglasses and its photometry frozen, or free throughout."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch import nn

from pnet.common import metrics, paths
from pnet.common.seeds import derive
from pnet.detection.losses import detection_loss
from pnet.detection.predict import detect
from pnet.evaluation.scores import rates
from pnet.frame import Frame
from pnet.sdss.catalogue import load_field
from pnet.sdss.files import fetch
from pnet.sdss.psf import PIXEL
from pnet.sky import background, catalogue, matching
from pnet.stars import weights
from pnet.training import injection, sets
from pnet.training.config import FREEZE, FitConfig
from studies import ablations

MANIFEST, TEST = "sdss-standard", "94-1-12"
START = "paper"  # the weights that the tuning starts from
BATCH_SIZE, FIELD_SIZE = 8, 256  # fields in a batch, and their side in px
CUTOUTS = 32  # of validation frames, whose loss makes the curves
SCENE, SCENES = 1472, 6  # px and number of the large cut-outs of validation frames that stars are found in
COLUMNS = {
    "name": "network",
    "precision": "precision",
    "recall": "recall",
    "mean_dx": "mean |Δx| / px",
    "mag_scatter": "scatter of mag",
    "mag_bias": "bias of mag",
    "sdss_precision": f"precision, {TEST}",
    "sdss_recall": f"recall, {TEST}",
    "sdss_mean_dx": f"mean |Δx| / px, {TEST}",
    "sdss_mag_scatter": f"scatter of mag, {TEST}",
    "sdss_mag_bias": f"bias of mag, {TEST}",
    "loss": "loss on cut-outs",
    "seconds_frozen": "s per step, frozen",
    "seconds_free": "s per step, free",
}


class Scene(NamedTuple):
    """A frame, its image without sky with the noise of an empty pixel, and its truth with ``counted``."""

    frame: Frame
    subtracted: background.Subtracted
    truth: pd.DataFrame


def injected(skies: injection.InjectedFields, n: int, seed: int) -> list[Scene]:
    """Return `n` scenes of real sky with stars added, from one sky after the other; only these stars count."""
    scenes = []
    for index in range(n):
        sky = skies.skies[index % len(skies.skies)]
        batch = replace(skies, skies=[sky], batch_size=1).batch(derive(seed, "scene", index), torch.device("cpu"))
        places = torch.stack([batch.x, batch.y, batch.flux], dim=1).double().numpy()
        ignored, image = batch.ignored.numpy(), batch.image[0].numpy()
        mask = np.zeros(image.shape, dtype=bool)
        column, row = np.rint(places[ignored, :2]).astype(int).clip(0, len(mask) - 1).T
        mask[row, column] = True
        # the heat map was not trained within two cells of what is ignored
        mask = ndimage.binary_dilation(mask, np.ones((17, 17)))
        noise = np.full(image.shape, sky.sigma**2)
        frame = Frame(f"scene {index}", image + sky.sky, noise, mask, 1.0, sky.zero_point, sky.sigma, PIXEL)
        stars = pd.DataFrame(places[~ignored], columns=["x", "y", "flux"]).assign(kind="star")
        stars["mag"] = frame.magnitude(stars["flux"])
        scenes.append(
            Scene(frame, background.Subtracted(image, sky.sigma, sky.sigma), catalogue.mark_counted(stars, frame))
        )
    return scenes


def catalogued(name: str) -> Scene:
    """Return the field of the manifest that has a catalogue."""
    frame, truth = load_field(fetch(MANIFEST, fields=[name], progress=False), name)
    return Scene(frame, background.subtracted(frame), truth)


def scores(model: nn.Module, scenes: Iterable[Scene]) -> dict[str, float]:
    """Return precision, recall, mean |Δx| (px), robust scatter and bias (median) of the magnitude at the confidence of
    `sets.CONFIDENCE`."""
    tables = []
    for frame, subtracted, truth in scenes:
        found = detect(model, frame, sets.CONFIDENCE, subtracted=subtracted)
        found["mag"] = frame.magnitude(found["flux"])
        tables.append(matching.compare(truth, found, frame.shape, mask=frame.mask))
    table = pd.concat(tables, ignore_index=True)
    stars = table[table["status"] == matching.MATCHED]
    precision, recall = rates(table)
    error = stars["mag"] - stars["truth_mag"]
    numbers = {"mean_dx": (stars["x"] - stars["truth_x"]).abs().mean(), "mag_bias": error.median()}
    numbers["mag_scatter"] = metrics.robust_scatter(error) if len(error) else np.nan
    row = {"precision": precision.value, "recall": recall.value, "stars": recall.n}
    return row | {name: float(value) for name, value in numbers.items()}


def run(output: str | os.PathLike, budget: FitConfig, *, command: str, progress: bool = True) -> Path:
    """Tune the released paper's net on real frames with stars added and write ``results/studies/freezing.json``.

    Every tuned row keeps its ``history`` with the loss on cut-outs of validation frames, which begins with that of the
    start. The field with a catalogue is measured at the end and chooses nothing.

    Parameters
    ----------
    output : path
        Folder of the run; checkpoints go to ``<output>/studies/freezing``.
    budget : FitConfig
        Of both; for half of its epochs (`FREEZE` of the detection net) one of them is frozen.
    command : str
        Recorded in the provenance.
    """
    data = ablations.remembered(injection.fields(MANIFEST, BATCH_SIZE, FIELD_SIZE))
    skies = injection.fields(MANIFEST, 1, FIELD_SIZE, "val")
    cuts = [skies.batch(derive(budget.seed, "cut-out", index), torch.device("cpu")) for index in range(CUTOUTS)]
    scenes = injected(replace(skies, size=SCENE), SCENES, budget.seed)
    real = [catalogued(TEST)]

    def both(model: nn.Module) -> dict[str, float]:
        return scores(model, scenes) | {f"sdss_{key}": value for key, value in scores(model, real).items()}

    def losses(model: nn.Module) -> np.ndarray:
        with torch.no_grad():
            return np.array([float(detection_loss(model.eval(), cut)["loss"]) for cut in cuts])

    start, card = weights.load("detection", START)
    rows = [{"name": "start", "history": [], "loss": losses(start), **both(start)}]
    for name, epochs in {"frozen": budget.epochs // 2, "free": 0}.items():
        own = replace(budget, freeze_epochs=epochs, freeze=FREEZE["detection"])
        model, history = ablations.trained(
            lambda: weights.load("detection", START)[0],
            *(detection_loss, data, own, paths.folder_of(output) / "studies" / "freezing" / name, progress),
            lambda net: {"loss": float(losses(net).mean())},
        )
        curve = [{key: epoch[key] for key in ("steps", "loss", "val_loss")} for epoch in history]
        row = {"name": name, "history": [{"steps": 0, "val_loss": float(rows[0]["loss"].mean())}, *curve]}
        for part, chosen in {"frozen": history[:epochs], "free": history[epochs:]}.items():
            # the median: the machine may have been shared
            row[f"seconds_{part}"] = (
                float(np.median([epoch["seconds"] for epoch in chosen]) / own.steps) if chosen else None
            )
        rows.append(row | {"loss": losses(model), **both(model)})
    for row in rows:
        mean = metrics.bootstrap(np.mean, row["loss"], seed=budget.seed)
        row |= {"loss": mean.value, "loss_low": mean.low, "loss_high": mean.high}
    details = {"start": card["sha256"], "test": TEST, "cutouts": CUTOUTS}
    details["budget"] = ablations.spent(budget, batch_size=BATCH_SIZE, field_size=FIELD_SIZE)
    return ablations.write("freezing", rows, COLUMNS, command, budget.seed, **details)
