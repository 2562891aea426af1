"""Figure 9: average calibration and confidence band, drawn by uncertainty-toolbox."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import style
from pnet.book.figures.style import DATASET_NAMES
from pnet.common import metrics
from pnet.common.seeds import derive
from pnet.evaluation import calibration_metrics, scores

BAND = 1.96  # σ of the 95 % interval


@style.styled
def figure_9(table: pd.DataFrame, method: str = "pnet", *, seed: int) -> Figure:
    """Draw (a) SDSS and (b) the simulation: average calibration left, confidence band right.

    `table` holds measurements of a network, the `method`, with mag_err (recalibrated) and, where there are any,
    mag_aleatoric and mag_epistemic (as the network gave them); `seed` is that of the draws behind the floor of the
    miscalibration area.
    """
    figure, axes = style.new(2, 2, height=6.9)
    for row, letter, dataset in zip(axes, "ab", ("sdss", "simulation"), strict=True):
        stars = scores.matched(scores.select(table, dataset, method), "mag", "mag_err", "truth_mag")
        title = f"({letter}) {DATASET_NAMES[dataset]}"
        calibration(row[0], stars, derive(seed, "floor", dataset), title=f"{title}: calibration")
        band(row[1], stars, title=f"{title}: 95 % band")
    return figure


@style.panel
def calibration(ax: Axes, stars: pd.DataFrame, seed: int) -> None:
    """Observed against predicted proportion of stars with the final σ and, dotted, with the network's own."""
    toolbox = metrics.toolbox()
    truth, mean, sigma = stars[["truth_mag", "mag", "mag_err"]].to_numpy(float).T
    toolbox.plot_calibration(mean, sigma, truth, curve_label="recalibrated", ax=ax)
    for text in list(ax.texts):  # the toolbox rounds the area to two digits, which hides what we are after
        text.remove()
    ideal, curve = ax.get_lines()[:2]
    ideal.set(color=style.COLOURS["grey"], label="ideal")
    curve.set(color=style.COLOURS["pnet"])
    raw = np.hypot(stars["mag_aleatoric"], stars["mag_epistemic"]).to_numpy(float)
    usable = np.isfinite(raw) & (raw > 0)
    if usable.any():
        expected, observed = toolbox.get_proportion_lists_vectorized(mean[usable], raw[usable], truth[usable])
        ax.plot(expected, observed, ":", color=style.COLOURS["sextractor"], label="before")
    area = calibration_metrics.miscalibration_area(metrics.standardised(truth, mean, sigma))
    floor = calibration_metrics.miscalibration_floor(len(truth), seed=seed)
    text = f"{len(truth)} stars\nmiscalibration\narea {area:.3f}\n(perfect: {floor:.3f})"
    style.note(ax, text, "lower right", fontsize=9)
    ax.legend(loc="upper left", fontsize=9)
    ax.set(xlabel="predicted proportion in interval", ylabel="observed proportion in interval")
    _square(ax)


@style.panel
def band(ax: Axes, stars: pd.DataFrame) -> None:
    """Errors inside the predicted 95 % interval, stars ordered by their predicted uncertainty."""
    stars = stars.sort_values("mag_err", kind="stable")
    sigma, error = stars["mag_err"].to_numpy(float), (stars["truth_mag"] - stars["mag"]).to_numpy(float)
    n = len(error)
    metrics.toolbox().plot_xy(np.zeros(n), sigma, error, np.arange(n), num_stds_confidence_bound=BAND, ax=ax)
    points, line = ax.get_lines()[:2]
    small = {"markersize": 2, "alpha": 0.5} if n > style.MANY else {"markersize": 5, "alpha": 0.9}
    colour = style.COLOURS["sextractor"]
    points.set(zorder=1.5, markerfacecolor=colour, markeredgecolor=colour, **small)
    line.set_linewidth(1.2)
    ax.get_legend().remove()
    reach = max(1.3 * BAND * float(sigma.max()), float(np.quantile(np.abs(error), 0.98)))
    beyond = int((np.abs(error) > reach).sum())
    inside = metrics.share(np.abs(error) <= BAND * sigma)
    text = f"in the band: {100 * inside.value:.1f} %\n({100 * inside.low:.1f} … {100 * inside.high:.1f} %)"
    style.note(ax, text + (f"\n{beyond} beyond the frame" if beyond else ""), fontsize=9)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(-reach, reach))
    ax.set(xlabel="star, by rising predicted σ", ylabel="true − predicted / mag")
    _square(ax)


def _square(ax: Axes) -> None:
    """Make a panel square whatever its limits: the toolbox fixes the data's ratio instead."""
    ax.set_aspect("auto")
    ax.set_box_aspect(1)
