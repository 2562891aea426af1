"""The point-spread function: a telescope's pupil behind Kolmogorov turbulence, seen by square pixels.

The physics is that of SkyMaker (Bertin 2009): the optical transfer function of an annular pupil with spider
arms, times the long-exposure transfer function of the atmosphere, exp(-3.44 (b/r0)^(5/3)) with Fried's r0 =
0.976 λ/seeing (Fried 1966), times the pixel. One FFT gives it on an oversampled grid. The aureole is the light
that dust and scattering spread far from the star, falling as r⁻² (King 1971).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

from pnet.common.errors import ConfigError

OVERSAMPLING = 8  # samples per pixel: cubic interpolation then errs by less than 1e-5 of the peak
FIELD = 186  # px, width of the map; SkyMaker's stamps end at a radius of 93 px
SAMPLES = 11  # points across a pixel that SkyMaker sums
ARCSEC = np.pi / 180 / 3600


@dataclass(frozen=True)
class Optics:
    """Telescope of a simulation; the defaults are the Sloan telescope at 477 nm as SkyMaker models it."""

    m1: float = 2.5  # m, diameter of the primary mirror
    m2: float = 1.17  # m, diameter of its central obstruction
    wavelength: float = 0.477  # micrometres
    arms: int = 4  # of the spider, 0 or 4 at right angles
    arm_thickness: float = 20.0  # mm

    def __post_init__(self):
        if not 0 <= self.m2 < self.m1:
            raise ConfigError(f"m2 is {self.m2} m, it must be at least 0 and below m1 ({self.m1} m)")
        if self.arms not in (0, 4):
            raise ConfigError(f"arms is {self.arms}, allowed are 0 and 4")


@dataclass(frozen=True)
class Aureole:
    """Scattered light: surface brightness `sb` (mag/arcsec²) at 1' from a star of magnitude 0, up to `radius` px."""

    sb: float = 16.0
    radius: int = 200

    def kernel(self) -> np.ndarray:
        """Return the (2 radius + 1)² kernel that a noiseless image is convolved with; it sums to 1.

        The value at r pixels is 3600·10^(−0.4 sb)/r² (the pixel scale cancels), tapered over the outermost tenth.
        """
        axis = np.arange(-self.radius, self.radius + 1)
        r2 = (axis**2 + axis[:, None] ** 2).astype(float)
        r2[self.radius, self.radius] = np.inf  # what is not scattered stays in the centre
        amplitude = 3600 * 10 ** (-0.4 * self.sb)
        taper = np.clip((self.radius**2 - r2) / (0.19 * self.radius**2), 0, 1)
        kernel = amplitude / r2 * np.where(np.isinf(r2), 0, taper)
        kernel[self.radius, self.radius] = 1 - kernel.sum()
        return kernel


@lru_cache(maxsize=4)
def _optical_transfer(optics: Optics, step: float, n: int) -> np.ndarray:
    """Return the pupil's autocorrelation on the (n, n) FFT grid of baselines with `step` metres between samples."""
    size = fft.next_fast_len(int(2 * optics.m1 / step) + 4, real=True)
    axis = (np.arange(size) - size // 2) * step
    quarter = np.abs(axis[: size // 2 + 1])  # the pupil is the same in all four
    mirror = np.abs(np.arange(size) - size // 2)
    radius = np.hypot(quarter, quarter[:, None])[::-1, ::-1][np.ix_(mirror, mirror)]
    # Sharp edges, as SkyMaker samples them: with blurred ones 7e-4 of the light moves from the wings to the core.
    pupil = ((radius < optics.m1 / 2) & (radius >= optics.m2 / 2)).astype(float)
    if optics.arms:
        clear = (np.abs(axis) >= optics.arm_thickness / 2000).astype(float)
        pupil *= clear * clear[:, None]
    power = np.abs(fft.rfft2(pupil.astype(np.float32))) ** 2
    correlation = fft.irfft2(power, s=pupil.shape)
    wanted = np.rint(fft.fftfreq(n) * n).astype(int)
    inside = np.abs(wanted) < size // 2
    result = np.zeros((n, n))
    result[np.ix_(inside, inside)] = correlation[np.ix_(wanted[inside] % size, wanted[inside] % size)]
    return result / result[0, 0]


@lru_cache(maxsize=12)  # 19 MB each
def psf_map(
    seeing: float,
    pixel_scale: float = 0.396,
    optics: Optics = Optics(),
    aureole: Aureole | None = None,
) -> np.ndarray:
    """Return the PSF on an oversampled grid, one value for each sub-pixel position of the star.

    Parameters
    ----------
    seeing : float
        FWHM of the atmosphere alone in arcseconds.
    pixel_scale : float
        Arcseconds per pixel.
    optics : Optics
    aureole : Aureole, optional
        Where given, its light within the map is added and taken from the core.

    Returns
    -------
    ndarray, (FIELD·OVERSAMPLING,)², float64
        Fraction of the star's light that falls into a pixel whose centre lies at that offset from the star; the
        star is at index FIELD·OVERSAMPLING/2. Values one pixel apart sum to 1 (less what an aureole throws out).

    Raises
    ------
    ConfigError
        If `seeing` or `pixel_scale` is not positive.
    """
    if not (seeing > 0 and pixel_scale > 0):
        raise ConfigError(f"seeing is {seeing} and pixel_scale {pixel_scale} arcsec, both must be positive")
    n = FIELD * OVERSAMPLING
    sample = pixel_scale / OVERSAMPLING
    frequency = fft.fftfreq(n, sample)  # cycles per arcsec
    wavelength = optics.wavelength * 1e-6
    step = wavelength / (n * sample * ARCSEC)
    baseline = np.hypot(frequency, frequency[:, None]) * wavelength / ARCSEC
    fried = 0.975863 * wavelength / (seeing * ARCSEC)
    transfer = _optical_transfer(optics, step, n) * np.exp(-3.4419 * (baseline / fried) ** (5 / 3))
    # SkyMaker's pixel is the sum of SAMPLES points, not an integral.
    box = np.sinc(frequency * pixel_scale) / np.sinc(frequency * pixel_scale / SAMPLES)
    transfer = transfer * box * box[:, None]
    psf = fft.fftshift(fft.irfft2(transfer[:, : n // 2 + 1], s=(n, n)))
    axis = (np.arange(n) - n // 2) / OVERSAMPLING
    psf[np.hypot(axis, axis[:, None]) > 93] = 0  # SkyMaker's stamps end here
    psf *= OVERSAMPLING**2 / psf.sum()
    if aureole is not None:
        reach = min(aureole.radius, FIELD // 2 - 1)
        near = slice(aureole.radius - reach, aureole.radius + reach + 1)
        comb = np.zeros((n, n))
        index = (np.arange(-reach, reach + 1) * OVERSAMPLING) % n
        comb[np.ix_(index, index)] = aureole.kernel()[near, near]
        psf = fft.irfft2(fft.rfft2(psf) * fft.rfft2(comb), s=(n, n))
    psf.setflags(write=False)  # it is cached
    return psf
