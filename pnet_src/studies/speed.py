"""One method timed in a process of its own, with its peak of memory. Only the networks' process imports torch."""

import multiprocessing
import os
import re
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any
from unittest import mock

from pnet.common.errors import DataError
from pnet.evaluation import baselines
from pnet.simulation.frame_file import read_frame

NETWORKS = ("detection_net", "pnet")  # the others run on one thread whatever they are given
THREADED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
KIB, MIB = 2**10, 2**20
STATUS = Path("/proc/self/status")


def methods() -> tuple[str, ...]:
    """Return what can be timed here: the detection net, the whole of PNet, and every baseline that is installed."""
    return (*NETWORKS, *(name for name in baselines.available() if name != "sextractor_default"))


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
    """Time one method of `methods` on simulated frames; `threads` are those of torch.

    Returns
    -------
    dict
        A row, see `bench.run`. ``seconds_per_frame`` is the median: another process that starts in between spoils
        single frames. ``peak_mib`` is that of `peak_memory`.
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


def _measurer(name: str, seed: int, threads: int) -> tuple[Any, str, str]:
    """Return what measures a frame, its version and its device."""
    if name not in NETWORKS:
        baseline = baselines.named(name)
        return baseline, baseline.version(), "cpu"
    import torch

    from pnet.detection.predict import detect
    from pnet.measure import CONFIDENCE, PNet
    from pnet.stars import weights

    torch.set_num_threads(threads)
    if name == "pnet":
        whole = PNet.load()
        device = next(whole.detection.parameters()).device.type
        return (lambda frame: whole.measure(frame, seed=seed)), "released weights", device
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, _ = weights.load("detection", "released", device)
    return (lambda frame: detect(model, frame, CONFIDENCE)), "released weights", device


def _processor_seconds() -> float:
    """Return the seconds of processor time that this process and its finished children have taken."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def peak_memory() -> int:
    """Return the largest resident set so far, in bytes, of this process or of a program that it started.

    The larger of the two, not their sum. The kernel's own count of a process begins, on Linux, with the size of the one
    that started it: of this process its status tells the true peak, a program counts as no smaller than this process.
    """
    unit = 1 if sys.platform == "darwin" else KIB
    own, programs = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    if STATUS.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())):
        own = int(found[1])
    return unit * max(own, programs)
