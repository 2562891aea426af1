"""Frames with catalogues × measurers → one measurement table (Parquet) with its provenance beside it."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from pnet.common import paths, provenance
from pnet.common.errors import ConfigError, DataError, MissingError, PNetError
from pnet.common.files import atomic_path, read_json, sha256, write_json
from pnet.common.seeds import derive
from pnet.evaluation import baselines
from pnet.evaluation.frames import SIMULATED, Source, naming, sdss, simulated
from pnet.frame import Frame
from pnet.measure import PNet
from pnet.sky import limits, matching
from pnet.stars import weights

DATASETS = (*SIMULATED, "sdss", "coadd")
STUDIES = ("coadd", "repeat")  # which `python -m studies` measures
# Methods that are networks → their set of weights, see `PNet.load`.
NETWORKS = {"pnet": "released", "pnet_paper": "paper"}
METHODS = (*NETWORKS, "sextractor", "sextractor_default", "sep", "psfex", "photutils")
FLOOR = 0.01  # detections are recorded down to this confidence, so that every threshold can be studied later
# Confidence from which on a method's detections count in tables: the paper's 0.3 for networks; a classical
# program has made its decision with its own detection threshold.
THRESHOLDS = dict.fromkeys(METHODS, 0.0) | dict.fromkeys(NETWORKS, 0.3)
COLUMNS = (
    *("dataset", "frame", "method", "status"),
    *matching.TRUTH_COLUMNS,
    "counted",
    *matching.MEASURED_COLUMNS,
    *("limit_mag", "limit_x", "limit_y", "seeing", "sky", "match_radius"),
)
_TYPES = dict.fromkeys(COLUMNS, float) | {"counted": bool}
_TYPES |= dict.fromkeys(("dataset", "frame", "method", "status", "truth_kind"), "str")

Measurer = Callable[[Frame], pd.DataFrame]


def evaluate(
    source: Source, measurers: Mapping[str, Measurer], dataset: str, *, progress: bool = False
) -> pd.DataFrame:
    """Measure every frame with every method and put the results beside the truth and the limit.

    Parameters
    ----------
    source : Source
    measurers : mapping of str to callable
        Method name (of `METHODS`) → ``measurer(frame)`` giving x, y, confidence, flux, mag
        and, where it has them, the others of `matching.MEASURED_COLUMNS`.
    dataset : str
        One of `DATASETS`.

    Returns
    -------
    DataFrame
        `COLUMNS`, one row per catalogue source and per unmatched detection, for every method. Where a frame or a
        method fails, the error names both.
    """
    parts = []
    for frame, truth in tqdm(source, total=len(source.items), desc=f"measure {dataset}", disable=not progress):
        with naming(f"frame {frame.name}: the limit failed"):
            bounds = limits.frame_limits(frame, truth, source.psf_at)
        for method, measurer in measurers.items():
            with naming(f"frame {frame.name}: {method} failed"):
                detections = measurer(frame)
                if method in NETWORKS and "confidence" in detections:
                    detections = detections[detections["confidence"] >= FLOOR]
                rows = matching.compare(truth, detections, frame.shape, mask=frame.mask)
            # sources come first, in the order of the truth; unmatched detections have no limit
            rows = rows.join(bounds.reindex(range(len(rows))))
            rows = rows.assign(dataset=dataset, frame=frame.name, method=method, seeing=frame.seeing)
            parts.append(rows.reindex(columns=list(COLUMNS)).astype(_TYPES))
    return pd.concat(parts, ignore_index=True)


def write(table: pd.DataFrame, path: str | os.PathLike, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write a measurement table as Parquet and its provenance as JSON beside it, each atomically; return the latter.

    The provenance is written last and holds the table's SHA-256: a table without it is not taken for whole.
    """
    path, beside = Path(path), Path(path).with_suffix(".json")
    beside.unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd")
    record = {**record, "sha256": sha256(path), "frames": sorted(set(table["frame"]))}
    write_json(beside, record)
    return record


