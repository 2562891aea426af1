"""SExtractor (Bertin & Arnouts 1996): the program, run on a frame in a temporary folder, alone or with PSFEx (Bertin
2011), and its algorithms as a library, SEP (Barbary 2016), which stands in where the program is not installed.

With PSFEx there are three runs, as its manual describes: SExtractor cuts out vignettes with a large aperture's flux;
PSFEx selects point sources by signal-to-noise ratio, half-light radius and ellipticity and models the PSF on
super-sampled pixels; SExtractor fits that model (XPSF_IMAGE, FLUX_PSF).
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import sep
from astropy.io import fits
from astropy.table import Table

from pnet.common.errors import DataError, MissingError
from pnet.evaluation.baselines.common import (
    NOT_INSTALLED,
    PSFEX,
    SEXTRACTOR,
    TYPICAL_FWHM,
    AstrOmatic,
    Baseline,
    assemble,
    fwhm_of,
    odd,
)
from pnet.frame import Frame
from pnet.sky import background

PYRAMID = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=np.float32)  # SExtractor's default detection filter
NEVER_SATURATED = 1e10  # electrons; the program refuses larger levels
MIN_AREA = 5  # px; SExtractor's default
SEP_PIXELS = 1_000_000  # size of SEP's pixel stack: a 2048 x 1489 frame with a bright star fills the default
OUTPUT = (
    *("NUMBER", "XWIN_IMAGE", "YWIN_IMAGE", "X_IMAGE", "Y_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO"),
    *("ERRX2WIN_IMAGE", "ERRY2WIN_IMAGE", "CLASS_STAR"),
)


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


def network() -> Path | None:
    """Return the file of CLASS_STAR's weights that was installed with the program, or None."""
    share = Path(SEXTRACTOR.needed()).resolve().parent.parent / "share"
    places = (share / name / "default.nnw" for name in ("source-extractor", "sextractor"))
    return next((place for place in places if place.is_file()), None)


@dataclass(frozen=True)
class SExtractor(Baseline):
    """The program with its default configuration, apart from the settings below.

    MAG_AUTO, windowed positions, and CLASS_STAR where the program's neural-network weights are installed.

    Parameters
    ----------
    threshold : float
        DETECT_THRESH and ANALYSIS_THRESH in sigmas of the sky.
    min_class_star, min_contrast : float
        Sources of a lower CLASS_STAR are left out, 0 keeps all; DEBLEND_MINCONT, the share of a blend's light from
        which on a part of it is a source of its own.
    """

    threshold: float = 1.5
    min_class_star: float = 0.0
    min_contrast: float = 0.005
    name: str = "sextractor"
    programs: ClassVar[tuple[AstrOmatic, ...]] = (SEXTRACTOR,)

    def __call__(self, frame: Frame) -> pd.DataFrame:
        """Measure a frame: x, y (px), x_err, y_err, confidence, flux (electrons), mag, mag_err, class_star.

        A MissingError if the program is not on PATH, or CLASS_STAR is asked for and its weights are not installed; a
        PNetError if it fails, which ends with what it printed.
        """
        for program in self.programs:
            program.needed()
        if self.min_class_star and network() is None:
            raise MissingError(
                f"min_class_star is {self.min_class_star}, but CLASS_STAR needs default.nnw, which should lie in "
                f"share/source-extractor beside the program; {SEXTRACTOR.install}"
            )
        with tempfile.TemporaryDirectory(prefix=f"pnet-{self.name}-") as name:
            folder = Path(name)
            # the image is in electrons
            fits.PrimaryHDU(frame.image, fits.Header({"GAIN": 1.0})).writeto(folder / "frame.fits")
            if frame.mask.any():
                fits.PrimaryHDU((~frame.mask).astype(np.float32)).writeto(folder / "weight.fits")
            rows = "\n".join(" ".join(f"{value:g}" for value in row) for row in PYRAMID)
            (folder / "filter.conv").write_text(f"CONV NORM\n{rows}\n")
            (folder / "empty").write_text("")
            found = self._measure(folder, frame)
        # NaN where the weights are not installed
        return found[~(found["class_star"] < self.min_class_star)].reset_index(drop=True)

    def _measure(self, folder: Path, frame: Frame) -> pd.DataFrame:
        return assemble(frame, **columns_of(self._catalogue(folder, frame, OUTPUT)))

    def _catalogue(self, folder: Path, frame: Frame, output: Sequence[str], **settings: object) -> pd.DataFrame:
        """Run the program; return its columns as float, CLASS_STAR NaN where its network is not installed."""
        found = Table.read(self._extract(folder, frame, output, "measured.fits", **settings), hdu=2).to_pandas()
        return found.reindex(columns=list(output)).astype(float)

    def _extract(self, folder: Path, frame: Frame, output: Sequence[str], catalogue: str, **settings: object) -> Path:
        """Run the program on ``frame.fits``; return its catalogue, FITS_LDAC, with these columns."""
        weights = network()
        given = {
            **{"CATALOG_NAME": catalogue, "CATALOG_TYPE": "FITS_LDAC", "VERBOSE_TYPE": "QUIET"},
            **{"PARAMETERS_NAME": "output.param", "FILTER_NAME": "filter.conv"},
            **{"SATUR_LEVEL": min(frame.saturation, NEVER_SATURATED), "SATUR_KEY": "NONE", "GAIN": 1.0},
            **{"MAG_ZEROPOINT": frame.zero_point, "PIXEL_SCALE": frame.pixel_scale},
            **{"SEEING_FWHM": frame.seeing or TYPICAL_FWHM, "DEBLEND_MINCONT": self.min_contrast},
            **{"DETECT_THRESH": self.threshold, "ANALYSIS_THRESH": self.threshold, **settings},
            **({"STARNNW_NAME": weights} if weights else {}),
            **({"WEIGHT_TYPE": "MAP_WEIGHT", "WEIGHT_IMAGE": "weight.fits"} if frame.mask.any() else {}),
        }
        columns = [name for name in output if weights or name != "CLASS_STAR"]
        (folder / "output.param").write_text("\n".join(columns) + "\n")
        SEXTRACTOR.run(["frame.fits", "-c", "empty"], given, folder)
        if not (folder / catalogue).exists():
            raise DataError("SExtractor wrote no catalogue")
        return folder / catalogue

    def version(self) -> str:
        """Return what the programs say of themselves, and the settings in their words."""
        said = [program.version() for program in self.programs]
        if NOT_INSTALLED in said:
            return NOT_INSTALLED
        cut = f", CLASS_STAR ≥ {self.min_class_star:g}" if self.min_class_star else ""
        settings = f"DETECT_THRESH {self.threshold:g}, DEBLEND_MINCONT {self.min_contrast:g}{cut}"
        return f"{' + '.join(said)}, {settings}"


