"""Errors of magnitudes (Figure 7) and of positions (Figure 8), and their error bars, drawn by uncertainty-toolbox
(Figure 9)."""

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
from pnet.common.seeds import derive
from pnet.evaluation import calibration_metrics, scores

# mag shown: the paper's errors are "mostly within 0.5", ours and SExtractor's within a third of that
MAG, WIDE = 0.15, 0.75
FLUX_2_5_PERCENT = 2.5 * np.log10(1.025)  # mag
PX = 0.5  # px shown
PX_EDGES = np.arange(-25, 26) * 0.02  # bins as in the paper
CIRCLES = ((0.15, "pnet"), (0.21, "truth"))  # px; the paper's blue and green contour, by its caption
DIAMETERS = (0.075, 0.105)  # px; radii of the same contours by its text, where they are diameters
CONTOURS = (0.05, 0.32)  # share of the density outside: the contours hold 95 and 68 % of the stars
COLOUR_MAP = ListedColormap(colormaps["inferno_r"](np.linspace(0.25, 1, 256)))  # a single star must stand out on white
BAND = 1.96  # σ of the 95 % interval
HELD = 0.99  # share of the stars between the red dashed lines


def _shown(table: pd.DataFrame, dataset: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield what both figures show of a data set: method, title and rows of a baseline, of the paper's networks where
    they were measured, and of PNet."""
    there = set(table.loc[table["dataset"] == dataset, "method"])
    methods = (scores.baseline_of(table, dataset) or "sextractor", *("pnet_paper",) * ("pnet_paper" in there), "pnet")
    for method in methods:
        yield method, f"{METHOD_NAMES[method]}, {DATASET_NAMES[dataset]}", scores.select(table, dataset, method)


@style.styled
def figure_7(table: pd.DataFrame) -> Figure:
    """Draw a row for each method on SDSS and for each network on the simulation; error left, histogram right.

    These are magnitudes before the BPNN, of the fit or, with the paper's networks, of the detection net; and the
    baseline's.
    """
    shown = [("sdss", *each) for each in _shown(table, "sdss")]
    shown += [("simulation", *each) for each in _shown(table, "simulation")][1:]  # as in the paper, no baseline
    figure, axes = style.new(len(shown), 2, height=3.2 * len(shown))
    letters = iter("abcdefghij")
    for (left, right), (dataset, method, title, rows) in zip(axes, shown, strict=True):
        column = next((name for name in ("mag_psf", "mag_det") if rows[name].notna().any()), "mag")
        stars = scores.matched(rows, column, "truth_mag")
        magnitude, measured, limit = stars[["truth_mag", column, "limit_mag"]].to_numpy(float).T
        error, colour = metrics.magnitude_error(magnitude, measured), style.COLOURS[method]
        limit = limit if dataset == "simulation" else None
        reach = MAG if not len(error) or np.mean(np.abs(error) < MAG) > 0.8 else WIDE
        error_by_magnitude(left, error, magnitude, limit, colour, reach, title=f"({next(letters)}) {title}")
        histogram(right, error, colour, reach, title=f"({next(letters)}) {title}")
    for ax in axes.flat:
        ax.title.set_fontsize(9.5)
    return figure


@style.panel
def error_by_magnitude(
    ax: Axes, error: np.ndarray, magnitude: np.ndarray, limit: np.ndarray | None, colour: str, reach: float
) -> str:
    """Errors of stars, (n,) mag, against their true magnitude; what lies beyond `reach` is drawn at the edge.

    Of many stars the median and the central 68 % by half magnitude stand over the points; with the bound of every star
    (`limit`), ± its median, which the 68 % of a perfect measurement would keep.
    """
    many = len(error) > style.MANY
    ax.axhline(0, color=style.COLOURS["grey"], linewidth=1)
    small = {"s": 4, "alpha": 0.3} if many else {"s": 16, "alpha": 0.8}
    points = {"color": colour, "linewidth": 0, "legend": False, "clip_on": False, **small}
    sns.scatterplot(x=magnitude, y=np.clip(error, -reach, reach), ax=ax, **points)
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
    ax.set(xlim=(13, 20), ylim=(-reach * 1.02, reach * 1.02), xlabel="true magnitude", ylabel="true − measured / mag")
    return f"\n{len(error)} stars, {int((np.abs(error) > reach).sum())} beyond ± {reach:g}"


@style.panel
def histogram(ax: Axes, error: np.ndarray, colour: str, reach: float) -> str:
    """Percentage of stars in thirty bins of error, (n,) mag; what lies beyond `reach` is in the outermost bins."""
    edges = np.linspace(-reach, reach, 31)
    inside = np.clip(error, edges[:2].mean(), edges[-2:].mean())
    bars = {"stat": "percent", "color": colour, "alpha": 1, "edgecolor": "white", "linewidth": 0.4}
    sns.histplot(x=inside, bins=edges, ax=ax, **bars)
    ax.set_ylim(0, 1.25 * ax.dataLim.ymax)
    within = metrics.share(np.abs(error) < FLUX_2_5_PERCENT)
    interval = f"({100 * within.low:.0f} … {100 * within.high:.0f} %)"
    style.note(ax, f"within 2.5 %:\n{100 * within.value:.0f} % of stars\n{interval}", fontsize=8.5)
    ax.set(xlim=(-reach, reach), xlabel="true − measured / mag", ylabel="stars / %")
    return "\nthe rest in the outermost bins"


@style.styled
def figure_8(table: pd.DataFrame) -> Figure:
    """Draw a panel for each method: SDSS above, the simulation below.

    Each panel counts stars in squares of 0.02 px on a logarithmic scale. Blue and green circles hold errors up to 0.15
    and 0.21 px, dotted ones up to half of that; the red dashed lines enclose 99 % of the errors in x and in y. White
    contours of many stars hold 68 and 95 % of them.
    """
    shown = [*_shown(table, "sdss"), *_shown(table, "simulation")]
    columns = len(shown) // 2
    figure, axes = style.new(2, columns, height={2: 11.0}.get(columns, 9.0), width=7.2, sharey=True)
    errors = {title: scores.errors(rows)[["x", "y"]].dropna() for _, title, rows in shown}
    counts = (np.histogram2d(found["x"], found["y"], [PX_EDGES, PX_EDGES])[0].max() for found in errors.values())
    scale = LogNorm(1, max(2, *map(int, counts)))
    for ax, (title, found) in zip(axes.flat, errors.items(), strict=True):
        positions(ax, found, scale, title=title.replace(", ", "\n"))
        ax.title.set_fontsize(10.5)
    for ax in axes[:, 0]:
        ax.set_ylabel("Δy / px")
    if any(map(len, errors.values())):
        place = {"location": "bottom", "shrink": 0.6, "aspect": 40, "pad": 0.03}
        bar = figure.colorbar(ScalarMappable(scale, COLOUR_MAP), ax=axes.ravel().tolist(), **place)
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
    distance = np.hypot(dx, dy)
    text = []
    for radius, colour in CIRCLES:
        ax.add_patch(Circle((0, 0), radius, fill=False, edgecolor=style.COLOURS[colour], linewidth=1.6, zorder=3))
        share = metrics.share(distance < radius)
        interval = f"({100 * share.low:.1f} … {100 * share.high:.1f})"
        text.append(f"within {radius:g} px:\n{100 * share.value:.1f} % {interval}")
    for radius, (_, colour) in zip(DIAMETERS, CIRCLES, strict=True):
        dotted = {"linestyle": ":", "edgecolor": style.COLOURS[colour], "linewidth": 1.2, "zorder": 3}
        ax.add_patch(Circle((0, 0), radius, fill=False, **dotted))
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


@style.styled
def figure_9(table: pd.DataFrame, method: str = "pnet", *, seed: int) -> Figure:
    """Draw (a) SDSS and (b) the simulation: average calibration left, confidence band right.

    `table` holds measurements of a network, the `method`, with mag_err (recalibrated) and, where there are any,
    mag_aleatoric and mag_epistemic (as the network gave them); `seed` is that of the draws behind the floor of the
    miscalibration area.
    """
    figure, axes = style.new(2, 2, height=6.9)
    for row, letter, dataset in zip(axes, "ab", ("sdss", "simulation"), strict=True):
        stars = scores.matched(scores.select(table, dataset, method), "mag", "mag_err", "truth_mag")
        title = f"({letter}) {DATASET_NAMES[dataset]}"
        calibration(row[0], stars, derive(seed, "floor", dataset), title=f"{title}: calibration")
        band(row[1], stars, title=f"{title}: 95 % band")
    return figure


@style.panel
def calibration(ax: Axes, stars: pd.DataFrame, seed: int) -> None:
    """Observed against predicted proportion of stars with the final σ and, dotted, with the network's own."""
    toolbox = metrics.toolbox()
    truth, mean, sigma = stars[["truth_mag", "mag", "mag_err"]].to_numpy(float).T
    toolbox.plot_calibration(mean, sigma, truth, curve_label="recalibrated", ax=ax)
    for text in list(ax.texts):  # the toolbox rounds the area to two digits, which hides what we are after
        text.remove()
    ideal, curve = ax.get_lines()[:2]
    ideal.set(color=style.COLOURS["grey"], label="ideal")
    curve.set(color=style.COLOURS["pnet"])
    raw = np.hypot(stars["mag_aleatoric"], stars["mag_epistemic"]).to_numpy(float)
    usable = np.isfinite(raw) & (raw > 0)
    if usable.any():
        expected, observed = toolbox.get_proportion_lists_vectorized(mean[usable], raw[usable], truth[usable])
        ax.plot(expected, observed, ":", color=style.COLOURS["sextractor"], label="before")
    area = calibration_metrics.miscalibration_area(metrics.standardised(truth, mean, sigma))
    floor = calibration_metrics.miscalibration_floor(len(truth), seed=seed)
    text = f"{len(truth)} stars\nmiscalibration\narea {area:.3f}\n(perfect: {floor:.3f})"
    style.note(ax, text, "lower right", fontsize=9)
    ax.legend(loc="upper left", fontsize=9)
    ax.set(xlabel="predicted proportion in interval", ylabel="observed proportion in interval")
    _square(ax)


@style.panel
def band(ax: Axes, stars: pd.DataFrame) -> None:
    """Errors inside the predicted 95 % interval, stars ordered by their predicted uncertainty."""
    stars = stars.sort_values("mag_err", kind="stable")
    sigma, error = stars["mag_err"].to_numpy(float), (stars["truth_mag"] - stars["mag"]).to_numpy(float)
    n = len(error)
    metrics.toolbox().plot_xy(np.zeros(n), sigma, error, np.arange(n), num_stds_confidence_bound=BAND, ax=ax)
    points, line = ax.get_lines()[:2]
    small = {"markersize": 2, "alpha": 0.5} if n > style.MANY else {"markersize": 5, "alpha": 0.9}
    colour = style.COLOURS["sextractor"]
    points.set(zorder=1.5, markerfacecolor=colour, markeredgecolor=colour, **small)
    line.set_linewidth(1.2)
    ax.get_legend().remove()
    reach = max(1.3 * BAND * float(sigma.max()), float(np.quantile(np.abs(error), 0.98)))
    beyond = int((np.abs(error) > reach).sum())
    inside = metrics.share(np.abs(error) <= BAND * sigma)
    text = f"in the band: {100 * inside.value:.1f} %\n({100 * inside.low:.1f} … {100 * inside.high:.1f} %)"
    style.note(ax, text + (f"\n{beyond} beyond the frame" if beyond else ""), fontsize=9)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(-reach, reach))
    ax.set(xlabel="star, by rising predicted σ", ylabel="true − predicted / mag")
    _square(ax)


def _square(ax: Axes) -> None:
    """Make a panel square whatever its limits: the toolbox fixes the data's ratio instead."""
    ax.set_aspect("auto")
    ax.set_box_aspect(1)
