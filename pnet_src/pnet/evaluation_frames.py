"""The frames that an evaluation measures, with their truth and their PSF."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from pnet import catalogue, limits
from pnet.errors import MissingError
from pnet.files import read_json
from pnet.frame import Frame


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
    from pnet.simulation import read_frame

    frame, truth = read_frame(path)
    return frame, catalogue.mark_counted(truth, frame)


def simulation(output: str | os.PathLike, n: int, seed: int) -> Source:
    """Return the first `n` test frames of the run in `output`; they are made where `pnet simulate` has not been run.

    Raises
    ------
    MissingError
        If frames that the run made have gone, or the engine's frames are missing.
    """
    from pnet import pipeline
    from pnet import simulation as simulator

    record = Path(output) / "simulation" / "simulation.json"
    if record.is_file():
        engine, files = read_json(record)["engine"], pipeline.frames_of(output, "test")
    else:
        engine = simulator.find_engine()
        recipe = simulator.Recipe.load()
        files = simulator.make_dataset(Path(output) / "simulation", recipe, "test", n, seed, engine=engine)
    if not files:
        raise MissingError(f"{output}: the run made no test frames; `python -m pnet simulate` with --test makes them")
    return Source(files[:n], read_simulated, None, {"engine": engine})


def sdss(manifest: str, progress: bool = False) -> Source:
    """Return the fields of a manifest that have a catalogue, downloaded or taken from the mirror.

    Raises
    ------
    MissingError
        If required files cannot be had, or no field has a catalogue.
    """
    from pnet import sdss_catalogue
    from pnet.manifest import Manifest, fetch

    report = fetch(Manifest.load(manifest), progress=progress)
    fields = [entry.name for entry in report.manifest.fields if report.path(entry.name, "photoObj") is not None]
    if not fields:
        raise MissingError(
            f"manifest {manifest}: no field has a photoObj catalogue here; `python -m pnet sdss-download` gets them"
        )

    def psf_at(frame: Frame, x: float, y: float) -> limits.EffectivePSF:
        path = report.path(frame.name.rsplit("-", 1)[0], "psField")
        if path is None:
            return limits.atmosphere(frame)
        return limits.EffectivePSF.from_pixels(_psf_model(path, frame.meta["band"]).at(x, y))

    # the place of a mirror is this machine's affair; results that are released must not name it
    where = report.source if report.source.startswith("http") else "a local mirror or files downloaded earlier"
    details = {"source": where, "manifest": manifest}
    return Source(fields, lambda name: sdss_catalogue.load_field(report, name), psf_at, details)


@lru_cache(maxsize=8)
def _psf_model(path: Path, band: str):
    from pnet.sdss_psf import PSFModel

    return PSFModel.read(path, band)
