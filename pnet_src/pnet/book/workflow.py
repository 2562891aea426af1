"""``make book``: check the profile, then let Snakemake run what is not up to date."""

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pnet.book import notebooks, profiles
from pnet.common import paths
from pnet.common.errors import ConfigError, PNetError

SIMULATION = "01_skymaker_simulation"
STEPS = ("simulate", "simulate-realistic", "train-detection", "train-refiner", "train-bpnn", "measure")


class WorkflowError(PNetError, RuntimeError):
    """A step of the workflow failed; what it said stands above."""


def check(profile: profiles.Profile) -> None:
    """Check a profile against the notebooks: now, not after an hour.

    Raises
    ------
    ConfigError
        For a parameter that a notebook does not have or one of another type, a step that does not exist, or numbers
        of simulated frames that differ between the step that makes them and the notebook that shows them.
    """
    unknown = sorted(set(profile.steps) - set(STEPS))
    if unknown:
        raise ConfigError(
            f"profile {profile.name}: step {', '.join(unknown)} is not known; allowed are {', '.join(STEPS)}"
        )
    simulated = profile.steps.get("simulate", {})
    made = {f"n_{split}": simulated[split] for split in ("train", "val", "test") if split in simulated}
    shown = {name: value for name, value in profile.notebooks.get(SIMULATION, {}).items() if name in made}
    if made != shown:
        raise ConfigError(
            f"profile {profile.name}: steps.simulate makes {made}, {SIMULATION} shows {shown}; they must agree"
        )
    for source in notebooks.sources():
        where = f"profile {profile.name}, {source.stem}"
        notebooks.resolve(notebooks.read(source), profile.parameters(source.stem), where)


def run(profile: str, *, jobs: int = 2, memory_mb: int = 8000, arguments: list[str] | None = None) -> Path:
    """Bring everything of a profile up to date and return the first page of its site.

    Parameters
    ----------
    profile : str
        Name, or path of a file.
    jobs : int
        Cores to use.
    memory_mb : int
        Memory that the steps running side by side may take together, as they declare it.
    arguments : list of str, optional
        More arguments for Snakemake; targets among them take the place of the site.

    Raises
    ------
    WorkflowError
        If a step fails, or another run of this checkout is going on.
    """
    from pnet.sdss import files  # slow to import

    loaded = profiles.load(profile, [source.stem for source in notebooks.sources()])
    check(loaded)
    output = paths.ROOT / loaded.output
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.ROOT / "Snakefile")]
    command += ["--directory", str(paths.ROOT), "--config", f"profile={profile}"]
    command += ["--cores", str(jobs), "--resources", f"mem_mb={memory_mb}"]
    # our own lock, which dies with its process; Snakemake's would have to be removed by hand after a power cut
    command += ["--nolock", "--rerun-incomplete", "--keep-going", "--quiet", "rules", "host"]
    with _locked(output):
        files.forget_unavailable(output)
        done = subprocess.run([*command, *(arguments or [])], stdin=subprocess.DEVNULL)
    if done.returncode:
        raise WorkflowError("a step failed, see above; the same command goes on from there")
    return output / "site" / "index.html"


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[None]:
    """Hold the folder of a profile against a second run."""
    output.mkdir(parents=True, exist_ok=True)
    with open(output / ".lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise WorkflowError(f"another run is at work in {os.path.relpath(output, paths.ROOT)}") from error
        yield
