"""Frames and what they hold: simulated ones and patches of SDSS with their objects, what was found on one, how many
stars there are at each magnitude (Figure 1), and the profiles of stars."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import seaborn as sns
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pnet.book.figures import style
from pnet.frame import Frame
from pnet.simulation.recipe import FieldKind
from pnet.sky import background
from pnet.sky.catalogue import mark_counted
from pnet.sky.patches import SIZE, Patch

STEP = 0.5  # mag, of counts; 66 stars of one field leave about five in a bin
BRIGHT, FAINT = 13.0, 20.0  # magnitudes that Figure 1 shows
SIDE = 160  # px, of the enlarged part of `detections`
PROFILES = ("pnet", "sep", "purple")  # colours of the profiles shown; more than three would not be told apart
TOLERANCE = 2  # thousandths of the star's light


@style.styled
def frame(frame: Frame, truth: pd.DataFrame) -> Figure:
    """Draw a simulated frame with the sources of its truth (``x``, ``y`` in px from 0, ``mag``, ``flux``, ``kind``);
    symbols are the larger the brighter the source."""
    height, width = frame.shape
    table = mark_counted(truth, frame).assign(area=30 + 22 * np.clip(21 - truth["mag"], 0, 8))
    inside = table["x"].between(-0.5, width - 0.5) & table["y"].between(-0.5, height - 0.5)
    return _objects(frame, table[inside], "star left out", (0, width), (0, height))


@style.styled
def patch(frame: Frame, table: pd.DataFrame, patch: Patch) -> Figure:
    """Draw a patch of a frame (`pnet.sky.patches.split`) with the objects of its table (`pnet.sdss.catalogue.select`):
    ``x``, ``y`` (px), ``kind``, ``counted``."""
    areas = np.select([table["counted"], table["kind"] == "star"], [130, 45], 40)
    ends = (patch.left, patch.left + SIZE), (patch.top, patch.top + SIZE)
    return _objects(frame, table.assign(area=areas)[inside(patch, table)], "other point source", *ends)


def inside(patch: Patch, table: pd.DataFrame) -> pd.Series:
    """Return which rows of a frame's catalogue lie on a patch."""
    return table["x"].between(patch.left, patch.left + SIZE - 1) & table["y"].between(patch.top, patch.top + SIZE - 1)


def _objects(frame: Frame, table: pd.DataFrame, left_out: str, columns: tuple, rows: tuple) -> Figure:
    """Draw those columns and rows of a frame in units of its noise, arcsinh, masked pixels white, with objects: x, y,
    kind, counted, and the area of the symbol in points²; stars that do not count are called `left_out`."""
    figure, [[ax]] = style.new(1, 1, height=6.5)
    sky = background.estimate(frame)
    signal = np.arcsinh((frame.image - sky.level) / sky.rms)
    style.picture(ax, np.where(frame.mask, np.nan, signal), "gray_r", vmin=-1.5, vmax=5.5)
    star, counted = table["kind"] == "star", table["counted"]
    kinds = ("star that counts", counted, "o", "pnet"), (left_out, ~counted & star, "s", "sextractor")
    for label, chosen, marker, colour in (*kinds, ("galaxy", ~star, "D", "truth")):
        if chosen.any():
            objects, label = table[chosen], f"{label} ({chosen.sum()})"
            edges = {"facecolors": "none", "edgecolors": style.COLOURS[colour], "linewidths": 1.1}
            ax.scatter(objects["x"], objects["y"], s=objects["area"], marker=marker, label=label, **edges)
    ax.set(xlim=np.array(columns) - 0.5, ylim=np.array(rows) - 0.5)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)
    return figure


@style.styled
def detections(frame: Frame, catalogue: Table, truth: pd.DataFrame) -> Figure:
    """Draw a frame with what `pnet.measure.PNet.measure` found on it and ``x`` and ``y`` (px) of the truth, and the
    neighbourhood of its most crowded star enlarged."""
    figure, [[whole, part]] = style.new(1, 2, height=3.7)
    image, sigma, _ = background.subtracted(frame)
    x, y = (np.asarray(catalogue[name], dtype=float) for name in ("x", "y"))
    # the star with most others within 60 px; the frame's corner where there is none
    crowd = (np.hypot(x[:, None] - x, y[:, None] - y) < 60).sum(axis=1)
    middle = (x[crowd.argmax()], y[crowd.argmax()]) if len(x) else (0, 0)
    left, low = np.clip(np.array(middle) - SIDE / 2, 0, np.array(frame.shape[::-1]) - SIDE).astype(int)
    for ax, size in ((whole, 40), (part, 160)):
        # in units of the noise of an empty pixel
        style.picture(ax, image / sigma, "gray_r", vmin=-2, vmax=12, interpolation="nearest")
        ax.scatter(truth["x"], truth["y"], marker="+", s=size, color=style.COLOURS["truth"], linewidth=1, label="truth")
        ax.scatter(x, y, s=size, facecolor="none", edgecolor=style.COLOURS["paper"], linewidth=1.2, label="found")
    whole.set(title="the whole frame")
    whole.add_patch(Rectangle((left, low), SIDE, SIDE, fill=False, edgecolor=style.COLOURS["pnet"], linewidth=1.2))
    part.set(title="the blue square", xlim=(left, left + SIDE), ylim=(low, low + SIDE), ylabel="")
    part.legend(loc="upper right")
    return figure


