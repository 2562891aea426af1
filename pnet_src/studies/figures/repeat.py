"""Two epochs of the same stars: what repeats, what was promised, what is possible."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import style
from pnet.evaluation.ledger import Ledger
from pnet.evaluation.scores import RANGES
from studies import repeat_scores

PANELS = (("mag", "magnitude", "mag"), ("x", "x", "px"), ("y", "y", "px"))


@style.styled
def repeatability(table: pd.DataFrame, ledger: Ledger, pair: str = "stripe82") -> Figure:
    """Draw differences between epochs over magnitude, and below them their scatter beside promise and limit.

    Parameters
    ----------
    table : DataFrame
        `repeat.COLUMNS`.
    ledger : Ledger
        With the entries of `repeat_scores.entries`.
    pair : str
    """
    figure, axes = style.new(2, 3, height=5.6, width=7.2, sharex=True)
    for column, (quantity, title, unit) in enumerate(PANELS):
        _differences(axes[0, column], table, pair, quantity, title, unit)
        _by_magnitude(axes[1, column], ledger, pair, quantity, unit)
        axes[1, column].set_xlabel("g / mag")
    axes[0, 0].set_xlim(13.9, 20.1)
    style.legend_below(figure, axes[1], ncols=3)
    return figure


def _differences(ax: Axes, table: pd.DataFrame, pair: str, quantity: str, title: str, unit: str) -> None:
    """Draw every star's difference with its promised error."""
    stars = repeat_scores.differences(table, pair, quantity)
    if stars.empty:
        style.empty(ax, title)
        return
    promised = stars["sigma"] if stars["sigma"].notna().all() else None
    look = {"fmt": "o", "markersize": 3, "linewidth": 0.8, "color": style.COLOURS["pnet"], "alpha": 0.75}
    ax.errorbar(stars["mag"], stars["delta"], yerr=promised, **look)
    ax.axhline(0, color=style.COLOURS["grey"], linewidth=1)
    # wide enough for nearly all stars; a variable star must not flatten the rest
    reach = 1.25 * float(np.quantile(np.abs(stars["delta"]), 0.96))
    ax.set_ylim(-reach, reach)
    beyond = int((stars["delta"].abs() > reach).sum())
    if beyond:
        style.note(ax, f"{beyond} beyond the panel", "lower left")
    ax.set_title(f"{title}, n = {len(stars)}")
    ax.set_ylabel(f"second − first / {unit}")


def _by_magnitude(ax: Axes, ledger: Ledger, pair: str, quantity: str, unit: str) -> None:
    """Draw scatter, promise and limit of one measurement by magnitude bin."""
    head = f"repeat.pnet.{pair}.{quantity}"
    bins = [(low + 0.5, name) for name, (low, high) in RANGES.items() if high == low + 1]
    bins = [(x, name) for x, name in bins if f"{head}_repeatability.{name}" in ledger]
    if not bins:
        style.empty(ax, "")
        return
    x = np.array([x for x, _ in bins])
    scatter = [ledger[f"{head}_repeatability.{name}"] for _, name in bins]
    value = np.array([entry.value for entry in scatter])
    # a scatter of n values is known to 1/√(2n), the robust one to 1.65 times that
    error = 1.65 * value / np.sqrt(2 * np.array([entry.n for entry in scatter]))
    label = "scatter between epochs / √2"
    ax.errorbar(x, value, yerr=error, fmt="o", color=style.COLOURS["pnet"], label=label, zorder=3)
    promised = np.array([ledger.value(f"{head}_predicted.{name}") for _, name in bins])
    if np.isfinite(promised).any():
        ax.plot(x, promised, "-s", color=style.COLOURS["sextractor"], markersize=4, label="promised")
    limit = np.array([np.nan if entry.limit is None else entry.limit for entry in scatter])
    if np.isfinite(limit).any():
        ax.plot(x, limit, "--", color=style.COLOURS["limit"], label="limit")
    ax.set_yscale("log")
    ax.set_ylabel(f"one measurement / {unit}")
