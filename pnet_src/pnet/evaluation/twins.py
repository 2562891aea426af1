"""What a program makes of dimmed twins: completeness, bias, scatter and the truth of its error bars by magnitude."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from pnet.common import metrics
from pnet.frame import Frame
from pnet.sky.matching import RADIUS

QUANTITIES = ("mag", "x", "y")


def differences(before: pd.DataFrame, after: pd.DataFrame, twins: pd.DataFrame) -> pd.DataFrame:
    """Return what is measured of each copy less what is of its original and what it should be.

    Parameters
    ----------
    before, after : DataFrame
        Measurements of the frame without and with copies: ``x``, ``y`` (px), ``mag``, their errors ``x_err`` …
    twins : DataFrame
        As `pnet.sky.twins.make` returns them.

    Returns
    -------
    DataFrame
        A row a copy: ``mag`` (its own), ``found``, and, NaN where it or its original is not found, ``mag_delta``
        (mag), ``x_delta``, ``y_delta`` (px) with their standard deviations ``…_sigma``.
    """
    pairs = []
    for measured, names in ((before, ("x_original", "y_original")), (after, ("x", "y"))):
        # an original has several copies, so that no one-to-one matching will do
        tree = cKDTree(measured[["x", "y"]].to_numpy(float))
        _, row = tree.query(twins[list(names)].to_numpy(float), distance_upper_bound=RADIUS)
        pairs.append(measured.reset_index(drop=True).reindex(row).reset_index(drop=True))
    original, copy = pairs
    result = pd.DataFrame({"mag": twins["mag"].to_numpy(float), "found": copy["x"].notna().to_numpy()})
    moved = {axis: twins[axis] - twins[f"{axis}_original"] for axis in ("x", "y")} | {"mag": twins["dimming"]}
    for name in QUANTITIES:
        result[f"{name}_delta"] = (copy[name] - original[name]).to_numpy(float) - moved[name].to_numpy(float)
        result[f"{name}_sigma"] = np.hypot(copy[f"{name}_err"], original[f"{name}_err"]).to_numpy(float)
    return result


def summary(table: pd.DataFrame, magnitudes: Sequence[float], *, seed: int) -> pd.DataFrame:
    """Return a row for each bin of magnitude.

    ``n`` copies; as Estimates the share ``found`` of them, the median ``bias`` and the robust ``scatter`` of magnitudes
    (mag), and for magnitude, x and y the robust scatter over the error bars, ``…_pull``, and the share within the 68 %
    interval, ``…_within``.
    """
    rows = []
    for low, high in zip(magnitudes, magnitudes[1:], strict=False):
        some = table[table["mag"].between(low, high, inclusive="left")]
        known = some.dropna()
        delta = known["mag_delta"].to_numpy()
        row = {"mag": f"{low:g}–{high:g}", "n": len(some), "found": metrics.share(some["found"].to_numpy())}
        row["bias"] = metrics.bootstrap(np.median, delta, seed=seed)
        row["scatter"] = metrics.bootstrap(metrics.robust_scatter, delta, seed=seed)
        for name in QUANTITIES:
            pull = (known[f"{name}_delta"] / known[f"{name}_sigma"]).to_numpy()
            row[f"{name}_pull"] = metrics.bootstrap(metrics.robust_scatter, pull, seed=seed)
            row[f"{name}_within"] = metrics.coverage(pull, 0.68)
        rows.append(row)
    return pd.DataFrame(rows)


def check(measure: Callable[[Frame], pd.DataFrame], frame: Frame, twins: tuple[Frame, pd.DataFrame]) -> pd.DataFrame:
    """Return `differences` of a program that turns a frame into a table, on a frame with its twins."""
    copied, places = twins
    return differences(measure(frame), measure(copied), places)
