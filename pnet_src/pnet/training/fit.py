"""The one training loop, for both networks, on any device that lightning.fabric knows.

A run is a function of its configuration: every step seeds its own random numbers, so that a run that was interrupted
and resumed ends with the same weights as one that was not.
"""

import csv
import io
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from pnet.common.errors import ConfigError, DataError
from pnet.common.files import atomic_path
from pnet.common.seeds import derive

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.csv"
START_HISTORY = "history.start.csv"  # of the run whose weights this one started from


class DataSource(Protocol):
    """Where batches come from: the same step and seed give the same batch."""

    def batch(self, seed: int, device: torch.device) -> Any:
        """Return one batch on `device`."""


@dataclass(frozen=True)
class FitConfig:
    """How long and how a network is trained.

    Parameters
    ----------
    epochs, steps : int
        Number of epochs and of batches in each.
    learning_rate : float
        Peak; it rises linearly over `warmup` steps and falls along a cosine to a hundredth.
    clip_norm : float
        Largest norm of the gradient; larger ones are scaled down (section 4.2).
    freeze_epochs : int
        For so many epochs the modules whose names start with one of `freeze` stay as they are (section 4.1).
    freeze : tuple of str
        Prefixes of parameter names.
    precision : str
        As lightning.fabric names it: '32-true', 'bf16-mixed'.
    seed : int
    """

    epochs: int
    steps: int
    learning_rate: float = 1e-3
    warmup: int = 200
    clip_norm: float = 1.0
    freeze_epochs: int = 0
    freeze: tuple[str, ...] = field(default=())
    precision: str = "32-true"
    seed: int = 2023

    def __post_init__(self):
        object.__setattr__(self, "freeze", tuple(self.freeze))
        for name in ("epochs", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if not self.learning_rate > 0 or not self.clip_norm > 0:
            raise ConfigError(f"learning_rate {self.learning_rate} and clip_norm {self.clip_norm} must be positive")
        if self.freeze_epochs and not self.freeze:
            raise ConfigError("freeze_epochs is set but freeze names no module")

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over the whole run."""
        total = self.epochs * self.steps
        warm = min(1.0, (step + 1) / max(1, min(self.warmup, total // 5)))
        return self.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / total)))


def _write_history(path: Path, rows: list[dict]) -> None:
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue())


def _load_checkpoint(path: Path, config: FitConfig) -> dict:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        stored = state["config"]
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(f"checkpoint {path} is damaged ({error}); delete it to start over") from error
    if stored != _plain(config):
        different = [key for key, value in _plain(config).items() if stored.get(key) != value]
        raise ConfigError(
            f"checkpoint {path} belongs to another run: {different} differ; choose another folder or delete it"
        )
    return state


def _plain(config: FitConfig) -> dict:
    return asdict(config) | {"freeze": list(config.freeze)}


def fit(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], dict[str, Tensor]],
    data: DataSource,
    config: FitConfig,
    folder: str | os.PathLike,
    *,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    stop_after: int | None = None,
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
    stop_after : int, optional
        Stop once so many epochs are done, as an interruption would.
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
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fabric = Fabric(accelerator=accelerator, devices=devices, precision=config.precision)
    if fabric.world_size > 1:
        fabric.launch()
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    wrapped, optimizer = fabric.setup(model, optimizer)
    history: list[dict] = []
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        state = _load_checkpoint(checkpoint, config)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        history = state["history"]
    for epoch in range(len(history), config.epochs if stop_after is None else min(stop_after, config.epochs)):
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
            with atomic_path(checkpoint) as temporary:
                torch.save(
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "history": history,
                        "config": _plain(config),
                    },
                    temporary,
                )
            _write_history(folder / HISTORY, history)
        fabric.barrier()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.eval()
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
    bar = tqdm(
        steps,
        desc=f"epoch {epoch + 1}/{config.epochs}",
        unit="step",
        disable=not (progress and fabric.is_global_zero),
        mininterval=5,
    )
    for step in bar:
        seed = derive(config.seed, "step", step, fabric.global_rank)
        torch.manual_seed(seed)
        rate = config.rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = data.batch(seed, fabric.device)
        optimizer.zero_grad(set_to_none=True)
        parts = loss(wrapped, batch)
        fabric.backward(parts["loss"])
        fabric.clip_gradients(wrapped, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
        value = float(parts["loss"].detach())
        if not math.isfinite(value):
            raise DataError(f"the loss is {value} at step {step}; lower learning_rate or look at the data")
        optimizer.step()
        for name, value in parts.items():
            sums[name] = sums.get(name, 0) + value.detach().float()
        if progress and step % 20 == 0:
            bar.set_postfix(loss=f"{value:.4f}")
    row = {"epoch": epoch + 1, "steps": (epoch + 1) * config.steps, "seconds": round(time.monotonic() - start, 1)}
    row["learning_rate"] = rate
    return row | {name: float(value) / config.steps for name, value in sums.items()}
