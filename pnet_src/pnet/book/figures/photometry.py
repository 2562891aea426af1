"""Figure 7: photometric error against magnitude and its histogram; and the scatter in units of the limit."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from pnet.book.figures import style
from pnet.common import metrics
from pnet.evaluation import scores

if TYPE_CHECKING:
    from pnet.evaluation.ledger import Ledger

SHOWN = 0.15  # mag; the paper's errors are "mostly within 0.5", ours and SExtractor's within a third of that
BIN = 0.01  # mag
FLUX_2_5_PERCENT = 2.5 * np.log10(1.025)  # mag


@style.styled
def figure_7(table: pd.DataFrame) -> Figure:
    """Draw panels a to f: baseline on SDSS, PNet on SDSS, PNet on the simulation; error left, histogram right.

    As in the paper these are the magnitudes of the detection net; where a table has none, PNet's final ones.
    """
    figure, axes = style.new(3, 2, height=9.6)
    rows = ((scores.baseline_of(table, "sdss") or "sextractor", "sdss"), ("pnet", "sdss"), ("pnet", "simulation"))
    for (left, right), (method, dataset), letters in zip(axes, rows, ("ab", "cd", "ef"), strict=True):
        title = f"{style.NAMES[method]}, {style.DATASETS[dataset]}"
        stars, column = _stars(table, dataset, method)
        if stars.empty:
            style.empty(left, f"({letters[0]}) {title}")
            style.empty(right, f"({letters[1]}) {title}")
            continue
        delta = metrics.magnitude_error(stars["truth_mag"].to_numpy(), stars[column].to_numpy())
        colour = style.COLOURS[method]
        _against_magnitude(left, stars, delta, f"({letters[0]}) {title}", colour, dataset == "simulation")
        _histogram(right, delta, f"({letters[1]}) {title}", colour)
    return figure


def _stars(table: pd.DataFrame, dataset: str, method: str) -> tuple[pd.DataFrame, str]:
    """Return the matched stars and the column that holds the magnitude to show."""
    selected = scores.select(table, dataset, method)
    stars = scores.matched(selected, "mag_net", "truth_mag")
    return (stars, "mag_net") if len(stars) else (scores.matched(selected, "mag", "truth_mag"), "mag")


def _against_magnitude(ax: Axes, stars: pd.DataFrame, delta: np.ndarray, title: str, colour: str, limit: bool) -> None:
    """Error against true magnitude; what lies beyond the frame is drawn at its edge and counted."""
    magnitude = stars["truth_mag"].to_numpy()
    few = len(delta) < 300
    ax.axhline(0, color=style.COLOURS["grey"], linewidth=1)
    ax.plot(
        magnitude,
        np.clip(delta, -SHOWN, SHOWN),
        "o",
        markersize=4 if few else 2,
        alpha=0.8 if few else 0.35,
        markeredgewidth=0,
        color=colour,
        clip_on=False,
    )
    if limit:
        _limit_lines(ax, magnitude, stars["limit_mag"].to_numpy())
    beyond = int((np.abs(delta) > SHOWN).sum())
    ax.set(xlim=(13, 20), ylim=(-SHOWN * 1.02, SHOWN * 1.02), xlabel="true magnitude", ylabel="true − measured / mag")
    ax.set_title(f"{title}\n{len(delta)} stars, {beyond} beyond ± {SHOWN:g}", fontsize=10.5)


def _limit_lines(ax: Axes, magnitude: np.ndarray, limit: np.ndarray) -> None:
    """Draw ± the median bound in half-magnitude bins."""
    edges = np.arange(13, 20.01, 0.5)
    points = []
    for low, member in zip(edges[:-1], metrics.by_bin(magnitude, edges), strict=True):
        bounds = limit[member & np.isfinite(limit)]
        if len(bounds):
            points.append((low + 0.25, np.median(bounds)))
    if points:
        centre, bound = np.array(points).T
        ax.plot(centre, bound, color=style.COLOURS["limit"], linewidth=1.4, label="± Cramér–Rao limit (1 σ)")
        ax.plot(centre, -bound, color=style.COLOURS["limit"], linewidth=1.4)
        ax.legend(loc="upper left", fontsize=8.5, borderpad=0.2)


def _histogram(ax: Axes, delta: np.ndarray, title: str, colour: str) -> None:
    """Percentage of stars per 0.01 mag of error; what lies beyond is in the outermost bins."""
    edges = np.arange(-round(SHOWN / BIN), round(SHOWN / BIN) + 1) * BIN
    inside = np.clip(delta, edges[0] + BIN / 2, edges[-1] - BIN / 2)
    share = 100 * np.histogram(inside, edges)[0] / len(delta)
    ax.bar(edges[:-1], share, width=BIN, align="edge", color=colour, edgecolor="white", linewidth=0.4)
    within = metrics.rate(int((np.abs(delta) < FLUX_2_5_PERCENT).sum()), len(delta))
    style.note(
        ax,
        f"within 2.5 %:\n{100 * within.value:.0f} % of stars\n({100 * within.low:.0f} … {100 * within.high:.0f} %)",
        fontsize=8.5,
    )
    ax.set(xlim=(edges[0], edges[-1]), xlabel="true − measured / mag", ylabel="stars / %")
    ax.set_ylim(0, 1.25 * share.max())
    ax.set_title(f"{title}\nthe rest in the outermost bins", fontsize=10.5)


@style.styled
def over_limit(
    ledger: "Ledger", columns: dict[str, tuple[str, str]], title: str, dataset: str = "simulation"
) -> Figure:
    """Draw scatter over limit per magnitude bin, with intervals; 1 is the best that is possible.

    Parameters
    ----------
    ledger : Ledger
        Holding ``<dataset>.<method>.<what>_over_limit.<bin>``.
    columns : dict
        Label → (method, what), for example ``{"PNet": ("pnet", "mag")}``.
    title : str
        What the scatter is of.
    """
    figure, axes = style.new(1, 1, height=4.4)
    ax = axes[0, 0]
    markers = ("o", "s", "D", "^")
    drawn = 0
    for number, (label, (method, what)) in enumerate(columns.items()):
        entries = [(low, ledger.get(f"{dataset}.{method}.{what}_over_limit.{low:g}")) for low in scores.BINS[:-1]]
        entries = [(low, entry) for low, entry in entries if entry is not None and entry.value is not None]
        if not entries:
            continue
        drawn += 1
        # neighbouring methods stand beside each other, so that their intervals can be told apart
        centre = np.array([low for low, _ in entries]) + 0.5 + 0.12 * (number - (len(columns) - 1) / 2)
        value = np.array([entry.value for _, entry in entries])
        low = np.array([entry.value if entry.low is None else entry.low for _, entry in entries])
        high = np.array([entry.value if entry.high is None else entry.high for _, entry in entries])
        # with few stars a percentile interval can lie beside the value; error bars must not be negative
        reach = np.maximum([value - low, high - value], 0)
        ax.errorbar(
            centre,
            value,
            yerr=reach,
            marker=markers[number % 4],
            markersize=5,
            color=style.COLOURS["purple" if what.startswith("net_") else method],
            linestyle="--" if what == "y" else "-",
            linewidth=1.4,
            elinewidth=1.2,
            capsize=2,
            label=label,
        )
    if not drawn:
        style.empty(ax, title)
        return figure
    ax.axhline(1, color=style.COLOURS["limit"], linewidth=1.4)
    ax.text(13.05, 1.0, "limit", va="bottom", fontsize=9.5)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    bottom, top = ax.get_ylim()
    ticks = [tick for tick in (0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 30, 50, 100, 200, 500) if bottom <= tick <= top]
    ax.set_yticks(ticks)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlim=(13, 20), xlabel="true magnitude", ylabel="scatter / limit", title=title)
    ax.legend(loc="best")
    return figure
