"""Whether error bars hold for every star: by group, as PIT histogram, after other recalibrations, and part by part."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from scipy import stats

from pnet.book.figures import style
from pnet.book.figures.style import DATASET_NAMES
from pnet.common import metrics
from pnet.common.seeds import derive
from pnet.evaluation import calibration_metrics, scores
from pnet.evaluation.error_bars import LEVELS, SMALLEST, stars_of
from pnet.evaluation.ledger import Entry, Ledger
from pnet.evaluation.scores import Score
from studies.conditions import GROUPS

Numbers = list[tuple[float, Entry]]  # a bin's place and its entry
GOAL = (0.95, 1.05)  # scatter of (truth − mean) / σ
WIDEST = 1.8  # of that axis: a few outliers must not flatten the rest
LABELS = {"mag": "true magnitude", "seeing": "seeing / arcsec", "crowding": "neighbours within 10 to 30 px"}
STYLES = {  # how each recalibration is drawn
    "raw": ("as the network says", "grey", "x"),
    "ratio": ("one ratio", "pnet", "o"),
    "ratios": ("by magnitude", "purple", "^"),
    "isotonic": ("isotonic", "sep", "s"),
    "conformal": ("conformal", "truth", "D"),
}


@style.styled
def by_group(ledger: Ledger, dataset: str = "simulation", *, seed: int) -> Figure:
    """Draw the scatter of standardised errors (left) and the miscalibration area (right) by group.

    Parameters
    ----------
    ledger : Ledger
        Holding ``<dataset>.pnet.z_scatter.<group>`` and ``….miscalibration_area.<group>``.
    seed : int
        Of the draws that give the range of areas that perfect error bars have.
    """
    figure, axes = style.new(3, 2, height=8.2)
    for number, group in enumerate(GROUPS):
        titles = [f"({'abcdef'[2 * number + i]}) {what}" for i, what in enumerate(("std of error / σ", "area"))]
        names = ("z_scatter", "z_scatter_robust", "miscalibration_area")
        scatter, robust, area = (_entries(ledger, f"{dataset}.pnet.{name}.{group}.") for name in names)
        if scatter and area:
            offset = 0.5 if group == "mag" else 0.0  # a bin's middle
            _scatter(axes[number, 0], scatter, robust, offset, legend=number == 0)
            _areas(axes[number, 1], area, offset, derive(seed, "floor", group), legend=number == 0)
        for ax, title in zip(axes[number], titles, strict=True):
            if scatter and area:
                ax.set_title(title)
                if group == "crowding":
                    ax.set_xticks([x for x, _ in scatter], ["0", "1", "2 or more"][: len(scatter)])
                    ax.set_xlim(-0.5, 2.5)
            else:
                style.empty(ax, title)
            ax.set_xlabel(LABELS[group])
    return figure


def _entries(ledger: Ledger, head: str) -> Numbers:
    found = [(float(entry.key.removeprefix(head)), entry) for entry in ledger.find(f"{head}*")]
    return sorted((pair for pair in found if pair[1].value is not None), key=lambda pair: pair[0])


def _scatter(ax: Axes, entries: Numbers, robust: Numbers, offset: float, legend: bool) -> None:
    ax.axhspan(*GOAL, color=style.COLOURS["truth"], alpha=0.18, linewidth=0)
    ax.axhline(1, color=style.COLOURS["limit"], linewidth=1)
    x = np.array([place for place, _ in entries]) + offset
    value, reach = style.intervals([entry for _, entry in entries])
    colour = style.COLOURS["pnet"]
    ax.errorbar(x, value, yerr=reach, fmt="o", markersize=5, color=colour, elinewidth=1.3, label="std")
    blind = np.array([[place + offset, entry.value] for place, entry in robust])
    if len(blind):
        ax.plot(*blind.T, "D", markersize=5, markerfacecolor="none", color=style.COLOURS["sextractor"], label="robust")
    top = min(max(1.2, *(value + reach[1])) + 0.02, WIDEST)
    ax.set_ylim(min(0.8, *(value - reach[0])) - 0.02, top + (0.12 * (top - 0.8) if legend else 0))
    for place, number in zip(x[value > top], value[value > top], strict=True):
        beside = {"xytext": (3, 0), "textcoords": "offset points", "ha": "left", "va": "top"}
        ax.annotate(f"{number:.1f} ↑", (place, top), **beside, fontsize=8.5, color=colour)
    ax.set_ylabel("std of error / σ")
    if legend:
        ax.legend(loc="upper right", ncols=2, fontsize=8, borderpad=0.2, handletextpad=0.2, columnspacing=0.8)


def _areas(ax: Axes, entries: Numbers, offset: float, seed: int, legend: bool) -> None:
    x = np.array([value for value, _ in entries]) + offset
    floor = [calibration_metrics.perfect(entry.n, seed=seed) for _, entry in entries]
    mean, low, high = (np.array([getattr(one, name) for one in floor]) for name in ("value", "low", "high"))
    ax.vlines(x, low, high, color=style.COLOURS["grey"], linewidth=7, alpha=0.45, label="perfect error bars, 95 %")
    ax.plot(x, mean, "_", color=style.COLOURS["limit"], markersize=9, label="their mean")
    value = np.array([entry.value for _, entry in entries])
    ax.plot(x, value, "o", markersize=5, color=style.COLOURS["pnet"], label="measured")
    ax.set_ylim(0, (1.7 if legend else 1.15) * max(float(np.max(value)), float(high.max())))
    ax.set_ylabel("miscalibration area")
    if legend:
        ax.legend(loc="upper right", fontsize=8, borderpad=0.2, labelspacing=0.25)


@style.styled
def pit(table: pd.DataFrame, datasets: tuple[str, ...] = ("simulation", "sdss")) -> Figure:
    """Draw PIT histograms of magnitudes: flat where error bars are right, within the noise that n stars leave."""
    figure, axes = style.new(1, len(datasets), height=3.6)
    for letter, ax, dataset in zip("abcd", axes[0], datasets, strict=False):
        stars = stars_of(table, dataset)
        title = f"({letter}) {DATASET_NAMES.get(dataset, dataset)}"
        ax.set_xlabel("PIT, Φ((true − predicted) / σ)")
        if len(stars) < SMALLEST:
            style.empty(ax, title)
            continue
        z = metrics.standardised(*stars[["truth_mag", "mag", "mag_err"]].to_numpy(float).T)
        values = calibration_metrics.pit(z)
        # at least some seven stars a bin, so that there is a shape to see
        bins = int(np.clip(len(values) // 7, 4, calibration_metrics.PIT_BINS))
        counts = np.histogram(values, bins, (0, 1))[0] / (len(values) / bins)
        colours = {"color": style.COLOURS["pnet"], "edgecolor": "white", "linewidth": 0.5}
        ax.bar(np.linspace(0, 1, bins + 1)[:-1], counts, 1 / bins, align="edge", **colours)
        noise = stats.binom(len(values), 1 / bins).ppf([0.025, 0.975]) / (len(values) / bins)
        ax.axhspan(*noise, color=style.COLOURS["grey"], alpha=0.4, linewidth=0, zorder=3)
        ax.axhline(1, color=style.COLOURS["limit"], linewidth=1, zorder=4)
        ax.set(xlim=(0, 1), ylim=(0, 1.35 * max(float(counts.max()), noise[1])), ylabel="stars over expected")
        ax.set_title(title)
        text = f"{len(values)} stars"
        if len(values) >= 5 * calibration_metrics.PIT_BINS:
            chi2, p = calibration_metrics.uniformity(z)
            text += f"\nχ²/dof {chi2:.2f}, p {p:.2g}"
        style.note(ax, text, fontsize=9)
    return figure


@style.styled
def coverage(compared: dict[str, Score]) -> Figure:
    """Draw the share of stars inside 68 and 95 % intervals by magnitude, for every recalibration of `compare`."""
    figure, axes = style.new(2, 1, height=7.0)
    for letter, ax, level in zip("ab", axes[:, 0], LEVELS, strict=True):
        title = f"({letter}) intervals of {100 * level:.0f} %"
        ax.set_xlabel(LABELS["mag"])
        head = f"coverage_{100 * level:.0f}."
        if not any(key.startswith(head) for key in compared):
            style.empty(ax, title)
            continue
        ax.axhline(level, color=style.COLOURS["limit"], linewidth=1)
        for number, (name, (label, colour, marker)) in enumerate(STYLES.items()):
            keys = [key for key in compared if key.startswith(f"{head}{name}.mag.")]
            x = np.array([float(key.rpartition(".")[2]) for key in keys]) + 0.5 + 0.14 * (number - 2)
            value, reach = style.intervals([compared[key].estimate for key in keys])
            bars = {"fmt": marker, "markersize": 5, "elinewidth": 1.1, "color": style.COLOURS[colour], "label": label}
            ax.errorbar(x, value, yerr=reach, **bars)
        ax.set_ylabel("share of stars inside")
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.25 * (high - low))
        ax.set_title(title)
        ax.legend(loc="upper center", ncols=5, fontsize=8.5, columnspacing=0.8, handletextpad=0.3)
    return figure


@style.styled
def parts(table: pd.DataFrame, dataset: str = "simulation") -> Figure:
    """Draw the aleatoric part against the limit star by star, and both parts over the limit by magnitude."""
    figure, axes = style.new(1, 2, height=3.9)
    left, right = axes[0]
    stars = scores.matched(scores.select(table, dataset, "pnet"), "mag_aleatoric", "mag_epistemic", "limit_mag")
    stars = stars[(stars["mag_aleatoric"] > 0) & (stars["limit_mag"] > 0)]
    titles = ("(a) star by star", "(b) by magnitude")
    if stars.empty:
        for ax, title in zip(axes[0], titles, strict=True):
            style.empty(ax, title)
            ax.set_xlabel("Cramér–Rao limit / mag")
        return figure
    limit, noise = stars["limit_mag"].to_numpy(float), stars["mag_aleatoric"].to_numpy(float)
    magnitude, ignorance = stars["truth_mag"].to_numpy(float), stars["mag_epistemic"].to_numpy(float)
    left.plot(limit, noise, "o", markersize=2.2, alpha=0.35, markeredgewidth=0, color=style.COLOURS["pnet"])
    # a few stars far out are counted, not shown: the rest shall be legible
    ends = np.array([min(limit.min(), noise.min()), max(limit.max(), np.quantile(noise, 0.999))]) * [0.9, 1.1]
    beyond = int((noise > ends[1]).sum())
    left.plot(ends, ends, color=style.COLOURS["limit"], linewidth=1.2, label="equal")
    left.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    left.set(xlabel="Cramér–Rao limit / mag", ylabel="aleatoric σ / mag", title=titles[0])
    left.legend(loc="upper left")
    style.note(left, f"{len(stars)} stars" + (f"\n{beyond} beyond" if beyond else ""), "lower right", fontsize=9)
    for values, colour, label in ((noise, "pnet", "aleatoric"), (ignorance, "sextractor", "epistemic")):
        points = []
        for low, member in zip(scores.BINS[:-1], metrics.by_bin(magnitude, scores.BINS), strict=True):
            if member.any():
                points.append([low + 0.5, *np.quantile((values / limit)[member], [0.16, 0.5, 0.84])])
        if not np.any(values > 0):  # a plain head has no epistemic part
            continue
        x, low, middle, high = np.array(points).T
        right.fill_between(x, low, high, color=style.COLOURS[colour], alpha=0.25, linewidth=0)
        right.plot(x, middle, "o-", markersize=4, color=style.COLOURS[colour], label=label)
    right.axhline(1, color=style.COLOURS["limit"], linewidth=1.2, label="the limit")
    right.set(yscale="log", xlim=(13, 20), xlabel=LABELS["mag"], ylabel="σ / limit (median, 68 %)", title=titles[1])
    right.yaxis.set_major_locator(LogLocator(numticks=8))
    right.yaxis.set_minor_formatter(NullFormatter())
    low, high = right.get_ylim()
    right.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend
    right.legend(loc="upper right", fontsize=9)
    return figure
