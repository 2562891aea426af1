"""What this project set out to reach beyond the paper (``data_manifests/goals.yml``), and what came of it.

Goals, the paper and the pages (``data_manifests/ledger.yml``) also say which numbers of a run the ledger keeps.
"""

import fnmatch
import itertools
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pnet.common import paths
from pnet.common.errors import ConfigError, DataError
from pnet.common.files import read_manifest
from pnet.evaluation import claims
from pnet.evaluation.ledger import Entry, Ledger, paper_values

FILE = paths.MANIFESTS / "goals.yml"
FAMILIES = paths.MANIFESTS / "ledger.yml"
CLASSICAL = ("psfex", "sextractor")  # methods whose value for the key of a goal may stand beside PNet's
REACHED, MET, MISSED, UNKNOWN = "reached", "met", "missed", "not measured"


@dataclass(frozen=True)
class Goal:
    """One goal.

    Parameters
    ----------
    name, chapter, what : str
        Its own name, the page that shows it, and the goal in words.
    key : str
        Of the ledger; with `bins`, what comes before the bin.
    least, most : float
        Bounds of the value; infinite where there is none.
    bins : tuple of str
        Bins that must keep the bounds, each of them.
    relative, absolute : bool
        The value is taken in units of the entry's own limit; without its sign.
    style : {"number", "percent"}
    """

    name: str
    chapter: str
    key: str
    what: str
    least: float = -math.inf
    most: float = math.inf
    bins: tuple[str, ...] = ()
    relative: bool = False
    absolute: bool = False
    style: str = "number"

    @property
    def keys(self) -> list[str]:
        """Keys of the ledger that decide."""
        return [f"{self.key}.{name}" for name in self.bins] or [self.key]

    @property
    def wanted(self) -> str:
        """The bounds in words."""
        scale, unit = (100, " %") if self.style == "percent" else (1, "")
        least, most = (f"{scale * value:g}" for value in (self.least, self.most))
        if math.isinf(self.most):
            return f"≥ {least}{unit}"
        return f"≤ {most}{unit}" if math.isinf(self.least) else f"{least}–{most}{unit}"

    def value(self, entry: Entry) -> Entry:
        """Return the entry with the value and interval that the bounds are for: of its limit, without its sign."""
        value, low, high = entry.value, entry.low, entry.high
        if self.relative:
            if not entry.limit:
                raise DataError(f"goal {self.name}: {entry.key} has no limit to be compared with")
            value, low, high = (None if number is None else number / entry.limit for number in (value, low, high))
        if self.absolute and value is not None:
            ends = [abs(end) for end in (low, high) if end is not None]
            value, high = abs(value), max(ends, default=None)
            low = 0.0 if len(ends) == 2 and entry.low < 0 < entry.high else min(ends, default=None)
        return replace(entry, value=value, low=low, high=high, paper=None, limit=None)

    def decide(self, ledger: Ledger) -> tuple[Entry | None, str]:
        """Return the entry that decides, the bin farthest from the goal, as `value` has it, and the verdict.

        A goal is reached only if the worse end of the 95 % interval keeps its bounds, met if the value does, missed
        otherwise. A number without an interval can be met, not reached. Where one of the keys has no value it is not
        measured, and there is no entry: a goal for every bin is not reached by some of them.
        """

        def excess(value: float) -> float:
            return max(value - self.most, self.least - value)

        entries = [ledger.get(key) for key in self.keys]
        if any(entry is None or entry.value is None for entry in entries):
            return None, UNKNOWN
        values = [self.value(entry) for entry in entries]
        worst = max(values, key=lambda entry: excess(entry.value))
        ends = [end for entry in values for end in (entry.low, entry.high)]
        if excess(worst.value) > 0:
            return worst, MISSED
        sure = all(end is not None and excess(end) <= 0 for end in ends)
        return worst, REACHED if sure else MET


def load(path: str | os.PathLike = FILE, chapter: str | None = None) -> list[Goal]:
    """Return the goals of a file, or of one chapter of it.

    A MissingError, DataError or ConfigError if the file is missing or not as it should be, or has no such chapter.
    """
    found = []
    for item in read_manifest(path):
        try:
            item = dict(item)
            least, most = item.pop("between", (item.pop("least", -math.inf), item.pop("most", math.inf)))
            goal = Goal(least=float(least), most=float(most), bins=tuple(item.pop("bins", ())), **item)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}: {item} is not a goal: {error}") from error
        if math.isinf(goal.least) and math.isinf(goal.most):
            raise DataError(f"{path}: {goal.name} has no bound; least, most or between is needed")
        found.append(goal)
    chapters = sorted({goal.chapter for goal in found})
    if chapter not in (None, *chapters):
        raise ConfigError(f"chapter is {chapter!r}, allowed are {', '.join(chapters)}")
    return [goal for goal in found if chapter in (None, goal.chapter)]


@cache
def families(path: Path = FAMILIES) -> Mapping[str, list[str]]:
    """Return the patterns of keys that each page shows; MissingError or DataError if the file is no such one."""
    try:
        return {
            page: [".".join(parts) for family in found for parts in itertools.product(*family)]
            for page, found in read_manifest(path).items()
        }
    except (TypeError, AttributeError) as error:
        raise DataError(f"{path}: no families of keys: {error}") from error


def keep(ledger: Ledger) -> Ledger:
    """Return the entries of a ledger that a page, a goal, the paper or a verdict on it asks for."""
    asked = {*paper_values(), *(key for claim in claims.load() for key in claim.keys)}
    for key in (key for goal in load() for key in goal.keys):
        asked |= {key, *(key.replace(".pnet.", f".{method}.") for method in CLASSICAL)}
    shown = re.compile("|".join(fnmatch.translate(pattern) for page in families().values() for pattern in page))
    return Ledger(entry for key, entry in ledger.items() if key in asked or shown.match(key))
