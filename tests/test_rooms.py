"""Imports go down the list of rooms only: no arrow upwards, no circle, and none inside a function that dodges one."""

import re

from pnet.common import paths
from pnet.common.rooms import ROOMS, imported, modules

MODULES = modules()


def room(module: str) -> int:
    """Return the place of a module's room in the order; the studies come last, the bare package first."""
    first, *rest = module.split(".")
    if first == "studies":
        return len(ROOMS)
    return ROOMS.index("cli" if rest[0] == "__main__" or rest[0].startswith("cli") else rest[0]) if rest else -1


def test_imports_are_absolute():
    relative = [module for module, path in MODULES.items() if "from ." in path.read_text()]
    assert relative == []


def test_every_module_lives_in_a_room():
    for module in MODULES:
        assert module.split(".")[0] == "studies" or room(module) >= -1


def test_no_import_goes_up():
    upwards = [
        f"{module} → {other}"
        for module, path in MODULES.items()
        for other in imported(path.read_text())
        if room(other) > room(module) and module != "pnet"
    ]
    assert upwards == []


def test_no_circle():
    graph = {module: imported(path.read_text()) for module, path in MODULES.items()}
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way, module))
        if module not in done:
            for other in sorted(graph[module] - {module}):
                walk(other, (*way, module))
            done.add(module)

    for module in graph:
        walk(module, ())


def test_the_book_tells_of_every_room():
    told = re.findall(r"^\| `(\w+)/?` \|", (paths.ROOT / "book/library.md").read_text(), re.M)
    assert tuple(told) == ROOMS
