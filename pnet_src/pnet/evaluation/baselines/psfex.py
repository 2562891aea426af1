"""SExtractor + PSFEx (Bertin 2011): a PSF from the frame's own stars, then PSF-fitted positions and magnitudes.

Three runs, as PSFEx's manual describes: SExtractor cuts out vignettes with a large aperture's flux; PSFEx selects point
sources by signal-to-noise ratio, half-light radius and ellipticity and models the PSF on super-sampled pixels;
SExtractor fits that model (XPSF_IMAGE, FLUX_PSF).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from astropy.io import fits

from pnet.evaluation.baselines.common import PSFEX, SEXTRACTOR, AstrOmatic, assemble, fwhm_of, odd
from pnet.evaluation.baselines.sextractor import OUTPUT, SExtractor, columns_of
from pnet.frame import Frame

MIN_SNR = 20.0  # SAMPLE_MINSN, PSFEx's default
MAX_ELLIPTICITY = 0.3  # SAMPLE_MAXELLIP, PSFEx's default
FWHM_RANGE = (0.6, 1.7)  # SAMPLE_FWHMRANGE in units of the expected FWHM
APERTURE = 4.0  # FWHM; diameter of the aperture that normalises the PSF: most of the light with little of the sky
VIGNETTE = 9.0  # FWHM; side of the cut-outs
MODEL = 8.0  # FWHM; side of the PSF model
STEPS = 4.0  # samples of the model per FWHM, PSFEx's own choice where the image is well sampled
STARS_A_TERM = 3  # stars that each term of the PSF's variation over the frame needs
WIDE = 1024  # px; the PSF of a larger frame may change over it
WIDE_DEGREE = 2
TRUSTED = 2.0  # px; a fit that ends farther than this from the windowed centroid has left its star
FITTED = ("XPSF_IMAGE", "YPSF_IMAGE", "FLUX_PSF", "FLUXERR_PSF", "ERRX2PSF_IMAGE", "ERRY2PSF_IMAGE")


@dataclass(frozen=True)
class PSFEx(SExtractor):
    """SExtractor, PSFEx, SExtractor: XPSF_IMAGE, YPSF_IMAGE and FLUX_PSF.

    A frame with fewer than `STARS_A_TERM` stars fit for a PSF has none: then MAG_AUTO and windowed positions are
    returned, and ``psf_stars``, a column of its table, is 0 for every source. The same two stand in for a single source
    whose fit has left it or has found no light. Parameters as of `SExtractor`.
    """

    name: str = "psfex"
    programs: ClassVar[tuple[AstrOmatic, ...]] = (SEXTRACTOR, PSFEX)

    def _measure(self, folder: Path, frame: Frame) -> pd.DataFrame:
        stars = self._model(folder, frame)
        more, settings = (FITTED, {"PSF_NAME": "sample.psf"}) if stars else ((), {})
        found = self._catalogue(folder, frame, (*OUTPUT, *more), **settings)
        values = pd.DataFrame(columns_of(found)).assign(psf_stars=stars)
        if stars:
            psf = pd.DataFrame({"x": found["XPSF_IMAGE"] - 1, "y": found["YPSF_IMAGE"] - 1})
            psf["x_err"], psf["y_err"] = (np.sqrt(found[f"ERR{axis}2PSF_IMAGE"].clip(lower=0)) for axis in "XY")
            psf["flux"], psf["flux_err"] = found["FLUX_PSF"], found["FLUXERR_PSF"]
            good = np.hypot(psf["x"] - values["x"], psf["y"] - values["y"]) < TRUSTED
            good &= (psf["flux"] > 0) & (psf["flux_err"] > 0)
            values.loc[good, psf.columns] = psf[good]
        return assemble(frame, **values)

    def _model(self, folder: Path, frame: Frame) -> int:
        """Write ``sample.psf``; return the number of stars behind it, 0 where there are too few for a PSF."""
        fwhm = fwhm_of(frame)
        side = odd(VIGNETTE * fwhm)
        columns = (
            *("NUMBER", "X_IMAGE", "Y_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE", "FLUX_RADIUS", "SNR_WIN", "ELONGATION"),
            *("FLUX_APER(1)", "FLUXERR_APER(1)", "FLAGS", f"VIGNET({side},{side})"),
        )
        sample = self._extract(folder, frame, columns, "sample.fits", PHOT_APERTURES=round(APERTURE * fwhm, 2))
        if fits.getval(sample, "NAXIS2", 2) < STARS_A_TERM:  # PSFEx fails on an empty catalogue
            return 0
        for degree in (WIDE_DEGREE, 0) if max(frame.shape) > WIDE else (0,):
            stars = self._psfex(folder, fwhm, degree)
            if stars >= STARS_A_TERM * (degree + 1) * (degree + 2) // 2:
                return stars
        return 0

    def _psfex(self, folder: Path, fwhm: float, degree: int) -> int:
        """Run PSFEx; return the number of stars that it accepted, 0 where it made no usable model."""
        sampling = min(1.0, fwhm / STEPS)
        side = odd(MODEL * fwhm / sampling)
        places = "XWIN_IMAGE,YWIN_IMAGE"
        settings = {
            **{"BASIS_TYPE": "PIXEL_AUTO", "PSF_SAMPLING": round(sampling, 3), "PSF_SIZE": f"{side},{side}"},
            **{"CENTER_KEYS": places, "PSFVAR_KEYS": places, "PSFVAR_DEGREES": degree},
            "SAMPLE_FWHMRANGE": ",".join(f"{share * fwhm:.2f}" for share in FWHM_RANGE),
            **{"SAMPLE_MINSN": MIN_SNR, "SAMPLE_MAXELLIP": MAX_ELLIPTICITY, "NTHREADS": 1, "VERBOSE_TYPE": "QUIET"},
            **{"CHECKPLOT_TYPE": "NONE", "CHECKPLOT_DEV": "NULL", "CHECKIMAGE_TYPE": "NONE", "WRITE_XML": "N"},
        }
        model = folder / "sample.psf"
        model.unlink(missing_ok=True)
        PSFEX.run(["sample.fits", "-c", "empty"], settings, folder)
        if not model.exists():
            return 0
        values, header = fits.getdata(model, header=True)
        return int(header["ACCEPTED"]) if np.isfinite(values["PSF_MASK"]).all() and values["PSF_MASK"].any() else 0
