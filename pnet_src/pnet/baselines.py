"""Classical measurements of the same frames: SExtractor (Bertin & Arnouts 1996), or SEP where it is not installed.

Both are measurers: they take a `Frame` and return a table of detections. Their confidence is the
integrated signal-to-noise ratio r squeezed into (0, 1) as r / (r + 5): rising with significance,
0.5 for a 5 sigma detection. It only orders detections for precision-recall curves; at their working
point all of their detections count, since the detection threshold was their decision.
"""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import sep
from astropy.io import fits
from astropy.table import Table

from pnet import background
from pnet.errors import ConfigError, DataError, MissingError
from pnet.frame import Frame

PROGRAMS = ("source-extractor", "sex")  # Debian's and conda-forge's name
HALF_CONFIDENCE = 5.0  # signal-to-noise ratio of confidence 0.5
MIN_AREA = 5  # px; SExtractor's default
PYRAMID = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=np.float32)  # SExtractor's default detection filter
TYPICAL_FWHM = 1.3  # arcsec, where the frame does not know its seeing (used by CLASS_STAR only)
NEVER_SATURATED = 1e10  # electrons; the program refuses larger levels
TIME_LIMIT = 300  # s per frame; SExtractor needs a fraction of a second
SEP_PIXELS = 1_000_000  # size of SEP's pixel stack: a 2048 x 1489 frame with a bright star fills the default

OUTPUT = ("NUMBER", "XWIN_IMAGE", "YWIN_IMAGE", "X_IMAGE", "Y_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO", "FLAGS")


def confidence_of(snr: np.ndarray) -> np.ndarray:
    """Return r / (r + 5) of a signal-to-noise ratio r; 0 where r is not positive or not finite."""
    snr = np.where(np.isfinite(snr), np.maximum(snr, 0), 0)
    return snr / (snr + HALF_CONFIDENCE)


