"""Tables of chapters and prose pages: our numbers beside the paper's, networks, run times, the limit."""

import html
import itertools
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from pnet.book.figures.style import DATASET_NAMES, METHOD_NAMES
from pnet.common import paths, provenance
from pnet.common.errors import DataError
from pnet.common.files import read_json
from pnet.common.metrics import Estimate
from pnet.detection import network as detection
from pnet.evaluation import scores
from pnet.evaluation.goals import CLASSICAL, Claim, Goal
from pnet.evaluation.ledger import Entry, Ledger, of_paper, paper_values
from pnet.simulation import recipe
from pnet.sky import limits
from pnet.stars import network as stars

NO_VALUE = "–"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
CONFIGURATIONS = ("paper", "compact")  # of the networks that chapters 03 and 04 build
SEEING = 1.4  # arcsec, the middle of the recipe's range; for `limit`
HIGHER_IS_BETTER = ("precision", "recall", "ap", "within")
FRACTIONS = (*HIGHER_IS_BETTER, "eta", "coverage")
CALIBRATED = math.sqrt(math.pi / 2)  # Ē / MAE of Gaussian errors with the right σ

_TABLE_2 = {
    "η": "eta",
    "σ_NMAD": "sigma_nmad",
    "the same, plain": "relative_scatter",
    "MAE / mag": "mae",
    "Ē / mag": "e_bar",
    "Ē / MAE": "e_bar_over_mae",
    "stars": "mae",
}


def text(what: Entry | Estimate | float | None, style: str = "number", digits: int | None = None) -> str:
    """Return a number as tables show it, an entry or estimate with its interval, ``value (low … high)``; – for none.

    Parameters
    ----------
    style : {"number", "percent"}
        Significant digits, as 2.1 × 10⁻³ below 0.01; or a fraction of one as a percentage.
    digits : int, optional
        Significant ones of a number, by default 3, or decimals of a percentage, by default 2.
    """
    value, *ends = (what.value, what.low, what.high) if isinstance(what, Entry | Estimate) else (what,)
    if value is None or not math.isfinite(value):
        return NO_VALUE
    values = [value] if None in ends else [value, *ends]
    if style == "percent":
        texts, unit = [f"{100 * value:.{2 if digits is None else digits}f}" for value in values], " %"
    else:
        exponent = math.floor(math.log10(abs(value))) if value else 0
        power = exponent if exponent < -2 else 0
        decimals = max(0, (digits or 3) - 1 - exponent + power)
        texts = [f"{value / 10**power:.{decimals}f}" for value in values]
        unit = " × 10" + str(power).translate(SUPERSCRIPTS) if power else ""
    interval = f" ({' … '.join(texts[1:])})" if texts[1:] else ""
    return (texts[0] + interval).replace("-", "−") + unit


def _paper(key: str, style: str, decimals: int = 2) -> str:
    """Return the paper's value of a key as it would print it, a percentage with `decimals`."""
    paper = of_paper(key)
    bound = "> " if paper.get("relation") == ">" else ""
    return bound + text(paper.get("value"), style, decimals if style == "percent" else 4)


def _style(name: str) -> str:
    """Return the style in which a key without data set and method is shown, see `text`."""
    return "percent" if name.removeprefix("det_").startswith(FRACTIONS) else "number"


def _stars(entry: Entry | None) -> str:
    return str(entry.n) if entry else NO_VALUE


def table_1(ledger: Ledger) -> pd.DataFrame:
    """Detection results: one row per data set and method, our precision, recall and AP beside the paper's."""
    rows = []
    for (dataset, data), (method, label) in itertools.product(DATASET_NAMES.items(), METHOD_NAMES.items()):
        precision, recall, ap = keys = [f"{dataset}.{method}.{name}" for name in ("precision", "recall", "ap")]
        # SEP stands in for SExtractor only; a row without any number says nothing
        if not any(key in ledger or key in paper_values() for key in keys):
            continue
        row = {"data": data, "method": label}
        for name, key in (("precision", precision), ("recall", recall)):
            row |= {f"{name} (95 %)": text(ledger.get(key), "percent"), f"paper's {name}": _paper(key, "percent")}
        row |= {"AP": text(ledger.value(ap), "percent"), "paper's AP": _paper(ap, "percent")}
        rows.append(row | {"stars": _stars(ledger.get(recall))})
    return pd.DataFrame(rows)


