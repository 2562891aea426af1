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
from pnet.sky import background, image, psf_fit
from pnet.sky.header import Given
from pnet.stars import refine as refinement
from pnet.stars import weights
from pnet.stars.confidence import of_card
from pnet.stars.cutouts import frame_stamps
from pnet.stars.error_scale import scales_of
from pnet.stars.inputs import POGSON
from pnet.stars.predict import predict

CONFIDENCE = 0.3  # threshold of the paper's Table 1
SATURATED, MASKED, EDGE, UNREFINED = 1, 2, 4, 8
FLAGS = {  # bits of the column flags
    SATURATED: "a saturated pixel in the stamp",
    MASKED: "a masked pixel in the stamp",
    EDGE: "the stamp is cut by the edge",
    UNREFINED: "not refined, as in a blend",
}
COLUMNS = {  # unit and what it is; "the refiner" is the refinement step of the detection net, its own network
    "x": ("pix", "column of the star, centre of the first pixel at 0, from the refiner (flag 8: the detection net)"),
    "y": ("pix", "row of the star, centre of the first pixel at 0, from the refiner (flag 8: the detection net)"),
    "x_err": ("pix", "standard deviation of x from the refiner, recalibrated on validation data; flag 8: a bound"),
    "y_err": ("pix", "standard deviation of y from the refiner, recalibrated on validation data; flag 8: a bound"),
    "confidence": ("", "confidence of the detection from the detection net, 0 to 1"),
    "probability": ("", "share of detections of this confidence that are stars, on validation frames"),
    "flux": ("electron", "flux, from the magnitude of the BPNN"),
    "mag": ("mag", "AB magnitude from the BPNN"),
    "mag_err": ("mag", "standard deviation of mag from the BPNN, recalibrated on validation data"),
    "mag_aleatoric": ("mag", "part of the BPNN's uncertainty that is noise (Eq. 15, first term), not recalibrated"),
    "mag_epistemic": ("mag", "part that is the BPNN's ignorance (Eq. 15, second term), not recalibrated"),
    "mag_net": ("mag", "AB magnitude from the refiner (flag 8: the detection net)"),
    "mag_net_err": ("mag", "standard deviation of mag_net, recalibrated on validation data; flag 8: a bound"),
    "x_det": ("pix", "column of the star as the detection net itself places it, before the refiner"),
    "y_det": ("pix", "row of the star as the detection net itself places it, before the refiner"),
    "mag_det": ("mag", "AB magnitude of the detection net's own flux, before the refiner"),
    "mag_psf": ("mag", "AB magnitude of a fit with the frame's own PSF, without a network; see `pnet measure --check`"),
    "mag_psf_err": ("mag", "standard deviation of mag_psf: noise of the pixels and uncertainty of the PSF"),
    "flags": ("", "sum of " + ", ".join(f"{bit}: {meaning}" for bit, meaning in FLAGS.items())),
}
FORMATS = {".ecsv": "ascii.ecsv", ".fits": "fits"}  # of a catalogue
NO_REFINER = ("x_err", "y_err", "mag_net_err")  # columns that only a refiner fills

# In training the BPNN's stamps lie within 0.02 px (`pnet.training.stars.REFINED`) of the true place, however faint the
# star. It believes the place that it is given: its positions repeat the refiner's, and its errors stay at 0.02 px where
# the true ones of stars of 20 mag are 0.05. They are no part of a catalogue, and kept for the evaluation.
BPNN_POSITIONS = {
    "x_bpnn": ("pix", "column of the star from the BPNN; not a number where it gives none"),
    "y_bpnn": ("pix", "row of the star from the BPNN"),
    "x_bpnn_err": ("pix", "standard deviation of x_bpnn, recalibrated on validation data"),
    "y_bpnn_err": ("pix", "standard deviation of y_bpnn, recalibrated on validation data"),
}


