"""Tables of chapter 09: detection against harder baselines, frames with galaxies, error ellipses, the confidence."""

import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from pnet.book.tables import METHOD_NAMES, NO_VALUE, by_magnitude, text
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
STRICTER = {  # and looser kinds of precision
    "galaxies ignored": "precision_galaxies_ignored",
    "all galaxies false": "precision_all_galaxies",
    "faint stars false too": "precision_strict",
}


def detection(ledger: Ledger, datasets: Iterable[str] = ("simulation", "sdss", "coadd")) -> pd.DataFrame:
    """Precision, recall and average precision of every method that was run, by data set."""
    rows = []
    for dataset, (method, name) in itertools.product(datasets, METHOD_NAMES.items()):
        head = f"{dataset}.{method}"
        if recall := ledger.get(f"{head}.recall"):
            precision = text(ledger.get(f"{head}.precision"), "percent")
            row = {"data": DATASETS[dataset], "method": name, "precision (95 %)": precision}
            row |= {"recall (95 %)": text(recall, "percent")}
            row |= {"AP": text(ledger.value(f"{head}.ap"), "percent") if method == "pnet" else NO_VALUE}
            rows.append(row | {"stars": str(recall.n)})
    return pd.DataFrame(rows)


def realistic(ledger: Ledger) -> pd.DataFrame:
    """Recall and the four precisions on frames with galaxies; PNet at 0.3 and at the threshold that was chosen."""
    rows = []
    chosen = f", confidence ≥ {ledger.value('realistic.pnet.threshold_chosen'):g}"
    labels = {("pnet", ""): ", confidence ≥ 0.3", ("pnet", "_at_chosen"): chosen}
    for (method, name), suffix in itertools.product(METHOD_NAMES.items(), ("", "_at_chosen")):
        head = f"realistic.{method}"
        if recall := ledger.get(f"{head}.recall{suffix}"):
            row = {"method": name + labels.get((method, suffix), ""), "recall (95 %)": text(recall, "percent")}
            row |= {"precision (95 %)": text(ledger.get(f"{head}.precision{suffix}"), "percent")}
            row |= {word: text(ledger.value(f"{head}.{kind}{suffix}"), "percent") for word, kind in STRICTER.items()}
            rows.append(row | {"stars": str(recall.n)})
    return pd.DataFrame(rows)


def ellipses(ledger: Ledger, dataset: str = "simulation") -> pd.DataFrame:
    """Share of stars inside their 68 and 95 % position ellipse, bright, faint and all, for every method with errors."""
    rows = []
    for method, label in METHOD_NAMES.items():
        for variant, about in (("", "list"), ("_placed", "light")):
            keys = {
                f"{level} %, {name}": f"{dataset}.{method}.ellipse_{level}{variant}.{part}"
                for level in (68, 95)
                for part, name in (("bright", "13–16.5"), ("faint", "16.5–20"), ("all", "all"))
            }
            if not any(key in ledger for key in keys.values()):
                continue
            row = {"positions": label, "about the": about}
            rows.append(row | {heading: text(ledger.get(key), "percent") for heading, key in keys.items()})
    table = pd.DataFrame(rows)
    # on frames of the renderer the light is where the list says, and a column of one word says nothing
    return table.drop(columns="about the") if len(table) and table["about the"].nunique() == 1 else table


def pulls(ledger: Ledger, dataset: str = "simulation") -> pd.DataFrame:
    """Standard deviation of error / σ by magnitude bin, one column for each quantity with error bars."""
    columns = {
        "x": "pnet.x_pull",
        "y": "pnet.y_pull",
        "magnitude of the fit": "pnet.psf_mag_pull",
        "x, PSFEx": "psfex.x_pull",
        "x, photutils": "photutils.x_pull",
    }
    return by_magnitude(ledger, {heading: f"{dataset}.{key}" for heading, key in columns.items()})


def confidence(ledger: Ledger, datasets: Iterable[str] = scores.SIMULATED) -> pd.DataFrame:
    """Expected calibration error and Brier score of the confidence, before and after calibration."""
    rows = []
    for dataset in datasets:
        for name, label in (("confidence", "as the network says"), ("probability", "calibrated")):
            if error := ledger.get(f"{dataset}.pnet.{name}_error"):
                row = {"data": DATASETS.get(dataset, dataset), "": label}
                row |= {"expected calibration error (95 %)": text(error)}
                row |= {"Brier score": text(ledger.value(f"{dataset}.pnet.{name}_brier"))}
                rows.append(row | {"detections": str(error.n)})
    return pd.DataFrame(rows)


def false_detections(table: pd.DataFrame, dataset: str = "simulation") -> pd.DataFrame:
    """What the false detections of every method lie on: a close pair, the light of one star, or nothing.

    Two sources within `PAIR` px make a close pair, one within `BESIDE` px a star; whatever is left is noise, a trail of
    charge or the edge of something large.

    Parameters
    ----------
    table : DataFrame
        Measurements (`measurements.COLUMNS`).
    """
    rows = []
    for method, name in METHOD_NAMES.items():
        found = scores.select(table, dataset, method)
        if found.empty:
            continue
        counts = np.zeros(3, int)
        for _, frame in found.groupby("frame"):
            alone = frame.loc[frame["status"] == matching.FALSE, ["x", "y"]].to_numpy(float)
            sources = cKDTree(frame[["truth_x", "truth_y"]].dropna().to_numpy(float))
            near, around = (sources.query_ball_point(alone, r, return_length=True) for r in (PAIR, BESIDE))
            kind = np.select([near > 1, around > 0], [0, 1], 2)
            counts += np.bincount(kind, minlength=3)
        causes = zip(("between two stars", "beside one star", "nothing near"), map(str, counts), strict=True)
        rows.append({"method": name, "false": str(counts.sum()), **dict(causes)})
    return pd.DataFrame(rows)


def real_in_coadd(table: pd.DataFrame) -> pd.DataFrame:
    """How many of the detections that are false against photoObj are in the deeper co-add, by method.

    Parameters
    ----------
    table : DataFrame
        Measurements of the data sets sdss and coadd (`measurements.COLUMNS`).
    """
    deep = table.loc[table["dataset"] == "coadd", ["truth_x", "truth_y"]].dropna().set_axis(["x", "y"], axis=1)
    rows = []
    for method, name in METHOD_NAMES.items():
        found = scores.select(table, "sdss", method)
        if len(found) and len(deep):
            alone = found[(found["status"] == matching.FALSE) & found["frame"].str.startswith(f"{stripe82.FIELD}-")]
            real = coadd.known(alone[["x", "y"]], deep)
            row = {"method": name, "false against photoObj": str(len(alone)), "in the co-add": str(real.sum())}
            rows.append(row | {"in neither": str((~real).sum())})
    return pd.DataFrame(rows)
