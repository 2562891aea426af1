"""Speed: every method on the same frames in one run, and steps of the detection net's training."""

import os
import statistics
import timeit
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pnet.book import tables
from pnet.common import paths, provenance
from pnet.common.errors import ConfigError, MissingError
from pnet.common.files import write_json
from pnet.common.metrics import Estimate
from pnet.detection.losses import detection_loss
from pnet.detection.network import CONFIGS, PhotometryDetectionNet
from pnet.detection.targets import Batch
from pnet.evaluation.ledger import Entry, entries_of
from pnet.evaluation.scores import Score
from pnet.simulation.datasets import make_dataset
from pnet.simulation.recipe import Recipe
from pnet.training.fields import RenderedFields
from studies import released, speed

FILE = "bench.json"
NAMES = {**tables.METHOD_NAMES, "detection_net": "detection net alone", "pnet": "PNet, whole"}
QUANTITIES = (  # of a row: key, title, unit
    ("seconds_per_frame", "time for a frame of 512×512 px", "s"),
    ("frames_per_second", "frames of 512×512 px per second", "1/s"),
    ("peak_mib", "largest memory", "MiB"),
)
COLUMNS = {  # of the tables that pages show: key of a row, heading
    "rows": {
        "method": "method",
        "device": "device",
        "threads": "threads",
        "seconds_per_frame": "s per frame",
        "frames_per_second": "frames per s",
        "cpu_seconds_per_frame": "processor s per frame",
        "peak_mib": "memory / MiB",
    },
    "training": {
        "config": "configuration",
        "device": "device",
        "precision": "precision",
        "batch": "batch",
        "images_per_second": "images per s",
        "tflops_per_second": "TFLOP/s",
        "share_of_product": "share of the matrix product's rate",
        "share_of_peak": "share of the data sheet's peak",
    },
}
REPEATS = 5  # the median of so many calls is given
TRAINING = (("compact", 8, 256), ("paper", 8, 256))  # configuration, fields in a batch, px
STEPS = 3  # of training; their median is given
# Dense bf16 peak in FLOP/s by the name that CUDA gives a device, from NVIDIA's data sheets.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "T4": 65e12}
PRODUCT = {"cuda": 8192, "cpu": 2048}  # side of the matrices whose product tells what a device can do in practice


def run(
    output: str | os.PathLike,
    *,
    frames: int = 20,
    seed: int = 2023,
    threads: Sequence[int] | None = None,
    training: bool = False,
) -> dict[str, Any]:
    """Time every method on simulated test frames and write ``bench.json``.

    Parameters
    ----------
    output : path
        Folder for the frames and for ``bench.json``, relative to the project's root.
    frames : int
        512×512 frames; the first is measured once before the clock starts. Reading the files is not counted.
    seed : int
    threads : sequence of int, optional
        Threads that the networks are timed with; by default one, and as many as there are cores.
    training : bool
        Also time steps of the detection net's training (`train`).

    Returns
    -------
    dict
        ``rows`` (one for each method and number of threads: method, version, threads, device, precision, frames,
        seconds, seconds_per_frame, frames_per_second, cpu_seconds_per_frame, peak_mib), ``training`` and provenance.
    """
    folder = paths.folder_of(output)
    threads = sorted({1, provenance.machine()["cores"]} if threads is None else set(threads))
    if not threads or threads[0] < 1:
        raise ConfigError(f"threads are {threads}, each must be at least 1")
    files = [str(file) for file in make_dataset(folder / "simulation", Recipe.load(), "test", frames, seed)]
    tasks = [(name, count) for name in speed.methods() for count in (threads if name in speed.NETWORKS else (1,))]
    rows = [speed.in_process(speed.time_method, count, name, files, seed, count) for name, count in tasks]
    steps = speed.in_process(train, threads[-1], threads[-1], seed) if training else []
    command = f"python -m studies bench --frames {frames} --seed {seed}" + (" --training" if training else "")
    devices, load = sorted({row["device"] for row in rows}), round(os.getloadavg()[0], 1)
    content = provenance.record(command, seed, ", ".join(devices), load=load, rows=rows, training=steps)
    write_json(folder / FILE, content)
    return content


def read(path: Path | None = None) -> dict[str, Any]:
    """Read what `run` wrote, by default the released run.

    Raises
    ------
    MissingError, DataError
        If there is no such file, or it is something else.
    """
    path = path or paths.RESULTS / FILE
    content = released.checked(path, "make bench", rows=list)
    if content is None:
        raise MissingError(f"{path}: nothing was timed here; `make bench` does")
    return content