@style.styled
def figure_1(table: pd.DataFrame) -> Figure:
    """Draw the stars that count as bars and all point sources of the same range as an outline, from the columns
    ``mag``, ``kind`` and ``counted`` of `pnet.sdss.catalogue.select`."""
    counted, edges = table.loc[table["counted"], "mag"], np.arange(BRIGHT, FAINT + STEP / 2, STEP)
    stars = table.loc[(table["kind"] == "star") & table["mag"].between(BRIGHT, FAINT), "mag"]
    line = {"element": "step", "fill": False, "linewidth": 1.8, "color": style.COLOURS["truth"]}
    line |= {"x": stars, "bins": edges, "label": f"all point sources ({stars.size})"}
    labels = f"stars that count ({counted.size})", "apparent magnitude g"
    return _counts(counted, edges, *labels, lambda ax: sns.histplot(ax=ax, **line))


@style.styled
def counts(truth: pd.DataFrame, kind: FieldKind, frames: int) -> Figure:
    """Draw the counts of simulated stars with those that the recipe expects, 10^(slope·m) with the same total.

    `truth` holds ``mag`` and ``kind`` of the sources of all frames, `kind` is what they were drawn from, and `frames`
    the number of frames, for the label.
    """
    stars = truth.loc[truth["kind"] == "star", "mag"]
    edges = np.arange(kind.magnitudes[0], kind.magnitudes[1] + STEP / 2, STEP)
    growth = 10 ** (kind.slope * edges) if kind.slope else edges
    expected = stars.size * np.diff(growth) / (growth[-1] - growth[0])
    points = {"fmt": "o", "markersize": 4, "capsize": 2.5, "linewidth": 1.2, "color": style.COLOURS["limit"]}
    points |= {"x": (edges[:-1] + edges[1:]) / 2, "y": expected, "yerr": np.sqrt(expected)}
    points["label"] = f"recipe: 10^({kind.slope:g} m), Poisson"
    labels = f"{stars.size} stars in {frames} frames", "magnitude"
    return _counts(stars, edges, *labels, lambda ax: ax.errorbar(**points))


def _counts(
    magnitudes: pd.Series, edges: np.ndarray, label: str, xlabel: str, compare: Callable[[Axes], object]
) -> Figure:
    """Draw how many stars there are in each bin of magnitude as bars, and upon them what they are compared with."""
    figure, [[ax]] = style.new(1, 1, height=3.6)
    if magnitudes.empty:
        style.empty(ax, "", "no stars")
        return figure
    bars = {"shrink": 0.92, "alpha": 1, "linewidth": 0, "color": style.COLOURS["pnet"]}
    sns.histplot(x=magnitudes, bins=edges, ax=ax, label=label, **bars)
    compare(ax)
    ax.set(xlim=edges[[0, -1]], xlabel=xlabel, ylabel=f"stars per {STEP:g} mag")
    ax.legend(loc="upper left")
    return figure


@style.styled
def profiles(profiles: pd.DataFrame) -> Figure:
    """Draw radial profiles of isolated stars (`physics.radial_profile`) and their deviation from the prediction.

    Of all kinds of seeing the best, a middle and the worst are shown. Profiles are per pixel, deviations per annulus.
    """
    figure, [[above], [below]] = style.new(2, 1, height=5.6, sharex=True, gridspec_kw={"height_ratios": [2, 1]})
    known = np.sort(profiles["seeing"].unique())
    chosen = known[np.unique(np.linspace(0, len(known) - 1, len(PROFILES)).round().astype(int))]
    below.axhspan(-TOLERANCE, TOLERANCE, color="#EEEEEE", zorder=0)
    below.axhline(0, color=style.COLOURS["limit"], linewidth=0.8)
    largest = 3.0
    for seeing, name in zip(chosen, PROFILES, strict=False):
        rows, colour = profiles[profiles["seeing"] == seeing], style.COLOURS[name]
        radius, value, expected, error, area = rows[["radius", "value", "expected", "error", "area"]].to_numpy(float).T
        label = f"{seeing:.1f}″, {rows['n'].max()} star{'s' if rows['n'].max() > 1 else ''}"
        above.errorbar(radius, value, error, fmt="o", markersize=5, color=colour, label=label)
        above.plot(radius, expected, color=colour, linewidth=1)
        deviation, error = 1000 * area * (value - expected), 1000 * area * error
        below.errorbar(radius, deviation, error, fmt="o-", markersize=4, linewidth=0.8, capsize=2, color=colour)
        largest = max(largest, 1.1 * float(np.nanmax(np.abs(deviation) + error)))
    above.set(xscale="log", yscale="log", ylabel="light per pixel / total")
    above.legend(title="seeing", loc="lower left")
    below.set(xscale="log", ylim=(-largest, largest), xlabel="distance from the star / px")
    below.set_ylabel("measured −\nprediction / ‰")
    below.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    below.minorticks_off()
    return figure
