"""Tables of chapter 10: error bars, SDSS, two epochs."""

import itertools
from collections.abc import Iterable

import pandas as pd

from pnet.book.tables import NO_VALUE, text
from pnet.evaluation import calibration_metrics, scores
from pnet.evaluation.ledger import Entry, Ledger
from studies.detection_tables import DATASETS

MILLI = 1000  # magnitudes are shown in mmag
PAIRS = {"stripe82": "Stripe 82, three years apart", "overlap": "two overlapping frames"}
QUALITY = {  # row: key and unit; 0 stands for a share in percent
    "CRPS / mmag": ("crps", MILLI),
    "CRPS over that of a perfect measurement": ("crps_over_limit", 1),
    "sharpness / mmag": ("sharpness", MILLI),
    "χ² of the PIT per degree of freedom": ("pit_chi2", 1),
    "inside the 68 % interval": ("coverage_68", 0),
    "inside the 95 % interval": ("coverage_95", 0),
    "standard deviation of error / σ": ("z_scatter", 1),
    "miscalibration area": ("miscalibration_area", 1),
}
AGAINST = {  # heading: key and unit, likewise
    "MAE / mmag": ("mae", MILLI),
    "σ_NMAD": ("sigma_nmad", 1),
    "mean σ / mmag": ("e_bar", MILLI),
    "Ē / MAE": ("e_bar_over_mae", 1),
    "std of difference / σ": ("z_scatter", 1),
    "inside 68 %": ("coverage_68", 0),
}


def quality(ledger: Ledger, datasets: tuple[str, ...] = ("simulation", "realistic", "sdss", "coadd")) -> pd.DataFrame:
    """CRPS, sharpness, PIT, coverage and scatter of all stars, one column a data set."""
    columns = {}
    for dataset in datasets:
        found = {row: (ledger.get(f"{dataset}.pnet.{key}"), unit) for row, (key, unit) in QUALITY.items()}
        scatter, area = (found[row][0] for row in ("standard deviation of error / σ", "miscalibration area"))
        if scatter is not None:
            columns[DATASETS[dataset]] = {row: _scaled(entry, unit) for row, (entry, unit) in found.items()} | {
                "perfect error bars would have": text(area.limit) if area else NO_VALUE,
                "stars": str(scatter.n),
            }
    table = pd.DataFrame(columns)
    return table[(table != NO_VALUE).any(axis=1)].rename_axis("").reset_index() if columns else table


def _scaled(entry: Entry | None, unit: int) -> str:
    """Return a value with interval, in percent for a `unit` of 0, else times `unit`."""
    if entry is None or entry.value is None or unit == 0:
        return text(entry, "percent")
    low, high = (None if end is None else unit * end for end in (entry.low, entry.high))
    return text(Entry(entry.key, unit * entry.value, low, high, entry.n))


def sdss(ledger: Ledger) -> pd.DataFrame:
    """PNet's magnitudes of the SDSS field against its catalogue and against the co-add."""
    rows = []
    for dataset in ("sdss", "coadd"):
        found = {word: (ledger.get(f"{dataset}.pnet.{key}"), unit) for word, (key, unit) in AGAINST.items()}
        if mae := found["MAE / mmag"][0]:
            row = {"against": DATASETS[dataset].removeprefix("SDSS, "), "stars": str(mae.n)}
            rows.append(row | {word: _scaled(entry, unit) for word, (entry, unit) in found.items()})
    return pd.DataFrame(rows)


def epochs(ledger: Ledger, quantities: Iterable[str]) -> pd.DataFrame:
    """Scatter of one measurement between two epochs, beside the error promised and the limit; bins for Stripe 82.

    Parameters
    ----------
    ledger : Ledger
        With the entries of `repeat_scores.entries`.
    quantities : iterable of str
        Of `repeat_scores.TITLES`, all of one unit.
    """
    rows = []
    for (pair, label), quantity in itertools.product(PAIRS.items(), quantities):
        unit, scale = ("mmag", MILLI) if quantity.startswith("mag") else ("px", 1)
        for name, (low, high) in scores.RANGES.items():
            keys = (f"{quantity}_{what}.{name}" for what in ("repeatability", "predicted", "z", "coverage68"))
            scatter, promised, z, held = (ledger.get(f"repeat.pnet.{pair}.{key}") for key in keys)
            if scatter is None or (pair != "stripe82" and name != "14-20"):
                continue
            row = {"frames": label, "": quantity, "mag": f"{low:g}–{high:g}", "stars": str(scatter.n)}
            row |= {f"scatter / √2 / {unit}": _scaled(scatter, scale), f"promised / {unit}": _scaled(promised, scale)}
            row[f"limit / {unit}"] = text(None if scatter.limit is None else scale * scatter.limit)
            row["robust scatter of difference / σ"] = text(z)
            rows.append(row | {"within the promised 68 %": text(held, "percent")})
    return pd.DataFrame(rows)


def spread_of_bins(ledger: Ledger, head: str, group: str) -> tuple[int, int]:
    """Return in how many groups the miscalibration area lies within the range of perfect error bars, and how many."""
    found = [entry for entry in ledger.find(f"{head}.miscalibration_area.{group}.*") if entry.value is not None]
    held = [entry for entry in found if entry.value <= calibration_metrics.perfect(entry.n, seed=0).high]
    return len(held), len(found)
