"""Training runs of the networks of single stars: the BPNN, and the refinement step of the detection net."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pnet.common import provenance
from pnet.common.errors import ConfigError
from pnet.common.files import write_json
from pnet.common.seeds import derive
from pnet.simulation.recipe import Recipe
from pnet.stars import error_scale as scale
from pnet.stars import weights
from pnet.stars.elbo import ELBO
from pnet.stars.network import CONFIGS, BayesianPhotometryNet, refiner_config
from pnet.stars.predict import predict
from pnet.training import sets as trainingsets
from pnet.training import stars as stardata
from pnet.training.detection_run import figures_of, start_from
from pnet.training.fit import FitConfig, fit

FREEZE = ("stem", "stages")  # what holds still while new data is met (section 4.1): the feature extraction


def star_scores(model: nn.Module, stars: stardata.FrameStars, seed: int) -> dict[str, float]:
    """Return mean absolute error, the scatter of (truth − mean)/σ and the mean σ of every target on validation stars;
    magnitudes in mag, positions in pixels."""
    device = next(model.parameters()).device
    found = predict(model, stars.stars.stamps.to(device), seed=seed)
    scores = {}
    for name, prediction in found.items():
        delta = stars.truth(name) - prediction.mean
        scores |= {
            f"{name}_mae": float(np.abs(delta).mean()),
            f"{name}_standardised_scatter": float((delta / prediction.sigma).std()),
            f"{name}_mean_sigma": float(prediction.sigma.mean()),
            f"{name}_mean_epistemic": float(prediction.epistemic.mean()),
        }
    return scores


def recalibrated(model: nn.Module, stars: stardata.FrameStars, seed: int, data: str) -> dict[str, dict]:
    """Return, for a card, the scale of every target's σ fitted on validation stars.

    Eq. 15's σ is scaled, never the mean: a zero point belongs to the photometric calibration. Positions have a floor.
    """
    found = predict(model, stars.stars.stamps, seed=seed)
    return {
        name: scale.fit(
            prediction.mean, prediction.sigma, stars.truth(name), floor=name in ("x", "y"), data=data
        ).as_dict()
        for name, prediction in found.items()
    }


def recalibrate(
    kind: str,
    card: str | os.PathLike,
    val: Sequence[str | os.PathLike],
    *,
    detection: str | os.PathLike = "released",
    refiner: str | os.PathLike = "released",
    seed: int = 2023,
) -> Path:
    """Fit the recalibration of a trained network anew and rewrite its card, atomically; its weights stay.

    Parameters
    ----------
    kind : {'bpnn', 'refiner'}
    card : str or path
        As in `weights.resolve`.
    val : sequence of path
        Simulated validation frames with truth.
    detection, refiner, seed
        As in `train`.

    Raises
    ------
    DataError
        If the frames hold too few stars.
    """
    path = weights.resolve(kind, card)
    model, content = weights.load(kind, path)
    find, _ = trainingsets.finder(detection, refiner if kind == "bpnn" else None)
    stars = stardata.FrameStars(trainingsets.stars_found(trainingsets.simulated(val=val).read("val"), find), 1)
    write_json(path, content | {"recalibration": recalibrated(model, stars, seed, f"{len(val)} validation frames")})
    return path


def train(
    kind: str,
    folder: str | os.PathLike,
    *,
    config: str = "compact",
    dataset: str = "simulation",
    train: Sequence[str | os.PathLike] = (),
    val: Sequence[str | os.PathLike] = (),
    manifest: str = "sdss-standard",
    detection: str | os.PathLike = "released",
    refiner: str | os.PathLike = "released",
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
    """Train a network of single stars, fit the recalibration of its σ on validation stars, and return its card's path.

    Parameters
    ----------
    kind : {'bpnn', 'refiner'}
    folder : path
        Receives checkpoint, history.csv, weights and card.
    config : str
        Name in `pnet.stars.network.CONFIGS`; a refiner takes it with a plain head.
    dataset, train, val, manifest
        As in `training.train_detection`; a quarter of each batch is cut from the frames when stamps are rendered too.
        The recalibration is fitted on the validation frames.
    detection, refiner : str or path
        Weights of the detection net that finds the stars in these frames, and of the refinement step that hands them
        to the BPNN, 'none' for the detection net's own positions; the refiner itself is trained on these.
    rendered : bool
        Render the rest of each batch on the fly.
    epochs, steps, batch_size, learning_rate, precision, seed
        See `FitConfig`; a batch holds 2,000 stamps in the paper.
    temperature : float
        Weight of the KL term; 1 is Eq. 12.
    freeze_epochs : int
        Hold the feature extraction (stem and stages) still for so many epochs; needs `start`.
    start, stop_after, accelerator, devices, command, progress
        As in `training.train_detection`.

    Raises
    ------
    ConfigError
        If a parameter is not allowed.
    """
    if config not in CONFIGS:
        raise ConfigError(f"config is {config!r}, allowed are {sorted(CONFIGS)}")
    if freeze_epochs and start is None:
        raise ConfigError("freeze_epochs needs start: freezing random weights would train nothing")
    settings = FitConfig(
        epochs=epochs, steps=steps, learning_rate=learning_rate, precision=precision, seed=seed,
        freeze_epochs=freeze_epochs, freeze=FREEZE if freeze_epochs else (),
    )  # fmt: skip
    torch.manual_seed(derive(seed, "initial weights"))
    chosen_config = refiner_config(config) if kind == "refiner" else CONFIGS[config]
    model = BayesianPhotometryNet(chosen_config).to(memory_format=torch.channels_last)
    model.calibrate_apertures()
    started = start_from(model, kind, start, folder)
    chosen = trainingsets.choose(dataset, manifest, train, val)
    if not chosen.train and not rendered:
        raise ConfigError("there is nothing to train on: give train frames, or set rendered")
    finder, found_by = None, {}
    if chosen.train or chosen.val:
        finder, found_by = trainingsets.finder(detection, refiner if kind == "bpnn" and refiner != "none" else None)
    found = {split: trainingsets.stars_found(chosen.read(split), finder) for split in ("train", "val")}
    from_frames = batch_size if not rendered else batch_size // 4 if chosen.train else 0
    sources: list[Any] = []
    if from_frames:
        sources.append(stardata.FrameStars(found["train"], from_frames))
    if from_frames < batch_size:
        error = stardata.DETECTED if kind == "refiner" else stardata.REFINED
        sources.append(stardata.RenderedStamps(Recipe.load(), batch_size - from_frames, error))
    validation = stardata.FrameStars(found["val"], 1) if chosen.val else None
    history = fit(
        model,
        # Endless data: N in Eq. 12 is the number of stars that the whole run sees.
        ELBO(epochs * steps * batch_size, temperature),
        stardata.MixedStars(sources),
        settings,
        folder,
        validate=(lambda net: star_scores(net, validation, seed)) if validation else None,
        stop_after=stop_after,
        accelerator=accelerator,
        devices=devices,
        progress=progress,
    )
    device = str(next(model.parameters()).device)
    model = model.cpu()
    ratios = None
    if validation is not None and len(validation) >= scale.MIN_STARS:
        ratios = recalibrated(model, validation, seed, f"{len(chosen.val)} validation frames of {dataset}")
    card = provenance.record(
        command,
        seed,
        device,
        data={
            "rendered_stars": (batch_size - from_frames) * steps * len(history),
            "cut_stars": from_frames * steps * len(history),
            "dataset": dataset,
            "train_frames": chosen.names("train"),
            "val_frames": chosen.names("val"),
            "found_by": found_by,
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
        recalibration=ratios,
        figures=figures_of(history[-1]),
    )
    return weights.save(model, Path(folder) / f"{kind}-{config}", kind=kind, card=card)
