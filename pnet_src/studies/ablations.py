"""What every comparison that needs training shares: one change a row, the same batches, the same number of steps.

Each study writes ``results/studies/<name>.json`` with its provenance: rows, and what their columns mean. Chapters show
them as released results, since they take from minutes to hours. Nothing here looks at test frames.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from pnet.common import paths, provenance
from pnet.common.files import write_json
from pnet.common.seeds import derive
from pnet.frame import Frame
from pnet.sky import limits
from pnet.training.config import FitConfig
from pnet.training.fit import DataSource, fit, launch
from pnet.training.sets import TrainingSet

PRECISION = "bf16-mixed"  # a quarter faster on a CPU than single precision


def bounded(frame: Frame, truth: pd.DataFrame) -> pd.DataFrame:
    """Return a frame's truth, its rows counted from 0, with the Cramér-Rao limit of each star."""
    return truth.reset_index(drop=True).join(limits.frame_limits(frame, truth))


def remembered(source: DataSource) -> DataSource:
    """Let a data source keep its batches, so that all variants of a study learn from the very same ones."""
    source.batch = functools.cache(source.batch)
    return source


def trained(
    build: Callable[[], nn.Module],
    loss: Callable,
    data: DataSource,
    budget: FitConfig,
    folder: Path,
    progress: bool,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
) -> tuple[nn.Module, list[dict]]:
    """Train one network and return it with its history, as `fit` does; a finished one in `folder` is read again."""
    torch.manual_seed(derive(budget.seed, "initial weights"))
    model = build().to(memory_format=torch.channels_last)
    fabric = launch(devices="1", precision=PRECISION)
    history = fit(model, loss, data, budget, folder, fabric, validate=validate, progress=progress)
    return model.cpu().eval(), history


def seconds(history: list[dict]) -> int:
    """Return how long a training took."""
    return round(sum(epoch["seconds"] for epoch in history))


def spent(budget: FitConfig, **more: Any) -> dict[str, Any]:
    """Return what the record of a study tells of every variant's budget."""
    return (
        {name: getattr(budget, name) for name in ("epochs", "steps", "learning_rate")} | {"precision": PRECISION} | more
    )


def described(chosen: TrainingSet, budget: FitConfig, **more: Any) -> dict[str, Any]:
    """Return what the record of a study tells of its data and of every variant's budget."""
    return {"val_frames": chosen.names("val"), "train_frames": len(chosen.train), "budget": spent(budget, **more)}


def write(
    name: str, rows: list[dict[str, Any]], columns: Mapping[str, str], command: str, seed: int, **details: Any
) -> Path:
    """Write a study's table with its provenance as ``results/studies/<name>.json`` and return its path."""
    path = paths.RESULTS / "studies" / f"{name}.json"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    # JSON knows no NaN: what could not be measured is null.
    rows = [{key: None if value != value else value for key, value in row.items()} for row in rows]
    record = provenance.record(command, seed, device, **details)
    write_json(path, {"provenance": record, "columns": dict(columns), "rows": rows})
    return path
