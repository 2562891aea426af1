"""Errors of magnitudes (Figure 7) and of positions (Figure 8)."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from pnet.book.figures import style
from pnet.book.figures.style import DATASET_NAMES, METHOD_NAMES
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


def _shown(table: pd.DataFrame) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Yield what both figures show: method, data set, title and rows of each of three style."""
    shown = ((scores.baseline_of(table, "sdss") or "sextractor", "sdss"), ("pnet", "sdss"), ("pnet", "simulation"))
    for method, dataset in shown:
        title = f"{METHOD_NAMES[method]}, {DATASET_NAMES[dataset]}"
        yield method, dataset, title, scores.select(table, dataset, method)


@style.styled
def figure_7(table: pd.DataFrame) -> Figure:
    """Draw panels a to f: baseline on SDSS, PNet on SDSS, PNet on the simulation; error left, histogram right.

    These are the magnitudes of the refinement step, before the BPNN; where a table has none, PNet's final ones.
    """
    figure, axes = style.new(3, 2, height=9.6)
    for (left, right), (method, dataset, title, rows), letters in zip(
        axes, _shown(table), ("ab", "cd", "ef"), strict=True
    ):
        column = "mag_net" if rows["mag_net"].notna().any() else "mag"
        stars = scores.matched(rows, column, "truth_mag")
        magnitude, measured, limit = stars[["truth_mag", column, "limit_mag"]].to_numpy(float).T
        error, colour = metrics.magnitude_error(magnitude, measured), style.COLOURS[method]
        limit = limit if dataset == "simulation" else None
        error_by_magnitude(left, error, magnitude, limit, colour, title=f"({letters[0]}) {title}")
        histogram(right, error, colour, title=f"({letters[1]}) {title}")
    for ax in axes.flat:
        ax.title.set_fontsize(10.5)
    return figure


@style.panel
def error_by_magnitude(
    ax: Axes, error: np.ndarray, magnitude: np.ndarray, limit: np.ndarray | None, colour: str
) -> str:
    """Errors of stars, (n,) mag, against their true magnitude; what lies beyond `MAG` is drawn at the edge.

    Of many stars the median and the central 68 % by half magnitude stand over the points; with the bound of every star
    (`limit`), ± its median, which the 68 % of a perfect measurement would keep.
    """
    many = len(error) > style.MANY
    ax.axhline(0, color=style.COLOURS["grey"], linewidth=1)
    small = {"s": 4, "alpha": 0.3} if many else {"s": 16, "alpha": 0.8}
    points = {"color": colour, "linewidth": 0, "legend": False, "clip_on": False, **small}
    sns.scatterplot(x=magnitude, y=np.clip(error, -MAG, MAG), ax=ax, **points)
    middle = np.floor(2 * magnitude) / 2 + 0.25
    if many:
        spread = {"estimator": "median", "errorbar": ("pi", 68), "err_style": "bars", "err_kws": {"linewidth": 2}}
        sns.lineplot(x=middle, y=error, linestyle="", color=style.COLOURS["sextractor"], ax=ax, **spread)
        ax.containers[-1].set_label("68 % of the stars")
    if limit is not None and np.isfinite(limit).any():
        bound = pd.Series(limit).groupby(middle).median().dropna()
        for sign, label in ((1, "± Cramér–Rao limit (1 σ)"), (-1, None)):
            ax.plot(bound.index, sign * bound, color=style.COLOURS["limit"], linewidth=1.3, label=label)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper left", fontsize=8.5, borderpad=0.2, labelspacing=0.2)
    ax.set(xlim=(13, 20), ylim=(-MAG * 1.02, MAG * 1.02), xlabel="true magnitude", ylabel="true − measured / mag")
    return f"\n{len(error)} stars, {int((np.abs(error) > MAG).sum())} beyond ± {MAG:g}"


@style.panel
def histogram(ax: Axes, error: np.ndarray, colour: str) -> str:
    """Percentage of stars per 0.01 mag of error, (n,); what lies beyond is in the outermost bins."""
    inside = np.clip(error, MAG_EDGES[:2].mean(), MAG_EDGES[-2:].mean())
    bars = {"stat": "percent", "color": colour, "alpha": 1, "edgecolor": "white", "linewidth": 0.4}
    sns.histplot(x=inside, bins=MAG_EDGES, ax=ax, **bars)
    ax.set_ylim(0, 1.25 * ax.dataLim.ymax)
    within = metrics.share(np.abs(error) < FLUX_2_5_PERCENT)
    interval = f"({100 * within.low:.0f} … {100 * within.high:.0f} %)"
    style.note(ax, f"within 2.5 %:\n{100 * within.value:.0f} % of stars\n{interval}", fontsize=8.5)
    ax.set(xlim=MAG_EDGES[[0, -1]], xlabel="true − measured / mag", ylabel="stars / %")
    return "\nthe rest in the outermost bins"


@style.styled
def figure_8(table: pd.DataFrame) -> Figure:
    """Draw the three panels: baseline on SDSS, PNet on SDSS, PNet on the simulation.

    Each panel counts stars in squares of 0.02 px on a logarithmic scale. Blue and green circles hold errors up to 0.15
    and 0.21 px; the red dashed lines enclose 99 % of the errors in x and in y. White contours of many stars hold 68 and
    95 % of them.
    """
    figure, axes = style.new(1, 3, height=4.55, width=7.2, sharey=True)
    errors = {title: scores.errors(rows)[["x", "y"]].dropna() for *_, title, rows in _shown(table)}
    counts = (np.histogram2d(found["x"], found["y"], [PX_EDGES, PX_EDGES])[0].max() for found in errors.values())
    scale = LogNorm(1, max(2, *map(int, counts)))
    for ax, (title, found) in zip(axes[0], errors.items(), strict=True):
        positions(ax, found, scale, title=title)
        ax.title.set_fontsize(10.5)
    axes[0, 0].set_ylabel("Δy / px")
    if any(map(len, errors.values())):
        place = {"location": "bottom", "shrink": 0.6, "aspect": 40, "pad": 0.03}
        bar = figure.colorbar(ScalarMappable(scale, COLOUR_MAP), ax=axes[0].tolist(), **place)
        bar.set_label("stars per 0.02 × 0.02 px")
    return figure


@style.panel
def positions(ax: Axes, errors: pd.DataFrame, scale: LogNorm) -> str:
    """Errors in x and y, px, counted in squares; with circles, limits of 99 %, the median, and the numbers."""
    dx, dy = errors.to_numpy(float).T
    bins = {"bins": (PX_EDGES, PX_EDGES), "cmap": COLOUR_MAP, "norm": scale, "vmin": None, "vmax": None}
    sns.histplot(x=dx, y=dy, ax=ax, **bins)
    if dx.size > style.MANY:
        sns.kdeplot(x=dx, y=dy, levels=CONTOURS, colors="white", linewidths=0.9, ax=ax)
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
    ax.set_xlabel("Δx / px\n\n" + "\n".join(text), fontsize=9.5)
    ends, ticks = (-PX, PX), [-0.4, 0, 0.4]
    ax.set(xlim=ends, ylim=ends, aspect="equal", xticks=ticks, yticks=ticks)
    ax.grid(False)
    return f"\n{dx.size} stars, {int(((np.abs(dx) > PX) | (np.abs(dy) > PX)).sum())} outside"
