"""The one training loop, for both networks, on any device that lightning.fabric knows.

A run is a function of its configuration: every step seeds its own random numbers, so that a run that was interrupted
and resumed ends with the same weights as one that was not.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn
from tqdm import tqdm

from pnet.common.errors import ConfigError, DataError
from pnet.common.files import atomic_path
from pnet.common.seeds import derive
from pnet.training.config import FitConfig

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.csv"
START_HISTORY = "history.start.csv"  # of the run whose weights this one started from


class DataSource(Protocol):
    """Where batches come from: the same seed gives the same batch."""

    def batch(self, seed: int, device: torch.device) -> Any:
        """Return one batch on `device`."""


class Autocast(MixedPrecision):
    """Mixed precision of the arithmetic only. Fabric would round the inputs, too: to bfloat16 a star's pixels, by up to
    0.4 % each and the base values by a tenth of their error; to float16 those above 65,504 electrons, to infinity."""

    def convert_input(self, data: Any) -> Any:
        """Return the data as they are."""
        return data


@dataclass
class Mixed:
    """Batches in which one batch of each source is joined; `join` takes their list."""

    sources: Sequence[DataSource]
    join: Callable[[list], Any]

    def batch(self, seed: int, device: torch.device) -> Any:
        """Return one joined batch."""
        return self.join([source.batch(seed + index, device) for index, source in enumerate(self.sources)])


def _load_checkpoint(path: Path, config: FitConfig) -> dict:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        stored = state["config"]
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(f"checkpoint {path} is damaged ({error}); delete it to start over") from error
    different = [key for key, value in asdict(config).items() if stored.get(key) != value]
    if different:
        raise ConfigError(
            f"checkpoint {path} belongs to another run: {different} differ; choose another folder or delete it"
        )
    return state


def fit(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], dict[str, Tensor]],
    data: DataSource,
    config: FitConfig,
    folder: str | os.PathLike,
    *,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    on_epoch: Callable[[list[dict]], None] | None = None,
    accelerator: str = "auto",
    devices: int | str = "auto",
    progress: bool = True,
) -> list[dict]:
    """Train `model` in place with Adam; checkpoint and history are written to `folder` after every epoch.

    Parameters
    ----------
    model : torch.nn.Module
    loss : callable
        Of model and batch; returns the parts and their sum under ``loss``.
    data : DataSource
    config : FitConfig
    folder : path
        If it holds a checkpoint of the same configuration, the run goes on from there.
    validate : callable, optional
        Of the model, after every epoch; its numbers join the history.
    on_epoch : callable, optional
        Of the history so far, after every epoch, once it is safe on disk: draws a growing curve, say. What it raises
        ends the run, which goes on from there when it is started again.
    accelerator, devices
        As for lightning.fabric; several devices share the work of a step (DDP).
    progress : bool

    Returns
    -------
    list of dict
        The history, one row for each epoch: epoch, seconds, learning rate, mean losses, validation.

    Raises
    ------
    DataError, ConfigError
        If the checkpoint is damaged or of another run, or the loss is no longer finite.
    """
    if accelerator == "auto":  # not Fabric's choice, which may be one without float64
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    plugins = [] if config.precision == "32-true" else [Autocast(config.precision, accelerator)]
    fabric = Fabric(accelerator=accelerator, devices=devices, plugins=plugins)
    if fabric.world_size > 1:
        fabric.launch()
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    wrapped, optimizer = fabric.setup(model, optimizer)
    history: list[dict] = []
    checkpoint = Path(folder, CHECKPOINT)
    if checkpoint.exists():
        state = _load_checkpoint(checkpoint, config)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        history = state["history"]
    for epoch in range(len(history), config.epochs):
        frozen = epoch < config.freeze_epochs
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not (frozen and name.startswith(config.freeze)))
        row = _epoch(fabric, wrapped, model, optimizer, loss, data, config, epoch, progress)
        if validate is not None:
            model.eval()
            with torch.no_grad():
                row |= {f"val_{name}": value for name, value in validate(model).items()}
        history.append(row)
        if fabric.is_global_zero:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            with atomic_path(checkpoint) as temporary:
                torch.save(state | {"history": history, "config": asdict(config)}, temporary)
            with atomic_path(Path(folder, HISTORY)) as temporary:
                pd.DataFrame(history).to_csv(temporary, index=False, na_rep="nan")
            if on_epoch is not None:
                on_epoch(history)
        fabric.barrier()
    model.requires_grad_(True).eval()
    return history


def _epoch(fabric, wrapped, model, optimizer, loss, data, config: FitConfig, epoch: int, progress: bool) -> dict:
    """Train one epoch and return its row of the history."""
    wrapped.train()
    for name, module in model.named_modules():
        # A frozen normalisation must not drift either.
        if epoch < config.freeze_epochs and name.startswith(config.freeze):
            module.eval()
    sums: dict[str, Tensor] = {}
    start = time.monotonic()
    steps = range(epoch * config.steps, (epoch + 1) * config.steps)
    quiet = not (progress and fabric.is_global_zero)
    for step in (bar := tqdm(steps, f"epoch {epoch + 1}/{config.epochs}", unit="step", disable=quiet, mininterval=5)):
        seed = derive(config.seed, "step", step, fabric.global_rank)
        torch.manual_seed(seed)
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step)
        batch = data.batch(seed, fabric.device)
        optimizer.zero_grad(set_to_none=True)
        parts = loss(wrapped, batch)
        fabric.backward(parts["loss"])
        fabric.clip_gradients(wrapped, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
        total = float(parts["loss"].detach())
        if not math.isfinite(total):
            raise DataError(f"the loss is {total} at step {step}; lower learning_rate or look at the data")
        optimizer.step()
        for name, value in parts.items():
            sums[name] = sums.get(name, 0) + value.detach().float()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{total:.4f}")
    row = {"epoch": epoch + 1, "steps": steps.stop, "seconds": round(time.monotonic() - start, 1)}
    row["learning_rate"] = config.rate(steps[-1])
    return row | {name: float(value) / config.steps for name, value in sums.items()}
