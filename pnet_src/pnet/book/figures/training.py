"""Figures of training: losses and validation by epoch, what a network is given and asked, and what it answers."""

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import style
from pnet.detection.targets import Batch, make_targets
from pnet.sky.frame_psf import FramePSF
from pnet.stars.inputs import Inputs
from pnet.training.psfs import SkyPSF, places

LOSSES = {
    "heatmap": "heat map (focal)",
    "offset": "offset (MAE)",
    "flux": "flux (MSE)",
    "size": "size (MAE)",
    "loss": "sum",
    "likelihood": "−ln likelihood",
    **{f"likelihood_{name}": f"−ln likelihood, {name}" for name in ("mag", "x", "y")},
    "kl": "KL / N",
}
VALIDATION = {
    "val_precision": "1 − precision",
    "val_recall": "1 − recall",
    "val_mean_dx": "mean |Δx| / px",
    "val_log_flux_scatter": "scatter of ln flux",
    "val_mag_mae": "mean |Δmag|",
    "val_mag_mean_sigma": "mean σ / mag",
    "val_mag_mean_epistemic": "mean epistemic σ / mag",
    "val_x_mae": "mean |Δx| / px",
    "val_x_mean_sigma": "mean σ of x / px",
}
SHOWN = 5  # lines that a panel can hold, the first that a history has
SMALLEST = 1e-5  # what a rate without error is drawn at on a logarithmic axis


@style.styled
def history(table: pd.DataFrame) -> Figure:
    """Draw the mean training loss of every epoch with its parts (above) and the validation (below): of a table with
    ``epoch`` and any of `LOSSES` and `VALIDATION`."""
    figure, [[above], [below]] = style.new(2, 1, height=7.4)
    _show(above, table, LOSSES, "training loss")
    values = table[[name for name in ("epoch", *VALIDATION) if name in table and table[name].any()]].copy()
    for name in values.columns.drop("epoch"):
        rate = VALIDATION[name].startswith("1 −")
        values[name] = (1 - values[name] if rate else values[name]).clip(lower=SMALLEST)
    if len(values.columns) > 1:
        _show(below, values, VALIDATION, "validation")
    else:
        style.empty(below, "validation", "this run had no validation frames")
    return figure


@style.styled
def steps(table: pd.DataFrame) -> Figure:
    """Draw the first steps of a training: a history whose epochs are single steps."""
    figure, [[ax]] = style.new(1, 1, height=4.0)
    _show(ax, table, LOSSES, "training loss")
    ax.set(xlabel="step", xticks=range(0, len(table) + 1, max(1, len(table) // 5)))
    return figure


def _show(ax: Axes, table: pd.DataFrame, labels: dict[str, str], title: str) -> None:
    """Draw those columns of a history that have a label against the epoch, logarithmic where all are positive."""
    names = [name for name in labels if name in table][:SHOWN]
    lines = table.set_index("epoch")[names].rename(columns=labels)
    sns.lineplot(lines, dashes=False, markers=["o"] * len(names), markersize=4, markeredgewidth=0, errorbar=None, ax=ax)
    if (lines > 0).all().all():  # likelihoods may be negative
        ax.set_yscale("log")
    ax.set(xlabel="epoch", ylabel=title)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2 if len(names) == 4 else 3)


@style.styled
def target(batch: Batch) -> Figure:
    """Draw one training field beside the heat map that the network is to produce for it."""
    image = torch.asinh(batch.image[0] / batch.sigma[0]).numpy()
    heatmap = make_targets(batch, offset_reach=0).heatmap[0, 0].numpy()
    figure, [[left, right]] = style.new(1, 2, height=3.6)
    style.picture(left, image, "gray_r", vmin=-1.5, vmax=6)
    style.picture(right, heatmap, unit="cells", vmin=0, vmax=1)
    left.set_title("(I − sky)/σ, asinh")
    right.set_title("heat map to learn")
    return figure


@style.styled
def drawn_psfs(known: list[tuple[SkyPSF, list[FramePSF]]], size: int = 21) -> Figure:
    """Draw PSFs as `pnet.training.psfs.many` gives them, one a column: the truth in the middle of its frame, and what
    an estimate of it has wrong there, in per cent of the peak; on `size` px."""
    figure, axes = style.new(2, len(known), height=4.0)
    middle = torch.zeros(1, dtype=torch.float64)
    for (above, below), (true, estimates) in zip(axes.T, known, strict=True):
        psf = estimates[0]
        light = true.stamps(middle, middle, middle, middle, size)[0].double().numpy()
        wrong = psf.drawn(*places(middle, middle), size, at=(middle, middle))[0][0].numpy() - light
        above.imshow(np.log10((light / light.max()).clip(1e-4)), cmap="viridis", vmin=-3, vmax=0)
        below.imshow(100 * wrong / light.max(), cmap="RdBu_r", vmin=-5, vmax=5)
        above.set_title(f"FWHM {2.355 * true.width:.1f} px", fontsize=9.5)
        below.set_title(f"{psf.stars} stars", fontsize=9.5)
        for ax in (above, below):
            ax.set(xticks=[], yticks=[])
    for ax, name in zip(axes[:, 0], ("PSF, log", "estimate − PSF"), strict=True):
        ax.set_ylabel(name)
    return figure


@style.styled
def stamps(inputs: Inputs, flux: np.ndarray) -> Figure:
    """Draw stars as the BPNN sees them: one column for each of five from bright to faint, one row for each of the first
    three of its images.

    `flux`, (n,), is that of the stars, in electrons.
    """
    chosen = np.argsort(-flux)[np.linspace(0, len(flux) - 1, 5).astype(int)]
    rows = {"residual": ("RdBu_r", -3, 3), "star": ("viridis", None, None), "own PSF": ("viridis", 0, 1)}
    figure, axes = style.new(len(rows), 5, height=4.3)
    for column, star in zip(axes.T, chosen, strict=True):
        for ax, image, (colours, least, most) in zip(column, inputs.images[star].numpy(), rows.values(), strict=False):
            ax.imshow(image, cmap=colours, vmin=least, vmax=most)
            ax.set(xticks=[], yticks=[])
        column[0].set_title(f"{flux[star]:.1e} e⁻", fontsize=9.5)
    for ax, name in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(name)
    return figure


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
    parts = {"aleatoric": (aleatoric, "sextractor"), "epistemic": (epistemic, "purple"), "together": (total, "pnet")}
    for name, (value, colour) in parts.items():
        bar = right.bar(name, 1000 * value, color=style.COLOURS[colour])
        right.bar_label(bar, fmt="{:.1f}", fontsize=10)
    right.set(title="σ / mmag", yticks=[], xlabel=" ")
    right.tick_params(axis="x", rotation=30)
    right.margins(y=0.15)
    return figure
