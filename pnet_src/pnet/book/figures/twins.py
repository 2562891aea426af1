"""A check of one's own frame: what was measured of copies of its stars, by magnitude."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import style

LOOKS = {"mag": ("pnet", "o"), "x": ("sextractor", "s"), "y": ("truth", "D")}  # colour and marker
TRUE = (0.9, 1.1)  # scatter over error bar: what the project asks of itself


@style.styled
def check(table: pd.DataFrame, rows: pd.DataFrame) -> Figure:
    """Draw `differences` of twins and their `summary` (`pnet.evaluation.twins`): magnitudes above, error bars below."""
    figure, axes = style.new(2, 1, height=5.2, sharex=True, height_ratios=(2, 1))
    ends = np.array([row.split("–") for row in rows["mag"]], dtype=float)
    _magnitudes(axes[0, 0], table.dropna(subset="mag_delta"), rows, ends, title="copies of the frame's own stars")
    _pulls(axes[1, 0], rows, ends.mean(axis=1), title="are the error bars true?")
    axes[0, 0].set(xlim=(ends.min(), ends.max()), xlabel="magnitude")
    style.legend_below(figure, axes, ncols=3)
    return figure


def save(table: pd.DataFrame, rows: pd.DataFrame, catalogue: Path) -> Path:
    """Write `check` as PNG beside a catalogue, named after it; return the path."""
    return style.save(check(table, rows), catalogue.with_suffix(".check.png"))


@style.panel
def _magnitudes(ax: Axes, table: pd.DataFrame, rows: pd.DataFrame, ends: np.ndarray) -> None:
    delta, sigma = 1000 * table["mag_delta"], 1000 * table["mag_sigma"]
    means = [sigma[table["mag"].between(*pair, inclusive="left")].mean() for pair in ends]
    band = np.repeat(np.nan_to_num(means), 2)
    bias, scatter = (np.array([1000 * row.value for row in rows[name]]) for name in ("bias", "scatter"))
    reach = 1.2 * max(np.nan_to_num(abs(bias) + 2.5 * scatter).max(), band.max())
    ax.fill_between(ends.ravel(), -band, band, color=style.COLOURS["grey"], alpha=0.2, lw=0, label="mean error bar")
    shown = delta.clip(-reach, reach)  # a copy beside a galaxy may be anywhere
    ax.plot(table["mag"], shown, ".", color=style.COLOURS["psfex"], markersize=4, clip_on=False, label="a copy")
    ax.axhline(0, color=style.COLOURS["limit"], linewidth=1)
    line = {"fmt": "o", "color": style.COLOURS["pnet"], "capsize": 3, "label": "median and scatter"}
    ax.errorbar(ends.mean(axis=1), bias, yerr=scatter, **line)
    if outside := int((shown != delta).sum()):
        style.note(ax, f"{outside} beyond this range are drawn at its edge")
    ax.set(ylabel="measured − true / mmag", ylim=(-reach, reach))
    ax.tick_params(labelbottom=True)


@style.panel
def _pulls(ax: Axes, rows: pd.DataFrame, middle: np.ndarray) -> None:
    ax.axhspan(*TRUE, color=style.COLOURS["truth"], alpha=0.2, linewidth=0)
    for number, (name, (colour, marker)) in enumerate(LOOKS.items()):
        look = {"fmt": marker, "color": style.COLOURS[colour], "label": name}
        style.estimates(ax, middle + 0.08 * (number - 1), rows[f"{name}_pull"], **look)
    ax.set(xlabel="magnitude", ylabel="scatter /\nerror bar", ylim=(0, None))
    ax.legend(loc="best", ncols=3)
