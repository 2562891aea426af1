"""SDSS corrected frames and field masks (fpM) become a :class:`~pnet.frame.Frame`.

Formats: the DR17 data model pages of ``frame`` and ``fpM``. Nanomaggies turn into electrons here and nowhere else.
"""

import os
import re
import warnings
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from pnet.common.errors import DataError
from pnet.common.fits_file import open_fits
from pnet.frame import Frame
from pnet.sdss.field import FieldId, check_same_field, identify
from pnet.sdss.psf import PIXEL, PSFModel, fwhm

AB_NANOMAGGY = 22.5  # magnitude of a source of one nanomaggy, Eq. 1 of the paper

# Electrons per count and dark variance (counts²) of each CCD: rows are bands u g r i z, columns are camera columns
# 1 to 6. From the DR17 data model of `frame`; psField HDU 6 holds the same numbers for its run and is preferred.
GAIN = {
    "u": (1.62, None, 1.59, 1.6, 1.47, 2.17),
    "g": (3.32, 3.855, 3.845, 3.995, 4.05, 4.035),
    "r": (4.71, 4.6, 4.72, 4.76, 4.725, 4.895),
    "i": (5.165, 6.565, 4.86, 4.885, 4.64, 4.76),
    "z": (4.745, 5.155, 4.885, 4.775, 3.48, 4.69),
}
DARK_VARIANCE = {
    "u": (9.61, 12.6025, 8.7025, 12.6025, 9.3025, 7.0225),
    "g": (15.6025, 1.44, 1.3225, 1.96, 1.1025, 1.8225),
    "r": (1.8225, 1.0, 1.3225, 1.3225, 0.81, 0.9025),
    "i": (7.84, None, 4.6225, None, 7.84, 5.0625),
    "z": (0.81, 1.0, 1.0, None, None, 1.21),
}  # None: the value changed during the survey, so only psField can tell

# Pixels whose value is not a measurement. SATUR is among them: the corrected frames hold an interpolated value there
# (on 94-1-12 the median saturated pixel reads 2,783 counts beside unsaturated ones of 58,000), so nobody may measure
# on it; that a *star* is saturated is a matter of the catalogue, which has a flag of its own for it. NOTCHECKED is
# left out: the image is good there, only the catalogue is not complete. The other types describe objects.
UNUSABLE = ("INTERP", "SATUR", "CR", "GHOST")


def read_frame(
    frame_path: str | os.PathLike,
    psfield: str | os.PathLike | None = None,
    fpm: str | os.PathLike | None = None,
    hdus: fits.HDUList | None = None,
) -> Frame:
    """Read a corrected frame of SDSS (DR8 and later) as electrons with the sky put back.

    With I the image in nanomaggies, c the calibration vector (nanomaggies per count, one per column), c̃ its median,
    s the sky in counts and g the gain, the counts that the camera read are n = I/c + s with variance n/g + dark
    variance (data model of ``frame``). The frame's image is g (I/c̃ + s): dividing by one c̃ in place of c leaves the
    flat field applied, so one zero point, 22.5 − 2.5 log10(c̃/g), holds for every column; the variance is scaled
    accordingly, (g c/c̃)² (n/g + dark variance).

    Parameters
    ----------
    frame_path : path
        ``frame-g-….fits`` or ``.fits.bz2``.
    psfield : path, optional
        ``psField-….fit`` of the same field: gain, dark variance and seeing. Without it a table by camera column
        serves for the first two and the seeing is unknown.
    fpm : path, optional
        ``fpM-…-g1-….fit``, the mask of the same field and band. Without it nothing is masked.
    hdus : HDUList, optional
        What :func:`~pnet.common.fits_file.open_fits` returned of the frame, where that was called before.

    Returns
    -------
    Frame
        Of the frame's size (1489×2048). ``meta`` holds run, camcol, field, band, airmass, exptime, dark_variance
        (counts²), gain_source and ``psf`` (the :class:`~pnet.sdss.psf.PSFModel` or None).

    Raises
    ------
    DataError
        If a file is damaged or belongs to another field.
    """
    hdus = hdus or open_fits(frame_path)
    identity = identify(frame_path, hdus)
    nanomaggies, calibration, sky = _frame_arrays(hdus, frame_path)
    model = None if psfield is None else PSFModel.read(psfield, identity)
    gain, dark = _table_gain(identity) if model is None else (model.gain, model.dark_variance)
    scale = float(np.median(calibration))
    counts = nanomaggies / calibration + sky
    # Noise can push a pixel below zero counts; its variance is still that of the electronics.
    variance_counts = np.maximum(counts, 0) / gain + dark
    return assemble(
        identity,
        gain * (nanomaggies / scale + sky),
        (gain * calibration / scale) ** 2 * variance_counts,
        zero_point=AB_NANOMAGGY - 2.5 * np.log10(scale / gain),
        gain=gain,
        dark_variance=dark,
        header=hdus[0].header,
        planes={} if fpm is None else read_mask(fpm, identity, nanomaggies.shape),
        model=model,
        airmass=_airmass(hdus),
        exptime=float(hdus[0].header.get("EXPTIME", "nan")),
        gain_source="table" if model is None else "psField",
    )


