"""What this machine has and lacks for PNet, and the one command that mends each lack.

Nothing heavy is imported before it is known to be there: this must run in a half-made environment.
"""

import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pnet.book import colab
from pnet.common import paths, programs
from pnet.common.errors import ConfigError, MissingError, PNetError

DISK = 8.0  # GB: environment 2, downloads 0.3, build of the standard profile below 2, and room
MEMORY = 6.0  # GB that the standard profile needs at most
INSTALL = "make clean-venv && make book"


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    ok: bool
    detail: str  # what was found, and of what is not required, what PNet puts in its place
    fix: str = ""  # the one command that gets what is missing; empty where there is none
    required: bool = True


def examine() -> dict[str, Check]:
    """Return every check by name, in the order in which a user would mend them. One that fails unforeseen says so."""
    found = {}
    for name, look in CHECKS.items():
        try:
            found[name] = look()
        except Exception as error:  # a doctor must not fall ill
            found[name] = Check(False, f"could not be looked at: {type(error).__name__}: {error}", INSTALL)
    return found


def show(found: dict[str, Check]) -> None:
    """Print the checks as a table, and below it the commands that mend what is missing."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table, console = Table("", "what", "found", box=None, pad_edge=False), Console()
    for name, check in found.items():
        mark = "[green]✓[/]" if check.ok else "[red]✗[/]" if check.required else "[yellow]–[/]"
        table.add_row(mark, escape(name), escape(check.detail))
    console.print(table)
    if mends := [f"  {name}: {check.fix}" for name, check in found.items() if check.fix and not check.ok]:
        console.print("\nTo mend ([red]✗[/] needed, [yellow]–[/] can be done without):")
        console.print("\n".join(mends), soft_wrap=True, markup=False, highlight=False)


def _packages() -> Check:
    """Every dependency is installed in a version that pyproject.toml allows."""
    from packaging.requirements import Requirement

    python = f"Python {platform.python_version()} ({sys.prefix})"
    project = paths.ROOT / "pyproject.toml"
    if not project.is_file():
        return Check(False, f"{project} is not there, so what is needed is unknown", "cd <project>")
    content = tomllib.loads(project.read_text())["project"]
    wanted = [Requirement(text) for text in content["dependencies"] + content["optional-dependencies"]["book"]]
    found, wrong = colab.installed(one.name for one in wanted), []
    for one in wanted:
        if one.name not in found:
            wrong.append(f"{one.name} is missing")
        elif not one.specifier.contains(found[one.name], prereleases=True):
            wrong.append(f"{one.name} is {found[one.name]}, needed is {one.specifier}")
    return Check(not wrong, f"{python}; {'; '.join(wrong) or f'all {len(wanted)} packages there'}", INSTALL)


def _torch() -> Check:
    try:
        import torch
    except (ImportError, OSError) as error:  # a CUDA build without its libraries fails with OSError
        return Check(False, f"cannot be imported: {error}", INSTALL)
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Check(True, f"{torch.__version__} on {torch.cuda.get_device_name(0)}, {memory:.0f} GiB")
    if torch.backends.mps.is_available():
        return Check(True, f"{torch.__version__} on Apple's GPU or the CPU")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    detail = f"{torch.__version__} on the CPU, {cores} cores"
    if shutil.which("nvidia-smi"):
        return Check(False, f"{detail}, though there is an NVIDIA GPU", "make book TORCH=cuda", required=False)
    return Check(True, detail)


# Check → what the program calls itself (a regular expression), its names on PATH, the variable that may name it, its
# packages, conda-forge's and Debian's, and what takes its place. Stuff is in neither, so no command gets it.
SEXTRACTOR = "(?:SExtractor|Source Extractor)", ("source-extractor", "sex", "sextractor"), "SEXTRACTOR"
PROGRAMS = {
    "SkyMaker (sky)": (
        *("SkyMaker", ("sky",), "SKY", "astromatic-skymaker", ""),
        "the project's own renderer makes the simulated frames",
    ),
    "Stuff (stuff)": (
        *("Stuff", ("stuff",), "STUFF", "", ""),
        "the project draws the galaxies of realistic fields itself",
    ),
    "SExtractor (source-extractor)": (
        *(*SEXTRACTOR, "astromatic-source-extractor", "source-extractor"),
        "SEP stands in for it",
    ),
    "PSFEx (psfex)": ("PSFEx", ("psfex",), "PSFEX", "astromatic-psfex", "psfex", "the pages do without it"),
}


def _program(check: str) -> Check:
    """Look for an outside program of `PROGRAMS`."""
    name, commands, variable, conda, debian, instead = PROGRAMS[check]
    fix = f"conda install -c conda-forge {conda}" if conda else ""
    if debian and shutil.which("apt-get") and not os.environ.get("CONDA_PREFIX"):
        fix = f"sudo apt-get install {debian}"
    try:
        path = next(filter(None, (programs.find(command, variable) for command in commands)), None)
        if path is None:
            return Check(False, f"not on the path; {instead}", fix, required=False)
        version = programs.identify(path, name).version
        return Check(True, f"{'.'.join(map(str, version))} ({path})", required=False)
    except MissingError as error:
        return Check(False, str(error), f"unset {variable}")
    except ConfigError as error:
        return Check(False, f"{error}; {instead}", fix, required=False)


def _sky() -> Check:
    folder = os.environ.get("SKYMAKER_FRAMES")
    if not folder:
        return _program("SkyMaker (sky)")
    if not Path(folder).is_dir():
        return Check(False, f"$SKYMAKER_FRAMES is {folder!r}, and there is no such folder", "unset SKYMAKER_FRAMES")
    return Check(True, f"its frames in $SKYMAKER_FRAMES ({folder}) are used", required=False)


def _sdss() -> Check:
    """SDSS files are here already, or can be fetched."""
    from pnet.sdss import files
    from pnet.sdss.manifest import Manifest

    root = paths.data_root() / "sdss"
    here = [(root / file.path).is_file() for file in Manifest.load("sdss-standard").files() if file.required]
    if all(here):
        return Check(True, f"all {len(here)} files of the standard manifest are in {root}", required=False)
    why_not, detail = files.obstacle(), f"{sum(here)} of {len(here)} files here; "
    if not why_not:
        return Check(True, f"{detail}the others are at {files.find_source()}", required=False)
    named = os.environ.get("SDSS_MIRROR")
    fix = "unset SDSS_MIRROR" if named else "make book SDSS_MIRROR=<folder or URL of a sas tree>"
    return Check(False, f"{detail}{why_not}; pages show the released results", fix, required=False)


def _weights() -> Check:
    """The released weights are there and are the bytes that their cards tell."""
    from pnet.stars import weights

    good, wrong = [], []
    for kind in weights.RELEASED:
        try:
            card = weights.check(weights.resolve(kind))
            good.append(f"{card['file']} (SHA-256 {card['sha256'][:12]}…)")
        except PNetError as error:
            wrong.append(str(error))
    return Check(not wrong, "; ".join(wrong or good), "git checkout -- weights")


def _disk() -> Check:
    free = shutil.disk_usage(paths.ROOT).free / 1e9
    return Check(free >= DISK, f"{free:.0f} GB free, {DISK:.0f} GB are needed", "make clean")


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    detail = f"{total:.0f} GB, {MEMORY:.0f} GB are needed"
    return Check(total >= MEMORY, detail, "make book PROFILE=smoke", required=False)


CHECKS: dict[str, Callable[[], Check]] = {
    "Python and packages": _packages,
    "torch": _torch,
    **{name: partial(_program, name) for name in PROGRAMS},
    "SkyMaker (sky)": _sky,
    "SDSS": _sdss,
    "weights": _weights,
    "disk": _disk,
    "memory": _memory,
}
