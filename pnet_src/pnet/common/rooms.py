"""The order of the library's rooms, in one place: a module imports from its own room and from those above it in ROOMS.

``tests/test_rooms.py`` holds every import to it, and the Snakefile takes the inputs of its rules from it.
"""

import ast
import functools
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]  # pnet_src
ROOMS = (
    "common",
    "frame",
    "sky",
    "simulation",
    "sdss",
    "detection",
    "stars",
    "measure",
    "training",
    "evaluation",
    "book",
    "cli",
)


def code(room: str, *, without: tuple[str, ...] = ()) -> list[Path]:
    """Return the files of a room and of every room above it but those named in `without`: what its results may
    depend on."""
    package, names = SOURCE / "pnet", [name for name in ROOMS[: ROOMS.index(room) + 1] if name not in without]
    return [path for name in names for path in sorted([*package.glob(f"{name}.py"), *(package / name).rglob("*.py")])]


@functools.cache
def modules() -> dict[str, Path]:
    """Return every module of ``pnet`` and ``studies``, dotted name → file; a package goes by its bare name."""
    return {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(SOURCE.rglob("*.py"))
    }


@functools.cache
def imported(code: str) -> frozenset[str]:
    """Return the project's modules that Python code imports anywhere, inside functions too."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in known else str(node.module) for name in names}
    return frozenset(found & set(known))


def reached(code: str) -> dict[str, Path]:
    """Return the project's modules that Python code imports, with those that these import, and so on."""
    known, found, open_ = modules(), {}, set(imported(code))
    while open_:
        name = open_.pop()
        found[name] = known[name]
        open_ |= imported(known[name].read_text()) - set(found)
    return found
