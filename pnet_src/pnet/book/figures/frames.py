"""Frames with their objects: a simulated one with its truth, a patch of SDSS with its catalogue."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pnet.book.figures import panels, style
from pnet.frame import Frame
from pnet.sky.catalogue import mark_counted
from pnet.sky.patches import SIZE, Patch


@style.styled
def simulated(frame: Frame, truth: pd.DataFrame) -> Figure:
    """Draw a simulated frame with the sources of its truth; symbols are the larger the brighter the source.

    Parameters
    ----------
    frame : Frame
    truth : DataFrame
        ``x``, ``y`` (px from 0), ``mag``, ``flux``, ``kind``.
    """
    table = mark_counted(truth, frame)
    height, width = frame.shape
    table = table[table["x"].between(-0.5, width - 0.5) & table["y"].between(-0.5, height - 0.5)]
    return _draw(frame, table, "star left out", lambda rows, _: 30 + 22 * np.clip(21 - rows["mag"], 0, 8))


def inside(patch: Patch, table: pd.DataFrame) -> pd.Series:
    """Return which rows of a frame's catalogue lie on a patch."""
    return table["x"].between(patch.left, patch.left + SIZE - 1) & table["y"].between(patch.top, patch.top + SIZE - 1)


@style.styled
def sdss(frame: Frame, table: pd.DataFrame, patch: Patch) -> Figure:
    """Draw a patch of a frame (`pnet.sky.patches.split`) with its objects.

    Parameters
    ----------
    frame : Frame
    table : DataFrame
        Columns ``x``, ``y``, ``kind``, ``counted`` (`pnet.sdss.catalogue.select`).
    patch : Patch
    """
    areas = {"o": 130, "s": 45, "D": 40}
    figure = _draw(frame, table[inside(patch, table)], "other point source", lambda _, marker: areas[marker])
    ends = {"xlim": (patch.left, patch.left + SIZE - 1), "ylim": (patch.top, patch.top + SIZE - 1)}
    figure.axes[0].set(**{name: (low - 0.5, high + 0.5) for name, (low, high) in ends.items()})
    return figure


def _draw(frame: Frame, table: pd.DataFrame, left_out: str, area) -> Figure:
    star, counted = table["kind"] == "star", table["counted"]
    kinds = (
        ("star that counts", counted, "o", "pnet"),
        (left_out, ~counted & star, "s", "sextractor"),
        ("galaxy", ~star, "D", "truth"),
    )
    groups = {
        label: (table[chosen], marker, colour, area(table[chosen], marker))
        for label, chosen, marker, colour in kinds
        if chosen.any()
    }
    figure, axes = style.new(1, 1, height=6.5)
    panels.sky_with_objects(axes[0, 0], frame, groups)
    return figure
