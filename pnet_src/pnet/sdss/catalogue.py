"""Truth for SDSS frames: which objects of photoObj are stars that count, and what they are excluded for.

The catalogue's positions are those of the frame's own band, ROWC and COLC (OBJC_ROWC and OBJC_COLC are in the pixels
of the r frame, many pixels away in g), and its fluxes nanomaggies of the PSF, turned into electrons by the frame's
zero point (Eq. 1 of the paper).
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from pnet.common.errors import ConfigError, DataError
from pnet.common.fits_file import open_fits
from pnet.frame import Frame
from pnet.sdss import frame as sdss
from pnet.sdss.field import BANDS
from pnet.sdss.files import Report
from pnet.sky import catalogue

# Bits of OBJC_FLAGS and FLAGS (data model of photoObj, "Flags" of the DR17 algorithms pages)
BRIGHT, EDGE, PEAKCENTER, SATUR, NOTCHECKED = 1 << 1, 1 << 2, 1 << 5, 1 << 18, 1 << 19
BINNED1, BINNED2, BINNED4 = 1 << 28, 1 << 29, 1 << 30
STAR = 6  # OBJC_TYPE of a point source; 3 is a galaxy
PRIMARY = 1  # MODE of the one detection that stands for an object where fields overlap

NEEDED = (
    *("OBJID", "RUN", "CAMCOL", "FIELD", "MODE", "CLEAN", "NCHILD", "OBJC_TYPE", "OBJC_FLAGS", "RA", "DEC"),
    *("FLAGS", "ROWC", "COLC", "PSFFLUX", "PSFMAGERR", "CMODELFLUX"),  # five bands each
)
# Why a star of the right magnitude does not count, in the order in which reasons are given; "" means that it counts.
REASONS = {
    "flags": "saturated, cut by the edge, not checked or not clean",
    "masked": "on a masked pixel",
    "edge": "within 10 px of the edge",
    "object": "within 10 px of a galaxy or another object",
    "star": "within 10 px of a star of 13–20 mag",
}


def select(
    photoobj_path: str | os.PathLike,
    frame: Frame,
    *,
    magnitudes: tuple[float, float] = catalogue.MAGNITUDES,
    isolation: float = catalogue.ISOLATION,
    edge: float = catalogue.EDGE,
) -> pd.DataFrame:
    """Return the objects of a field that are detected in the frame's band, with the stars that count marked.

    An object is listed if it has no children of its own (NCHILD 0), is no duplicate from the search for bright
    objects (BRIGHT) and is detected in this band (BINNED1, 2 or 4). All of these are neighbours for the paper's
    criteria. A star counts if, besides, it has OBJC_TYPE 6, BINNED1, none of SATUR, EDGE, PEAKCENTER and NOTCHECKED
    in this band, and fulfils the three criteria of section 2 (:func:`pnet.sky.catalogue.mark_counted`). In a run that
    contributes to the primary survey it must also be MODE 1 and CLEAN, so that nothing counts twice where fields
    overlap. Other runs (94 is one) have no object of MODE 1 and CLEAN 0 throughout; there the flags alone decide.

    Parameters
    ----------
    photoobj_path : path
        ``photoObj-….fits`` of the frame's field.
    frame : Frame
        From :func:`pnet.sdss.frame.read_frame`.
    magnitudes, isolation, edge
        As in :func:`pnet.sky.catalogue.mark_counted`.

    Returns
    -------
    DataFrame
        x, y (px from 0), mag, flux (electrons; PSF flux for stars, cmodel for galaxies; mag is NaN where the flux is
        not positive), kind, counted, reason (a key of `REASONS`, "" for a star that counts, "magnitude" for one
        outside the range, "galaxy"), clean, run, camcol, field, objid, psfmag_err, ra, dec (degrees).

    Raises
    ------
    DataError
        If the file is damaged, lacks a column, or is of another field.
    """
    hdus = open_fits(photoobj_path)
    table = hdus[1].data if len(hdus) > 1 else None
    if table is None or getattr(table, "names", None) is None:
        raise DataError(f"{photoobj_path}: has no table in HDU 1")
    missing = [column for column in NEEDED if column not in table.names]
    if missing:
        raise DataError(f"{photoobj_path}: lacks the columns {', '.join(missing)}; it is no photoObj file")
    _check_field(table, photoobj_path, frame)
    band = BANDS.index(frame.meta["band"])
    native = {name: np.asarray(table[name]) for name in NEEDED}
    flags, general = native["FLAGS"][:, band].astype(np.int64), native["OBJC_FLAGS"].astype(np.int64)

    def flag(bits: int) -> np.ndarray:
        return (flags & bits) != 0

    detected = (native["NCHILD"] == 0) & ((general & BRIGHT) == 0) & flag(BINNED1 | BINNED2 | BINNED4)
    clean = flag(BINNED1) & ~flag(SATUR | EDGE | PEAKCENTER | NOTCHECKED)
    if (native["MODE"] == PRIMARY).any():
        clean &= (native["MODE"] == PRIMARY) & (native["CLEAN"] == 1)
    star = native["OBJC_TYPE"] == STAR
    flux = np.where(star, native["PSFFLUX"][:, band], native["CMODELFLUX"][:, band]).astype(float)
    # SDSS counts pixels so that the centre of the first one is at 0.5
    x, y = native["COLC"][:, band].astype(float) - 0.5, native["ROWC"][:, band].astype(float) - 0.5
    electrons = flux * 10 ** (0.4 * (frame.zero_point - sdss.AB_NANOMAGGY))
    rows = pd.DataFrame(
        {
            "x": x,
            "y": y,
            "mag": frame.magnitude(electrons),
            "flux": electrons,
            "kind": np.where(star, "star", "galaxy"),
            "clean": clean,
            "run": frame.meta["run"],
            "camcol": frame.meta["camcol"],
            "field": frame.meta["field"],
            "objid": [str(value).strip() for value in native["OBJID"]],
            "psfmag_err": native["PSFMAGERR"][:, band].astype(float),
            "ra": native["RA"].astype(float),
            "dec": native["DEC"].astype(float),
        }
    )
    height, width = frame.shape
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)  # NaN and −9999 are not
    rows = rows[detected & inside].reset_index(drop=True)
    rows = catalogue.mark_counted(rows, frame, magnitudes=magnitudes, isolation=isolation, edge=edge)
    rows["counted"] &= rows["clean"]
    rows["reason"] = _reasons(rows, frame, magnitudes, isolation, edge)
    return rows


def _check_field(table, path: object, frame: Frame) -> None:
    """Raise DataError unless every row is of the frame's field."""
    if len(table) == 0:
        raise DataError(f"{path}: holds no object")
    for name in ("RUN", "CAMCOL", "FIELD"):
        wanted = frame.meta.get(name.lower())
        if wanted is None:
            raise DataError(f"frame {frame.name} does not tell its {name.lower()}; read it with sdss.read_frame")
        if (table[name] != wanted).any():
            raise DataError(f"{path}: has {name} {table[name][0]}, the frame {frame.name} has {wanted}")