def table_2(ledger: Ledger) -> pd.DataFrame:
    """Photometric uncertainty: one row per criterion and data set, the paper's number, that of its networks as trained
    here, ours, and what measurements at the limit would have."""
    rows = []
    for dataset, (title, name) in itertools.product(DATASET_NAMES, _TABLE_2.items()):
        theirs, ours = (ledger.get(f"{dataset}.{method}.{name}") for method in ("pnet_paper", "pnet"))
        if title == "stars":
            numbers = f"{paper_values()['paper.targets']['value']} in all", _stars(theirs), _stars(ours), NO_VALUE
        else:
            style = _style(name)
            limit = text(ours.limit if ours else None, style)
            numbers = _paper(f"{dataset}.pnet.{name}", style, 4), text(theirs, style), text(ours, style), limit
        heads = ("the paper", "its networks, trained here (95 %)", "ours (95 %)", "limit")
        rows.append({"data": DATASET_NAMES[dataset], "": title} | dict(zip(heads, numbers, strict=True)))
    return pd.DataFrame(rows)


def verdict(entry: Entry) -> str:
    """Return how a number compares with the paper's: better, worse, or within our 95 % interval."""
    if entry.paper is None or entry.value is None:
        return NO_VALUE
    if of_paper(entry.key).get("relation") == ">" and entry.value > entry.paper:
        return "agrees"  # the paper states a bound, so nobody knows which of the two is better
    if entry.low is not None and entry.high is not None and entry.low <= entry.paper <= entry.high:
        return "within interval"
    name = entry.key.split(".", 2)[-1].removeprefix("det_")
    better = (entry.value > entry.paper) == name.startswith(HIGHER_IS_BETTER)
    if name.startswith("e_bar_over_mae"):  # neither small nor large is good: 1.25 is
        better = abs(entry.value - CALIBRATED) < abs(entry.paper - CALIBRATED)
    return "better" if better else "worse"


def scorecard(ledger: Ledger, keys: Iterable[str]) -> pd.DataFrame:
    """One row per key that the ledger holds: ours with interval, the paper's, how they compare, the limit."""
    rows = []
    for entry in filter(None, map(ledger.get, keys)):
        dataset, method, name = entry.key.split(".", 2)
        style = _style(name)
        row = {"data, method": f"{DATASET_NAMES.get(dataset, dataset)}, {METHOD_NAMES.get(method, method)}"}
        row["what"] = entry.title + (f" / {entry.unit}" if entry.unit else "")
        row |= {"ours (95 %)": text(entry, style), "paper": _paper(entry.key, style)}
        row |= {"vs paper": verdict(entry), "limit": text(entry.limit, style)}
        rows.append(row | {"n": str(entry.n), "source": entry.source})
    card = pd.DataFrame(rows)
    # a column that says "live" in every row would only make the table wider
    return card.drop(columns="source") if rows and (card["source"] == "live").all() else card


def by_magnitude(ledger: Ledger, columns: dict[str, str]) -> pd.DataFrame:
    """Numbers by magnitude bin, one column for each series.

    `columns` maps headings to keys without the bin, such as ``simulation.pnet.x_pull``; series that the ledger lacks
    are left out.
    """
    columns = {heading: key for heading, key in columns.items() if ledger.find(f"{key}.*")}
    rows = []
    for name, (low, high) in scores.RANGES.items():
        found = {heading: ledger.get(f"{key}.{name}") for heading, key in columns.items()}
        if any(found.values()):
            rows.append({"mag": f"{low:g}–{high:g}"} | {heading: text(one) for heading, one in found.items()})
    return pd.DataFrame(rows)


def over_limit(ledger: Ledger, columns: dict[str, str]) -> pd.DataFrame:
    """Scatter over limit by magnitude bin, robust and plain (standard deviation), two columns for each series.

    `columns` are those of `by_magnitude`, with keys such as ``simulation.pnet.mag_over_limit``.
    """
    kinds = {"": "_over_limit", " (plain)": "_over_limit_plain"}
    both = itertools.product(columns.items(), kinds.items())
    return by_magnitude(ledger, {h + word: key.replace("_over_limit", kind) for (h, key), (word, kind) in both})


