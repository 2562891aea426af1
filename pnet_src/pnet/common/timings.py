"""How long each step of a run took and on what: one small JSON per step, beside the results it made."""

import contextlib
import datetime
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pnet.common import provenance
from pnet.common.errors import DataError
from pnet.common.files import read_json, write_json

FOLDER = "timings"


@contextlib.contextmanager
def measured(step: str, output: Path) -> Iterator[dict[str, Any]]:
    """Write ``<output>/timings/<step>.json`` when the block ends well.

    Yields
    ------
    dict
        The record; what the block adds to it is written too. It holds ``step``, ``seconds`` (wall clock),
        ``cpu_seconds`` and ``memory_mb`` (the largest process below this one, or this one), ``machine``, ``date``.
    """
    record: dict[str, Any] = {"step": step}
    start, cpu = time.perf_counter(), _cpu()
    yield record
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    record.update(
        seconds=round(time.perf_counter() - start, 1),
        cpu_seconds=round(_cpu() - cpu, 1),
        memory_mb=round(largest / (1024**2 if sys.platform == "darwin" else 1024)),  # Linux counts in kB
        machine=provenance.machine(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    write_json(output / FOLDER / f"{step}.json", record)


def _cpu() -> float:
    """Return the processor seconds of this process and of its finished children."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def read(output: Path) -> list[dict[str, Any]]:
    """Return the records of a run, in the order of the steps' names.

    Raises
    ------
    DataError
        If a record is damaged.
    """
    records = []
    for path in sorted((output / FOLDER).glob("*.json")):
        try:
            record = read_json(path)
            records.append({**record, "seconds": float(record["seconds"])})
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a record of a step's time ({error}); delete it") from error
    return records