def _reasons(rows: pd.DataFrame, frame: Frame, magnitudes, isolation: float, edge: float) -> np.ndarray:
    """Return for each row the first reason why it does not count, '' where it counts."""
    x, y = rows["x"].to_numpy(), rows["y"].to_numpy()
    star = (rows["kind"] == "star").to_numpy()
    in_range = star & rows["mag"].between(*magnitudes).to_numpy()
    near_star, near_any = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    pairs = cKDTree(np.column_stack([x, y])).query_pairs(isolation, output_type="ndarray") if len(rows) else []
    for first, second in pairs:
        for one, other in ((first, second), (second, first)):
            near_any[one] = True
            near_star[one] |= in_range[other]
    height, width = frame.shape
    inside = (x >= edge) & (x <= width - 1 - edge) & (y >= edge) & (y <= height - 1 - edge)
    masked = frame.mask[np.rint(y).astype(int), np.rint(x).astype(int)]
    reasons = np.select(
        [
            rows["counted"].to_numpy(),
            ~star,
            ~in_range,
            ~rows["clean"].to_numpy(),
            masked,
            ~inside,
            near_any & ~near_star,
        ],
        ["", "galaxy", "magnitude", "flags", "masked", "edge", "object"],
        default="star",
    )
    return reasons.astype(object)