def assemble(
    identity: FieldId,
    image: np.ndarray,
    variance: np.ndarray,
    *,
    zero_point: float,
    gain: float,
    dark_variance: float,
    header: fits.Header,
    planes: dict[str, np.ndarray],
    model: PSFModel | None,
    **meta: Any,
) -> Frame:
    """Return the frame of an SDSS image, with what its field's other files tell of it.

    `image` (H, W) is in electrons with the sky in it, `variance` (H, W) in electrons²; `zero_point` is the magnitude of
    one electron, `gain` in electrons per count, `dark_variance` in counts². `header` holds the celestial WCS, if any;
    `planes` come from :func:`read_mask`, empty where nothing is masked; `meta` is more for ``frame.meta``.
    """
    height, width = image.shape
    wcs = None
    if "CTYPE1" in header:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # RADECSYS and DATE-OBS='19/09/98' are of their time, and understood
            wcs = WCS(header, naxis=2)
    return Frame(
        name=identity.name,
        image=image,
        variance=variance,
        mask=reduce(np.logical_or, planes.values(), np.zeros(image.shape, bool)),
        gain=gain,
        zero_point=zero_point,
        read_noise=gain * np.sqrt(dark_variance),
        pixel_scale=PIXEL if wcs is None else float(np.mean(proj_plane_pixel_scales(wcs)) * 3600),
        seeing=None if model is None else PIXEL * fwhm(model.at((width - 1) / 2, (height - 1) / 2)),
        wcs=wcs,
        # Saturated cores too: interpolated they are one smooth star, filled with one value a bar with a ring of peaks.
        # On 4192-4-300 and 6377-4-399 false detections around saturated patches fall from 16 to 5 thereby.
        interpolated=planes.get("INTERP"),
        meta={**vars(identity), **meta, "dark_variance": dark_variance, "psf": model},
    )


