"""The one training loop, for both networks, on any device that lightning.fabric knows.

A run is a function of its configuration: every step seeds its own random numbers, so that a run that was interrupted
and resumed ends with the same weights as one that was not.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from tqdm import tqdm

from pnet.common.errors import ConfigError, DataError
from pnet.common.files import atomic_path
from pnet.common.seeds import derive
from pnet.detection.predict import half_precision
from pnet.training.config import FitConfig

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.csv"
START_HISTORY = "history.start.csv"  # of the run whose weights this one started from
LOOK = 20  # steps between two looks at the loss: a GPU waits for each
WAIT = timedelta(hours=3)  # of the other devices for the first, which alone validates and finds the stars for that


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


def machine(accelerator: str, devices: str) -> tuple[str, int]:
    """Return what computes here, and on how many devices: for 'auto' all GPUs that PyTorch sees, from a notebook one,
    as it cannot start the others; else the CPU, never Apple's GPU, which has no float64.

    Raises
    ------
    ConfigError
        If what is asked for is not there.
    """
    gpus, notebook = torch.cuda.device_count() if torch.cuda.is_available() else 0, hasattr(sys, "ps1")
    if accelerator == "cuda" and not gpus:
        raise ConfigError("accelerator is cuda, but PyTorch sees no GPU here; `pnet doctor` says more, cpu is slow")
    kind = accelerator if accelerator != "auto" else "cuda" if gpus else "cpu"
    if devices == "auto":
        return kind, gpus if kind == "cuda" and not notebook else 1
    if kind == "cuda" and int(devices) > gpus:
        raise ConfigError(f"devices is {devices}, but PyTorch sees {gpus} GPUs here")
    if int(devices) > 1 and notebook:
        raise ConfigError(f"devices is {devices}, but a notebook takes one; `pnet train` takes several")
    return kind, int(devices)


def launch(accelerator: str = "auto", devices: str = "auto", precision: str = "32-true") -> Fabric:
    """Start a run on its devices and return what holds them together. From here on each of several devices has a
    process of its own that runs the same program from its beginning, so it comes before anything is written.

    `accelerator` and `devices` are as in `machine`, `precision` as in `TrainConfig`; float16 takes bfloat16's place on
    a GPU that has none.
    """
    kind, count = machine(accelerator, devices)
    if precision == "bf16-mixed" and half_precision(kind) == torch.float16:
        precision = "16-mixed"
    torch.backends.cudnn.benchmark = kind == "cuda"  # batches are all of one shape
    plugins = [] if precision == "32-true" else [Autocast(precision, kind)]
    strategy = DDPStrategy(timeout=WAIT) if count > 1 else "auto"
    fabric = Fabric(accelerator=kind, devices=count, strategy=strategy, plugins=plugins)
    fabric.launch()
    return fabric


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
    fabric: Fabric,
    *,
    pieces: int = 1,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    on_epoch: Callable[[list[dict]], None] | None = None,
    progress: bool = True,
) -> list[dict]:
    """Train `model` in place with Adam; checkpoint and history are written to `folder` after every epoch.

    Parameters
    ----------
    model : torch.nn.Module
    loss : callable
        Of model and batch; returns the parts and their sum under ``loss``, means over the batch.
    data : DataSource
    config : FitConfig
    folder : path
        If it holds a checkpoint of the same configuration, the run goes on from there, whatever the precision. On
        another number of devices or pieces its random numbers are others from there on, which a note says.
    fabric : Fabric
        As `launch` returns it. Several devices share a step (DDP).
    pieces : int
        Batches of which each device makes up its share of a step, one after the other.
    validate : callable, optional
        Of the model, after every epoch; its numbers join the history.
    on_epoch : callable, optional
        Of the history so far, after every epoch, once it is safe on disk: draws a growing curve, say. What it raises
        ends the run, which goes on from there when it is started again.
    progress : bool

    Returns
    -------
    list of dict
        The history, one row for each epoch: epoch, seconds, learning rate, largest norm of a gradient before it is
        clipped, mean losses, validation.

    Raises
    ------
    DataError, ConfigError
        If the checkpoint is damaged or of another run, or the loss is no longer finite; what is written was finite.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    wrapped, optimizer = fabric.setup(model, optimizer)
    history: list[dict] = []
    checkpoint, shares = Path(folder, CHECKPOINT), {"devices": fabric.world_size, "pieces": pieces}
    if checkpoint.exists():
        state = _load_checkpoint(checkpoint, config)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if state.get("scaler"):
            fabric.strategy.precision.load_state_dict(state["scaler"])
        history = state["history"]
        if fabric.is_global_zero and state.get("shares", shares) != shares:
            print(f"note: this run had {state['shares']}, it goes on with {shares}: other batches", file=sys.stderr)
    for epoch in range(len(history), config.epochs):
        row = _epoch(fabric, wrapped, optimizer, loss, data, config, epoch, pieces, progress)
        if validate is not None:
            model.eval()
            with torch.no_grad():
                row |= {f"val_{name}": value for name, value in validate(model).items()}
        history.append(row)
        if fabric.is_global_zero:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "shares": shares}
            state |= {"scaler": fabric.strategy.precision.state_dict(), "history": history, "config": asdict(config)}
            with atomic_path(checkpoint) as temporary:
                torch.save(state, temporary)
            with atomic_path(Path(folder, HISTORY)) as temporary:
                pd.DataFrame(history).to_csv(temporary, index=False, na_rep="nan")
            if on_epoch is not None:
                on_epoch(history)
        fabric.barrier()
    model.eval()
    return history


