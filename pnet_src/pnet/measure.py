"""The whole path on one frame: image in, catalogue out."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from astropy.table import Table
from torch import nn

import pnet
from pnet.common.errors import ConfigError, DataError, PNetError
from pnet.common.files import atomic_path
from pnet.common.fits_file import primary_header
from pnet.detection.predict import detect
from pnet.frame import Frame
from pnet.simulation import frame_file
from pnet.sky import background
from pnet.stars import refine as refinement
from pnet.stars import weights
from pnet.stars.confidence import of_card
from pnet.stars.cutouts import frame_stamps
from pnet.stars.error_scale import scales_of
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
    "flags": ("", "sum of " + ", ".join(f"{bit}: {meaning}" for bit, meaning in FLAGS.items())),
}
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


def read_image(path: str | os.PathLike) -> Frame:
    """Read a simulated frame or an SDSS corrected frame, whichever the file is.

    Raises
    ------
    MissingError, DataError
        If the file is not there, is damaged, or of neither kind.
    """
    try:
        if str(primary_header(path).get("ORIGIN", "")).strip() == "SDSS":
            from pnet.sdss.frame import read_frame  # which brings a tenth of a second of its own

            return read_frame(path)
        return frame_file.read_frame(path)[0]
    except PNetError as error:
        if str(path) in str(error):
            raise
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # a flipped bit of a header may end in any
        raise DataError(f"{path}: the FITS file is damaged ({type(error).__name__}: {error})") from error


def write_catalogue(table: Table, path: str | os.PathLike) -> None:
    """Write a catalogue as ECSV (or FITS, by its suffix), atomically.

    Raises
    ------
    ConfigError
        If the suffix is neither .ecsv nor .fits.
    """
    formats = {".ecsv": "ascii.ecsv", ".fits": "fits"}
    suffix = Path(path).suffix
    if suffix not in formats:
        raise ConfigError(f"{path}: the suffix is {suffix!r}, allowed are {sorted(formats)}")
    with atomic_path(path) as temporary:
        table.write(temporary, format=formats[suffix])
