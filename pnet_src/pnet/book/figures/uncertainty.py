"""Figure 9: average calibration and confidence band, drawn by uncertainty-toolbox."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import style
from pnet.common import metrics
from pnet.common.seeds import derive
from pnet.evaluation import scores

BAND = 1.96  # σ of the 95 % interval


@style.styled
def figure_9(table: pd.DataFrame, *, seed: int) -> Figure:
    """Draw (a) SDSS and (b) the simulation: average calibration left, confidence band right.

    Parameters
    ----------
    table : DataFrame
        Measurements of PNet with mag_err (recalibrated) and, where there are any, mag_aleatoric and
        mag_epistemic (as the network gave them).
    seed : int
        Of the draws behind the floor of the miscalibration area.
    """
    figure, axes = style.new(2, 2, height=6.9)
    for row, (letter, dataset) in enumerate((("a", "sdss"), ("b", "simulation"))):
        stars = scores.matched(scores.select(table, dataset, "pnet"), "mag", "mag_err", "truth_mag")
        titles = [f"({letter}) {style.DATASETS[dataset]}: {what}" for what in ("calibration", "95 % band")]
        if stars.empty:
            for ax, title in zip(axes[row], titles, strict=True):
                style.empty(ax, title)
            continue
        _calibration(axes[row, 0], stars, titles[0], derive(seed, "floor", dataset))
        _band(axes[row, 1], stars, titles[1])
    return figure


def _calibration(ax: Axes, stars: pd.DataFrame, title: str, seed: int) -> None:
    """Observed against predicted proportion, after and before recalibration."""
    uct = metrics.toolbox()
    truth, mean, sigma = (stars[name].to_numpy(dtype=float) for name in ("truth_mag", "mag", "mag_err"))
    uct.plot_calibration(mean, sigma, truth, curve_label="recalibrated", ax=ax)
    for text in list(ax.texts):  # the toolbox rounds the area to two digits, which hides what we are after
        text.remove()
    ideal = ax.get_lines()[0]
    ideal.set(color=style.COLOURS["grey"], label="ideal")
    ax.get_lines()[1].set(color=style.COLOURS["pnet"])
    raw = np.hypot(stars["mag_aleatoric"], stars["mag_epistemic"]).to_numpy(dtype=float)
    usable = np.isfinite(raw) & (raw > 0)
    if usable.any():
        expected, observed = uct.get_proportion_lists_vectorized(mean[usable], raw[usable], truth[usable])
        ax.plot(expected, observed, ":", color=style.COLOURS["sextractor"], label="before")
    area = metrics.miscalibration_area(truth, mean, sigma)
    floor = metrics.miscalibration_floor(len(stars), seed=seed)
    style.note(
        ax, f"{len(stars)} stars\nmiscalibration\narea {area:.3f}\n(perfect: {floor:.3f})", "lower right", fontsize=9
    )
    ax.legend(loc="upper left", fontsize=9)
    _square(ax)
    ax.set(xlabel="predicted proportion in interval", ylabel="observed proportion in interval")
    ax.set_title(title)


def _band(ax: Axes, stars: pd.DataFrame, title: str) -> None:
    """Errors inside the predicted 95 % interval, stars ordered by their predicted uncertainty."""
    uct = metrics.toolbox()
    stars = stars.sort_values("mag_err", kind="stable")
    sigma = stars["mag_err"].to_numpy(dtype=float)
    error = (stars["truth_mag"] - stars["mag"]).to_numpy(dtype=float)
    index = np.arange(len(stars), dtype=float)
    uct.plot_xy(np.zeros(len(stars)), sigma, error, index, num_stds_confidence_bound=BAND, ax=ax)
    points, line = ax.get_lines()[:2]
    many = len(stars) > 300
    points.set(markersize=2 if many else 5, alpha=0.5 if many else 0.9, zorder=1.5)
    points.set_markerfacecolor(points.get_markeredgecolor())
    line.set_linewidth(1.2)
    ax.get_legend().remove()
    _square(ax)
    shown = max(1.3 * BAND * float(sigma.max()), float(np.quantile(np.abs(error), 0.98)))
    beyond = int((np.abs(error) > shown).sum())
    inside = metrics.rate(int((np.abs(error) <= BAND * sigma).sum()), len(stars))
    text = f"in the band: {100 * inside.value:.1f} %\n({100 * inside.low:.1f} … {100 * inside.high:.1f} %)"
    style.note(ax, text + (f"\n{beyond} beyond the frame" if beyond else ""), fontsize=9)
    ax.set(xlim=(-0.5, len(stars) - 0.5), ylim=(-shown, shown))
    ax.set(xlabel="star, by rising predicted σ", ylabel="true − predicted / mag")
    ax.set_title(title)


def _square(ax: Axes) -> None:
    """Make the panel square whatever its limits (the toolbox fixes the ratio of the data instead)."""
    ax.set_aspect("auto")
    ax.set_box_aspect(1)
