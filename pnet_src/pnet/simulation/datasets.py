"""Data sets of simulated frames: which engine makes them, where they are, and the record of what was made."""

import contextlib
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from pnet.common import paths, programs, provenance
from pnet.common.errors import ConfigError, MissingError
from pnet.common.files import read_json, write_json
from pnet.common.seeds import derive
from pnet.simulation.frame_file import write_frame
from pnet.simulation.recipe import Recipe, draw_conditions, draw_stars

NUMBERS = {"train": 100000, "val": 300000, "test": 200000}  # a split's frames count from here
SPLITS = tuple(NUMBERS)
ENGINES = ("frames", "skymaker", "renderer")
PAPER = "paper"  # the kind of field in data_manifests/simulation.yml that chapters 01 to 08 are about


def frames_folder() -> Path | None:
    """Return the folder named by $SKYMAKER_FRAMES, None where it is not set; a MissingError if it names no folder."""
    name = os.environ.get("SKYMAKER_FRAMES")
    if not name:
        return None
    if not Path(name).is_dir():
        raise MissingError(f"SKYMAKER_FRAMES={name} is no folder; name one with train/, val/ and test/ or unset it")
    return Path(name)


def find_engine(kind: str = PAPER) -> str:
    """Return what makes simulated frames here: 'frames' ($SKYMAKER_FRAMES), 'skymaker' (`sky` found) or 'renderer'.

    A folder of frames without the paper's kind is a mistake; one whose ``test`` holds none of another `kind` is passed
    over.
    """
    folder = frames_folder()
    if folder is not None and (kind == PAPER or list_frames(folder / "test", kind)):
        return "frames"
    return "skymaker" if programs.find("sky", "SKY") else "renderer"


def list_frames(folder: str | os.PathLike, kind: str = PAPER) -> list[Path]:
    """Return the frames of a folder of one kind of field in order of name."""
    return sorted(Path(folder).glob(f"{kind}-*.fits"))


def make_dataset(
    folder: str | os.PathLike,
    recipe: Recipe,
    split: str,
    n: int,
    seed: int,
    *,
    engine: str = "auto",
    kind: str = PAPER,
    workers: int = 2,
    progress: bool = True,
) -> list[Path]:
    """Provide `n` frames of a split and return their paths.

    Frames that are already in `folder` are kept, so an interrupted run goes on where it stopped. With the engine
    'frames' nothing is copied: the paths point into $SKYMAKER_FRAMES. A ConfigError or MissingError if a parameter is
    not allowed, or the engine or its frames are missing.

    Parameters
    ----------
    folder : path
        Frames are written to ``folder/split``.
    recipe, kind : Recipe, str
        What is drawn, and the kind of field in it.
    split : {'train', 'val', 'test'}
    n, seed : int
        Number of frames; seed of the run, from which each split and frame derives its own.
    engine : {'auto', 'frames', 'skymaker', 'renderer'}
    workers : int
        Frames that SkyMaker makes at the same time.
    progress : bool
        Show a progress bar.
    """
    engine = find_engine(kind) if engine == "auto" else engine
    files = _files(Path(folder), split, n, engine, kind)
    todo = [(path, derive(seed, split, kind, index)) for index, path in enumerate(files, start=1) if not path.exists()]
    if engine == "frames" or not todo:
        return files
    # imported here, since they bring torch: nobody should wait for it who only asks what there is
    from pnet.simulation import galaxies, renderer, skymaker

    real = engine == "skymaker"
    simulator = str(skymaker.sky_program()) if real else renderer.SIMULATOR  # a missing program is one error, here

    def make(job: tuple[Path, int]) -> None:
        path, seed = job
        conditions, sources = draw_conditions(recipe, seed), draw_stars(recipe, kind, seed)
        if limits := recipe.fields[kind].galaxies:
            drawn = (skymaker.galaxies if real else galaxies.draw_galaxies)(recipe, limits, seed)
            sources = pd.concat([sources, drawn], ignore_index=True)
        if real:
            image, sources = skymaker.simulate_frame(conditions, sources, seed, name=path.stem)
        else:
            image = renderer.render_field(sources, conditions, seed)
        write_frame(path, image, sources, conditions, simulator=simulator, kind=kind, seed=seed % 2**31)

    with ThreadPoolExecutor(workers) as pool:
        made = (pool.map if real else map)(make, todo)  # the renderer has threads of its own
        for _ in tqdm(made, total=len(todo), desc=simulator, unit="frame", disable=not progress):
            pass  # the first error ends the series: what has not begun is not made, what is written stays
    return files


