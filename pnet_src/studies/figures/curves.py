"""Growing curves of the studies of training: a line for every run."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pnet.book.figures import style

LOOKS = {"clipped": ("pnet", "-"), "frozen": ("pnet", "-"), "free": ("sextractor", "--")}  # by a row's name


@style.styled
def growing(
    study: dict[str, Any] | None, panels: Mapping[str, str], frozen: int = 0, marks: Mapping[str, float] | None = None
) -> Figure:
    """Draw what the rows of a study remember of their training against the step.

    Parameters
    ----------
    study : dict or None
        As ``python -m studies <name>`` wrote it; its rows with a ``history`` are drawn.
    panels : mapping
        Key of the history → what it is, a panel each.
    frozen : int
        Steps in which one run was frozen: they are shaded.
    marks : mapping, optional
        Key of the history → value at which its panel has a line.
    """
    figure, axes = style.new(1, len(panels), height=3.8)
    runs = [row for row in study["rows"] if row.get("history")] if study else []
    for ax, letter, (key, label) in zip(axes[0], "ab", panels.items(), strict=False):
        if not runs:
            style.empty(ax, f"({letter}) {label}")
            continue
        named = set()
        for row in runs:
            colour, line = LOOKS[row["name"]]
            steps = pd.DataFrame(row["history"]).dropna(subset=[key])
            name = None if row["name"] in named else row["name"]  # one entry of the legend for all its seeds
            ax.plot(steps["steps"], steps[key], line, color=style.COLOURS[colour], linewidth=1.4, label=name)
            named.add(row["name"])
        if frozen:
            ax.axvspan(0, frozen, color=style.COLOURS["grey"], alpha=0.18, linewidth=0, label="one of them frozen")
        if marks and key in marks:
            ax.axhline(marks[key], color=style.COLOURS["limit"], linestyle=style.DASHED, linewidth=1)
        lowest = min(min(line.get_ydata()) for line in ax.lines)
        ax.set(xlabel="step", title=f"({letter}) {label}", yscale="log" if lowest > 0 else "linear")
    style.legend_below(figure, axes, ncols=3)
    return figure
