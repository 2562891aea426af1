"""The frames that an evaluation measures, with their truth and their PSF."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pnet.common.errors import MissingError
from pnet.common.files import read_json
from pnet.frame import Frame
from pnet.sky import catalogue, limits

if TYPE_CHECKING:
    from pnet.sdss.download import Report


@dataclass(frozen=True)
class Source:
    """Frames to measure.

    Parameters
    ----------
    items : sequence
        What `reader` takes: paths, or names of fields.
    reader : callable
        ``reader(item)`` → (Frame, truth with `counted`).
    psf_at : callable, optional
        ``psf_at(frame, x, y)`` → `limits.EffectivePSF`; None where the frame's seeing is enough.
    details : dict
        What the provenance tells of them.
    """

    items: Sequence[Any]
    reader: Callable[[Any], tuple[Frame, pd.DataFrame]]
    psf_at: Callable[[Frame, float, float], limits.EffectivePSF] | None = None
    details: dict[str, Any] = field(default_factory=dict)


def read_simulated(path: str | os.PathLike) -> tuple[Frame, pd.DataFrame]:
    """Read a simulated frame and mark the stars that count."""
    from pnet.simulation.recipe import read_frame

    frame, truth = read_frame(path)
    return frame, catalogue.mark_counted(truth, frame)


def simulation(output: str | os.PathLike, n: int, seed: int) -> Source:
    """Return the first `n` test frames of the run in `output`; they are made where `pnet simulate` has not been run.

    Raises
    ------
    MissingError
        If frames that the run made have gone, or the engine's frames are missing.
    """
    from pnet.simulation import datasets

    return _simulated(output, n, seed, datasets.PAPER, read_simulated)


def read_realistic(path: str | os.PathLike) -> tuple[Frame, pd.DataFrame]:
    """Read a simulated frame with galaxies and faint stars and mark the stars that count (`contaminants`)."""
    from pnet.evaluation import contaminants as realistic
    from pnet.simulation.recipe import read_frame

    frame, truth = read_frame(path)
    return frame, realistic.mark_counted(truth, frame)


def realistic(output: str | os.PathLike, n: int, seed: int) -> Source:
    """Return the first `n` test frames with stars to 23 mag and galaxies; made where the run has none yet.

    They are ``test/realistic-*`` of $SKYMAKER_FRAMES where that folder has them, else SkyMaker's or the renderer's.
    """
    return _simulated(output, n, seed, "realistic", read_realistic)


def validation(output: str | os.PathLike, n: int, seed: int) -> Source:
    """Return the first `n` validation frames of the paper's kind: what recalibrations and thresholds are fitted on."""
    from pnet.simulation import datasets

    return _simulated(output, n, seed, datasets.PAPER, read_simulated, split="val")


def _simulated(
    output: str | os.PathLike, n: int, seed: int, kind: str, reader: Callable, split: str = "test"
) -> Source:
    from pnet.simulation import datasets
    from pnet.simulation import recipe as simulator

    folder = datasets.simulation_folder(output, kind)
    if (folder / "simulation.json").is_file():
        engine, files = read_json(folder / "simulation.json")["engine"], datasets.frames_of(output, split, kind)
    else:
        engine = simulator.find_engine(None if kind == datasets.PAPER else kind)
        recipe = simulator.Recipe.load()
        files = simulator.make_dataset(folder, recipe, split, n, seed, engine=engine, kind=kind)
    if not files:
        raise MissingError(
            f"{output}: the run made no {split} frames; `python -m pnet simulate` with --{split} makes them"
        )
    return Source(files[:n], reader, None, {"engine": engine})


def sdss(manifest: str, progress: bool = False) -> Source:
    """Return the fields of a manifest that have a catalogue, downloaded or taken from the mirror.

    Raises
    ------
    MissingError
        If required files cannot be had, or no field has a catalogue.
    """
    from pnet.sdss import catalogue as sdss_catalogue
    from pnet.sdss.manifest import Manifest, fetch

    report = fetch(Manifest.load(manifest), progress=progress)
    fields = [entry.name for entry in report.manifest.fields if report.path(entry.name, "photoObj") is not None]
    if not fields:
        raise MissingError(
            f"manifest {manifest}: no field has a photoObj catalogue here; `python -m pnet sdss-download` gets them"
        )

    # the place of a mirror is this machine's affair; results that are released must not name it
    where = report.source if report.source.startswith("http") else "a local mirror or files downloaded earlier"
    details = {"source": where, "manifest": manifest}
    return Source(fields, lambda name: sdss_catalogue.load_field(report, name), sdss_psf(report), details)


def sdss_psf(report: "Report") -> Callable[[Frame, float, float], limits.EffectivePSF]:
    """Return SDSS's own PSF at a position, from the frame's psField file where there is one."""

    def psf_at(frame: Frame, x: float, y: float) -> limits.EffectivePSF:
        path = report.path(frame.name.rsplit("-", 1)[0], "psField")
        if path is None:
            return limits.atmosphere(frame)
        return limits.EffectivePSF.from_pixels(_psf_model(path, frame.meta["band"]).at(x, y))

    return psf_at


@lru_cache(maxsize=8)
def _psf_model(path: Path, band: str):
    from pnet.sdss.psf import PSFModel

    return PSFModel.read(path, band)
