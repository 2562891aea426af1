"""The study of stars unlike those of training: what the parts of σ say, and what the flag finds."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from pnet.book.figures import style

PARTS = {  # what is drawn for each condition, in mag
    "aleatoric": ("aleatoric", "pnet", "o"),
    "epistemic": ("epistemic", "sextractor", "s"),
    "error": ("|error|", "limit", "x"),
}
SHORT = {  # titles that fit beside a panel
    "validation": "validation frames",
    "in_range": "as in training",
    "seeing_wide": "seeing 2.5–3.0″",
    "seeing_sharp": "seeing 0.5–0.6″",
    "sky_bright": "sky + 2 mag",
    "read_noise": "read noise × 5",
    "saturated": "10.5–12.5 mag",
    "blends": "unseen companion",
    "galaxies": "galaxies",
    "trailed": "trailed by 4 px",
    "cosmic_rays": "cosmic rays",
}


@style.styled
def conditions(study: dict[str, Any] | None) -> Figure:
    """Draw, per condition, both parts of σ beside the error (left) and the novelty beside the flag's threshold (right).

    Parameters
    ----------
    study : dict or None
        What `studies.stress.run` wrote.
    """
    figure, axes = style.new(1, 2, height=5.4, sharey=True)
    left, right = axes[0]
    titles = ("(a) parts and error", "(b) novelty")
    if not study:
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_xlabel("no study")
            style.empty(ax, title)
        return figure
    rows = study["rows"]
    y = -np.arange(len(rows), dtype=float)
    for name, (label, colour, marker) in PARTS.items():
        values = np.array([row[name] for row in rows], dtype=float)
        left.plot(values, y, marker, markersize=6, color=style.COLOURS[colour], label=label, markeredgewidth=1.6)
    left.set(xscale="log", xlabel="mag", title=titles[0])
    left.xaxis.set_major_locator(LogLocator(numticks=6))
    left.xaxis.set_minor_formatter(NullFormatter())
    left.set_yticks(y, [SHORT.get(row["name"], row["name"]) for row in rows])
    left.set_ylim(y[-1] - 0.6, 1.9)
    left.legend(loc="upper center", ncols=3, fontsize=8, columnspacing=0.6, handletextpad=0.1, borderpad=0.2)
    threshold = study["flag"]["threshold"]
    quantiles = np.array([row["quantiles"] for row in rows])
    right.hlines(y, quantiles[:, 0], quantiles[:, 4], color=style.COLOURS["purple"], linewidth=1.4)
    right.hlines(y, quantiles[:, 1], quantiles[:, 3], color=style.COLOURS["purple"], linewidth=5, alpha=0.6)
    right.plot(quantiles[:, 2], y, "o", color=style.COLOURS["purple"], markersize=5)
    right.axvline(threshold, color=style.COLOURS["paper"], linewidth=1.4)
    # a few stars far out must not squeeze the rest
    right.set_xlim(min(-4.0, float(quantiles[:, 1].min())), max(3 * threshold, float(quantiles[:, 3].max()) + 1))
    right.text(threshold, 1.0, " flagged", color=style.COLOURS["paper"], fontsize=9.5, va="center")
    beside = right.get_yaxis_transform()
    right.text(1.04, 1.0, "flagged\n(AUC)", transform=beside, fontsize=9, va="center")
    for place, row in zip(y, rows, strict=True):
        text = f"{100 * row['flagged']:.0f} %"
        if row["name"] != "validation":  # it defines the scale
            text += f" ({row['auc']:.2f})"
        right.text(1.04, place, text, transform=beside, va="center", fontsize=9)
    right.set(xlabel="novelty", title=titles[1])
    return figure