def entries(content: Mapping[str, Any]) -> list[Entry]:
    """Return ledger entries of a run that `read` read.

    Keys are ``bench.<method>.<what>`` for one thread, with ``.<n>_threads`` after it for more.
    """
    found = {}
    for row in content["rows"]:
        more = f".{row['threads']}_threads" if row["threads"] > 1 else ""
        label = f"{NAMES.get(row['method'], row['method'])}, {row['device']}, threads: {row['threads']}"
        for name, title, unit in QUANTITIES:
            score = Score(Estimate(row[name], n=row["frames"]), f"{title}, {label}", unit)
            found[f"{row['method']}.{name}{more}"] = score
    for row in content.get("training", ()):
        title = f"training images of {row['size']}×{row['size']} px per second, {row['device']}"
        score = Score(Estimate(row["images_per_second"], n=row["steps"]), title, "1/s")
        found[f"training_{row['config']}.images_per_second"] = score
    return entries_of(found, "bench", "released", content)


def table(content: Mapping[str, Any], part: str = "rows") -> pd.DataFrame:
    """Return a part of a run as a table of texts; what a row lacks is –, and a column without a value is left out.

    Parameters
    ----------
    content : mapping
        From `run` or `read`.
    part : {"rows", "training"}
        The methods, fastest first; steps of the detection net's training.
    """
    rows = content.get(part, ())
    if part == "rows":
        rows = sorted(rows, key=lambda row: row["seconds_per_frame"])
        rows = [row | {"method": NAMES.get(row["method"], row["method"])} for row in rows]
    return released.table({"columns": COLUMNS[part], "rows": rows})


def _device(threads: int) -> torch.device:
    """Return the device at hand, after torch has been given its number of threads."""
    torch.set_num_threads(threads)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _seconds(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Return the median seconds of a call, after one that does not count."""
    finish = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    return statistics.median(timeit.repeat(lambda: (call(), finish()), number=1, repeat=repeats + 1)[1:])


def train(threads: int, seed: int) -> list[dict[str, Any]]:
    """Time training steps (forward, loss, backward, Adam) of the configurations on the device at hand, in bfloat16.

    Parameters
    ----------
    threads : int
        Of torch.
    seed : int
        Of the rendered batch, the same for every step: data is timed apart.

    Returns
    -------
    list of dict
        config, device, threads, precision, batch, size (px), steps, seconds_per_step, images_per_second,
        seconds_per_batch_rendered, tflop_per_step (counted by torch), tflops_per_second, share_of_product (against the
        rate of a large bf16 matrix product on the same device) and, for devices of `PEAK`, share_of_peak; peak_gib on
        CUDA.
    """
    device = _device(threads)
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else "cpu"
    peak = next((value for key, value in PEAK.items() if key in name.replace("-", " ").split()), None)
    side = PRODUCT[device.type]
    left, right = torch.randn(2, side, side, device=device).bfloat16()
    product = 2 * side**3 / _seconds(lambda: left @ right, device, REPEATS)
    rows = []
    for config, batch, size in TRAINING:
        torch.manual_seed(seed)
        model = PhotometryDetectionNet(CONFIGS[config]).to(device, memory_format=torch.channels_last).train()
        fields = RenderedFields(Recipe.load(), batch, size)
        step = partial(_step, model, torch.optim.Adam(model.parameters(), lr=1e-4), fields.batch(seed, device))
        with FlopCounterMode(display=False) as counter:
            step()
        flop = counter.get_total_flops()
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        seconds = _seconds(step, device, STEPS)
        row = {"config": config, "device": name, "threads": threads, "precision": "bf16", "batch": batch, "size": size}
        row |= {"steps": STEPS, "seconds_per_step": seconds, "images_per_second": batch / seconds}
        row |= {"tflop_per_step": flop / 1e12, "tflops_per_second": flop / seconds / 1e12}
        row |= {"share_of_product": flop / seconds / product, "share_of_peak": flop / seconds / peak if peak else None}
        row |= {"peak_gib": torch.cuda.max_memory_allocated(device) / 2**30} if cuda else {}
        rendered = _seconds(partial(fields.batch, seed, device), device, 1)
        rows.append(row | {"seconds_per_batch_rendered": rendered})
    return rows


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(batch.image.device.type, dtype=torch.bfloat16):
        loss = detection_loss(model, batch)["loss"]
    loss.backward()
    optimizer.step()
