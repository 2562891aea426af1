"""The frame: the one currency between simulation, survey data, networks and baselines."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pnet.common.errors import DataError


@dataclass
class Frame:
    """One image in electrons with all that is needed to measure on it.

    Pixels count from 0 and the centre of the first pixel is (0, 0); arrays are indexed
    ``[row, column] = [y, x]``.

    Parameters
    ----------
    name : str
        Unique within a data set, for example ``paper-200001`` or ``94-1-12-g``.
    image : ndarray, (H, W), float32
        Electrons, sky included. Masked pixels may hold any finite value.
    variance : ndarray, (H, W), float32
        Variance of each pixel in electrons², photon noise and read noise, as far as the frame tells.
    mask : ndarray, (H, W), bool
        True where the pixel must not be used (no value, defective, off the chip).
    gain : float
        Electrons per ADU.
    zero_point : float
        AB magnitude of a source of one electron in this frame.
    read_noise : float
        Electrons rms.
    pixel_scale : float
        Arcseconds per pixel.
    saturation : float
        Electrons from which on a pixel is saturated (infinite where unknown).
    seeing : float, optional
        FWHM of the PSF in arcseconds where the header tells it.
    wcs : astropy.wcs.WCS, optional
    interpolated : ndarray, (H, W), bool, optional
        True where a masked pixel holds a value that was well interpolated from its neighbours, as in a bad column of
        SDSS: no star is looked for there, but the light of one beside it is better kept than cut.
    meta : dict
        Whatever else the file told.

    Raises
    ------
    DataError
        If the arrays disagree in shape, hold values that are not finite, or a scalar is not positive.
    """

    name: str
    image: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    gain: float
    zero_point: float
    read_noise: float
    pixel_scale: float
    saturation: float = np.inf
    seeing: float | None = None
    wcs: Any = None
    interpolated: np.ndarray | None = None
    meta: dict = field(default_factory=dict)

    def __post_init__(self):
        self.image = np.ascontiguousarray(self.image, dtype=np.float32)
        self.variance = np.ascontiguousarray(self.variance, dtype=np.float32)
        self.mask = np.ascontiguousarray(self.mask, dtype=bool)
        if self.image.ndim != 2 or self.image.size == 0:
            raise DataError(f"frame {self.name}: image has shape {self.image.shape}, a 2-d image is needed")
        for label in ("variance", "mask", "interpolated"):
            array = getattr(self, label)
            if array is not None and array.shape != self.image.shape:
                raise DataError(
                    f"frame {self.name}: {label} has shape {array.shape}, the image {self.image.shape}; they must agree"
                )
        # A value that is not finite carries no measurement: mask it and store something harmless.
        broken = ~np.isfinite(self.image) | ~np.isfinite(self.variance) | (self.variance <= 0)
        if broken.any():
            self.mask = self.mask | broken
            self.interpolated = None if self.interpolated is None else self.interpolated & ~broken
            usable = ~self.mask
            if not usable.any():
                raise DataError(f"frame {self.name}: no pixel has a finite value and a positive variance")
            self.image = np.where(broken, np.float32(np.median(self.image[usable])), self.image)
            self.variance = np.where(broken, np.float32(np.median(self.variance[usable])), self.variance)
        for label in ("gain", "pixel_scale", "saturation"):
            if not getattr(self, label) > 0:
                raise DataError(f"frame {self.name}: {label} is {getattr(self, label)}, it must be positive")
        if not np.isfinite(self.zero_point):
            raise DataError(f"frame {self.name}: zero_point is {self.zero_point}, it must be finite")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.image.shape

    @property
    def saturated(self) -> np.ndarray:
        """(H, W) bool, True where the pixel reached the saturation level."""
        return self.image >= self.saturation

    def magnitude(self, flux: np.ndarray | float) -> np.ndarray:
        """Return the magnitude of a flux in electrons; NaN where the flux is not positive (Eq. 1 with this zero
        point)."""
        flux = np.asarray(flux, dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(flux > 0, self.zero_point - 2.5 * np.log10(flux), np.nan)

    def flux(self, magnitude: np.ndarray | float) -> np.ndarray:
        """Return the flux in electrons of a magnitude."""
        return 10 ** (0.4 * (self.zero_point - np.asarray(magnitude, dtype=float)))
