"""Tables 1 and 2 of the paper with our numbers beside, and the scorecard, as text-valued DataFrames."""

import math
import re
from collections.abc import Iterable

import pandas as pd

from pnet.common.metrics import Estimate
from pnet.evaluation import scores
from pnet.evaluation.goals import Goal
from pnet.evaluation.ledger import Entry, Ledger, paper_values

NO_VALUE = "–"
DATASET_NAMES = {"sdss": "SDSS", "simulation": "simulation"}
METHOD_NAMES = {
    "pnet": "PNet",
    "sextractor": "SExtractor",
    "sextractor_default": "SExtractor, default settings",
    "sep": "SEP",
    "psfex": "SExtractor + PSFEx",
    "photutils": "photutils PSF",
}

HIGHER_IS_BETTER = ("precision", "recall", "ap", "within")
FRACTIONS = (*HIGHER_IS_BETTER, "eta", "coverage")
CALIBRATED = math.sqrt(math.pi / 2)  # Ē / MAE of Gaussian errors with the right σ

_TABLE_2 = (
    ("η", "eta", "percent"),
    ("σ_NMAD", "sigma_nmad", "number"),
    ("MAE / mag", "mae", "number"),
    ("Ē / mag", "e_bar", "number"),
    ("Ē / MAE", "e_bar_over_mae", "number"),
)


def number(value: float | None, digits: int = 3) -> str:
    """Return a value with significant digits, as 2.1 × 10⁻³ below 0.01; – for none."""
    return _numbers([value], digits)


def _numbers(values: list[float | None], digits: int) -> str:
    """Return ``first`` or ``first (second … third)``, all with the decimals and power of ten of the first."""
    first = values[0]
    if first is None or not math.isfinite(first):
        return NO_VALUE
    exponent = math.floor(math.log10(abs(first))) if first else 0
    scientific = exponent < -2
    decimals = max(0, digits - 1 - (0 if scientific else exponent))
    texts = [f"{value / 10 ** (exponent if scientific else 0):.{decimals}f}".replace("-", "−") for value in values]
    text = texts[0] if len(texts) == 1 else f"{texts[0]} ({' … '.join(texts[1:])})"
    power = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{text} × 10{power}" if scientific else text


def percent(value: float | None, digits: int = 2) -> str:
    """Return a fraction of one as a percentage; – for none."""
    return NO_VALUE if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def with_interval(entry: Entry | None, style: str = "number") -> str:
    """Return ``value (low … high)``, or the value alone where there is no interval; – for no entry."""
    if entry is None or entry.value is None:
        return NO_VALUE
    values = [entry.value] if entry.low is None or entry.high is None else [entry.value, entry.low, entry.high]
    if style != "percent":
        return _numbers(values, 3)
    texts = [f"{100 * value:.2f}" for value in values]
    return f"{texts[0]} %" if len(texts) == 1 else f"{texts[0]} ({texts[1]} … {texts[2]}) %"


def _paper(key: str, style: str) -> str:
    """Return the paper's value of a key as it would print it."""
    item = paper_values().get(key)
    if item is None:
        return NO_VALUE
    text = percent(item["value"]) if style == "percent" else number(item["value"], 4)
    return f"> {text}" if item["relation"] == ">" else text


def table_1(ledger: Ledger) -> pd.DataFrame:
    """Detection results: one row per data set and method, our precision, recall and AP beside the paper's."""
    rows = []
    for dataset in DATASET_NAMES:
        for method in METHOD_NAMES:
            keys = {name: f"{dataset}.{method}.{name}" for name in ("precision", "recall", "ap")}
            stated = any(key in paper_values() for key in keys.values())
            measured = any(key in ledger for key in keys.values())
            # SEP stands in for SExtractor only; a row without any number says nothing
            if not (measured or stated):
                continue
            entry = ledger.get(keys["recall"])
            rows.append(
                {
                    "data": DATASET_NAMES[dataset],
                    "method": METHOD_NAMES[method],
                    "precision (95 %)": with_interval(ledger.get(keys["precision"]), "percent"),
                    "paper's precision": _paper(keys["precision"], "percent"),
                    "recall (95 %)": with_interval(entry, "percent"),
                    "paper's recall": _paper(keys["recall"], "percent"),
                    "AP": percent(ledger.value(keys["ap"])),
                    "paper's AP": _paper(keys["ap"], "percent"),
                    "stars": str(entry.n) if entry else NO_VALUE,
                }
            )
    return pd.DataFrame(rows)


