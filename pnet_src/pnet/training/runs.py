"""Training runs of both networks: which data, which loss, which validation, and the card that remembers them."""

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from pnet.common import paths, provenance
from pnet.common.errors import ConfigError
from pnet.common.files import atomic_path, read_json, sha256, write_json
from pnet.common.seeds import derive
from pnet.detection.losses import detection_loss
from pnet.detection.network import CONFIGS as DETECTION_CONFIGS
from pnet.detection.network import PhotometryDetectionNet
from pnet.detection.predict import detect
from pnet.simulation.datasets import simulation_folder
from pnet.simulation.recipe import Recipe
from pnet.sky.matching import compare
from pnet.stars import error_scale, weights
from pnet.stars.elbo import ELBO
from pnet.stars.network import CONFIGS as STAR_CONFIGS
from pnet.stars.network import BayesianPhotometryNet
from pnet.stars.predict import predict
from pnet.training import fields, injection, record, sets, stars
from pnet.training.config import TrainConfig
from pnet.training.fit import CHECKPOINT, HISTORY, START_HISTORY, Mixed, fit, launch

RUN = "run.json"  # what a run was asked for, from its first minute on; the card comes last


class Lesson(NamedTuple):
    """What a network is trained with: `loss`, `source` and `validate` as `fit` takes them, `data`, what the card tells
    of what the run sees, and the stars that the scale of the errors is fitted to."""

    loss: Callable
    source: Mixed
    validate: Callable[[nn.Module], dict[str, float]] | None
    data: dict[str, Any]
    validation: stars.FrameStars | None = None


def train(
    config: TrainConfig,
    output: str | os.PathLike,
    *,
    on_epoch: Callable[[list[dict]], None] | None = None,
    progress: bool = True,
) -> Path:
    """Train a network in ``<output>/<kind>`` and return its card.

    Where a run of the same settings and data is finished there, its card is returned at once; where one was
    interrupted, it goes on. A run of other ones is set aside, not deleted: it may have taken hours.

    Parameters
    ----------
    config : TrainConfig
    output : path
        Folder of the profile.
    on_epoch, progress
        See `fit`.

    Raises
    ------
    ConfigError, MissingError, DataError
        If frames or weights are missing or damaged, or do not fit the settings; before anything is trained.
    """
    # First of all: on several devices each begins this program anew, and only the first of them writes.
    fabric = launch(config.accelerator, config.devices, config.precision)
    at_once, first = config.at_once(fabric.world_size), fabric.is_global_zero
    kind, folder = config.kind, paths.folder_of(output) / config.kind
    chosen = sets.chosen(config, output)
    if not chosen.train and not config.rendered:
        raise ConfigError("there is nothing to train on: give train frames, or set rendered")
    asked = _asked(config, output, chosen)
    card = folder / f"{kind}-{config.config}.json"
    same = (folder / RUN).is_file() and read_json(folder / RUN) == asked
    if same and card.is_file():
        weights.check(card)
        return card
    torch.manual_seed(derive(config.seed, "initial weights"))
    model = network(config)
    start, before = _start(config, model)
    known = chosen if first else replace(chosen, val=())
    lesson = (_fields if kind == "detection" else _stars)(config, known, at_once, fabric.device)
    # a finished run without its card is one that was declared out of date
    unfinished = same and ((folder / CHECKPOINT).is_file() or not (folder / HISTORY).is_file())
    fabric.barrier()  # all devices have read what was there
    if first:
        if folder.is_dir() and any(folder.iterdir()) and not unfinished:
            _set_aside(folder)
        write_json(folder / RUN, asked)
        if before is not None:
            with atomic_path(folder / START_HISTORY) as temporary:
                before.to_csv(temporary, index=False)
    fabric.barrier()
    options = {"validate": lesson.validate, "on_epoch": on_epoch, "progress": progress}
    options["pieces"] = config.batch_size // (at_once * fabric.world_size)
    history = fit(model, lesson.loss, lesson.source, config.fit(), folder, fabric, **options)
    if not first:
        return card
    model = model.cpu()
    seen = {"dataset": config.dataset} | {f"{split}_frames": chosen.names(split) for split in ("train", "val")}
    fitted = vars(config.fit()) | {"epochs_done": len(history), "batch_size": config.batch_size}
    fitted |= {"precision": fabric.strategy.precision.precision, "devices": fabric.world_size}
    details = {}
    if kind != "detection":
        fitted["temperature"], val = config.temperature, lesson.validation
        enough = val is not None and len(val) >= error_scale.MIN_STARS
        text = f"{len(chosen.val)} validation frames of {config.dataset}"
        details["recalibration"] = recalibrated(model, val, config.seed, text) if enough else None
    figures = {name: value for name, value in history[-1].items() if name.startswith(("val_", "loss"))}
    content = provenance.record(
        config.command(output),
        config.seed,
        fabric.device,
        data=lesson.data | seen,
        fit=fitted,
        start=start,
        seconds=round(sum(row["seconds"] for row in history), 1),
        figures={name: value for name, value in figures.items() if np.isfinite(value)},
        **details,
    )
    card = weights.save(model, card.with_suffix(""), kind=kind, card=content)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return card


