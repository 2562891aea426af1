"""Training runs of the detection net: which data, which loss, which validation, and the card that remembers them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pnet.common import provenance
from pnet.common.errors import ConfigError
from pnet.common.files import atomic_path
from pnet.common.seeds import derive
from pnet.detection.losses import detection_loss
from pnet.detection.network import CONFIGS as DETECTION_CONFIGS
from pnet.detection.network import PhotometryDetectionNet
from pnet.detection.predict import detect
from pnet.frame import Frame
from pnet.simulation.recipe import Recipe
from pnet.sky.matching import compare
from pnet.stars import weights
from pnet.training import fields as fielddata
from pnet.training import injection
from pnet.training import record as training_record
from pnet.training import sets as trainingsets
from pnet.training.fit import HISTORY, START_HISTORY, FitConfig, fit

# The parts that hold still while new data is met (section 4.1): the Hourglass Network and the photometry branch.
FREEZE_DETECTION = ("hourglasses", "features", "merges", *(f"preheads.{i}.heads.flux" for i in range(4)))


def detection_scores(
    model: nn.Module, frames: Sequence[tuple[Frame, pd.DataFrame]], confidence: float = 0.3
) -> dict[str, float]:
    """Return precision, recall, mean |Δx| (px) and the scatter of ln flux of a net on frames with marked truth."""
    tables = []
    for frame, truth in frames:
        found = detect(model, frame, confidence)
        found["mag"] = frame.magnitude(found["flux"])
        tables.append(compare(truth, found, frame.shape))
    table = pd.concat(tables)
    counts = table["status"].value_counts()
    matched = table[table["status"] == "matched"]
    n = len(matched)
    return {
        "precision": n / max(1, n + int(counts.get("false", 0))),
        "recall": n / max(1, n + int(counts.get("missed", 0))),
        "mean_dx": float((matched["x"] - matched["truth_x"]).abs().mean()) if n else float("nan"),
        "log_flux_scatter": float(np.log(matched["flux"] / matched["truth_flux"]).std()) if n > 1 else float("nan"),
    }


def start_from(
    model: nn.Module, kind: str, start: str | os.PathLike | None, folder: str | os.PathLike
) -> dict[str, Any] | None:
    """Load pre-trained weights into `model` and return what the card tells of them; the configurations must agree.

    The history of the run that made them is kept in `folder`, so that a record shows the whole way.
    """
    if start is None:
        return None
    card_path = weights.resolve(kind, start)
    for history in (card_path.with_suffix(".csv"), card_path.parent / HISTORY):
        if history.is_file():
            with atomic_path(Path(folder) / START_HISTORY) as temporary:
                training_record.whole(history).to_csv(temporary, index=False)
            break
    trained, card = weights.load(kind, start)
    if card["config"] != model.config.as_dict():
        raise ConfigError(
            f"start {start} has the configuration {card['config']}, this run has {model.config.as_dict()}"
        )
    model.load_state_dict(trained.state_dict())
    known = ("file", "sha256", "command", "commit", "date", "seconds", "seed", "fit", "figures", "start")
    return {name: card.get(name) for name in known}


def figures_of(row: dict[str, float]) -> dict[str, float]:
    """Return the loss and the validation of an epoch for a card; what could not be measured is left out."""
    return {key: value for key, value in row.items() if key.startswith(("val_", "loss")) and np.isfinite(value)}


def train_detection(
    folder: str | os.PathLike,
    *,
    config: str = "compact",
    dataset: str = "simulation",
    train: Sequence[str | os.PathLike] = (),
    val: Sequence[str | os.PathLike] = (),
    manifest: str = "sdss-standard",
    rendered: bool = True,
    injected: str | None = None,
    epochs: int = 60,
    steps: int = 200,
    batch_size: int = 8,
    field_size: int = 256,
    learning_rate: float = 2e-3,
    freeze_epochs: int = 0,
    start: str | os.PathLike | None = None,
    precision: str = "32-true",
    seed: int = 2023,
    stop_after: int | None = None,
    accelerator: str = "auto",
    devices: int | str = "auto",
    command: str = "",
    progress: bool = True,
) -> Path:
    """Train a Photometry-Detection Net and return the path of its card.

    Parameters
    ----------
    folder : path
        Receives checkpoint, history.csv, weights and card.
    config : str
        Name in `pnet.detection.network.CONFIGS`.
    dataset : {'simulation', 'sdss'}
        Whose frames half of each batch is cut from when fields are rendered too.
    train, val : sequence of path
        Simulated frames with truth.
    manifest : str
        SDSS fields with a catalogue, by its own splits.
    rendered : bool
        Render the rest of each batch on the fly.
    injected : str, optional
        SDSS manifest; a quarter of each batch is then cut from its frames without a catalogue, with stars added.
    epochs, steps, batch_size, field_size, learning_rate, precision, seed
        See `FitConfig`; `field_size` is the width of a training field in pixels.
    freeze_epochs : int
        Hold FREEZE_DETECTION still for so many epochs; needs `start`.
    start : str or path, optional
        Pre-trained weights to begin with.
    stop_after, accelerator, devices, progress
        See `pnet.training.fit.fit`.
    command : str
        Recorded on the card.

    Raises
    ------
    ConfigError
        If a parameter is not allowed.
    """
    if config not in DETECTION_CONFIGS:
        raise ConfigError(f"config is {config!r}, allowed are {sorted(DETECTION_CONFIGS)}")
    if freeze_epochs and start is None:
        raise ConfigError("freeze_epochs needs start: freezing random weights would train nothing")
    settings = FitConfig(
        epochs=epochs,
        steps=steps,
        learning_rate=learning_rate,
        precision=precision,
        seed=seed,
        freeze_epochs=freeze_epochs,
        freeze=FREEZE_DETECTION if freeze_epochs else (),
    )
    torch.manual_seed(derive(seed, "initial weights"))
    model = PhotometryDetectionNet(DETECTION_CONFIGS[config]).to(memory_format=torch.channels_last)
    started = start_from(model, "detection", start, folder)
    chosen = trainingsets.choose(dataset, manifest, train, val)
    frames = chosen.prepared()
    if not frames and not rendered:
        raise ConfigError("there is nothing to train on: give train frames, or set rendered")
    sources: list[Any] = []
    into_real = batch_size // 4 if injected else 0
    rest = batch_size - into_real
    from_frames = rest if not rendered else rest // 2 if frames else 0
    if into_real:
        sources.append(injection.fields(injected, into_real, field_size))
    if from_frames:
        sources.append(fielddata.FrameFields(frames, from_frames, field_size))
    if from_frames < rest:
        sources.append(fielddata.RenderedFields(Recipe.load(), rest - from_frames, field_size))
    marked = list(chosen.read("val"))
    history = fit(
        model,
        detection_loss,
        fielddata.MixedFields(sources),
        settings,
        folder,
        validate=(lambda net: detection_scores(net, marked)) if marked else None,
        stop_after=stop_after,
        accelerator=accelerator,
        devices=devices,
        progress=progress,
    )
    last = history[-1]
    card = provenance.record(
        command,
        seed,
        str(next(model.parameters()).device),
        data={
            "rendered_fields": (rest - from_frames) * steps * len(history),
            "cut_fields": from_frames * steps * len(history),
            "injected_fields": into_real * steps * len(history),
            "field_size": field_size,
            "dataset": dataset,
            "train_frames": chosen.names("train"),
            "val_frames": chosen.names("val"),
        },
        fit=vars(settings) | {"freeze": list(settings.freeze), "epochs_done": len(history), "batch_size": batch_size},
        start=started,
        seconds=round(sum(row["seconds"] for row in history), 1),
        figures=figures_of(last),
    )
    return weights.save(model.cpu(), Path(folder) / f"detection-{config}", kind="detection", card=card)
