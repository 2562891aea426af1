"""The steps between the notebooks, one function per rule of the Snakefile: simulate, download, train.

Each leaves a small JSON that tells what it did, and the seconds in ``<output>/timings``. What was made by other code,
other parameters or another engine is not taken for this run's.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pnet import dependencies, paths, timings
from pnet.errors import ConfigError, MissingError
from pnet.files import read_json, write_json

SPLITS = ("train", "val", "test")
KINDS = ("detection", "bpnn")
STATE = "download.json"
SAME = 0.01  # relative difference of two ledgers; on another processor single stars cross a threshold


def fingerprint(module: str, settings: Mapping[str, Any]) -> str:
    """Return a hash of everything a step depends on: the code of `module` and below, manifests, settings."""
    digest = hashlib.sha256()
    for path in dependencies.closure(module):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    digest.update(repr(sorted(settings.items())).encode())
    return digest.hexdigest()


def simulate(
    output: str | os.PathLike,
    *,
    counts: Mapping[str, int],
    seed: int,
    kind: str = "paper",
    engine: str = "auto",
    workers: int = 2,
    progress: bool = True,
) -> Path:
    """Make the simulated frames of a profile and return ``<output>/simulation/simulation.json``.

    Parameters
    ----------
    output : path
        Folder of the profile.
    counts : mapping of str to int
        Frames by split (train, val, test); a split of 0 frames is left out.
    seed, kind, engine, workers, progress
        See `simulation.make_dataset`.

    Returns
    -------
    Path
        JSON with ``engine``, ``splits`` (name → list of files) and the provenance.
    """
    from pnet import provenance, simulation

    unknown = sorted(set(counts) - set(SPLITS))
    if unknown:
        raise ConfigError(f"split {', '.join(unknown)} is not known, allowed are {', '.join(SPLITS)}")
    engine = simulation.find_engine() if engine == "auto" else engine
    recipe = simulation.Recipe.load()
    folder = _folder(output) / "simulation"
    module = {"skymaker": "pnet.skymaker", "renderer": "pnet.fields"}.get(engine, "pnet.simulation")
    key = fingerprint(module, {"engine": engine, "seed": seed, "kind": kind})
    record_path = folder / "simulation.json"
    with timings.measured("simulate", _folder(output)) as timing:
        timing["engine"] = engine
        # frames carry no trace of the code that made them, so those of another fingerprint go
        if _key_of(folder) != key:
            for split in SPLITS:
                shutil.rmtree(folder / split, ignore_errors=True)
        write_json(folder / "fingerprint.json", {"key": key})
        record_path.unlink(missing_ok=True)
        splits = {}
        for split, n in counts.items():
            if n:
                files = simulation.make_dataset(
                    folder, recipe, split, n, seed, engine=engine, kind=kind, workers=workers, progress=progress
                )
                splits[split] = [str(path) for path in files]
    command = f"python -m pnet simulate --output {_shown(output)} --seed {seed}"
    command += "".join(f" --{split} {n}" for split, n in counts.items())
    write_json(record_path, provenance.record(command, seed, "cpu", engine=engine, kind=kind, splits=splits))
    return record_path


def frames_of(output: str | os.PathLike, split: str) -> list[Path]:
    """Return the simulated frames of a split that `simulate` has made.

    Raises
    ------
    MissingError
        If it has not, or if frames have gone since.
    """
    path = _folder(output) / "simulation" / "simulation.json"
    command = f"`python -m pnet simulate --output {_shown(output)}` makes them"
    if not path.is_file():
        raise MissingError(f"{path}: no simulated frames here; {command}")
    files = [Path(name) for name in read_json(path)["splits"].get(split, [])]
    gone = [file for file in files if not file.is_file()]
    if gone:
        raise MissingError(f"{gone[0]}, listed in {path}, is gone; {command}")
    return files


def download(
    output: str | os.PathLike,
    manifest: str,
    *,
    mirror: str | None = None,
    optional: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Fetch the files of a manifest; write and return what ``<output>/sdss/download.json`` tells.

    Parameters
    ----------
    optional : bool
        Where files cannot be had, record why instead of raising: pages then show released results.
    """
    from pnet.manifest import Manifest, fetch

    with timings.measured("sdss-download", _folder(output)):
        try:
            report = fetch(Manifest.load(manifest), mirror=mirror, progress=progress)
            state = {"available": True, "manifest": manifest, "reason": "", "report": str(report)}
        except MissingError as error:
            if not optional:
                raise
            state = {"available": False, "manifest": manifest, "reason": str(error)}
    write_json(_folder(output) / "sdss" / STATE, state)
    return state


def forget_unavailable(output: str | os.PathLike, manifest: str) -> None:
    """Delete the note that SDSS files could not be had if they can be had now, so that the step runs again."""
    path = _folder(output) / "sdss" / STATE
    if not path.is_file():
        return
    from pnet.manifest import Manifest, reachable

    try:
        known = read_json(path)
    except ValueError:
        known = {"available": False}
    if not known.get("available"):
        root = paths.data_root() / "sdss"
        complete = all((root / file.path).is_file() for file in Manifest.load(manifest).files() if file.required)
        if complete or reachable(timeout=3.0):
            path.unlink()


