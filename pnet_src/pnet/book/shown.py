"""What a page shows: a result of this run, or the released one. Decided and worded here, for every page."""

import contextlib
import html
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pnet.common import paths
from pnet.common.errors import MissingError
from pnet.evaluation import ledger, measurements
from pnet.evaluation.frames import simulated
from pnet.sdss import files, selection

ORIGINS = LIVE, RELEASED, MISSING = "live", "released", "missing"
EVALUATE = "python -m pnet evaluate --dataset {name} --output {output}"
MIRROR = "make book SDSS_MIRROR=<folder or URL of an SDSS sas tree>"
SUBJECTS = {  # what it is, and the one command that makes it live
    "simulation": ("measurements of simulated frames", EVALUATE),
    "realistic": ("measurements of simulated frames with galaxies and faint stars", EVALUATE),
    "validation": ("measurements of simulated frames for validation", EVALUATE),
    "sdss": ("measurements of SDSS frames with a catalogue", MIRROR),
    "coadd": ("measurements of SDSS field 94-1-12 against the Stripe 82 co-add", "python -m studies coadd"),
    "repeat": ("measurements of the same stars at two epochs", "python -m studies repeat"),
    "selection": ("SDSS stars", MIRROR),
    "engines": ("SkyMaker against the renderer", "make book SKYMAKER_FRAMES=<folder of SkyMaker frames>"),
    "train-detection": ("training of the Photometry-Detection Net", "python -m pnet train detection --output {output}"),
    "train-bpnn": ("training of the BPNN", "python -m pnet train bpnn --output {output}"),
    "study-detection": ("study of what each change of the detection net is worth", "python -m studies detection"),
    "study-clipping": ("study of clipped gradients", "python -m studies clipping"),
    "study-freezing": ("study of frozen parts on new data", "python -m studies freezing"),
    "study-posterior": ("study of posteriors", "python -m studies posterior"),
    "study-stamps": ("study of stamps", "python -m studies stamps"),
    "study-sampling": ("study of what samples cost", "python -m studies sampling"),
    "study-stress": ("study of stars unlike those of training", "python -m studies stress"),
}
PAPER = ("simulation", "sdss")  # the data sets of the paper, which chapters 05 to 08 show
ENGINES = {
    "frames": "SkyMaker frames from the folder that SKYMAKER_FRAMES names",
    "skymaker": "frames made by SkyMaker on this machine",
    "renderer": "frames made by this project's own renderer (SkyMaker is not installed)",
}


def find(
    file: str, output: str | os.PathLike, read: Callable[[Path], tuple[Any, dict]]
) -> tuple[Any, dict[str, Any], str]:
    """Return a result of the run in `output`, or the released one where the run has none.

    Only a file that is not there leads to the released one: a damaged file must not hide behind old results.

    Parameters
    ----------
    file : str
        Its place in the folder of a run and in ``results/`` alike, as ``measurements/sdss.parquet``.
    output : path
        Folder of the run.
    read : callable
        Path → content and record; raises FileNotFoundError (MissingError is one) where the file is not there.

    Returns
    -------
    content, record, {"live", "released", "missing"}
        What was found, None where there is neither; how it was made; and where it is from.
    """
    for origin, folder in ((LIVE, paths.folder_of(output)), (RELEASED, paths.RESULTS)):
        with contextlib.suppress(FileNotFoundError):
            return (*read(folder / file), origin)
    return None, {}, MISSING


def title(name: str, origin: str, record: Mapping[str, Any]) -> str:
    """Return what is shown and whose it is, in a few words; see `notice`."""
    date, commit = str(record.get("date", ""))[:10], str(record.get("commit", ""))[:10]
    released = f"Released result ({date}, commit {commit}):"
    whose = {LIVE: f"Made by this run ({date}):", RELEASED: released, MISSING: "No"}[origin]
    return html.escape(f"{whose} {SUBJECTS[name][0]}")


