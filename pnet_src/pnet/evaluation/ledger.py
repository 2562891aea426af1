"""The ledger: every number of the book with its interval, the paper's value, the limit, and where it comes from."""

import fnmatch
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from pnet.common import paths
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import atomic_path, read_json, read_manifest
from pnet.evaluation import scores

DIGITS, DIGITS_OF_INTERVALS = 7, 4  # significant ones in the file
SOURCES = ("live", "released")
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
    unit : str
        Empty for pure numbers; fractions are fractions of one.
    paper, limit : float or None
        The paper's value and the best value possible.
    title : str
        What it is, in words.
    source : {"live", "released"}
        Measured by this run, or taken from the measurements in ``results/``.
    provenance : dict
        Command, commit, date, device and seed of the measurement.
    """

    key: str
    value: float | None
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
        if not self.key or any(character.isspace() for character in self.key):
            raise ConfigError(f"key is {self.key!r}, a name without spaces is needed")
        if self.source not in SOURCES:
            raise ConfigError(f"{self.key}: source is {self.source!r}, allowed are {', '.join(SOURCES)}")
        for name in ("value", "low", "high", "paper", "limit"):
            number = getattr(self, name)
            # JSON has no NaN, and numpy's scalars are not JSON either
            finite = None if number is None or not math.isfinite(number) else float(number)
            object.__setattr__(self, name, finite)
        object.__setattr__(self, "n", int(self.n))


_USUAL = {item.name: None if item.default is MISSING else item.default for item in fields(Entry)} | {"provenance": {}}
_NUMBERS = {"value", "low", "high", "paper", "limit"}


class Ledger:
    """Entries by key, in the order they were added."""

    def __init__(self, entries: Iterable[Entry] = ()):
        self._entries: dict[str, Entry] = {}
        self.add(*entries)

    def add(self, *entries: Entry) -> None:
        """Add entries; the same key twice with different content is an error."""
        for entry in entries:
            if self._entries.setdefault(entry.key, entry) != entry:
                raise DataError(f"ledger: {entry.key} is given twice, with different content")

    def __getitem__(self, key: str) -> Entry:
        if key not in self._entries:
            raise KeyError(f"ledger: no entry {key!r}")
        return self._entries[key]

    def get(self, key: str) -> Entry | None:
        """Return an entry, or None."""
        return self._entries.get(key)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def value(self, key: str) -> float:
        """Return a value as a Python float; NaN where the key is missing or has none."""
        number = self._entries[key].value if key in self._entries else None
        return math.nan if number is None else number

    def find(self, pattern: str) -> list[Entry]:
        """Return the entries whose key fits a shell pattern such as ``simulation.*.recall``."""
        return [entry for entry in self if fnmatch.fnmatchcase(entry.key, pattern)]

    def write(self, path: str | os.PathLike) -> None:
        """Write as JSON, atomically: an entry a line, sorted by key, and each run's provenance once.

        What an entry has no value for, or the usual one, is left out. Values keep `DIGITS` significant digits, ends of
        intervals `DIGITS_OF_INTERVALS`.
        """
        runs: dict[str, Mapping[str, Any]] = {}
        lines = []
        for entry in sorted(self, key=lambda entry: entry.key):
            content = {name: value for name, value in asdict(entry).items() if value != _USUAL[name]}
            for name in _NUMBERS & set(content):
                content[name] = float(f"{content[name]:.{DIGITS_OF_INTERVALS if name in ('low', 'high') else DIGITS}g}")
            if entry.provenance:
                content["provenance"] = _name_of_run(runs, entry.key.partition(".")[0], entry.provenance)
            del content["key"]
            lines.append(f"{json.dumps(entry.key)}:{_compact(content)}")
        known = [f"{json.dumps(name)}:{_compact(content)}" for name, content in runs.items()]
        text = '{"provenance":{\n' + ",\n".join(known) + '\n},\n"entries":{\n' + ",\n".join(lines) + "\n}}\n"
        with atomic_path(path) as temporary:
            temporary.write_text(text)

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Ledger":
        """Read what `write` wrote.

        Raises
        ------
        MissingError, DataError
            If there is no such file, or it is not a ledger.
        """
        try:
            content = read_json(path)
            runs = content["provenance"]
            entries = {key: {"value": None, **item} for key, item in content["entries"].items()}
            for item in entries.values():
                if "provenance" in item:
                    item["provenance"] = runs[item["provenance"]]
            return cls(Entry(key, **item) for key, item in entries.items())
        except FileNotFoundError as error:
            raise MissingError(f"{path}: no ledger here; `make book` writes it") from error
        except (TypeError, KeyError, AttributeError, ConfigError, UnicodeDecodeError, ValueError) as error:
            raise DataError(f"{path}: not a ledger: {error}") from error

    @classmethod
    def merge(cls, parts: Iterable["Ledger"]) -> "Ledger":
        """Return one ledger of several; a key in two of them must say the same."""
        return cls(entry for part in parts for entry in part)


def _name_of_run(runs: dict[str, Mapping[str, Any]], stem: str, provenance: Mapping[str, Any]) -> str:
    """Return the name of a run in `runs`, to which it is added where it is new: its data set, with a number."""
    for name, known in runs.items():
        if known == provenance:
            return name
    name = next(name for n in itertools.count(1) if (name := stem if n == 1 else f"{stem}-{n}") not in runs)
    runs[name] = provenance
    return name


def _compact(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


@lru_cache(maxsize=4)
def paper_values(path: Path = paths.MANIFESTS / "paper_values.yml") -> dict[str, dict[str, Any]]:
    """Return the paper's numbers: key → {value, where, relation}.

    Raises
    ------
    MissingError, DataError
        If the file is missing or an entry lacks a number or its place in the paper.
    """
    content = read_manifest(path)
    for key, item in content.items():
        good = isinstance(item, dict) and isinstance(item.get("value"), int | float) and item.get("where")
        if not good:
            raise DataError(f"{path}: {key} needs a number `value` and a text `where`")
    return {key: {"relation": "=", **item} for key, item in content.items()}


def paper_value(key: str) -> float | None:
    """Return the paper's value of a ledger key, or None where the paper has none."""
    item = paper_values().get(key)
    return None if item is None else float(item["value"])


def entries_of(
    found: Mapping[str, scores.Score], head: str, source: str, provenance: Mapping[str, Any] | None
) -> list[Entry]:
    """Return scores as entries keyed ``<head>.<short key>``, with the paper's value where it has one.

    `provenance` is the JSON beside the measurements; its command, commit, date, device, seed and data are kept.
    """
    kept = {name: value for name, value in (provenance or {}).items() if name in _PROVENANCE}
    return [
        Entry(
            key=f"{head}.{name}",
            value=score.estimate.value,
            low=score.estimate.low,
            high=score.estimate.high,
            n=score.estimate.n,
            unit=score.unit,
            paper=paper_value(f"{head}.{name}"),
            limit=score.limit,
            title=score.title,
            source=source,
            provenance=kept,
        )
        for name, score in found.items()
    ]
