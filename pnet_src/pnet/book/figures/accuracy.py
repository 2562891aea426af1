"""Errors of magnitudes (Figure 7) and of positions (Figure 8)."""

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

MAG = 0.15  # mag shown; the paper's errors are "mostly within 0.5", ours and SExtractor's within a third of that
MAG_EDGES = np.arange(-15, 16) * 0.01
FLUX_2_5_PERCENT = 2.5 * np.log10(1.025)  # mag
PX = 0.5  # px shown
PX_EDGES = np.arange(-25, 26) * 0.02  # bins as in the paper
CIRCLES = ((0.15, "pnet"), (0.21, "truth"))  # px; the paper's blue and green contour
CONTOURS = (0.05, 0.32)  # share of the density outside: the contours hold 95 and 68 % of the stars
COLOUR_MAP = ListedColormap(colormaps["inferno_r"](np.linspace(0.25, 1, 256)))  # a single star must stand out on white
HELD = 0.99  # share of the stars between the red dashed lines


def _shown(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Return what both figures show: method, data set and title of each of three panels."""
    shown = ((scores.baseline_of(table, "sdss") or "sextractor", "sdss"), ("pnet", "sdss"), ("pnet", "simulation"))
    return [(method, dataset, f"{METHOD_NAMES[method]}, {DATASET_NAMES[dataset]}") for method, dataset in shown]


@style.styled
def figure_7(table: pd.DataFrame) -> Figure:
    """Draw panels a to f: baseline on SDSS, PNet on SDSS, PNet on the simulation; error left, histogram right.

    These are the magnitudes of the refinement step, before the BPNN; where a table has none, PNet's final ones.
    """
    figure, axes = style.new(3, 2, height=9.6)
    for (left, right), (method, dataset, title), letters in zip(axes, _shown(table), ("ab", "cd", "ef"), strict=True):
        titles = [f"({letter}) {title}" for letter in letters]
        selected, column = scores.select(table, dataset, method), "mag_net"
        stars = scores.matched(selected, column, "truth_mag")
        if stars.empty:
            stars, column = scores.matched(selected, "mag", "truth_mag"), "mag"
        if stars.empty:
            style.empty(left, titles[0])
            style.empty(right, titles[1])
            continue
        magnitude = stars["truth_mag"].to_numpy(float)
        error = metrics.magnitude_error(magnitude, stars[column].to_numpy(float))
        limit = stars["limit_mag"].to_numpy(float) if dataset == "simulation" else None
        colour = style.COLOURS[method]
        panels.error_against_magnitude(left, magnitude, error, reach=MAG, colour=colour, limit=limit)
        beyond = int((np.abs(error) > MAG).sum())
        left.set(xlabel="true magnitude", ylabel="true − measured / mag")
        left.set_title(f"{titles[0]}\n{len(error)} stars, {beyond} beyond ± {MAG:g}", fontsize=10.5)
        _histogram(right, error, colour)
        right.set_title(f"{titles[1]}\nthe rest in the outermost bins", fontsize=10.5)
    return figure


def _histogram(ax: Axes, error: np.ndarray, colour: str) -> None:
    """Percentage of stars per 0.01 mag of error; what lies beyond is in the outermost bins."""
    inside = np.clip(error, MAG_EDGES[:2].mean(), MAG_EDGES[-2:].mean())
    bars = {"stat": "percent", "color": colour, "alpha": 1, "edgecolor": "white", "linewidth": 0.4}
    sns.histplot(x=inside, bins=MAG_EDGES, ax=ax, **bars)
    ax.set_ylim(0, 1.25 * ax.dataLim.ymax)
    within = metrics.rate(int((np.abs(error) < FLUX_2_5_PERCENT).sum()), len(error))
    interval = f"({100 * within.low:.0f} … {100 * within.high:.0f} %)"
    style.note(ax, f"within 2.5 %:\n{100 * within.value:.0f} % of stars\n{interval}", fontsize=8.5)
    ax.set(xlim=MAG_EDGES[[0, -1]], xlabel="true − measured / mag", ylabel="stars / %")


@style.styled
def figure_8(table: pd.DataFrame) -> Figure:
    """Draw the three panels: baseline on SDSS, PNet on SDSS, PNet on the simulation.

    Each panel counts stars in squares of 0.02 px on a logarithmic scale. Blue and green circles hold errors up to 0.15
    and 0.21 px; the red dashed lines enclose 99 % of the errors in x and in y. White contours of many stars hold 68 and
    95 % of them.
    """
    figure, axes = style.new(1, 3, height=4.55, width=7.2, sharey=True)
    errors = []
    for method, dataset, _ in _shown(table):
        stars = scores.matched(scores.select(table, dataset, method), "x", "y")
        errors.append([(stars[axis] - stars[f"truth_{axis}"]).to_numpy(float) for axis in ("x", "y")])
    highest = max(2, *(int(np.histogram2d(dx, dy, [PX_EDGES, PX_EDGES])[0].max()) for dx, dy in errors))
    scale = LogNorm(1, highest)
    for ax, (_, _, title), (dx, dy) in zip(axes[0], _shown(table), errors, strict=True):
        if dx.size == 0:
            style.empty(ax, title)
            continue
        bins = {"bins": (PX_EDGES, PX_EDGES), "cmap": COLOUR_MAP, "norm": scale, "vmin": None, "vmax": None}
        sns.histplot(x=dx, y=dy, ax=ax, **bins)
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
    beyond = int(((np.abs(dx) > PX) | (np.abs(dy) > PX)).sum())
    ax.set_title(f"{title}\n{dx.size} stars, {beyond} outside", fontsize=10.5)
    ax.set_xlabel("Δx / px\n\n" + "\n".join(text), fontsize=9.5)
    ends, ticks = (-PX, PX), [-0.4, 0, 0.4]
    ax.set(xlim=ends, ylim=ends, aspect="equal", xticks=ticks, yticks=ticks)
    ax.grid(False)