def goals(ledger: Ledger, wanted: Iterable[Goal]) -> pd.DataFrame:
    """One row per goal (`goals.Goal`): what is wanted, the paper's value, ours with interval, the limit, and whether it
    is reached. Of a goal for every bin the bin farthest from it is shown.
    """
    rows = []
    for goal in wanted:
        entry, decided = goal.decide(ledger)
        key = goal.key if entry is None else entry.key
        known = ledger.get(key)
        # the better one of those that were run stands beside ours
        others = ((METHOD_NAMES[name], ledger.get(key.replace(".pnet.", f".{name}."))) for name in CLASSICAL)
        run = (f"{text(goal.value(one).value, goal.style)}, {name}" for name, one in others if one and one.key != key)
        worst = f" (worst: {key.rpartition('.')[2]})" if goal.bins and entry is not None else ""
        limit = 1.0 if goal.relative else known.limit if known else None
        row = {"goal": goal.what + worst, "wanted": goal.wanted, "ours (95 %)": text(entry, goal.style)}
        row |= {"": decided, "limit": text(limit, goal.style), "classical": next(run, NO_VALUE)}
        rows.append(row | {"paper": _paper(key, goal.style), "n": _stars(entry)})
    return pd.DataFrame(rows)


def claims(ledger: Ledger, stated: Iterable[Claim]) -> pd.DataFrame:
    """One row per claim of the paper (`goals.Claim`) with its verdict; the claim leads to the chapter that shows it."""
    rows = []
    for claim in stated:
        entry, decided = claim.decide(ledger)
        asked, other = _paper(claim.ours, claim.style), ledger.get(claim.more_than or claim.less_than)
        if other:  # a comparison: what it is compared with
            asked = f"{'>' if claim.more_than else '<'} {text(other.value, claim.style)}"
        where = claim.where if claim.why or asked == NO_VALUE else f"{asked}, {claim.where}"
        why = f" (here: {claim.why})" if claim.why else ""
        row = {"claim": Link(claim.what, claim.page), "the paper": where + why}
        row |= {"its networks, trained here": text(entry, claim.style)}
        rows.append(row | {"ours": text(ledger.get(claim.ours), claim.style), "verdict": decided})
    return pd.DataFrame(rows)


_INTERVAL = re.compile(r" \(([^()<]* … [^()<]*)\)( %| × 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?")


def to_html(table: pd.DataFrame) -> str:
    """Return a table as HTML for a page: intervals below their value; wider than a phone, it scrolls by itself."""
    if table.empty:
        return "<p>Nothing was measured.</p>"
    styler = table.style.hide(axis="index").format(_cell).format_index(_cell, axis=1)
    body = styler.to_html(exclude_styles=True).replace("<table>", '<table class="dataframe">')
    return f'<div class="pnet-table">\n{body}</div>\n'


class Link(NamedTuple):
    """A cell that leads to another chapter, by its stem."""

    text: str
    page: str


def _cell(value: object) -> str:
    if isinstance(value, Link):
        return f'<a href="{value.page}.html">{_cell(value.text)}</a>'
    cell = _INTERVAL.sub(lambda found: f"{found[2] or ''}<br><small>{found[1]}</small>", html.escape(str(value)))
    return cell.replace(" %", "&nbsp;%").replace(" × 10", "&nbsp;×&nbsp;10")


def network_parts(kind: str) -> pd.DataFrame:
    """Return the settings and the number of weights of each part of the networks that chapters 03 ("detection") and 04
    ("bpnn") build, one column a configuration."""
    configs, build = {
        "detection": (detection.CONFIGS, detection.PhotometryDetectionNet),
        "bpnn": (stars.CONFIGS, stars.BayesianPhotometryNet),
    }[kind]
    columns = {}
    for name in CONFIGURATIONS:
        with torch.device("meta"):  # shapes without memory: the paper's nets have tens of millions of weights
            model = build(configs[name])
        settings = {setting.replace("_", " "): _setting(value) for setting, value in asdict(configs[name]).items()}
        parts = {f"weights of {part}": _weights(module) for part, module in model.named_children()}
        columns[name] = settings | parts | {"all weights": _weights(model)}
    return pd.DataFrame(columns).rename_axis("part").reset_index()


