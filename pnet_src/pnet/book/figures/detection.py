"""Figure 6: precision and recall against the confidence threshold, and the precision-recall curve."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import style
from pnet.common import metrics
from pnet.evaluation import scores
from pnet.evaluation.measurements import THRESHOLDS
from pnet.sky import matching

_LINE_LABEL = {"rotation": 90, "ha": "right", "va": "center", "fontsize": 9.5, "color": style.COLOURS["paper"]}
STEPS = np.linspace(0.01, 0.99, 99)


@style.styled
def figure_6(table: pd.DataFrame) -> Figure:
    """Draw panels a to d: SDSS left, simulation right; threshold sweep above, precision-recall curve below.

    Parameters
    ----------
    table : DataFrame
        Measurements of PNet and, where run, a baseline (`pnet.evaluation.measurements.COLUMNS`) on one or both data
        sets.
    """
    figure, axes = style.new(2, 2, height=6.6)
    for column, dataset in enumerate(("sdss", "simulation")):
        rows = table[(table["dataset"] == dataset) & (table["method"] == "pnet")]
        titles = [f"({letter}) {style.DATASETS[dataset]}" for letter in ("ac" if column == 0 else "bd")]
        if rows.empty:
            for ax, title in zip(axes[:, column], titles, strict=True):
                style.empty(ax, title)
            continue
        _sweep(axes[0, column], rows, titles[0])
        _curve(axes[1, column], rows, titles[1], table[table["dataset"] == dataset])
    return figure


def _sweep(ax: Axes, rows: pd.DataFrame, title: str) -> None:
    """Precision and recall against the threshold, with Wilson bands."""
    true, false, n = scores.curve_input(rows)
    above = [((true >= t).sum(), (false >= t).sum()) for t in STEPS]
    precision = [metrics.precision(int(t), int(f)) for t, f in above]
    recall = [metrics.recall(int(t), n - int(t)) for t, _ in above]
    for label, colour, line, estimates in (
        ("precision", style.COLOURS["pnet"], "-", precision),
        ("recall", style.COLOURS["purple"], "--", recall),
    ):
        value, low, high = (np.array([getattr(e, name) for e in estimates]) for name in ("value", "low", "high"))
        ax.fill_between(STEPS, low, high, color=colour, alpha=0.2, linewidth=0)
        ax.plot(STEPS, value, line, color=colour, label=label)
    ax.axvline(THRESHOLDS["pnet"], color=style.COLOURS["paper"], linestyle=(0, (4, 3)), linewidth=1.4)
    ax.text(THRESHOLDS["pnet"] - 0.02, 0.5, f"threshold {THRESHOLDS['pnet']:g}", **_LINE_LABEL)
    ax.set(xlim=(0, 1), ylim=(-0.02, 1.03), xlabel="confidence threshold", ylabel="precision, recall")
    ax.set_title(f"{title}, {n} stars")
    ax.legend(loc="lower left", bbox_to_anchor=(0.3, 0.0))


def _curve(ax: Axes, rows: pd.DataFrame, title: str, everything: pd.DataFrame) -> None:
    """Precision against recall; the region that threshold 0.3 keeps in green; the corner enlarged."""
    true, false, n = scores.curve_input(rows)
    precision, recall, thresholds = metrics.precision_recall_curve(true, false, n)
    if thresholds.size == 0:
        style.empty(ax, title, "no detections")
        return
    kept = thresholds >= THRESHOLDS["pnet"]
    ap = metrics.average_precision(precision, recall)
    inset = ax.inset_axes((0.3, 0.15, 0.58, 0.5))
    for panel in (ax, inset):
        panel.plot(
            np.concatenate([[0], recall]), np.concatenate([precision[:1], precision]), color=style.COLOURS["purple"]
        )
        if kept.any():
            edge = recall[kept][-1]
            panel.fill_between(
                np.concatenate([[0], recall[kept]]),
                0,
                np.concatenate([precision[:1], precision[kept]]),
                color=style.COLOURS["truth"],
                alpha=0.3,
                linewidth=0,
            )
            for position in (0, edge):
                panel.axvline(position, color=style.COLOURS["paper"], linestyle=(0, (4, 3)), linewidth=1.2)
    baseline = scores.baseline_of(everything, rows["dataset"].iloc[0])
    worst = min(precision.min(), recall[kept][-1] if kept.any() else recall[-1])
    if baseline:
        worst = min(worst, _baseline_point((ax, inset), everything, baseline))
    ax.set(xlim=(-0.02, 1.02), ylim=(0, 1.03), xlabel="recall", ylabel="precision")
    ax.set_title(f"{title}, AP {100 * ap:.2f} %")
    # the corner is enlarged until what matters fills it
    low = max(0.0, min(0.98, np.floor((worst - 0.02) * 50) / 50))
    margin = 0.04 * (1 - low)
    inset.set(xlim=(low, 1 + margin), ylim=(low, 1 + margin))
    inset.set_xticks([low, 1])
    inset.set_yticks([low, 1])
    inset.tick_params(labelsize=9)
    inset.set_title("upper right corner", fontsize=9, pad=3)


def _baseline_point(panels: tuple[Axes, ...], everything: pd.DataFrame, method: str) -> float:
    """Mark where the baseline stands, with intervals; return the lower of its two rates."""
    at = matching.at_threshold(everything[everything["method"] == method], THRESHOLDS[method])
    precision, recall = scores.rates(at)
    if not (precision.n and recall.n):
        return 1.0
    # Wilson's bounds may miss a value of exactly 0 or 1 by a rounding error; error bars must not be negative
    reach = [[[max(0.0, e.value - e.low)], [max(0.0, e.high - e.value)]] for e in (recall, precision)]
    for panel in panels:
        panel.errorbar(
            recall.value,
            precision.value,
            xerr=reach[0],
            yerr=reach[1],
            fmt="D",
            markersize=5,
            color=style.COLOURS[method],
            elinewidth=1.2,
            zorder=4,
            label=style.NAMES[method],
        )
    panels[0].legend(loc="upper left", bbox_to_anchor=(0.04, 0.88))
    return float(min(precision.low, recall.low))
