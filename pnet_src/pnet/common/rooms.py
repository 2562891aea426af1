"""The order of the library's rooms, in one place: a module imports from its own room and from those above it in ROOMS.

``tests/test_rooms.py`` holds every import to it, and the Snakefile takes the inputs of its rules from it.
"""

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


def files(room: str) -> list[Path]:
    """Return the Python files of a room of ``pnet``, a folder or a single module, sorted."""
    package = SOURCE / "pnet"
    return sorted([*package.glob(f"{room}.py"), *(package / room).rglob("*.py")])


def code(room: str, *, without: tuple[str, ...] = ()) -> list[Path]:
    """Return the files of a room and of every room above it but those named in `without`: what its results may
    depend on."""
    rooms = ROOMS[: ROOMS.index(room) + 1]
    return [path for name in rooms if name not in without for path in files(name)]
