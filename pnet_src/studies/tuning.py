"""The classical programs' detection settings, chosen on frames that nothing is reported on.

`tune` measures validation frames of pure star fields and training frames with galaxies over a grid of settings; the
choice and the curves behind it are written to ``data_manifests/baselines.yml``, from which they
are read (`pnet.evaluation.baselines`).
"""

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from pnet.common import provenance
from pnet.common.errors import ConfigError, MissingError
from pnet.common.files import atomic_path
from pnet.evaluation.baselines import CLASSES, SETTINGS, settings
from pnet.evaluation.frames import naming, read_simulated
from pnet.frame import Frame
from pnet.sky import matching

GRIDS: dict[str, dict[str, Sequence[float]]] = {
    "sextractor": {
        "threshold": (1.5, 2.0, 3.0, 4.0, 5.0, 7.0),
        "min_contrast": (0.005, 0.001),
        "min_class_star": (0.0, 0.02, 0.1, 0.5),
    },
    "psfex": {
        "threshold": (1.5, 2.0, 3.0, 5.0),
        "min_contrast": (0.005, 0.001),
        "min_class_star": (0.0, 0.02, 0.1, 0.5),
    },
    "photutils": {"threshold": (5.0, 7.0, 10.0, 14.0)},
}
CUT, CUT_COLUMN = "min_class_star", "class_star"  # what is cut from one run's table rather than run again
SETS = {"paper": ("val", "paper-*.fits"), "realistic": ("train", "realistic-*.fits")}
COUNTED = ("found", "missed", "false", "galaxies")
FAINTEST = 20.0  # mag; the paper's range ends there, and so does what counts as a false star on a galaxy


def tune(
    name: str, folder: str | os.PathLike, *, path: Path = SETTINGS, limit: int | None = None, progress: bool = True
) -> dict[str, Any]:
    """Choose a method's settings and write them, with the curves behind the choice, into a YAML file.

    The score is F1 of the counted stars (13–20 mag, isolated), 2 TP / (2 TP + FP + FN), over both sets of frames
    together. False are detections that match nothing, and those on a galaxy whose own magnitude is 20 or brighter.

    Parameters
    ----------
    name : str
        Of `GRIDS`, the values to try for each setting with the program's own default first.
    folder : path
        With ``val/paper-*.fits`` and ``train/realistic-*.fits``; nothing else of it is read.
    path : Path
        The file; other methods' entries in it stay.
    limit : int, optional
        Frames of each set at most.

    Returns
    -------
    dict
        What was written for this method: chosen, score, frames, curve, provenance.

    Raises
    ------
    ConfigError
        For a method that has no settings to choose.
    MissingError
        If there are no such frames, or a program is missing.
    """
    if name not in GRIDS:
        raise ConfigError(f"method is {name!r}, allowed are {', '.join(GRIDS)}")
    grid = GRIDS[name]
    frames = {label: sorted(Path(folder, split).glob(pattern))[:limit] for label, (split, pattern) in SETS.items()}
    for label, files in frames.items():
        if not files:
            raise MissingError(f"{folder} has no {'/'.join(SETS[label])}; --frames names a folder that does")
    items = [(label, file) for label, files in frames.items() for file in files]
    counts: dict[tuple, np.ndarray] = defaultdict(lambda: np.zeros(len(COUNTED), int))
    for label, file in tqdm(items, desc=name, disable=not progress):
        for setting, numbers in _counts(name, file, grid):
            counts[(label, *setting)] += numbers
    curve = [_row(dict(zip(grid, values, strict=True)), counts) for values in itertools.product(*grid.values())]
    best = max(curve, key=lambda row: row["f1"])  # the first of equals, the one nearest to the default
    command = f"python -m studies tune-baseline {name} --frames {Path(folder).name}"
    command += f" --limit {limit}" if limit else ""
    record = provenance.record(command, 0, "cpu")
    chosen = {key: best[key] for key in grid}
    entry = {
        "chosen": chosen,
        "score": "F1 of counted stars over both sets; detections on galaxies of measured magnitude <= 20 are false",
        "version": replace(CLASSES[name](), **chosen).version(),
        "frames": {label: f"{len(files)} of {'/'.join(SETS[label])}" for label, files in frames.items()},
        "provenance": {key: record[key] for key in ("command", "commit", "date")},
        "curve": curve,
    }
    content = yaml.safe_load(path.read_text()) if path.exists() else {}
    with atomic_path(path) as temporary:
        temporary.write_text(_HEADER + _dump({**(content or {}), name: entry}))
    settings.cache_clear()
    return entry


_HEADER = """# Settings of the classical baselines, chosen by `tune-baseline` on validation and training frames.
# curve: stars found and missed, false detections and those on galaxies for every setting that was tried, by set.
"""


def _dump(content: Mapping[str, Any]) -> str:
    """Return YAML with one line for each point of a curve."""
    lines = []
    for name, entry in content.items():
        plain = [f"  {key}: {_flow(value)}" for key, value in entry.items() if key != "curve"]
        curve = [f"    - {_flow(row)}" for row in entry.get("curve", ())]
        lines += [f"{name}:", *plain, *(["  curve:", *curve] if curve else [])]
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _counts(name: str, file: Path, grid: Mapping[str, Sequence[float]]) -> Iterator[tuple[tuple, np.ndarray]]:
    """Yield `_count` of a frame for every setting of the grid; what is only a cut is not run again."""
    frame, truth = read_simulated(file)
    found: dict[tuple, pd.DataFrame] = {}
    for values in itertools.product(*grid.values()):
        setting = dict(zip(grid, values, strict=True))
        cut = setting.pop(CUT, 0)
        key = tuple(setting.values())
        if key not in found:
            with naming(f"frame {frame.name}"):
                found[key] = replace(CLASSES[name](), **setting)(frame)
        # as the method itself does: without CLASS_STAR a cut above 0 keeps nothing
        kept = found[key][found[key][CUT_COLUMN] >= cut] if cut else found[key]
        yield values, _count(truth, kept, frame)


def _count(truth: pd.DataFrame, found: pd.DataFrame, frame: Frame) -> np.ndarray:
    """Return how many stars are found and missed, and how many detections are false and on galaxies."""
    rows = matching.compare(truth, found, frame.shape, mask=frame.mask)
    numbers = [int((rows["status"] == each).sum()) for each in (matching.MATCHED, matching.MISSED, matching.FALSE)]
    return np.array([*numbers, int(((rows["truth_kind"] == "galaxy") & (rows["mag"] <= FAINTEST)).sum())])


def _row(setting: Mapping[str, float], counts: Mapping[tuple, np.ndarray]) -> dict[str, Any]:
    numbers = {label: counts[(label, *setting.values())] for label in SETS}
    sets = {label: dict(zip(COUNTED, each.tolist(), strict=True)) | _rates(each) for label, each in numbers.items()}
    return {**setting, **sets, "f1": _rates(sum(numbers.values()))["f1"]}


def _rates(numbers: np.ndarray) -> dict[str, float]:
    true, missed, *false = numbers.tolist()
    wrong = sum(false)
    return {
        "precision": round(true / max(1, true + wrong), 5),
        "recall": round(true / max(1, true + missed), 5),
        "f1": round(2 * true / max(1, 2 * true + wrong + missed), 5),
    }
