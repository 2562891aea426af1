"""What a program makes of dimmed twins: completeness, bias, scatter and the truth of its error bars by magnitude."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import scipy  # which loads its parts when they are used
from astropy.table import Table
from scipy.spatial import cKDTree

from pnet.common import metrics
from pnet.common.errors import DataError
from pnet.frame import Frame
from pnet.measure import PNet
from pnet.sky import background
from pnet.sky import twins as copies
from pnet.sky.matching import RADIUS

QUANTITIES = ("mag", "x", "y")
BINS, COUNT = 4, 40  # of one magnitude each, and copies in each: what a check of one's own frame makes
FAINT = 0.1  # mag, error bar of a fit with the frame's PSF where the bins end
NEAREST = 20  # stars whose error bars tell where that is
SHOWN = {  # columns of a summary with bias, scatter, pull and share within the 68 % interval
    "mag": ("bias", "scatter", "mag_pull", "mag_within"),
    "mag_psf": ("psf_bias", "psf_scatter", "psf_pull", "psf_within"),
    "x": ("x_bias", "x_scatter", "x_pull", "x_within"),
    "y": ("y_bias", "y_scatter", "y_pull", "y_within"),
}


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
        (mag), ``x_delta``, ``y_delta`` (px) with the copy's standard deviations ``…_sigma``: what the original's
        photons did to it they did to the copy as well.
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
        result[f"{name}_sigma"] = copy[f"{name}_err"].to_numpy(float)
    return result


def summary(table: pd.DataFrame, magnitudes: Sequence[float], *, seed: int) -> pd.DataFrame:
    """Return a row for each bin of magnitude.

    ``n`` copies; as Estimates the share ``found`` of them, the median ``bias`` and the robust ``scatter`` of magnitudes
    (mag), ``x_bias`` … ``y_scatter`` those of positions (px), and for magnitude, x and y the robust scatter over the
    error bars, ``…_pull``, and the share within the 68 % interval, ``…_within``.
    """
    rows = []
    for low, high in zip(magnitudes, magnitudes[1:], strict=False):
        some = table[table["mag"].between(low, high, inclusive="left")]
        row = {"mag": f"{low:g}–{high:g}", "n": len(some), "found": metrics.share(some["found"].to_numpy())}
        for name in QUANTITIES:
            delta = some[f"{name}_delta"].dropna().to_numpy()
            pull = (some[f"{name}_delta"] / some[f"{name}_sigma"]).dropna().to_numpy()
            prefix = "" if name == "mag" else f"{name}_"
            row[f"{prefix}bias"] = metrics.bootstrap(np.median, delta, seed=seed)
            row[f"{prefix}scatter"] = metrics.bootstrap(metrics.robust_scatter, delta, seed=seed)
            row[f"{name}_pull"] = metrics.bootstrap(metrics.robust_scatter, pull, seed=seed)
            row[f"{name}_within"] = metrics.coverage(pull, 0.68)
        rows.append(row)
    return pd.DataFrame(rows)


def check(measure: Callable[[Frame], pd.DataFrame], frame: Frame, twins: tuple[Frame, pd.DataFrame]) -> pd.DataFrame:
    """Return `differences` of a program that turns a frame into a table, on a frame with its twins."""
    copied, places = twins
    return differences(measure(frame), measure(copied), places)


def faint_end(catalogue: Table) -> float:
    """Return the magnitude, to a tenth, at which ``mag_psf_err`` of a catalogue is about `FAINT`, or at which it ends.

    A star of another error bar tells the first as well: where the sky makes the noise, errors go with the inverse of
    the flux. The second, where 95 % of the stars are brighter, is for catalogues that end before: fainter copies would
    not be found.

    Raises
    ------
    DataError
        If no star has a ``mag_psf_err``.
    """
    mag, error = (np.asarray(catalogue[name], float) for name in ("mag", "mag_psf_err"))
    known = np.isfinite(mag) & np.isfinite(error) & (error > 0)
    if not known.any():
        name = catalogue.meta["frame"]
        raise DataError(f"frame {name}: none of {len(catalogue)} stars has a mag_psf_err, which tells what to check")
    off = 2.5 * np.log10(FAINT / error[known])
    near = np.argsort(abs(off), kind="stable")[:NEAREST]
    return round(float(min(np.median((mag[known] + off)[near]), np.quantile(mag[known], 0.95))), 1)


def of_catalogue(networks: PNet, frame: Frame, catalogue: Table) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Check a catalogue on its own frame: copy its bright stars as fainter ones, and measure the frame again.

    The `COUNT` copies in each of `BINS` bins of one magnitude, which end at `faint_end`, are measured as the catalogue
    was. What came out goes into ``catalogue.meta["check"]``, a list of `lines`.

    Parameters
    ----------
    networks : PNet
        That made the catalogue.
    frame : Frame
    catalogue : Table
        As `PNet.measure` returns it.

    Returns
    -------
    DataFrame
        `differences`.
    DataFrame
        `summary` of them, and ``psf_bias``, ``psf_scatter``, ``psf_pull``, ``psf_within`` for ``mag_psf``.

    Raises
    ------
    DataError
        If no star of the catalogue is fit to be copied, or there is no room for copies.
    """
    before, meta = catalogue.to_pandas(), catalogue.meta
    magnitudes = (faint_end(catalogue) - BINS + np.arange(BINS + 1)).round(1).tolist()
    copied, places = copies.make(frame, before, background.subtracted(frame), magnitudes, COUNT, meta["seed"])
    after = networks.measure(copied, meta["confidence"], meta["seed"]).to_pandas()
    table = differences(before, after, places)
    rows = summary(table, magnitudes, seed=meta["seed"])
    fits = [measured.assign(mag=measured["mag_psf"], mag_err=measured["mag_psf_err"]) for measured in (before, after)]
    fitted = summary(differences(*fits, places), magnitudes, seed=meta["seed"])
    for name, own in zip(SHOWN["mag_psf"], SHOWN["mag"], strict=True):
        rows[name] = fitted[own]
    meta["check"] = lines(rows)
    return table, rows


def lines(rows: pd.DataFrame) -> list[str]:
    """Return what `of_catalogue` found as text: ``Table.read(lines, format="ascii")`` makes a table of it again.

    ``of`` what, ``from`` and ``to`` which magnitude; ``n`` copies, ``found`` and ``within`` the 68 % interval in per
    cent; ``bias`` with its standard deviation ``error``, and ``scatter``, in thousandths of a magnitude or pixel.
    """
    text = [f"{'of':7}{'from':>6}{'to':>6}{'n':>4}{'found':>6}{'bias':>7}{'error':>6}{'scatter':>8}{'pull':>6} within"]
    for of, names in SHOWN.items():
        for row in rows.to_dict("records"):
            low, high = row["mag"].split("–")
            bias, scatter, pull, within = (row[name] for name in names)
            error = (bias.high - bias.low) / (2 * scipy.stats.norm.ppf(0.5 + metrics.LEVEL / 2))
            text.append(
                f"{of:7}{low:>6}{high:>6}{row['n']:4d}{100 * row['found'].value:6.0f}{1000 * bias.value:7.1f}"
                f"{1000 * error:6.1f}{1000 * scatter.value:8.1f}{pull.value:6.2f}{100 * within.value:7.0f}"
            )
    return text
