"""How pages call and figures draw methods and data sets, how figures are laid out and saved: the same data give the
same bytes, legible on a phone. ``pnet.mplstyle`` holds fonts, lines and grids."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pnet.common.files import atomic_path
from pnet.common.metrics import Estimate

if TYPE_CHECKING:
    from pnet.evaluation.ledger import Entry

METHOD_NAMES = {
    "pnet": "PNet",
    "pnet_paper": "PNet as the paper has it",
    "sextractor": "SExtractor",
    "sextractor_default": "SExtractor, default settings",
    "sep": "SEP",
    "psfex": "SExtractor + PSFEx",
    "photutils": "photutils PSF",
}
DATASET_NAMES = {"sdss": "SDSS", "simulation": "simulation"}

DPI = 200  # twice a screen's density: a 6.6 inch figure is 1320 px wide
WIDTH = 6.6  # inches

# Okabe & Ito's palette, told apart by readers with any colour vision
COLOURS = {
    "pnet": "#0072B2",
    "pnet_paper": "#882255",
    "sextractor": "#D55E00",
    "sep": "#E69F00",
    "psfex": "#56B4E9",
    "photutils": "#CC79A7",
    "limit": "#111111",
    "truth": "#009E73",
    "paper": "#CC3311",
    "grey": "#777777",
    "purple": "#AA4499",
}
DASHED = (0, (4, 3))  # thresholds and bounds that the paper states
MARKERS = ("o", "s", "D", "^", "v", "P")
MANY = 300  # stars from which on points become small and a median and a spread say more

# A decorator: under it figures are drawn in this style, whatever the user's matplotlibrc says.
styled = matplotlib.style.context(Path(__file__).with_name("pnet.mplstyle"), after_reset=True)


def panel(draw: Callable[..., str | None]) -> Callable[..., None]:
    """Make a panel of ``draw(ax, values, ...)``, which returns what the title says besides `title`, if anything.

    Without values (arrays, a table, estimates) the panel says so.
    """

    @functools.wraps(draw)
    def wrapper(ax: Axes, values, *arguments, title: str = "", **options) -> None:
        if len(values):
            ax.set_title(title + (draw(ax, values, *arguments, **options) or ""))
        else:
            empty(ax, title)

    return wrapper


def new(rows: int, columns: int, height: float, width: float = WIDTH, **options) -> tuple[Figure, np.ndarray]:
    """Return a figure with a (rows, columns) array of axes, laid out so that nothing overlaps (inches)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    # inches; labels of one row must not touch the next one's title
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.1)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


@styled
def save(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a figure as PNG or SVG, by the path's suffix, atomically; without software name or time, so that it is
    reproducible byte for byte.

    An SVG holds its text as outlines: pages show it as an image, which finds no other font than the reader's, and
    another font's letters would run over the boxes that they were measured for.
    """
    path = Path(path)
    left_out = {".png": ["Software"], ".svg": ["Creator", "Date"]}[path.suffix]
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format=path.suffix[1:], metadata=dict.fromkeys(left_out))
    return path


def empty(ax: Axes, title: str, text: str = "no measurements") -> None:
    """Say in a panel that there is nothing to show."""
    ax.set(title=title, xticks=[], yticks=[])
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=COLOURS["grey"])
    ax.grid(False)


def picture(ax: Axes, image: np.ndarray, cmap: str = "viridis", unit: str = "px", **options) -> None:
    """Draw an image, its first row below; `options` are those of `Axes.imshow`."""
    ax.imshow(image, cmap=cmap, **options)
    ax.set(xlabel=f"x / {unit}", ylabel=f"y / {unit}")
    ax.grid(False)


def note(ax: Axes, text: str, corner: str = "upper left", **options) -> None:
    """Write a remark into a corner of a panel, on a ground that keeps it legible over data."""
    vertical, horizontal = corner.split()
    x = {"left": 0.03, "right": 0.97}[horizontal]
    y, va = {"upper": (0.97, "top"), "lower": (0.03, "bottom")}[vertical]
    ground = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 2.5}
    options = {"fontsize": 9.5, "transform": ax.transAxes, "bbox": ground, "zorder": 5} | options
    ax.text(x, y, text, ha=horizontal, va=va, **options)


def legend_below(figure: Figure, axes: np.ndarray, **options) -> None:
    """Put the legend of the panel with most entries below a figure."""
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes.flat), key=lambda found: len(found[1]))
    if handles:
        figure.legend(handles, labels, loc="outside lower center", **options)


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