@dataclass
class PNet:
    """Detection net, its refinement step and BPNN together.

    Parameters
    ----------
    detection, refiner, bpnn : nn.Module
        The paper's networks have no refiner, None.
    cards : dict of str to dict
        What the weights are, by the names above.
    """

    detection: nn.Module
    refiner: nn.Module | None
    bpnn: nn.Module
    cards: dict[str, dict[str, Any]]

    @classmethod
    def load(
        cls,
        together: str = "released",
        *,
        detection: str | os.PathLike | None = None,
        refiner: str | os.PathLike | None = None,
        bpnn: str | os.PathLike | None = None,
        device: str | None = None,
    ) -> "PNet":
        """Load the networks of a set of `pnet.stars.weights.SETS`: 'released', or 'paper', the paper's as written.

        `detection`, `refiner` and `bpnn` name other weights in their place as in `pnet.stars.weights.resolve`; a
        refiner may be 'none'. `device` is 'cuda' where there is one unless told otherwise.

        Raises
        ------
        ConfigError, MissingError, DataError
            If there is no such set, or weights are missing or damaged.
        """
        if together not in weights.SETS:
            raise ConfigError(f"weights is {together!r}, allowed are {', '.join(weights.SETS)}")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        own = {"detection": detection, "refiner": refiner, "bpnn": bpnn}
        names = weights.SETS[together] | {kind: name for kind, name in own.items() if name is not None}
        # The networks of single stars are small and their stamps are cut on the CPU: they stay there.
        loaded = {
            kind: weights.load(kind, name, device if kind == "detection" else "cpu")
            for kind, name in names.items()
            if str(name) != weights.NONE
        }
        models, cards = ({kind: pair[index] for kind, pair in loaded.items()} for index in (0, 1))
        return cls(models["detection"], models.get("refiner"), models["bpnn"], cards)

    def measure(
        self,
        frame: Frame,
        confidence: float = CONFIDENCE,
        seed: int = 2023,
        *,
        refine: bool = True,
        bpnn_positions: bool = False,
    ) -> Table:
        """Return the catalogue of a frame: one row per detection of at least this confidence, by falling confidence.

        Parameters
        ----------
        frame : Frame
        confidence : float
            Between 0 and 1.
        seed : int
            Of the Monte Carlo samples of the BPNN.
        refine : bool
            Whether the refinement step corrects what the detection net found. Without it, or where there is none, no
            star is refined (flag 8): the positions are the detection net's own, and the BPNN gets its stamps at them.
        bpnn_positions : bool
            Whether the columns `BPNN_POSITIONS` follow, which are not to be used as positions.

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
        found = found.assign(x_det=found["x"], y_det=found["y"], flux_det=found["flux"])
        refine = refine and self.refiner is not None
        if refine:
            found = refinement.refine(self.refiner, frame, found, scales_of(self.cards["refiner"]), subtracted)
        else:
            found = refinement.unrefined(found)
        psf, fitted = psf_fit.of_frame(frame, found, subtracted)
        stamps = frame_stamps(frame, found, subtracted, bare=self.bpnn.config.bare)
        prediction = predict(self.bpnn, stamps, seed=seed)
        mag = prediction["mag"]
        scales = scales_of(self.cards["bpnn"])
        magnitude = frame.zero_point + mag.mean
        values = {name: found[name] for name in ("x", "y", "x_err", "y_err", "confidence", "x_det", "y_det")} | {
            "probability": self._probability(found["confidence"].to_numpy(float)),
            "flux": frame.flux(magnitude),
            "mag": magnitude,
            "mag_err": scales["mag"](mag.sigma),
            "mag_aleatoric": mag.aleatoric,
            "mag_epistemic": mag.epistemic,
            "mag_net": frame.magnitude(found["flux"]),
            "mag_net_err": found["mag_err"],
            "mag_det": frame.magnitude(found["flux_det"]),
            "mag_psf": frame.magnitude(fitted["flux"]),
            "mag_psf_err": POGSON * np.hypot(fitted["flux_err"], fitted["flux_psf"]) / fitted["flux"],
        }
        for axis in ("x", "y"):
            place = prediction.get(axis)  # the paper's BPNN gives magnitudes only
            middle = np.floor(found[axis].to_numpy(float) + 0.5)
            values[f"{axis}_bpnn"] = middle + place.mean if place else np.full(len(found), np.nan)
            values[f"{axis}_bpnn_err"] = scales[axis](place.sigma) if place else np.full(len(found), np.nan)
        empty = {}
        if self.refiner is None:
            empty = dict.fromkeys(NO_REFINER, "these networks have no refinement step, which alone gives this error")
        if of_card(self.cards["detection"]) is None:
            empty["probability"] = "the confidence of this detection net is not calibrated"
        values |= dict.fromkeys(empty, np.full(len(found), np.nan))
        flags = self._flags(frame, found, self.bpnn.config.stamp)
        values["flags"] = flags + UNREFINED * ~found["refined"].to_numpy(bool)
        columns = COLUMNS | (BPNN_POSITIONS if bpnn_positions else {})
        table = Table({name: np.asarray(values[name]) for name in columns})
        for name, (unit, description) in columns.items():
            table[name].unit = unit or None
            table[name].description = description
        table.meta = {
            "frame": frame.name,
            "zero_point": frame.zero_point,
            "confidence": confidence,
            "seed": seed,
            "refined": refine,
            "psf_stars": psf.stars,
            "empty": empty,
            "pnet": pnet.__version__,
            **{f"{kind}_sha256": card["sha256"] for kind, card in self.cards.items()},
        }
        return table

    def _probability(self, confidence: np.ndarray) -> np.ndarray:
        """Return the calibrated confidence; NaN where the card of the detection net has no calibration."""
        calibration = of_card(self.cards["detection"])
        return calibration.apply(confidence) if calibration else np.full(len(confidence), np.nan)

    @staticmethod
    def _flags(frame: Frame, stars: pd.DataFrame, size: int) -> np.ndarray:
        flags = np.zeros(len(stars), dtype=int)
        half = size // 2
        saturated = frame.saturated
        for index, (x, y) in enumerate(
            zip(np.rint(stars["x"]).astype(int), np.rint(stars["y"]).astype(int), strict=True)
        ):
            part = (slice(max(0, y - half), y + half + 1), slice(max(0, x - half), x + half + 1))
            flags[index] = (
                SATURATED * bool(saturated[part].any())
                + MASKED * bool(frame.mask[part].any())
                + EDGE * (saturated[part].shape != (size, size))
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