def table_2(ledger: Ledger) -> pd.DataFrame:
    """Photometric uncertainty of PNet: one row per criterion, both data sets, ours beside the paper's."""
    rows = []
    for title, name, style in _TABLE_2:
        row = {"": title}
        for dataset, label in DATASET_NAMES.items():
            key = f"{dataset}.pnet.{name}"
            row[f"{label}, ours (95 %)"] = with_interval(ledger.get(key), style)
            row[f"{label}, paper"] = percent(paper_values()[key]["value"], 4) if style == "percent" else _paper(key, "")
        rows.append(row)
    counts = {"": "stars"}
    for dataset, label in DATASET_NAMES.items():
        entry = ledger.get(f"{dataset}.pnet.mae")
        counts[f"{label}, ours (95 %)"] = str(entry.n) if entry else NO_VALUE
        counts[f"{label}, paper"] = f"{paper_values()['paper.targets']['value']} in all"
    return pd.DataFrame([*rows, counts])


def verdict(entry: Entry) -> str:
    """Return how a number compares with the paper's: better, worse, or within our 95 % interval."""
    if entry.paper is None or entry.value is None:
        return NO_VALUE
    if paper_values().get(entry.key, {}).get("relation") == ">" and entry.value > entry.paper:
        return "agrees"  # the paper states a bound, so nobody knows which of the two is better
    if entry.low is not None and entry.high is not None and entry.low <= entry.paper <= entry.high:
        return "within interval"
    name = entry.key.split(".", 2)[-1].removeprefix("net_")
    if name.startswith("e_bar_over_mae"):  # neither small nor large is good: 1.25 is
        better = abs(entry.value - CALIBRATED) < abs(entry.paper - CALIBRATED)
    else:
        better = (entry.value > entry.paper) == name.startswith(HIGHER_IS_BETTER)
    return "better" if better else "worse"


def scorecard(ledger: Ledger, keys: Iterable[str]) -> pd.DataFrame:
    """One row per key that the ledger holds: ours with interval, the paper's, how they compare, the limit."""
    rows = []
    for key in keys:
        entry = ledger.get(key)
        if entry is None:
            continue
        dataset, method, name = key.split(".", 2)
        style = "percent" if name.removeprefix("net_").startswith(FRACTIONS) else "number"
        rows.append(
            {
                "data, method": f"{DATASET_NAMES.get(dataset, dataset)}, {METHOD_NAMES.get(method, method)}",
                "what": entry.title + (f" / {entry.unit}" if entry.unit else ""),
                "ours (95 %)": with_interval(entry, style),
                "paper": _paper(key, style),
                "vs paper": verdict(entry),
                "limit": percent(entry.limit) if style == "percent" else number(entry.limit),
                "n": str(entry.n),
                "source": entry.source,
            }
        )
    card = pd.DataFrame(rows)
    # a column that says "live" in every row would only make the table wider
    return card.drop(columns="source") if rows and (card["source"] == "live").all() else card


def over_limit(ledger: Ledger, columns: dict[str, str]) -> pd.DataFrame:
    """Scatter over limit by magnitude bin, one column per series.

    Parameters
    ----------
    columns : dict of str to str
        Heading → key without the bin, such as ``simulation.pnet.mag_over_limit``; series that the ledger
        lacks are left out.
    """
    columns = {heading: key for heading, key in columns.items() if ledger.find(f"{key}.*")}
    bins = [f"{low:g}" for low in scores.BINS[:-1]] + [f"{low:g}-{high:g}" for low, high in scores.POOLS]
    rows = []
    for name in bins:
        found = {heading: ledger.get(f"{key}.{name}") for heading, key in columns.items()}
        if any(found.values()):
            label = name.replace("-", "–") if "-" in name else f"{name}–{int(name) + 1}"
            rows.append({"mag": label} | {heading: with_interval(entry) for heading, entry in found.items()})
    return pd.DataFrame(rows)


