"""Figures of training: losses and validation by epoch, and what a network is asked to learn."""

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnet.book.figures import style
from pnet.detection.targets import Batch, make_targets
from pnet.stars.inputs import Inputs

LABELS = {
    "heatmap": "heat map (focal)",
    "offset": "offset (MAE)",
    "flux": "flux (MSE)",
    "size": "size (MAE)",
    "loss": "sum",
    "likelihood": "−ln likelihood",
    "likelihood_mag": "−ln likelihood, mag",
    "likelihood_x": "−ln likelihood, x",
    "likelihood_y": "−ln likelihood, y",
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
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#AA4499", "#111111"]
SMALLEST = 1e-5  # what a rate without error is drawn at on a logarithmic axis


def show_losses(ax: Axes, history: pd.DataFrame) -> Axes:
    """Draw the mean training loss of every epoch and its parts; return `ax`."""
    names = [name for name in LABELS if name in history]
    for name, colour in zip(names, COLOURS, strict=False):
        ax.plot(history["epoch"], history[name], color=colour, label=LABELS[name], marker=".", markersize=4)
    # Likelihoods may be negative: only losses that cannot be are drawn on a logarithmic axis.
    if (history[names] > 0).all().all():
        ax.set_yscale("log")
    ax.set(xlabel="epoch", ylabel="training loss")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return ax


def show_validation(ax: Axes, history: pd.DataFrame) -> Axes:
    """Draw the validation of every epoch on a logarithmic axis; return `ax`."""
    names = [name for name in VALIDATION if name in history]
    if not names:
        style.empty(ax, "validation", "this run had no validation frames")
        return ax
    for name, colour in zip(names, COLOURS, strict=False):
        values = 1 - history[name] if VALIDATION[name].startswith("1 −") else history[name]
        ax.plot(
            history["epoch"],
            values.clip(lower=SMALLEST),
            color=colour,
            label=VALIDATION[name],
            marker=".",
            markersize=4,
        )
    ax.set_yscale("log")
    ax.set(xlabel="epoch", ylabel="validation")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return ax


@style.styled
def history_figure(history: pd.DataFrame) -> Figure:
    """Return losses and validation, one above the other."""
    figure, axes = style.new(2, 1, height=7.4)
    show_losses(axes[0, 0], history)
    show_validation(axes[1, 0], history)
    return figure


@style.styled
def target_figure(batch: Batch, offset_reach: int = 0) -> Figure:
    """Return one training field beside the heat map that the network is to produce for it."""
    figure, axes = style.new(1, 2, height=3.6)
    image = torch.asinh(batch.image[0] / batch.sigma[0]).numpy()
    axes[0, 0].imshow(image, cmap="gray_r", vmin=-1.5, vmax=6, origin="lower")
    axes[0, 0].set(title="(I − sky)/σ, asinh", xlabel="x / px", ylabel="y / px")
    targets = make_targets(batch, offset_reach)
    axes[0, 1].imshow(targets.heatmap[0, 0].numpy(), cmap="viridis", vmin=0, vmax=1, origin="lower")
    axes[0, 1].set(title="heat map to learn", xlabel="x / cells", ylabel="y / cells")
    for ax in axes.flat:
        ax.grid(False)
    return figure


@style.styled
def stamp_figure(inputs: Inputs, flux: np.ndarray, count: int = 5) -> Figure:
    """Return stamps as the BPNN sees them: one column for each of `count` stars from bright to faint, one row a
    channel."""
    order = np.argsort(-np.asarray(flux))
    chosen = order[np.linspace(0, len(order) - 1, count).astype(int)]
    figure, axes = style.new(3, count, height=4.3)
    for column, star in enumerate(chosen):
        for row, name in enumerate(("asinh", "shape", "residual")):
            ax = axes[row, column]
            ax.imshow(inputs.images[star, row].numpy(), cmap="viridis", origin="lower")
            ax.set_xticks([])
            ax.set_yticks([])
            ax.grid(False)
            if not column:
                ax.set_ylabel(name)
        axes[0, column].set_title(f"{flux[star]:.1e} e⁻", fontsize=9.5)
    return figure