def find_sextractor() -> str | None:
    """Return the path of the SExtractor program, or None."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


def baseline() -> "SExtractor | Sep":
    """Return SExtractor where it is installed, else SEP; `.name` tells which."""
    return SExtractor() if find_sextractor() else Sep()


def _check_threshold(threshold: float) -> None:
    if not threshold > 0:
        raise ConfigError(f"threshold is {threshold}, it must be positive (sigmas of the sky)")


def _table(x, y, flux, flux_err, frame: Frame, **more) -> pd.DataFrame:
    """Assemble the common columns; a source without a positive flux has no magnitude."""
    flux, flux_err = np.asarray(flux, dtype=float), np.asarray(flux_err, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = flux / flux_err
        mag_err = np.where(flux > 0, 2.5 / np.log(10) * flux_err / flux, np.nan)
    columns = {"x": x, "y": y, "confidence": confidence_of(snr), "flux": flux, "mag": frame.magnitude(flux)}
    return pd.DataFrame({**columns, "mag_err": mag_err, "snr": snr, **more}).astype(float)


@dataclass(frozen=True)
class SExtractor:
    """The program, run in a temporary folder with its default configuration.

    MAG_AUTO, windowed positions, CLASS_STAR (where the program's neural-network weights are
    installed), FLAGS.

    Parameters
    ----------
    threshold : float
        DETECT_THRESH and ANALYSIS_THRESH in sigmas of the sky.
    """

    threshold: float = 1.5
    name: str = "sextractor"

    def __post_init__(self):
        _check_threshold(self.threshold)

    def __call__(self, frame: Frame) -> pd.DataFrame:
        """Measure a frame.

        Returns
        -------
        DataFrame
            x, y (px), confidence, flux (electrons), mag, mag_err, snr, class_star, flags.

        Raises
        ------
        MissingError
            If the program is not on PATH.
        DataError
            If it fails on this frame; the message ends with what it printed.
        """
        program = find_sextractor()
        if program is None:
            raise MissingError(
                f"SExtractor ({' or '.join(PROGRAMS)}) is not on PATH; "
                "conda install -c conda-forge astromatic-source-extractor"
            )
        with tempfile.TemporaryDirectory(prefix="pnet-sextractor-") as folder:
            return self._run(program, Path(folder), frame)

    def _run(self, program: str, folder: Path, frame: Frame) -> pd.DataFrame:
        settings = self._write_input(program, folder, frame)
        options = [word for key, value in settings.items() for word in (f"-{key}", str(value))]
        # LC_ALL: the program reads numbers with the decimal sign of the user's language
        try:
            done = subprocess.run(
                [program, "frame.fits", "-c", "empty.sex", *options],
                cwd=folder,
                env={**os.environ, "LC_ALL": "C"},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIME_LIMIT,
            )
        except subprocess.TimeoutExpired as error:
            raise DataError(f"frame {frame.name}: SExtractor did not end within {TIME_LIMIT} s") from error
        catalogue = folder / "catalogue.fits"
        if done.returncode != 0 or not catalogue.exists():
            raise DataError(f"frame {frame.name}: SExtractor failed ({done.returncode}): {done.stderr.strip()[-500:]}")
        found = Table.read(catalogue, hdu=2)
        # the windowed position is not defined for every source: fall back to the isophotal one
        windowed = (found["XWIN_IMAGE"] > 0) & (found["YWIN_IMAGE"] > 0)
        return _table(
            np.where(windowed, found["XWIN_IMAGE"], found["X_IMAGE"]) - 1,
            np.where(windowed, found["YWIN_IMAGE"], found["Y_IMAGE"]) - 1,
            found["FLUX_AUTO"],
            found["FLUXERR_AUTO"],
            frame,
            class_star=found["CLASS_STAR"] if "CLASS_STAR" in found.colnames else np.full(len(found), np.nan),
            flags=found["FLAGS"],
        )

    def _write_input(self, program: str, folder: Path, frame: Frame) -> dict[str, object]:
        """Write image, filter and parameter list; return the settings that differ from the program's own."""
        header = fits.Header({"GAIN": 1.0})  # the image is in electrons
        fits.PrimaryHDU(frame.image, header).writeto(folder / "frame.fits")
        filter_rows = "\n".join(" ".join(f"{value:g}" for value in row) for row in PYRAMID)
        (folder / "filter.conv").write_text(f"CONV NORM\n{filter_rows}\n")
        (folder / "empty.sex").write_text("")
        output = list(OUTPUT)
        settings = {
            "CATALOG_NAME": "catalogue.fits",
            "CATALOG_TYPE": "FITS_LDAC",
            "PARAMETERS_NAME": "output.param",
            "FILTER_NAME": "filter.conv",
            "DETECT_THRESH": self.threshold,
            "ANALYSIS_THRESH": self.threshold,
            "SATUR_LEVEL": min(frame.saturation, NEVER_SATURATED),
            "SATUR_KEY": "NONE",
            "MAG_ZEROPOINT": frame.zero_point,
            "GAIN": 1.0,
            "PIXEL_SCALE": frame.pixel_scale,
            "SEEING_FWHM": frame.seeing or TYPICAL_FWHM,
            "VERBOSE_TYPE": "QUIET",
        }
        network = self.network(program)
        if network:
            settings["STARNNW_NAME"] = network
            output.append("CLASS_STAR")
        if frame.mask.any():
            fits.PrimaryHDU((~frame.mask).astype(np.float32)).writeto(folder / "weight.fits")
            settings |= {"WEIGHT_TYPE": "MAP_WEIGHT", "WEIGHT_IMAGE": "weight.fits"}
        (folder / "output.param").write_text("\n".join(output) + "\n")
        return settings

    @staticmethod
    def network(program: str) -> str | None:
        """Return the file of CLASS_STAR's weights that was installed with the program, or None."""
        share = Path(program).resolve().parent.parent / "share"
        places = (share / name / "default.nnw" for name in ("source-extractor", "sextractor"))
        return next((str(place) for place in places if place.is_file()), None)

    def version(self) -> str:
        """Return what the program says of itself."""
        program = find_sextractor()
        if program is None:
            return "not installed"
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30)
        return (done.stdout or done.stderr).strip()


