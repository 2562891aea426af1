"""A patch of sky with the objects of its catalogue."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import style
from pnet.frame import Frame
from pnet.sky import background
from pnet.sky.patches import SIZE, Patch


def inside(patch: Patch, table: pd.DataFrame) -> pd.Series:
    """Return which rows of a frame's catalogue lie on a patch."""
    return table["x"].between(patch.left, patch.left + SIZE - 1) & table["y"].between(patch.top, patch.top + SIZE - 1)


@style.styled
def patch_figure(frame: Frame, table: pd.DataFrame, patch: Patch) -> Figure:
    """Draw a patch of a frame (`pnet.sky.patches.split`) with its objects."""
    figure, axes = style.new(1, 1, height=6.4)
    ax = show_patch(axes[0, 0], frame, table[inside(patch, table)])
    ax.set(xlim=(patch.left - 0.5, patch.left + SIZE - 0.5), ylim=(patch.top - 0.5, patch.top + SIZE - 0.5))
    return figure


def show_patch(ax: Axes, frame: Frame, table: pd.DataFrame) -> Axes:
    """Show a frame in units of its noise, stars that count circled, other objects ticked; return `ax`.

    Parameters
    ----------
    ax : Axes
    frame : Frame
    table : DataFrame
        Columns ``x``, ``y``, ``kind``, ``counted``.
    """
    sky = background.estimate(frame)
    signal = np.arcsinh((frame.image - sky.level) / sky.rms)
    ax.imshow(np.where(frame.mask, np.nan, signal), cmap="gray_r", vmin=-1.5, vmax=5, origin="lower")
    for rows, marker, size, colour, label in (
        (table[table["counted"]], "o", 130, style.COLOURS["pnet"], "star that counts"),
        (
            table[~table["counted"] & (table["kind"] == "star")],
            "s",
            45,
            style.COLOURS["sextractor"],
            "other point source",
        ),
        (table[table["kind"] != "star"], "D", 40, style.COLOURS["truth"], "galaxy"),
    ):
        ax.scatter(
            rows["x"], rows["y"], s=size, marker=marker, facecolors="none", edgecolors=colour, linewidths=1.1,
            label=f"{label} ({len(rows)})",
        )  # fmt: skip
    ax.set(xlabel="x / px", ylabel="y / px", xlim=(-0.5, frame.shape[1] - 0.5), ylim=(-0.5, frame.shape[0] - 0.5))
    ax.grid(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)
    return ax
