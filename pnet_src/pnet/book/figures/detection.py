"""Figure 6: precision and recall against the confidence threshold, and the precision-recall curve."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import panels, style
from pnet.book.names import DATASET_NAMES, METHOD_NAMES
from pnet.common import metrics
from pnet.evaluation import scores
from pnet.evaluation.measurements import THRESHOLDS

STEPS = np.linspace(0.01, 0.99, 99)
CUT = {"color": style.COLOURS["paper"], "linestyle": style.DASHED, "linewidth": 1.3}


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
    for (above, below), dataset, letters in zip(axes.T, ("sdss", "simulation"), ("ac", "bd"), strict=True):
        rows = scores.rows(table, dataset, "pnet")
        titles = [f"({letter}) {DATASET_NAMES[dataset]}" for letter in letters]
        if rows.empty:
            style.empty(above, titles[0])
            style.empty(below, titles[1])
            continue
        true, false, n = scores.curve_input(rows)
        _sweep(above, true, false, n)
        above.set_title(f"{titles[0]}, {n} stars")
        if true.size + false.size == 0:
            style.empty(below, titles[1], "no detections")
            continue
        area = _curve(below, true, false, n, scores.baseline_of(table, dataset), table[table["dataset"] == dataset])
        below.set_title(f"{titles[1]}, AP {100 * area:.2f} %")
    return figure


def _sweep(ax: Axes, true: np.ndarray, false: np.ndarray, n: int) -> None:
    """Precision and recall against the threshold, with Wilson bands; confidences of right and wrong detections."""
    above = [(int((true >= step).sum()), int((false >= step).sum())) for step in STEPS]
    both = ([metrics.precision(t, f) for t, f in above], [metrics.recall(t, n - t) for t, _ in above])
    panels.sweep(ax, STEPS, *(np.array([(one.value, one.low, one.high) for one in rates]).T for rates in both))
    ax.axvline(THRESHOLDS["pnet"], **CUT)
    text = {"rotation": 90, "ha": "right", "va": "center", "fontsize": 9.5, "color": CUT["color"]}
    ax.text(THRESHOLDS["pnet"] - 0.02, 0.5, f"threshold {THRESHOLDS['pnet']:g}", **text)
    ax.set_ylim(-0.02, 1.03)
    ax.legend(loc="lower left", bbox_to_anchor=(0.3, 0.0))


def _curve(
    ax: Axes, true: np.ndarray, false: np.ndarray, n: int, baseline: str | None, everything: pd.DataFrame
) -> float:
    """Precision against recall; the region that the threshold keeps in green; the corner enlarged. Return the AP."""
    precision, recall, thresholds = metrics.precision_recall_curve(true, false, n)
    kept = thresholds >= THRESHOLDS["pnet"]
    # from a recall of 0, where the precision is that of the most confident detection
    line = np.concatenate([[0], recall]), np.concatenate([precision[:1], precision])
    inset = ax.inset_axes((0.3, 0.15, 0.58, 0.5))
    worst = min(precision.min(), recall[kept][-1] if kept.any() else recall[-1])
    for panel in (ax, inset):
        panel.plot(*line, color=style.COLOURS["purple"])
        if kept.any():
            held = kept.sum() + 1
            panel.fill_between(line[0][:held], 0, line[1][:held], color=style.COLOURS["truth"], alpha=0.3, linewidth=0)
            for edge in (0, recall[kept][-1]):
                panel.axvline(edge, **CUT)
        if baseline:
            worst = min(worst, _baseline_point(panel, everything, baseline))
    if baseline:
        ax.legend(loc="upper left", bbox_to_anchor=(0.04, 0.88))
    ax.set(xlim=(-0.02, 1.02), ylim=(0, 1.03), xlabel="recall", ylabel="precision")
    # the corner is enlarged until what matters fills it
    low = max(0.0, min(0.98, np.floor((worst - 0.02) * 50) / 50))
    ends = (low, 1 + 0.04 * (1 - low))
    inset.set(xlim=ends, ylim=ends, xticks=[low, 1], yticks=[low, 1])
    inset.tick_params(labelsize=9)
    inset.set_title("upper right corner", fontsize=9, pad=3)
    return metrics.average_precision(precision, recall)


def _baseline_point(ax: Axes, everything: pd.DataFrame, method: str) -> float:
    """Mark where the baseline stands, with intervals; return the lower end of its two rates."""
    dataset = everything["dataset"].iloc[0]
    precision, recall = scores.rates(scores.working(everything, dataset, method))
    if not (precision.n and recall.n):
        return 1.0
    point = {"fmt": "D", "capsize": 0, "zorder": 4, "color": style.COLOURS[method], "label": METHOD_NAMES[method]}
    panels.estimates(ax, [recall.value], [precision], xerr=panels.intervals([recall])[1], **point)
    return float(min(precision.low, recall.low))
