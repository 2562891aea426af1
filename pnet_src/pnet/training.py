"""Training runs: which data, which loss, which validation, and the card that remembers them."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pnet import fielddata, provenance, recalibration, stardata, trainingsets, weights
from pnet.bpnn.elbo import ELBO
from pnet.bpnn.network import CONFIGS as BPNN_CONFIGS
from pnet.bpnn.network import BayesianPhotometryNet
from pnet.bpnn.predict import Prediction, predict
from pnet.detection.losses import detection_loss
from pnet.detection.network import CONFIGS as DETECTION_CONFIGS
from pnet.detection.network import PhotometryDetectionNet
from pnet.detection.predict import detect
from pnet.errors import ConfigError
from pnet.files import atomic_path
from pnet.fit import HISTORY, START_HISTORY, FitConfig, fit
from pnet.frame import Frame
from pnet.matching import compare
from pnet.seeds import derive
from pnet.simulation import Recipe

# The parts that hold still while new data is met (section 4.1): the Hourglass Network and the photometry branch.
FREEZE_DETECTION = ("hourglasses", "features", "merges", *(f"preheads.{i}.heads.flux" for i in range(4)))

FREEZE_BPNN = ("stem", "stages")


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


def _start_from(
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
                shutil.copyfile(history, temporary)
            break
    trained, card = weights.load(kind, start)
    if card["config"] != model.config.as_dict():
        raise ConfigError(
            f"start {start} has the configuration {card['config']}, this run has {model.config.as_dict()}"
        )
    model.load_state_dict(trained.state_dict())
    known = ("file", "sha256", "command", "commit", "date", "seconds", "seed", "fit", "figures")
    return {name: card.get(name) for name in known}


def _figures(row: dict[str, float]) -> dict[str, float]:
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
    epochs, steps, batch_size, field_size, learning_rate, precision, seed
        See `FitConfig`; `field_size` is the width of a training field in pixels.
    freeze_epochs : int
        Hold FREEZE_DETECTION still for so many epochs; needs `start`.
    start : str or path, optional
        Pre-trained weights to begin with.
    stop_after, accelerator, devices, progress
        See `pnet.fit.fit`.
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
    started = _start_from(model, "detection", start, folder)
    chosen = trainingsets.choose(dataset, manifest, train, val)
    frames = chosen.prepared()
    if not frames and not rendered:
        raise ConfigError("there is nothing to train on: give train frames, or set rendered")
    sources: list[Any] = []
    from_frames = batch_size if not rendered else batch_size // 2 if frames else 0
    if from_frames:
        sources.append(fielddata.FrameFields(frames, from_frames, field_size))
    if from_frames < batch_size:
        sources.append(fielddata.RenderedFields(Recipe.load(), batch_size - from_frames, field_size))
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
            "rendered_fields": (batch_size - from_frames) * steps * len(history),
            "cut_fields": from_frames * steps * len(history),
            "field_size": field_size,
            "dataset": dataset,
            "train_frames": chosen.names("train"),
            "val_frames": chosen.names("val"),
        },
        fit=vars(settings) | {"freeze": list(settings.freeze), "epochs_done": len(history), "batch_size": batch_size},
        start=started,
        seconds=round(sum(row["seconds"] for row in history), 1),
        figures=_figures(last),
    )
    return weights.save(model.cpu(), Path(folder) / f"detection-{config}", kind="detection", card=card)


def bpnn_predictions(model: nn.Module, stars: stardata.FrameStars, seed: int) -> tuple[Prediction, np.ndarray]:
    """Return the predictions for all stars and their true instrumental magnitudes (−2.5 log10 of electrons)."""
    device = next(model.parameters()).device
    stamps = stardata.StampBatch(stars.stamps, stars.flux).to(device).stamps
    return predict(model, stamps, seed=seed), -2.5 * np.log10(stars.flux.numpy().astype(float))


def bpnn_scores(model: nn.Module, stars: stardata.FrameStars, seed: int) -> dict[str, float]:
    """Return mean absolute error (mag), the scatter of (truth − mean)/σ and the mean σ (mag) on validation stars."""
    prediction, truth = bpnn_predictions(model, stars, seed)
    delta = truth - prediction.mean
    return {
        "mae": float(np.abs(delta).mean()),
        "standardised_scatter": float((delta / prediction.sigma).std()),
        "mean_sigma": float(prediction.sigma.mean()),
        "mean_epistemic": float(prediction.epistemic.mean()),
    }


def train_bpnn(
    folder: str | os.PathLike,
    *,
    config: str = "compact",
    dataset: str = "simulation",
    train: Sequence[str | os.PathLike] = (),
    val: Sequence[str | os.PathLike] = (),
    manifest: str = "sdss-standard",
    detection: str | os.PathLike = "released",
    rendered: bool = True,
    epochs: int = 30,
    steps: int = 100,
    batch_size: int = 2048,
    learning_rate: float = 2e-3,
    temperature: float = 1.0,
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
    """Train a BPNN, fit the recalibration of its σ on validation stars, and return the path of its card.

    Parameters
    ----------
    folder : path
        Receives checkpoint, history.csv, weights and card.
    config : str
        Name in `pnet.bpnn.network.CONFIGS`.
    dataset, train, val, manifest
        As in `train_detection`; a quarter of each batch is cut from the frames when stamps are rendered too. The
        recalibration is fitted on the validation frames.
    detection : str or path
        Weights of the detection net that finds the stars in these frames.
    rendered : bool
        Render the rest of each batch on the fly.
    epochs, steps, batch_size, learning_rate, precision, seed
        See `FitConfig`; a batch holds 2,000 stamps in the paper.
    temperature : float
        Weight of the KL term; 1 is Eq. 12.
    freeze_epochs : int
        Hold the feature extraction (stem and stages) still for so many epochs; needs `start`.
    start, stop_after, accelerator, devices, command, progress
        As in `train_detection`.

    Raises
    ------
    ConfigError
        If a parameter is not allowed.
    """
    if config not in BPNN_CONFIGS:
        raise ConfigError(f"config is {config!r}, allowed are {sorted(BPNN_CONFIGS)}")
    if freeze_epochs and start is None:
        raise ConfigError("freeze_epochs needs start: freezing random weights would train nothing")
    settings = FitConfig(
        epochs=epochs, steps=steps, learning_rate=learning_rate, precision=precision, seed=seed,
        freeze_epochs=freeze_epochs, freeze=FREEZE_BPNN if freeze_epochs else (),
    )  # fmt: skip
    torch.manual_seed(derive(seed, "initial weights"))
    model = BayesianPhotometryNet(BPNN_CONFIGS[config]).to(memory_format=torch.channels_last)
    model.calibrate_apertures()
    started = _start_from(model, "bpnn", start, folder)
    stamp = model.config.stamp
    chosen = trainingsets.choose(dataset, manifest, train, val)
    if not chosen.train and not rendered:
        raise ConfigError("there is nothing to train on: give train frames, or set rendered")
    detector, detector_card = weights.load("detection", detection) if chosen.train or chosen.val else (None, {})
    found = {split: trainingsets.stars_found(chosen.read(split), detector) for split in ("train", "val")}
    from_frames = batch_size if not rendered else batch_size // 4 if chosen.train else 0
    sources: list[Any] = []
    if from_frames:
        sources.append(stardata.FrameStars(found["train"], from_frames, stamp))
    if from_frames < batch_size:
        sources.append(stardata.RenderedStamps(Recipe.load(), batch_size - from_frames, stamp))
    validation = stardata.FrameStars(found["val"], 1, stamp) if chosen.val else None
    history = fit(
        model,
        # Endless data: N in Eq. 12 is the number of stars that the whole run sees.
        ELBO(epochs * steps * batch_size, temperature),
        stardata.MixedStars(sources),
        settings,
        folder,
        validate=(lambda net: bpnn_scores(net, validation, seed)) if validation else None,
        stop_after=stop_after,
        accelerator=accelerator,
        devices=devices,
        progress=progress,
    )
    model = model.cpu()
    ratio = None
    if validation is not None and len(validation) >= recalibration.MIN_STARS:
        prediction, truth = bpnn_predictions(model, validation, seed)
        # Eq. 15's σ is scaled, never the mean: a zero point belongs to the photometric calibration.
        fitted = recalibration.fit(
            prediction.mean, prediction.sigma, truth, data=f"{len(chosen.val)} validation frames of {dataset}"
        )
        ratio = {"method": fitted.method, "ratio": fitted.ratio, "n": fitted.n, "data": fitted.data}
    last = history[-1]
    card = provenance.record(
        command,
        seed,
        "cpu" if not torch.cuda.is_available() else torch.cuda.get_device_name(),
        data={
            "rendered_stars": (batch_size - from_frames) * steps * len(history),
            "cut_stars": from_frames * steps * len(history),
            "dataset": dataset,
            "train_frames": chosen.names("train"),
            "val_frames": chosen.names("val"),
            "detection": detector_card.get("sha256"),
        },
        fit=vars(settings)
        | {
            "freeze": list(settings.freeze),
            "epochs_done": len(history),
            "batch_size": batch_size,
            "temperature": temperature,
        },
        start=started,
        seconds=round(sum(row["seconds"] for row in history), 1),
        recalibration=ratio,
        figures=_figures(last),
    )
    return weights.save(model, Path(folder) / f"bpnn-{config}", kind="bpnn", card=card)
