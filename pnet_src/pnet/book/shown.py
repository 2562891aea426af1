"""The measurements that a page shows: those of this run, or the released ones, marked as such."""

import html
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pnet.common import paths
from pnet.common.errors import MissingError
from pnet.evaluation import ledger
from pnet.evaluation import measurements as evaluation
from pnet.evaluation.entries import GROUPS, entries_from_measurements

LIVE, RELEASED, MISSING = "live", "released", "missing"
COMMANDS = {  # the one command that makes a data set's measurements live
    "simulation": "python -m pnet evaluate --dataset simulation --output {output}",
    "realistic": "python -m pnet evaluate --dataset realistic --output {output}",
    "validation": "python -m pnet evaluate --dataset validation --output {output}",
    "sdss": "make book SDSS_MIRROR=<folder or URL of an SDSS sas tree>",
    "coadd": "python -m studies coadd --output {output}",
}
NAMES = {
    "simulation": "simulated frames",
    "realistic": "simulated frames with galaxies and faint stars",
    "validation": "simulated frames for validation",
    "sdss": "SDSS frames with a catalogue",
    "coadd": "SDSS field 94-1-12 against the Stripe 82 co-add",
}
PAPER = ("simulation", "sdss")  # the data sets of the paper, which chapters 05 to 08 show
ENGINES = {
    "frames": "SkyMaker frames from the folder that SKYMAKER_FRAMES names",
    "skymaker": "frames made by SkyMaker on this machine",
    "renderer": "frames made by this project's own renderer (SkyMaker is not installed)",
}


@dataclass(frozen=True)
class Measurements:
    """Measurements of all data sets in one table, and where each comes from.

    Parameters
    ----------
    table : DataFrame
        `evaluation.COLUMNS`.
    origin : dict of str to str
        Data set → "live", "released" or "missing".
    provenance : dict of str to dict
        Data set → the JSON beside its table.
    output : str
        Folder of the run, for the commands in notices.
    """

    table: pd.DataFrame
    origin: dict[str, str]
    provenance: dict[str, dict[str, Any]] = field(default_factory=dict)
    output: str = ""

    def entries(
        self, *, seed: int, groups: tuple[str, ...] = GROUPS, datasets: tuple[str, ...] | None = None
    ) -> list[ledger.Entry]:
        """Return the ledger entries of every data set, or of `datasets`, each with its own source and provenance."""
        found = []
        for dataset, origin in self.origin.items():
            if origin == MISSING or (datasets is not None and dataset not in datasets):
                continue
            rows = self.table[self.table["dataset"] == dataset]
            found += entries_from_measurements(
                rows, seed=seed, source=origin, provenance=self.provenance[dataset], groups=groups
            )
        return found

    def notice(self) -> str:
        """Return HTML that says what was measured where, one box per data set."""
        return "\n".join(self._notice(dataset) for dataset in self.origin)

    def _notice(self, dataset: str) -> str:
        origin, record = self.origin[dataset], self.provenance.get(dataset, {})
        command = f"<code>{html.escape(COMMANDS[dataset].format(output=self.output))}</code>"
        if origin == MISSING:
            text = f"Neither this run nor the project has any; {command} makes them."
            return box("warning", f"No measurements of {NAMES[dataset]}", text)
        n = len(record.get("frames", []))
        what = f"{n} frame{'s' if n != 1 else ''}"
        if record.get("engine") in ENGINES:
            what += f", {ENGINES[record['engine']]}"
        if record.get("baseline"):
            what += f". Baseline: {html.escape(str(record['baseline']))}"
        if origin == LIVE:
            return box("note", f"Measured by this run: {NAMES[dataset]}", f"{what}.")
        title = f"Released result ({str(record.get('date', ''))[:10]}, commit {str(record.get('commit', ''))[:10]})"
        text = f"This run has not measured {NAMES[dataset]}; the project's own results stand in ({what}). "
        text += f"{command} makes this page live."
        return box("warning", title, text)


def box(kind: str, title: str, text: str) -> str:
    """Return an admonition as the book's theme draws it."""
    return f'<div class="admonition {kind}"><p class="admonition-title">{title}</p><p>{text}</p></div>'


def load(
    output: str | os.PathLike,
    released: Path = paths.RESULTS / "measurements",
    datasets: tuple[str, ...] = PAPER,
) -> Measurements:
    """Return the measurements of the run in `output`, with the released ones for those of `datasets` it lacks.

    Only files that are not there lead to the released ones; a damaged file is an error, which must not
    hide behind old results.
    """
    folder = Path(output)
    folder = folder if folder.is_absolute() else paths.ROOT / folder
    tables, origin, provenance = [], {}, {}
    for dataset in datasets:
        origin[dataset] = MISSING
        for source, place in ((LIVE, folder / "measurements"), (RELEASED, released)):
            try:
                table, provenance[dataset] = evaluation.read(place / f"{dataset}.parquet")
            except MissingError:
                continue
            tables.append(table)
            origin[dataset] = source
            break
    nothing = pd.DataFrame(columns=list(evaluation.COLUMNS))
    joined = pd.concat(tables, ignore_index=True) if tables else nothing
    return Measurements(joined, origin, provenance, Path(output).as_posix())