def notice(
    name: str, origin: str, record: Mapping[str, Any], *, output: str = "", details: str = "", reason: str = ""
) -> str:
    """Return HTML that says whose result a page shows: a line for one of this run, else a box that says how to make it.

    Parameters
    ----------
    name : str
        Of `SUBJECTS`.
    origin : {"live", "released", "missing"}
    record : mapping
        How the result was made: ``date`` and ``commit``.
    output : str
        Folder of the run, for the command.
    details, reason : str
        What it was made of; why this run has none of its own.
    """
    command = f"<code>{html.escape(SUBJECTS[name][1].format(name=name, output=output))}</code>"
    details, reason = html.escape(f"{details}. " if details else ""), html.escape(f" ({reason})" if reason else "")
    heading = title(name, origin, record)
    if origin == LIVE:
        return f'<p class="pnet-source"><b>{heading}.</b> {details}</p>'
    made = f"{details}This run has made" if origin == RELEASED else "Neither this run nor the project has made"
    text = f"{made} {'none of its own' if origin == RELEASED else 'any'}{reason}; {command} does."
    return f'<div class="admonition warning"><p class="admonition-title">{heading}</p><p>{text}</p></div>'


@dataclass(frozen=True)
class Measurements:
    """Measurements of several data sets, and where each comes from."""

    table: pd.DataFrame  # `measurements.COLUMNS`, of all data sets
    origin: dict[str, str]  # data set → "live", "released" or "missing"
    provenance: dict[str, dict[str, Any]]  # data set → the JSON beside its table
    output: str  # folder of the run, for the commands in notices

    def entries(
        self, *, seed: int, groups: tuple[str, ...] = tuple(ledger.GROUPS), datasets: tuple[str, ...] | None = None
    ) -> list[ledger.Entry]:
        """Return the ledger entries of every data set, or of `datasets`, each with its own source and provenance."""
        found = []
        for dataset, rows in self.table.groupby("dataset", sort=False):
            if datasets is None or dataset in datasets:
                where = {"source": self.origin[dataset], "provenance": self.provenance[dataset]}
                found += ledger.entries_from_measurements(rows, seed=seed, groups=groups, **where)
        return found

    def notice(self) -> str:
        """Return HTML that says what was measured where, one box per data set."""
        boxes = []
        for name, origin in self.origin.items():
            record = self.provenance[name]
            n, engine, baseline = len(record.get("frames", ())), record.get("engine"), record.get("baseline")
            text = f"{n} frame{'s' if n != 1 else ''}" if n else ""
            text += f", {ENGINES[engine]}" if engine in ENGINES else ""
            text += f". Baseline: {baseline}" if baseline else ""
            boxes.append(notice(name, origin, record, output=self.output, details=text))
        return "\n".join(boxes)


def load(output: str | os.PathLike, datasets: tuple[str, ...] = PAPER) -> Measurements:
    """Return the measurements of the run in `output`, with the released ones for those of `datasets` it lacks."""
    found = {name: find(f"measurements/{name}.parquet", output, measurements.read) for name in datasets}
    tables, records, origins = ({name: one[i] for name, one in found.items()} for i in range(3))
    whole = [table for table in tables.values() if table is not None]
    table = pd.concat(whole, ignore_index=True) if whole else pd.DataFrame(columns=list(measurements.COLUMNS))
    return Measurements(table, origins, records, Path(output).as_posix())


def test_frame(output: str | os.PathLike, *, seed: int) -> Path:
    """Return a simulated test frame of the run in `output`; where it has none, one is made."""
    return simulated("simulation", output, 1, seed).items[0]


def measure(
    output: str | os.PathLike, *, frames: int, weights: Mapping[str, str], seed: int, progress: bool = True
) -> None:
    """Measure what chapters 05 to 07 show, as the workflow's rules do; returns at once where that has been done.

    Simulated frames are made where the run in `output` holds none; SDSS frames are fetched if they can be.

    Parameters
    ----------
    frames : int
        How many simulated ones.
    weights : mapping of str to str
        Weights by network, as for `pnet.measure.PNet.load`.
    """
    options = {"frames": frames, "seed": seed, "progress": progress, **weights}
    for dataset in PAPER:
        measurements.run(dataset, output, optional=dataset == "sdss", **options)


def sdss_selection(manifest: str, output: str | os.PathLike, *, seed: int = 0) -> tuple[selection.Selection, str]:
    """Return the SDSS stars that this run selects, or the released ones, and the notice that says which.

    Only a missing file or network leads to the released ones. A damaged file is an error, as for `find`.
    """
    origin, reason = LIVE, ""
    try:
        found = selection.make(manifest, output, seed=seed)
    except MissingError as error:
        origin, reason = RELEASED, files.obstacle() or str(error).splitlines()[0]
        found = selection.read(paths.RESULTS / "sdss")
    details = f"Manifest {found.record['manifest']}"
    return found, notice("selection", origin, found.record, details=details, reason=reason)
