"""An image of any CCD or CMOS camera becomes a `Frame`: what nobody told of it is estimated from its pixels."""

import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from pnet.common.errors import DataError
from pnet.common.fits_file import open_fits
from pnet.frame import Frame
from pnet.sky import noise
from pnet.sky.header import Given, Told, Value

# Extensions that go with an image, as survey pipelines and space telescopes name them: masks, and what is not read.
MASKS = ("MASK", "MSK", "DQ", "DQM", "BPM", "BADPIX", "FLAG", "FLAGS")
OTHERS = ("ERR", "ERROR", "WHT", "WGT", "WEIGHT", "IVAR", "VAR", "VARIANCE", "SIGMA", "RMS", "EXP", "CTX", "CON", "BKG")
INSTRUMENTAL = 25.0  # mag of one unit where no zero point is known, a habit of IRAF and DAOPHOT
NANOMAGGY = 22.5  # AB magnitude of one nanomaggy
PIXEL = 0.396  # arcsec where nothing tells: a pixel of the networks' training
SKY_ELECTRONS = 17.0  # noise of the sky in electrons where no gain can be known: an SDSS g frame's
WRONG, ABSURD = 1.5, 50.0  # variance of the sky, measured over expected or the inverse: told, and not believed
SKY_COLUMNS = {
    "ra": ("deg", "right ascension of the star, in the system of the image's WCS"),
    "dec": ("deg", "declination of the star"),
    "ra_err": ("arcsec", "standard deviation on the sky along right ascension, from x_err and y_err"),
    "dec_err": ("arcsec", "standard deviation along declination, from x_err and y_err"),
}


class Entry(NamedTuple):
    """One image of a file: a name for it, the number of its HDU, and its mask, (H, W) bool or None."""

    name: str
    hdu: int
    mask: np.ndarray | None