def _setting(value: object) -> str:
    """Return a field of a configuration as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _weights(module: nn.Module) -> str:
    """Return the number of trained values in a module, as text."""
    return f"{sum(parameter.numel() for parameter in module.parameters()):,}"


def run_times(output: Path) -> str:
    """Return what each step of this build took, from the records that Snakemake's benchmarks left."""
    rows, total = [], 0.0
    for path in sorted((output / "benchmarks").glob("*.tsv")):
        try:
            spent = pd.read_csv(path, sep="\t", na_values="-")[["s", "cpu_time", "max_rss"]]
            seconds, cpu, memory = spent.iloc[-1].astype(float)
        except (ValueError, KeyError, IndexError) as error:
            raise DataError(f"{path}: not a record of a step's time ({error!r}); delete it") from error
        total += seconds
        row = {"step": path.stem, "wall clock": duration(seconds), "processor time": duration(cpu)}
        rows.append(row | {"memory": NO_VALUE if math.isnan(memory) else f"{memory / 1024:.1f} GiB"})
    if not rows:
        return "No step of this build has left a record of its time.\n"
    rows.append({"step": "all, one after the other", "wall clock": duration(total)})
    machine = provenance.machine()
    return f"{to_html(pd.DataFrame(rows).fillna(''))}\nMachine: {machine['cpu']}, {machine['cores']} cores.\n"


def released(output: Path) -> str:
    """Return when, where and with which commands the released weights and measurements were made."""
    rows, commands = [], []
    for path in sorted(paths.WEIGHTS.glob("*.json")) + sorted((paths.RESULTS / "measurements").glob("*.json")):
        card = read_json(path)
        name = path.relative_to(paths.ROOT).with_suffix("").as_posix()
        time = duration(card["seconds"]) if "seconds" in card else ""
        row = {"file": name, "time": time, "device": card.get("device", "")}
        rows.append(row | {key: str(card.get(key, ""))[:10] for key in ("date", "commit")})
        commands += [f"# {name}\n{card['command']}"] if card.get("command") else []
    if not rows:
        return "Nothing is released with this copy of the project.\n"
    return f"{to_html(pd.DataFrame(rows))}\n```bash\n" + "\n\n".join(commands) + "\n```\n"


def duration(seconds: float) -> str:
    """Return a time as a person would say it: ``42 s``, ``3.5 min``, ``2.1 h``; – for one that is not known."""
    if math.isnan(seconds):
        return NO_VALUE
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def limit(output: Path) -> str:
    """Return the Cramér-Rao bound by magnitude: the recipe's mean sky, the third camera column's gain."""
    fields = recipe.Recipe.load()
    noise = float(np.mean(fields.read_noise))
    conditions = recipe.Conditions(SEEING, fields.sky_mag[0], fields.gain[2], noise)
    light = limits.simulated(SEEING, fields.pixel_scale)
    # averaged over where in a pixel the star lies
    phase = (np.arange(4) + 0.5) / 4
    x, y = (grid.ravel() for grid in np.meshgrid(phase, phase))
    rows = []
    for magnitude in range(13, 21):
        flux = np.full(x.shape, float(conditions.flux(magnitude)))
        bound = limits.bound(light, x, y, flux, conditions.sky, conditions.read_noise)
        mag, position = (float(np.sqrt(np.mean(bound[name] ** 2))) for name in ("limit_mag", "limit_x"))
        row = {"magnitude (g)": magnitude, "electrons": f"{flux[0]:,.0f}", "magnitude error (mag)": f"{mag:.4f}"}
        row["position error (px)"] = f"{position:.4f}"
        rows.append(row | {"position error (mas)": f"{1000 * position * fields.pixel_scale:.1f}"})
    return (
        f"{to_html(pd.DataFrame(rows))}\nSeeing {SEEING} arcsec, sky {conditions.sky:.0f} e⁻ a pixel, gain "
        f"{conditions.gain} e⁻/ADU, read noise {noise:g} e⁻, PSF, its width and the sky known, saturation left out.\n"
    )


# What prose pages of the book include, computed when the site is put together.
PAGES: dict[str, Callable[[Path], str]] = {"run_times": run_times, "released": released, "limit": limit}
