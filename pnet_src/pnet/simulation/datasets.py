"""The simulated data set of a run, and how its engine compares with the other: what notebook 01 shows."""

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pnet.common import paths, pipeline, provenance
from pnet.common.errors import ConfigError, DataError
from pnet.common.files import atomic_path, read_json, write_json
from pnet.common.seeds import derive
from pnet.frame import Frame
from pnet.simulation import recipe as simulation
from pnet.simulation import validation
from pnet.simulation.recipe import Recipe

FRAMES = 24  # compared at most: three errors then lie below every tolerance
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


def dataset(
    output: str | os.PathLike,
    counts: Mapping[str, int],
    seed: int,
    *,
    engine: str = "auto",
    kind: str = "paper",
    progress: bool = False,
) -> dict[str, Any]:
    """Return the record of the run's simulated frames (`pipeline.simulate`), which are made only if they are not there.

    Parameters
    ----------
    output : path
        Folder of the profile.
    counts : mapping of str to int
        Frames by split.
    seed, engine, kind, progress
        As for `simulation.make_dataset`.

    Raises
    ------
    ConfigError
        If a count is negative or all are 0.
    """
    if any(n < 0 for n in counts.values()) or not any(counts.values()):
        raise ConfigError(f"frames by split are {dict(counts)}; none may be negative and one must be positive")
    known = _known(paths.ROOT / output / "simulation", counts, seed, engine, kind)
    if known is not None:
        return known
    return read_json(pipeline.simulate(output, counts=counts, seed=seed, engine=engine, kind=kind, progress=progress))


def _known(folder: Path, counts: Mapping[str, int], seed: int, engine: str, kind: str) -> dict[str, Any] | None:
    """Return the record in `folder` if it is of just this data set, made by this code; None otherwise.

    Writing it again would make everything that was trained on these frames look out of date.
    """
    try:
        record, key = read_json(folder / "simulation.json"), read_json(folder / "fingerprint.json")["key"]
        splits = record["splits"]
        same = (record["engine"], record["kind"], record["seed"]) == (
            simulation.find_engine() if engine == "auto" else engine,
            kind,
            seed,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    module = {"skymaker": "pnet.simulation.skymaker", "renderer": "pnet.simulation.renderer"}.get(
        record["engine"], "pnet.simulation.recipe"
    )
    settings = {"engine": record["engine"], "seed": seed, "kind": kind}
    same = same and key == pipeline.fingerprint(module, settings)
    wanted = {split: n for split, n in counts.items() if n}
    whole = {split: len(files) for split, files in splits.items()} == wanted
    there = all(Path(file).is_file() for files in splits.values() for file in files)
    return record if same and whole and there else None


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
