"""Stars whose cores have lost light though no mask and no saturation level says so, as in a corrected frame of SDSS
that comes without its mask: interpolated values stand there, which look like any others."""

import numpy as np
import pandas as pd
import torch

from pnet.sky.psf_fit import FittedStars, fit
from pnet.sky.stamps import offsets, pixels

SIGNAL, MISFIT = 150.0, 30.0  # flux over noise and misfit from which on a star is looked at
WINGS = 3.0  # PSF widths from which on its wings are fitted alone
LOST = 0.8  # share of what the wings promise that the core has at most, a width from the middle
# A galaxy's core is fainter than its wings promise, too; but it promises no peak as high as the highest of all stars.
HIGH = 0.5  # of it
ITERATIONS = 8  # a core without light has sent the first fit far off
WRONG, NOISE = 0.2, 5.0  # share of the promised light, and times the noise, by which a pixel may be off


def lost_cores(stars: FittedStars, shape: tuple[int, int]) -> tuple[np.ndarray, pd.DataFrame]:
    """Look for stars whose core has less light than their wings promise.

    On nine frames of training and validation two dozen stars have a core of less than 0.6 of the promise, all brighter
    than 15 mag; all others but galaxies have at least 0.83.

    Parameters
    ----------
    stars : FittedStars
    shape : (int, int)
        Of the frame.

    Returns
    -------
    lost : ndarray, (H, W), bool
        Pixels that hold no measurement.
    found : DataFrame
        Such stars, each once, by their rows: ``x``, ``y`` (px) and ``flux`` (electrons) from their wings.
    """
    first, width = stars.fit, stars.psf.basis.width
    lost = np.zeros(shape, bool)
    bright = torch.nonzero((first.flux > SIGNAL * first.error[:, 0]) & (first.misfit > MISFIT))[:, 0]
    if not len(bright):
        return lost, pd.DataFrame(columns=["x", "y", "flux"], dtype=float)
    at = first.flux[bright], first.dx[bright], first.dy[bright]
    seen = first.residual[bright] + at[0][:, None, None] * first.share[0][bright]
    distance = torch.hypot(*offsets(seen.shape[-1], *at[1:]))
    outer = (distance > WINGS * width) & (first.weight[bright] > 0)
    place = stars.x[bright], stars.y[bright]
    wings = fit(stars.psf, seen, *place, at, stars.rms**2, usable=outer, iterations=ITERATIONS)
    promised = wings.flux[:, None, None] * wings.share[0]
    core = distance < width
    short = (seen * core).sum(dim=(1, 2)) < LOST * (promised * core).sum(dim=(1, 2))
    highest = (first.residual + first.flux[:, None, None] * first.share[0]).amax()
    short &= promised.amax(dim=(1, 2)) > HIGH * highest
    # several detections may lie on one of them: that of the highest peak stands for all
    order = torch.nonzero(short)[:, 0]
    order = order[seen[order].amax(dim=(1, 2)).argsort(descending=True)]
    chosen: list[int] = []
    for k in order.tolist():
        if all(torch.hypot(place[0][k] - place[0][j], place[1][k] - place[1][j]) > seen.shape[-1] / 2 for j in chosen):
            chosen.append(k)
    wrong = (seen - promised).abs() > WRONG * promised + NOISE * wings.variance.sqrt()
    away = (distance <= WINGS * width) | wrong
    for k in chosen:
        column, row = stars.middle[bright[k]].long()
        index, inside = pixels((1, *lost.shape), torch.zeros(1).long(), column[None], row[None], seen.shape[-1])
        lost.reshape(-1)[index[0][away[k] & inside[0]].numpy()] = True
    rows = bright[chosen]
    x, y = (stars.middle[rows] + torch.stack([wings.dx, wings.dy], dim=1)[chosen]).T.numpy()
    return lost, pd.DataFrame({"x": x, "y": y, "flux": wings.flux[chosen].numpy()}, index=rows.numpy())
