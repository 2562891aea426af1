"""Tables of chapter 10, and the studies that it shows: error bars, recalibrations, SDSS, two epochs, stress, speed."""

import html
from pathlib import Path
from typing import Any

import pandas as pd

from pnet.book import shown
from pnet.book.tables import NO_VALUE, number, to_html, with_interval
from pnet.common import paths
from pnet.common.errors import DataError, MissingError
from pnet.common.files import read_json
from pnet.common.metrics import Estimate
from pnet.evaluation import calibration_metrics
from pnet.evaluation.ledger import Entry, Ledger, entries_of
from pnet.evaluation.scores import Score
from studies import detection_tables

STUDIES = paths.RESULTS / "studies"
DATASETS = detection_tables.DATASETS
MILLI = 1000  # magnitudes are shown in mmag
TAKES = {  # on two cores
    "posterior": "an hour or more",
    "stamps": "an hour or more",
    "sampling": "minutes",
    "stress": "minutes",
}


def quality(ledger: Ledger, datasets: tuple[str, ...] = ("simulation", "realistic", "sdss", "coadd")) -> pd.DataFrame:
    """CRPS, sharpness, PIT, coverage and scatter of all stars, one column a data set."""
    names = {
        "CRPS / mmag": ("crps", MILLI),
        "CRPS over that of a perfect measurement": ("crps_over_limit", 1),
        "sharpness / mmag": ("sharpness", MILLI),
        "χ² of the PIT per degree of freedom": ("pit_chi2", 1),
        "inside the 68 % interval": ("coverage_68", 0),
        "inside the 95 % interval": ("coverage_95", 0),
        "standard deviation of error / σ": ("z_scatter", 1),
        "miscalibration area": ("miscalibration_area", 1),
        "perfect error bars would have": ("miscalibration_area limit", 1),
        "stars": ("n", 1),
    }
    known = [dataset for dataset in datasets if ledger.get(f"{dataset}.pnet.z_scatter")]
    rows = []
    for label, (name, unit) in names.items():
        row = {"": label}
        for dataset in known:
            key = f"{dataset}.pnet.{name.removesuffix(' limit')}"
            if name == "n":
                row[DATASETS[dataset]] = str(ledger[f"{dataset}.pnet.z_scatter"].n)
            elif name.endswith(" limit"):
                entry = ledger.get(key)
                row[DATASETS[dataset]] = number(entry.limit) if entry else NO_VALUE
            else:
                row[DATASETS[dataset]] = _cell(ledger.get(key), unit)
        if any(value != NO_VALUE for key, value in row.items() if key):
            rows.append(row)
    return pd.DataFrame(rows) if known else pd.DataFrame()


def _cell(entry: Entry | None, unit: int) -> str:
    """Return a value with interval, in percent for a `unit` of 0, else times `unit`."""
    if entry is None or entry.value is None or unit == 0:
        return with_interval(entry, "percent")
    low, high = (None if end is None else unit * end for end in (entry.low, entry.high))
    return with_interval(Entry(entry.key, unit * entry.value, low, high, entry.n))


def sdss(ledger: Ledger) -> pd.DataFrame:
    """PNet's magnitudes of the SDSS field against its catalogue and against the co-add."""
    rows = []
    for dataset in ("sdss", "coadd"):
        mae = ledger.get(f"{dataset}.pnet.mae")
        if mae is None:
            continue
        head = f"{dataset}.pnet"
        rows.append(
            {
                "against": DATASETS[dataset].removeprefix("SDSS, "),
                "stars": str(mae.n),
                "MAE / mmag": _cell(mae, MILLI),
                "σ_NMAD": with_interval(ledger.get(f"{head}.sigma_nmad")),
                "mean σ / mmag": _cell(ledger.get(f"{head}.e_bar"), MILLI),
                "Ē / MAE": with_interval(ledger.get(f"{head}.e_bar_over_mae")),
                "std of difference / σ": with_interval(ledger.get(f"{head}.z_scatter")),
                "inside 68 %": with_interval(ledger.get(f"{head}.coverage_68"), "percent"),
            }
        )
    return pd.DataFrame(rows)


