"""The simulated data set of a run, and how its engine compares with the other: what notebook 01 shows."""

import html
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pnet.common import paths, provenance
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import atomic_path, read_json, write_json
from pnet.common.seeds import derive
from pnet.frame import Frame
from pnet.simulation import recipe as simulation
from pnet.simulation import validation
from pnet.simulation.recipe import SPLITS, Recipe

FRAMES = 24  # compared at most: three errors then lie below every tolerance
PAPER = "paper"  # the kind of field in data_manifests/simulation.yml that chapters 01 to 08 are about
RELEASED = paths.RESULTS / "simulation"
COMMAND = "SKYMAKER_FRAMES=&lt;folder of SkyMaker frames&gt; make book"
LABELS = {
    "frames": "existing SkyMaker frames ($SKYMAKER_FRAMES)",
    "skymaker": "SkyMaker, run on this machine",
    "renderer": "PNet's renderer (no SkyMaker on this machine)",
}


@dataclass(frozen=True)
class Comparison:
    """SkyMaker against the renderer on the same sources.

    Parameters
    ----------
    table : DataFrame
        As from `validation.compare`, SkyMaker as a and the renderer as b; empty where nothing is known.
    record : dict
        Provenance.
    is_live : bool
        Whether this machine made it.
    """

    table: pd.DataFrame
    record: dict[str, Any]
    is_live: bool

    @property
    def notice(self) -> str:
        """HTML that marks a released comparison; empty for a live one."""
        if self.is_live:
            return ""
        if self.table.empty:
            title, text = "No comparison", "This machine has no SkyMaker frames, and the project has released no result"
        else:
            title = f"Released result ({self.record['date'][:10]}, commit {html.escape(self.record['commit'][:10])})"
            text = "This machine has no SkyMaker frames; the project's own comparison stands in"
        return (
            f'<div class="admonition warning"><p class="admonition-title">{title}</p>'
            f"<p>{text}. <code>{COMMAND}</code>, or SkyMaker on PATH, makes it live.</p></div>"
        )


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
    run goes on where it stopped; frames of other settings, or of no record, are made anew.

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

    Raises
    ------
    ConfigError, MissingError
        If a split is not known, a count is negative or all are 0; and as `make_dataset`.
    """
    unknown = sorted(set(counts) - set(SPLITS))
    if unknown:
        raise ConfigError(f"split {', '.join(unknown)} is not known, allowed are {', '.join(SPLITS)}")
    if any(n < 0 for n in counts.values()) or not any(counts.values()):
        raise ConfigError(f"frames by split are {dict(counts)}; none may be negative and one must be positive")
    if engine == "auto":
        # a folder of frames without the paper's kind is a mistake; one without the other kinds is not
        engine = simulation.find_engine(None if kind == PAPER else kind)
    folder = simulation_folder(output, kind)
    path = folder / "simulation.json"
    settings = {"engine": engine, "kind": kind, "seed": seed}
    wanted = {split: n for split, n in counts.items() if n}
    known = _record(path)
    if {name: known.get(name) for name in settings} != settings:
        # frames carry no trace of the settings that they were made with
        for split in SPLITS:
            shutil.rmtree(folder / split, ignore_errors=True)
    elif _holds(known.get("splits"), wanted):
        return path
    write_json(path, settings)  # without its splits it is the record of a run that is not done
    recipe = Recipe.load()
    splits = {
        split: simulation.make_dataset(
            folder, recipe, split, n, seed, engine=engine, kind=kind, workers=workers, progress=progress
        )
        for split, n in wanted.items()
    }
    command = f"python -m pnet simulate --output {paths.shown(output)} --seed {seed}{_of_kind(kind)}"
    command += "".join(f" --{split} {n}" for split, n in counts.items())
    files = {split: [str(file) for file in made] for split, made in splits.items()}
    write_json(path, provenance.record(command, seed, "cpu", engine=engine, kind=kind, splits=files))
    return path


def _record(path: Path) -> dict[str, Any]:
    """Return the record of a data set; empty where there is none or it cannot be read."""
    try:
        return dict(read_json(path))
    except (OSError, ValueError, TypeError):
        return {}


def _holds(splits: Mapping[str, list[str]] | None, wanted: Mapping[str, int]) -> bool:
    """Return whether a record lists just so many frames, and all of them are there."""
    if splits is None or {split: len(files) for split, files in splits.items()} != wanted:
        return False
    return all(Path(file).is_file() for files in splits.values() for file in files)


def simulation_folder(output: str | os.PathLike, kind: str = PAPER) -> Path:
    """Return where a profile keeps frames of a kind: ``simulation`` for the paper's, else a folder of that name."""
    return paths.folder_of(output) / ("simulation" if kind == PAPER else kind)


