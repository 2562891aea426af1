"""Speed: every method on the same frames in one run, each in a process of its own, with its peak of memory."""

import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd

from pnet.book import tables
from pnet.common import paths, provenance
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import read_json, write_json
from pnet.evaluation import baselines
from pnet.evaluation.ledger import Entry
from pnet.evaluation.measurements import Measurer
from pnet.simulation.datasets import make_dataset
from pnet.simulation.frame_file import read_frame
from pnet.simulation.recipe import Recipe

# What needs torch is imported after the classical programs were timed: Linux counts a process as no smaller than the
# one that started it.
FILE = "bench.json"
NETWORKS = ("detection_net", "pnet")  # the others run on one thread whatever they are given
NAMES = {**tables.METHOD_NAMES, "detection_net": "detection net alone", "pnet": "PNet, whole"}
THREADED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
MIB = 2**20
QUANTITIES = (  # of a row: key, title, unit
    ("seconds_per_frame", "time for a frame of 512×512 px", "s"),
    ("frames_per_second", "frames of 512×512 px per second", "1/s"),
    ("peak_mib", "largest memory", "MiB"),
)
COLUMNS = {  # of the tables that pages show, heading: value of a row
    "rows": {
        "method": "{method}",
        "device": "{device}",
        "threads": "{threads}",
        "s per frame": "{seconds_per_frame:.3f}",
        "frames per s": "{frames_per_second:.1f}",
        "processor s per frame": "{cpu_seconds_per_frame:.3f}",
        "memory / MiB": "{peak_mib}",
    },
    "forward": {
        "way": "{way}",
        "threads": "{threads}",
        "pixels": "{shape}",
        "patches at once": "{batch}",
        "s per frame of 512²": "{seconds_per_patch:.4f}",
        "times the plain": "{speed_up:.2f}",
        "change of confidence": "{confidence_change:.1e}",
        "change of position / px": "{position_change:.1e}",
        "": "{reason}",
    },
    "training": {
        "configuration": "{config}",
        "device": "{device}",
        "precision": "{precision}",
        "batch": "{batch}",
        "images per s": "{images_per_second:.1f}",
        "TFLOP/s": "{tflops_per_second:.3f}",
        "share of the matrix product's rate": "{share_of_product:.1%}",
        "share of the data sheet's peak": "{share_of_peak:.1%}",
    },
}


def methods() -> tuple[str, ...]:
    """Return what can be timed here: the detection net, the whole of PNet, and every baseline that is installed."""
    return (*NETWORKS, *(name for name in baselines.available() if name != "sextractor_default"))


