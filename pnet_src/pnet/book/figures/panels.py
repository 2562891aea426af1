"""Panels that several figures share: most draw arrays into an `ax`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import style
from pnet.common.metrics import Estimate
from pnet.frame import Frame
from pnet.sky import background

if TYPE_CHECKING:
    from pnet.evaluation.ledger import Entry

STEP = 0.5  # mag, of counts; 66 stars of one field leave about five in a bin
MANY = 300  # stars from which on points become small and a median and a spread say more


def intervals(values: "Sequence[Estimate | Entry]") -> tuple[np.ndarray, np.ndarray]:
    """Return values, (n,), and how far their intervals reach down and up, (2, n), as error bars take them."""
    value = np.array([one.value for one in values])
    low, high = np.array([[one.value if end is None else end for end in (one.low, one.high)] for one in values]).T
    # a percentile interval of few stars can lie beside the value, and Wilson's miss it by a rounding error
    return value, np.maximum([value - low, high - value], 0)


def estimates(ax: Axes, x: Sequence[float], values: "Sequence[Estimate | Entry]", **options) -> None:
    """Draw estimates with their intervals; `options` are those of `Axes.errorbar`."""
    value, reach = intervals(values)
    ax.errorbar(x, value, yerr=reach, **{"markersize": 5, "linewidth": 1.4, "elinewidth": 1.2, "capsize": 2, **options})


def sweep(ax: Axes, threshold: np.ndarray, precision: np.ndarray, recall: np.ndarray) -> None:
    """Draw precision and recall against the threshold of the confidence; each is value, low, high: shape (3, n)."""
    series = ("precision", precision, "pnet", "-"), ("recall", recall, "purple", "--")
    for name, (value, low, high), colour, line in series:
        ax.fill_between(threshold, low, high, color=style.COLOURS[colour], alpha=0.2, linewidth=0)
        ax.plot(threshold, value, line, color=style.COLOURS[colour], label=name)
    ax.set(xlim=(0, 1), xlabel="confidence threshold", ylabel="precision, recall")


def error_against_magnitude(
    ax: Axes, magnitude: np.ndarray, error: np.ndarray, *, reach: float, colour: str, limit: np.ndarray | None = None
) -> None:
    """Draw errors against the true magnitude; what lies beyond `reach` is drawn at the edge.

    Of many stars the median and the central 68 % by half magnitude stand over the points; with the bound of every star
    (`limit`), ± its median, which the 68 % of a perfect measurement would keep.
    """
    many = len(error) > MANY
    ax.axhline(0, color=style.COLOURS["grey"], linewidth=1)
    shown = np.clip(error, -reach, reach)
    small = {"s": 4, "alpha": 0.3} if many else {"s": 16, "alpha": 0.8}
    sns.scatterplot(x=magnitude, y=shown, color=colour, linewidth=0, legend=False, clip_on=False, ax=ax, **small)
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
    ax.set(xlim=(13, 20), ylim=(-reach * 1.02, reach * 1.02))


def counts(ax: Axes, magnitudes: pd.Series, low: float, high: float, label: str) -> np.ndarray:
    """Draw how many stars there are in each `STEP` of magnitude as bars; return the edges of the bins."""
    edges = np.arange(low, high + STEP / 2, STEP)
    bars = {"shrink": 0.92, "alpha": 1, "linewidth": 0, "color": style.COLOURS["pnet"]}
    sns.histplot(x=magnitudes, bins=edges, ax=ax, label=label, **bars)
    ax.set(xlim=(low, high), ylabel=f"stars per {STEP:g} mag")
    return edges


def objects(
    frame: Frame, table: pd.DataFrame, left_out: str, area: Callable[[pd.DataFrame, str], float | pd.Series]
) -> Figure:
    """Return a figure of a frame in units of its noise, arcsinh, with its objects; masked pixels are white.

    Parameters
    ----------
    table : DataFrame
        Objects: ``x``, ``y`` (px), ``kind``, ``counted``.
    left_out : str
        What stars that do not count are called.
    area : callable
        Objects of one kind and their marker → area of the markers, points².
    """
    figure, [[ax]] = style.new(1, 1, height=6.5)
    sky = background.estimate(frame)
    signal = np.arcsinh((frame.image - sky.level) / sky.rms)
    ax.imshow(np.where(frame.mask, np.nan, signal), cmap="gray_r", vmin=-1.5, vmax=5.5, origin="lower")
    star, counted = table["kind"] == "star", table["counted"]
    kinds = ("star that counts", counted, "o", "pnet"), (left_out, ~counted & star, "s", "sextractor")
    for label, chosen, marker, colour in (*kinds, ("galaxy", ~star, "D", "truth")):
        if chosen.any():
            rows = table[chosen]
            marks = {"marker": marker, "facecolors": "none", "edgecolors": style.COLOURS[colour], "linewidths": 1.1}
            ax.scatter(rows["x"], rows["y"], s=area(rows, marker), label=f"{label} ({len(rows)})", **marks)
    height, width = frame.shape
    ax.set(xlabel="x / px", ylabel="y / px", xlim=(-0.5, width - 0.5), ylim=(-0.5, height - 0.5))
    ax.grid(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)
    return figure
