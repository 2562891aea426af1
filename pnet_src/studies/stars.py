"""Comparisons that need training: one change a row, the same data, the same number of steps, on validation stars.

Each study writes ``results/studies/<name>.json`` with its provenance: rows, and what their columns mean. Chapters show
them as released results, since they take from minutes to hours. Nothing here looks at test frames.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pnet.common import metrics, paths, provenance
from pnet.common.files import write_json
from pnet.common.seeds import derive
from pnet.evaluation.calibration_metrics import crps
from pnet.frame import Frame
from pnet.simulation.recipe import Recipe
from pnet.sky import limits
from pnet.stars.elbo import ELBO
from pnet.stars.network import CONFIGS, BayesianPhotometryNet, BPNNConfig
from pnet.stars.predict import Prediction, predict
from pnet.training import sets as trainingsets
from pnet.training import stars as stardata
from pnet.training.fit import DataSource, FitConfig, Mixed, fit

MEMBERS = 4  # networks of a deep ensemble
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
    **{f"stamp of {size} × {size} px": (replace(PLAIN, stamp=size), 1.0, 1) for size in (9, 11, 15, 21)},
    "9 × 9 px, correcting classical values that it is not shown": (replace(PLAIN, context=False), 1.0, 1),
    "9 × 9 px, the same, but the magnitude from nothing": (replace(PLAIN, context=False, target="magnitude"), 1.0, 1),
}
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


@dataclass
class Validation:
    """Validation stars with the limit of each.

    Parameters
    ----------
    stars : FrameStars
    mag : ndarray, (N,)
        True magnitudes.
    bounds : dict of str to ndarray, (N,)
        Cramér-Rao bound of 'mag', 'x' and 'y'.
    """

    stars: stardata.FrameStars
    mag: np.ndarray
    bounds: dict[str, np.ndarray]

    @classmethod
    def of(cls, frames: Iterable[tuple[Frame, pd.DataFrame]], find: trainingsets.Finder) -> "Validation":
        """Find the stars of frames with marked truth."""

        def bounded():
            for frame, truth in frames:
                yield frame, truth.reset_index(drop=True).join(limits.frame_limits(frame, truth)), find(frame)

        stars = stardata.FrameStars(bounded(), 1)
        bounds = {name: stars.sources[f"limit_{name}"].to_numpy(float) for name in ("mag", "x", "y")}
        return cls(stars, stars.sources["mag"].to_numpy(float), bounds)

    def scores(self, found: Mapping[str, Prediction], seed: int) -> dict[str, float]:
        """Return the columns of a row, from predictions for the stars."""
        pooled = (self.mag >= 14) & (self.mag < 20)
        row = {}
        for name, prediction in found.items():
            ratio = ((self.stars.truth(name) - prediction.mean) / self.bounds[name])[pooled]
            row[f"{name}_over_limit"] = float(metrics.robust_scatter(ratio))
            if name == "mag":
                row["mag_std_over_limit"] = float(metrics.plain_scatter(ratio))
        mag, truth = found["mag"], self.stars.truth("mag")
        z = metrics.standardised(truth, mag.mean, mag.sigma)
        row["z_scatter"] = float(metrics.plain_scatter(z))
        row["coverage_68"] = metrics.coverage(truth, mag.mean, mag.sigma, 0.68).value
        row["crps"] = 1e3 * float(np.mean(crps(truth, mag.mean, mag.sigma)))
        row["epistemic_share"] = float(np.median(mag.epistemic / mag.aleatoric))
        return row


class Remembered:
    """A data source that keeps its batches, so that all variants of a study learn from the very same ones."""

    def __init__(self, source: Any):
        self.source, self.batches = source, {}

    def batch(self, seed: int, device: torch.device) -> Any:
        """Return the batch of a seed."""
        if seed not in self.batches:
            self.batches[seed] = self.source.batch(seed, device)
        return self.batches[seed]


def mixture(members: Sequence[Mapping[str, Prediction]]) -> dict[str, Prediction]:
    """Return the moments of an equal mixture of predictions: a deep ensemble (Lakshminarayanan et al. 2017)."""
    found = {}
    for name in members[0]:
        means = np.stack([member[name].mean for member in members])
        aleatoric = np.sqrt(np.mean([member[name].aleatoric ** 2 for member in members], axis=0))
        found[name] = Prediction(means.mean(axis=0), aleatoric, means.std(axis=0))
    return found


def train_variant(
    config: BPNNConfig,
    temperature: float,
    data: DataSource,
    batch_size: int,
    fitting: FitConfig,
    folder: Path,
    progress: bool,
) -> tuple[BayesianPhotometryNet, float]:
    """Train one network of single stars and return it with the seconds that it took; a finished one is read again."""
    torch.manual_seed(derive(fitting.seed, "initial weights"))
    model = BayesianPhotometryNet(config).to(memory_format=torch.channels_last)
    model.calibrate_apertures()
    loss = ELBO(fitting.epochs * fitting.steps * batch_size, temperature)
    history = fit(model, loss, data, fitting, folder, accelerator="auto", devices=1, progress=progress)
    return model.cpu(), sum(row["seconds"] for row in history)


def stars(
    variants: Mapping[str, tuple[BPNNConfig, float, int]],
    name: str,
    output: str | os.PathLike,
    *,
    train: Sequence[str | os.PathLike],
    val: Sequence[str | os.PathLike],
    epochs: int = 4,
    steps: int = 100,
    batch_size: int = 768,
    learning_rate: float = 3e-3,
    precision: str = "bf16-mixed",
    seed: int = 2023,
    command: str = "",
    path: str | os.PathLike | None = None,
    progress: bool = True,
) -> Path:
    """Train every variant of a study of single stars and write its table.

    Parameters
    ----------
    variants : mapping
        Name → (network, temperature of the KL term, members).
    name : str
        Of the study.
    output : path
        Folder of the run; checkpoints go to ``<output>/studies/<name>``, so that an interrupted study goes on.
    train, val : sequence of path
        Simulated frames with truth.
    epochs, steps, batch_size, learning_rate, precision, seed
        The budget of every variant, see `FitConfig`.
    command : str
        Recorded in the provenance.
    path : path, optional
        ``results/studies/<name>.json`` by default.

    Returns
    -------
    Path
        The JSON: provenance, ``columns`` (key → heading) and ``rows``.
    """
    folder = paths.folder_of(output) / "studies" / name
    find, found_by = trainingsets.finder("released", "released")
    chosen = trainingsets.TrainingSet(train, val)
    known = Validation.of(chosen.read("val"), find)
    cut = batch_size // 4 if train else 0
    sources: list[Any] = []
    if cut:
        sources.append(stardata.FrameStars(chosen.found("train", find), cut))
    sources.append(stardata.RenderedStamps(Recipe.load(), batch_size - cut, stardata.REFINED))
    data = Remembered(Mixed(sources, stardata.StampBatch.join))
    rows = []
    for index, (label, (config, temperature, members)) in enumerate(variants.items()):
        found, seconds = [], 0.0
        for member in range(members):
            fitting = FitConfig(
                epochs=epochs, steps=steps, learning_rate=learning_rate, precision=precision, seed=seed + member
            )
            where = folder / f"{index}-{member}"
            model, spent = train_variant(config, temperature, data, batch_size, fitting, where, progress)
            found.append(predict(model, known.stars.stars.stamps, seed=seed))
            seconds += spent
        row = {"name": label, "steps": f"{epochs * steps} × {members}", "seconds": round(seconds)}
        rows.append(row | known.scores(mixture(found) if members > 1 else found[0], seed))
    return write(
        name, rows, COLUMNS, command, seed, path,
        n=len(known.mag), val_frames=chosen.names("val"), train_frames=len(chosen.train), found_by=found_by,
        budget={"epochs": epochs, "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate},
    )  # fmt: skip


def sampling(
    *,
    n: int = 14_000,
    samples: int = 50,
    bpnn: str = "released",
    seed: int = 2023,
    command: str = "",
    path: str | os.PathLike | None = None,
) -> Path:
    """Time the prediction of `n` stars with shared features and batched samples against the plain loop of full passes.

    Both give every star the same distribution, which `tests/test_bpnn.py` holds them to.
    """
    from pnet.stars import weights

    model, card = weights.load("bpnn", bpnn)
    rendered = stardata.RenderedStamps(Recipe.load(), 16 * (-(-min(n, 4000) // 16)), stardata.REFINED)
    parts = [rendered.batch(seed + index, torch.device("cpu")).stamps for index in range(-(-n // rendered.batch_size))]
    stamps = type(parts[0]).join(parts)[:n]

    def loop() -> None:
        with torch.inference_mode():
            for _ in range(samples):
                for start in range(0, n, 4096):
                    model(stamps[start : start + 4096])

    rows = []
    ways: dict[str, Callable[[], Any]] = {
        "features once, samples in one batch": lambda: predict(model, stamps, samples=samples, seed=seed),
        "the plain loop: a full pass for every sample": loop,
    }
    for label, way in ways.items():
        start = time.perf_counter()
        way()
        rows.append({"name": label, "stars": n, "samples": samples, "seconds": round(time.perf_counter() - start, 2)})
    rows[0]["speed"] = round(rows[1]["seconds"] / rows[0]["seconds"], 1)
    rows[1]["speed"] = 1.0
    columns = {"name": "way", "stars": "stars", "samples": "samples", "seconds": "seconds", "speed": "times as fast"}
    return write(
        "sampling", rows, columns, command, seed, path, threads=torch.get_num_threads(), weights=card["sha256"]
    )


def write(
    name: str,
    rows: list[dict[str, Any]],
    columns: Mapping[str, str],
    command: str,
    seed: int,
    path: str | os.PathLike | None,
    **details: Any,
) -> Path:
    """Write a study's table with its provenance and return its path."""
    path = Path(path or paths.RESULTS / "studies" / f"{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    # JSON knows no NaN: what could not be measured is null.
    rows = [{key: None if value != value else value for key, value in row.items()} for row in rows]
    record = provenance.record(command or f"python -m studies {name}", seed, device, **details)
    write_json(path, {"provenance": record, "columns": dict(columns), "rows": rows})
    return path
