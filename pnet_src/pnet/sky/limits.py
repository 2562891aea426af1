"""The Cramér-Rao bound: the smallest error that any unbiased measurement of a star can have.

With the pixel-integrated PSF P, flux F and sky B in electrons, the expected pixel is
μ_k = F P_k(x, y) + B with variance V_k = μ_k + read noise². The Fisher matrix
I_ij = Σ_k ∂_i μ_k ∂_j μ_k / V_k over (x, y, F) gives the covariance I⁻¹ (Mendez et al. 2013, 2014, 2015; King 1983
for the sky-limited case). The star is taken as alone on its stamp and the sky as known: a whole frame tells it to some
0.04 electrons a pixel, which changes no limit by 0.1 %. Where the sky must come from the stamp, or the seeing is not
known, B and the PSF's width are parameters too, and the limit is less strict.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import ndimage

from pnet.common.errors import ConfigError, DataError
from pnet.frame import Frame
from pnet.sky.background import estimate as estimate_background

STAMP = 41  # px; at 1.8" seeing and 0.396"/px half a side is 4.5 FWHM, so that the sky is well measured in it
OVERSAMPLING = 10  # sub-pixel phases per px; the bound between two of them changes by less than 0.1 %
MAG_PER_RELATIVE_FLUX = 2.5 / np.log(10)  # 1.0857
SKYMAKER_ENGINES = ("frames", "skymaker")  # of `datasets.ENGINES`, those whose frames SkyMaker made
SKYMAKER_SAMPLES = 11  # samples per pixel of the PSF that SkyMaker keeps (PSF_OVERSAMP)
CHUNK = 256  # stars at a time: keeps the derivative stamps near 20 MB
CELL = 256.0  # px; a PSF that varies over the frame is evaluated once per cell of this size


@dataclass(frozen=True)
class EffectivePSF:
    """The share of a star's light that a unit pixel gets, as a function of the pixel's offset from the star.

    Parameters
    ----------
    samples : ndarray, (K, K)
        Value at offset ((column, row) − K // 2) / oversampling px; K odd. The samples at a distance of
        one pixel from each other sum to the share of light inside.
    oversampling : int
        Samples per pixel.
    """

    samples: np.ndarray
    oversampling: int

    def __post_init__(self):
        samples = np.asarray(self.samples, dtype=float)
        if samples.ndim != 2 or samples.shape[0] != samples.shape[1] or samples.shape[0] % 2 == 0:
            raise DataError(f"samples have shape {samples.shape}, a square of an odd number of samples is needed")
        if not np.isfinite(samples).all() or not samples.sum() > 0:
            raise DataError("samples must be finite with a positive sum")
        if self.oversampling < 1:
            raise ConfigError(f"oversampling is {self.oversampling}, it must be at least 1")
        object.__setattr__(self, "samples", samples)

    @classmethod
    def from_function(
        cls, pixel_psf: Callable[[float, float, int], np.ndarray], size: int = STAMP, oversampling: int = OVERSAMPLING
    ) -> "EffectivePSF":
        """Interleave stamps of a star at every sub-pixel phase.

        Parameters
        ----------
        pixel_psf : callable
            ``pixel_psf(x_offset, y_offset, size)`` returns the (size, size) stamp, pixel-integrated and
            normalised to the star's total flux, of a star at (x_offset, y_offset) px from the centre of
            the middle pixel; `size` is odd.
        """
        # one pixel more on each side, since the samples around the outermost pixels reach half a pixel further
        wide = size + 2
        samples = np.empty((wide * oversampling, wide * oversampling))
        phases = np.arange(oversampling)
        for row in phases:
            for column in phases:
                stamp = np.asarray(pixel_psf(-column / oversampling, -row / oversampling, wide), dtype=float)
                if stamp.shape != (wide, wide):
                    raise DataError(f"pixel_psf returned shape {stamp.shape}, asked for ({wide}, {wide})")
                samples[row::oversampling, column::oversampling] = stamp
        return cls(_centred(samples, (wide // 2) * oversampling), oversampling)

    @classmethod
    def from_oversampled(cls, samples: np.ndarray, oversampling: int) -> "EffectivePSF":
        """Integrate point samples of a PSF over unit pixels.

        Parameters
        ----------
        samples : ndarray, (K, K)
            PSF before the pixel's integration, centre on sample K // 2, normalised to sum 1 over all light.
        """
        box = np.ones(oversampling)
        if oversampling % 2 == 0:  # an even box would shift by half a sample: share the two outermost
            box = np.concatenate([[0.5], np.ones(oversampling - 1), [0.5]])
        integrated = np.asarray(samples, dtype=float)
        for axis in (0, 1):
            integrated = ndimage.convolve1d(integrated, box, axis=axis, mode="constant")
        return cls(_centred(integrated, integrated.shape[0] // 2), oversampling)

    @classmethod
    def from_pixels(cls, stamp: np.ndarray, oversampling: int = OVERSAMPLING) -> "EffectivePSF":
        """Interpolate a PSF known at whole pixels only (psField) with cubic splines; the centre is size // 2."""
        stamp = np.asarray(stamp, dtype=float)
        centre = stamp.shape[0] // 2
        reach = centre * oversampling
        at = centre + np.arange(-reach, reach + 1) / oversampling
        rows, columns = np.meshgrid(at, at, indexing="ij")
        return cls(ndimage.map_coordinates(stamp, [rows, columns], order=3, mode="nearest"), oversampling)

    @property
    def size(self) -> int:
        """Largest odd stamp that every sub-pixel phase fills."""
        whole = (self.samples.shape[0] - 1) // self.oversampling - 1
        return whole if whole % 2 else whole - 1

    def derivatives(self) -> np.ndarray:
        """(4, K, K): the PSF, its derivatives by offset x and y (1/px), and by the logarithm of its width.

        The width scales the effective PSF as a whole: P(r; w) = p(r / w) / w².
        """
        slope_y, slope_x = np.gradient(self.samples, 1 / self.oversampling, edge_order=2)
        offset = (np.arange(self.samples.shape[0]) - self.samples.shape[0] // 2) / self.oversampling
        width = -(2 * self.samples + offset[None, :] * slope_x + offset[:, None] * slope_y)
        return np.stack([self.samples, slope_x, slope_y, width])


def _centred(samples: np.ndarray, centre: int) -> np.ndarray:
    """Cut a square whose middle sample is `centre`."""
    reach = min(centre, samples.shape[0] - 1 - centre)
    return samples[centre - reach : centre + reach + 1, centre - reach : centre + reach + 1]


def bound(
    psf: EffectivePSF,
    x: np.ndarray,
    y: np.ndarray,
    flux: np.ndarray,
    sky: np.ndarray | float,
    read_noise: float,
    *,
    saturation: float = np.inf,
    unusable: np.ndarray | None = None,
    fit_sky: bool = False,
    fit_width: bool = False,
    size: int | None = None,
) -> pd.DataFrame:
    """Return the bound on position, flux, sky and magnitude of each star.

    Parameters
    ----------
    psf : EffectivePSF
    x, y : ndarray, (N,)
        True positions, px.
    flux, sky : ndarray, (N,) (sky may be a number)
        Electrons; electrons per pixel.
    read_noise : float
        Electrons rms.
    saturation : float
        Pixels whose expectation reaches this (electrons) carry no information and are left out.
    unusable : ndarray, (H, W), bool, optional
        True where the frame's pixel is masked or saturated. Where given, pixels off the frame are left out too.
    fit_sky, fit_width : bool
        True where the sky, or the PSF's width, must be measured from the star's own stamp.
    size : int, optional
        Side of the stamp, odd; `STAMP` or what the PSF fills.

    Returns
    -------
    DataFrame
        limit_x, limit_y (px), limit_flux (electrons), limit_mag (mag), limit_sky (electrons) and limit_width
        (relative), which are NaN unless fitted. All NaN where too few pixels are left.
    """
    x, y, flux = (np.atleast_1d(np.asarray(values, dtype=float)) for values in (x, y, flux))
    sky = np.broadcast_to(np.asarray(sky, dtype=float), x.shape)
    if not (flux > 0).all() or not (sky >= 0).all() or not read_noise >= 0:
        raise DataError("flux must be positive, sky and read_noise must not be negative")
    size = min(STAMP, psf.size) if size is None else size
    if size % 2 == 0 or not 3 <= size <= psf.size:
        raise ConfigError(f"size is {size}, it must be odd and between 3 and the PSF's {psf.size}")
    table = psf.derivatives()
    fitted = [0, 1, 2] + [3] * fit_sky + [4] * fit_width
    parts = []
    for first in range(0, len(x), CHUNK):
        some = slice(first, first + CHUNK)
        stars = (x[some], y[some], flux[some], sky[some])
        parts.append(_bound_chunk(table, psf.oversampling, size, *stars, read_noise, saturation, unusable, fitted))
    sigma = np.concatenate(parts) if parts else np.empty((0, 5))
    return pd.DataFrame(
        {
            "limit_x": sigma[:, 0],
            "limit_y": sigma[:, 1],
            "limit_flux": sigma[:, 2],
            "limit_mag": MAG_PER_RELATIVE_FLUX * sigma[:, 2] / flux,
            "limit_sky": sigma[:, 3],
            "limit_width": sigma[:, 4],
        }
    )


def _bound_chunk(table, oversampling, size, x, y, flux, sky, read_noise, saturation, unusable, fitted) -> np.ndarray:
    """(n, 5) standard deviations of x, y, flux, sky, width; NaN but for those of `fitted`."""
    reach = np.arange(size) - size // 2
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    middle = table.shape[-1] // 2
    # offset of pixel (column + reach) from the star, in samples
    sample_x = middle + oversampling * reach[None, :] - np.rint(oversampling * (x - column)).astype(int)[:, None]
    sample_y = middle + oversampling * reach[None, :] - np.rint(oversampling * (y - row)).astype(int)[:, None]
    value, slope_x, slope_y, by_width = (
        layer[sample_y[:, :, None], sample_x[:, None, :]].reshape(len(x), -1) for layer in table
    )
    expected = flux[:, None] * value + sky[:, None]
    # a PSF from a survey may dip below zero in its wings; the variance may not
    weight = 1 / np.maximum(expected + read_noise**2, 1e-3)
    weight[expected >= saturation] = 0
    if unusable is not None:
        grid = (len(x), size, size)
        pixel_x = np.broadcast_to(column[:, None, None] + reach[None, None, :], grid).reshape(len(x), -1)
        pixel_y = np.broadcast_to(row[:, None, None] + reach[None, :, None], grid).reshape(len(x), -1)
        height, width = unusable.shape
        inside = (pixel_x >= 0) & (pixel_x < width) & (pixel_y >= 0) & (pixel_y < height)
        lost = unusable[np.clip(pixel_y, 0, height - 1), np.clip(pixel_x, 0, width - 1)]
        weight[~inside | lost] = 0
    # moving the star by +dx moves every pixel by −dx in the star's frame
    electrons = flux[:, None]
    derivatives = (-electrons * slope_x, -electrons * slope_y, value, np.ones_like(value), electrons * by_width)
    jacobian = np.stack([derivatives[index] for index in fitted], axis=1)
    fisher = np.einsum("npk,nk,nqk->npq", jacobian, weight, jacobian, optimize=True)
    # unit diagonal before inversion: the parameters' units differ by many powers of ten
    scale = np.sqrt(np.einsum("npp->np", fisher))
    result = np.full((len(x), 5), np.nan)
    good = ((weight > 0).sum(axis=1) > len(fitted)) & (scale > 0).all(axis=1)
    if good.any():
        norm = fisher[good] / (scale[good, :, None] * scale[good, None, :])
        solvable = np.linalg.cond(norm) < 1e10
        chosen = np.flatnonzero(good)[solvable]
        variance = np.einsum("npp->np", np.linalg.inv(norm[solvable]))
        result[np.ix_(chosen, fitted)] = np.sqrt(variance) / scale[chosen]
    return result


def frame_limits(
    frame: Frame,
    truth: pd.DataFrame,
    psf_at: Callable[[Frame, float, float], EffectivePSF] | None = None,
    *,
    sky: np.ndarray | float | None = None,
) -> pd.DataFrame:
    """Return limit_x, limit_y (px) and limit_mag of each source of a frame, with `sky` (electrons per px).

    Parameters
    ----------
    truth : DataFrame
        x, y (px) and flux (electrons). Sources off the frame or without a positive flux get NaN.
    psf_at : callable, optional
        ``psf_at(frame, x, y)``; by default `atmosphere` at the frame's seeing.
    sky : ndarray (H, W) or float, optional
        Electrons per pixel; estimated from the frame by default.
    """
    psf_at = atmosphere if psf_at is None else psf_at
    level = estimate_background(frame).level if sky is None else np.broadcast_to(sky, frame.shape)
    height, width = frame.shape
    x, y, flux = (truth[name].to_numpy(dtype=float) for name in ("x", "y", "flux"))
    result = pd.DataFrame(np.nan, index=range(len(truth)), columns=["limit_x", "limit_y", "limit_mag", "sky"])
    on_frame = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    usable = np.flatnonzero(on_frame & (flux > 0))
    if len(usable) == 0:
        return result
    at = level[np.rint(y[usable]).astype(int), np.rint(x[usable]).astype(int)]
    result.loc[usable, "sky"] = at
    cells = np.floor(np.column_stack([x[usable], y[usable]]) / CELL)
    for cell in np.unique(cells, axis=0):
        member = (cells == cell).all(axis=1)
        stars = usable[member]
        centre = np.minimum((cell + 0.5) * CELL, [width - 1, height - 1])
        limit = bound(
            psf_at(frame, *centre),
            x[stars],
            y[stars],
            flux[stars],
            np.maximum(at[member], 0),
            frame.read_noise,
            saturation=frame.saturation,
            unusable=frame.mask | frame.saturated,
        )
        result.loc[stars, ["limit_x", "limit_y", "limit_mag"]] = limit[["limit_x", "limit_y", "limit_mag"]].to_numpy()
    return result


def skymaker_displacement(position: np.ndarray) -> np.ndarray:
    """Return by how much SkyMaker's light lies beside the listed position along one axis, px: listed + this = light.

    SkyMaker keeps a PSF of 11 samples a pixel and shifts it to each star's place between two samples with a Lanczos
    kernel of six taps, w_k ∝ sinc(p − k) sinc((p − k)/3) for k = −2 … 3, divided by its sum. Interpolation with weights
    of sum one keeps the flux, but not the centre: the star comes out at Σ w_k k samples in place of p. The error has
    the period of one sample (1/11 px), a largest value of 0.0018 px and an rms of 0.0013 px per axis. It is the same
    for every star at the same place between two samples, whatever its brightness, and so exceeds the Cramér-Rao limit
    of stars brighter than about 14 mag. It is a property of the simulator, not of the telescope: our renderer has none.

    Parameters
    ----------
    position : ndarray
        x or y in px from 0, the centre of the first pixel at 0.

    Notes
    -----
    The formula follows from the way in which SkyMaker resamples; windowed centroids in a noiseless image of `sky` 4.3.0
    agree with listed + displacement to 0.00002 px, and differ from the list by 0.0013 px rms.
    """
    position = np.asarray(position, dtype=float)
    offset = position - np.floor(position + 0.5)
    phase = np.mod(-SKYMAKER_SAMPLES * offset, 1.0)
    taps = np.arange(-2, 4)
    distance = phase[..., None] - taps
    weights = np.sinc(distance) * np.sinc(distance / 3)
    weights /= weights.sum(axis=-1, keepdims=True)
    return -((weights * taps).sum(axis=-1) - phase) / SKYMAKER_SAMPLES


def atmosphere(frame: Frame, x: float = 0.0, y: float = 0.0) -> EffectivePSF:
    """PSF of a simulated frame, the same everywhere on it: long exposure at its seeing through the telescope."""
    if frame.seeing is None:
        raise DataError(f"frame {frame.name}: its seeing is not known; give psf_at")
    return _atmosphere(round(float(frame.seeing), 4), float(frame.pixel_scale))


@lru_cache(maxsize=64)
def _atmosphere(seeing: float, pixel_scale: float) -> EffectivePSF:
    from pnet.sky.psf import OVERSAMPLING as SAMPLES
    from pnet.sky.psf import Aureole, Optics, psf_map

    table = psf_map(seeing, pixel_scale, Optics(), Aureole())
    centre, reach = table.shape[0] // 2, (STAMP // 2 + 1) * SAMPLES
    return EffectivePSF(table[centre - reach : centre + reach + 1, centre - reach : centre + reach + 1], SAMPLES)
