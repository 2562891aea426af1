"""Panels that several figures share; each draws estimates into an `ax`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from pnet.book.figures import style
from pnet.common.metrics import Estimate

if TYPE_CHECKING:
    from pnet.evaluation.ledger import Entry

MANY = 300  # stars from which on points become small and a median and a spread say more


def intervals(values: "Sequence[Estimate | Entry]") -> tuple[np.ndarray, np.ndarray]:
    """Return values, (n,), and how far their intervals reach down and up, (2, n), as error bars take them."""
    value = np.array([one.value for one in values])
    low, high = np.array([[one.value if end is None else end for end in (one.low, one.high)] for one in values]).T
    # a percentile interval of few stars can lie beside the value, and Wilson's miss it by a rounding error
    return value, np.maximum([value - low, high - value], 0)


def estimates(ax: Axes, x: Sequence[float], values: "Sequence[Estimate | Entry]", **options) -> None:
    """Draw estimates with their intervals; `options` are those of `Axes.errorbar`."""
    value, reach = intervals(values)
    ax.errorbar(x, value, yerr=reach, **{"markersize": 5, "linewidth": 1.4, "elinewidth": 1.2, "capsize": 2, **options})


def sweep(ax: Axes, thresholds: np.ndarray, precision: Sequence[Estimate], recall: Sequence[Estimate]) -> None:
    """Draw precision and recall with their intervals against the threshold of the confidence."""
    series = ("precision", precision, "pnet", "-"), ("recall", recall, "purple", "--")
    for name, rates, colour, line in series:
        value, (down, up) = intervals(rates)
        ax.fill_between(thresholds, value - down, value + up, color=style.COLOURS[colour], alpha=0.2, linewidth=0)
        ax.plot(thresholds, value, line, color=style.COLOURS[colour], label=name)
    ax.set(xlim=(0, 1), xlabel="confidence threshold", ylabel="precision, recall")


def threshold(ax: Axes, at: float, **options) -> None:
    """Draw the dashed line of a threshold; `options` are those of `Axes.axvline`."""
    ax.axvline(at, **{"color": style.COLOURS["paper"], "linestyle": style.DASHED, "linewidth": 1.3, **options})
