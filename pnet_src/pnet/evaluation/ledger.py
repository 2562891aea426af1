"""The ledger: every number of the book with its interval, the paper's value, the limit, and where it comes from; and
those that a measurement table gives."""

import fnmatch
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from pnet.common import paths
from pnet.common.errors import DataError, MissingError
from pnet.common.files import atomic_path, read_json, read_manifest
from pnet.common.seeds import derive
from pnet.evaluation import accuracy, confidence, detections, error_bars, scores
from pnet.evaluation.scores import Sample, Score

# Each takes a sample and gives nothing where its method or its data set lacks what it needs.
GROUPS: dict[str, tuple[Callable[[Sample], dict[str, Score]], ...]] = {
    "detection": (detections.compute,),
    "photometry": (accuracy.photometry,),
    "astrometry": (accuracy.astrometry,),
    "uncertainty": (error_bars.uncertainty,),
    "calibration": (error_bars.calibration,),
    "positions": (accuracy.position_error_bars, error_bars.fitted),
    "confidence": (confidence.compute,),
}
_DIGITS = {"value": 7, "low": 4, "high": 4, "paper": 7, "limit": 7}  # significant ones in the file
_PROVENANCE = ("command", "commit", "date", "device", "seed", "engine", "source", "baseline", "weights")


@dataclass(frozen=True)
class Entry:
    """One number.

    Parameters
    ----------
    key : str
        ``<data set>.<method>.<what>[.<bin>]``, for example ``simulation.pnet.precision``.
    value, low, high : float or None
        The number and its 95 % interval; None where it cannot be told.
    n : int
        Number of stars (or frames) behind it.
    unit, title : str
        Empty for pure numbers (fractions are fractions of one); what it is, in words.
    paper, limit : float or None
        The paper's value and the best value possible.
    source : {"live", "released"}
        Measured by this run, or taken from the measurements in ``results/``.
    provenance : dict
        Command, commit, date, device and seed of the measurement.
    """

    key: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = ""
    paper: float | None = None
    limit: float | None = None
    title: str = ""
    source: str = "live"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for name in _DIGITS:
            number = getattr(self, name)
            # JSON has no NaN, and numpy's scalars are not JSON either
            finite = None if number is None or not math.isfinite(number) else float(number)
            object.__setattr__(self, name, finite)
        object.__setattr__(self, "n", int(self.n))


class Ledger(dict[str, Entry]):
    """Entries by key, in the order they were added; made of entries."""

    def __init__(self, entries: Iterable[Entry] = ()):
        super().__init__()
        self.add(*entries)

    def add(self, *entries: Entry) -> None:
        """Add entries; the same key twice with different content is an error."""
        for entry in entries:
            if self.setdefault(entry.key, entry) != entry:
                raise DataError(f"ledger: {entry.key} is given twice, with different content")

    def __missing__(self, key: str) -> Entry:
        raise KeyError(f"ledger: no entry {key!r}")

    def value(self, key: str) -> float:
        """Return a value as a Python float; NaN where the key is missing or has none."""
        entry = self.get(key)
        return math.nan if entry is None or entry.value is None else entry.value

    def find(self, pattern: str) -> list[Entry]:
        """Return the entries whose key fits a shell pattern such as ``simulation.*.recall``."""
        return [self[key] for key in fnmatch.filter(self, pattern)]

    def write(self, path: str | os.PathLike) -> None:
        """Write as JSON, atomically: an entry a line, sorted by key, and each run's provenance once.

        A run is named by its first entry's data set, with a number from the second on. What an entry has no value for,
        or the usual one, is left out. Numbers keep 7 significant digits, ends of intervals 4.
        """
        runs: dict[str, Mapping[str, Any]] = {}
        lines, usual = {}, asdict(Entry("usual"))
        for key, entry in sorted(self.items()):
            content = {name: value for name, value in asdict(entry).items() if name != "key" and value != usual[name]}
            for name in _DIGITS.keys() & content:
                content[name] = float(f"{content[name]:.{_DIGITS[name]}g}")
            if entry.provenance:
                if entry.provenance not in runs.values():
                    stem = key.partition(".")[0]
                    before = sum(name.partition("-")[0] == stem for name in runs)
                    runs[f"{stem}-{before + 1}" if before else stem] = entry.provenance
                content["provenance"] = next(name for name, known in runs.items() if known == entry.provenance)
            lines[key] = content
        parts = (f'"{name}":{{\n{_lines(each)}\n}}' for name, each in (("provenance", runs), ("entries", lines)))
        with atomic_path(path) as temporary:
            temporary.write_text("{" + ",\n".join(parts) + "}\n")

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Ledger":
        """Read what `write` wrote; MissingError or DataError if there is no such file, or it is not a ledger."""
        try:
            content = read_json(path)
            runs = content["provenance"]
            return cls(
                Entry(key, provenance=runs[item.pop("provenance")] if "provenance" in item else {}, **item)
                for key, item in content["entries"].items()
            )
        except FileNotFoundError as error:
            raise MissingError(f"{path}: no ledger here; `make book` writes it") from error
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise DataError(f"{path}: not a ledger: {error}") from error

    @classmethod
    def merge(cls, parts: Iterable["Ledger"]) -> "Ledger":
        """Return one ledger of several; a key in two of them must say the same."""
        return cls(entry for part in parts for entry in part.values())


