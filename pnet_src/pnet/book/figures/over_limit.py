"""The Cramér-Rao limit: where in a star its information is, and the scatter of measurements in units of it."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from pnet.book.figures import style
from pnet.evaluation import scores
from pnet.evaluation.ledger import Entry, Ledger
from pnet.sky import limits

TICKS = (0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 30, 50, 100, 200, 500)
COLOURS = {"psf_": "truth", "_placed": "purple"}  # by a part of the key; others have their method's
GOALS = {"linestyle": "-", "linewidth": 1.6}, {"linestyle": "--", "linewidth": 1.2}


@style.styled
def scatter(
    ledger: Ledger,
    shown: Mapping[str, Mapping[str, str]],
    goals: Mapping[str, float] | None = None,
    floors: Mapping[str, list[tuple[float, float]]] | None = None,
) -> Figure:
    """Draw scatter over limit per magnitude bin, with intervals, in one panel or several; 1 is the best possible.

    Parameters
    ----------
    shown : mapping
        Title of a panel → label → key without the bin, as ``simulation.pnet.mag_over_limit``; those that the ledger
        lacks are left out.
    goals : mapping, optional
        Label → wanted value, at most two of them.
    floors : mapping, optional
        Title of a panel → `placement_floor`.
    """
    figure, axes = style.new(1, len(shown), height=4.4 if len(shown) == 1 else 4.9, sharey=True)
    for ax, (title, series) in zip(axes[0], shown.items(), strict=True):
        found = {label: entries for label, key in series.items() if (entries := _bins(ledger, key))}
        by_magnitude(ax, found, title=title)
        if not found:
            continue
        if floor := (floors or {}).get(title):
            line = {"linewidth": 1.5, "label": "limit and SkyMaker's own displacement"}
            ax.plot(*np.array(floor).T, ":", color=style.COLOURS["limit"], **line)
        for (label, goal), look in zip((goals or {}).items(), GOALS, strict=False):
            ax.hlines(goal, 14, 20, color=style.COLOURS["truth"], label=f"{label}: {goal:g}", **look)
        bottom, top = ax.get_ylim()
        ax.set_yticks([tick for tick in TICKS if bottom <= tick <= top])
        if len(shown) == 1:
            ax.text(13.05, 1.0, "limit", va="bottom", fontsize=9.5)
            ax.legend(loc="best")
    axes[0, 0].set_ylabel("scatter / limit")
    if len(shown) > 1:
        style.legend_below(figure, axes, ncols=2, fontsize=8.5)
    return figure


def _bins(ledger: Ledger, key: str) -> list[tuple[float, Entry]]:
    """Return the middle of the magnitude bins for which a key has a value, with the entry."""
    found = [(low + 0.5, ledger.get(f"{key}.{low:g}")) for low in scores.BINS[:-1]]
    return [(middle, entry) for middle, entry in found if entry is not None and entry.value is not None]


@style.panel
def by_magnitude(ax: Axes, series: Mapping[str, list[tuple[float, Entry]]]) -> None:
    """Draw entries by magnitude, label → (middle of the bin, entry); a colour's second line is dashed."""
    used = set()
    for number, (label, found) in enumerate(series.items()):
        middle, entries = zip(*found, strict=True)
        _, method, what = entries[0].key.split(".", 2)
        colour = next((colour for part, colour in COLOURS.items() if part in what), method)
        # neighbouring series stand beside each other, so that their intervals can be told apart
        centre = np.array(middle) + 0.11 * (number - (len(series) - 1) / 2)
        line = {"marker": style.MARKERS[number % len(style.MARKERS)], "linestyle": "--" if colour in used else "-"}
        style.estimates(ax, centre, entries, color=style.COLOURS[colour], label=label, **line)
        used.add(colour)
    ax.axhline(1, color=style.COLOURS["limit"], linewidth=1.4)
    ax.set(xlim=(13, 20), yscale="log", xlabel="true magnitude")
    # round ratios as plain numbers, and whole magnitudes
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


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
def information(share: np.ndarray, parts: dict[str, np.ndarray]) -> Figure:
    """Return a star's light by pixel beside what each pixel tells of its flux and position.

    Parameters
    ----------
    share : ndarray, (S, S)
        Share of the star's light in each pixel.
    parts : dict of str to ndarray, (S, S)
        Terms of the sums over pixels in the Fisher matrix's diagonal, by what they tell of.
    """
    figure, axes = style.new(1, 1 + len(parts), height=2.6)
    reach = share.shape[0] / 2
    for ax, (title, values) in zip(axes[0], {"light": share, **parts}.items(), strict=True):
        style.picture(ax, values / values.max(), extent=(-reach, reach, -reach, reach))
        ax.set(title=title)
        ax.label_outer()
    return figure
