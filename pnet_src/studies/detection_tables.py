"""Tables of chapter 09: detection against harder baselines, frames with galaxies, error ellipses, the confidence."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from pnet.book.tables import METHOD_NAMES, NO_VALUE, number, percent, with_interval
from pnet.common import paths
from pnet.common.errors import DataError, MissingError
from pnet.common.files import read_json
from pnet.evaluation import scores
from pnet.evaluation.ledger import Ledger
from pnet.sky import matching
from studies import coadd, stripe82

DATASETS = {
    "simulation": "simulation",
    "realistic": "simulation with galaxies",
    "sdss": "SDSS, photoObj",
    "coadd": "SDSS, co-add",
}
PAIR, BESIDE = 6.0, 10.0  # px; for `false_detections`
POSITIONS = {
    "PNet, detection net": ("pnet", ""),
    "PNet, BPNN": ("pnet", "bpnn_"),
    "SExtractor + PSFEx": ("psfex", ""),
    "photutils PSF": ("photutils", ""),
    "SExtractor": ("sextractor", ""),
}


def detection(ledger: Ledger, datasets: Iterable[str] = ("simulation", "sdss", "coadd")) -> pd.DataFrame:
    """Precision, recall and strict precision of every method that was run, by data set."""
    rows = []
    for dataset in datasets:
        for method, name in METHOD_NAMES.items():
            recall = ledger.get(f"{dataset}.{method}.recall")
            if recall is None:
                continue
            head = f"{dataset}.{method}"
            rows.append(
                {
                    "data": DATASETS.get(dataset, dataset),
                    "method": name,
                    "precision (95 %)": with_interval(ledger.get(f"{head}.precision"), "percent"),
                    "recall (95 %)": with_interval(recall, "percent"),
                    "AP": percent(ledger.value(f"{head}.ap")) if method == "pnet" else NO_VALUE,
                    "stars": str(recall.n),
                }
            )
    return pd.DataFrame(rows)


def realistic(ledger: Ledger) -> pd.DataFrame:
    """Recall and the four precisions on frames with galaxies; PNet at 0.3 and at the threshold that was chosen."""
    rows = []
    for method, name in METHOD_NAMES.items():
        head = f"realistic.{method}"
        chosen = ledger.value(f"{head}.threshold_chosen")
        for suffix, label in (("", ""), ("_at_chosen", f", confidence ≥ {chosen:g}")):
            recall = ledger.get(f"{head}.recall{suffix}")
            if recall is None:
                continue
            label = ", confidence ≥ 0.3" if method == "pnet" and not suffix else label
            kinds = {
                "precision (95 %)": "precision",
                "galaxies ignored": "precision_galaxies_ignored",
                "all galaxies false": "precision_all_galaxies",
                "faint stars false too": "precision_strict",
            }
            row = {"method": f"{name}{label}", "recall (95 %)": with_interval(recall, "percent")}
            for heading, kind in kinds.items():
                entry = ledger.get(f"{head}.{kind}{suffix}")
                full = kind == "precision" or entry is None
                row[heading] = with_interval(entry, "percent") if full else percent(entry.value)
            rows.append(row | {"stars": str(recall.n)})
    return pd.DataFrame(rows)


def ellipses(ledger: Ledger, dataset: str = "simulation") -> pd.DataFrame:
    """Share of stars inside their 68 and 95 % position ellipse, bright, faint and all, for every method with errors."""
    rows = []
    for label, (method, prefix) in POSITIONS.items():
        for variant, about in (("", "list"), ("_placed", "light")):
            keys = {
                f"{level} %, {name}": f"{dataset}.{method}.{prefix}ellipse_{level}{variant}.{part}"
                for level in (68, 95)
                for part, name in (("bright", "13–16.5"), ("faint", "16.5–20"), ("all", "all"))
            }
            if not any(key in ledger for key in keys.values()):
                continue
            row = {"positions": label, "about the": about}
            rows.append(row | {heading: with_interval(ledger.get(key), "percent") for heading, key in keys.items()})
    table = pd.DataFrame(rows)
    # on frames of the renderer the light is where the list says, and a column of one word says nothing
    return table.drop(columns="about the") if len(table) and table["about the"].nunique() == 1 else table


def pulls(ledger: Ledger, dataset: str = "simulation") -> pd.DataFrame:
    """Standard deviation of error / σ by magnitude bin, one column for each quantity with error bars."""
    columns = {
        "x": f"{dataset}.pnet.x_pull",
        "y": f"{dataset}.pnet.y_pull",
        "net's magnitude": f"{dataset}.pnet.net_mag_pull",
        "x, BPNN": f"{dataset}.pnet.bpnn_x_pull",
        "y, BPNN": f"{dataset}.pnet.bpnn_y_pull",
        "x, PSFEx": f"{dataset}.psfex.x_pull",
        "x, photutils": f"{dataset}.photutils.x_pull",
    }
    columns = {heading: key for heading, key in columns.items() if ledger.find(f"{key}.*")}
    rows = []
    for low, high, name in scores.ranges():
        found = {heading: ledger.get(f"{key}.{name}") for heading, key in columns.items()}
        if any(found.values()):
            row = {"mag": f"{low:g}–{high:g}"}
            rows.append(row | {heading: with_interval(entry) for heading, entry in found.items()})
    return pd.DataFrame(rows)


def confidence(ledger: Ledger, datasets: Iterable[str] = scores.SIMULATED) -> pd.DataFrame:
    """Expected calibration error and Brier score of the confidence, before and after calibration."""
    rows = []
    for dataset in datasets:
        for name, label in (("confidence", "as the network says"), ("probability", "calibrated")):
            error = ledger.get(f"{dataset}.pnet.{name}_error")
            if error is None:
                continue
            rows.append(
                {
                    "data": DATASETS.get(dataset, dataset),
                    "": label,
                    "expected calibration error (95 %)": with_interval(error),
                    "Brier score": number(ledger.value(f"{dataset}.pnet.{name}_brier")),
                    "detections": str(error.n),
                }
            )
    return pd.DataFrame(rows)


def false_detections(table: pd.DataFrame, dataset: str = "simulation") -> pd.DataFrame:
    """What the false detections of every method lie on: a close pair, the light of one star, or nothing.

    Two sources within `PAIR` px make a close pair, one within `BESIDE` px a star; whatever is left is noise, a trail of
    charge or the edge of something large.

    Parameters
    ----------
    table : DataFrame
        Measurements (`evaluation.COLUMNS`).
    """
    rows = []
    for method, name in METHOD_NAMES.items():
        found = scores.select(table, dataset, method)
        if found.empty:
            continue
        counts = {"between two stars": 0, "beside one star": 0, "nothing near": 0}
        for frame, alone in found[found["status"] == matching.FALSE].groupby("frame"):
            sources = found.loc[(found["frame"] == frame) & found["truth_x"].notna(), ["truth_x", "truth_y"]]
            for x, y in alone[["x", "y"]].to_numpy():
                distance = np.hypot(sources["truth_x"] - x, sources["truth_y"] - y)
                near, beside = int((distance <= PAIR).sum()), int((distance <= BESIDE).sum())
                counts["between two stars" if near > 1 else "beside one star" if beside else "nothing near"] += 1
        rows.append({"method": name, "false": str(sum(counts.values()))} | {key: str(n) for key, n in counts.items()})
    return pd.DataFrame(rows)


def real_in_coadd(table: pd.DataFrame) -> pd.DataFrame:
    """How many of the detections that are false against photoObj are in the deeper co-add, by method.

    Parameters
    ----------
    table : DataFrame
        Measurements of the data sets sdss and coadd (`evaluation.COLUMNS`).
    """
    deep = table[(table["dataset"] == "coadd") & table["truth_x"].notna()]
    deep = deep[["truth_x", "truth_y"]].drop_duplicates().set_axis(["x", "y"], axis=1)
    rows = []
    for method, name in METHOD_NAMES.items():
        found = scores.select(table, "sdss", method)
        if found.empty or deep.empty:
            continue
        alone = found[(found["status"] == matching.FALSE) & found["frame"].str.startswith(f"{stripe82.FIELD}-")]
        real = coadd.known(alone[["x", "y"]], deep)
        rows.append(
            {
                "method": name,
                "false against photoObj": str(len(alone)),
                "in the co-add": str(int(real.sum())),
                "in neither": str(int((~real).sum())),
            }
        )
    return pd.DataFrame(rows)


def epochs(ledger: Ledger, quantities: Iterable[str] = ("x", "y")) -> pd.DataFrame:
    """Scatter of one position between two epochs, beside the error promised and the limit; bins for Stripe 82.

    Parameters
    ----------
    ledger : Ledger
        With the entries of `repeat_scores.entries`.
    quantities : iterable of str
        Of `repeat_scores.QUANTITIES`.
    """
    pairs = {"stripe82": ("Stripe 82, three years apart", True), "overlap": ("two overlapping frames", False)}
    rows = []
    for pair, (label, with_bins) in pairs.items():
        for quantity in quantities:
            for low, high, name in scores.ranges():
                head = f"repeat.pnet.{pair}.{quantity}"
                scatter = ledger.get(f"{head}_repeatability.{name}")
                if scatter is None or not (with_bins or name == "14-20"):
                    continue
                row = {
                    "frames": label,
                    "": quantity,
                    "mag": f"{low:g}–{high:g}",
                    "scatter / px": with_interval(scatter),
                }
                row["promised / px"] = number(ledger.value(f"{head}_predicted.{name}"))
                row["limit / px"] = number(scatter.limit)
                row["scatter over promise"] = with_interval(ledger.get(f"{head}_z.{name}"))
                row["within 68 %"] = with_interval(ledger.get(f"{head}_coverage68.{name}"), "percent")
                rows.append(row | {"stars": str(scatter.n)})
    return pd.DataFrame(rows)


def study(name: str, folder: Path = paths.RESULTS / "studies") -> pd.DataFrame:
    """Return the table that `python -m studies` made, one change a row, as texts.

    Raises
    ------
    MissingError, DataError
        If it has not been made, or is something else.
    """
    path = folder / f"{name}.json"
    try:
        content = read_json(path)
        columns, rows = content["columns"], content["rows"]
        # JSON keeps the keys in the order of the alphabet: the row's name comes first.
        columns = dict(sorted(columns.items(), key=lambda item: item[0] not in ("name", "title")))
        shares = ("precision", "recall", "ap", "pairs_found", "coverage_68", "flagged", "flagged_sigma")
        return pd.DataFrame(
            {
                heading: _cell(row.get(key), "percent" if key in shares else "number")
                for key, heading in columns.items()
                if any(other.get(key) is not None for other in rows)
            }
            for row in rows
        )
    except FileNotFoundError as error:
        command = f"`python -m studies {name} --frames <folder of SkyMaker frames>`"
        raise MissingError(f"study {name} has not been made; {command} makes it (hours on two cores)") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: not the result of `python -m studies`: {error!r}") from error


def _cell(value: float | str | None, style: str) -> str:
    if value is None or isinstance(value, str):
        return value or NO_VALUE
    if isinstance(value, int):
        return str(value)
    return percent(value) if style == "percent" else number(value)
