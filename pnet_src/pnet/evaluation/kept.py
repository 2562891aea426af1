"""Which numbers of a run the ledger keeps: those that a page, a goal or the paper asks for."""

import fnmatch
import itertools
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pnet.common import paths
from pnet.common.errors import DataError
from pnet.common.files import read_manifest
from pnet.evaluation import goals
from pnet.evaluation.ledger import Ledger, paper_values

FILE = paths.MANIFESTS / "ledger.yml"
CLASSICAL = ("psfex", "sextractor")  # methods whose value for the key of a goal may stand beside PNet's


@cache
def families(path: Path = FILE) -> Mapping[str, list[str]]:
    """Return the patterns of keys that each page shows; MissingError or DataError if the file is no such one."""
    try:
        return {
            page: [".".join(parts) for family in found for parts in itertools.product(*family)]
            for page, found in read_manifest(path).items()
        }
    except (TypeError, AttributeError) as error:
        raise DataError(f"{path}: no families of keys: {error}") from error


def keep(ledger: Ledger) -> Ledger:
    """Return the entries of a ledger that are asked for."""
    asked = set(paper_values())
    for key in (key for goal in goals.load() for key in goal.keys):
        asked |= {key, *(key.replace(".pnet.", f".{method}.") for method in CLASSICAL)}
    patterns = [fnmatch.translate(pattern) for page in families().values() for pattern in page]
    shown = re.compile("|".join(patterns))
    return Ledger(entry for entry in ledger if entry.key in asked or shown.match(entry.key))
