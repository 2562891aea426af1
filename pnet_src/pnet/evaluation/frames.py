"""The frames that an evaluation measures, with their truth and their PSF."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pnet.common.errors import DataError, MissingError, PNetError
from pnet.common.files import read_json
from pnet.frame import Frame
from pnet.sdss.catalogue import load_field
from pnet.sdss.files import fetch
from pnet.simulation import datasets
from pnet.simulation.frame_file import read_frame
from pnet.simulation.recipe import Recipe
from pnet.sky import catalogue, limits

CONTRAST = 2.5  # mag; on frames with faint stars a neighbour fainter by more, a tenth of the light, excludes no star
PSFAt = Callable[[Frame, float, float], limits.EffectivePSF]  # of the frame, at (x, y) in px


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Let every error inside say what it happened to, as a `PNetError`."""
    try:
        yield
    except PNetError as error:
        raise type(error)(f"{what}: {error}") from error
    except Exception as error:
        raise DataError(f"{what}: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Source:
    """Frames to measure: an iterable of (Frame, truth), read one at a time; an error names the item.

    Parameters
    ----------
    items : sequence
        What `reader` takes: paths, or names of fields.
    reader : callable
        ``reader(item)`` → (Frame, truth with `counted`).
    psf_at : callable, optional
        None where the frame's seeing is enough.
    details : dict
        What the provenance tells of them.
    """

    items: Sequence[Any]
    reader: Callable[[Any], tuple[Frame, pd.DataFrame]]
    psf_at: PSFAt | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[Frame, pd.DataFrame]]:
        for item in self.items:
            with naming(str(item)):
                read = self.reader(item)
            yield read


def read_simulated(path: str | os.PathLike, contrast: float = np.inf) -> tuple[Frame, pd.DataFrame]:
    """Read a simulated frame and mark the stars that count, see `catalogue.mark_counted` for `contrast`."""
    frame, truth = read_frame(path)
    return frame, catalogue.mark_counted(truth, frame, contrast=contrast)


read_realistic = partial(read_simulated, contrast=CONTRAST)  # with galaxies and faint stars
# Kind of field, split and reader. On validation frames recalibrations and thresholds are fitted.
SIMULATED = {
    "simulation": (datasets.PAPER, "test", read_simulated),
    "realistic": ("realistic", "test", read_realistic),
    "validation": (datasets.PAPER, "val", read_simulated),
}


def simulated(dataset: str, output: str | os.PathLike, n: int, seed: int) -> Source:
    """Return the first `n` frames of a data set of `SIMULATED`; they are made where the run has none yet.

    Frames of a kind are those of $SKYMAKER_FRAMES where that folder has them, else SkyMaker's or the renderer's. A
    MissingError if frames that the run made have gone, or the engine's frames are missing.
    """
    kind, split, reader = SIMULATED[dataset]
    folder = datasets.simulation_folder(output, kind)
    if (folder / "simulation.json").is_file():
        engine, files = read_json(folder / "simulation.json")["engine"], datasets.frames_of(output, split, kind)
    else:
        engine = datasets.find_engine(kind)
        files = datasets.make_dataset(folder, Recipe.load(), split, n, seed, engine=engine, kind=kind)
    if not files:
        hint = f"`python -m pnet simulate` with --{split} makes them"
        raise MissingError(f"{output}: the run made no {split} frames; {hint}")
    return Source(files[:n], reader, None, {"engine": engine})


def sdss(manifest: str, progress: bool) -> Source:
    """Return the fields of a manifest that have a catalogue, downloaded or taken from the mirror.

    A MissingError if required files cannot be had, or no field has a catalogue.
    """
    report = fetch(manifest, progress=progress)
    fields = [entry.name for entry in report.manifest.fields if report.path(entry.name, "photoObj") is not None]
    if not fields:
        hint = "`python -m pnet sdss-download` gets them"
        raise MissingError(f"manifest {manifest}: no field has a photoObj catalogue here; {hint}")
    # the place of a mirror is this machine's affair; results that are released must not name it
    where = report.source if report.source.startswith("http") else "a local mirror or files downloaded earlier"
    return Source(fields, partial(load_field, report), sdss_psf, {"source": where, "manifest": manifest})


def sdss_psf(frame: Frame, x: float, y: float) -> limits.EffectivePSF:
    """Return SDSS's own PSF at a position, from the frame's psField file where there was one."""
    model = frame.meta["psf"]
    return limits.atmosphere(frame) if model is None else limits.EffectivePSF.from_pixels(model.at(x, y))
