"""Released results: making a run's the released ones, which the book shows where a machine cannot measure by itself,
and comparing the numbers of a run with them."""

import os
import shutil
from pathlib import Path

import numpy as np

from pnet.common import paths
from pnet.common.errors import ConfigError, MissingError
from pnet.common.files import atomic_path, read_json
from pnet.evaluation import measurements, scores
from pnet.evaluation.ledger import Entry, Ledger, entries_from_measurements

# What a release holds, relative to the folder of a run; the ledger comes last, since it speaks for the others.
PARTS = (
    *(f"measurements/{name}.{kind}" for name in (*measurements.DATASETS, "repeat") for kind in ("parquet", "json")),
    "sdss/selected.parquet",
    "sdss/sdss.json",
    "simulation/engines.csv",
    "simulation/engines.json",
    "ledger.json",
)
SAME = 0.01  # relative difference of two ledgers; on another processor single stars cross a threshold
SMALL = 1e-3  # below it, `SAME` is taken of this: a bias near zero has no relative error


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


def check(ledger: Path, reference: Path) -> tuple[list[str], int]:
    """Compare a regenerated ledger with the committed one.

    Where the run measured frames that the committed measurements hold too, it is compared with what these give for
    the same frames, and must agree to `SAME`. Elsewhere numbers from equally many stars must agree to `SAME`, and of
    others the two 95 % intervals must overlap. Released numbers that a run merely shows are not compared.

    Returns
    -------
    list of str
        What does not agree, in words.
    int
        How many numbers were compared.
    """
    folders = ledger.parent / "measurements", reference.parent / "measurements"
    committed = Ledger.read(reference)
    common = {dataset: _on_same_frames(dataset, *folders) for dataset in measurements.DATASETS}
    problems, compared = [], 0
    for key, entry in Ledger.read(ledger).items():
        known = (common.get(key.partition(".")[0]) or committed).get(key)
        if known is None or known.value is None or entry.value is None or entry.source != "live":
            continue
        compared += 1
        if known.n == entry.n:
            good = abs(known.value - entry.value) <= SAME * max(abs(known.value), abs(entry.value), SMALL)
            rule = f"both from n = {entry.n}, so they must agree to {100 * SAME:g} %"
        else:
            (low, high), (known_low, known_high) = _interval(entry), _interval(known)
            good = low <= known_high and known_low <= high
            rule = f"95 % intervals of n = {entry.n} and n = {known.n} do not meet"
        problems += [] if good else [f"{key}: {entry.value:.6g} here, {known.value:.6g} in {reference.name}; {rule}"]
    return problems, compared


def _on_same_frames(dataset: str, run: Path, committed: Path) -> Ledger | None:
    """Return the ledger of the committed measurements on a run's frames; None where they are not the same frames."""
    try:
        here, record = measurements.read(run / f"{dataset}.parquet")
        there, provenance = measurements.read(committed / f"{dataset}.parquet")
    except MissingError:
        return None
    there, truth = there[there["frame"].isin(here["frame"])], ["frame", "truth_x", "truth_y", "truth_mag"]
    lists = (scores.rows(table, dataset, "pnet")[truth].dropna().round(6) for table in (here, there))
    # Frames of another engine may bear the same names.
    if not np.array_equal(*(each.sort_values(truth) for each in lists)):
        return None
    return Ledger(entries_from_measurements(there, seed=record["seed"], provenance=provenance))


def _interval(entry: Entry) -> tuple[float, float]:
    """Return the interval of a ledger entry, or 5 % around the value where it has none."""
    reach = 0.05 * abs(entry.value)
    none = entry.low is None or entry.high is None
    return (entry.value - reach, entry.value + reach) if none else (entry.low, entry.high)
