"""How the share of stars goes with the confidence, before and after calibration; and fields with galaxies."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import panels, style
from pnet.common.metrics import Estimate
from pnet.evaluation.confidence import Reliability
from pnet.stars.confidence import Calibration

SERIES = (("as the network says", "purple", "o"), ("calibrated", "pnet", "s"))


@style.styled
def diagram(
    panels: dict[str, tuple[Reliability, Reliability | None]], calibration: Calibration | None = None
) -> Figure:
    """Draw one reliability diagram per data set, before and, where there is one, after the calibration.

    Parameters
    ----------
    panels : dict
        Title → reliability of the confidence and of the probability made of it (None without a calibration).
    calibration : Calibration, optional
        Drawn as a line: the probability that it gives to each confidence.
    """
    figure, axes = style.new(1, max(len(panels), 1), height=4.8, sharey=True)
    if not panels:
        style.empty(axes[0, 0], "confidence")
        return figure
    for ax, (title, pair) in zip(axes[0], panels.items(), strict=True):
        ax.plot([0, 1], [0, 1], color=style.COLOURS["limit"], linewidth=1.2, label="what it should be")
        if calibration is not None:
            confidence = np.linspace(0.01, 0.999, 200)
            line = {"linewidth": 1.4, "label": "the map fitted to validation frames"}
            ax.plot(confidence, calibration.apply(confidence), ":", color=style.COLOURS["purple"], **line)
        for result, (label, colour, marker) in zip(pair, SERIES, strict=True):
            if result is not None and len(result.table):
                _points(ax, result.table, style.COLOURS[colour], marker, label)
        errors = " → ".join(f"{result.error.value:.3f}" for result in pair if result is not None)
        n = int(pair[0].table["n"].sum())
        ax.set_title(f"{title}\n{n} detections\ncalibration error {errors}", fontsize=10)
        ax.set(xlim=(0, 1.02), ylim=(0, 1.03), xlabel="mean confidence or probability")
    axes[0, 0].set_ylabel("share of stars")
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes[0]), key=lambda found: len(found[1]))
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _points(ax: Axes, table: pd.DataFrame, colour: str, marker: str, label: str) -> None:
    """Draw the share of stars per bin with its interval; bins of fewer than five detections are hollow."""
    share = [Estimate(*row) for row in table[["share", "share_low", "share_high"]].to_numpy(float)]
    panels.estimates(ax, table["mean"], share, fmt=marker, color=colour, linewidth=0, label=label)
    few = table[table["n"] < 5]
    ax.plot(few["mean"], few["share"], marker, color=colour, markersize=5, markerfacecolor="white", zorder=3)


@style.styled
def threshold_sweep(table: pd.DataFrame, chosen: float | None, goals: tuple[float, float]) -> Figure:
    """Draw precision and recall against the threshold on fields with galaxies.

    Parameters
    ----------
    table : DataFrame
        From `realistic.sweep`.
    chosen : float, optional
        Threshold chosen on validation frames.
    goals : (float, float)
        Wanted precision and recall.
    """
    figure, [[ax]] = style.new(1, 1, height=4.2)
    if table.empty or table["precision"].isna().all():
        style.empty(ax, "frames with galaxies")
        return figure
    threshold = table["threshold"].to_numpy()
    rates = (table[[name, f"{name}_low", f"{name}_high"]].to_numpy().T for name in ("precision", "recall"))
    panels.sweep(ax, threshold, *rates)
    for goal, colour in zip(goals, ("pnet", "purple"), strict=True):
        ax.axhline(goal, color=style.COLOURS[colour], linestyle=":", linewidth=1.2, label=f"goal: {100 * goal:g} %")
    # beyond 0.9 hardly anything is left, and what is left would flatten the rest
    lowest = table.loc[threshold <= 0.9, ["precision_low", "recall_low"]].min().min()
    bottom = max(0.0, np.floor(20 * lowest) / 20)
    for position, text in ((0.3, "0.3"), (chosen, "chosen on\nvalidation frames")):
        if position is not None:
            ax.axvline(position, color=style.COLOURS["paper"], linestyle=style.DASHED, linewidth=1.2)
            ax.text(position + 0.01, bottom + 0.35 * (1 - bottom), text, fontsize=9, color=style.COLOURS["paper"])
    ax.set(ylim=(bottom, 1 + 0.03 * (1 - bottom)), title="frames with galaxies and faint stars")
    ax.legend(loc="lower left", fontsize=9, ncols=2)
    return figure
