"""Position errors in units of the Cramér-Rao limit, with the goals and with what SkyMaker itself misplaces."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pnet.book.figures import panels, style
from pnet.evaluation import scores
from pnet.evaluation.ledger import Ledger
from pnet.sky import limits


def placement_floor(stars: pd.DataFrame, axis: str) -> list[tuple[float, float]]:
    """Return, per magnitude bin, what a measurement at the limit would scatter about SkyMaker's list, over the limit.

    Parameters
    ----------
    stars : DataFrame
        Columns truth_mag, truth_x, truth_y, limit_x, limit_y.
    axis : {"x", "y"}

    Returns
    -------
    list of (float, float)
        Middle of the bin and the factor, √(1 + displacement²/limit²), as the median over its stars.
    """
    bound = stars[f"limit_{axis}"]
    displacement = limits.skymaker_displacement(stars[f"truth_{axis}"].to_numpy())
    known = stars.assign(bound=bound, displacement=displacement)[np.isfinite(bound)]
    points = []
    for low, rows in known.groupby(np.floor(known["truth_mag"])):
        if low in scores.BINS[:-1] and len(rows) >= 5:
            rms = np.sqrt(np.mean(rows["displacement"] ** 2))
            points.append((low + 0.5, float(np.median(np.hypot(1, rms / rows["bound"])))))
    return points


@style.styled
def over_limit(
    ledger: Ledger,
    series: dict[str, tuple[str, str, str]],
    goals: tuple[float, float],
    stars: pd.DataFrame | None = None,
) -> Figure:
    """Draw scatter over limit per magnitude bin in x (left) and y (right).

    Parameters
    ----------
    ledger : Ledger
        Holding ``simulation.<method>.<what>.<bin>``.
    series : dict
        Label → (method, what, colour), where ``{axis}`` in what is x or y: ``("pnet", "{axis}_over_limit", "pnet")``;
        those that the ledger lacks are left out.
    goals : (float, float)
        For the pooled scatter and for every bin from 14 to 19.
    stars : DataFrame, optional
        Stars of frames that SkyMaker made, for `placement_floor`.
    """
    figure, axes = style.new(1, 2, height=4.9, sharey=True)
    pooled, every = goals
    for ax, axis in zip(axes[0], "xy", strict=True):
        keys = {
            label: (f"simulation.{method}.{what.format(axis=axis)}", colour)
            for label, (method, what, colour) in series.items()
        }
        if not panels.over_limit(ax, ledger, keys):
            style.empty(ax, f"{axis} over the limit")
            continue
        if stars is not None and (floor := placement_floor(stars, axis)):
            line = {"linewidth": 1.5, "label": "limit and SkyMaker's own displacement"}
            ax.plot(*np.array(floor).T, ":", color=style.COLOURS["limit"], **line)
        goal = {"xmin": 14, "xmax": 20, "color": style.COLOURS["truth"]}
        ax.hlines(every, linewidth=1.6, label=f"goal for every bin: {every:g}", **goal)
        ax.hlines(pooled, linewidth=1.2, linestyle="--", label=f"goal pooled over 14–20: {pooled:g}", **goal)
        panels.ticks_over_limit(ax)
        ax.set_title(f"{axis}, simulated frames")
    axes[0, 0].set_ylabel("scatter / limit")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8.5)
    return figure