def epochs(ledger: Ledger, pair: str, quantity: str = "mag") -> pd.DataFrame:
    """What two epochs of the same stars differ by, beside what their error bars promise, by magnitude."""
    head = f"repeat.pnet.{pair}.{quantity}_"
    names = [entry.key.rpartition(".")[2] for entry in ledger.find(f"{head}repeatability.*")]
    rows = []
    for name in sorted(names, key=lambda text: (len(text), text)):
        found = {what: ledger.get(f"{head}{what}.{name}") for what in ("repeatability", "predicted", "z", "coverage68")}
        scatter = found["repeatability"]
        rows.append(
            {
                "mag": name.replace("-", "–") if "-" in name else f"{name}–{int(name) + 1}",
                "stars": str(scatter.n),
                "scatter / √2 / mmag": _cell(scatter, MILLI),
                "promised / mmag": _cell(found["predicted"], MILLI),
                "limit / mmag": number(None if scatter.limit is None else MILLI * scatter.limit),
                "robust scatter of difference / σ": with_interval(found["z"]),
                "within the promised 68 %": with_interval(found["coverage68"], "percent"),
            }
        )
    return pd.DataFrame(rows)


def study(name: str, folder: Path = STUDIES) -> dict[str, Any] | None:
    """Return what `python -m studies` wrote, None where it has not been made.

    Raises
    ------
    DataError
        If the file is something else.
    """
    path = folder / f"{name}.json"
    try:
        content = read_json(path)
        if not (isinstance(content["rows"], list) and isinstance(content["columns"], dict)):
            raise TypeError("rows or columns")
        return content if content["provenance"] is not None else None
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not the result of `python -m studies`: {error!r}") from error


def study_html(name: str, folder: Path = STUDIES) -> str:
    """Return the table of a study with where it is from, or which command makes it."""
    try:
        table = to_html(detection_tables.study(name, folder))
        record = study(name, folder)["provenance"]
    except MissingError:
        return f"<p>Study {name} has not been made: <code>python -m studies {name}</code> makes it ({TAKES[name]}).</p>"
    where = shown.title(f"study-{name}", shown.RELEASED, record)
    return f"{table}<p><small>{where}: <code>{html.escape(str(record.get('command', '')))}</code></small></p>"


def study_entries(folder: Path = STUDIES) -> list[Entry]:
    """Return the numbers of the studies of stress and of sampling speed that the ledger keeps."""
    found = []
    stress = study("stress", folder)
    for row in stress["rows"] if stress else []:
        head, n = f"study.stress.{row['name']}", int(row["n"])
        flagged = Estimate(row["flagged"], row["flagged_low"], row["flagged_high"], n)
        found += entries_of(
            {
                "auc": Score(Estimate(row["auc"], n=n), f"AUC of the novelty, {row['title']}"),
                "flagged": Score(flagged, f"share of stars flagged, {row['title']}"),
                "z_scatter": Score(Estimate(row["z_scatter"], n=n), f"standard deviation of error / σ, {row['title']}"),
            },
            head,
            "released",
            stress["provenance"],
        )
    sampling = study("sampling", folder)
    if sampling:
        fast = max(sampling["rows"], key=lambda row: row["speed"])
        n = int(fast["stars"])
        found += entries_of(
            {
                "seconds": Score(Estimate(fast["seconds"], n=n), f"{fast['samples']} samples of {n:,} stars", "s"),
                "speed": Score(Estimate(fast["speed"], n=n), "times as fast as the plain loop of the same net"),
            },
            "study.sampling",
            "released",
            sampling["provenance"],
        )
    return found


def spread_of_bins(ledger: Ledger, head: str, group: str) -> tuple[int, int]:
    """Return in how many groups the miscalibration area lies within the range of perfect error bars, and how many."""
    found = [entry for entry in ledger.find(f"{head}.miscalibration_area.{group}.*") if entry.value is not None]
    held = [entry for entry in found if entry.value <= calibration_metrics.perfect(entry.n, seed=0).high]
    return len(held), len(found)


def outside(study: dict[str, Any] | None, least: float = 0.8) -> tuple[int, int]:
    """Return how many conditions of the stress study are told from validation stars with an AUC of `least`, of all."""
    rows = [row for row in study["rows"] if row["name"] not in ("validation", "in_range")] if study else []
    return sum(row["auc"] >= least for row in rows), len(rows)
