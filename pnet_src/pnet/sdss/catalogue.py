"""Truth for SDSS frames: which objects of photoObj are stars that count, and what they are excluded for.

The catalogue's positions are those of the frame's own band, ROWC and COLC (OBJC_ROWC and OBJC_COLC are in the pixels
of the r frame, many pixels away in g), and its fluxes nanomaggies of the PSF, turned into electrons by the frame's
zero point (Eq. 1 of the paper).
"""

import os

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from pnet.common.errors import DataError
from pnet.common.fits_file import read_columns
from pnet.frame import Frame
from pnet.sdss.field import BANDS
from pnet.sdss.files import Report
from pnet.sdss.frame import AB_NANOMAGGY, read_frame
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


def select(photoobj_path: str | os.PathLike, frame: Frame) -> pd.DataFrame:
    """Return the objects of a field that are detected in the frame's band, with the stars that count marked.

    An object is listed if it has no children of its own (NCHILD 0), is no duplicate from the search for bright
    objects (BRIGHT) and is detected in this band (BINNED1, 2 or 4). All of these are neighbours for the paper's
    criteria. A star counts if, besides, it has OBJC_TYPE 6, BINNED1, none of SATUR, EDGE, PEAKCENTER and NOTCHECKED
    in this band, and fulfils the three criteria of section 2 (:func:`pnet.sky.catalogue.mark_counted`). In a run that
    contributes to the primary survey it must also be MODE 1 and CLEAN, so that nothing counts twice where fields
    overlap. Other runs (94 is one) have no object of MODE 1 and CLEAN 0 throughout; there the flags alone decide.

    `photoobj_path` is the ``photoObj-….fits`` of the field of `frame`, from :func:`pnet.sdss.frame.read_frame`.

    Returns
    -------
    DataFrame
        x, y (px from 0), mag, flux (electrons; PSF flux for stars, cmodel for galaxies; mag is NaN where the flux is
        not positive), kind, counted, reason (a key of `REASONS`, "" for a star that counts, "magnitude" for one
        outside the range, "galaxy"), clean, objid, psfmag_err, ra, dec (degrees).

    Raises
    ------
    DataError
        If the file is damaged, lacks a column, or is of another field.
    """
    native = read_columns(photoobj_path, NEEDED, "a photoObj file")
    if len(native["RUN"]) == 0:
        raise DataError(f"{photoobj_path}: holds no object")
    for name in ("RUN", "CAMCOL", "FIELD"):
        wanted = frame.meta[name.lower()]
        if (native[name] != wanted).any():
            raise DataError(f"{photoobj_path}: has {name} {native[name][0]}, the frame {frame.name} has {wanted}")
    band = BANDS.index(frame.meta["band"])
    own = {name: values[:, band] for name, values in native.items() if values.ndim == 2}  # of the frame's band
    flags = own["FLAGS"].astype(np.int64)
    bright = native["OBJC_FLAGS"].astype(np.int64) & BRIGHT != 0
    detected = (native["NCHILD"] == 0) & ~bright & (flags & (BINNED1 | BINNED2 | BINNED4) != 0)
    clean = flags & (BINNED1 | SATUR | EDGE | PEAKCENTER | NOTCHECKED) == BINNED1
    if (native["MODE"] == PRIMARY).any():
        clean &= (native["MODE"] == PRIMARY) & (native["CLEAN"] == 1)
    star = native["OBJC_TYPE"] == STAR
    # SDSS counts pixels so that the centre of the first one is at 0.5
    x, y = own["COLC"].astype(float) - 0.5, own["ROWC"].astype(float) - 0.5
    nanomaggies = np.where(star, own["PSFFLUX"], own["CMODELFLUX"]).astype(float)
    electrons = nanomaggies * 10 ** (0.4 * (frame.zero_point - AB_NANOMAGGY))
    rows = pd.DataFrame({"x": x, "y": y, "mag": frame.magnitude(electrons), "flux": electrons, "clean": clean})
    rows["kind"] = np.where(star, "star", "galaxy")
    rows["objid"] = [str(value).strip() for value in native["OBJID"]]
    for name, values in {"psfmag_err": own["PSFMAGERR"], "ra": native["RA"], "dec": native["DEC"]}.items():
        rows[name] = values.astype(float)
    height, width = frame.shape
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)  # NaN and −9999 are not
    rows = catalogue.mark_counted(rows[detected & inside].reset_index(drop=True), frame)
    rows["counted"] &= rows["clean"]
    rows["reason"] = _reasons(rows, frame)
    return rows


def _reasons(rows: pd.DataFrame, frame: Frame) -> np.ndarray:
    """Return for each row the first reason why it does not count, '' where it counts."""
    place = rows[["x", "y"]].to_numpy()
    star = rows["kind"] == "star"
    in_range = (star & rows["mag"].between(*catalogue.MAGNITUDES)).to_numpy()
    near = np.zeros(len(rows), bool)  # to a star of the range
    if in_range.any():
        # its own distance is 0, so for such a star the second one counts
        distance, _ = cKDTree(place[in_range]).query(place, k=[1, 2])
        near = np.where(in_range, distance[:, 1], distance[:, 0]) <= catalogue.ISOLATION
    column, row = np.rint(place).astype(int).T
    reasons = {
        "": rows["counted"],
        "galaxy": ~star,
        "magnitude": ~in_range,
        "flags": ~rows["clean"],
        "masked": frame.mask[row, column],
        "edge": ~catalogue.on_chip(*place.T, frame.shape, None),
        "star": near,
    }
    return np.select(list(reasons.values()), list(reasons), default="object").astype(object)


def exclusions(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many stars of the magnitude range each criterion removes, a table for a page.

    `table` is from :func:`select`, or several of them in one. The columns ``criterion`` and ``stars`` hold all stars,
    one row per reason, and those that count; each star is under the first reason that applies to it.
    """
    considered = table[~table["reason"].isin(["galaxy", "magnitude"])]
    rows = [("point sources of 13–20 mag", len(considered))]
    rows += [(text, int((considered["reason"] == reason).sum())) for reason, text in REASONS.items()]
    rows.append(("stars that count", int(considered["counted"].sum())))
    return pd.DataFrame(rows, columns=["criterion", "stars"])


def load_field(report: Report, name: str) -> tuple[Frame, pd.DataFrame | None]:
    """Return the g frame of a downloaded field, named as in ``94-1-12``, and its truth, None where the field has no
    catalogue here; a DataError if the frame was not downloaded, or a file is damaged."""
    path, psfield, fpm, photoobj = (report.path(name, role) for role in ("frame-g", "psField", "fpM-g", "photoObj"))
    if path is None:
        raise DataError(f"field {name}: its frame in g was not downloaded; `pnet sdss-download` gets it")
    frame = read_frame(path, psfield, fpm)
    return frame, None if photoobj is None else select(photoobj, frame)