def entries(hdus: fits.HDUList, path: str | os.PathLike, mask: str | os.PathLike | None = None) -> list[Entry]:
    """List the 2-d images of the FITS file `path`; of several, each is called as in ``field-CCD3``.

    Axes of length 1 do not count. Extensions with a name of `MASKS` are masks, those of `OTHERS` are left out. The file
    `mask` takes the place of the file's own masks. A DataError if there is no image, or neither one mask for all nor
    one for each.
    """
    planes = _planes(hdus)
    images = [n for n in planes if hdus[n].name not in (*MASKS, *OTHERS)]
    if not images:
        shapes = [f"HDU {n} of shape {hdu.shape}" for n, hdu in enumerate(hdus) if hdu.is_image and hdu.size]
        raise DataError(f"{path}: holds no 2-d image, only {' and '.join(shapes) or 'HDUs without pixels'}")
    if mask is None:
        masks = [hdus[n].data for n in planes if hdus[n].name in MASKS]
    else:
        others = open_fits(mask)
        masks = [others[n].data for n in _planes(others)]
    if len(masks) not in (1, len(images)) and (masks or mask):
        raise DataError(f"{mask or path}: holds {len(masks)} masks for {len(images)} images: give one, or one for each")
    masks = [np.squeeze(each) != 0 for each in masks] or [None]
    stem = Path(path).name.split(".fit")[0]
    labels = [re.sub(r"[^\w.+-]+", "_", hdus[n].name) for n in images]
    labels = [label if label and labels.count(label) == 1 else str(n) for n, label in zip(images, labels, strict=True)]
    names = [f"{stem}-{label}" for label in labels] if len(images) > 1 else [stem]
    return [Entry(*each) for each in zip(names, images, masks * (len(images) // len(masks)), strict=True)]


def read(hdus: fits.HDUList, entry: Entry, given: Given | None = None) -> Frame:
    """Read one image as electrons.

    The variance is the noise of the sky as measured, since gain and read noise of the header are wrong for every mean
    of exposures, plus the photon noise of the light above the sky. ``frame.meta['values']`` tells each value that was
    taken and where it is from: an option, the header, an estimate from the image, or a default. A DataError if mask
    and image have other shapes, or the image has no noise, holds magnitudes or is too small to know its noise.
    """
    own = hdus[entry.hdu]
    told = Told((own.header, hdus[0].header), given or Given())
    image = np.squeeze(np.asarray(own.data, dtype=float))
    if entry.mask is not None and entry.mask.shape != image.shape:
        raise DataError(f"{entry.name}: the mask has shape {entry.mask.shape}, the image {image.shape}")
    mask = noise.blank(image) | (False if entry.mask is None else entry.mask)
    kind, rate = told.unit()
    sky = noise.sky_noise(image, mask)
    if sky is None:
        raise DataError(
            f"{entry.name}: {int((~mask).sum())} usable pixels of {image.shape[1]}×{image.shape[0]} show no noise that "
            f"could be measured; at least {noise.BLOCK}×{noise.BLOCK} pixels of real sky are needed"
        )
    pedestal, exposure, seeing = (told.find(name) for name in ("pedestal", "exposure", "seeing"))
    exposure = Value(1.0, "default") if exposure.number is None else exposure
    base = 0.0 if pedestal.number is None else told.take("pedestal", pedestal)
    level = sky.level - base
    gain, read_noise = _gain(told, sky, level, kind, told.take("exposure", exposure, "s") if rate else 1.0)
    saturation = _saturation(told, image, mask, sky)
    zero_point = told.find("zero_point")
    if zero_point.number is None and kind == "nanomaggy":
        zero_point = Value(NANOMAGGY, "the unit")
    elif zero_point.number is None:
        zero_point = Value(INSTRUMENTAL, "default: magnitudes are instrumental")
    elif zero_point.per_second and not rate:
        of_all = zero_point.number + 2.5 * np.log10(exposure.number)
        zero_point = Value(of_all, f"{zero_point.source} for one second, {exposure.source} {exposure.number:g}")
    wcs, scale = _wcs(own.header), told.find("pixel_scale")
    if wcs is not None and told.given.pixel_scale is None:
        scale = Value(3600 * float(np.mean(proj_plane_pixel_scales(wcs))), "header WCS")
    scale = told.take("pixel scale", Value(PIXEL, "default") if scale.number is None else scale, "arcsec")
    if seeing.number is not None:
        pixels = "pix" in seeing.comment.lower()
        seeing = Value(told.take("seeing", seeing, "pixels" if pixels else "arcsec") * (scale if pixels else 1))
    told.values["masked"] = f"{int(mask.sum())} pixels"
    electrons = (image - base) * gain
    return Frame(
        entry.name,
        image=np.where(mask, level * gain, electrons),
        variance=(sky.sigma * gain) ** 2 + np.where(mask, 0, np.maximum(electrons - level * gain, 0)),
        mask=mask,
        # Estimates of the background spread whole ADU by it; where one unit is more than the noise, it is no ADU.
        gain=gain if sky.sigma > 1 else gain * sky.step,
        zero_point=told.take("zero point", zero_point, "mag for one unit") + 2.5 * np.log10(gain),
        read_noise=read_noise,
        pixel_scale=scale,
        saturation=(saturation - base) * gain,
        seeing=seeing.number,
        wcs=wcs,
        meta={"values": told.values},
    )


def complete(table: Table, frame: Frame) -> None:
    """Add to the catalogue of a frame what was taken for true of its image, ``meta['values']``, and `SKY_COLUMNS`.

    The table has x, y and their errors; where the frame has no celestial WCS of right ascension and declination, there
    are no columns.
    """
    table.meta["values"] = [f"{name}: {text}" for name, text in frame.meta.get("values", {}).items()]
    wcs = frame.wcs
    if wcs is None or (wcs.wcs.lngtyp, wcs.wcs.lattyp) != ("RA", "DEC"):
        return
    x, y, x_err, y_err = (np.asarray(table[name], float) for name in ("x", "y", "x_err", "y_err"))

    def at(dx: float, dy: float) -> np.ndarray:  # (2, N) degrees, right ascension first
        return np.array(wcs.all_pix2world(x + dx, y + dy, 0))[[wcs.wcs.lng, wcs.wcs.lat]]

    slopes = np.array([at(0.5, 0) - at(-0.5, 0), at(0, 0.5) - at(0, -0.5)])  # degrees per px: (axis, ra or dec, N)
    slopes[:, 0] = (slopes[:, 0] + 180) % 360 - 180  # across right ascension 0
    ra, dec = at(0, 0)
    slopes[:, 0] *= np.cos(np.radians(dec))
    errors = 3600 * np.hypot(slopes[0] * x_err, slopes[1] * y_err)
    for (name, (unit, description)), values in zip(SKY_COLUMNS.items(), (ra, dec, *errors), strict=True):
        table[name] = values
        table[name].unit, table[name].description = unit, description


def _planes(hdus: fits.HDUList) -> list[int]:
    """Return the numbers of the HDUs that hold a 2-d image."""
    return [n for n, hdu in enumerate(hdus) if hdu.is_image and hdu.size and np.squeeze(hdu.data).ndim == 2]


def _gain(told: Told, sky: noise.SkyNoise, level: float, kind: str, seconds: float) -> tuple[float, float]:
    """Return electrons per unit of the image, which adds up `seconds`, and the read noise in electrons.

    `level` is the sky without the pedestal. Where the sky's noise belies a mean of so many exposures as the header
    says, gain and read noise are those of the mean; where it belies all, the gain is estimated from it.
    """
    gain, read_noise, exposures = (told.find(name) for name in ("gain", "read_noise", "exposures"))
    if kind != "adu" and told.given.gain is None:
        gain = Value(1.0, "the unit") if kind == "electron" else Value(None)
    noise_e, remark = read_noise.number or 0.0, ""
    subtracted = level < 3 * sky.sigma  # then the photons of the sky are not known
    if gain.number is not None and not subtracted:
        per_unit = gain.number * seconds
        ratio = sky.sigma**2 / (level / per_unit + (noise_e / per_unit) ** 2)
        count = exposures.number or 1.0
        if ratio < count**-0.5:  # nearer to a mean of them than to one
            ratio, noise_e = ratio * count, noise_e * count**0.5
            gain = Value(gain.number * count, f"{gain.source}, times {count:g} exposures of {exposures.source}")
        if not 1 / ABSURD < ratio < ABSURD:
            gain = Value(None)
        elif ratio < 1 / WRONG or (ratio > WRONG and read_noise.number is not None):
            hint = ": a mean of exposures, whose gain is greater, or a pedestal below the sky?" if ratio < 1 else ""
            said = sky.sigma * gain.number * seconds / ratio**0.5
            remark = f"; gain and read noise say {said:.4g}, what is measured counts{hint}"
    if gain.number is None and subtracted:
        gain = Value(SKY_ELECTRONS / sky.sigma / seconds, f"default: {SKY_ELECTRONS:g} electrons of noise in the sky")
    elif gain.number is None:  # level / gain + (read noise / gain)² is the variance
        root = (level**2 + (2 * sky.sigma * noise_e) ** 2) ** 0.5
        gain = Value((level + root) / (2 * sky.sigma**2) / seconds, "estimate from level and noise of the sky")
    per_unit = told.take("gain", gain, "electrons per ADU" if kind == "adu" else "electrons per unit") * seconds
    if read_noise.number is None:
        noise_e = round(max((sky.sigma * per_unit) ** 2 - max(level, 0) * per_unit, 0) ** 0.5, 3)
        read_noise = Value(noise_e, "estimate: what the photons of the sky leave of its noise")
    told.take("read noise", read_noise._replace(number=noise_e), "electrons")
    method = "measured, correlated between pixels" if sky.sigma > sky.pixel else "measured"
    told.take("sky noise", Value(sky.sigma * per_unit, method + remark), "electrons a pixel")
    return per_unit, noise_e


def _saturation(told: Told, image: np.ndarray, mask: np.ndarray, sky: noise.SkyNoise) -> float:
    """Return the value from which on a pixel of the image is saturated."""
    found, top = told.find("saturation"), float(image[~mask].max())
    # In the FITS standard DATAMAX is the greatest value of the image, which says nothing of the camera.
    if found.source.endswith("DATAMAX") and found.number < 1.01 * top:
        found = Value(None)
    if found.number is None:
        level, count = noise.saturation(image, mask, sky)
        found = Value(level, f"estimate: {count} pixels pile up" if count else f"estimate: no pile up to {top:.6g}")
    return told.take("saturation", found)


def _wcs(header: fits.Header) -> WCS | None:
    """Return the celestial WCS of an image, None where it has none or one that cannot be computed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old cards are understood
            wcs = WCS(header, naxis=2)
            return wcs if wcs.has_celestial and np.isfinite(wcs.all_pix2world(0.0, 0.0, 0)).all() else None
    except Exception:  # wcslib has an error for each way in which a header can be wrong
        return None
