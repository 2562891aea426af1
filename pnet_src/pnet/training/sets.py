"""The frames that a run learns from and is validated on, with their truth: simulated ones, or SDSS fields."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from pnet.common.errors import MissingError
from pnet.detection.predict import detect
from pnet.frame import Frame
from pnet.sdss.catalogue import load_field
from pnet.sdss.files import fetch
from pnet.sdss.manifest import Manifest
from pnet.simulation.datasets import frames_of
from pnet.simulation.frame_file import read_frame
from pnet.sky import catalogue
from pnet.stars import weights
from pnet.training.config import TrainConfig
from pnet.training.fields import FAINT, PreparedFrame, prepare

MarkedFrame = tuple[Frame, pd.DataFrame]
Finder = Callable[[Frame], pd.DataFrame]
CONFIDENCE = 0.3  # of the detections that networks of single stars are trained and validated on


@dataclass(frozen=True)
class TrainingSet:
    """Names of frames and a way to read them one at a time (300 SDSS fields do not fit into memory at once).

    Parameters
    ----------
    train, val : sequence of str or path
        Paths of simulated frames, or names of SDSS fields.
    manifest : str, optional
        The SDSS fields' manifest; without it the frames are simulated ones.
    """

    train: Sequence[str | os.PathLike] = ()
    val: Sequence[str | os.PathLike] = ()
    manifest: str | None = None

    def read(self, split: str) -> Iterator[MarkedFrame]:
        """Yield the frames of 'train' or 'val' with their truth and its column ``counted``."""
        names = getattr(self, split)
        if self.manifest is None:
            for path in names:
                frame, truth = read_frame(path)
                yield frame, catalogue.mark_counted(truth, frame)
        elif names:
            report = fetch(self.manifest, fields=names, progress=False)
            yield from (load_field(report, name) for name in names)

    def found(self, split: str, find: Finder) -> Iterator[tuple[Frame, pd.DataFrame, pd.DataFrame]]:
        """Yield frames, marked truth and what is found in them, as networks of single stars learn from them."""
        for frame, truth in self.read(split):
            yield frame, truth, find(frame)

    def prepared(self) -> list[PreparedFrame]:
        """Return the training frames as `fields.FrameFields` takes them."""
        return [prepare(frame, self._for_training(truth)) for frame, truth in self.read("train")]

    def _for_training(self, truth: pd.DataFrame) -> pd.DataFrame:
        """Mark what the heat map is not trained on; a real catalogue's doubtful sources are masked (section 4.1)."""
        if self.manifest is None:
            return truth
        # A galaxy is empty sky to this network; among the faintest the catalogue cannot tell it from a star.
        return truth.assign(ignored=~truth["counted"] & ((truth["kind"] == "star") | ~(truth["mag"] <= FAINT)))

    def names(self, split: str) -> list[str]:
        """Return the names of a split's frames, without folders, for the card."""
        return [Path(name).name for name in getattr(self, split)]


def simulated(
    output: str | os.PathLike, folder: str | os.PathLike | None = None, validation: int | None = None
) -> TrainingSet:
    """Return a profile's simulated frames or, where `folder` is given, every frame in its ``train`` and the plain star
    fields in its ``val``; of those to validate on at most `validation`.

    Raises
    ------
    MissingError
        If the profile has none, or the folder none to train on.
    """
    if folder is None:
        return TrainingSet(frames_of(output, "train"), frames_of(output, "val")[:validation])
    train, val = sorted(Path(folder, "train").glob("*.fits")), sorted(Path(folder, "val").glob("paper-*.fits"))
    if not train:
        raise MissingError(
            f"{folder} has no train/*.fits; --frames names a folder with train/ and val/ of simulated frames"
        )
    return TrainingSet(train, val[:validation])


def chosen(config: TrainConfig, output: str | os.PathLike) -> TrainingSet:
    """Return the frames that a run asks for: simulated ones, the SDSS fields of a manifest that have a catalogue, by
    the manifest's own splits, or none where it learns from rendered stars alone.

    Raises
    ------
    MissingError
        If they are not there.
    """
    if config.dataset == "simulation":
        return simulated(output, config.frames, config.validation) if config.simulated else TrainingSet()
    fields = [field for field in Manifest.load(config.manifest).fields if field.file("photoObj") is not None]
    train, val = ([field.name for field in fields if field.split == split] for split in ("train", "val"))
    if not train:
        raise MissingError(
            f"manifest {config.manifest} has no field with a catalogue to train on (it has {len(fields)} to test on); "
            "`pnet sdss-manifest` chooses hundreds, then train with --manifest sdss-paper"
        )
    return TrainingSet(train, val[: config.validation], config.manifest)


def finder(detection: str | os.PathLike, device: str | torch.device = "cpu") -> tuple[Finder, dict[str, str]]:
    """Return a function that finds the stars of a frame, and the SHA-256 of the weights (as in `weights.resolve`) that
    it uses on `device`."""
    net, card = weights.load("detection", detection, device)
    return (lambda frame: detect(net, frame, CONFIDENCE)), {"detection": card["sha256"]}
