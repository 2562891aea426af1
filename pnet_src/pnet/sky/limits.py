"""The Cramér-Rao bound: the smallest error that any unbiased measurement of a star can have.

With the pixel-integrated PSF P, flux F and sky B in electrons, the expected pixel is
μ_k = F P_k(x, y) + B with variance V_k = μ_k + read noise². The Fisher matrix
I_ij = Σ_k ∂_i μ_k ∂_j μ_k / V_k over (x, y, F) gives the covariance I⁻¹ (Mendez et al. 2013, 2014, 2015; King 1983
for the sky-limited case). The star is taken as alone on its stamp, its PSF and the sky as known: a whole frame tells
the sky to some 0.04 electrons a pixel, which changes no limit by 0.1 %.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage

from pnet.common.errors import DataError
from pnet.frame import Frame
from pnet.sky import background, psf

STAMP = 41  # px; at 1.8" seeing and 0.396"/px half a side is 4.5 FWHM, so that the sky is well measured in it
OVERSAMPLING = 10  # sub-pixel phases per px; the bound between two of them changes by less than 0.1 %
MAG_PER_RELATIVE_FLUX = 2.5 / np.log(10)  # 1.0857
CHUNK = 256  # stars at a time: keeps the derivative stamps near 20 MB
CELL = 256.0  # px; a PSF that varies over the frame is evaluated once per cell of this size


class EffectivePSF(NamedTuple):
    """The share of a star's light that a unit pixel gets, as a function of the pixel's offset from the star.

    Parameters
    ----------
    samples : ndarray, (K, K), float64
        Value at offset ((column, row) − K // 2) / oversampling px; K odd. The samples at a distance of
        one pixel from each other sum to the share of light inside.
    oversampling : int
        Samples per pixel.
    """

    samples: np.ndarray
    oversampling: int

    @classmethod
    def from_pixels(cls, stamp: np.ndarray) -> "EffectivePSF":
        """Interpolate a PSF known at whole pixels only (psField) with cubic splines; the centre is size // 2."""
        centre = stamp.shape[0] // 2
        at = centre + np.arange(-centre * OVERSAMPLING, centre * OVERSAMPLING + 1) / OVERSAMPLING
        places = np.meshgrid(at, at, indexing="ij")
        return cls(ndimage.map_coordinates(np.asarray(stamp, float), places, order=3, mode="nearest"), OVERSAMPLING)

    @property
    def size(self) -> int:
        """Largest odd stamp that every sub-pixel phase fills."""
        whole = (self.samples.shape[0] - 1) // self.oversampling - 1
        return whole if whole % 2 else whole - 1


def bound(
    light: EffectivePSF,
    x: np.ndarray,
    y: np.ndarray,
    flux: np.ndarray,
    sky: np.ndarray | float,
    read_noise: float,
    *,
    saturation: float = np.inf,
    unusable: np.ndarray | None = None,
) -> pd.DataFrame:
    """Return the bound on position, flux and magnitude of each star.

    Parameters
    ----------
    light : EffectivePSF
        Its size, at most `STAMP`, is that of the stamp.
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

    Returns
    -------
    DataFrame
        limit_x, limit_y (px), limit_flux (electrons) and limit_mag (mag); NaN where too few pixels are left.

    Raises
    ------
    DataError
        If a flux is not positive, or a sky or the read noise negative.
    """
    x, y, flux = (np.atleast_1d(np.asarray(values, dtype=float)) for values in (x, y, flux))
    sky = np.broadcast_to(np.asarray(sky, dtype=float), x.shape)
    if not (flux > 0).all() or not (sky >= 0).all() or not read_noise >= 0:
        raise DataError("flux must be positive, sky and read_noise must not be negative")
    slope_y, slope_x = np.gradient(light.samples, 1 / light.oversampling, edge_order=2)
    table = np.stack([light.samples, slope_x, slope_y])
    framed = None if unusable is None else np.pad(unusable, 1, constant_values=True)  # nothing off the frame is usable
    size = min(STAMP, light.size)
    reach = np.arange(size) - size // 2
    sigma = np.full((len(x), 3), np.nan)
    for start in range(0, len(x), CHUNK):
        some = slice(start, start + CHUNK)
        places = [(at[some, None], np.rint(at[some, None]).astype(int)) for at in (x, y)]
        # offsets of the pixels from the star, in samples
        first = len(light.samples) // 2 + light.oversampling * reach
        across, down = (first - np.rint(light.oversampling * (at - pixel)).astype(int) for at, pixel in places)
        stamps = table[:, down[:, :, None], across[:, None, :]]
        value, slope_x, slope_y = stamps.reshape(3, -1, size**2)
        expected = flux[some, None] * value + sky[some, None]
        # a PSF from a survey may dip below zero in its wings; the variance may not
        weight = 1 / np.maximum(expected + read_noise**2, 1e-3)
        weight[expected >= saturation] = 0
        if framed is not None:
            columns, rows = (
                np.clip(pixel + reach + 1, 0, side - 1)
                for (_, pixel), side in zip(places, framed.shape[::-1], strict=True)
            )
            weight[framed[rows[:, :, None], columns[:, None, :]].reshape(weight.shape)] = 0
        # moving the star by +dx moves every pixel by −dx in the star's frame
        jacobian = np.stack([-flux[some, None] * slope_x, -flux[some, None] * slope_y, value], axis=1)
        sigma[some] = _errors(np.einsum("npk,nk,nqk->npq", jacobian, weight, jacobian, optimize=True), weight)
    limit = pd.DataFrame(sigma, columns=["limit_x", "limit_y", "limit_flux"])
    return limit.assign(limit_mag=MAG_PER_RELATIVE_FLUX * limit["limit_flux"] / flux)


def _errors(fisher: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return (N, 3) standard deviations from Fisher matrices (N, 3, 3); NaN where too few pixels have a weight."""
    # unit diagonal before inversion: the parameters' units differ by many powers of ten
    scale = np.sqrt(np.einsum("npp->np", fisher))
    result = np.full(scale.shape, np.nan)
    chosen = np.flatnonzero(((weight > 0).sum(axis=1) > scale.shape[1]) & (scale > 0).all(axis=1))
    norm = fisher[chosen] / (scale[chosen, :, None] * scale[chosen, None, :])
    solvable = np.linalg.cond(norm) < 1e10
    chosen = chosen[solvable]
    result[chosen] = np.sqrt(np.einsum("npp->np", np.linalg.inv(norm[solvable]))) / scale[chosen]
    return result


def frame_limits(
    frame: Frame, truth: pd.DataFrame, psf_at: Callable[[Frame, float, float], EffectivePSF] | None = None
) -> pd.DataFrame:
    """Return limit_x, limit_y (px) and limit_mag of each source of a frame, with `sky` (electrons per px).

    Parameters
    ----------
    truth : DataFrame
        x, y (px) and flux (electrons). Sources off the frame or without a positive flux get NaN.
    psf_at : callable, optional
        ``psf_at(frame, x, y)``; by default `atmosphere` at the frame's seeing.
    """
    psf_at = psf_at or atmosphere
    level = background.estimate(frame).level
    height, width = frame.shape
    x, y, flux = (truth[name].to_numpy(dtype=float) for name in ("x", "y", "flux"))
    names = ["limit_x", "limit_y", "limit_mag"]
    result = pd.DataFrame(np.nan, index=range(len(truth)), columns=[*names, "sky"])
    usable = np.flatnonzero((x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5) & (flux > 0))
    x, y, flux = x[usable], y[usable], flux[usable]
    at = level[np.rint(y).astype(int), np.rint(x).astype(int)]
    result.loc[usable, "sky"] = at
    cells = np.floor(np.column_stack([x, y]) / CELL)
    options = {"saturation": frame.saturation, "unusable": frame.mask | frame.saturated}
    for cell in np.unique(cells, axis=0):
        here = (cells == cell).all(axis=1)
        light = psf_at(frame, *np.minimum((cell + 0.5) * CELL, [width - 1, height - 1]))
        limit = bound(light, x[here], y[here], flux[here], np.maximum(at[here], 0), frame.read_noise, **options)
        result.loc[usable[here], names] = limit[names].to_numpy()
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
    phase = np.mod(-psf.SAMPLES * offset, 1.0)
    taps = np.arange(-2, 4)
    distance = phase[..., None] - taps
    weights = np.sinc(distance) * np.sinc(distance / 3)
    weights /= weights.sum(axis=-1, keepdims=True)
    return -((weights * taps).sum(axis=-1) - phase) / psf.SAMPLES


def atmosphere(frame: Frame, x: float = 0.0, y: float = 0.0) -> EffectivePSF:
    """PSF of a simulated frame, the same everywhere on it: long exposure at its seeing through the telescope."""
    if frame.seeing is None:
        raise DataError(f"frame {frame.name}: its seeing is not known; give psf_at")
    return simulated(round(float(frame.seeing), 4), float(frame.pixel_scale))


@lru_cache(maxsize=64)
def simulated(seeing: float, pixel_scale: float) -> EffectivePSF:
    """PSF of simulations at a seeing in arcsec, with arcsec per pixel."""
    table = psf.psf_map(seeing, pixel_scale, psf.Optics(), psf.Aureole())
    middle, reach = table.shape[0] // 2, (STAMP // 2 + 1) * psf.OVERSAMPLING
    near = slice(middle - reach, middle + reach + 1)
    return EffectivePSF(table[near, near], psf.OVERSAMPLING)
