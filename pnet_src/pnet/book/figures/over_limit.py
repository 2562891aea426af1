"""Scatter in units of the Cramér-Rao limit by magnitude; of positions with what SkyMaker itself misplaces."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from pnet.book.figures import panels, style
from pnet.evaluation import scores
from pnet.evaluation.ledger import Ledger
from pnet.sky import limits

TICKS = (0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 30, 50, 100, 200, 500)


def _panel(ax: Axes, ledger: Ledger, series: dict[str, tuple[str, str]], dashed: Sequence[str] = ()) -> bool:
    """Draw scatter over the limit by magnitude, label → (key without the bin, colour), with intervals; return whether
    there was anything to draw. 1 is the best that is possible."""
    drawn = False
    for number, (label, (key, colour)) in enumerate(series.items()):
        entries = {low: ledger.get(f"{key}.{low:g}") for low in scores.BINS[:-1]}
        found = {low: entry for low, entry in entries.items() if entry is not None and entry.value is not None}
        if not found:
            continue
        drawn = True
        # neighbouring series stand beside each other, so that their intervals can be told apart
        centre = np.array(list(found)) + 0.5 + 0.11 * (number - (len(series) - 1) / 2)
        line = {"marker": style.MARKERS[number % len(style.MARKERS)], "linestyle": "--" if label in dashed else "-"}
        panels.estimates(ax, centre, list(found.values()), color=style.COLOURS[colour], label=label, **line)
    if drawn:
        ax.axhline(1, color=style.COLOURS["limit"], linewidth=1.4)
        ax.set(xlim=(13, 20), yscale="log", xlabel="true magnitude")
        _ticks(ax)
    return drawn


def _ticks(ax: Axes) -> None:
    """Name the round ratios of a logarithmic axis as plain numbers, and whole magnitudes."""
    bottom, top = ax.get_ylim()
    ax.set_yticks([tick for tick in TICKS if bottom <= tick <= top])
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


@style.styled
def scatter(ledger: Ledger, columns: dict[str, tuple[str, str]], title: str) -> Figure:
    """Draw scatter over limit per magnitude bin, with intervals; 1 is the best that is possible.

    Parameters
    ----------
    ledger : Ledger
        Holding ``simulation.<method>.<what>_over_limit.<bin>``.
    columns : dict
        Label → (method, what), for example ``{"PNet": ("pnet", "mag")}``.
    title : str
        What the scatter is of.
    """
    figure, [[ax]] = style.new(1, 1, height=4.4)
    series = {
        label: (f"simulation.{method}.{what}_over_limit", "purple" if what.startswith("net_") else method)
        for label, (method, what) in columns.items()
    }
    if not _panel(ax, ledger, series, dashed=[label for label, (_, what) in columns.items() if what == "y"]):
        style.empty(ax, title)
        return figure
    ax.text(13.05, 1.0, "limit", va="bottom", fontsize=9.5)
    ax.set(ylabel="scatter / limit", title=title)
    ax.legend(loc="best")
    return figure


def placement_floor(stars: pd.DataFrame, axis: str) -> list[tuple[float, float]]:
    """Return, per magnitude bin, what a measurement at the limit would scatter about SkyMaker's list, over the limit.

    Parameters
    ----------
    stars : DataFrame
        Columns truth_mag, truth_x, truth_y, limit_x, limit_y.
    axis : {"x", "y"}

    Returns
    -------
    list of (float, float)
        Middle of the bin and the factor, √(1 + displacement²/limit²), as the median over its stars.
    """
    bound = stars[f"limit_{axis}"]
    displacement = limits.skymaker_displacement(stars[f"truth_{axis}"].to_numpy())
    known = stars.assign(bound=bound, displacement=displacement)[np.isfinite(bound)]
    points = []
    for low, rows in known.groupby(np.floor(known["truth_mag"])):
        if low in scores.BINS[:-1] and len(rows) >= 5:
            rms = np.sqrt(np.mean(rows["displacement"] ** 2))
            points.append((low + 0.5, float(np.median(np.hypot(1, rms / rows["bound"])))))
    return points


@style.styled
def positions(
    ledger: Ledger,
    series: dict[str, tuple[str, str, str]],
    goals: tuple[float, float],
    stars: pd.DataFrame | None = None,
) -> Figure:
    """Draw scatter over limit per magnitude bin in x (left) and y (right).

    Parameters
    ----------
    ledger : Ledger
        Holding ``simulation.<method>.<what>.<bin>``.
    series : dict
        Label → (method, what, colour), where ``{axis}`` in what is x or y: ``("pnet", "{axis}_over_limit", "pnet")``;
        those that the ledger lacks are left out.
    goals : (float, float)
        For the pooled scatter and for every bin from 14 to 19.
    stars : DataFrame, optional
        Stars of frames that SkyMaker made, for `placement_floor`.
    """
    figure, axes = style.new(1, 2, height=4.9, sharey=True)
    pooled, every = goals
    for ax, axis in zip(axes[0], "xy", strict=True):
        keys = {
            label: (f"simulation.{method}.{what.format(axis=axis)}", colour)
            for label, (method, what, colour) in series.items()
        }
        if not _panel(ax, ledger, keys):
            style.empty(ax, f"{axis} over the limit")
            continue
        if stars is not None and (floor := placement_floor(stars, axis)):
            line = {"linewidth": 1.5, "label": "limit and SkyMaker's own displacement"}
            ax.plot(*np.array(floor).T, ":", color=style.COLOURS["limit"], **line)
        goal = {"xmin": 14, "xmax": 20, "color": style.COLOURS["truth"]}
        ax.hlines(every, linewidth=1.6, label=f"goal for every bin: {every:g}", **goal)
        ax.hlines(pooled, linewidth=1.2, linestyle="--", label=f"goal pooled over 14–20: {pooled:g}", **goal)
        _ticks(ax)
        ax.set_title(f"{axis}, simulated frames")
    axes[0, 0].set_ylabel("scatter / limit")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8.5)
    return figure