def goals(ledger: Ledger, wanted: Iterable[Goal], others: Iterable[str] = ("psfex", "sextractor")) -> pd.DataFrame:
    """One row per goal: what is wanted, the paper's value, ours with interval, the limit, and whether it is reached.

    Parameters
    ----------
    ledger : Ledger
    wanted : iterable of Goal
        From `goals.load`. Of a goal for every bin the bin farthest from it is shown.
    others : iterable of str
        Methods whose value for the same key stands beside ours, the first that the ledger has.
    """
    rows = []
    for goal in wanted:
        entry, verdict_ = goal.decide(ledger)
        key = goal.key if entry is None else entry.key
        known = ledger.get(key)
        other = NO_VALUE
        for method in others:
            theirs = ledger.get(key.replace(".pnet.", f".{method}.")) if ".pnet." in key else None
            if theirs is not None and theirs.value is not None:
                value = goal.value(theirs).value
                other = f"{percent(value) if goal.style == 'percent' else number(value)}, {METHOD_NAMES[method]}"
                break
        bin_ = f" (worst: {key.rpartition('.')[2]})" if goal.bins and entry is not None else ""
        limit = 1.0 if goal.relative else known.limit if known else None
        rows.append(
            {
                "goal": goal.what + bin_,
                "wanted": _bounds(goal),
                "ours (95 %)": with_interval(entry, goal.style),
                "": verdict_,
                "limit": percent(limit) if goal.style == "percent" else number(limit),
                "classical": other,
                "paper": _paper(key, goal.style),
                "n": str(entry.n) if entry else NO_VALUE,
            }
        )
    return pd.DataFrame(rows)


def _bounds(goal: Goal) -> str:
    """Return the bounds of a goal in words."""
    least, most = (f"{100 * value:g}" if goal.style == "percent" else f"{value:g}" for value in (goal.least, goal.most))
    unit = " %" if goal.style == "percent" else ""
    if math.isinf(goal.most):
        return f"≥ {least}{unit}"
    return f"≤ {most}{unit}" if math.isinf(goal.least) else f"{least}–{most}{unit}"


_STYLE = (
    "<style>.pnet-table {overflow-x: auto; margin-bottom: 1rem; font-size: 0.9em} "
    ".pnet-table td, .pnet-table th {padding: 0.2rem 0.45rem; text-align: left; vertical-align: top} "
    # A row's name may be a number or a sentence: neither is broken up small, nor pushes the numbers out of sight.
    ".pnet-table td:first-child {min-width: 9em; max-width: 19em} .pnet-table small {white-space: nowrap}</style>"
)
_INTERVAL = re.compile(r" \(([^()<]* … [^()<]*)\)( %| × 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?")


def to_html(table: pd.DataFrame) -> str:
    """Return a table as HTML for a page: intervals below their value; wider than a phone, it scrolls by itself."""
    if table.empty:
        return "<p>Nothing was measured.</p>"
    text = table.to_html(index=False, border=0, escape=True)
    text = _INTERVAL.sub(lambda found: f"{found[2] or ''}<br><small>{found[1]}</small>", text)
    text = text.replace(" %", "&nbsp;%").replace(" × 10", "&nbsp;×&nbsp;10")
    return f'{_STYLE}<div class="pnet-table">{text}</div>'


def by_radius(rows: Iterable[tuple[str, float, Estimate, Estimate]]) -> pd.DataFrame:
    """Precision and recall for several matching radii; rows of data set, radius in px, precision, recall."""
    shown = []
    for dataset, radius, precision, recall in rows:
        if recall.n:
            row = {"data": DATASET_NAMES[dataset], "radius / px": f"{radius:g}"}
            shown.append(row | {"precision (95 %)": _rate(precision), "recall (95 %)": _rate(recall)})
    return pd.DataFrame(shown)


def _rate(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.2f} ({100 * estimate.low:.2f} … {100 * estimate.high:.2f}) %"
