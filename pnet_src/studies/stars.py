"""Networks of single stars compared: posteriors, stamps, and what samples cost; on validation stars."""

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pnet.common import metrics, paths
from pnet.evaluation.calibration_metrics import crps
from pnet.frame import Frame
from pnet.simulation.recipe import Recipe
from pnet.stars import weights
from pnet.stars.elbo import ELBO
from pnet.stars.network import CONFIGS, BayesianPhotometryNet
from pnet.stars.predict import Prediction, predict
from pnet.training.config import FitConfig
from pnet.training.fit import Mixed
from pnet.training.sets import Finder, TrainingSet, finder
from pnet.training.stars import FrameStars, RenderedStars, StarBatch, psfs_for
from studies import ablations

MEMBERS = 4  # networks of a deep ensemble
BATCH_SIZE = 768  # stars
PLAIN = replace(CONFIGS["compact"], head="plain")
# Every variant of a study of single stars: its name, its network, its temperature and its number of members.
POSTERIOR = {
    "flipout (the paper's kind), ELBO of Eq. 12": (CONFIGS["compact"], 1.0, 1),
    "flipout, cold posterior (temperature 0.1)": (CONFIGS["compact"], 0.1, 1),
    "Monte Carlo dropout": (replace(CONFIGS["compact"], head="dropout"), 1.0, 1),
    "plain heteroscedastic": (PLAIN, 1.0, 1),
    f"deep ensemble of {MEMBERS} plain ones": (PLAIN, 1.0, MEMBERS),
}
STAMPS = {
    **{f"stamp of {size} × {size} px": (replace(PLAIN, stamp=size), 1.0, 1) for size in (9, 11, 15)},
    "9 × 9 px, correcting the fit without the numbers beside the image": (replace(PLAIN, context=False), 1.0, 1),
    "9 × 9 px, the same, but the magnitude from nothing": (replace(PLAIN, context=False, target="magnitude"), 1.0, 1),
}
STUDIES = {"posterior": POSTERIOR, "stamps": STAMPS}
COLUMNS = {
    "name": "variant",
    "mag_over_limit": "mag: scatter / limit, 14–20",
    "x_over_limit": "x: scatter / limit, 14–20",
    "y_over_limit": "y: scatter / limit, 14–20",
    "mag_std_over_limit": "mag: standard deviation / limit",
    "z_scatter": "mag: std of (truth − mean)/σ",
    "coverage_68": "mag: inside the 68 % interval",
    "crps": "mag: CRPS / mmag",
    "epistemic_share": "mag: median epistemic / aleatoric",
    "steps": "steps × members",
}


def bounded(chosen: TrainingSet, find: Finder) -> Iterator[tuple[Frame, pd.DataFrame, pd.DataFrame]]:
    """Yield validation frames, their truth with the Cramér-Rao limit of each star, and what is found in them."""
    for frame, truth, found in chosen.found("val", find):
        yield frame, ablations.bounded(frame, truth), found


def scores(stars: FrameStars, found: Mapping[str, Prediction]) -> dict[str, float]:
    """Return the columns of a row, from predictions for stars of frames that are `bounded`."""
    pooled = stars.sources["mag"].between(14, 20, inclusive="left").to_numpy()
    row = {}
    for name, prediction in found.items():
        limit = stars.sources[f"limit_{name}"].to_numpy(float)
        ratio = ((stars.truth(name) - prediction.mean) / limit)[pooled]
        row[f"{name}_over_limit"] = float(metrics.robust_scatter(ratio))
        if name == "mag":
            row["mag_std_over_limit"] = float(metrics.plain_scatter(ratio))
    mag, truth = found["mag"], stars.truth("mag")
    z = metrics.standardised(truth, mag.mean, mag.sigma)
    row["z_scatter"] = float(metrics.plain_scatter(z))
    row["coverage_68"] = metrics.coverage(z, 0.68).value
    row["crps"] = 1e3 * float(np.mean(crps(z, mag.sigma)))
    row["epistemic_share"] = float(np.median(mag.epistemic / mag.aleatoric))
    return row


