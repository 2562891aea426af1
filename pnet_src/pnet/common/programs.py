"""Outside programs: where they are, which version they are, and running them so that every failure has words."""

import os
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pnet.common.errors import ConfigError, MissingError, PNetError

TEXT = {"capture_output": True, "text": True, "errors": "replace"}


class Program(NamedTuple):
    """An executable and the version that it reports."""

    path: str
    name: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))}"


def find(command: str, variable: str) -> str | None:
    """Return the path of a program: what the environment variable names, else the first on PATH, else None.

    Raises
    ------
    MissingError
        If the variable names something that cannot be run: falling back in silence would hide a typing error.
    """
    named = os.environ.get(variable)
    if not named:
        return shutil.which(command)
    found = shutil.which(named)
    if found is None:
        raise MissingError(f"${variable} is {named!r}, which is no program that can be run; correct it or unset it")
    return found


@lru_cache
def identify(path: str, name: str) -> Program:
    """Return the program at `path` with its version; `name` is what it must call itself.

    Raises
    ------
    ConfigError
        If it does not tell a version, or is something else.
    """
    try:
        done = subprocess.run([path, "-v"], timeout=30, **TEXT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{path} does not tell its version: {error}") from error
    text = done.stdout + done.stderr  # as in "SkyMaker version 3.10.5 (2014-03-19)"
    found = re.search(rf"\b{name}\s+(?:version\s+)?(\d+(?:\.\d+)+)", text, flags=re.IGNORECASE)
    if not found:
        raise ConfigError(f"this is not {name}: asked for its version, {path} says {text.strip()[:200]!r}")
    return Program(path, name, tuple(int(part) for part in found[1].split(".")))


def run(command: list[str], folder: Path, name: str, timeout: float) -> None:
    """Run a program in `folder`, so that file names can stay short and relative.

    Parameters
    ----------
    command : list of str
    folder : Path
    name : str
        What error messages call the job.
    timeout : float
        Seconds after which it is ended.

    Raises
    ------
    PNetError
        If it cannot be started, fails (with its last lines), or does not end in time.
    """
    label = Path(command[0]).name
    try:
        # LC_ALL: programs read numbers with the decimal sign of the user's language
        environment = {**os.environ, "LC_ALL": "C", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, timeout=timeout, **TEXT)
    except subprocess.TimeoutExpired as error:
        raise PNetError(f"{name}: {label} did not end within {timeout:g} s") from error
    except OSError as error:
        raise PNetError(f"{name}: {label} cannot be run: {error}") from error
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-5:]
        raise PNetError(f"{name}: {label} failed ({done.returncode}): {' | '.join(line.strip() for line in last)}")
