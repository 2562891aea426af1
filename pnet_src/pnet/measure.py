"""The whole path on one frame: image in, catalogue out."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning
from torch import nn

import pnet
from pnet.common.errors import ConfigError, DataError, PNetError
from pnet.common.files import atomic_path
from pnet.common.fits_file import open_fits
from pnet.detection.predict import detect
from pnet.frame import Frame
from pnet.sdss import frame as sdss_frame
from pnet.simulation import frame_file
from pnet.sky import background, image
from pnet.sky.header import Given
from pnet.sky.psf_fit import FittedStars
from pnet.stars import fitted, weights
from pnet.stars.confidence import of_card
from pnet.stars.error_scale import Scales, scales_of
from pnet.stars.inputs import POGSON, bare_inputs, make_inputs
from pnet.stars.predict import Prediction, predict

CONFIDENCE = 0.3  # threshold of the paper's Table 1
SATURATED, MASKED, EDGE, UNFITTED = 1, 2, 4, 8
FLAGS = {  # bits of the column flags
    SATURATED: "a pixel in the stamp is saturated, or a core has lost light",
    MASKED: "a masked pixel in the stamp",
    EDGE: "the stamp is cut by the edge",
    UNFITTED: "no fit, as in a blend: the place is the detection net's",
}
FLAGGED = 9  # px, width of the stamp that the flags tell of
COLUMNS = {  # unit and what it is; "the fit" is that of the frame's own PSF to the star
    "x": ("pix", "column of the star, centre of the first pixel at 0, from the BPNN (flag 8: the detection net)"),
    "y": ("pix", "row of the star, centre of the first pixel at 0, from the BPNN (flag 8: the detection net)"),
    "x_err": ("pix", "standard deviation of x, recalibrated; flag 8: a bound"),
    "y_err": ("pix", "standard deviation of y, recalibrated; flag 8: a bound"),
    "confidence": ("", "confidence of the detection from the detection net, 0 to 1"),
    "probability": ("", "share of detections of this confidence that are stars, on validation frames"),
    "flux": ("electron", "flux, from the magnitude of the BPNN"),
    "mag": ("mag", "AB magnitude from the BPNN, which corrects the fit"),
    "mag_err": ("mag", "standard deviation of mag, recalibrated"),
    "mag_err_noise": ("mag", "part of it: noise of the pixels in the fit"),
    "mag_err_psf": ("mag", "part of it: uncertainty of the frame's PSF in the fit"),
    "mag_err_net": ("mag", "what the BPNN adds to these parts, in quadrature; 0 where it is surer than they are"),
    "mag_aleatoric": ("mag", "part of the BPNN's uncertainty that is noise (Eq. 15, first term), not recalibrated"),
    "mag_epistemic": ("mag", "part that is the BPNN's ignorance (Eq. 15, second term), not recalibrated"),
    "x_det": ("pix", "column of the star as the detection net itself places it"),
    "y_det": ("pix", "row of the star as the detection net itself places it"),
    "mag_det": ("mag", "AB magnitude of the detection net's own flux"),
    "x_psf": ("pix", "column of the star in the fit"),
    "y_psf": ("pix", "row of the star in the fit"),
    "mag_psf": ("mag", "AB magnitude of the fit"),
    "mag_psf_err": ("mag", "standard deviation of mag_psf: mag_err_noise and mag_err_psf"),
    "flags": ("", "sum of " + ", ".join(f"{bit}: {meaning}" for bit, meaning in FLAGS.items())),
}
FORMATS = {".ecsv": "ascii.ecsv", ".fits": "fits"}  # of a catalogue
FITTED = ("mag_err_noise", "mag_err_psf", "mag_err_net", "x_psf", "y_psf", "mag_psf", "mag_psf_err")


@dataclass
class PNet:
    """Detection net and BPNN together.

    Parameters
    ----------
    detection, bpnn : nn.Module
    cards : dict of str to dict
        What the weights are, by the names above.
    """

    detection: nn.Module
    bpnn: nn.Module
    cards: dict[str, dict[str, Any]]

    @classmethod
    def load(
        cls,
        together: str = "released",
        *,
        detection: str | os.PathLike | None = None,
        bpnn: str | os.PathLike | None = None,
        device: str | None = None,
    ) -> "PNet":
        """Load the networks of a set of `pnet.stars.weights.SETS`: 'released', or 'paper', the paper's as written.

        `detection` and `bpnn` name other weights in their place as in `pnet.stars.weights.resolve`. `device` is 'cuda'
        where there is one unless told otherwise.

        Raises
        ------
        ConfigError, MissingError, DataError
            If there is no such set, or weights are missing or damaged.
        """
        if together not in weights.SETS:
            raise ConfigError(f"weights is {together!r}, allowed are {', '.join(weights.SETS)}")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        own = {"detection": detection, "bpnn": bpnn}
        names = weights.SETS[together] | {kind: name for kind, name in own.items() if name is not None}
        # The network of single stars is small and the stars are fitted on the CPU: it stays there.
        loaded = {
            kind: weights.load(kind, name, device if kind == "detection" else "cpu") for kind, name in names.items()
        }
        models, cards = ({kind: pair[index] for kind, pair in loaded.items()} for index in (0, 1))
        return cls(models["detection"], models["bpnn"], cards)

    def measure(self, frame: Frame, confidence: float = CONFIDENCE, seed: int = 2023) -> Table:
        """Return the catalogue of a frame: one row per detection of at least this confidence, by falling confidence.

        Parameters
        ----------
        frame : Frame
        confidence : float
            Between 0 and 1.
        seed : int
            Of the Monte Carlo samples of the BPNN.

        Returns
        -------
        astropy.table.Table
            Columns and units as in `COLUMNS`; no rows where there is no star. What the networks do not give is not a
            number, and ``meta['empty']`` says why.

        Raises
        ------
        ConfigError
            If `confidence` lies outside 0 to 1.
        """
        if not 0 <= confidence <= 1:
            raise ConfigError(f"confidence is {confidence}, allowed is 0 to 1")
        subtracted = background.subtracted(frame)
        found = detect(self.detection, frame, max(confidence, 1e-6), subtracted)
        empty, fits, lost = {}, None, np.zeros(frame.shape, bool)
        if self.bpnn.config.bare:
            inputs = bare_inputs(fitted.bare_stamps(subtracted, found, self.bpnn.config.stamp))
            middle = np.floor(found[["x", "y"]].to_numpy(float) + 0.5)
            reason = "the paper's networks see the bare pixels, without a fit"
            empty |= dict.fromkeys(FITTED, reason)
        else:
            found, fits, lost = fitted.fitted_stars(frame, found, subtracted)
            inputs, middle = make_inputs(fits), fits.middle.numpy()
        prediction, scales = predict(self.bpnn, inputs, seed=seed), scales_of(self.cards["bpnn"])
        values = {"confidence": found["confidence"], "x_det": found["x"], "y_det": found["y"]}
        values |= {"mag_det": frame.magnitude(found["flux"]), "flags": self._flags(frame, found, lost)}
        other = np.zeros(len(found), bool)
        if "x" in prediction:
            values |= self._places(frame, found, middle, prediction, scales, fits.psf.basis.width)
            other = values["x_err"] >= fitted.REACH
            values["flags"] = values["flags"] + UNFITTED * other
        else:
            values |= {"x": found["x"], "y": found["y"]}
            empty |= dict.fromkeys(("x_err", "y_err"), "these networks give positions without errors")
        error = np.hypot(scales["mag"](prediction["mag"].sigma), fitted.BOUND * other)
        values |= self._magnitudes(frame, prediction["mag"], error, fits)
        values["probability"] = self._probability(found["confidence"].to_numpy(float))
        if of_card(self.cards["detection"]) is None:
            empty["probability"] = "the confidence of this detection net is not calibrated"
        values |= dict.fromkeys(empty, np.full(len(found), np.nan))
        table = Table({name: np.asarray(values[name]) for name in COLUMNS})
        for name, (unit, description) in COLUMNS.items():
            table[name].unit = unit or None
            table[name].description = description
        table.meta = {
            "frame": frame.name,
            "zero_point": frame.zero_point,
            "confidence": confidence,
            "seed": seed,
            "psf_stars": fits.psf.stars if fits else 0,
            "empty": empty,
            "pnet": pnet.__version__,
            **{f"{kind}_sha256": card["sha256"] for kind, card in self.cards.items()},
        }
        return table

    @staticmethod
    def _magnitudes(frame: Frame, mag: Prediction, error: np.ndarray, fits: FittedStars | None) -> dict[str, Any]:
        """Return the columns of magnitudes with an error, and its parts."""
        magnitude = frame.zero_point + mag.mean
        values = {"flux": frame.flux(magnitude), "mag": magnitude, "mag_err": error}
        values |= {"mag_aleatoric": mag.aleatoric, "mag_epistemic": mag.epistemic}
        if fits is None:
            return values
        table = fits.table()
        noise, shape = (POGSON * table[name] / table["flux"] for name in ("flux_err", "flux_psf"))
        own = np.hypot(noise, shape)
        rest = np.sqrt((error**2 - own**2).clip(lower=0))
        values |= {"mag_err_noise": noise, "mag_err_psf": shape, "mag_err_net": rest, "mag_psf_err": own}
        return values | {"mag_psf": frame.magnitude(table["flux"]), "x_psf": table["x"], "y_psf": table["y"]}

    @staticmethod
    def _places(
        frame: Frame,
        found: pd.DataFrame,
        middle: np.ndarray,
        prediction: dict[str, Prediction],
        scales: Scales,
        width: float,
    ) -> dict[str, np.ndarray]:
        """Return places and their errors: the BPNN's or, where they are not of the star that was found, the detection
        net's within `fitted.REACH`."""
        place = middle + np.stack([prediction[axis].mean for axis in ("x", "y")], axis=1)
        error = np.stack([scales[axis](prediction[axis].sigma) for axis in ("x", "y")], axis=1)
        same = fitted.is_same(place, error, found, width)
        values = {}
        for index, (axis, side) in enumerate((("x", frame.shape[1]), ("y", frame.shape[0]))):
            chosen = np.where(same, place[:, index], found[axis])
            values[axis] = chosen.clip(-0.5, np.nextafter(side - 0.5, 0))
            values[f"{axis}_err"] = np.where(same, error[:, index], fitted.REACH)
        return values

    def _probability(self, confidence: np.ndarray) -> np.ndarray:
        """Return the calibrated confidence; NaN where the card of the detection net has no calibration."""
        calibration = of_card(self.cards["detection"])
        return calibration.apply(confidence) if calibration else np.full(len(confidence), np.nan)

    @staticmethod
    def _flags(frame: Frame, stars: pd.DataFrame, lost: np.ndarray) -> np.ndarray:
        flags = np.zeros(len(stars), dtype=int)
        half = FLAGGED // 2
        saturated = frame.saturated | lost
        for index, (x, y) in enumerate(
            zip(np.rint(stars["x"]).astype(int), np.rint(stars["y"]).astype(int), strict=True)
        ):
            part = (slice(max(0, y - half), y + half + 1), slice(max(0, x - half), x + half + 1))
            flags[index] = (
                SATURATED * bool(saturated[part].any())
                + MASKED * bool(frame.mask[part].any())
                + EDGE * (saturated[part].shape != (FLAGGED, FLAGGED))
            )
        return flags


