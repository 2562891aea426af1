"""Figures of simulated frames: a frame with its stars, counts by magnitude, PSF profiles."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import style
from pnet.frame import Frame
from pnet.simulation.recipe import FieldKind
from pnet.sky import background
from pnet.sky.catalogue import mark_counted

STEP = 0.5  # mag
SEEINGS = 3  # profiles shown; more would not be told apart
PROFILE_COLOURS = ("#0072B2", "#E69F00", "#AA4499")
STRETCH = (-1.5, 6.0)  # asinh of the signal in units of the sky's noise


@style.styled
def frame_figure(frame: Frame, truth: pd.DataFrame) -> Figure:
    """Draw a simulated frame with the sources of its truth."""
    figure, axes = style.new(1, 1, height=6.5)
    show_frame(axes[0, 0], frame, truth)
    return figure


def show_frame(ax: Axes, frame: Frame, truth: pd.DataFrame) -> Axes:
    """Show a frame in units of its noise; circles are the larger the brighter the star; return `ax`.

    Parameters
    ----------
    ax : Axes
    frame : Frame
    truth : DataFrame
        ``x``, ``y`` (px from 0), ``mag``, ``flux``, ``kind``.
    """
    sky = background.estimate(frame)
    signal = np.arcsinh((frame.image - sky.level) / sky.rms)
    low, high = STRETCH
    ax.imshow(np.where(frame.mask, np.nan, signal), cmap="gray_r", vmin=low, vmax=high, origin="lower")
    height, width = frame.shape
    table = mark_counted(truth, frame)
    table = table[table["x"].between(-0.5, width - 0.5) & table["y"].between(-0.5, height - 0.5)]
    star = table["kind"] == "star"
    for rows, marker, colour, label in (
        (table[table["counted"]], "o", style.COLOURS["pnet"], "star that counts"),
        (table[~table["counted"] & star], "s", style.COLOURS["sextractor"], "star left out"),
        (table[~star], "D", style.COLOURS["truth"], "galaxy"),
    ):
        if len(rows):
            area = 30 + 22 * np.clip(21 - rows["mag"], 0, 8)
            ax.scatter(
                rows["x"], rows["y"], s=area, marker=marker, facecolors="none", edgecolors=colour, linewidths=1.1,
                label=f"{label} ({len(rows)})",
            )  # fmt: skip
    ax.set(xlabel="x / px", ylabel="y / px", xlim=(-0.5, width - 0.5), ylim=(-0.5, height - 0.5))
    ax.grid(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)
    return ax


@style.styled
def counts_figure(truth: pd.DataFrame, kind: FieldKind, frames: int) -> Figure:
    """Draw the counts of stars by magnitude.

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
    show_counts(axes[0, 0], truth, kind, frames)
    return figure


def show_counts(ax: Axes, truth: pd.DataFrame, kind: FieldKind, frames: int) -> Axes:
    """Draw the histogram of magnitudes with the expected counts, 10^(slope·m) with the same total; return `ax`."""
    stars = truth.loc[truth["kind"] == "star", "mag"].to_numpy(float)
    low, high = kind.magnitudes
    edges = np.arange(low, high + STEP / 2, STEP)
    if stars.size == 0:
        style.empty(ax, "", "no stars")
        return ax
    ax.hist(stars, edges, color=style.COLOURS["pnet"], rwidth=0.92, label=f"{stars.size} stars in {frames} frames")
    growth = 10 ** (kind.slope * edges) if kind.slope else edges
    expected = stars.size * np.diff(growth) / (growth[-1] - growth[0])
    middle = (edges[:-1] + edges[1:]) / 2
    ax.errorbar(
        middle, expected, yerr=np.sqrt(expected), fmt="o", markersize=4, capsize=2.5, linewidth=1.2,
        color=style.COLOURS["limit"], label=f"recipe: 10^({kind.slope:g} m), Poisson",
    )  # fmt: skip
    ax.set(xlim=(low, high), xlabel="magnitude", ylabel=f"stars per {STEP:g} mag")
    ax.legend(loc="upper left")
    return ax


@style.styled
def profiles_figure(profiles: pd.DataFrame) -> Figure:
    """Draw radial profiles of isolated stars (`validation.radial_profile`) and their deviation from the prediction."""
    figure, axes = style.new(2, 1, height=5.6, sharex=True, gridspec_kw={"height_ratios": [2, 1]})
    show_profiles(axes[0, 0], axes[1, 0], profiles)
    return figure


def show_profiles(ax: Axes, below: Axes, profiles: pd.DataFrame) -> None:
    """Draw profiles of the best, a middle and the worst seeing in `ax`, deviations in `below`."""
    known = np.sort(profiles["seeing"].unique())
    chosen = known[np.unique(np.linspace(0, len(known) - 1, SEEINGS).round().astype(int))]
    for seeing, colour in zip(chosen, PROFILE_COLOURS, strict=False):
        rows = profiles[profiles["seeing"] == seeing]
        label = f"{seeing:.1f}″, {rows['n'].max()} star{'s' if rows['n'].max() > 1 else ''}"
        ax.errorbar(rows["radius"], rows["value"], rows["error"], fmt="o", markersize=5, color=colour, label=label)
        ax.plot(rows["radius"], rows["expected"], color=colour, linewidth=1)
        deviation = 1000 * (rows["value"] - rows["expected"]) * _areas(rows)
        error = 1000 * rows["error"] * _areas(rows)
        below.errorbar(rows["radius"], deviation, error, fmt="o-", markersize=4, linewidth=0.8, capsize=2, color=colour)
    ax.set(xscale="log", yscale="log", ylabel="light per pixel / total")
    ax.legend(title="seeing", loc="lower left")
    below.axhspan(-2, 2, color="#EEEEEE", zorder=0)
    below.axhline(0, color=style.COLOURS["limit"], linewidth=0.8)
    largest = max(3.0, float(np.nanmax(np.abs(below.dataLim.intervaly))) * 1.1)
    below.set(
        xscale="log",
        ylim=(-largest, largest),
        xlabel="distance from the star / px",
        ylabel="measured −\nprediction / ‰",
    )
    below.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    below.minorticks_off()


def _areas(rows: pd.DataFrame) -> np.ndarray:
    """Return the area of each annulus in px: profiles are per pixel, deviations per annulus."""
    return rows["area"].to_numpy(float)