def mixture(members: Sequence[Mapping[str, Prediction]]) -> dict[str, Prediction]:
    """Return the moments of an equal mixture of predictions: a deep ensemble (Lakshminarayanan et al. 2017)."""
    found = {}
    for name in members[0]:
        means = np.stack([member[name].mean for member in members])
        aleatoric = np.sqrt(np.mean([member[name].aleatoric ** 2 for member in members], axis=0))
        found[name] = Prediction(means.mean(axis=0), aleatoric, means.std(axis=0))
    return found


def run(
    name: str, output: str | os.PathLike, chosen: TrainingSet, budget: FitConfig, *, command: str, progress: bool = True
) -> Path:
    """Train every variant of a study of `STUDIES` and write ``results/studies/<name>.json``.

    Parameters
    ----------
    name : str
        Of the study.
    output, chosen, budget, command
        As in `detection.run`; checkpoints go to ``<output>/studies/<name>``.

    Returns
    -------
    Path
        The JSON: provenance, ``columns`` (key → heading) and ``rows``.
    """
    folder = paths.folder_of(output) / "studies" / name
    find, found_by = finder("released")
    known = FrameStars(bounded(chosen, find), 1)
    cut = BATCH_SIZE // 4 if chosen.train else 0
    sources: list[Any] = [FrameStars(chosen.found("train", find), cut)] if cut else []
    steps, rows = budget.epochs * budget.steps, []
    sources.append(RenderedStars(Recipe.load(), BATCH_SIZE - cut, budget.seed, count=psfs_for(steps)))
    data = ablations.remembered(Mixed(sources, StarBatch.join))
    for index, (label, (config, temperature, members)) in enumerate(STUDIES[name].items()):
        build, loss = functools.partial(BayesianPhotometryNet, config), ELBO(steps * BATCH_SIZE, temperature)
        found, seconds = [], 0
        for member in range(members):
            own, place = replace(budget, seed=budget.seed + member), folder / f"{index}-{member}"
            model, history = ablations.trained(build, loss, data, own, place, progress)
            found.append(predict(model, known.stars.inputs, seed=budget.seed))
            seconds += ablations.seconds(history)
        row = {"name": label, "steps": f"{steps} × {members}", "seconds": seconds}
        rows.append(row | scores(known, mixture(found) if members > 1 else found[0]))
    details = {"n": len(known), "found_by": found_by, **ablations.described(chosen, budget, batch_size=BATCH_SIZE)}
    return ablations.write(name, rows, COLUMNS, command, budget.seed, **details)


def sampling(*, seed: int, command: str, n: int = 14_000, samples: int = 50) -> Path:
    """Time the prediction of `n` stars with shared features and batched samples against the plain loop of full passes.

    Both give every star the same distribution, which the tests of the network hold them to.
    """
    model, card = weights.load("bpnn")
    rendered = RenderedStars(Recipe.load(), min(n, 4000), seed, count=psfs_for(1))
    parts = [rendered.batch(seed + index, torch.device("cpu")) for index in range(-(-n // rendered.batch_size))]
    inputs = StarBatch.join(parts).inputs[:n]

    def loop() -> None:
        with torch.inference_mode():
            for _ in range(samples):
                for start in range(0, n, 4096):
                    model(inputs[start : start + 4096])

    ways: dict[str, Callable[[], Any]] = {
        "features once, samples in one batch": lambda: predict(model, inputs, samples=samples, seed=seed),
        "the plain loop: a full pass for every sample": loop,
    }
    rows = []
    for label, way in ways.items():
        start = time.perf_counter()
        way()
        rows.append({"name": label, "stars": n, "samples": samples, "seconds": time.perf_counter() - start})
    for row in rows:
        row |= {"speed": round(rows[1]["seconds"] / row["seconds"], 1), "seconds": round(row["seconds"], 2)}
    columns = {"name": "way", "stars": "stars", "samples": "samples", "seconds": "seconds", "speed": "times as fast"}
    details = {"threads": torch.get_num_threads(), "weights": card["sha256"]}
    return ablations.write("sampling", rows, columns, command, seed, **details)