def open_images(
    path: str | os.PathLike, given: Given | None = None, content: bytes | None = None
) -> dict[str, Callable[[], Frame]]:
    """Open a FITS file and return its images: name → function that reads it.

    Frames of our simulators and corrected frames of SDSS have readers of their own; every other 2-d image goes to
    `pnet.sky.image`. `given` is what the user says of it, and `content` what `pnet.common.fits_file.unpack` returned of
    the file, where that was called before.

    Raises
    ------
    DataError
        If the file is not there, is damaged or holds no image; from the functions, if the image cannot be measured.
    ConfigError
        If something is given that the file itself knows.
    """
    given = given or Given()
    with _naming(path):
        hdus = open_fits(path, content=content)
        # before they were calibrated, SDSS's frames (fpC) had a single HDU
        survey = str(hdus[0].header.get("ORIGIN", "")).strip() == "SDSS" and len(hdus) > 1
        if not survey and not ("SCI" in hdus and "SIMULATR" in hdus["SCI"].header):
            entries = image.entries(hdus, path, given.mask)
            return {entry.name: partial(_read, path, image.read, hdus, entry, given) for entry in entries}
    idle = [name for name, value in vars(given).items() if value is not None and not (survey and name == "mask")]
    if idle:
        kind = "a corrected frame of SDSS" if survey else "a simulated frame"
        raise ConfigError(f"{path}: --{idle[0].replace('_', '-')} is not for {kind}, which tells that itself")
    reader = partial(sdss_frame.read_frame, fpm=given.mask) if survey else frame_file.read_image
    return {Path(path).name.split(".fit")[0]: partial(_read, path, reader, path, hdus=hdus)}


