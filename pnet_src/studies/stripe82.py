"""Stripe 82: its files, its frames of releases up to DR7 (fpC), and its co-add as truth for a single frame.

SDSS observed Stripe 82 some twenty times and added the images up (Annis et al. 2014, ApJ 794, 120): two magnitudes
deeper than one frame, so a detection that the frame's own catalogue does not know may be real there, and its
magnitudes do not share the frame's noise. Its stars saturate two magnitudes fainter than a frame's, its positions reach
the frame through the frame's celestial WCS, which scatters by 0.2 px, and its catalogue here gives no errors.

An fpC frame (DR7 data model of ``fpC`` and the page on flux calibration) holds whole counts with a soft bias of 1000
and the sky left in, calibrated by a zero point, an extinction and an airmass of each field (tsField).
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import requests

from pnet.common import paths
from pnet.common.errors import DataError, MissingError
from pnet.common.files import read_manifest, sha256
from pnet.common.fits_file import open_fits, read_columns
from pnet.frame import Frame
from pnet.sdss.field import BANDS, FieldId
from pnet.sdss.files import explain, find_folder, find_source, retrieve
from pnet.sdss.frame import assemble, read_mask
from pnet.sdss.manifest import File
from pnet.sdss.psf import PSFModel
from pnet.sky import catalogue

FIELD = "94-1-12"  # the field that the catalogue was cut out for
DEPTH = 22.2  # mag; where a single frame of SDSS finds 95 % of the stars, so what is fainter disturbs no star of it
NEEDED = ("ra", "dec", "probpsf", "psfmag_g", "devmag_g", "expmag_g", "fracdev_r", "galaxy_bool", "is_saturated")
EXPOSURE = 53.907456  # s; what the zero points of tsField are for
_NAME = re.compile(r"fpC-(?P<run>\d{6})-(?P<band>[ugriz])(?P<camcol>[1-6])-(?P<field>\d{4})\.fit(\.\w+)?$")
VARIABLE = "STRIPE82_MIRROR"


def load() -> dict[str, File]:
    """Return the files of ``data_manifests/stripe82.yml`` by role."""
    return {entry["role"]: File(**entry) for entry in read_manifest(paths.MANIFESTS / "stripe82.yml")["files"]}


def fetch(roles: Iterable[str]) -> dict[str, Path]:
    """Return where the files of these roles lie, whole and verified; those that are nowhere here are downloaded.

    They may lie in the folder of downloads, in ``STRIPE82_MIRROR``, and beside the ``sas`` tree that ``SDSS_MIRROR``
    names.

    Parameters
    ----------
    roles : iterable of str
        Of ``data_manifests/stripe82.yml``, as in ``coadd``.

    Raises
    ------
    ConfigError
        If ``STRIPE82_MIRROR`` or ``SDSS_MIRROR`` names no folder.
    MissingError
        If a file can be had neither here nor from its public copy.
    """
    known, places, found = load(), [paths.data_root() / "stripe82"], {}
    if os.environ.get(VARIABLE):
        places.append(find_folder(os.environ[VARIABLE], VARIABLE))
    mirror = find_source()
    places += [mirror.resolve().parent] if isinstance(mirror, Path) else []
    for role in roles:
        file = known[role]
        here = [place / file.path for place in places]
        whole = (path for path in here if path.is_file() and sha256(path) == file.sha256)
        found[role] = next(whole, here[0])
        try:
            retrieve(file.url, found[role], file.sha256)  # at once where it is whole
        except (requests.RequestException, ValueError, OSError) as error:
            raise MissingError(
                f"{file.path} of Stripe 82 is not here and did not come from {file.url} ({explain(error)}); "
                f"`{VARIABLE}=<folder that holds {file.path}>` takes it from a folder"
            ) from error
    return found


def read_reference(path: str | os.PathLike) -> pd.DataFrame:
    """Read where the stars of the catalogue of Stripe 82 are: ra, dec (degrees, 0 to 360).

    Raises
    ------
    DataError
        If it is damaged or lacks a column.
    """
    table = read_columns(path, ("ra", "dec", "starnotgal"), "a reference catalogue of Stripe 82")
    star = table["starnotgal"] == 1
    return pd.DataFrame({"ra": table["ra"][star].astype(float) % 360, "dec": table["dec"][star].astype(float)})


def read_fpc(path: Path, psfield: Path, tsfield: Path, fpm: Path) -> Frame:
    """Read an fpC frame as electrons with the sky in it.

    With n counts, soft bias b and gain g, the image is g (n − b) and its variance g² ((n − b)/g + dark variance); a
    source of one electron has the magnitude 2.5 log10(53.907456 s) − (a + k x) + 2.5 log10(g) with zero point a,
    extinction k and airmass x of the field.

    Parameters
    ----------
    path : path
        ``fpC-004192-g4-0300.fit`` or ``.fit.gz``; the name tells run, band, camera column and field.
    psfield : path
        ``psField-….fit`` of the same field: gain, dark variance and seeing.
    tsfield : path
        ``tsField-….fit`` of the same field: the calibration.
    fpm : path
        ``fpM-….fit`` of the same field and band: the mask.

    Returns
    -------
    Frame
        ``meta`` holds run, camcol, field, band, airmass, mjd and ``psf`` (PSFModel) as
        :func:`pnet.sdss.frame.read_frame`.

    Raises
    ------
    DataError
        If a file is damaged or belongs to another field.
    """
    match = _NAME.search(path.name)
    if not match:
        raise DataError(f"{path}: is not named like fpC-004192-g4-0300.fit.gz, so its field is not known")
    identity = FieldId(int(match["run"]), int(match["camcol"]), int(match["field"]), match["band"])
    hdus = open_fits(path)
    header, data = hdus[0].header, hdus[0].data
    if data is None or data.ndim != 2:
        raise DataError(f"{path}: HDU 0 holds no 2-d image")
    for key, wanted in (("RUN", identity.run), ("CAMCOL", identity.camcol), ("FILTER", identity.band)):
        if str(header.get(key)).strip() != str(wanted):
            raise DataError(f"{path}: its header says {key} = {header.get(key)!r}, its name {wanted!r}")
    if "SOFTBIAS" not in header:
        raise DataError(f"{path}: the header lacks SOFTBIAS; it is no fpC frame")
    model = PSFModel.read(psfield, identity)
    zero, extinction, airmass, mjd = _calibration(tsfield, identity)
    counts = data.astype(np.float64) - float(header["SOFTBIAS"])
    planes = read_mask(fpm, identity, counts.shape)
    # Whole counts: their rounding adds a twelfth.
    variance = model.gain**2 * (np.maximum(counts, 0) / model.gain + model.dark_variance + 1 / 12)
    zero_point = 2.5 * np.log10(EXPOSURE * model.gain) - (zero + extinction * airmass)
    calibration = {"zero_point": zero_point, "gain": model.gain, "dark_variance": model.dark_variance}
    more = {"header": header, "planes": planes, "model": model, "airmass": airmass, "mjd": mjd}
    return assemble(identity, model.gain * counts, variance, **calibration, **more)


def _calibration(path: Path, identity: FieldId) -> tuple[float, float, float, float]:
    """Return zero point, extinction (mag per airmass), airmass and date (MJD) of a field from its tsField."""
    hdus = open_fits(path)
    index = BANDS.index(identity.band)
    match = re.search(r"tsField-(\d{6})-(\d)-\d+-(\d{4})\.fit", path.name)
    if match and tuple(map(int, match.groups())) != (identity.run, identity.camcol, identity.field):
        raise DataError(f"{path}: belongs to another field than {identity.name}")
    try:
        row = hdus[1].data[0]
        if int(row["field"]) != identity.field:
            raise DataError(f"{path}: is of field {row['field']}, the frame of {identity.field}")
        values = tuple(float(row[name][index]) for name in ("aa", "kk", "airmass", "mjd"))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is no tsField file ({error})") from error
    if not np.isfinite(values).all():
        raise DataError(f"{path}: its calibration of band {identity.band} is not finite")
    return values


def coadd_truth(path: str | os.PathLike, frame: Frame) -> pd.DataFrame:
    """Return the sources of the co-add on a g-band frame, with the stars that count marked.

    A star counts by the paper's criteria (:func:`pnet.sky.catalogue.mark_counted`); neighbours are the sources down to
    `DEPTH`, and a source that saturates in the co-add does not count, for there its shape and magnitude are wrong.

    Parameters
    ----------
    path : path
        Co-add catalogue.
    frame : Frame
        With its celestial WCS.

    Returns
    -------
    DataFrame
        x, y (px from 0, through the WCS), mag (AB; PSF magnitude of a star, model magnitude of a galaxy), flux
        (electrons of the frame), kind, counted, saturated.

    Raises
    ------
    DataError
        If the file is damaged or lacks a column, the frame has no WCS, or nothing of the catalogue lies on it.
    """
    native = read_columns(path, NEEDED, "a co-add catalogue of Stripe 82")
    if frame.wcs is None:
        raise DataError(f"frame {frame.name}: has no celestial WCS, so the co-add cannot be placed on it")
    # The file's own x and y are pixels of the r frame, 4 and 14 px away from those of g.
    x, y = frame.wcs.all_world2pix(native["ra"].astype(float), native["dec"].astype(float), 0)
    star = (native["probpsf"] == 1) & ~native["galaxy_bool"].astype(bool)
    model = np.where(native["fracdev_r"] > 0.5, native["devmag_g"], native["expmag_g"])
    mag = np.where(star, native["psfmag_g"], model).astype(float)
    rows = pd.DataFrame({"x": x, "y": y, "mag": mag, "flux": frame.flux(mag), "kind": np.where(star, "star", "galaxy")})
    rows["saturated"] = native["is_saturated"].astype(bool)
    height, width = frame.shape
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    if not inside.any():
        raise DataError(f"{path}: no source of it lies on frame {frame.name}; it was made for field {FIELD}")
    rows = rows[inside].sort_values("mag", kind="stable").reset_index(drop=True)
    seen = rows["mag"] <= DEPTH
    marked = catalogue.mark_counted(rows[seen], frame)
    rows["counted"] = marked["counted"].reindex(rows.index, fill_value=False).astype(bool) & ~rows["saturated"]
    return rows