def _frame_arrays(hdus: fits.HDUList, path: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return image (H, W) in nanomaggies, calibration (W,) in nanomaggies per count and sky (H, W) in counts."""
    if len(hdus) < 3:
        raise DataError(f"{path}: has {len(hdus)} HDUs; a corrected frame has image, calibration, sky and asTrans")
    image, calibration, sky_table = hdus[0].data, hdus[1].data, hdus[2].data
    if image is None or image.ndim != 2:
        raise DataError(f"{path}: HDU 0 holds no 2-d image")
    height, width = image.shape
    if calibration is None or np.shape(calibration) != (width,):
        raise DataError(f"{path}: HDU 1 must be a vector of {width} calibrations, one per column of the image")
    calibration = np.asarray(calibration, dtype=np.float64)
    if not (np.isfinite(calibration) & (calibration > 0)).all():
        raise DataError(f"{path}: HDU 1 holds calibrations that are not finite and positive")
    try:
        names = ("ALLSKY", "XINTERP", "YINTERP")
        coarse, columns, rows = (np.asarray(sky_table[name][0], dtype=np.float64) for name in names)
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"{path}: HDU 2 must be a table with ALLSKY, XINTERP and YINTERP") from error
    fitting = coarse.ndim == 2 and columns.shape == (width,) and rows.shape == (height,)
    if not fitting or not np.isfinite(np.concatenate([columns, rows])).all():
        raise DataError(
            f"{path}: the sky of HDU 2 (ALLSKY {coarse.shape}, XINTERP {columns.shape}, YINTERP {rows.shape}) "
            f"does not fit an image of {image.shape}"
        )
    # Bilinear, beyond the outer rows and columns their values; scipy.interpolate would take longer to import.
    across = [np.interp(columns, np.arange(coarse.shape[1]), line) for line in coarse]
    sky = np.transpose([np.interp(rows, np.arange(coarse.shape[0]), line) for line in np.transpose(across)])
    return image.astype(np.float64), calibration, np.ascontiguousarray(sky)


def _table_gain(identity: FieldId) -> tuple[float, float]:
    """Return electrons per count and dark variance in counts² of a CCD."""
    gain, dark = GAIN[identity.band][identity.camcol - 1], DARK_VARIANCE[identity.band][identity.camcol - 1]
    if gain is None or dark is None:
        raise DataError(
            f"{identity.name}: gain or dark variance of this CCD changed during the survey; give the field's psField"
        )
    return gain, dark


def _airmass(hdus: fits.HDUList) -> float:
    """Return the airmass from the asTrans table, NaN where there is none."""
    try:
        return float(hdus[3].data["AIRMASS"][0])
    except (IndexError, KeyError, TypeError):
        return float("nan")


def read_mask(path: str | os.PathLike, identity: FieldId, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Read which pixels an fpM file says to be `UNUSABLE`: its planes, (H, W) bool, by type.

    HDUs 1 to 10 list masks of one type each as runs of pixels, bytes of big-endian (row, first column, last column);
    the last HDU names the types (``S_MASK_INTERP`` is returned as ``INTERP``). A DataError if the file is damaged, a
    run of pixels leaves the image, or it belongs to another field than `identity` or has another shape than `shape`.
    """
    hdus = open_fits(path)
    header = hdus[0].header
    check_same_field(header, path, identity)
    named = re.search(r"fpM-\d{6}-([ugriz])\d-", Path(path).name)
    if named and named[1] != identity.band:
        raise DataError(f"{path}: is the mask of band {named[1]}, the frame is {identity.name}")
    try:
        size = (int(header["MASKROWS"]), int(header["MASKCOLS"]))
        numbers = {str(row["attributeName"]).strip(): int(row["Value"]) for row in hdus[-1].data}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is no fpM mask: {error}") from error
    if size != shape:
        raise DataError(f"{path}: the mask is {size}, the image {shape}")
    missing = [kind for kind in UNUSABLE if f"S_MASK_{kind}" not in numbers]
    if missing:
        raise DataError(f"{path}: lacks the mask types {', '.join(missing)}")
    planes = {kind: np.zeros(size, bool) for kind in UNUSABLE}
    for kind, plane in planes.items():
        number = numbers[f"S_MASK_{kind}"] + 1
        table = hdus[number].data if number < len(hdus) - 1 else None
        if table is None:
            raise DataError(f"{path}: the HDU of mask type {kind} is missing")
        for spans in table["s"] if len(table) else ():
            spans = np.asarray(spans, dtype=np.uint8)
            if spans.size % 6:
                raise DataError(f"{path}: mask type {kind} has a run of pixels cut short")
            for row, first, last in spans.view(">i2").reshape(-1, 3).tolist():
                first += first == -1  # some runs begin a pixel before the image
                if not (0 <= row < size[0] and 0 <= first <= last < size[1]):
                    raise DataError(f"{path}: mask type {kind} leaves the image: row {row}, columns {first} to {last}")
                plane[row, first : last + 1] = True
    return planes
