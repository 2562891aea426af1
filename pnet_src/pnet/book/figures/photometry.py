"""Figure 7: photometric error against magnitude and its histogram; and the scatter in units of the limit."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import panels, style
from pnet.book.names import DATASET_NAMES, METHOD_NAMES
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

    These are the magnitudes of the refinement step, before the BPNN; where a table has none, PNet's final ones.
    """
    figure, axes = style.new(3, 2, height=9.6)
    rows = ((scores.baseline_of(table, "sdss") or "sextractor", "sdss"), ("pnet", "sdss"), ("pnet", "simulation"))
    for (left, right), (method, dataset), letters in zip(axes, rows, ("ab", "cd", "ef"), strict=True):
        title = f"{METHOD_NAMES[method]}, {DATASET_NAMES[dataset]}"
        stars, column = _stars(table, dataset, method)
        if stars.empty:
            style.empty(left, f"({letters[0]}) {title}")
            style.empty(right, f"({letters[1]}) {title}")
            continue
        magnitude = stars["truth_mag"].to_numpy(float)
        error = metrics.magnitude_error(magnitude, stars[column].to_numpy(float))
        limit = stars["limit_mag"].to_numpy(float) if dataset == "simulation" else None
        colour = style.COLOURS[method]
        panels.error_against_magnitude(left, magnitude, error, reach=SHOWN, colour=colour, limit=limit)
        beyond = int((np.abs(error) > SHOWN).sum())
        left.set(xlabel="true magnitude", ylabel="true − measured / mag")
        left.set_title(f"({letters[0]}) {title}\n{len(error)} stars, {beyond} beyond ± {SHOWN:g}", fontsize=10.5)
        _histogram(right, error, colour)
        right.set_title(f"({letters[1]}) {title}\nthe rest in the outermost bins", fontsize=10.5)
    return figure


def _stars(table: pd.DataFrame, dataset: str, method: str) -> tuple[pd.DataFrame, str]:
    """Return the matched stars and the column that holds the magnitude to show."""
    selected = scores.select(table, dataset, method)
    stars = scores.matched(selected, "mag_net", "truth_mag")
    return (stars, "mag_net") if len(stars) else (scores.matched(selected, "mag", "truth_mag"), "mag")


def _histogram(ax: Axes, error: np.ndarray, colour: str) -> None:
    """Percentage of stars per 0.01 mag of error; what lies beyond is in the outermost bins."""
    edges = np.arange(-round(SHOWN / BIN), round(SHOWN / BIN) + 1) * BIN
    inside = np.clip(error, edges[0] + BIN / 2, edges[-1] - BIN / 2)
    sns.histplot(x=inside, bins=edges, stat="percent", color=colour, alpha=1, edgecolor="white", linewidth=0.4, ax=ax)
    ax.set_ylim(0, 1.25 * ax.dataLim.ymax)
    within = metrics.rate(int((np.abs(error) < FLUX_2_5_PERCENT).sum()), len(error))
    interval = f"({100 * within.low:.0f} … {100 * within.high:.0f} %)"
    style.note(ax, f"within 2.5 %:\n{100 * within.value:.0f} % of stars\n{interval}", fontsize=8.5)
    ax.set(xlim=(edges[0], edges[-1]), xlabel="true − measured / mag", ylabel="stars / %")


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
    figure, [[ax]] = style.new(1, 1, height=4.4)
    series = {
        label: (f"{dataset}.{method}.{what}_over_limit", "purple" if what.startswith("net_") else method)
        for label, (method, what) in columns.items()
    }
    if not panels.over_limit(ax, ledger, series, dashed=[label for label, (_, what) in columns.items() if what == "y"]):
        style.empty(ax, title)
        return figure
    ax.text(13.05, 1.0, "limit", va="bottom", fontsize=9.5)
    ax.set(ylabel="scatter / limit", title=title)
    ax.legend(loc="best")
    return figure