def _asked(config: TrainConfig, output: str | os.PathLike, chosen: sets.TrainingSet) -> dict[str, Any]:
    """Return what makes a run the same as another: its settings, its frames, and the weights that it builds upon, by
    their hashes, whatever they are called."""
    built_upon = {"detection": "detection", "start": config.kind}
    left_out = (*built_upon, "micro_batch")  # the last is how a machine does it, which may change on the way
    asked = {"settings": {name: value for name, value in config.settings().items() if name not in left_out}}
    asked |= {"train": chosen.names("train"), "val": chosen.names("val")}
    if chosen.train and chosen.manifest is None and config.frames is None:
        made = read_json(simulation_folder(output) / "simulation.json")
        asked["frames"] = {name: made[name] for name in ("engine", "kind", "seed")}
    for name, kind in built_upon.items():
        named = getattr(config, name)
        if named is not None and (name == "start" or chosen.train or chosen.val):
            asked[f"SHA-256 of {name}"] = sha256(weights.resolve(kind, named))
    return asked


def _set_aside(folder: Path) -> None:
    """Rename the folder of an earlier run to ``<name>.1`` or the next free number."""
    names = (folder.with_name(f"{folder.name}.{number}") for number in itertools.count(1))
    folder.rename(next(name for name in names if not name.exists()))


def network(config: TrainConfig) -> nn.Module:
    """Return the untrained network of a run."""
    if config.kind == "detection":
        return PhotometryDetectionNet(DETECTION_CONFIGS[config.config]).to(memory_format=torch.channels_last)
    model = BayesianPhotometryNet(STAR_CONFIGS[config.config]).to(memory_format=torch.channels_last)
    return model


def _start(config: TrainConfig, model: nn.Module) -> tuple[dict[str, Any] | None, pd.DataFrame | None]:
    """Load pre-trained weights into `model`; return what the card tells of them, and the history of their run, so that
    a record shows the whole way."""
    if config.start is None:
        return None, None
    trained, card = weights.load(config.kind, config.start)
    if card["config"] != model.config.as_dict():
        raise ConfigError(
            f"start {config.start} has the configuration {card['config']}, this run has {model.config.as_dict()}"
        )
    model.load_state_dict(trained.state_dict())
    known = ("file", "sha256", "command", "commit", "date", "seconds", "seed", "fit", "figures", "start")
    history = record.history_of(weights.resolve(config.kind, config.start))
    return {name: card.get(name) for name in known}, history


def _fields(config: TrainConfig, chosen: sets.TrainingSet, at_once: int, device: torch.device) -> Lesson:
    """Return what the detection net is trained with, so many fields at once."""
    size, batches = config.field_size, config.epochs * config.steps * config.batch_size // at_once
    frames, into_real = chosen.prepared(), at_once // 4 if config.injected else 0
    rest = at_once - into_real
    cut = rest if not config.rendered else rest // 2 if frames else 0
    shares = {"rendered_fields": rest - cut, "cut_fields": cut, "injected_fields": into_real}
    sources = [injection.fields(config.injected, into_real, size)] if into_real else []
    sources += [fields.FrameFields(frames, cut, size)] if cut else []
    sources += [fields.RenderedFields(Recipe.load(), rest - cut, size)] if cut < rest else []
    marked = list(chosen.read("val"))
    return Lesson(
        loss=detection_loss,
        source=Mixed(sources, fields.concatenate),
        validate=(lambda net: detection_scores(net, marked)) if marked else None,
        data={name: n * batches for name, n in shares.items()} | {"field_size": size},
    )


