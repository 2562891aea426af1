"""Figure 8: two-dimensional histograms of the astrometric error."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from pnet.book.figures import panels, style
from pnet.book.names import DATASET_NAMES, METHOD_NAMES
from pnet.common import metrics
from pnet.evaluation import scores

SHOWN = 0.5  # px
BIN = 0.02  # px, as in the paper
CIRCLES = ((0.15, "pnet"), (0.21, "truth"))  # px; the paper's blue and green contour
CONTOURS = (0.05, 0.32)  # share of the density outside: the contours hold 95 and 68 % of the stars
COLOUR_MAP = ListedColormap(colormaps["inferno_r"](np.linspace(0.25, 1, 256)))  # a single star must stand out on white
HELD = 0.99  # share of the stars between the red dashed lines


@style.styled
def figure_8(table: pd.DataFrame) -> Figure:
    """Draw the three panels: baseline on SDSS, PNet on SDSS, PNet on the simulation.

    Each panel counts stars in squares of 0.02 px on a logarithmic scale. Blue and green circles hold errors up to 0.15
    and 0.21 px; the red dashed lines enclose 99 % of the errors in x and in y. White contours of many stars hold 68 and
    95 % of them.
    """
    figure, axes = style.new(1, 3, height=4.55, width=7.2, sharey=True)
    shown = ((scores.baseline_of(table, "sdss") or "sextractor", "sdss"), ("pnet", "sdss"), ("pnet", "simulation"))
    edges = np.arange(-round(SHOWN / BIN), round(SHOWN / BIN) + 1) * BIN
    errors = []
    for method, dataset in shown:
        stars = scores.matched(scores.select(table, dataset, method), "x", "y")
        errors.append([(stars[axis] - stars[f"truth_{axis}"]).to_numpy(float) for axis in ("x", "y")])
    highest = max(2, *(int(np.histogram2d(dx, dy, [edges, edges])[0].max()) for dx, dy in errors))
    scale = LogNorm(1, highest)
    for ax, (method, dataset), (dx, dy) in zip(axes[0], shown, errors, strict=True):
        title = f"{METHOD_NAMES[method]}, {DATASET_NAMES[dataset]}"
        if dx.size == 0:
            style.empty(ax, title)
            continue
        sns.histplot(x=dx, y=dy, bins=(edges, edges), cmap=COLOUR_MAP, norm=scale, vmin=None, vmax=None, ax=ax)
        if dx.size > panels.MANY:
            sns.kdeplot(x=dx, y=dy, levels=CONTOURS, colors="white", linewidths=0.9, ax=ax)
        _decorate(ax, dx, dy, title)
    axes[0, 0].set_ylabel("Δy / px")
    if any(dx.size for dx, _ in errors):
        place = {"location": "bottom", "shrink": 0.6, "aspect": 40, "pad": 0.03}
        bar = figure.colorbar(ScalarMappable(scale, COLOUR_MAP), ax=axes[0].tolist(), **place)
        bar.set_label("stars per 0.02 × 0.02 px")
    return figure


def _decorate(ax: Axes, dx: np.ndarray, dy: np.ndarray, title: str) -> None:
    """Add circles, limits of 99 %, median, and the numbers."""
    distance = metrics.distance(dx, dy)
    text = []
    for radius, colour in CIRCLES:
        ax.add_patch(Circle((0, 0), radius, fill=False, edgecolor=style.COLOURS[colour], linewidth=1.6, zorder=3))
        share = metrics.within(distance, radius)
        interval = f"({100 * share.low:.1f} … {100 * share.high:.1f})"
        text.append(f"within {radius:g} px:\n{100 * share.value:.1f} % {interval}")
    tail = (1 - HELD) / 2
    for values, line in ((dx, ax.axvline), (dy, ax.axhline)):
        for position in np.quantile(values, [tail, 1 - tail]):
            line(position, color=style.COLOURS["paper"], linestyle=style.DASHED, linewidth=1.1, zorder=2)
    for colour, size, width in (("white", 11, 3.5), (style.COLOURS["limit"], 9, 1.4)):
        ax.plot(np.median(dx), np.median(dy), "+", color=colour, markersize=size, markeredgewidth=width, zorder=4)
    beyond = int(((np.abs(dx) > SHOWN) | (np.abs(dy) > SHOWN)).sum())
    ax.set_title(f"{title}\n{dx.size} stars, {beyond} outside", fontsize=10.5)
    ax.set_xlabel("Δx / px\n\n" + "\n".join(text), fontsize=9.5)
    ends, ticks = (-SHOWN, SHOWN), [-0.4, 0, 0.4]
    ax.set(xlim=ends, ylim=ends, aspect="equal", xticks=ticks, yticks=ticks)
    ax.grid(False)