def exclusions(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many stars of the magnitude range each criterion removes, a table for a page.

    Parameters
    ----------
    table : DataFrame
        From :func:`select`, or several of them in one.

    Returns
    -------
    DataFrame
        Columns ``criterion`` and ``stars``: all, one row per reason, those that count. Each star is under the first
        reason that applies to it.
    """
    considered = table[~table["reason"].isin(["galaxy", "magnitude"])]
    rows = [("point sources of 13–20 mag", len(considered))]
    rows += [(text, int((considered["reason"] == reason).sum())) for reason, text in REASONS.items()]
    rows.append(("stars that count", int(considered["counted"].sum())))
    return pd.DataFrame(rows, columns=["criterion", "stars"])


def load_field(report: Report, name: str, band: str = "g") -> tuple[Frame, pd.DataFrame | None]:
    """Return the frame of a downloaded field and its truth, None where the field has no catalogue here.

    Parameters
    ----------
    report : Report
        From :func:`pnet.sdss.files.fetch`.
    name : str
        As in ``94-1-12``.

    Raises
    ------
    DataError
        If the frame was not downloaded, or a file is damaged.
    """
    path = report.path(name, f"frame-{band}")
    if path is None:
        raise DataError(f"field {name}: its frame in {band} was not downloaded; `pnet sdss-download` gets it")
    frame = sdss.read_frame(path, psfield=report.path(name, "psField"), fpm=report.path(name, f"fpM-{band}"))
    photoobj = report.path(name, "photoObj")
    return frame, None if photoobj is None else select(photoobj, frame)


def load_fields(
    report: Report, *, splits: Iterable[str] | None = None, catalogued: bool = True, band: str = "g"
) -> Iterator[tuple[Frame, pd.DataFrame | None]]:
    """Yield (frame, truth) of the downloaded fields of the manifest, one at a time.

    Parameters
    ----------
    report : Report
    splits : iterable of str, optional
        Only fields of these splits.
    catalogued : bool
        Only fields with a catalogue; with False also the others, whose truth is None.
    """
    wanted = None if splits is None else set(splits)
    for entry in report.manifest.fields:
        if wanted is not None and entry.split not in wanted:
            continue
        if report.path(entry.name, f"frame-{band}") is None:
            continue
        if catalogued and report.path(entry.name, "photoObj") is None:
            continue
        yield load_field(report, entry.name, band)


def patches(frame: Frame, table: pd.DataFrame | None = None, size: int = 512) -> list[tuple[str, Frame, pd.DataFrame]]:
    """Divide a frame into square patches, as the paper does (512×512).

    The patches cover the frame; where its side is no multiple of `size`, the last one is shifted inwards and overlaps
    the one before it. A star that counts in the frame counts in one patch at most: the one in which it is farthest
    from the edges, and there only if it keeps the paper's 10 px.

    Parameters
    ----------
    frame : Frame
        At least `size` in both directions.
    table : DataFrame, optional
        Its truth, from :func:`select`.
    size : int

    Returns
    -------
    list of (str, Frame, DataFrame)
        Name (``94-1-12-g:x512y0``), patch, and the objects on it in its own pixels. ``patch.meta["origin"]`` is
        (x, y) of its first pixel in the frame.

    Raises
    ------
    ConfigError
        If `size` is not positive or the frame is smaller.
    """
    height, width = frame.shape
    if size < 1 or height < size or width < size:
        raise ConfigError(f"size is {size}; it must be positive and not above the frame's {width}×{height} px")
    corners = [(left, low) for low in _starts(height, size) for left in _starts(width, size)]
    rows = pd.DataFrame({"x": [], "y": [], "counted": []}) if table is None else table
    x, y = rows["x"].to_numpy(float), rows["y"].to_numpy(float)
    margin = np.array(
        [np.minimum.reduce([x - left, left + size - 1 - x, y - low, low + size - 1 - y]) for left, low in corners]
    )
    home = margin.argmax(axis=0) if len(rows) else np.zeros(0, int)
    result = []
    for n, (left, low) in enumerate(corners):
        here = margin[n] > -0.5
        part = rows[here].copy()
        part["counted"] = (rows["counted"].to_numpy(bool) & (home == n) & (margin[n] >= catalogue.EDGE))[here]
        part["x"], part["y"] = part["x"] - left, part["y"] - low
        result.append((f"{frame.name}:x{left}y{low}", _crop(frame, left, low, size), part.reset_index(drop=True)))
    return result


def _starts(length: int, size: int) -> list[int]:
    """Return the first pixels of patches that cover `length`."""
    starts = list(range(0, length - size + 1, size))
    return starts if starts[-1] + size == length else [*starts, length - size]


def _crop(frame: Frame, left: int, low: int, size: int) -> Frame:
    """Return a square of a frame with everything that belongs to its pixels."""
    window = (slice(low, low + size), slice(left, left + size))
    planes = {name: plane[window] for name, plane in frame.meta.get("planes", {}).items()}
    return replace(
        frame,
        name=f"{frame.name}:x{left}y{low}",
        image=frame.image[window],
        variance=frame.variance[window],
        mask=frame.mask[window],
        interpolated=None if frame.interpolated is None else frame.interpolated[window],
        wcs=None if frame.wcs is None else frame.wcs[window],
        meta={**frame.meta, "planes": planes, "origin": (left, low)},
    )