def read_image(path: str | os.PathLike, given: Given | None = None) -> Frame:
    """Read a FITS file of one image; errors as in `open_images`, and a DataError if it holds several."""
    images = open_images(path, given)
    if len(images) > 1:
        raise DataError(f"{path}: holds {len(images)} images ({', '.join(images)}); open_images reads each of them")
    return next(iter(images.values()))()


def _read(path: str | os.PathLike, reader: Callable[..., Frame], *arguments: Any, **named: Any) -> Frame:
    with _naming(path):
        return reader(*arguments, **named)


@contextlib.contextmanager
def _naming(path: str | os.PathLike) -> Iterator[None]:
    """Let every error name the file and be one of PNet's: a flipped bit of a header may end in any."""
    try:
        yield
    except PNetError as error:
        if str(path) in str(error):
            raise
        raise DataError(f"{path}: {error}") from error
    except Exception as error:
        raise DataError(f"{path}: the FITS file is damaged ({type(error).__name__}: {error})") from error


def catalogue_path(output: str | os.PathLike, name: str, *, alone: bool) -> Path:
    """Return where the catalogue of an image goes: the file `output`, or ``name.ecsv`` in it, if it is a folder.

    Raises
    ------
    ConfigError
        If the suffix is none of `FORMATS`, or the image is not alone and `output` no folder.
    """
    output = Path(output)
    if output.is_dir() or not output.suffix:
        return output / f"{name}.ecsv"
    if output.suffix not in FORMATS:
        raise ConfigError(f"{output}: the suffix is {output.suffix!r}, allowed are {sorted(FORMATS)}, or a folder")
    if not alone:
        raise ConfigError(f"--output is {output}, one file for several images; allowed is a folder")
    return output


def write_catalogue(table: Table, path: str | os.PathLike) -> None:
    """Write a catalogue as ECSV or FITS, by its suffix, atomically; a ConfigError if it is none of `FORMATS`."""
    path = catalogue_path(path, "", alone=True)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # of what ECSV keeps and FITS cannot: long names, empty lists
        table.write(temporary, format=FORMATS[path.suffix])
