"""What this machine has and lacks for PNet, and the one command that mends each lack.

Nothing heavy is imported before it is known to be there: this must run in a half-made environment.
"""

import importlib.metadata
import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pnet.common import paths, programs
from pnet.common.errors import ConfigError, MissingError, PNetError

PYTHON = (3, 11)
DISK = 8.0  # GB: environment 2, downloads 0.3, build of the standard profile below 2, and room
MEMORY = 6.0  # GB that the standard profile needs at most
INSTALL = "make clean-venv && make book"


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Parameters
    ----------
    name : str
    ok : bool
    detail : str
        What was found.
    fix : str
        The one command that gets it; empty where nothing is missing.
    required : bool
        False where PNet has something to put in its place, which `detail` tells.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True


def examine() -> list[Check]:
    """Return every check, in the order in which a user would mend them. A check that fails unforeseen says so."""
    found = []
    for check in CHECKS:
        try:
            found.append(check())
        except Exception as error:  # a doctor must not fall ill
            name = check.__name__.lstrip("_").replace("_", " ")
            found.append(Check(name, False, f"could not be looked at: {type(error).__name__}: {error}", INSTALL))
    return found


def show(found: list[Check]) -> None:
    """Print the checks as a table, and below it the commands that mend what is missing."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("", "what", "found"):
        table.add_column(title, overflow="fold")
    marks = {(True, True): "[green]✓[/]", (True, False): "[green]✓[/]", (False, True): "[red]✗[/]"}
    for check in found:
        table.add_row(marks.get((check.ok, check.required), "[yellow]–[/]"), escape(check.name), escape(check.detail))
    console = Console()
    console.print(table)
    lacking = [check for check in found if not check.ok and check.fix]
    if lacking:
        console.print("\nTo mend ([red]✗[/] needed, [yellow]–[/] can be done without):")
        for check in lacking:
            console.print(f"  {check.name}: {check.fix}", soft_wrap=True, markup=False, highlight=False)


def _python() -> Check:
    version = platform.python_version()
    good = sys.version_info[:2] >= PYTHON
    fix = "" if good else "make clean-venv && make book PYTHON=python3.11"
    return Check("Python", good, f"{version} ({sys.prefix})", fix)


def _packages() -> Check:
    """Every dependency is installed in a version that pyproject.toml allows."""
    from packaging.requirements import Requirement

    project = paths.ROOT / "pyproject.toml"
    if not project.is_file():
        return Check("packages", False, f"{project} is not there, so what is needed is unknown", "cd <project>")
    content = tomllib.loads(project.read_text())["project"]
    wanted = [*content["dependencies"], *content["optional-dependencies"]["book"]]
    wrong = []
    for text in wanted:
        requirement = Requirement(text)
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, needed is {requirement.specifier}")
    return Check("packages", not wrong, "; ".join(wrong) or f"all {len(wanted)} there", INSTALL if wrong else "")


def _torch() -> Check:
    try:
        import torch
    except (ImportError, OSError) as error:  # a CUDA build without its libraries fails with OSError
        return Check("torch", False, f"cannot be imported: {error}", INSTALL)
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Check("torch", True, f"{torch.__version__} on {torch.cuda.get_device_name(0)}, {memory:.0f} GiB")
    if torch.backends.mps.is_available():
        return Check("torch", True, f"{torch.__version__} on Apple's GPU or the CPU")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    detail = f"{torch.__version__} on the CPU, {cores} cores"
    if shutil.which("nvidia-smi"):
        return Check("torch", False, f"{detail}, though there is an NVIDIA GPU", "make book TORCH=cuda", required=False)
    return Check("torch", True, detail)


def _program(name: str, commands: tuple[str, ...], variable: str, fix: str, instead: str) -> Check:
    """Look for an outside program by the variable that may name it and by its names on PATH."""
    title = f"{name} ({commands[0]})"
    try:
        path = next(filter(None, (programs.find(command, variable) for command in commands)), None)
        if path is None:
            return Check(title, False, f"not on the path; {instead}", fix, required=False)
        # Debian's build of SExtractor calls itself Source Extractor
        version = programs.identify(path, "(?:SExtractor|Source Extractor)" if name == "SExtractor" else name).version
        return Check(title, True, f"{'.'.join(map(str, version))} ({path})", required=False)
    except MissingError as error:
        return Check(title, False, str(error), f"unset {variable}")
    except ConfigError as error:
        return Check(title, False, f"{error}; {instead}", fix, required=False)


def _package(conda: str, debian: str = "") -> str:
    """Return the command that installs a program here."""
    if debian and shutil.which("apt-get") and not os.environ.get("CONDA_PREFIX"):
        return f"sudo apt-get install {debian}"
    return f"conda install -c conda-forge {conda}"


def _sky() -> Check:
    folder = os.environ.get("SKYMAKER_FRAMES")
    if folder and not Path(folder).is_dir():
        detail = f"$SKYMAKER_FRAMES is {folder!r}, and there is no such folder"
        return Check("SkyMaker (sky)", False, detail, "unset SKYMAKER_FRAMES")
    if folder:
        return Check("SkyMaker (sky)", True, f"its frames in $SKYMAKER_FRAMES ({folder}) are used", required=False)
    instead = "the project's own renderer makes the simulated frames"
    return _program("SkyMaker", ("sky",), "SKY", _package("astromatic-skymaker"), instead)


def _stuff() -> Check:
    # in no package repository, so there is no command that would get it
    return _program("Stuff", ("stuff",), "STUFF", "", "the project draws the galaxies of realistic fields itself")


def _sextractor() -> Check:
    names = ("source-extractor", "sex", "sextractor")
    fix = _package("astromatic-source-extractor", "source-extractor")
    return _program("SExtractor", names, "SEXTRACTOR", fix, "SEP stands in for it")


def _psfex() -> Check:
    fix = _package("astromatic-psfex", "psfex")
    return _program("PSFEx", ("psfex",), "PSFEX", fix, "the pages do without it")


def _sdss() -> Check:
    """SDSS files are here already, or can be fetched."""
    from pnet.sdss import files
    from pnet.sdss.manifest import Manifest

    manifest = Manifest.load("sdss-standard")
    root = paths.data_root() / "sdss"
    wanted = [file for file in manifest.files() if file.required]
    here = sum((root / file.path).is_file() for file in wanted)
    if here == len(wanted):
        return Check("SDSS", True, f"all {here} files of the standard manifest are in {root}", required=False)
    why_not = files.obstacle()
    detail = f"{here} of {len(wanted)} files here; "
    if not why_not:
        return Check("SDSS", True, f"{detail}the others are at {files.find_source()}", required=False)
    fix = "make book SDSS_MIRROR=<folder or URL of a sas tree>"
    if os.environ.get("SDSS_MIRROR"):
        fix = "unset SDSS_MIRROR"
    return Check("SDSS", False, f"{detail}{why_not}; pages show the released results", fix, required=False)


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
    return Check("weights", not wrong, "; ".join(wrong or good), "git checkout -- weights" if wrong else "")


def _disk() -> Check:
    free = shutil.disk_usage(paths.ROOT).free / 1e9
    good = free >= DISK
    detail = f"{free:.0f} GB free" + ("" if good else f", {DISK:.0f} GB are needed")
    return Check("disk", good, detail, "" if good else "make clean")


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    good = total >= MEMORY
    fix = "" if good else "make book PROFILE=smoke"
    return Check(
        "memory", good, f"{total:.0f} GB" + ("" if good else f", {MEMORY:.0f} GB are needed"), fix, required=False
    )


CHECKS: tuple[Callable[[], Check], ...] = (
    _python,
    _packages,
    _torch,
    _sky,
    _stuff,
    _sextractor,
    _psfex,
    _sdss,
    _weights,
    _disk,
    _memory,
)
