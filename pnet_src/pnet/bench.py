"""Frames per second of PNet and of the classical baseline, on the same frames in one run."""

import os
import time
from pathlib import Path
from typing import Any

from pnet import baselines, evaluation, paths, provenance, simulation
from pnet.files import write_json


def run(output: str | os.PathLike, *, frames: int = 20, seed: int = 2023) -> list[dict[str, Any]]:
    """Measure simulated test frames with every method; write and return one row per method.

    Parameters
    ----------
    output : path
        Folder for frames and for ``bench.json``, relative to the project's root.
    frames : int
        512×512 frames; the first is measured once before the clock starts.

    Returns
    -------
    list of dict
        method, version, frames, seconds, frames_per_second. Reading the files is not counted.
    """
    folder = paths.ROOT / output
    files = simulation.make_dataset(folder / "simulation", simulation.Recipe.load(), "test", frames, seed)
    images = [simulation.read_frame(path)[0] for path in files]
    classical = baselines.baseline()
    measurers = {"pnet": evaluation.pnet_measurer(seed=seed), classical.name: classical}
    versions = {"pnet": "released weights", classical.name: classical.version()}
    rows = []
    for name, measurer in measurers.items():
        measurer(images[0])  # loads, compiles and caches what is done once
        start = time.perf_counter()
        for image in images:
            measurer(image)
        seconds = time.perf_counter() - start
        rows.append(
            {
                "method": name,
                "version": versions[name],
                "frames": len(images),
                "seconds": round(seconds, 3),
                "frames_per_second": round(len(images) / seconds, 3),
            }
        )
    command = f"python -m pnet bench --frames {frames} --seed {seed}"
    write_json(Path(folder) / "bench.json", provenance.record(command, seed, "cpu", rows=rows))
    return rows