def _files(folder: Path, split: str, n: int, engine: str, kind: str) -> list[Path]:
    """Return where the frames of a split are, or are to be."""
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}, allowed are {', '.join(SPLITS)}")
    if engine not in ENGINES:
        raise ConfigError(f"engine is {engine!r}, allowed are {', '.join(('auto', *ENGINES))}")
    if engine != "frames":
        return [folder / split / f"{kind}-{NUMBERS[split] + index}.fits" for index in range(1, n + 1)]
    source = frames_folder()
    if source is None:
        raise MissingError("engine 'frames' needs a folder of SkyMaker frames: set SKYMAKER_FRAMES=<folder>")
    found = list_frames(source / split, kind)[:n]
    if not found:
        raise MissingError(f"{source / split} holds no {kind}-*.fits; SKYMAKER_FRAMES must name a folder with {split}/")
    return found


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
    """Make the simulated frames of a run and return their record, ``simulation.json`` in `simulation_folder`.

    Where the record tells of the same settings and its frames are there, it returns at once and leaves the record as
    it is: writing it again would make everything that was trained on these frames look out of date. An interrupted
    run goes on where it stopped; frames of other settings, or of no record, are made anew. A ConfigError if a split is
    not known, a count is negative or all are 0; and errors as from `make_dataset`.

    Parameters
    ----------
    output : path
        Folder of the profile.
    counts : mapping of str to int
        Frames by split (train, val, test); a split of 0 frames is left out.
    seed, kind, engine, workers, progress
        See `make_dataset`.

    Returns
    -------
    Path
        JSON with ``engine``, ``kind``, ``seed``, ``splits`` (name → list of files) and the provenance.
    """
    if any(n < 0 for n in counts.values()) or not any(counts.values()):
        raise ConfigError(f"frames by split are {dict(counts)}; none may be negative and one must be positive")
    engine = find_engine(kind) if engine == "auto" else engine
    folder = simulation_folder(output, kind)
    files = {split: _files(folder, split, n, engine, kind) for split, n in counts.items() if n}
    splits = {split: [str(path) for path in some] for split, some in files.items()}
    record = folder / "simulation.json"
    settings = {"engine": engine, "kind": kind, "seed": seed}
    known = _record(record)
    if {name: known.get(name) for name in settings} != settings:
        # frames carry no trace of the settings that they were made with
        for split in SPLITS:
            shutil.rmtree(folder / split, ignore_errors=True)
    elif known.get("splits") == splits and all(path.is_file() for some in files.values() for path in some):
        return record
    write_json(record, settings)  # without its splits it is the record of a run that is not done
    recipe = Recipe.load()
    options = {"engine": engine, "kind": kind, "workers": workers, "progress": progress}
    for split, some in files.items():
        make_dataset(folder, recipe, split, len(some), seed, **options)
    command = f"{_command(output, kind)} --seed {seed}" + "".join(f" --{split} {n}" for split, n in counts.items())
    write_json(record, provenance.record(command, seed, "cpu", engine=engine, kind=kind, splits=splits))
    return record


def _record(path: Path) -> dict[str, Any]:
    """Return the record of a data set; empty where there is none or it cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(read_json(path))
    return {}


def simulation_folder(output: str | os.PathLike, kind: str = PAPER) -> Path:
    """Return where a profile keeps frames of a kind: ``simulation`` for the paper's, else a folder of that name."""
    return paths.folder_of(output) / ("simulation" if kind == PAPER else kind)


def _command(output: str | os.PathLike, kind: str) -> str:
    """Return the command that makes a profile's frames of a kind."""
    return f"python -m pnet simulate --output {paths.shown(output)}" + ("" if kind == PAPER else f" --kind {kind}")


def frames_of(output: str | os.PathLike, split: str, kind: str = PAPER) -> list[Path]:
    """Return the simulated frames of a split and a kind of field that `simulate` has made; a MissingError if it has
    not, or not to its end, or if frames have gone since."""
    path = simulation_folder(output, kind) / "simulation.json"
    command = f"`{_command(output, kind)}` makes them"
    splits = _record(path).get("splits")
    if splits is None:
        raise MissingError(f"{path}: no simulated frames here; {command}")
    files = [Path(name) for name in splits.get(split, [])]
    for file in files:
        if not file.is_file():
            raise MissingError(f"{file}, listed in {path}, is gone; {command}")
    return files
