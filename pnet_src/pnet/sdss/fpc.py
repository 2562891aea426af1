"""Corrected frames of SDSS releases up to DR7 (fpC) become a :class:`~pnet.frame.Frame`.

Format: the DR7 data model of ``fpC`` and the page on flux calibration: whole counts with a soft bias of 1000 and the
sky left in, calibrated by a zero point, an extinction and an airmass of each field (tsField).
"""

import os
import re
from pathlib import Path

import numpy as np
from astropy.wcs.utils import proj_plane_pixel_scales

from pnet.common.errors import DataError
from pnet.common.fits_file import open_fits
from pnet.frame import Frame
from pnet.sdss.field import BANDS, FieldId
from pnet.sdss.frame import UNUSABLE, _wcs, read_mask
from pnet.sdss.psf import PIXEL, PSFModel, fwhm

EXPOSURE = 53.907456  # s; what the zero points of tsField are for
_NAME = re.compile(r"fpC-(?P<run>\d{6})-(?P<band>[ugriz])(?P<camcol>[1-6])-(?P<field>\d{4})\.fit(\.\w+)?$")


def read_frame(
    path: str | os.PathLike,
    psfield: str | os.PathLike,
    tsfield: str | os.PathLike,
    fpm: str | os.PathLike | None = None,
) -> Frame:
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
    fpm : path, optional
        ``fpM-….fit`` of the same field and band; without it nothing is masked.

    Returns
    -------
    Frame
        ``meta`` holds run, camcol, field, band, airmass, mjd, ``psf`` (PSFModel) and ``planes`` as
        :func:`pnet.sdss.frame.read_frame`.

    Raises
    ------
    DataError
        If a file is damaged or belongs to another field.
    """
    match = _NAME.search(Path(path).name)
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
    model = PSFModel.read(psfield, identity.band)
    model.check(identity)
    zero, extinction, airmass, mjd = _calibration(tsfield, identity)
    counts = data.astype(np.float64) - float(header["SOFTBIAS"])
    planes = {} if fpm is None else read_mask(fpm, identity=identity, shape=counts.shape)
    mask = np.zeros(counts.shape, bool)
    for plane in UNUSABLE:
        if planes:
            mask |= planes[plane]
    wcs = _wcs(header)
    height, width = counts.shape
    return Frame(
        name=identity.name,
        image=model.gain * counts,
        # Whole counts: their rounding adds a twelfth.
        variance=model.gain**2 * (np.maximum(counts, 0) / model.gain + model.dark_variance + 1 / 12),
        mask=mask,
        gain=model.gain,
        zero_point=2.5 * np.log10(EXPOSURE * model.gain) - (zero + extinction * airmass),
        read_noise=model.gain * np.sqrt(model.dark_variance),
        pixel_scale=PIXEL if wcs is None else float(np.mean(proj_plane_pixel_scales(wcs)) * 3600),
        seeing=PIXEL * fwhm(model.at((width - 1) / 2, (height - 1) / 2)),
        wcs=wcs,
        interpolated=planes.get("INTERP"),
        meta={
            "run": identity.run,
            "camcol": identity.camcol,
            "field": identity.field,
            "band": identity.band,
            "airmass": airmass,
            "mjd": mjd,
            "psf": model,
            "planes": {name: plane for name, plane in planes.items() if name in (*UNUSABLE, "NOTCHECKED")},
        },
    )


def _calibration(path: str | os.PathLike, identity: FieldId) -> tuple[float, float, float, float]:
    """Return zero point, extinction (mag per airmass), airmass and date (MJD) of a field from its tsField."""
    hdus = open_fits(path)
    index = BANDS.index(identity.band)
    match = re.search(r"tsField-(\d{6})-(\d)-\d+-(\d{4})\.fit", Path(path).name)
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
