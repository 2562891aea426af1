"""Figure 8: two-dimensional histograms of the astrometric error."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from pnet.book.figures import style
from pnet.common import metrics
from pnet.evaluation import scores

SHOWN = 0.5  # px
BIN = 0.02  # px, as in the paper
CONTOURS = ((0.15, "#0072B2"), (0.21, "#009E73"))  # px; the paper's blue and green contour
COLOUR_MAP = ListedColormap(colormaps["inferno_r"](np.linspace(0.25, 1, 256)))  # a single star must stand out on white
HELD = 0.99  # share of the stars between the red dashed lines


@style.styled
def figure_8(table: pd.DataFrame) -> Figure:
    """Draw the three panels: baseline on SDSS, PNet on SDSS, PNet on the simulation.

    Each panel counts stars in squares of 0.02 px and shows the decimal logarithm. Blue and green circles
    hold errors up to 0.15 and 0.21 px; the red dashed lines enclose 99 % of the errors in x and in y.
    """
    figure, axes = style.new(1, 3, height=4.55, width=7.2, sharey=True)
    panels = ((scores.baseline_of(table, "sdss") or "sextractor", "sdss"), ("pnet", "sdss"), ("pnet", "simulation"))
    edges = np.arange(-round(SHOWN / BIN), round(SHOWN / BIN) + 1) * BIN
    counts, errors = [], []
    for method, dataset in panels:
        stars = scores.matched(scores.select(table, dataset, method), "x", "y")
        dx = (stars["x"] - stars["truth_x"]).to_numpy()
        dy = (stars["y"] - stars["truth_y"]).to_numpy()
        errors.append((dx, dy))
        counts.append(np.histogram2d(dy, dx, bins=[edges, edges])[0])
    highest = max(1.0, *(np.log10(max(count.max(), 1)) for count in counts))
    image = None
    for ax, (method, dataset), count, (dx, dy) in zip(axes[0], panels, counts, errors, strict=True):
        title = f"{style.NAMES[method]}, {style.DATASETS[dataset]}"
        if dx.size == 0:
            style.empty(ax, title)
            continue
        image = ax.pcolormesh(
            edges,
            edges,
            np.where(count > 0, np.log10(np.maximum(count, 1)), np.nan),
            vmin=0,
            vmax=highest,
            cmap=COLOUR_MAP,
        )
        _decorate(ax, dx, dy, title)
    axes[0, 0].set_ylabel("Δy / px")
    if image is not None:
        bar = figure.colorbar(image, ax=axes[0].tolist(), location="bottom", shrink=0.6, aspect=40, pad=0.03)
        bar.set_label("log₁₀ (stars per 0.02 × 0.02 px)")
    return figure


def _decorate(ax: Axes, dx: np.ndarray, dy: np.ndarray, title: str) -> None:
    """Add circles, limits of 99 %, median, and the numbers."""
    distance = metrics.distance(dx, dy)
    text = []
    for radius, colour in CONTOURS:
        ax.add_patch(Circle((0, 0), radius, fill=False, edgecolor=colour, linewidth=1.6, zorder=3))
        share = metrics.within(distance, radius)
        interval = f"({100 * share.low:.1f} … {100 * share.high:.1f})"
        text.append(f"within {radius:g} px:\n{100 * share.value:.1f} % {interval}")
    tail = (1 - HELD) / 2
    for values, line in ((dx, ax.axvline), (dy, ax.axhline)):
        for position in np.quantile(values, [tail, 1 - tail]):
            line(position, color=style.COLOURS["paper"], linestyle=(0, (4, 3)), linewidth=1.1, zorder=2)
    ax.plot(np.median(dx), np.median(dy), "+", color="white", markersize=11, markeredgewidth=3.5, zorder=4)
    ax.plot(
        np.median(dx), np.median(dy), "+", color=style.COLOURS["limit"], markersize=9, markeredgewidth=1.4, zorder=5
    )
    beyond = int(((np.abs(dx) > SHOWN) | (np.abs(dy) > SHOWN)).sum())
    ax.set_title(f"{title}\n{dx.size} stars, {beyond} outside", fontsize=10.5)
    ax.set(xlim=(-SHOWN, SHOWN), ylim=(-SHOWN, SHOWN), aspect="equal", xlabel="Δx / px\n\n" + "\n".join(text))
    ax.xaxis.label.set_fontsize(9.5)
    ax.set_xticks([-0.4, 0, 0.4])
    ax.set_yticks([-0.4, 0, 0.4])
    ax.grid(False)
