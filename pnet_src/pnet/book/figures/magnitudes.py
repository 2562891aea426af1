"""Figure 1: how many stars of the SDSS data set there are at each apparent magnitude."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import style
from pnet.common.errors import DataError

STEP = 0.5  # mag; 66 stars of one field leave about five in a bin


@style.styled
def figure_1(table: pd.DataFrame) -> Figure:
    """Draw the histogram of a selection.

    Parameters
    ----------
    table : DataFrame
        Columns ``mag``, ``kind``, ``counted`` (`pnet.sdss.catalogue.select`).
    """
    figure, axes = style.new(1, 1, height=3.6)
    magnitude_histogram(axes[0, 0], table)
    return figure


def magnitude_histogram(ax: Axes, table: pd.DataFrame, step: float = STEP) -> Axes:
    """Draw the stars that count as bars and all point sources of the same range as an outline; return `ax`.

    Parameters
    ----------
    ax : Axes
    table : DataFrame
        As in :func:`figure_1`.
    step : float
        Width of a bin, mag.

    Raises
    ------
    DataError
        If a column is missing.
    """
    missing = [name for name in ("mag", "kind", "counted") if name not in table.columns]
    if missing:
        raise DataError(f"the selection lacks the columns {missing}; it has {list(table.columns)}")
    edges = np.arange(13.0, 20.0 + step / 2, step)
    counted = table.loc[table["counted"], "mag"].to_numpy(float)
    stars = table.loc[table["kind"] == "star", "mag"].to_numpy(float)
    if counted.size == 0:
        style.empty(ax, "SDSS", "no stars")
        return ax
    ax.hist(counted, edges, color=style.COLOURS["pnet"], rwidth=0.92, label=f"stars that count ({counted.size})")
    inside = stars[(stars >= edges[0]) & (stars <= edges[-1])]
    ax.hist(inside, edges, histtype="step", color=style.COLOURS["truth"], label=f"all point sources ({inside.size})")
    ax.set(xlim=(edges[0], edges[-1]), xlabel="apparent magnitude g", ylabel=f"stars per {step:g} mag")
    ax.legend(loc="upper left")
    return ax
