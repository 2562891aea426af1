"""The readings of the paper's Table 2: four numbers of each beside the paper's."""

import textwrap
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from pnet.book.figures import style
from studies.readings import NAMES, solved_with

MARKERS = {"eta": ("purple", "v"), "sigma_nmad": ("sextractor", "s"), "mae": ("pnet", "o"), "e_bar": ("paper", "D")}
TITLES = {"simulation": "(a) simulation", "sdss": "(b) SDSS"}


@style.styled
def rows(found: list[dict[str, Any]], paper: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw what `studies.readings.compare` found in units of the paper's numbers, a row for each reading."""
    figure, axes = style.new(1, len(paper), height=5.6, sharey=True)
    for ax, (data, stated) in zip(axes[0], paper.items(), strict=True):
        own = [row for row in found if row["dataset"] == data]
        for index, (name, label) in enumerate(NAMES.items()):
            colour, marker = MARKERS[name]
            for place, row in enumerate(own):
                low, value, high = (row[key] / stated[name] for key in (f"{name}_low", name, f"{name}_high"))
                y, solved = -place + 0.24 - 0.16 * index, name in solved_with(row)
                ax.plot([low, high], [y, y], color=style.COLOURS[colour], linewidth=1.4)
                options = {"markerfacecolor": "white"} if solved else {}
                ax.plot(value, y, marker, markersize=6, color=style.COLOURS[colour], **options)
            ax.plot([], [], marker, color=style.COLOURS[colour], label=label)
        ax.axvline(1, color=style.COLOURS["limit"], linewidth=1)
        ax.set(xscale="log", xlabel="reading / paper", title=TITLES[data])
        ax.set_yticks([-place for place in range(len(own))], [textwrap.fill(row["reading"], 34) for row in own])
    style.legend_below(figure, axes, ncols=4)
    return figure
