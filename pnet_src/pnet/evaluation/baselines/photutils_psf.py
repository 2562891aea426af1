"""PSF photometry with photutils: DAOFIND (Stetson 1987) and an effective PSF (Anderson & King 2000)."""

import warnings
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd
import photutils
from astropy.modeling.fitting import LMLSQFitter, TRFLSQFitter
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from photutils import psf
from photutils.background import LocalBackground
from photutils.detection import DAOStarFinder
from photutils.utils.exceptions import NoDetectionsWarning
from scipy.spatial import cKDTree

from pnet.evaluation.baselines.common import Baseline, assemble, fwhm_of, odd
from pnet.frame import Frame
from pnet.sky import background

# The numbers below are the best of those tried on the validation frames of pure star fields.
OVERSAMPLING = 1  # samples of the effective PSF per px: a FWHM of 2.5 px is resolved, and ten stars fill no more
BUILD_ITERATIONS = 4
PSF_SIDE = 5.0  # FWHM; side of the effective PSF, more than the fit needs
FIT_SIDE = 2.0  # FWHM; side of the fitted square: the neighbours' light and errors of the wings stay outside
PSF_SNR = 50.0  # peak over noise from which on a star may build the PSF
PSF_STARS = (5, 40)  # fewer stars build no PSF; of more the brightest are taken
ISOLATION = 4.0  # FWHM; a PSF star has no other as bright as a tenth of it nearer than that
CROWD = 2.0  # FWHM; stars nearer to each other are fitted together
LOCAL_SKY = (4.0, 7.0)  # FWHM; radii of the ring around each star whose clipped median is its sky
WANDER = 1.0  # FWHM; a fit that ends farther from where the star was found has left it


@dataclass(frozen=True)
class Photutils(Baseline):
    """DAOStarFinder, an EPSF of the frame's own bright isolated stars, and PSFPhotometry with SourceGrouper.

    Saturated and masked pixels take no part in the fits. A frame with fewer than five stars fit for an EPSF is
    measured with a Gaussian whose width is fitted to its brightest star; ``psf_stars`` is 0 then.

    Parameters
    ----------
    threshold : float
        DAOFIND's threshold in sigmas of the sky, on the image convolved with the PSF's Gaussian.
    """

    threshold: float = 5.0
    name: str = "photutils"

    def __call__(self, frame: Frame) -> pd.DataFrame:
        """Measure a frame: x, y (px), x_err, y_err, confidence, flux (electrons), mag, mag_err, psf_stars."""
        with warnings.catch_warnings():
            # no star, fits that did not converge
            warnings.simplefilter("ignore", NoDetectionsWarning)
            warnings.simplefilter("ignore", AstropyUserWarning)
            return self._measure(frame)

    def _measure(self, frame: Frame) -> pd.DataFrame:
        sky, fwhm = background.estimate(frame), fwhm_of(frame)
        image, bad = frame.image.astype(float) - sky.level, frame.mask | frame.saturated
        finder = DAOStarFinder(self.threshold * sky.rms, fwhm, exclude_border=False)
        found = finder(image, mask=frame.mask if frame.mask.any() else None)
        if found is None:
            return assemble(frame, **dict.fromkeys(("x", "y", "flux", "flux_err"), np.zeros(0)))
        # photutils 2 writes xcentroid
        found = found.to_pandas().rename(columns=lambda name: name.replace("_", "").replace("centroid", ""))
        found = found[["x", "y", "peak", "flux"]].astype(float)
        error = np.sqrt(frame.variance.astype(float))
        model, stars = _effective_psf(image, error, bad, found, fwhm, sky.rms)
        if model is None:
            model = psf.CircularGaussianPRF(fwhm=fitted_fwhm(image, bad, found, fwhm))
        fitter = LMLSQFitter() if stars else TRFLSQFitter()  # which models with bounds need, in twice the time
        settings = {"grouper": psf.SourceGrouper(CROWD * fwhm), "fitter": fitter, "aperture_radius": fwhm}
        local_sky = LocalBackground(*(radius * fwhm for radius in LOCAL_SKY))
        fit = psf.PSFPhotometry(model, odd(FIT_SIDE * fwhm), local_bkg_estimator=local_sky, **settings)
        start = Table.from_pandas(found[["x", "y"]])
        result = fit(image, mask=bad, error=error, init_params=start).to_pandas().astype(float)
        good = np.isfinite(result[["x_fit", "y_fit", "flux_err"]]).all(axis=1)
        good &= (result["flux_fit"] > 0) & (result["flux_err"] > 0)
        good &= np.hypot(result["x_fit"] - result["x_init"], result["y_fit"] - result["y_init"]) <= WANDER * fwhm
        result = result[good].reset_index(drop=True)
        fitted = {name: result[f"{name}_fit"] for name in ("x", "y", "flux")}
        return assemble(frame, **fitted, **result[["flux_err", "x_err", "y_err"]], psf_stars=stars)

    def version(self) -> str:
        """Return the library's name, version and threshold."""
        return f"photutils {photutils.__version__}, DAOFIND threshold {self.threshold:g}"


