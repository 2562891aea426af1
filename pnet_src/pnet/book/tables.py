"""Tables of chapters and prose pages: our numbers beside the paper's, networks, run times, the limit."""

import html
import itertools
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

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
from pnet.evaluation.goals import Goal
from pnet.evaluation.ledger import Entry, Ledger, paper_values
from pnet.simulation import recipe
from pnet.sky import limits
from pnet.stars import network as stars

NO_VALUE = "–"
CONFIGURATIONS = ("paper", "compact")  # of the networks that chapters 03 and 04 build
SEEING = 1.4  # arcsec, the middle of the recipe's range; for `limit`
HIGHER_IS_BETTER = ("precision", "recall", "ap", "within")
FRACTIONS = (*HIGHER_IS_BETTER, "eta", "coverage")
CALIBRATED = math.sqrt(math.pi / 2)  # Ē / MAE of Gaussian errors with the right σ

_TABLE_2 = (
    ("η", "eta", "percent"),
    ("σ_NMAD", "sigma_nmad", "number"),
    ("the same, plain", "relative_scatter", "number"),
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
    power = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return _joined(texts) + (f" × 10{power}" if scientific else "")


def percent(value: float | None, digits: int = 2) -> str:
    """Return a fraction of one as a percentage; – for none."""
    return NO_VALUE if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def _styled(value: float | None, style: str, digits: int = 3) -> str:
    return percent(value) if style == "percent" else number(value, digits)


def with_interval(entry: Entry | Estimate | None, style: str = "number") -> str:
    """Return ``value (low … high)``, or the value alone where there is no interval; – for no entry."""
    if entry is None or entry.value is None:
        return NO_VALUE
    values = [entry.value] if entry.low is None or entry.high is None else [entry.value, entry.low, entry.high]
    return f"{_joined([f'{100 * value:.2f}' for value in values])} %" if style == "percent" else _numbers(values, 3)


def _joined(texts: list[str]) -> str:
    return texts[0] + (f" ({' … '.join(texts[1:])})" if texts[1:] else "")


def _paper(key: str, style: str) -> str:
    """Return the paper's value of a key as it would print it."""
    item = paper_values().get(key)
    if item is None:
        return NO_VALUE
    text = _styled(item["value"], style, 4)
    return f"> {text}" if item["relation"] == ">" else text


def table_1(ledger: Ledger) -> pd.DataFrame:
    """Detection results: one row per data set and method, our precision, recall and AP beside the paper's."""
    rows = []
    for dataset, method in itertools.product(DATASET_NAMES, METHOD_NAMES):
        keys = {name: f"{dataset}.{method}.{name}" for name in ("precision", "recall", "ap")}
        # SEP stands in for SExtractor only; a row without any number says nothing
        if not any(key in ledger or key in paper_values() for key in keys.values()):
            continue
        row = {"data": DATASET_NAMES[dataset], "method": METHOD_NAMES[method]}
        for name in ("precision", "recall"):
            row[f"{name} (95 %)"] = with_interval(ledger.get(keys[name]), "percent")
            row[f"paper's {name}"] = _paper(keys[name], "percent")
        row |= {"AP": percent(ledger.value(keys["ap"])), "paper's AP": _paper(keys["ap"], "percent")}
        rows.append(row | {"stars": _stars(ledger.get(keys["recall"]))})
    return pd.DataFrame(rows)


def _stars(entry: Entry | None) -> str:
    return str(entry.n) if entry else NO_VALUE


def table_2(ledger: Ledger) -> pd.DataFrame:
    """Photometric uncertainty of PNet: one row per criterion, both data sets, ours beside the paper's."""
    rows = [{"": title} for title, _, _ in _TABLE_2] + [{"": "stars"}]
    for dataset, label in DATASET_NAMES.items():
        ours, theirs = f"{label}, ours (95 %)", f"{label}, paper"
        for row, (_, name, style) in zip(rows, _TABLE_2, strict=False):
            key = f"{dataset}.pnet.{name}"
            row[ours] = with_interval(ledger.get(key), style)
            row[theirs] = percent(paper_values()[key]["value"], 4) if style == "percent" else _paper(key, "")
        rows[-1][ours] = _stars(ledger.get(f"{dataset}.pnet.mae"))
        rows[-1][theirs] = f"{paper_values()['paper.targets']['value']} in all"
    return pd.DataFrame(rows)


def verdict(entry: Entry) -> str:
    """Return how a number compares with the paper's: better, worse, or within our 95 % interval."""
    if entry.paper is None or entry.value is None:
        return NO_VALUE
    if paper_values().get(entry.key, {}).get("relation") == ">" and entry.value > entry.paper:
        return "agrees"  # the paper states a bound, so nobody knows which of the two is better
    if entry.low is not None and entry.high is not None and entry.low <= entry.paper <= entry.high:
        return "within interval"
    name = entry.key.split(".", 2)[-1].removeprefix("net_")
    better = (entry.value > entry.paper) == name.startswith(HIGHER_IS_BETTER)
    if name.startswith("e_bar_over_mae"):  # neither small nor large is good: 1.25 is
        better = abs(entry.value - CALIBRATED) < abs(entry.paper - CALIBRATED)
    return "better" if better else "worse"


def scorecard(ledger: Ledger, keys: Iterable[str]) -> pd.DataFrame:
    """One row per key that the ledger holds: ours with interval, the paper's, how they compare, the limit."""
    rows = []
    for entry in filter(None, map(ledger.get, keys)):
        dataset, method, name = entry.key.split(".", 2)
        style = "percent" if name.removeprefix("net_").startswith(FRACTIONS) else "number"
        row = {"data, method": f"{DATASET_NAMES.get(dataset, dataset)}, {METHOD_NAMES.get(method, method)}"}
        row["what"] = entry.title + (f" / {entry.unit}" if entry.unit else "")
        row |= {"ours (95 %)": with_interval(entry, style), "paper": _paper(entry.key, style)}
        row |= {"vs paper": verdict(entry), "limit": _styled(entry.limit, style)}
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
    for low, high, name in scores.ranges():
        found = {heading: ledger.get(f"{key}.{name}") for heading, key in columns.items()}
        if any(found.values()):
            rows.append({"mag": f"{low:g}–{high:g}"} | {heading: with_interval(one) for heading, one in found.items()})
    return pd.DataFrame(rows)


def over_limit(ledger: Ledger, columns: dict[str, str]) -> pd.DataFrame:
    """Scatter over limit by magnitude bin, robust and plain (standard deviation), two columns for each series.

    `columns` are those of `by_magnitude`, with keys such as ``simulation.pnet.mag_over_limit``.
    """
    both = {}
    for heading, key in columns.items():
        both |= {heading: key, f"{heading} (plain)": key.replace("_over_limit", "_over_limit_plain")}
    return by_magnitude(ledger, both)


def goals(ledger: Ledger, wanted: Iterable[Goal]) -> pd.DataFrame:
    """One row per goal (`goals.load`): what is wanted, the paper's value, ours with interval, the limit, and whether it
    is reached. Of a goal for every bin the bin farthest from it is shown.
    """
    rows = []
    for goal in wanted:
        entry, verdict_ = goal.decide(ledger)
        key = goal.key if entry is None else entry.key
        known = ledger.get(key)
        other = NO_VALUE
        for method in ("sextractor", "psfex"):  # the last that was run, the better one, stands beside ours
            theirs = ledger.get(key.replace(".pnet.", f".{method}.")) if ".pnet." in key else None
            if theirs is not None and theirs.value is not None:
                other = f"{_styled(goal.value(theirs).value, goal.style)}, {METHOD_NAMES[method]}"
        bin_ = f" (worst: {key.rpartition('.')[2]})" if goal.bins and entry is not None else ""
        limit = 1.0 if goal.relative else known.limit if known else None
        row = {"goal": goal.what + bin_, "wanted": goal.wanted, "ours (95 %)": with_interval(entry, goal.style)}
        row |= {"": verdict_, "limit": _styled(limit, goal.style), "classical": other}
        rows.append(row | {"paper": _paper(key, goal.style), "n": _stars(entry)})
    return pd.DataFrame(rows)


_INTERVAL = re.compile(r" \(([^()<]* … [^()<]*)\)( %| × 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?")


def to_html(table: pd.DataFrame) -> str:
    """Return a table as HTML for a page: intervals below their value; wider than a phone, it scrolls by itself."""
    if table.empty:
        return "<p>Nothing was measured.</p>"
    styler = table.style.hide(axis="index").format(_cell).format_index(_cell, axis=1)
    text = styler.to_html(exclude_styles=True).replace("<table>", '<table class="dataframe">')
    return f'<div class="pnet-table">\n{text}</div>\n'


def _cell(value: object) -> str:
    text = html.escape(str(value))
    text = _INTERVAL.sub(lambda found: f"{found[2] or ''}<br><small>{found[1]}</small>", text)
    return text.replace(" %", "&nbsp;%").replace(" × 10", "&nbsp;×&nbsp;10")


def by_radius(rows: Iterable[tuple[str, float, Estimate, Estimate]]) -> pd.DataFrame:
    """Precision and recall for several matching radii; rows of data set, radius in px, precision, recall."""
    return pd.DataFrame(
        (DATASET_NAMES[dataset], f"{radius:g}", with_interval(precision, "percent"), with_interval(recall, "percent"))
        for dataset, radius, precision, recall in rows
        if recall.n
    ).rename(columns=dict(enumerate(("data", "radius / px", "precision (95 %)", "recall (95 %)"))))


def network_parts(kind: str) -> pd.DataFrame:
    """Return the parts of the networks that chapters 03 and 04 build, one column a configuration.

    Parameters
    ----------
    kind : {"detection", "bpnn"}
    """
    describe = {"detection": _detection_parts, "bpnn": _bpnn_parts}[kind]
    return pd.DataFrame({name: describe(name) for name in CONFIGURATIONS}).rename_axis("part").reset_index()


def _detection_parts(name: str) -> dict[str, str]:
    config = detection.CONFIGS[name]
    with torch.device("meta"):  # shapes without memory: the paper's net has tens of millions of weights
        model = detection.PhotometryDetectionNet(config)
    hourglasses = _weights(model.hourglasses, model.features, model.merges)
    return {
        "input": config.inputs,
        "Downsample": f"7×7 → {config.stem}, residual → {config.channels[0]}: {_weights(model.downsample)}",
        "Extractor": f"{config.stacks} hourglasses {'-'.join(map(str, config.channels))}: {hourglasses}",
        "PreHeads": f"4 heads × {config.stacks} stacks, {config.head} channels: {_weights(model.preheads)}",
        "flux head": {"log": "ln flux", "correction": "ln of flux over aperture flux"}[config.flux],
        "all weights": _weights(model),
    }


def _bpnn_parts(name: str) -> dict[str, str]:
    config = stars.CONFIGS[name]
    model = stars.BayesianPhotometryNet(config)
    outputs = 2 * len(config.targets)  # mean and ln σ of each
    widths = zip(config.blocks, config.widths, strict=True)
    blocks = ", ".join(f"{n} × {width * stars.EXPANSION}" for n, width in widths)
    return {
        "stamp": f"{config.stamp} × {config.stamp} px",
        "Feature Extraction Layer": f"bottleneck blocks {blocks}: {_weights(model.stem, model.stages)}",
        "frame's PSF and classical measurements": "given" if config.context else "not given",
        "Bayesian Layer (flipout)": f"{'-'.join(map(str, (*config.hidden, outputs)))}: {_weights(model.head)}",
        "prior of a weight": f"N(0, {config.prior_sigma:g})",
        "magnitude": {"magnitude": "from nothing", "correction": "corrects an aperture's"}[config.target],
        "targets": ", ".join(config.targets),
        "all weights": _weights(model),
    }


def _weights(*modules: nn.Module) -> str:
    """Return the number of trained values in modules, as text."""
    return f"{sum(parameter.numel() for module in modules for parameter in module.parameters()):,}"


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
        seconds = card.get("seconds")
        seconds = seconds.get("total") if isinstance(seconds, dict) else seconds
        name = path.relative_to(paths.ROOT).with_suffix("").as_posix()
        row = {"file": name, "time": "" if seconds is None else duration(seconds), "device": card.get("device", "")}
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
