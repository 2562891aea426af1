"""What a posterior over the weights buys: the CRPS of each way to one, and how much of σ is its own."""

import textwrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pnet.book.figures import style


@style.styled
def bought(study: dict[str, Any] | None) -> Figure:
    """Draw, per row of the study ``posterior``, the CRPS in mmag (left) and the epistemic share of the variance.

    Parameters
    ----------
    study : dict or None
        What ``python -m studies posterior`` wrote.
    """
    figure, axes = style.new(1, 2, height=3.8, sharey=True)
    left, right = axes[0]
    titles = ("(a) CRPS", "(b) epistemic part")
    if not study:
        for ax, title in zip(axes[0], titles, strict=True):
            style.empty(ax, title)
        return figure
    rows = study["rows"]
    y, n = -np.arange(len(rows), dtype=float), study["provenance"]["n"]
    crps = np.array([row["crps"] for row in rows])
    share = np.array([row["epistemic_share"] for row in rows]) ** 2
    left.axvline(crps[0], color=style.COLOURS["grey"], linewidth=1)
    left.plot(crps, y, "o", color=style.COLOURS["pnet"])
    # The same stars are measured by all: what differs is smaller than what so many stars leave open, 1/√(2 n).
    noise = crps[0] / np.sqrt(2 * n)
    left.axvspan(crps[0] - noise, crps[0] + noise, color=style.COLOURS["grey"], alpha=0.18, linewidth=0)
    left.set(xlabel="mmag", title=titles[0])
    left.set_yticks(y, [textwrap.fill(row["name"].replace("the paper's kind", "the paper's"), 26) for row in rows])
    right.barh(y, 100 * np.maximum(share, 0), height=0.5, color=style.COLOURS["purple"])
    for place, value in zip(y, share, strict=True):
        right.text(100 * value, place, f" {100 * value:.2g} %", va="center", fontsize=10)
    right.set(xlabel="% of the variance", title=titles[1], xlim=(0, 130 * max(share.max(), 1e-4)))
    return figure
