"""The file of a simulated frame: FITS with the image and its truth; positions count from 1 in it, from 0 elsewhere."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits

from pnet.common import fits_file
from pnet.common.errors import DataError
from pnet.common.files import atomic_path
from pnet.frame import Frame
from pnet.simulation.recipe import Conditions


def write_frame(
    path: str | os.PathLike,
    image: np.ndarray,
    truth: pd.DataFrame,
    conditions: Conditions,
    *,
    simulator: str,
    kind: str,
    seed: int,
) -> None:
    """Write one frame with its truth: SCI (uint16 ADU, RICE) and TRUTH (1-based x, y), atomically."""
    header = fits.Header()
    header["SIMULATR"] = (simulator, "image simulator")
    header["FIELDKIN"] = (kind, "field kind")
    header["SEED"] = (seed, "seed of the star list")
    header["PIXSCALE"] = (conditions.pixel_scale, "arcsec/pixel")
    header["GAIN"] = (conditions.gain, "e-/ADU")
    header["RDNOISE"] = (conditions.read_noise, "e- rms")
    header["EXPTIME"] = (conditions.exposure, "s")
    header["MAGZP"] = (conditions.mag_zero, "mag of 1 ADU/s")
    header["SEEING"] = (conditions.seeing, "FWHM arcsec (long exposure)")
    header["BACKMAG"] = (conditions.sky_mag, "sky, mag/arcsec2")
    header["SATURATE"] = (conditions.saturation, "ADU")
    header["WELLCAP"] = (conditions.well_capacity, "e-")
    header["TELM1"] = (conditions.optics.m1, "m")
    header["TELM2"] = (conditions.optics.m2, "m")
    header["WAVELEN"] = (conditions.optics.wavelength, "micron")
    columns = {"x": truth["x"] + 1, "y": truth["y"] + 1, "mag": truth["mag"]}
    units = {"x": "pix", "y": "pix", "mag": "mag", "flux_adu": "adu"}
    columns["flux_adu"] = conditions.flux(truth["mag"]) / conditions.gain
    table = [fits.Column(name, "D", units[name], array=np.asarray(values, float)) for name, values in columns.items()]
    table.append(fits.Column("kind", "6A", array=truth["kind"].to_numpy(str)))
    table = fits.BinTableHDU.from_columns(table, name="TRUTH")
    science = fits.CompImageHDU(image.astype(np.uint16), header, name="SCI", compression_type="RICE_1")
    with atomic_path(path) as temporary:
        fits.HDUList([fits.PrimaryHDU(), science, table]).writeto(temporary)


def read_frame(path: str | os.PathLike, hdus: fits.HDUList | None = None) -> tuple[Frame, pd.DataFrame]:
    """Read a simulated frame; a DataError if it is not there, is truncated or damaged, or lacks a header card.

    `hdus` is what :func:`~pnet.common.fits_file.open_fits` returned of it, where that was called before.

    Returns
    -------
    frame : Frame
        In electrons; zero point and variance from the header, seeing in arcsec.
    truth : DataFrame
        ``x``, ``y`` (px from 0), ``mag``, ``flux`` (electrons), ``kind``; empty where the file has no TRUTH.
    """
    path = Path(path)
    with hdus or fits_file.open_fits(path) as hdus:
        if "SCI" not in hdus:
            raise DataError(f"{path}: is no simulated frame; its extensions are {[hdu.name for hdu in hdus]}, not SCI")
        header = hdus["SCI"].header
        try:
            gain, read_noise = float(header["GAIN"]), float(header["RDNOISE"])
            zero_point = header["MAGZP"] + 2.5 * np.log10(header["EXPTIME"] * gain)
            image = np.asarray(hdus["SCI"].data, dtype=np.float32) * np.float32(gain)
            # Photon noise from the pixel's own value, read noise, and the rounding to whole ADU.
            variance = np.maximum(image, 0) + read_noise**2 + gain**2 / 12
            known = [key for key in ("SIMULATR", "FIELDKIN", "SEED", "BACKMAG", "WELLCAP") if key in header]
            frame = Frame(
                *(path.name.removesuffix(".fits"), image, variance, np.zeros(image.shape, dtype=bool), gain),
                zero_point=float(zero_point),
                read_noise=read_noise,
                pixel_scale=float(header["PIXSCALE"]),
                saturation=float(header["SATURATE"]) * gain,
                seeing=float(header["SEEING"]),
                meta={key: header[key] for key in known},
            )
        except KeyError as error:
            raise DataError(f"{path}: the SCI header lacks {error}") from error
        if "TRUTH" not in hdus:
            return frame, pd.DataFrame({"x": [], "y": [], "mag": [], "flux": []}, dtype=float).assign(kind=[])
        table = hdus["TRUTH"].data
        x, y, mag, adu = (np.asarray(table[name], dtype=float) for name in ("x", "y", "mag", "flux_adu"))
        # Some writers cut 'galaxy' to the column's width.
        kind = ["star" if str(kind).strip() == "star" else "galaxy" for kind in table["kind"]]
        truth = pd.DataFrame({"x": x - 1, "y": y - 1, "mag": mag, "flux": adu * gain, "kind": kind})
    return frame, truth


def read_image(path: str | os.PathLike, hdus: fits.HDUList | None = None) -> Frame:
    """Read a simulated frame without its truth, as `read_frame` does."""
    return read_frame(path, hdus)[0]