def _lines(items: Mapping[str, Any]) -> str:
    write = partial(json.dumps, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)
    return ",\n".join(f"{json.dumps(name)}:{write(content)}" for name, content in items.items())


@cache
def paper_values(path: Path = paths.MANIFESTS / "paper_values.yml") -> dict[str, dict[str, Any]]:
    """Return the paper's numbers: key → value, where and, of a bound, relation; MissingError or DataError without."""
    return read_manifest(path)


def of_paper(key: str) -> dict[str, Any]:
    """Return the paper's number beside a key of the ledger, as in `paper_values`; empty where it has none.

    It stands beside this project's networks and beside the paper's own as trained here.
    """
    return paper_values().get(key.replace(".pnet_paper.", ".pnet."), {})


def entries_of(found: Mapping[str, Score], head: str, source: str, provenance: Mapping[str, Any] | None) -> list[Entry]:
    """Return scores as entries keyed ``<head>.<short key>``, with the paper's value where it has one.

    `provenance` is the JSON beside the measurements; its command, commit, date, device, seed and data are kept.
    """
    kept = {name: value for name, value in (provenance or {}).items() if name in _PROVENANCE}
    entries = []
    for name, score in found.items():
        key = f"{head}.{name}"
        known = {"paper": of_paper(key).get("value"), "limit": score.limit, **vars(score.estimate)}
        entries.append(Entry(key, unit=score.unit, title=score.title, source=source, provenance=kept, **known))
    return entries


def compute(
    table: pd.DataFrame,
    dataset: str,
    method: str,
    *,
    seed: int,
    groups: tuple[str, ...] = tuple(GROUPS),
    record: Mapping[str, Any] | None = None,
) -> dict[str, Score]:
    """Return the scores of one method on one data set, by short key such as ``recall`` or ``mag_over_limit.14``.

    Parameters
    ----------
    table : DataFrame
        Measurement table (`measurements.COLUMNS`).
    dataset, method, seed, record
        See `scores.Sample`.
    groups : tuple of str
        Which of `GROUPS`.
    """
    chosen, result = scores.rows(table, dataset, method), {}
    for group in groups if len(chosen) else ():
        own = derive(seed, "bootstrap", dataset, method, group)
        for function in GROUPS[group]:
            result |= function(Sample(chosen, dataset, method, own, record or {}))
    return result


def entries_from_measurements(
    table: pd.DataFrame,
    *,
    seed: int,
    source: str = "live",
    provenance: Mapping[str, Any] | None = None,
    groups: tuple[str, ...] = tuple(GROUPS),
) -> list[Entry]:
    """Return every number of Tables 1 and 2 and of Figures 6 to 9 for all data sets and methods of a table.

    Parameters are those of `compute`; `provenance` is its `record`, of which `entries_of` keeps a part.
    """
    entries = []
    for dataset, method in table[["dataset", "method"]].drop_duplicates().itertuples(index=False):
        found = compute(table, dataset, method, seed=seed, groups=groups, record=provenance)
        own = (provenance or {}).get("settings", {}).get("weights", {}).get(method)
        record = provenance if own is None else {**provenance, "weights": own}
        entries += entries_of(found, f"{dataset}.{method}", source, record)
    return entries
