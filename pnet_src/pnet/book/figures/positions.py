"""Position errors in units of the Cramér-Rao limit, with the goals and with what SkyMaker itself misplaces."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from pnet.book.figures import style
from pnet.evaluation import scores
from pnet.evaluation.ledger import Ledger
from pnet.sky import limits

TICKS = (0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 30, 50, 100, 200, 500)
MARKERS = ("o", "s", "D", "^", "v", "P")


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
    bound = stars[f"limit_{axis}"].to_numpy()
    displacement = limits.skymaker_displacement(stars[f"truth_{axis}"].to_numpy())
    points = []
    for low in scores.BINS[:-1]:
        member = stars["truth_mag"].between(low, low + 1, inclusive="left").to_numpy() & np.isfinite(bound)
        if member.sum() >= 5:
            rms = np.sqrt(np.mean(displacement[member] ** 2))
            points.append((low + 0.5, float(np.median(np.hypot(1, rms / bound[member])))))
    return points


@style.styled
def over_limit(
    ledger: Ledger,
    series: dict[str, tuple[str, str, str]],
    goals: tuple[float, float],
    stars: pd.DataFrame | None = None,
    dataset: str = "simulation",
) -> Figure:
    """Draw scatter over limit per magnitude bin in x (left) and y (right).

    Parameters
    ----------
    ledger : Ledger
        Holding ``<dataset>.<method>.<what>.<bin>``.
    series : dict
        Label → (method, what, colour), where ``{axis}`` in what is x or y: ``("pnet", "{axis}_over_limit", "pnet")``;
        those that the ledger lacks are left out.
    goals : (float, float)
        For the pooled scatter and for every bin from 14 to 19.
    stars : DataFrame, optional
        Stars of frames that SkyMaker made, for `placement_floor`.
    """
    figure, axes = style.new(1, 2, height=4.9, sharey=True)
    drawn = False
    for ax, axis in zip(axes[0], "xy", strict=True):
        for number, (label, (method, what, colour)) in enumerate(series.items()):
            key = f"{dataset}.{method}.{what.format(axis=axis)}"
            shift = 0.1 * (number - (len(series) - 1) / 2)
            drawn |= _series(ax, ledger, key, shift, label, style.COLOURS[colour], MARKERS[number % len(MARKERS)])
        if stars is not None and len(stars):
            points = placement_floor(stars, axis)
            if points:
                centre, factor = np.array(points).T
                label = "limit and SkyMaker's own displacement"
                ax.plot(centre, factor, ":", color=style.COLOURS["limit"], linewidth=1.5, label=label)
        _decorate(ax, axis, goals)
    if not drawn:
        for ax in axes[0]:
            ax.clear()
            style.empty(ax, "positions over the limit")
        return figure
    for ax in axes[0]:
        _scale(ax)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8.5)
    axes[0, 0].set_ylabel("scatter / limit")
    return figure


def _series(ax: Axes, ledger: Ledger, key: str, shift: float, label: str, colour: str, marker: str) -> bool:
    """Draw one series with its intervals; return whether the ledger has it."""
    entries = [(low, ledger.get(f"{key}.{low:g}")) for low in scores.BINS[:-1]]
    entries = [(low, entry) for low, entry in entries if entry is not None and entry.value is not None]
    if not entries:
        return False
    centre = np.array([low for low, _ in entries]) + 0.5 + shift
    value = np.array([entry.value for _, entry in entries])
    low = np.array([entry.value if entry.low is None else entry.low for _, entry in entries])
    high = np.array([entry.value if entry.high is None else entry.high for _, entry in entries])
    reach = np.maximum([value - low, high - value], 0)  # with few stars the interval can lie beside the value
    ax.errorbar(
        centre,
        value,
        yerr=reach,
        marker=marker,
        markersize=4.5,
        color=colour,
        linewidth=1.2,
        elinewidth=1.0,
        capsize=1.5,
        label=label,
    )
    return True


def _decorate(ax: Axes, axis: str, goals: tuple[float, float]) -> None:
    pooled, every = goals
    ax.axhline(1, color=style.COLOURS["limit"], linewidth=1.3)
    ax.hlines(every, 14, 20, color=style.COLOURS["truth"], linewidth=1.6, label=f"goal for every bin: {every:g}")
    ax.hlines(
        pooled,
        14,
        20,
        color=style.COLOURS["truth"],
        linewidth=1.2,
        linestyle="--",
        label=f"goal pooled over 14–20: {pooled:g}",
    )
    ax.set(xlim=(13, 20), xlabel="true magnitude", title=f"{axis}, simulated frames")


def _scale(ax: Axes) -> None:
    ax.set_yscale("log")
    bottom, top = ax.get_ylim()
    ax.set_yticks([tick for tick in TICKS if bottom <= tick <= top])
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
