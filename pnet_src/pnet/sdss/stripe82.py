"""The Stripe 82 co-add as truth for a single frame: deeper, and with noise of its own.

SDSS observed Stripe 82 some twenty times and added the images up (Annis et al. 2014, ApJ 794, 120): two magnitudes
deeper than one frame, so a detection that the frame's own catalogue does not know may be real there, and its
magnitudes do not share the frame's noise. Its stars saturate two magnitudes fainter than a frame's, its positions reach
the frame through the frame's celestial WCS, which scatters by 0.2 px, and its catalogue here gives no errors.
"""

import os

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from pnet.common.errors import DataError
from pnet.common.fits_file import open_fits
from pnet.frame import Frame
from pnet.sky import catalogue

FIELD = "94-1-12"  # the field that the catalogue was cut out for
DEPTH = 22.2  # mag; where a single frame of SDSS finds 95 % of the stars, so what is fainter disturbs no star of it
NEEDED = (
    *("objid", "ra", "dec", "probpsf", "psfmag_g", "devmag_g", "expmag_g", "fracdev_r"),
    *("galaxy_bool", "is_saturated"),
)


def coadd_truth(
    path: str | os.PathLike,
    frame: Frame,
    *,
    magnitudes: tuple[float, float] = catalogue.MAGNITUDES,
    isolation: float = catalogue.ISOLATION,
    edge: float = catalogue.EDGE,
) -> pd.DataFrame:
    """Return the sources of the co-add on a g-band frame, with the stars that count marked.

    A star counts by the paper's criteria (:func:`pnet.sky.catalogue.mark_counted`); neighbours are the sources down to
    `DEPTH`, and a source that saturates in the co-add does not count, for there its shape and magnitude are wrong.

    Parameters
    ----------
    path : path
        Co-add catalogue.
    frame : Frame
        With its celestial WCS.
    magnitudes, isolation, edge
        As in :func:`pnet.sky.catalogue.mark_counted`.

    Returns
    -------
    DataFrame
        x, y (px from 0, through the WCS), mag (AB; PSF magnitude of a star, model magnitude of a galaxy), flux
        (electrons of the frame), kind, counted, saturated, objid, ra, dec (degrees).

    Raises
    ------
    DataError
        If the file is damaged or lacks a column, the frame has no WCS, or nothing of the catalogue lies on it.
    """
    hdus = open_fits(path)
    table = hdus[1].data if len(hdus) > 1 else None
    if table is None or getattr(table, "names", None) is None:
        raise DataError(f"{path}: has no table in HDU 1")
    missing = [column for column in NEEDED if column not in table.names]
    if missing:
        raise DataError(f"{path}: lacks the columns {', '.join(missing)}; it is no co-add catalogue of Stripe 82")
    if frame.wcs is None:
        raise DataError(f"frame {frame.name}: has no celestial WCS, so the co-add cannot be placed on it")
    native = {name: np.asarray(table[name]) for name in NEEDED}
    # The file's own x and y are pixels of the r frame, 4 and 14 px away from those of g.
    x, y = frame.wcs.all_world2pix(native["ra"].astype(float), native["dec"].astype(float), 0)
    star = (native["probpsf"] == 1) & ~native["galaxy_bool"].astype(bool)
    model = np.where(native["fracdev_r"] > 0.5, native["devmag_g"], native["expmag_g"])
    mag = np.where(star, native["psfmag_g"], model).astype(float)
    rows = pd.DataFrame(
        {
            "x": x,
            "y": y,
            "mag": mag,
            "flux": frame.flux(mag),
            "kind": np.where(star, "star", "galaxy"),
            "saturated": native["is_saturated"].astype(bool),
            "objid": [str(value) for value in native["objid"]],
            "ra": native["ra"].astype(float),
            "dec": native["dec"].astype(float),
        }
    )
    height, width = frame.shape
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    if not inside.any():
        raise DataError(f"{path}: no source of it lies on frame {frame.name}; it was made for field {FIELD}")
    rows = rows[inside].sort_values("mag", kind="stable").reset_index(drop=True)
    seen = rows["mag"] <= DEPTH
    marked = catalogue.mark_counted(rows[seen], frame, magnitudes=magnitudes, isolation=isolation, edge=edge)
    rows["counted"] = marked["counted"].reindex(rows.index, fill_value=False).astype(bool) & ~rows["saturated"]
    return rows


def offset(truth: pd.DataFrame, other: pd.DataFrame, radius: float = 2.0) -> dict[str, float]:
    """Return how two catalogues of a frame differ: the median of `truth` minus `other` over stars that both count.

    Parameters
    ----------
    truth, other : DataFrame
        Columns x, y, mag, counted.
    radius : float
        Largest distance of a pair, px.

    Returns
    -------
    dict
        ``n``, ``x``, ``y`` (px), ``mag``: medians; ``x_scatter``, ``y_scatter``, ``mag_scatter``: 1.4826 times the
        median absolute deviation. NaN where there is no pair.
    """
    first, second = (table[table["counted"]].reset_index(drop=True) for table in (truth, other))
    result: dict[str, float] = {"n": 0}
    difference = pd.DataFrame(columns=["x", "y", "mag"], dtype=float)
    if len(first) and len(second):
        distance, index = cKDTree(second[["x", "y"]].to_numpy()).query(first[["x", "y"]].to_numpy())
        near = distance <= radius
        columns = ["x", "y", "mag"]
        difference = first.loc[near, columns].reset_index(drop=True) - second.loc[index[near], columns].reset_index(
            drop=True
        )
        result["n"] = int(near.sum())
    for name in ("x", "y", "mag"):
        values = difference[name]
        result[name] = float(values.median())
        result[f"{name}_scatter"] = float(1.4826 * (values - values.median()).abs().median())
    return result


def real_detections(detections: pd.DataFrame, truth: pd.DataFrame, radius: float = 2.0) -> pd.Series:
    """Return which detections are a source of the co-add, of whatever kind, magnitude or saturation.

    Parameters
    ----------
    detections : DataFrame
        Columns x, y: those that the frame's own catalogue calls false.
    truth : DataFrame
        From :func:`coadd_truth`.
    radius : float
        Pixels.

    Returns
    -------
    Series of bool
        With the index of `detections`.
    """
    if detections.empty or truth.empty:
        return pd.Series(False, index=detections.index)
    distance, _ = cKDTree(truth[["x", "y"]].to_numpy()).query(detections[["x", "y"]].to_numpy())
    return pd.Series(distance <= radius, index=detections.index)
