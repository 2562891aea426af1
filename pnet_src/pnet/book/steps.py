"""The steps that train and measure, and the check of what came out, one function per command.

Each leaves a small JSON and the seconds that it took.
"""

import functools
import hashlib
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pnet.common import paths, timings
from pnet.common.errors import ConfigError, MissingError
from pnet.common.files import read_json, sha256, write_json
from pnet.simulation import datasets

KINDS = ("detection", "refiner", "bpnn")


def train(
    kind: str,
    output: str | os.PathLike,
    *,
    settings: Mapping[str, Any],
    seed: int,
    simulated: bool = True,
    frames_folder: str | os.PathLike | None = None,
    validation: int | None = None,
    progress: bool = True,
) -> Path:
    """Train a network in ``<output>/<kind>`` and return its card.

    An interrupted run goes on where it stopped. One of other code, settings or data is set aside, not deleted: it may
    have taken hours.

    Parameters
    ----------
    kind : {"detection", "refiner", "bpnn"}
    settings : mapping
        Keyword arguments of `training.train_detection` or `star_training.train`.
    simulated : bool
        Mix the simulated frames of the profile into what is rendered on the fly, and validate on them.
    frames_folder : path, optional
        Take every frame in its ``train`` and the plain star fields in its ``val`` instead of the profile's.
    validation : int, optional
        Validate on so many frames at most.
    """
    if kind not in KINDS:
        raise ConfigError(f"network is {kind!r}, allowed are {', '.join(KINDS)}")
    from pnet.training import detection_run as training
    from pnet.training import star_run as star_training

    folder = paths.folder_of(output) / kind
    frames = {}
    if simulated and settings.get("dataset", "simulation") == "simulation":
        frames = _frames(output, frames_folder)
        frames["val"] = frames["val"][:validation]
    key = _fingerprint(
        "pnet.training.star_run", {**settings, **_made_of(output, settings, frames), "kind": kind, "seed": seed}
    )
    if folder.is_dir() and _key_of(folder) != key:
        _set_aside(folder)
    write_json(folder / "fingerprint.json", {"key": key})
    options = "" if simulated else " --no-simulated"
    options += f" --frames {paths.shown(frames_folder)}" if frames_folder else ""
    options += f" --validation {validation}" if validation else ""
    for name, value in settings.items():
        if value is not None:
            is_path = name in ("detection", "refiner", "start") and os.sep in str(value)
            options += f" --{name.replace('_', '-')} {paths.shown(value) if is_path else value}"
    command = f"python -m pnet train {kind} --output {paths.shown(output)} --seed {seed}{options}"
    function = training.train_detection if kind == "detection" else functools.partial(star_training.train, kind)
    with timings.measured(f"train-{kind}", paths.folder_of(output)):
        return function(folder, **frames, **settings, seed=seed, command=command, progress=progress)


def _frames(output: str | os.PathLike, folder: str | os.PathLike | None) -> dict[str, list[Path]]:
    """Return the simulated frames to train and to validate on."""
    if folder is None:
        return {split: datasets.frames_of(output, split) for split in ("train", "val")}
    return frames_in(folder)


def frames_in(folder: str | os.PathLike) -> dict[str, list[Path]]:
    """Return every frame in a folder's ``train`` and the plain star fields in its ``val``.

    Raises
    ------
    MissingError
        If there is none to train on.
    """
    found = {
        "train": sorted(Path(folder, "train").glob("*.fits")),
        "val": sorted(Path(folder, "val").glob("paper-*.fits")),
    }
    if not found["train"]:
        raise MissingError(
            f"{folder} has no train/*.fits; --frames names a folder with train/ and val/ of simulated frames"
        )
    return found


def _made_of(
    output: str | os.PathLike, settings: Mapping[str, Any], frames: Mapping[str, list[Path]]
) -> dict[str, Any]:
    """Return what else a training run depends on: which frames, what made them, and the net that finds their stars."""
    from pnet.stars import weights

    found: dict[str, Any] = {split: [path.name for path in files] for split, files in frames.items()}
    if frames:
        record = read_json(datasets.simulation_folder(output) / "simulation.json")
        found["frames made by"] = (record["engine"], record["seed"])
        # what finds the stars in these frames for a network of single stars
        for kind in ("detection", "refiner"):
            if settings.get(kind, "none") != "none":
                found[f"found by {kind}"] = sha256(weights.resolve(kind, settings[kind]))
    return found


def _fingerprint(module: str, settings: Mapping[str, Any]) -> str:
    """Return a hash of a run's settings."""
    return hashlib.sha256(repr((module, sorted(settings.items()))).encode()).hexdigest()


def _key_of(folder: Path) -> str | None:
    """Return the fingerprint that a folder was made with, None where it has none."""
    try:
        return read_json(folder / "fingerprint.json")["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _set_aside(folder: Path) -> Path:
    """Rename the folder of an earlier run to ``<name>.1`` or the next free number, and return its new name."""
    number = next(number for number in itertools.count(1) if not folder.with_name(f"{folder.name}.{number}").exists())
    return folder.rename(folder.with_name(f"{folder.name}.{number}"))
