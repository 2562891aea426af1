"""``make book``: check the profile, then let Snakemake run what is not up to date."""

import subprocess
import sys
from pathlib import Path

from pnet.book import profiles
from pnet.common import paths
from pnet.common.errors import PNetError


class WorkflowError(PNetError, RuntimeError):
    """A step of the workflow failed; what it said stands above."""


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
    ConfigError
        If the profile asks for something that does not exist.
    WorkflowError
        If a step fails.
    """
    from pnet.sdss import files  # slow to import

    output = paths.ROOT / profiles.load(profile).check().output
    files.forget_unavailable(output)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.ROOT / "Snakefile")]
    command += ["--directory", str(paths.ROOT), "--configfile", str(profiles.find(profile))]
    command += ["--quiet", "rules", "host", "--resources", f"mem_mb={memory_mb}"]
    command += ["--rerun-incomplete", "--keep-going", "--cores", str(jobs), *(arguments or [])]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        raise WorkflowError("a step failed, see above; the same command goes on from there")
    return output / "site" / "index.html"
