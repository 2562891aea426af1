"""Close-ups: what the networks do on one frame, one star, one pixel, drawn from arrays that a chapter has just made."""

import numpy as np
import pandas as pd
from astropy.table import Table
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pnet.book.figures import style
from pnet.frame import Frame
from pnet.sky import background

SIDE = 160  # px, of the enlarged part
SHOWN = (-2.0, 12.0)  # of a frame, in units of the noise of an empty pixel


@style.styled
def detections(frame: Frame, catalogue: Table, truth: pd.DataFrame) -> Figure:
    """Draw a frame with what was found on it, and the neighbourhood of its most crowded star enlarged.

    Parameters
    ----------
    catalogue : Table
        What `pnet.measure.PNet.measure` gives for it.
    truth : DataFrame
        ``x`` and ``y`` (px) of its sources.
    """
    figure, [[whole, part]] = style.new(1, 2, height=3.7)
    image, sigma = background.subtracted(frame)
    x, y = (np.asarray(catalogue[name], dtype=float) for name in ("x", "y"))
    middle = _most_crowded(x, y)
    height, width = frame.shape
    left, low = (int(np.clip(m - SIDE / 2, 0, n - SIDE)) for m, n in zip(middle, (width, height), strict=True))
    for ax, size in ((whole, 40), (part, 160)):
        ax.imshow(image / sigma, cmap="gray_r", vmin=SHOWN[0], vmax=SHOWN[1], origin="lower", interpolation="nearest")
        ax.scatter(truth["x"], truth["y"], marker="+", s=size, color=style.COLOURS["truth"], linewidth=1, label="truth")
        ax.scatter(x, y, s=size, facecolor="none", edgecolor=style.COLOURS["paper"], linewidth=1.2, label="found")
        ax.set(xlabel="x / px")
        ax.grid(False)
    whole.set(title="the whole frame", ylabel="y / px")
    whole.add_patch(Rectangle((left, low), SIDE, SIDE, fill=False, edgecolor=style.COLOURS["pnet"], linewidth=1.2))
    part.set(title="the blue square", xlim=(left, left + SIDE), ylim=(low, low + SIDE))
    part.legend(loc="upper right")
    return figure


def _most_crowded(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the place of the star with most others within 60 px; the frame's corner where there is none."""
    if not len(x):
        return 0.0, 0.0
    star = (np.hypot(x[:, None] - x, y[:, None] - y) < 60).sum(axis=1).argmax()
    return float(x[star]), float(y[star])


@style.styled
def samples(mean: np.ndarray, sigma: np.ndarray, truth: float) -> Figure:
    """Return what many draws of the weights say of one star, and how their answers become one error bar (Eq. 15).

    Parameters
    ----------
    mean, sigma : ndarray, (T,)
        Mean and standard deviation of the magnitude that each draw predicts, in mag.
    truth : float
        The true magnitude.
    """
    mean, sigma = np.asarray(mean, dtype=float), np.asarray(sigma, dtype=float)
    aleatoric, epistemic = np.sqrt(np.mean(sigma**2)), np.std(mean)
    total = np.hypot(aleatoric, epistemic)
    figure, [[left, right]] = style.new(1, 2, height=3.4, width_ratios=(2.2, 1))
    grid = np.linspace(-4 * total, 4 * total, 300)
    each = np.exp(-(((grid[:, None] - (mean - truth)) / sigma) ** 2) / 2) / sigma
    left.plot(1000 * grid, each, color=style.COLOURS["grey"], lw=0.5, alpha=0.5)
    left.plot(1000 * grid, each.mean(axis=1), color=style.COLOURS["pnet"], label="all draws together")
    left.axvline(0, color=style.COLOURS["truth"], linestyle="--", label="truth")
    left.set(title=f"{len(mean)} draws of the weights, one star", xlabel="magnitude − truth / mmag", yticks=[])
    left.legend(loc="upper right")
    names = ("aleatoric", "epistemic", "together")
    colours = [style.COLOURS[name] for name in ("sextractor", "purple", "pnet")]
    bars = right.bar(names, 1000 * np.array([aleatoric, epistemic, total]), color=colours)
    right.bar_label(bars, fmt="{:.1f}", fontsize=10)
    right.set(title="σ / mmag", yticks=[], xlabel=" ")
    right.tick_params(axis="x", rotation=30)
    right.margins(y=0.15)
    return figure


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
        values = values / values.max()
        ax.imshow(values, cmap="viridis", origin="lower", extent=(-reach, reach, -reach, reach))
        ax.set(title=title, xlabel="x / px")
        ax.grid(False)
    axes[0, 0].set_ylabel("y / px")
    return figure
