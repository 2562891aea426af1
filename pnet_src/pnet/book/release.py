"""Making a run's results the released ones: what the book shows where a machine cannot measure by itself."""

import os
import shutil
from pathlib import Path

from pnet.common import paths
from pnet.common.errors import ConfigError, MissingError
from pnet.common.files import atomic_path, read_json
from pnet.evaluation import measurements

# What a release holds, relative to the folder of a run; the ledger comes last, since it speaks for the others.
PARTS = (
    *(f"measurements/{name}.{kind}" for name in (*measurements.DATASETS, "repeat") for kind in ("parquet", "json")),
    "sdss/selected.parquet",
    "sdss/sdss.json",
    "simulation/engines.csv",
    "simulation/engines.json",
    "ledger.json",
)


def release_results(output: str | os.PathLike) -> list[Path]:
    """Copy a run's measurements, selection, engine comparison and ledger into ``results/``; return the copies.

    Parameters
    ----------
    output : path
        Folder of the run, such as ``build/standard``, relative to the project's root.

    Raises
    ------
    MissingError
        If a part is missing, which a run without SDSS files or SkyMaker frames does not make.
    ConfigError
        If a part was made from code that was not committed: nobody could make it again.
    """
    folder = paths.ROOT / output
    if missing := [part for part in PARTS if not (folder / part).is_file()]:
        command = "make book SDSS_MIRROR=<sas tree> SKYMAKER_FRAMES=<folder of SkyMaker frames>"
        raise MissingError(f"{folder} lacks {', '.join(missing)}; a release needs a whole run: `{command}`")
    for part in PARTS[:-1]:
        commit = read_json(folder / part).get("commit", "") if part.endswith(".json") else ""
        if commit.endswith("+"):
            raise ConfigError(f"{folder / part} was made from changed files (commit {commit}): commit, run again")
    for name in measurements.DATASETS:
        measurements.read(folder / "measurements" / f"{name}.parquet")  # whole, and of this provenance
    copies = []
    for part in PARTS:
        with atomic_path(paths.RESULTS / part) as temporary:
            shutil.copyfile(folder / part, temporary)
        copies.append(paths.RESULTS / part)
    return copies
