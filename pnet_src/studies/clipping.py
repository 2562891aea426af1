"""What clipping gradients does for the paper's BPNN (section 4.2): trained with it and without, on the same
batches from the same weights."""

import functools
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from pnet.common import paths
from pnet.common.errors import DataError
from pnet.simulation.recipe import Recipe
from pnet.stars.elbo import ELBO
from pnet.stars.network import CONFIGS, BayesianPhotometryNet
from pnet.training.config import FitConfig
from pnet.training.fit import HISTORY
from pnet.training.runs import star_scores
from pnet.training.sets import TrainingSet, finder
from pnet.training.stars import FrameStars, RenderedStars, psfs_for
from studies import ablations

NORMS = {"clipped": 1.0, "free": math.inf}  # of the gradient, the largest that is let through
SEEDS = 3
CONFIG = CONFIGS["paper-narrow"]
BATCH_SIZE = 512  # stars
N_TRAIN = (
    2_560_000  # stars that the released weights saw; so few as here would let the divergence of Eq. 12 outweigh them
)
LAST = 4  # epochs whose mean loss is the final one: that of one depends on its stars
COLUMNS = {
    "name": "gradients",
    "member": "seed",
    "loss": "final loss",
    "worst": "worst loss once the learning rate falls",
    "gradient_norm": "largest gradient norm",
    "diverged": "diverged",
    "mag_mae": "MAE on validation stars / mag",
}


def run(
    output: str | os.PathLike, chosen: TrainingSet, budget: FitConfig, *, command: str, progress: bool = True
) -> Path:
    """Train the BPNN with clipped and with free gradients and write ``results/studies/clipping.json``.

    Every row keeps its ``history``; one whose loss is no longer finite has diverged, and keeps what it was until then.

    Parameters
    ----------
    output, chosen, budget, command
        As in `studies.detection.run`; `chosen` is only validated on, checkpoints go to ``<output>/studies/clipping``.
    """
    find, _ = finder("released")
    known = FrameStars(chosen.found("val", find), 1, bare=CONFIG.stamp)
    loss, rows, psfs = ELBO(N_TRAIN), [], psfs_for(budget.epochs * budget.steps)
    for seed in range(budget.seed, budget.seed + SEEDS):
        data = ablations.remembered(RenderedStars(Recipe.load(), BATCH_SIZE, seed, CONFIG.stamp, psfs))
        for name, norm in NORMS.items():
            folder = paths.folder_of(output) / "studies" / "clipping" / f"{name}-{seed}"
            own = replace(budget, clip_norm=norm, seed=seed)
            row: dict[str, Any] = {"name": name, "member": str(seed), "diverged": "no", "mag_mae": None}
            try:
                build = functools.partial(BayesianPhotometryNet, CONFIG)
                model, _ = ablations.trained(build, loss, data, own, folder, progress)
                row["mag_mae"] = star_scores(model, known, budget.seed)["mag_mae"]
            except DataError as error:
                row["diverged"] = str(error)
            rows.append(row | _curve(folder, own))
    details = {"n": len(known), "n_train": N_TRAIN, **ablations.described(chosen, budget, batch_size=BATCH_SIZE)}
    return ablations.write("clipping", rows, COLUMNS, command, budget.seed, **details)


def _curve(folder: Path, budget: FitConfig) -> dict[str, Any]:
    """Return the losses and gradients of a run's finished epochs; nothing where there is none."""
    if not (folder / HISTORY).is_file():
        return {"loss": None, "worst": None, "gradient_norm": None, "history": []}
    history = pd.read_csv(folder / HISTORY)
    falling = history["steps"] > min(budget.warmup, budget.epochs * budget.steps // 5)
    return {
        "loss": float(history["loss"].tail(LAST).mean()),
        "worst": float(history.loc[falling, "loss"].max()),
        "gradient_norm": float(history["gradient_norm"].max()),
        "history": history[["steps", "loss", "gradient_norm"]].to_dict("records"),
    }
