"""Precision and recall: Figure 6, fields with galaxies, and what a confidence is worth."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import style
from pnet.book.figures.style import DATASET_NAMES, METHOD_NAMES
from pnet.common import metrics
from pnet.common.metrics import Estimate
from pnet.evaluation import scores
from pnet.evaluation.confidence import Reliability
from pnet.evaluation.measurements import THRESHOLDS
from pnet.stars.confidence import Calibration

STEPS = np.linspace(0.01, 0.99, 99)
SERIES = (("as the network says", "purple", "o"), ("calibrated", "pnet", "s"))  # of a reliability diagram


@style.styled
def figure_6(table: pd.DataFrame, method: str = "pnet") -> Figure:
    """Draw panels a to d: SDSS left, simulation right; threshold sweep above, precision-recall curve below.

    `table` holds measurements (`measurements.COLUMNS`) of the `method`, a network, and, where run, a baseline, on one
    or both data sets.
    """
    figure, axes = style.new(2, 2, height=6.6)
    for (above, below), dataset, letters in zip(axes.T, ("sdss", "simulation"), ("ac", "bd"), strict=True):
        rows, baseline = scores.rows(table, dataset, method), scores.baseline_of(table, dataset)
        classical = scores.working(table, dataset, baseline) if baseline else None
        sweep(above, rows, title=f"({letters[0]}) {DATASET_NAMES[dataset]}")
        curve(below, rows, classical, title=f"({letters[1]}) {DATASET_NAMES[dataset]}")
    return figure


def _rates(ax: Axes, thresholds: np.ndarray, precision: Sequence[Estimate], recall: Sequence[Estimate]) -> None:
    """Draw precision and recall with their intervals against the threshold of the confidence."""
    series = ("precision", precision, "pnet", "-"), ("recall", recall, "purple", "--")
    for name, rates, colour, line in series:
        value, (down, up) = style.intervals(rates)
        ax.fill_between(thresholds, value - down, value + up, color=style.COLOURS[colour], alpha=0.2, linewidth=0)
        ax.plot(thresholds, value, line, color=style.COLOURS[colour], label=name)
    ax.set(xlim=(0, 1), xlabel="confidence threshold", ylabel="precision, recall")


def _cut(ax: Axes, at: float, **options) -> None:
    """Draw the dashed line of a threshold; `options` are those of `Axes.axvline`."""
    ax.axvline(at, **{"color": style.COLOURS["paper"], "linestyle": style.DASHED, "linewidth": 1.3, **options})


@style.panel
def sweep(ax: Axes, rows: pd.DataFrame) -> str:
    """Precision and recall of one method's rows against the threshold, with Wilson bands."""
    true, false, n = scores.curve_input(rows)
    above = [(int((true >= step).sum()), int((false >= step).sum())) for step in STEPS]
    _rates(ax, STEPS, [metrics.rate(t, t + f) for t, f in above], [metrics.rate(t, n) for t, _ in above])
    _cut(ax, THRESHOLDS["pnet"])
    text = {"rotation": 90, "ha": "right", "va": "center", "fontsize": 9.5, "color": style.COLOURS["paper"]}
    ax.text(THRESHOLDS["pnet"] - 0.02, 0.5, f"threshold {THRESHOLDS['pnet']:g}", **text)
    ax.set_ylim(-0.02, 1.03)
    ax.legend(loc="lower left", bbox_to_anchor=(0.3, 0.0))
    return f", {n} stars"


@style.panel
def curve(ax: Axes, rows: pd.DataFrame, classical: pd.DataFrame | None) -> str:
    """Precision against recall; the region that the threshold keeps in green; the corner enlarged, with the point of a
    baseline's rows."""
    true, false, n = scores.curve_input(rows)
    if true.size + false.size == 0:
        style.empty(ax, "", "no detections")
        return ""
    precision, recall, thresholds = metrics.precision_recall_curve(true, false, n)
    held = int((thresholds >= THRESHOLDS["pnet"]).sum())
    ends = [recall[held - 1] if held else recall[-1], precision.min()]
    # from a recall of 0, where the precision is that of the most confident detection
    x, y = np.concatenate([[0], recall]), np.concatenate([precision[:1], precision])
    inset = ax.inset_axes((0.3, 0.15, 0.58, 0.5))
    point = {} if classical is None else dict(zip(("y", "x"), scores.rates(classical), strict=True))
    if point and point["x"].n and point["y"].n:
        ends += [point["x"].low, point["y"].low]
    for panel in (ax, inset):
        panel.plot(x, y, color=style.COLOURS["purple"])
        if held:
            kept = slice(held + 1)
            panel.fill_between(x[kept], 0, y[kept], color=style.COLOURS["truth"], alpha=0.3, linewidth=0)
            for edge in (0, x[held]):
                _cut(panel, edge)
        if len(ends) > 2:
            method = classical["method"].iloc[0]
            look = {"fmt": "D", "capsize": 0, "zorder": 4, "color": style.COLOURS[method]}
            across = style.intervals([point["x"]])[1]
            style.estimates(panel, [point["x"].value], [point["y"]], xerr=across, label=METHOD_NAMES[method], **look)
    if classical is not None:
        ax.legend(loc="upper left", bbox_to_anchor=(0.04, 0.88))
    ax.set(xlim=(-0.02, 1.02), ylim=(0, 1.03), xlabel="recall", ylabel="precision")
    # the corner is enlarged until what matters fills it
    low = np.clip(np.floor((min(ends) - 0.02) * 50) / 50, 0.0, 0.98)
    corner = (low, 1 + 0.04 * (1 - low))
    inset.set(xlim=corner, ylim=corner, xticks=[low, 1], yticks=[low, 1])
    inset.tick_params(labelsize=9)
    inset.set_title("upper right corner", fontsize=9, pad=3)
    return f", AP {100 * metrics.average_precision(precision, recall):.2f} %"


