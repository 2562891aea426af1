"""Where a result comes from: commit, command, seed, device, versions, hardware."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from pnet.common import paths

PACKAGES = (  # this project and what numbers depend on
    *("pnet-companion", "numpy", "scipy", "pandas", "astropy", "torch", "bayesian-torch"),
    *("uncertainty-toolbox", "sep", "galsim", "photutils"),
)


def record(command: str, seed: int, device: str, **extra: Any) -> dict[str, Any]:
    """Return a JSON-ready record of how a result was made.

    Parameters
    ----------
    command : str
        The command that makes it again, run from the project's root.
    seed : int
    device : str
        For example ``cpu``.
    extra
        Whatever else belongs to this result (engine, source, frames, seconds, weights, ...).

    Returns
    -------
    dict
        command, seed, device, commit ('unknown' outside git, ending in '+' where the tree has changes
        that are not committed), date (UTC, to the second), versions, machine, and what `extra` holds.
    """
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "command": command,
        "seed": int(seed),
        "device": str(device),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat(),
        "versions": versions,
        "machine": machine(),
        **extra,
    }


def commit(root: Path | None = None) -> str:
    """Return the commit of the checkout, with '+' where tracked files differ from it, or 'unknown'."""
    # no optional locks: a question asked by a background run must not get in a user's way
    command = ["git", "--no-optional-locks", "-C", str(root or paths.ROOT), "describe", "--always", "--exclude=*"]
    try:
        done = subprocess.run([*command, "--abbrev=40", "--dirty=+"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def machine() -> dict[str, Any]:
    """Return the processor's model name, the cores this process may use, and the operating system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = platform.processor() or platform.machine() or "unknown"
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
        cpu = found[1].strip() if found else cpu
    return {"cpu": cpu, "cores": cores, "system": f"{platform.system()} {platform.machine()}"}
