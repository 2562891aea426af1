"""The steps that provide data, one function per rule of the Snakefile: simulated frames, SDSS files.

Each leaves a small JSON that tells what it did, and the seconds in ``<output>/timings``. What was made by other code,
other parameters or another engine is not taken for this run's. (`pnet.book.steps` has those that train and measure.)
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pnet.common import paths, timings
from pnet.common.errors import ConfigError, MissingError
from pnet.common.files import read_json, write_json

SPLITS = ("train", "val", "test")
STATE = "download.json"
PAPER = "paper"  # the kind of field in data_manifests/simulation.yml that chapters 01 to 08 are about


def fingerprint(module: str, settings: Mapping[str, Any]) -> str:
    """Return a hash of a step's settings."""
    return hashlib.sha256(repr((module, sorted(settings.items()))).encode()).hexdigest()


def simulate(
    output: str | os.PathLike,
    *,
    counts: Mapping[str, int],
    seed: int,
    kind: str = PAPER,
    engine: str = "auto",
    workers: int = 2,
    progress: bool = True,
) -> Path:
    """Make the simulated frames of a profile and return its ``simulation.json`` in `simulation_folder`.

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
    from pnet.common import provenance
    from pnet.simulation import recipe as simulation

    unknown = sorted(set(counts) - set(SPLITS))
    if unknown:
        raise ConfigError(f"split {', '.join(unknown)} is not known, allowed are {', '.join(SPLITS)}")
    if engine == "auto":
        # a folder of frames without the paper's kind is a mistake; one without the other kinds is not
        engine = simulation.find_engine(None if kind == PAPER else kind)
    recipe = simulation.Recipe.load()
    folder = simulation_folder(output, kind)
    module = {"skymaker": "pnet.simulation.skymaker", "renderer": "pnet.simulation.renderer"}.get(
        engine, "pnet.simulation.recipe"
    )
    key = fingerprint(module, {"engine": engine, "seed": seed, "kind": kind})
    record_path = folder / "simulation.json"
    with timings.measured("simulate" if kind == PAPER else f"simulate-{kind}", folder_of(output)) as timing:
        timing["engine"] = engine
        # frames carry no trace of the code that made them, so those of another fingerprint go
        if key_of(folder) != key:
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
    command = f"python -m pnet simulate --output {shown(output)} --seed {seed}{_of_kind(kind)}"
    command += "".join(f" --{split} {n}" for split, n in counts.items())
    write_json(record_path, provenance.record(command, seed, "cpu", engine=engine, kind=kind, splits=splits))
    return record_path


def simulation_folder(output: str | os.PathLike, kind: str = PAPER) -> Path:
    """Return where a profile keeps frames of a kind: ``simulation`` for the paper's, else a folder of that name."""
    return folder_of(output) / ("simulation" if kind == PAPER else kind)


def _of_kind(kind: str) -> str:
    return "" if kind == PAPER else f" --kind {kind}"


def frames_of(output: str | os.PathLike, split: str, kind: str = PAPER) -> list[Path]:
    """Return the simulated frames of a split and a kind of field that `simulate` has made.

    Raises
    ------
    MissingError
        If it has not, or if frames have gone since.
    """
    path = simulation_folder(output, kind) / "simulation.json"
    command = f"`python -m pnet simulate --output {shown(output)}{_of_kind(kind)}` makes them"
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
    from pnet.sdss.manifest import Manifest, fetch

    with timings.measured("sdss-download", folder_of(output)):
        try:
            report = fetch(Manifest.load(manifest), mirror=mirror, progress=progress)
            state = {"available": True, "manifest": manifest, "reason": "", "report": str(report)}
        except MissingError as error:
            if not optional:
                raise
            state = {"available": False, "manifest": manifest, "reason": str(error)}
    write_json(folder_of(output) / "sdss" / STATE, state)
    return state


def forget_unavailable(output: str | os.PathLike, manifest: str) -> None:
    """Delete the note that SDSS files could not be had if they can be had now, so that the step runs again."""
    path = folder_of(output) / "sdss" / STATE
    if not path.is_file():
        return
    from pnet.sdss.manifest import Manifest, reachable

    try:
        known = read_json(path)
    except ValueError:
        known = {"available": False}
    if not known.get("available"):
        root = paths.data_root() / "sdss"
        complete = all((root / file.path).is_file() for file in Manifest.load(manifest).files() if file.required)
        if complete or reachable(timeout=3.0):
            path.unlink()


def key_of(folder: Path) -> str | None:
    """Return the fingerprint that a folder was made with, None where it has none."""
    try:
        return read_json(folder / "fingerprint.json")["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def folder_of(output: str | os.PathLike) -> Path:
    """Return a profile's folder; relative ones count from the project's root."""
    return paths.ROOT / output


def shown(output: str | os.PathLike) -> str:
    """Return a path as commands name it: relative to the project where it lies inside, elsewhere by its name in angle
    brackets, as records name no machine."""
    path = Path(output)
    if not path.is_absolute():
        return str(path)
    return str(path.relative_to(paths.ROOT)) if path.is_relative_to(paths.ROOT) else f"<{path.name}>"
