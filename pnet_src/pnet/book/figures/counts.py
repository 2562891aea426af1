"""How many stars there are at each magnitude: of the SDSS selection (Figure 1), and of simulated frames."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from pnet.book.figures import style
from pnet.common.errors import DataError
from pnet.simulation.recipe import FieldKind

STEP = 0.5  # mag; 66 stars of one field leave about five in a bin


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
    figure, axes = style.new(1, 1, height=3.6)
    ax = axes[0, 0]
    edges = np.arange(13.0, 20.0 + STEP / 2, STEP)
    counted = table.loc[table["counted"], "mag"].to_numpy(float)
    stars = table.loc[table["kind"] == "star", "mag"].to_numpy(float)
    stars = stars[(stars >= edges[0]) & (stars <= edges[-1])]
    if counted.size == 0:
        style.empty(ax, "SDSS", "no stars")
        return figure
    _bars(ax, counted, edges, f"stars that count ({counted.size})")
    sns.histplot(
        x=stars, bins=edges, element="step", fill=False, linewidth=1.8, color=style.COLOURS["truth"], ax=ax,
        label=f"all point sources ({stars.size})",
    )  # fmt: skip
    ax.set(xlim=(edges[0], edges[-1]), xlabel="apparent magnitude g", ylabel=f"stars per {STEP:g} mag")
    ax.legend(loc="upper left")
    return figure


@style.styled
def simulated(truth: pd.DataFrame, kind: FieldKind, frames: int) -> Figure:
    """Draw the counts of simulated stars with those that the recipe expects, 10^(slope·m) with the same total.

    Parameters
    ----------
    truth : DataFrame
        ``mag`` and ``kind`` of the sources of all frames.
    kind : FieldKind
        What they were drawn from.
    frames : int
        Number of frames, for the label.
    """
    figure, axes = style.new(1, 1, height=3.6)
    ax = axes[0, 0]
    stars = truth.loc[truth["kind"] == "star", "mag"].to_numpy(float)
    if stars.size == 0:
        style.empty(ax, "", "no stars")
        return figure
    low, high = kind.magnitudes
    edges = np.arange(low, high + STEP / 2, STEP)
    _bars(ax, stars, edges, f"{stars.size} stars in {frames} frames")
    growth = 10 ** (kind.slope * edges) if kind.slope else edges
    expected = stars.size * np.diff(growth) / (growth[-1] - growth[0])
    ax.errorbar(
        (edges[:-1] + edges[1:]) / 2, expected, yerr=np.sqrt(expected), fmt="o", markersize=4, capsize=2.5,
        linewidth=1.2, color=style.COLOURS["limit"], label=f"recipe: 10^({kind.slope:g} m), Poisson",
    )  # fmt: skip
    ax.set(xlim=(low, high), xlabel="magnitude", ylabel=f"stars per {STEP:g} mag")
    ax.legend(loc="upper left")
    return figure


def _bars(ax, magnitudes: np.ndarray, edges: np.ndarray, label: str) -> None:
    sns.histplot(
        x=magnitudes, bins=edges, shrink=0.92, alpha=1, linewidth=0, color=style.COLOURS["pnet"], ax=ax, label=label
    )
