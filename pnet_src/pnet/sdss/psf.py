"""SDSS's own PSF of a field, from its psField file."""

import os
from dataclasses import dataclass

import numpy as np
import scipy

from pnet.common.errors import DataError
from pnet.common.fits_file import open_fits
from pnet.sdss.field import BANDS, FieldId, check_same_field

PIXEL = 0.396  # arcsec; psField has no WCS


@dataclass(frozen=True)
class PSFModel:
    """The PSF of one band of a field: images weighted by polynomials of the position (Lupton et al. 2001).

    The weight of image k at SDSS position (row, column) is Σ c[k, i, j] (row/1000)^i (column/1000)^j.
    """

    images: np.ndarray  # (K, 51, 51), Karhunen-Loève eigenimages
    coefficients: np.ndarray  # (K, R, C), c
    gain: float  # electrons per count
    dark_variance: float  # counts²
    path: str

    @classmethod
    def read(cls, path: str | os.PathLike, identity: FieldId) -> "PSFModel":
        """Read the model of a field and band from its psField file; DataError if the file does not hold it."""
        hdus, band = open_fits(path), identity.band
        check_same_field(hdus[0].header, path, identity)
        try:
            index = BANDS.index(band)
            table, summary = hdus[index + 1].data, hdus[6].data
            images, coefficients = [], np.zeros((len(table), 5, 5))
            for row, own in zip(table, coefficients, strict=True):
                images.append(np.asarray(row["RROWS"], dtype=float).reshape(int(row["RNROW"]), int(row["RNCOL"])))
                filled = slice(int(row["nrow_b"])), slice(int(row["ncol_b"]))
                own[filled] = np.asarray(row["c"], dtype=float)[filled]  # the rest of the 5×5 array is not initialised
            gain, dark = float(summary["gain"][0][index]), float(summary["dark_variance"][0][index])
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: holds no PSF of band {band} ({error})") from error
        if not images:
            raise DataError(f"{path}: the PSF of band {band} has no eigenimages")
        if not (gain > 0 and dark >= 0):
            raise DataError(f"{path}: gain {gain} and dark variance {dark} of band {band} are not physical")
        return cls(np.stack(images), coefficients, gain, dark, str(path))

    def at(self, x: float, y: float) -> np.ndarray:
        """Return the PSF at pixel position (x, y), counted from 0, as (51, 51) with sum 1, centred on [25, 25]."""
        powers = np.arange(5)
        row, column = (0.001 * (y + 0.5)) ** powers, (0.001 * (x + 0.5)) ** powers
        weights = np.einsum("kij,i,j->k", self.coefficients, row, column)
        image = np.tensordot(weights, self.images, 1)
        total = image.sum()
        if not (np.isfinite(total) and total > 0):
            raise DataError(f"{self.path}: the PSF at x = {x}, y = {y} has a sum of {total}")
        return image / total


def fwhm(psf: np.ndarray) -> float:
    """Return the FWHM in pixels of a PSF image: the diameter of the circle with the area above half maximum."""
    fine = scipy.ndimage.zoom(psf, 8, order=3)
    step = (psf.shape[0] - 1) / (fine.shape[0] - 1)  # zoom keeps the centres of the outermost pixels in place
    return float(2 * step * np.sqrt((fine > fine.max() / 2).sum() / np.pi))