def read(path: str | os.PathLike, columns: Iterable[str] = COLUMNS) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a measurement table, which must have these columns, and its provenance.

    A MissingError if one of the two files is not there, a DataError if they are damaged, do not belong together, or
    columns are missing.
    """
    path, beside = Path(path), Path(path).with_suffix(".json")
    try:
        record = read_json(beside)
        if not record.get("available", True):
            raise MissingError(f"{path}: no measurements here: {record['reason']}")
        if record.get("sha256") != sha256(path):
            raise DataError(f"{path}: is not the table that {beside.name} tells of (SHA-256 differs); measure again")
        table = pd.read_parquet(path)
        if missing := [name for name in columns if name not in table]:
            raise DataError(f"{path}: column(s) {', '.join(missing)} missing; measure again")
    except PNetError:
        raise
    except FileNotFoundError as error:
        raise MissingError(f"{error.filename}: no measurements here; `{_command(path.stem)}` makes them") from error
    except (OSError, ValueError, AttributeError) as error:  # pyarrow's and json's errors are ValueErrors or OSErrors
        raise DataError(f"{path}: cannot be read: {error}") from error
    return table, record


def _command(dataset: str) -> str:
    """Return the command that measures a data set."""
    return f"python -m {'studies' if dataset in STUDIES else 'pnet evaluate --dataset'} {dataset}"


def pnet_measurer(together: str = "released", *, seed: int = 2023, **networks: str | os.PathLike) -> Measurer:
    """Return PNet as a measurer that records detections down to `FLOOR`.

    Its attribute ``provenance`` holds the device and the SHA-256 of the networks' weights, which are as for
    `pnet.measure.PNet.load`. Every frame derives its own seed of the Monte Carlo samples.
    """
    model = PNet.load(together, **networks)

    def measure(frame: Frame) -> pd.DataFrame:
        own = derive(seed, "measure", frame.name)
        return model.measure(frame, confidence=FLOOR, seed=own).to_pandas()

    measure.provenance = {
        "device": next(model.detection.parameters()).device.type,
        "weights": {kind: card.get("sha256") for kind, card in model.cards.items()},
        "confidence_calibration": model.cards["detection"].get("confidence_calibration"),  # see `pnet.stars.confidence`
    }
    return measure


def run(
    dataset: str,
    output: str | os.PathLike,
    *,
    frames: int = 120,
    seed: int = 2023,
    manifest: str = "sdss-standard",
    methods: tuple[str, ...] = (*NETWORKS, "baselines"),
    source: Callable[[], Source] | None = None,
    optional: bool = False,
    progress: bool = True,
    **networks: str | os.PathLike,
) -> dict[str, Any]:
    """Measure a data set with PNet and the baselines and write ``<output>/measurements/<dataset>.parquet``.

    Where a table of the same settings lies there, it returns at once. A ConfigError for an unknown data set or method,
    a MissingError if weights or data cannot be had.

    Parameters
    ----------
    dataset, output : str, path
        Of `DATASETS`; "sdss" are the fields of `manifest` with a catalogue. Folder of the profile, ``build/standard``.
    frames : int
        Number of simulated frames, at most.
    methods : tuple of str
        Of `METHODS`; "baseline" is SExtractor where installed, else SEP, with the settings chosen for it, and
        "baselines" all of `pnet.evaluation.baselines.available`.
    source : callable, optional
        ``source()`` → the frames of a data set that is a study's own, ``coadd``.
    optional : bool
        Where data cannot be had, leave a record that says why (see `unavailable`) instead of raising.
    networks : str or path
        Weights of the method "pnet" that are not the released ones, see `pnet.measure.PNet.load`, and with the prefix
        ``paper_`` of "pnet_paper", the paper's networks as written.

    Returns
    -------
    dict
        The record beside the table; of data that cannot be had ``available`` (False) and ``reason``.
    """
    allowed = (*METHODS, "baseline", "baselines")
    if not methods or not set(methods) <= set(allowed):
        raise ConfigError(f"methods are {', '.join(methods) or 'empty'}, allowed are {', '.join(allowed)}")
    if dataset not in (allowed := DATASETS if source else (*SIMULATED, "sdss")):
        raise ConfigError(f"dataset is {dataset!r}, allowed are {', '.join(allowed)}")
    path = paths.folder_of(output) / "measurements" / f"{dataset}.parquet"
    own: dict[str, dict[str, str | os.PathLike]] = {"pnet": {}, "pnet_paper": {}}
    for name, each in networks.items():
        own["pnet_paper" if name.startswith("paper_") else "pnet"][name.removeprefix("paper_")] = each
    own = {name: own[name] for name in methods if name in own}
    try:
        if source is not None:
            found = source()
        else:
            found = simulated(dataset, output, frames, seed) if dataset in SIMULATED else sdss(manifest, progress)
    except MissingError as error:
        if not optional:
            raise
        return unavailable(path, str(error))
    classical = baselines.chosen(name for name in methods if name not in own)
    settings = {
        **{"seed": seed, "methods": list(methods), **found.details, "items": [Path(item).name for item in found.items]},
        "weights": {name: hashes(weights.SETS[NETWORKS[name]] | each) for name, each in own.items()},
        "baselines": {name: measurer.version() for name, measurer in classical.items()},
    }
    if done := known(path, settings):
        return done
    measurers = {name: pnet_measurer(NETWORKS[name], seed=seed, **each) for name, each in own.items()}
    details = {"device": "cpu", **found.details}
    for measurer in reversed(measurers.values()):  # the first is what the record is about
        details |= measurer.provenance
    if classical:
        details |= {"baseline": next(iter(settings["baselines"].values())), "baselines": settings["baselines"]}
    table = evaluate(found, measurers | classical, dataset, progress=progress)
    command = f"{_command(dataset)} --output {paths.shown(output)} --seed {seed}"
    return write(table, path, provenance.record(command, seed, **details, settings=settings))


def hashes(networks: Mapping[str, str | os.PathLike]) -> dict[str, str | None]:
    """Return the SHA-256 of networks' weights by kind, from their cards."""
    return {kind: read_json(weights.resolve(kind, name)).get("sha256") for kind, name in networks.items()}


def known(path: Path, settings: Mapping[str, Any], columns: Iterable[str] = COLUMNS) -> dict[str, Any] | None:
    """Return the record of a whole measurement table that was made with these settings; None where there is none."""
    try:
        record = read(path, columns)[1]
    except (MissingError, DataError):
        return None
    return record if record.get("settings") == settings else None


def unavailable(path: Path, reason: str) -> dict[str, Any]:
    """Leave, in place of a table's record, one that says why there is none, and no older table; return it."""
    path.unlink(missing_ok=True)
    record = {"available": False, "reason": reason}
    write_json(path.with_suffix(".json"), record)
    return record