@style.styled
def galaxies(table: pd.DataFrame, chosen: float | None, goals: tuple[float, float]) -> Figure:
    """Draw precision and recall against the threshold on fields with galaxies.

    `table` is from `pnet.evaluation.detections.sweep`, `chosen` the threshold chosen on validation frames, where there
    is one, and `goals` are the wanted precision and recall.
    """
    figure, [[ax]] = style.new(1, 1, height=4.2)
    if table.empty or not any(rate.n for rate in table["precision"]):
        style.empty(ax, "frames with galaxies")
        return figure
    _rates(ax, table.index, table["precision"], table["recall"])
    for goal, colour in zip(goals, ("pnet", "purple"), strict=True):
        ax.axhline(goal, color=style.COLOURS[colour], linestyle=":", linewidth=1.2, label=f"goal: {100 * goal:g} %")
    # beyond 0.9 hardly anything is left, and what is left would flatten the rest
    shown = table.loc[table.index <= 0.9, ["precision", "recall"]]
    lowest = np.nanmin([rate.low for rate in shown.to_numpy().flat])
    bottom = max(0.0, np.floor(20 * lowest) / 20)
    for position, text in ((0.3, "0.3"), (chosen, "chosen on\nvalidation frames")):
        if position is not None:
            _cut(ax, position, linewidth=1.2)
            ax.text(position + 0.01, bottom + 0.35 * (1 - bottom), text, fontsize=9, color=style.COLOURS["paper"])
    ax.set(ylim=(bottom, 1 + 0.03 * (1 - bottom)), title="frames with galaxies and faint stars")
    ax.legend(loc="lower left", fontsize=9, ncols=2)
    return figure


@style.styled
def reliability(
    pairs: dict[str, tuple[Reliability, Reliability | None]], calibration: Calibration | None = None
) -> Figure:
    """Draw one reliability diagram per data set, before and, where there is one, after the calibration.

    Parameters
    ----------
    pairs : dict
        Title → reliability of the confidence and of the probability made of it (None without a calibration).
    calibration : Calibration, optional
        Drawn as a line: the probability that it gives to each confidence.
    """
    figure, axes = style.new(1, max(len(pairs), 1), height=4.8, sharey=True)
    if not pairs:
        style.empty(axes[0, 0], "confidence")
        return figure
    for ax, (title, pair) in zip(axes[0], pairs.items(), strict=True):
        ax.plot([0, 1], [0, 1], color=style.COLOURS["limit"], linewidth=1.2, label="what it should be")
        if calibration is not None:
            confidence = np.linspace(0.01, 0.999, 200)
            line = {"linewidth": 1.4, "label": "the map fitted to validation frames"}
            ax.plot(confidence, calibration.apply(confidence), ":", color=style.COLOURS["purple"], **line)
        for result, (label, colour, marker) in zip(pair, SERIES, strict=True):
            if result is not None and len(table := result.table):
                look = {"color": style.COLOURS[colour], "fmt": marker, "linewidth": 0, "label": label}
                style.estimates(ax, table["mean"], table["share"], **look)
                few = [(mean, share.value) for mean, share in table.to_numpy() if share.n < 5]  # are hollow
                look = {"color": style.COLOURS[colour], "markerfacecolor": "white", "markersize": 5, "zorder": 3}
                ax.plot(*np.reshape(few, (-1, 2)).T, marker, **look)
        errors = " → ".join(f"{result.error.value:.3f}" for result in pair if result is not None)
        ax.set_title(f"{title}\n{pair[0].error.n} detections\ncalibration error {errors}", fontsize=10)
        ax.set(xlim=(0, 1.02), ylim=(0, 1.03), xlabel="mean confidence or probability")
    axes[0, 0].set_ylabel("share of stars")
    style.legend_below(figure, axes, ncols=2)
    return figure