def run(
    output: str | os.PathLike,
    *,
    frames: int = 20,
    seed: int = 2023,
    threads: Sequence[int] | None = None,
    network: bool = True,
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
    network : bool
        Also time the detection net's forward pass in several ways (`bench_network.forward`).
    training : bool
        Also time steps of its training (`bench_network.training`).

    Returns
    -------
    dict
        ``rows`` (one for each method and number of threads: method, version, threads, device, precision, frames,
        seconds, seconds_per_frame, frames_per_second, cpu_seconds_per_frame, peak_mib), ``forward``, ``training`` and
        the provenance.
    """
    folder = paths.folder_of(output)
    threads = sorted({1, provenance.machine()["cores"]} if threads is None else set(threads))
    if not threads or threads[0] < 1:
        raise ConfigError(f"threads are {threads}, each must be at least 1")
    files = make_dataset(folder / "simulation", Recipe.load(), "test", frames, seed)
    content: dict[str, Any] = {"rows": [], "forward": [], "training": []}
    for name in methods():
        for count in threads if name in NETWORKS else (1,):
            content["rows"].append(in_process(time_method, count, name, [str(file) for file in files], seed, count))
    from studies import bench_network

    for count in threads if network else ():
        content["forward"] += in_process(bench_network.forward, count, str(files[0]), count)
    if training:
        content["training"] = in_process(bench_network.training, threads[-1], threads[-1], seed)
    command = f"python -m studies bench --frames {frames} --seed {seed}" + (" --training" if training else "")
    devices = sorted({row["device"] for row in content["rows"]})
    content = provenance.record(command, seed, ", ".join(devices), load=round(os.getloadavg()[0], 1), **content)
    write_json(folder / FILE, content)
    return content


def in_process(function, threads: int, *arguments: Any) -> Any:
    """Call a function in a fresh process: its memory is its own, and so is its number of threads.

    Raises
    ------
    DataError
        If the process dies, as when memory runs out.
    """
    # a spawned process reads the number of threads when it imports numpy
    with mock.patch.dict(os.environ, dict.fromkeys(THREADED, str(threads))):
        try:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise DataError(f"bench: the process of {function.__name__}{arguments[:1]} died: {error}") from error


def time_method(name: str, files: Sequence[str], seed: int, threads: int) -> dict[str, Any]:
    """Time one method on frames.

    Parameters
    ----------
    name : str
        Of `methods`.
    files : sequence of str
        Simulated frames.
    seed : int
    threads : int
        Of torch.

    Returns
    -------
    dict
        A row, see `run`. ``seconds_per_frame`` is the median: another process that starts in between spoils single
        frames. ``peak_mib`` is that of `peak_memory`.
    """
    images = [read_frame(file)[0] for file in files]
    measurer, version, device = _measurer(name, seed, threads)
    measurer(images[0])  # loads, compiles and caches what is done once
    seconds, processor = [], _processor_seconds()
    for image in images:
        start = time.perf_counter()
        measurer(image)
        seconds.append(time.perf_counter() - start)
    processor = _processor_seconds() - processor
    median = statistics.median(seconds)
    return {
        "method": name,
        "version": version,
        "threads": threads,
        "device": device,
        "precision": "float32" if name in NETWORKS else "",
        "frames": len(images),
        "seconds": round(sum(seconds), 3),
        "seconds_per_frame": round(median, 4),
        "frames_per_second": round(1 / median, 3),
        "cpu_seconds_per_frame": round(processor / len(images), 4),
        "peak_mib": round(peak_memory() / MIB),
    }


def _measurer(name: str, seed: int, threads: int) -> tuple[Measurer, str, str]:
    """Return the measurer, its version and its device."""
    if name not in NETWORKS:
        baseline = baselines.named(name)
        return baseline, baseline.version(), "cpu"
    import torch

    torch.set_num_threads(threads)
    if name == "pnet":
        from pnet.measure import PNet

        model = PNet.load()
        device = next(model.detection.parameters()).device.type
        return (lambda frame: model.measure(frame, seed=seed)), "released weights", device
    from pnet.detection.predict import detect
    from pnet.measure import CONFIDENCE
    from pnet.stars import weights

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, _ = weights.load("detection", "released", device)
    return (lambda frame: detect(model, frame, CONFIDENCE)), "released weights", device


def _processor_seconds() -> float:
    """Return the seconds of processor time that this process and its finished children have taken."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def peak_memory() -> int:
    """Return the largest resident set so far, in bytes, of this process or of a program that it started.

    The larger of the two, not their sum: Linux counts a program as no smaller than the process that started it.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def read(path: str | os.PathLike = paths.RESULTS / FILE) -> dict[str, Any]:
    """Read what `run` wrote, by default the released run.

    Raises
    ------
    MissingError, DataError
        If there is no such file, or it is something else.
    """
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise MissingError(f"{path}: nothing was timed here; `make bench` does") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise DataError(f"{path}: not the result of `make bench`")
    return content


def release(output: str | os.PathLike) -> Path:
    """Copy a run's ``bench.json`` into ``results/`` and return the copy.

    Raises
    ------
    MissingError, DataError
        As `read`.
    """
    content = read(paths.folder_of(output) / FILE)
    write_json(paths.RESULTS / FILE, content)
    return paths.RESULTS / FILE


def entries(content: Mapping[str, Any] | None = None, source: str = "released") -> list[Entry]:
    """Return ledger entries of a run, by default of the released one.

    Keys are ``bench.<method>.<what>`` for one thread, with ``.<n>_threads`` after it for more.

    Parameters
    ----------
    content : mapping, optional
        From `run` or `read`.
    source : {"released", "live"}
    """
    content = read() if content is None else content
    kept = {name: content[name] for name in ("command", "commit", "date", "device", "seed") if name in content}
    common = {"source": source, "provenance": kept}
    found = []
    for row in content["rows"]:
        more = f".{row['threads']}_threads" if row["threads"] > 1 else ""
        label = f"{NAMES.get(row['method'], row['method'])}, {row['device']}, threads: {row['threads']}"
        for name, title, unit in QUANTITIES:
            key, title = f"bench.{row['method']}.{name}{more}", f"{title}, {label}"
            found.append(Entry(key, row[name], n=row["frames"], unit=unit, title=title, **common))
    for row in content.get("training", ()):
        key, value = f"bench.training_{row['config']}.images_per_second", row["images_per_second"]
        title = f"training images of {row['size']}×{row['size']} px per second, {row['device']}"
        found.append(Entry(key, value, n=row["steps"], unit="1/s", title=title, **common))
    return found


def table(content: Mapping[str, Any], part: str = "rows") -> pd.DataFrame:
    """Return a part of a run as a table of texts; what a row lacks is –, and a column without a value is left out.

    Parameters
    ----------
    content : mapping
        From `run` or `read`.
    part : {"rows", "forward", "training"}
        The methods, fastest first; ways of the detection net's forward pass; steps of its training.
    """
    rows = content.get(part, ())
    if part == "rows":
        rows = sorted(rows, key=lambda row: row["seconds_per_frame"])
        rows = [row | {"method": NAMES.get(row["method"], row["method"])} for row in rows]
    known = [{key: value for key, value in row.items() if value is not None} for row in rows]
    found = pd.DataFrame({heading: _text(pattern, row) for heading, pattern in COLUMNS[part].items()} for row in known)
    return found.loc[:, (found != tables.NO_VALUE).any()] if len(found) else found


def _text(pattern: str, row: Mapping[str, Any]) -> str:
    try:
        return pattern.format_map(row)
    except KeyError:
        return tables.NO_VALUE
