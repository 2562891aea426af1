"""The frames that a run learns from and is validated on, with their truth: simulated ones, or SDSS fields."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pnet.common.errors import ConfigError, MissingError
from pnet.detection.predict import detect
from pnet.frame import Frame
from pnet.sdss.catalogue import load_field
from pnet.sdss.files import fetch
from pnet.sdss.manifest import Manifest
from pnet.simulation.frame_file import read_frame
from pnet.sky import catalogue
from pnet.stars import weights
from pnet.stars.error_scale import scales_of
from pnet.stars.refine import refine
from pnet.training import fields as fielddata

DATASETS = ("simulation", "sdss")
MarkedFrame = tuple[Frame, pd.DataFrame]


@dataclass(frozen=True)
class TrainingSet:
    """Names of frames and a way to read them one at a time (300 SDSS fields do not fit into memory at once).

    Parameters
    ----------
    dataset : {'simulation', 'sdss'}
    train, val : tuple of str
        Paths of simulated frames, or names of SDSS fields.
    manifest : str
        The SDSS fields' manifest.
    """

    dataset: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    manifest: str = ""

    def read(self, split: str) -> Iterator[MarkedFrame]:
        """Yield the frames of 'train' or 'val' with their truth and its column ``counted``."""
        names = {"train": self.train, "val": self.val}[split]
        if self.dataset == "simulation":
            for path in names:
                frame, truth = read_frame(path)
                yield frame, catalogue.mark_counted(truth, frame)
        elif names:
            report = fetch(self.manifest, fields=list(names), progress=False)
            for name in names:
                yield load_field(report, name)

    def prepared(self) -> list[fielddata.PreparedFrame]:
        """Return the training frames as `fielddata.FrameFields` takes them."""
        return [fielddata.prepare(frame, self._for_training(truth)) for frame, truth in self.read("train")]

    def _for_training(self, truth: pd.DataFrame) -> pd.DataFrame:
        """Mark what the heat map is not trained on; a real catalogue's doubtful sources are masked (section 4.1)."""
        if self.dataset == "simulation":
            return truth
        near = truth["mag"] <= fielddata.FAINT
        # A galaxy is empty sky to this network; among the faintest the catalogue cannot tell it from a star.
        return truth.assign(ignored=~truth["counted"] & ((truth["kind"] == "star") | ~near))

    def names(self, split: str) -> list[str]:
        """Return the names of a split's frames, without folders, for the card."""
        return [Path(name).name for name in {"train": self.train, "val": self.val}[split]]


def simulated(train: Sequence[str | os.PathLike] = (), val: Sequence[str | os.PathLike] = ()) -> TrainingSet:
    """Return simulated frames with truth as a training set."""
    return TrainingSet("simulation", tuple(map(str, train)), tuple(map(str, val)))


def sdss(manifest: str) -> TrainingSet:
    """Return the SDSS fields of a manifest that have a catalogue, by the manifest's own splits.

    Raises
    ------
    MissingError
        If the manifest has no catalogued field to train on.
    """
    loaded = Manifest.load(manifest)
    fields = [field for field in loaded.fields if any(file.role == "photoObj" for file in field.files)]
    train, val = (tuple(field.name for field in fields if field.split == split) for split in ("train", "val"))
    if not train:
        raise MissingError(
            f"manifest {manifest} has no field with a catalogue to train on (it has {len(fields)} to test on); "
            "`pnet sdss-manifest` chooses hundreds, then train with --manifest sdss-paper"
        )
    return TrainingSet("sdss", train, val, manifest)


Finder = Callable[[Frame], pd.DataFrame]


def finder(detection: str | os.PathLike, refiner: str | os.PathLike | None) -> tuple[Finder, dict[str, str]]:
    """Return a function that finds the stars of a frame, and the SHA-256 of the weights that it uses.

    `detection` and `refiner` are as in `weights.resolve`; without a refiner the detection net's own positions stand.
    """
    net, card = weights.load("detection", detection)
    made = {"detection": card["sha256"]}
    if refiner is None:
        return (lambda frame: detect(net, frame, 0.3)), made
    step, step_card = weights.load("refiner", refiner)
    made["refiner"] = step_card["sha256"]
    scales = scales_of(step_card)
    return (lambda frame: refine(step, frame, detect(net, frame, 0.3), scales)), made


def stars_found(frames: Iterable[MarkedFrame], find: Finder) -> Iterator[tuple[Frame, pd.DataFrame, pd.DataFrame]]:
    """Yield frames, marked truth and what is found in them, for training and validating networks of single stars."""
    for frame, truth in frames:
        yield frame, truth, find(frame)


def choose(
    dataset: str, manifest: str, train: Sequence[str | os.PathLike], val: Sequence[str | os.PathLike]
) -> TrainingSet:
    """Return the training set that a run asks for.

    Raises
    ------
    ConfigError, MissingError
        If there is no such data set, or it has nothing to train on.
    """
    if dataset not in DATASETS:
        raise ConfigError(f"dataset is {dataset!r}, allowed are {DATASETS}")
    return sdss(manifest) if dataset == "sdss" else simulated(train, val)
