"""Simulated frames: one with its truth, how many stars there are at each magnitude, and the profiles of stars."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pnet.book.figures import panels, style
from pnet.frame import Frame
from pnet.simulation.recipe import FieldKind
from pnet.sky.catalogue import mark_counted

COLOURS = ("pnet", "sep", "purple")  # of the profiles shown; more than three would not be told apart
TOLERANCE = 2  # thousandths of the star's light


@style.styled
def frame(frame: Frame, truth: pd.DataFrame) -> Figure:
    """Draw a simulated frame with the sources of its truth; symbols are the larger the brighter the source.

    Parameters
    ----------
    truth : DataFrame
        ``x``, ``y`` (px from 0), ``mag``, ``flux``, ``kind``.
    """
    table = mark_counted(truth, frame)
    height, width = frame.shape
    table = table[table["x"].between(-0.5, width - 0.5) & table["y"].between(-0.5, height - 0.5)]
    return panels.objects(frame, table, "star left out", lambda rows, _: 30 + 22 * np.clip(21 - rows["mag"], 0, 8))


@style.styled
def counts(truth: pd.DataFrame, kind: FieldKind, frames: int) -> Figure:
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
    figure, [[ax]] = style.new(1, 1, height=3.6)
    stars = truth.loc[truth["kind"] == "star", "mag"]
    if stars.empty:
        style.empty(ax, "", "no stars")
        return figure
    edges = panels.counts(ax, stars, *kind.magnitudes, f"{stars.size} stars in {frames} frames")
    growth = 10 ** (kind.slope * edges) if kind.slope else edges
    expected = stars.size * np.diff(growth) / (growth[-1] - growth[0])
    points = {"fmt": "o", "markersize": 4, "capsize": 2.5, "linewidth": 1.2, "color": style.COLOURS["limit"]}
    label = f"recipe: 10^({kind.slope:g} m), Poisson"
    ax.errorbar((edges[:-1] + edges[1:]) / 2, expected, yerr=np.sqrt(expected), label=label, **points)
    ax.set(xlabel="magnitude")
    ax.legend(loc="upper left")
    return figure


@style.styled
def profiles(profiles: pd.DataFrame) -> Figure:
    """Draw radial profiles of isolated stars (`physics.radial_profile`) and their deviation from the prediction.

    Of all kinds of seeing the best, a middle and the worst are shown. Profiles are per pixel, deviations per annulus.
    """
    figure, [[above], [below]] = style.new(2, 1, height=5.6, sharex=True, gridspec_kw={"height_ratios": [2, 1]})
    known = np.sort(profiles["seeing"].unique())
    chosen = known[np.unique(np.linspace(0, len(known) - 1, len(COLOURS)).round().astype(int))]
    below.axhspan(-TOLERANCE, TOLERANCE, color="#EEEEEE", zorder=0)
    below.axhline(0, color=style.COLOURS["limit"], linewidth=0.8)
    largest = 3.0
    for seeing, name in zip(chosen, COLOURS, strict=False):
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