def _stars(config: TrainConfig, chosen: sets.TrainingSet, at_once: int, device: torch.device) -> Lesson:
    """Return what a network of single stars is trained with, so many at once; `device` finds those of frames."""
    find, found_by = None, {}
    own = STAR_CONFIGS[config.config]
    bare = own.stamp if own.bare else None
    if chosen.train or chosen.val:
        find, found_by = sets.finder(config.detection, device)
    batches = config.epochs * config.steps * config.batch_size // at_once
    cut = at_once if not config.rendered else at_once // 4 if chosen.train else 0
    sources = [stars.FrameStars(chosen.found("train", find), cut, bare=bare)] if cut else []
    count = stars.psfs_for(batches)
    sources += [stars.RenderedStars(Recipe.load(), at_once - cut, config.seed, bare, count)] if cut < at_once else []
    validation = stars.FrameStars(chosen.found("val", find), 1, bare=bare) if chosen.val else None
    return Lesson(
        # Endless data: N in Eq. 12 is the number of stars that the whole run sees.
        loss=ELBO(batches * at_once, config.temperature),
        source=Mixed(sources, stars.StarBatch.join),
        validate=(lambda net: star_scores(net, validation, config.seed)) if validation else None,
        data={"rendered_stars": (at_once - cut) * batches, "cut_stars": cut * batches, "found_by": found_by},
        validation=validation,
    )


def detection_scores(model: nn.Module, frames: Sequence[sets.MarkedFrame]) -> dict[str, float]:
    """Return precision, recall, mean |Δx| (px) and the scatter of ln flux of a net on frames with marked truth."""
    tables = []
    for frame, truth in frames:
        found = detect(model, frame, sets.CONFIDENCE)
        found["mag"] = frame.magnitude(found["flux"])
        tables.append(compare(truth, found, frame.shape))
    table = pd.concat(tables)
    matched = table[table["status"] == "matched"]
    n = len(matched)
    return {
        "precision": n / max(1, n + int((table["status"] == "false").sum())),
        "recall": n / max(1, n + int((table["status"] == "missed").sum())),
        "mean_dx": float((matched["x"] - matched["truth_x"]).abs().mean()),
        "log_flux_scatter": float(np.log(matched["flux"] / matched["truth_flux"]).std()),
    }


def star_scores(model: nn.Module, validation: stars.FrameStars, seed: int) -> dict[str, float]:
    """Return mean absolute error, the scatter of (truth − mean)/σ and the mean σ of every target on validation stars;
    magnitudes in mag, positions in pixels."""
    device = next(model.parameters()).device
    scores = {}
    for name, found in predict(model, validation.stars.inputs.to(device), seed=seed).items():
        delta = validation.truth(name) - found.mean
        scores |= {
            f"{name}_mae": float(np.abs(delta).mean()),
            f"{name}_standardised_scatter": float((delta / found.sigma).std()),
            f"{name}_mean_sigma": float(found.sigma.mean()),
            f"{name}_mean_epistemic": float(found.epistemic.mean()),
        }
    return scores


def recalibrated(model: nn.Module, validation: stars.FrameStars, seed: int, data: str) -> dict[str, dict]:
    """Return, for a card, the scale of every target's σ fitted on validation stars.

    Eq. 15's σ is scaled, never the mean: a zero point belongs to the photometric calibration. Positions have a floor.
    """
    ratios = {}
    for name, found in predict(model, validation.stars.inputs, seed=seed).items():
        fitted = error_scale.fit(found.mean, found.sigma, validation.truth(name), floor=name != "mag", data=data)
        ratios[name] = fitted.as_dict()
    return ratios


def recalibrate(card: str | os.PathLike, frames: str | os.PathLike, *, seed: int = 2023) -> Path:
    """Fit the recalibration of a trained BPNN anew and rewrite its card, atomically; its weights stay.

    Parameters
    ----------
    card : str or path
        As in `weights.resolve`; it also says under ``recalibrated`` with which command, when and by which commit.
    frames : path
        Folder whose ``val`` holds simulated frames with truth; the released networks find the stars in them.
    seed : int
        Of the Monte Carlo samples.

    Raises
    ------
    ConfigError, MissingError, DataError
        If there are no frames, or they hold too few stars.
    """
    path = weights.resolve("bpnn", card)
    model, content = weights.load("bpnn", path)
    find, found_by = sets.finder("released")
    chosen = sets.simulated("", frames)
    validation = stars.FrameStars(chosen.found("val", find), 1, bare=model.config.stamp if model.config.bare else None)
    ratios = recalibrated(model, validation, seed, f"{len(chosen.val)} validation frames")
    command = f"python -m pnet recalibrate --card {paths.shown(card)} --frames {paths.shown(frames)}"
    made = provenance.record(f"{command} --seed {seed}", seed, "cpu", frames=chosen.names("val"), found_by=found_by)
    write_json(path, content | {"recalibration": ratios, "recalibrated": made})
    return path
