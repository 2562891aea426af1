"""What chapter 01 shows of a run's simulated frames: their sources, and SkyMaker against the renderer."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pnet.book import shown
from pnet.common import paths, provenance
from pnet.common.errors import ConfigError, DataError
from pnet.common.files import atomic_path, read_json, write_json
from pnet.common.seeds import derive
from pnet.frame import Frame
from pnet.simulation import physics
from pnet.simulation.datasets import SPLITS
from pnet.simulation.frame_file import read_frame
from pnet.simulation.recipe import Recipe

FRAMES = 24  # compared at most: three errors then lie below every tolerance
HEADINGS = {"deviation_a": "SkyMaker", "deviation_b": "renderer"}


def sources(record: Mapping[str, Any]) -> pd.DataFrame:
    """Return the truth of every frame of a data set: columns split, frame, simulator, x, y, mag, flux, kind.

    Pixels are read and dropped: the frames of a large data set would not fit into memory.
    """
    tables, files = [], ((split, file) for split in SPLITS for file in record["splits"].get(split, []))
    for split, file in files:
        frame, truth = read_frame(file)
        tables.append(truth.assign(split=split, frame=frame.name, simulator=frame.meta["SIMULATR"]))
    return pd.concat(tables, ignore_index=True)[["split", "frame", "simulator", "x", "y", "mag", "flux", "kind"]]


def checked(record: Mapping[str, Any]) -> list[tuple[Frame, pd.DataFrame]]:
    """Return the frames that are checked: the first `FRAMES` of the validation split, of train where there is none.

    Never those of the test split, which is for reporting alone: a ConfigError if there are no others.
    """
    files = record["splits"].get("val") or record["splits"].get("train")
    if not files:
        none = "the data set has neither val nor train frames"
        raise ConfigError(f"{none}; test frames are not for checks: set n_val > 0")
    return [read_frame(file) for file in files[:FRAMES]]


def engines(
    real: list[tuple[Frame, pd.DataFrame]],
    record: Mapping[str, Any],
    output: str | os.PathLike,
    recipe: Recipe,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any], str]:
    """Compare SkyMaker's frames of this run with the renderer's of the same sources, or return the released comparison.

    Parameters
    ----------
    real : list of (Frame, truth)
        As from `checked`.
    record : mapping
        Of the data set (`datasets.simulate`); it tells the engine.
    output : path
        Folder of the profile; table and provenance go to ``simulation/engines.csv`` and ``.json``.
    seed : int
        Of the renderer's noise.

    Returns
    -------
    DataFrame, dict, str
        As from `physics.compare`, SkyMaker as a and the renderer as b, empty where nothing is known; how it was made;
        and where it is from, see `shown.find`. A DataError if a frame or the released comparison is damaged.
    """
    folder = paths.folder_of(output) / "simulation"
    if record["engine"] == "renderer":
        (folder / "engines.csv").unlink(missing_ok=True)  # of other frames, should there be one
        table, made, origin = shown.find("simulation/engines.csv", output, _read)
        return pd.DataFrame() if table is None else table, made, origin
    seeds = (derive(seed, "engines", frame.name) for frame, _ in real)
    ours = [(physics.rendered(*one, recipe, each), one[1]) for one, each in zip(real, seeds, strict=True)]
    table = physics.compare(physics.measure(real, recipe), physics.measure(ours, recipe))
    with atomic_path(folder / "engines.csv") as temporary:
        table.to_csv(temporary, index=False)
    details = {"engine": record["engine"], "frames": [frame.name for frame, _ in real]}
    details["simulators"] = sorted({frame.meta["SIMULATR"] for frame, _ in real})
    made = provenance.record("python -m pnet run 01_skymaker_simulation", seed, "cpu", **details)
    write_json(folder / "engines.json", made)
    return table, made, shown.LIVE


def _read(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    try:
        return pd.read_csv(path, keep_default_na=False), read_json(path.with_suffix(".json"))
    except ValueError as error:
        raise DataError(f"{path} or .json is damaged: {error}") from error


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """Return a result of `physics.measure` or `compare` as text for a page: in thousandths, ✓ or ✗ for ok."""
    if table.empty:
        return table
    words = pd.DataFrame({"quantity": (table["quantity"] + " " + table["bin"].fillna("")).str.strip()})
    for name in ("deviation", "deviation_a", "deviation_b", "difference", "error", "tolerance"):
        if name in table:
            words[HEADINGS.get(name, name)] = [f"{1000 * value:.2f}".replace("-", "−") for value in table[name]]
    words["unit"] = ["‰" if not unit else f"10⁻³ {unit}" for unit in table["unit"].fillna("")]
    if "n" in table:
        words["n"] = [f"{n:,}".replace(",", "\u202f") for n in table["n"]]
    words["in order"] = np.where(table["ok"], "✓", "✗")
    return words
