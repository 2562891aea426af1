"""Radial profiles of simulated stars beside the physics that they claim to hold."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pnet.book.figures import style

SEEINGS = 3  # profiles shown; more would not be told apart
COLOURS = ("pnet", "sep", "purple")
TOLERANCE = 2  # thousandths of the star's light


@style.styled
def simulated(profiles: pd.DataFrame) -> Figure:
    """Draw radial profiles of isolated stars (`physics.radial_profile`) and their deviation from the prediction.

    Of all kinds of seeing the best, a middle and the worst are shown. Profiles are per pixel, deviations per annulus.
    """
    figure, axes = style.new(2, 1, height=5.6, sharex=True, gridspec_kw={"height_ratios": [2, 1]})
    above, below = axes[:, 0]
    known = np.sort(profiles["seeing"].unique())
    chosen = known[np.unique(np.linspace(0, len(known) - 1, SEEINGS).round().astype(int))]
    below.axhspan(-TOLERANCE, TOLERANCE, color="#EEEEEE", zorder=0)
    below.axhline(0, color=style.COLOURS["limit"], linewidth=0.8)
    largest = 3.0
    for seeing, name in zip(chosen, COLOURS, strict=False):
        rows, colour = profiles[profiles["seeing"] == seeing], style.COLOURS[name]
        radius, value, expected, error, area = (
            rows[column].to_numpy(float) for column in ("radius", "value", "expected", "error", "area")
        )
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
