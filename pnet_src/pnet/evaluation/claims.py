"""The paper's claims (``data_manifests/claims.yml``), and what its networks as trained here say of them."""

import math
import os
from dataclasses import dataclass

from pnet.common import paths
from pnet.common.errors import DataError
from pnet.common.files import read_manifest
from pnet.evaluation.ledger import Entry, Ledger

FILE = paths.MANIFESTS / "claims.yml"
REPRODUCES, PERHAPS, FAILS = "reproduces", "reproduces within its interval", "does not reproduce"
UNTESTABLE, UNKNOWN = "cannot be tested here", "not measured"


@dataclass(frozen=True)
class Claim:
    """One claim.

    Parameters
    ----------
    what, where : str
        In words, and where the paper makes it.
    page : str
        Stem of the chapter that shows it.
    key : str
        Of the ledger, of the paper's networks as trained here; empty where it cannot be tested.
    least, most : float
        What the paper's number asks for; infinite where it is no bound.
    more_than, less_than : str
        Key of the number that it is compared with instead.
    why : str
        Why it cannot be tested here.
    style : {"number", "percent"}
    """

    what: str
    where: str
    page: str
    key: str = ""
    least: float = -math.inf
    most: float = math.inf
    more_than: str = ""
    less_than: str = ""
    why: str = ""
    style: str = "number"

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
        if others:  # the difference, in the direction that is claimed
            (other,), sign = others, 1 if self.more_than else -1
            nearest = (entry.low, other.high) if sign > 0 else (entry.high, other.low)
            margin, worst = sign * (entry.value - other.value), self._difference(sign, *nearest)
        else:
            ends = [end for end in (entry.low, entry.high) if end is not None]
            margin = min(entry.value - self.least, self.most - entry.value)
            worst = min((min(end - self.least, self.most - end) for end in ends), default=-math.inf)
        if margin < 0 or (others and margin == 0):
            return entry, FAILS
        return entry, REPRODUCES if worst >= 0 else PERHAPS

    @staticmethod
    def _difference(sign: int, end: float | None, other: float | None) -> float:
        return -math.inf if end is None or other is None else sign * (end - other)


def load(path: str | os.PathLike = FILE) -> list[Claim]:
    """Return the claims of a file.

    Raises
    ------
    MissingError, DataError
        If the file is missing, or an entry is no claim: it needs either a reason why it cannot be tested, or a key with
        one bound or one other key.
    """
    found = []
    for item in read_manifest(path):
        try:
            item = dict(item)
            least, most = item.pop("between", (item.pop("least", -math.inf), item.pop("most", math.inf)))
            claim = Claim(least=float(least), most=float(most), **item)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}: {item} is not a claim: {error}") from error
        bounds = [not (math.isinf(claim.least) and math.isinf(claim.most)), claim.more_than, claim.less_than]
        if bool(claim.why) == bool(claim.key) or sum(map(bool, bounds)) != bool(claim.key):
            raise DataError(f"{path}: {claim.what!r} needs either `why`, or a key with one bound or one other key")
        found.append(claim)
    return found