def columns_of(found: pd.DataFrame) -> dict[str, pd.Series]:
    """Return x, y, x_err, y_err (px), flux, flux_err (electrons) and class_star of a catalogue.

    Positions are windowed and counted from 0; their errors hold photon noise of the weighted sum, ERRX2WIN_IMAGE. Where
    they are undefined the isophotal position stands, without error.
    """
    known = (found["XWIN_IMAGE"] > 0) & (found["YWIN_IMAGE"] > 0)
    names = {"flux": "FLUX_AUTO", "flux_err": "FLUXERR_AUTO", "class_star": "CLASS_STAR"}
    values = {name: found[column] for name, column in names.items()}
    for axis, name in (("x", "X"), ("y", "Y")):
        variance = found[f"ERR{name}2WIN_IMAGE"]
        values[axis] = found[f"{name}WIN_IMAGE"].where(known, found[f"{name}_IMAGE"]) - 1
        values[f"{axis}_err"] = np.sqrt(variance.where(known & (variance > 0)))
    return values


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


@dataclass(frozen=True)
class Sep(Baseline):
    """SExtractor's algorithms as a library (Barbary 2016), with the same settings as `SExtractor`.

    Kron fluxes stand for FLUX_AUTO and Gaussian-windowed centroids for XWIN, YWIN.
    """

    threshold: float = 1.5
    name: str = "sep"

    def __call__(self, frame: Frame) -> pd.DataFrame:
        """Measure a frame: x, y (px), confidence, flux (electrons), mag, mag_err."""
        sky = background.estimate(frame)
        image = np.ascontiguousarray(frame.image - sky.level)
        mask = frame.mask if frame.mask.any() else None
        sep.set_extract_pixstack(max(sep.get_extract_pixstack(), SEP_PIXELS))
        settings = {"err": sky.rms, "mask": mask, "minarea": MIN_AREA, "filter_kernel": PYRAMID, "gain": 1.0}
        found, segments = sep.extract(image, self.threshold, segmentation_map=True, **settings)
        shape = {"a": found["a"], "b": found["b"], "theta": np.clip(found["theta"], -np.pi / 2, np.pi / 2)}
        x, y = found["x"], found["y"]
        # the neighbours' pixels are left out, as MASK_TYPE does in SExtractor
        alone = {"mask": mask, "segmap": segments, "seg_id": np.arange(1, len(x) + 1, dtype=np.int32)}
        noise = {"err": sky.rms, "gain": 1.0, "subpix": 1}
        # FLUX_AUTO: an ellipse of 2.5 Kron radii, at least a circle of 3.5 px (PHOT_AUTOPARAMS 2.5, 3.5)
        kron, _ = sep.kron_radius(image, x, y, **shape, r=6.0, **alone)
        mean_axis = np.sqrt(shape["a"] * shape["b"])
        small = ~(2.5 * kron * mean_axis >= 3.5)
        radius = np.where(small, 3.5 / mean_axis, 2.5 * kron)
        flux, flux_err, _ = sep.sum_ellipse(image, x, y, **shape, r=radius, **noise, **alone)
        circle, circle_err, _ = sep.sum_circle(image, x, y, np.full(len(x), 3.5), **noise, **alone)
        flux, flux_err = np.where(small, circle, flux), np.where(small, circle_err, flux_err)
        # windowed centroid: the window's sigma follows from the half-light radius (SExtractor's manual, 2 r_50 / 2.35)
        half_light, _ = sep.flux_radius(image, x, y, 6.0 * found["a"], 0.5, normflux=flux, subpix=5, **alone)
        sigma = np.where(np.isfinite(half_light) & (half_light > 0), 2 / 2.35 * half_light, 1.0)
        x_win, y_win, _ = sep.winpos(image, x, y, sigma, mask=mask)
        good = np.isfinite(x_win) & np.isfinite(y_win) & (np.hypot(x_win - x, y_win - y) < 2)
        x, y = np.where(good, x_win, x), np.where(good, y_win, y)
        return assemble(frame, x=x, y=y, flux=flux, flux_err=flux_err)

    def version(self) -> str:
        """Return the library's name and version."""
        return f"SEP {sep.__version__}"