def _effective_psf(
    image: np.ndarray, error: np.ndarray, bad: np.ndarray, found: pd.DataFrame, fwhm: float, rms: float
) -> tuple["psf.ImagePSF | None", int]:
    """Build the PSF of a frame from its bright, isolated stars without a `bad` pixel; return it with their number, or
    None and 0 where there are fewer than `PSF_STARS`. `rms` is the noise of an empty pixel in electrons."""
    side = odd(PSF_SIDE * fwhm)
    chosen = _psf_stars(bad, found, fwhm, rms, side)
    if len(chosen) < PSF_STARS[0]:
        return None, 0
    # weights would favour the brightest star's own noise: every star counts once, as Anderson & King have it
    data = NDData(image, uncertainty=StdDevUncertainty(error))
    stars = psf.extract_stars(data, Table.from_pandas(chosen[["x", "y"]]), size=side)
    settings = {"oversampling": OVERSAMPLING, "maxiters": BUILD_ITERATIONS, "progress_bar": False}
    model, _ = psf.EPSFBuilder(fitter=LMLSQFitter(), **settings)(stars)
    return psf.ImagePSF(model.data, oversampling=model.oversampling), len(chosen)


def _box(x: float, y: float, side: int) -> tuple[slice, slice]:
    """Return rows and columns of the square of an odd side about the pixel of a position."""
    return tuple(slice(round(at) - side // 2, round(at) + side // 2 + 1) for at in (y, x))


def _psf_stars(bad: np.ndarray, found: pd.DataFrame, fwhm: float, rms: float, side: int) -> pd.DataFrame:
    """Return the stars that may build a PSF, brightest first."""
    half = side // 2 + 1
    inside = found["x"].between(half, bad.shape[1] - 1 - half) & found["y"].between(half, bad.shape[0] - 1 - half)
    bright = found[inside & (found["peak"] > PSF_SNR * rms)].sort_values("peak", ascending=False)
    tree, peaks = cKDTree(found[["x", "y"]].to_numpy()), found["peak"].to_numpy()
    kept = []
    for index, star in bright.iterrows():
        near = tree.query_ball_point((star["x"], star["y"]), ISOLATION * fwhm)
        alone = all(peaks[other] < 0.1 * star["peak"] for other in near if other != index)
        if alone and not bad[_box(star["x"], star["y"], side)].any():
            kept.append(index)
    return found.loc[kept[: PSF_STARS[1]]]


def fitted_fwhm(image: np.ndarray, bad: np.ndarray, found: pd.DataFrame, fwhm: float) -> float:
    """Return the FWHM in px of a Gaussian fitted to the brightest stars without a bad pixel; `fwhm` where none is."""
    side = odd(FIT_SIDE * fwhm)
    places = found.sort_values("peak", ascending=False)[["x", "y"]].to_numpy()
    whole = (at for at in places if bad[_box(*at, side)].shape == (side, side) and not bad[_box(*at, side)].any())
    fits = (psf.fit_fwhm(image, xypos=at, fwhm=fwhm, fit_shape=side) for at in islice(whole, PSF_STARS[0]))
    usable = [float(width) for (width,) in fits if 0.5 * fwhm < width < 2 * fwhm]
    return float(np.median(usable)) if usable else fwhm
