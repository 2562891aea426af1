"""What the paper claims (``data_manifests/claims.yml``), what this project set out to reach beyond it (``goals.yml``),
and what came of both.

Claims, goals, the paper and the pages (``data_manifests/ledger.yml``) also say which numbers of a run the ledger keeps.
"""

import fnmatch
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import ClassVar

from pnet.common import paths
from pnet.common.errors import DataError
from pnet.common.files import read_manifest
from pnet.evaluation.ledger import Entry, Ledger, paper_values

FAMILIES = paths.MANIFESTS / "ledger.yml"
CLASSICAL = ("psfex", "sextractor")  # methods whose value for the key of a goal may stand beside PNet's
REACHED, MET, MISSED, UNKNOWN = "reached", "met", "missed", "not measured"
REPRODUCES, PERHAPS, FAILS = "reproduces", "reproduces within its interval", "does not reproduce"
UNTESTABLE = "cannot be tested here"
ABOVE_ZERO = math.ulp(0.0)  # the least difference that is one


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """What is said of a number.

    Parameters
    ----------
    what : str
        In words.
    key : str
        Of the ledger.
    least, most : float
        Bounds of the number; infinite where there is none.
    style : {"number", "percent"}
    """

    what: str
    key: str = ""
    least: float = -math.inf
    most: float = math.inf
    style: str = "number"
    file: ClassVar[Path]

    @property
    def bounded(self) -> bool:
        """Whether there is a bound."""
        return math.isfinite(self.least) or math.isfinite(self.most)

    def holds(self, entry: Entry) -> bool | None:
        """Return whether a number keeps the bounds: True with its whole 95 % interval, which it must have, None by its
        value alone, else False."""
        numbers = entry.value, entry.low, entry.high
        value, *ends = (number is not None and self.least <= number <= self.most for number in numbers)
        return False if not value else all(ends) or None

    @classmethod
    def load(cls, path: Path | None = None) -> list:
        """Return all that a file says, by default the project's; ``between`` stands for two bounds.

        A MissingError or DataError if the file is missing, or says something else.
        """
        path, found = path or cls.file, []
        for item in read_manifest(path):
            try:
                least, most = item.get("between", (item.get("least", -math.inf), item.get("most", math.inf)))
                others = {name: value for name, value in item.items() if name != "between"}
                found.append(cls(**others | {"least": float(least), "most": float(most)}))
            except (TypeError, ValueError, AttributeError) as error:
                raise DataError(f"{path}: {item} is not a {cls.__name__.lower()}: {error}") from error
        return found


@dataclass(frozen=True, kw_only=True)
class Claim(Bounded):
    """One claim: a ValueError without a reason why it cannot be tested, or a key with one bound or one other key.

    Parameters
    ----------
    where, page : str
        Where the paper makes it, and the stem of the chapter that shows it.
    key : str
        Of the paper's networks as trained here; empty where it cannot be tested.
    more_than, less_than : str
        Key of the number that it is compared with instead of a bound.
    why : str
        Why it cannot be tested here.
    """

    where: str
    page: str
    more_than: str = ""
    less_than: str = ""
    why: str = ""
    file: ClassVar[Path] = paths.MANIFESTS / "claims.yml"

    def __post_init__(self):
        bounds = self.bounded, bool(self.more_than), bool(self.less_than)
        if bool(self.why) == bool(self.key) or sum(bounds) != bool(self.key):
            raise ValueError("it needs either `why`, or a key with one bound or one other key")

    @property
    def keys(self) -> list[str]:
        """Keys of the ledger that the verdict, and our own number beside it, come from."""
        return [key for key in (self.key, self.ours, self.more_than, self.less_than) if key]

    @property
    def ours(self) -> str:
        """Key of the same number of this project's own networks."""
        return self.key.replace(".pnet_paper.", ".pnet.")

    def decide(self, ledger: Ledger) -> tuple[Entry | None, str]:
        """Return the number of the paper's networks and the verdict.

        A claim reproduces if the whole 95 % interval keeps it; where it is a comparison, if both intervals lie apart.
        It reproduces within its interval if the values alone keep it, and does not reproduce otherwise.
        """
        if self.why:
            return None, UNTESTABLE
        entry, *others = (ledger.get(key) for key in (self.key, self.more_than, self.less_than) if key)
        if any(number is None or number.value is None for number in (entry, *others)):
            return entry, UNKNOWN
        claim, number = self, entry
        for other in others:  # the difference has the sign that is claimed
            ends = (entry.value, other.value), (entry.low, other.high), (entry.high, other.low)
            value, low, high = (math.nan if None in pair else pair[0] - pair[1] for pair in ends)
            number = replace(entry, value=value, low=low, high=high)
            claim = Bounded(what="", **{"least": ABOVE_ZERO} if self.more_than else {"most": -ABOVE_ZERO})
        return entry, {True: REPRODUCES, None: PERHAPS, False: FAILS}[claim.holds(number)]


@dataclass(frozen=True, kw_only=True)
class Goal(Bounded):
    """One goal; a ValueError if it has no bound.

    Parameters
    ----------
    name, chapter : str
        Its own name, and the page that shows it.
    key : str
        With `bins`, what comes before the bin.
    bins : sequence of str
        Bins that must keep the bounds, each of them.
    relative, absolute : bool
        The value is taken in units of the entry's own limit; without its sign.
    """

    name: str
    chapter: str
    bins: Sequence[str] = ()
    relative: bool = False
    absolute: bool = False
    file: ClassVar[Path] = paths.MANIFESTS / "goals.yml"

    def __post_init__(self):
        if not self.bounded:
            raise ValueError("it has no bound; least, most or between is needed")

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

        A goal is reached only if the whole 95 % interval keeps its bounds, met if the value does, missed otherwise. A
        number without an interval can be met, not reached. Where one of the keys has no value it is not measured, and
        there is no entry: a goal for every bin is not reached by some of them.
        """
        entries = [ledger.get(key) for key in self.keys]
        if any(entry is None or entry.value is None for entry in entries):
            return None, UNKNOWN
        values = [self.value(entry) for entry in entries]
        held = [self.holds(entry) for entry in values]
        worst = max(values, key=lambda entry: max(entry.value - self.most, self.least - entry.value))
        return worst, MISSED if False in held else MET if None in held else REACHED


@cache
def families(path: Path = FAMILIES) -> dict[str, list[str]]:
    """Return the patterns of keys that each page shows; MissingError or DataError if the file is missing or no YAML."""
    pages = read_manifest(path).items()
    return {page: [".".join(parts) for one in found for parts in itertools.product(*one)] for page, found in pages}


def keep(ledger: Ledger) -> Ledger:
    """Return the entries of a ledger that a page, a goal, the paper or a verdict on it asks for."""
    asked = {*paper_values(), *(key for claim in Claim.load() for key in claim.keys)}
    for key in (key for goal in Goal.load() for key in goal.keys):
        asked |= {key, *(key.replace(".pnet.", f".{method}.") for method in CLASSICAL)}
    shown = re.compile("|".join(fnmatch.translate(pattern) for page in families().values() for pattern in page))
    return Ledger(entry for key, entry in ledger.items() if key in asked or shown.match(key))
