"""The SDSS selection: how many stars there are at each magnitude (Figure 1), and a patch with its objects."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from pnet.book.figures import panels, style
from pnet.common.errors import DataError
from pnet.frame import Frame
from pnet.sky.patches import SIZE, Patch

BRIGHT, FAINT = 13.0, 20.0  # magnitudes that are shown


@style.styled
def figure_1(table: pd.DataFrame) -> Figure:
    """Draw the stars that count as bars and all point sources of the same range as an outline.

    Parameters
    ----------
    table : DataFrame
        Columns ``mag``, ``kind``, ``counted`` (`pnet.sdss.catalogue.select`).

    Raises
    ------
    DataError
        If a column is missing.
    """
    missing = [name for name in ("mag", "kind", "counted") if name not in table.columns]
    if missing:
        raise DataError(f"the selection lacks the columns {missing}; it has {list(table.columns)}")
    figure, [[ax]] = style.new(1, 1, height=3.6)
    counted = table.loc[table["counted"], "mag"]
    stars = table.loc[(table["kind"] == "star") & table["mag"].between(BRIGHT, FAINT), "mag"]
    if counted.empty:
        style.empty(ax, "SDSS", "no stars")
        return figure
    edges = panels.counts(ax, counted, BRIGHT, FAINT, f"stars that count ({counted.size})")
    line = {"element": "step", "fill": False, "linewidth": 1.8, "color": style.COLOURS["truth"]}
    sns.histplot(x=stars, bins=edges, ax=ax, label=f"all point sources ({stars.size})", **line)
    ax.set(xlabel="apparent magnitude g")
    ax.legend(loc="upper left")
    return figure


def inside(patch: Patch, table: pd.DataFrame) -> pd.Series:
    """Return which rows of a frame's catalogue lie on a patch."""
    return table["x"].between(patch.left, patch.left + SIZE - 1) & table["y"].between(patch.top, patch.top + SIZE - 1)


@style.styled
def patch(frame: Frame, table: pd.DataFrame, patch: Patch) -> Figure:
    """Draw a patch of a frame (`pnet.sky.patches.split`) with its objects.

    Parameters
    ----------
    table : DataFrame
        Columns ``x``, ``y`` (px), ``kind``, ``counted`` (`pnet.sdss.catalogue.select`).
    """
    areas = {"o": 130, "s": 45, "D": 40}
    figure = panels.objects(frame, table[inside(patch, table)], "other point source", lambda _, marker: areas[marker])
    xlim, ylim = ((low - 0.5, low + SIZE - 0.5) for low in (patch.left, patch.top))
    figure.axes[0].set(xlim=xlim, ylim=ylim)
    return figure