def _epoch(
    fabric: Fabric, wrapped, optimizer, loss, data, config: FitConfig, epoch: int, pieces: int, progress: bool
) -> dict:
    """Train one epoch and return its row of the history."""
    wrapped.train()
    freeze = config.freeze if epoch < config.freeze_epochs else ()
    still = [parameter for name, parameter in wrapped.module.named_parameters() if name.startswith(freeze)]
    for name, parameter in wrapped.module.named_parameters():
        if name.startswith(config.freeze):  # DDP waits for the gradient of every parameter that it was set up with
            parameter.requires_grad_(epoch >= config.freeze_epochs or fabric.world_size > 1)
    for name, module in wrapped.module.named_modules():
        # A frozen normalisation must not drift either.
        if name.startswith(freeze):
            module.eval()
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    sums: dict[str, Tensor] = {}
    start, norms, largest = time.monotonic(), 0.0, torch.zeros((), device=fabric.device)
    steps = range(epoch * config.steps, (epoch + 1) * config.steps)
    quiet = not (progress and fabric.is_global_zero)
    for step in (bar := tqdm(steps, f"epoch {epoch + 1}/{config.epochs}", unit="step", disable=quiet, mininterval=5)):
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step)
        optimizer.zero_grad(set_to_none=True)
        for piece in range(pieces):
            seed = derive(config.seed, "step", step, fabric.global_rank * pieces + piece)
            torch.manual_seed(seed)
            batch = data.batch(seed, fabric.device)
            with fabric.no_backward_sync(wrapped, enabled=piece < pieces - 1):
                parts = loss(wrapped, batch)
                fabric.backward(parts["loss"] / pieces)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0) + value.detach().float() / pieces
        for parameter in still:  # of several devices
            parameter.grad = None
        norm = fabric.clip_gradients(wrapped, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
        optimizer.step()
        norms = norms + (0 if scaler else norm)  # a scaler leaves a step out whose gradient is not finite
        largest = torch.maximum(largest, norm.float())
        if step % LOOK == 0 or step == steps[-1]:
            total = float(fabric.all_reduce(sums["loss"] + norms))  # all devices stop, or none does
            if not math.isfinite(total):
                raise DataError(
                    f"the loss or its gradient is {total} by step {step}; lower learning_rate or look at the data"
                )
            bar.set_postfix(loss=f"{float(parts['loss'].detach()):.4f}")
    row = {"epoch": epoch + 1, "steps": steps.stop, "seconds": round(time.monotonic() - start, 1)}
    row |= {"learning_rate": config.rate(steps[-1]), "gradient_norm": float(largest)}
    means = fabric.all_reduce(torch.stack(list(sums.values())))
    return row | {name: float(value) / config.steps for name, value in zip(sums, means, strict=True)}