def train(
    kind: str,
    output: str | os.PathLike,
    *,
    settings: Mapping[str, Any],
    seed: int,
    simulated: bool = True,
    progress: bool = True,
) -> Path:
    """Train a network in ``<output>/<kind>`` and return its card.

    An interrupted run goes on where it stopped. One of other code, settings or data starts over.

    Parameters
    ----------
    kind : {"detection", "bpnn"}
    settings : mapping
        Keyword arguments of `training.train_detection` or `training.train_bpnn`.
    simulated : bool
        Mix the simulated frames of the profile into what is rendered on the fly, and validate on them.
    """
    if kind not in KINDS:
        raise ConfigError(f"network is {kind!r}, allowed are {', '.join(KINDS)}")
    from pnet import training

    folder = _folder(output) / kind
    frames = {split: frames_of(output, split) for split in ("train", "val")} if simulated else {}
    names = {split: [path.name for path in files] for split, files in frames.items()}
    key = fingerprint("pnet.training", {**settings, **names, "kind": kind, "seed": seed})
    if _key_of(folder) != key:
        shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / "fingerprint.json", {"key": key})
    options = "".join(f" --{name.replace('_', '-')} {value}" for name, value in settings.items() if value is not None)
    command = f"python -m pnet train {kind} --output {_shown(output)} --seed {seed}{options}"
    function = training.train_detection if kind == "detection" else training.train_bpnn
    with timings.measured(f"train-{kind}", _folder(output)):
        return function(folder, **frames, **settings, seed=seed, command=command, progress=progress)


def evaluate(
    dataset: str, output: str | os.PathLike, *, optional: bool = False, progress: bool = True, **options: Any
) -> dict[str, Any]:
    """Measure a data set; write and return what ``<output>/measurements/<dataset>.state.json`` tells.

    Parameters
    ----------
    optional : bool
        Where data is missing, record why instead of raising, and leave no older measurement of this run behind.
    options
        See `evaluation.run`.
    """
    from pnet import evaluation

    folder = _folder(output) / "measurements"
    state = {"available": True, "reason": ""}
    try:
        with timings.measured(f"evaluate-{dataset}", _folder(output)):
            evaluation.run(dataset, _folder(output), progress=progress, **options)
    except MissingError as error:
        if not optional:
            raise
        for suffix in (".parquet", ".json"):
            (folder / f"{dataset}{suffix}").unlink(missing_ok=True)
        state = {"available": False, "reason": str(error)}
    write_json(folder / f"{dataset}.state.json", state)
    return state


def check_ledger(ledger: Path, reference: Path) -> tuple[list[str], int]:
    """Compare a regenerated ledger with the committed one.

    Numbers from equally many stars must agree to `SAME`; where a run measured fewer, the two 95 % intervals must
    overlap. Released numbers that a run merely shows are not compared.

    Returns
    -------
    list of str
        What does not agree, in words.
    int
        How many numbers were compared.
    """
    from pnet.ledger import Ledger

    first, second = Ledger.read(reference), Ledger.read(ledger)
    problems, compared = [], 0
    for entry in second:
        known = first.get(entry.key)
        if known is None or known.value is None or entry.value is None or entry.source != "live":
            continue
        compared += 1
        if known.n == entry.n:
            good = abs(known.value - entry.value) <= SAME * max(abs(known.value), abs(entry.value), 1e-12)
            rule = f"both from n = {entry.n}, so they must agree to {100 * SAME:g} %"
        else:
            low, high = _interval(entry)
            known_low, known_high = _interval(known)
            good = low <= known_high and known_low <= high
            rule = f"95 % intervals of n = {entry.n} and n = {known.n} do not meet"
        if not good:
            problems.append(f"{entry.key}: {entry.value:.6g} here, {known.value:.6g} in {reference.name}; {rule}")
    return problems, compared


def _interval(entry: Any) -> tuple[float, float]:
    """Return the interval of a ledger entry, or 5 % around the value where it has none."""
    if entry.low is None or entry.high is None:
        return entry.value - 0.05 * abs(entry.value), entry.value + 0.05 * abs(entry.value)
    return entry.low, entry.high


def _key_of(folder: Path) -> str | None:
    """Return the fingerprint that a folder was made with, None where it has none."""
    try:
        return read_json(folder / "fingerprint.json")["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _folder(output: str | os.PathLike) -> Path:
    """Return a profile's folder; relative ones count from the project's root."""
    return paths.ROOT / output


def _shown(output: str | os.PathLike) -> str:
    """Return a folder as commands name it: relative to the project where it lies inside."""
    path = Path(output)
    return str(path.relative_to(paths.ROOT) if path.is_absolute() and path.is_relative_to(paths.ROOT) else path)
