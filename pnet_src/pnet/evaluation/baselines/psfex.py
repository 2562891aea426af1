"""SExtractor + PSFEx (Bertin 2011): a PSF from the frame's own stars, then PSF-fitted positions and magnitudes.

Three runs, as PSFEx's manual describes: SExtractor cuts out vignettes with a large aperture's flux; PSFEx selects point
sources by signal-to-noise ratio, half-light radius and ellipticity and models the PSF on super-sampled pixels;
SExtractor fits that model (XPSF_IMAGE, FLUX_PSF).
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.table import Table

from pnet.common.errors import MissingError
from pnet.evaluation.baselines.common import assemble, check_threshold, fwhm_of
from pnet.evaluation.baselines.sextractor import (
    ERRORS,
    MIN_CONTRAST,
    OUTPUT,
    SExtractor,
    check_share,
    class_star,
    extract,
    find_sextractor,
    needed_sextractor,
    positions,
    run_program,
    starlike,
    version_of,
    write_frame,
)
from pnet.frame import Frame

PROGRAM = "psfex"
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


def find_psfex() -> str | None:
    """Return the path of PSFEx, or None."""
    return shutil.which(PROGRAM)


def needed_psfex() -> str:
    """Return the path of PSFEx.

    Raises
    ------
    MissingError
        If it is not on PATH, with the command that installs it.
    """
    program = find_psfex()
    if program is None:
        raise MissingError(f"PSFEx ({PROGRAM}) is not on PATH; conda install -c conda-forge astromatic-psfex")
    return program


def _odd(length: float) -> int:
    return 2 * round(length / 2) + 1


@dataclass(frozen=True)
class PSFEx:
    """SExtractor, PSFEx, SExtractor: XPSF_IMAGE, YPSF_IMAGE and FLUX_PSF.

    A frame with fewer than `STARS_A_TERM` stars fit for a PSF has none: then MAG_AUTO and windowed positions are
    returned, and ``psf_stars`` is 0 for every source. The same two stand in for a single source whose fit has left it
    or has found no light; its ``fitted`` is 0.

    Parameters
    ----------
    threshold : float
        DETECT_THRESH and ANALYSIS_THRESH in sigmas of the sky.
    min_class_star, min_contrast : float
        As of `SExtractor`.
    """

    threshold: float = 1.5
    min_class_star: float = 0.0
    min_contrast: float = MIN_CONTRAST
    name: str = "psfex"

    def __post_init__(self):
        check_threshold(self.threshold)
        check_share("min_class_star", self.min_class_star)
        check_share("min_contrast", self.min_contrast)

    def __call__(self, frame: Frame) -> pd.DataFrame:
        """Measure a frame.

        Returns
        -------
        DataFrame
            x, y (px), x_err, y_err, confidence, flux (electrons), mag, mag_err, snr, class_star, flags, fitted
            (1 where position and flux are those of the PSF fit), psf_stars.

        Raises
        ------
        MissingError
            If one of the programs is not on PATH.
        DataError
            If one fails on this frame.
        """
        needed_sextractor()
        needed_psfex()
        with tempfile.TemporaryDirectory(prefix="pnet-psfex-") as name:
            folder = Path(name)
            write_frame(folder, frame)
            stars = self._model(folder, frame)
            settings = self._settings | {"CATALOG_NAME": "measured.fits"}
            output = (*OUTPUT, *ERRORS, "CLASS_STAR")
            if stars:
                output = (*output, "XPSF_IMAGE", "YPSF_IMAGE", "FLUX_PSF", "FLUXERR_PSF")
                output = (*output, "ERRX2PSF_IMAGE", "ERRY2PSF_IMAGE")
                settings |= {"PSF_NAME": "sample.psf"}
            found = Table.read(extract(folder, frame, output, settings), hdu=2)
        return starlike(self._table(found, stars, frame), self.min_class_star)

    @property
    def _settings(self) -> dict[str, object]:
        return {
            "DETECT_THRESH": self.threshold,
            "ANALYSIS_THRESH": self.threshold,
            "DEBLEND_MINCONT": self.min_contrast,
        }

    def _model(self, folder: Path, frame: Frame) -> int:
        """Write ``sample.psf``; return the number of stars behind it, 0 where there are too few for a PSF."""
        fwhm = fwhm_of(frame)
        side = _odd(VIGNETTE * fwhm)
        columns = (
            *("NUMBER", "X_IMAGE", "Y_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE", "FLUX_RADIUS", "SNR_WIN", "ELONGATION"),
            *("FLUX_APER(1)", "FLUXERR_APER(1)", "FLAGS", f"VIGNET({side},{side})"),
        )
        settings = self._settings | {"CATALOG_NAME": "sample.fits", "PHOT_APERTURES": round(APERTURE * fwhm, 2)}
        sample = extract(folder, frame, columns, settings)
        if fits.getval(sample, "NAXIS2", 2) < STARS_A_TERM:  # PSFEx fails on an empty catalogue
            return 0
        for degree in (WIDE_DEGREE, 0) if max(frame.shape) > WIDE else (0,):
            terms = (degree + 1) * (degree + 2) // 2
            stars = self._psfex(folder, frame, fwhm, degree)
            if stars >= STARS_A_TERM * terms:
                return stars
        return 0

    def _psfex(self, folder: Path, frame: Frame, fwhm: float, degree: int) -> int:
        settings = {
            "BASIS_TYPE": "PIXEL_AUTO",
            "PSF_SAMPLING": round(min(1.0, fwhm / STEPS), 3),
            "PSF_SIZE": f"{_odd(MODEL * fwhm / min(1.0, fwhm / STEPS))}," * 2,
            "CENTER_KEYS": "XWIN_IMAGE,YWIN_IMAGE",
            "PSFVAR_KEYS": "XWIN_IMAGE,YWIN_IMAGE",
            "PSFVAR_DEGREES": degree,
            "SAMPLE_FWHMRANGE": ",".join(f"{share * fwhm:.2f}" for share in FWHM_RANGE),
            "SAMPLE_MINSN": MIN_SNR,
            "SAMPLE_MAXELLIP": MAX_ELLIPTICITY,
            "CHECKPLOT_TYPE": "NONE",
            "CHECKPLOT_DEV": "NULL",
            "CHECKIMAGE_TYPE": "NONE",
            "WRITE_XML": "N",
            "NTHREADS": 1,
            "VERBOSE_TYPE": "QUIET",
        }
        settings["PSF_SIZE"] = settings["PSF_SIZE"].rstrip(",")
        model = folder / "sample.psf"
        model.unlink(missing_ok=True)
        (folder / "empty.psfex").write_text("")
        run_program([needed_psfex(), "sample.fits", "-c", "empty.psfex"], settings, folder, frame, "PSFEx")
        if not model.exists():
            return 0
        with fits.open(model) as hdus:
            values = hdus[1].data["PSF_MASK"]
            usable = np.isfinite(values).all() and values.any()
            return int(hdus[1].header["ACCEPTED"]) if usable else 0

    @staticmethod
    def _table(found: Table, stars: int, frame: Frame) -> pd.DataFrame:
        x, y, x_err, y_err = positions(found)
        flux, flux_err = np.asarray(found["FLUX_AUTO"], float), np.asarray(found["FLUXERR_AUTO"], float)
        fitted = np.zeros(len(found), dtype=bool)
        if stars:
            x_psf, y_psf = (np.asarray(found[f"{axis}PSF_IMAGE"], float) - 1 for axis in "XY")
            fitted = (np.hypot(x_psf - x, y_psf - y) < TRUSTED) & (found["FLUX_PSF"] > 0) & (found["FLUXERR_PSF"] > 0)
            x, y = np.where(fitted, x_psf, x), np.where(fitted, y_psf, y)
            flux = np.where(fitted, found["FLUX_PSF"], flux)
            flux_err = np.where(fitted, found["FLUXERR_PSF"], flux_err)
            x_err, y_err = (
                np.where(fitted, np.sqrt(np.maximum(found[f"ERR{axis}2PSF_IMAGE"], 0)), error)
                for axis, error in (("X", x_err), ("Y", y_err))
            )
        return assemble(
            x,
            y,
            flux,
            flux_err,
            frame,
            x_err=x_err,
            y_err=y_err,
            class_star=class_star(found),
            flags=found["FLAGS"],
            fitted=fitted,
            psf_stars=np.full(len(found), stars),
        )

    def version(self) -> str:
        """Return what the two programs say of themselves, and the settings."""
        said = f"{version_of(find_sextractor())} + {version_of(find_psfex())}"
        if "not installed" in said:
            return "not installed"
        return f"{said}, {SExtractor(self.threshold, self.min_class_star, self.min_contrast).settings()}"