def _of_kind(kind: str) -> str:
    return "" if kind == PAPER else f" --kind {kind}"


def frames_of(output: str | os.PathLike, split: str, kind: str = PAPER) -> list[Path]:
    """Return the simulated frames of a split and a kind of field that `simulate` has made.

    Raises
    ------
    MissingError
        If it has not, or not to its end, or if frames have gone since.
    """
    path = simulation_folder(output, kind) / "simulation.json"
    command = f"`python -m pnet simulate --output {paths.shown(output)}{_of_kind(kind)}` makes them"
    splits = _record(path).get("splits")
    if splits is None:
        raise MissingError(f"{path}: no simulated frames here; {command}")
    files = [Path(name) for name in splits.get(split, [])]
    gone = [file for file in files if not file.is_file()]
    if gone:
        raise MissingError(f"{gone[0]}, listed in {path}, is gone; {command}")
    return files


def sources(record: Mapping[str, Any]) -> pd.DataFrame:
    """Return the truth of every frame of a data set: columns split, frame, simulator, x, y, mag, flux, kind.

    Pixels are read and dropped: the frames of a large data set would not fit into memory.
    """
    tables = []
    for split in simulation.SPLITS:
        for file in record["splits"].get(split, []):
            frame, truth = simulation.read_frame(file)
            tables.append(truth.assign(split=split, frame=frame.name, simulator=frame.meta["SIMULATR"]))
    columns = ["split", "frame", "simulator", "x", "y", "mag", "flux", "kind"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def checked(record: Mapping[str, Any]) -> list[tuple[Frame, pd.DataFrame]]:
    """Return the frames that are checked: the first `FRAMES` of the validation split, of train where there is none.

    Never those of the test split, which is for reporting alone.

    Raises
    ------
    ConfigError
        If the data set has only test frames.
    """
    files = record["splits"].get("val") or record["splits"].get("train") or []
    if not files:
        raise ConfigError(
            "the data set has neither val nor train frames; test frames are not for checks: set n_val > 0"
        )
    return [simulation.read_frame(file) for file in files[:FRAMES]]


def compare_or_released(
    real: list[tuple[Frame, pd.DataFrame]],
    record: Mapping[str, Any],
    output: str | os.PathLike,
    recipe: Recipe,
    seed: int,
    *,
    released: Path = RELEASED,
) -> Comparison:
    """Compare SkyMaker's frames of this run with the renderer's of the same sources, or return the released comparison.

    Parameters
    ----------
    real : list of (Frame, truth)
        As from `checked`.
    record : mapping
        As from `dataset`; it tells the engine.
    output : path
        Folder of the profile; table and provenance go to ``simulation/engines.csv`` and ``.json``.
    recipe : Recipe
    seed : int
        Of the renderer's noise.
    released : Path
        Folder with the project's own ``engines.csv`` and ``engines.json``.

    Raises
    ------
    DataError
        If a frame or the released comparison is damaged.
    """
    if record["engine"] == "renderer":
        if not (released / "engines.csv").is_file():
            return Comparison(pd.DataFrame(), {}, False)
        try:
            table = pd.read_csv(released / "engines.csv", keep_default_na=False)
            return Comparison(table, read_json(released / "engines.json"), False)
        except (OSError, ValueError) as error:
            raise DataError(f"{released}/engines.csv or .json is damaged: {error}") from error
    ours = [
        (validation.rendered(frame, truth, recipe, derive(seed, "engines", frame.name)), truth) for frame, truth in real
    ]
    table = validation.compare(validation.measure(real, recipe), validation.measure(ours, recipe))
    folder = paths.ROOT / output / "simulation"
    with atomic_path(folder / "engines.csv") as temporary:
        table.to_csv(temporary, index=False)
    details = {
        "engine": record["engine"],
        "simulators": sorted({frame.meta["SIMULATR"] for frame, _ in real}),
        "frames": [frame.name for frame, _ in real],
    }
    result = provenance.record("python -m pnet run 01_skymaker_simulation", seed, "cpu", **details)
    write_json(folder / "engines.json", result)
    return Comparison(table, result, True)