@dataclass(frozen=True)
class Sep:
    """SExtractor's algorithms as a library (Barbary 2016), with the same settings as `SExtractor`.

    Kron fluxes stand for FLUX_AUTO and Gaussian-windowed centroids for XWIN, YWIN; there is no CLASS_STAR.
    """

    threshold: float = 1.5
    name: str = "sep"

    def __post_init__(self):
        _check_threshold(self.threshold)

    def __call__(self, frame: Frame) -> pd.DataFrame:
        """Measure a frame; columns as of `SExtractor`, class_star NaN."""
        sky = background.estimate(frame)
        image = np.ascontiguousarray(frame.image - sky.level)
        mask = frame.mask if frame.mask.any() else None
        sep.set_extract_pixstack(max(sep.get_extract_pixstack(), SEP_PIXELS))
        try:
            found, segments = sep.extract(
                image,
                self.threshold,
                err=sky.rms,
                mask=mask,
                minarea=MIN_AREA,
                filter_kernel=PYRAMID,
                gain=1.0,
                segmentation_map=True,
            )
        except Exception as error:  # sep raises bare Exceptions
            raise DataError(f"frame {frame.name}: SEP failed: {error}") from error
        shape = {"a": found["a"], "b": found["b"], "theta": np.clip(found["theta"], -np.pi / 2, np.pi / 2)}
        x, y, flags = found["x"], found["y"], found["flag"].astype(int)
        # the neighbours' pixels are left out, as MASK_TYPE does in SExtractor
        alone = {"mask": mask, "segmap": segments, "seg_id": np.arange(1, len(x) + 1, dtype=np.int32)}
        noise = {"err": sky.rms, "gain": 1.0, "subpix": 1}
        # FLUX_AUTO: an ellipse of 2.5 Kron radii, at least a circle of 3.5 px (PHOT_AUTOPARAMS 2.5, 3.5)
        kron, kron_flags = sep.kron_radius(image, x, y, **shape, r=6.0, **alone)
        mean_axis = np.sqrt(shape["a"] * shape["b"])
        small = ~(2.5 * kron * mean_axis >= 3.5)
        radius = np.where(small, 3.5 / mean_axis, 2.5 * kron)
        flux, flux_err, flux_flags = sep.sum_ellipse(image, x, y, **shape, r=radius, **noise, **alone)
        circle, circle_err, circle_flags = sep.sum_circle(image, x, y, np.full(len(x), 3.5), **noise, **alone)
        flux, flux_err = np.where(small, circle, flux), np.where(small, circle_err, flux_err)
        flags |= kron_flags.astype(int) | np.where(small, circle_flags, flux_flags).astype(int)
        # windowed centroid: the window's sigma follows from the half-light radius (SExtractor's manual, 2 r_50 / 2.35)
        half_light, _ = sep.flux_radius(image, x, y, 6.0 * found["a"], 0.5, normflux=flux, subpix=5, **alone)
        sigma = np.where(np.isfinite(half_light) & (half_light > 0), 2 / 2.35 * half_light, 1.0)
        x_win, y_win, win_flags = sep.winpos(image, x, y, sigma, mask=mask)
        good = np.isfinite(x_win) & np.isfinite(y_win) & (np.hypot(x_win - x, y_win - y) < 2)
        return _table(
            np.where(good, x_win, x),
            np.where(good, y_win, y),
            flux,
            flux_err,
            frame,
            class_star=np.full(len(x), np.nan),
            flags=flags | win_flags.astype(int),
        )

    def version(self) -> str:
        """Return the library's name and version."""
        return f"SEP {sep.__version__}"


def remove_offset(table: pd.DataFrame, columns: tuple[str, ...] = ("x", "y", "mag")) -> tuple[pd.DataFrame, dict]:
    """Subtract a method's constant offset from its matched stars' truth, as the paper does for SExtractor (4.1).

    Parameters
    ----------
    table : DataFrame
        Measurement table of one method.
    columns : tuple of str
        Which of x, y (px) and mag to correct.

    Returns
    -------
    table : DataFrame
        A corrected copy.
    offsets : dict
        Median of measurement minus truth that was taken off, by column; 0 where no star is matched.
    """
    table, offsets = table.copy(), {}
    matched = table["status"] == "matched"
    for column in columns:
        difference = (table.loc[matched, column] - table.loc[matched, f"truth_{column}"]).dropna()
        offsets[column] = float(difference.median()) if len(difference) else 0.0
        table[column] = table[column] - offsets[column]
    return table, offsets
