"""Imports go down the list of rooms only: no arrow upwards, no circle, and none inside a function that dodges one."""

import ast
from pathlib import Path

from pnet.common.rooms import ROOMS, SOURCE

MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}


def room(module: str) -> int:
    """Return the place of a module's room in the order; the studies come last, the bare package first."""
    first, *rest = module.split(".")
    if first == "studies":
        return len(ROOMS)
    return ROOMS.index("cli" if rest[0] == "__main__" or rest[0].startswith("cli") else rest[0]) if rest else -1


def imported(path: Path) -> set[str]:
    """Return the project's modules that a file imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in names]
        found |= {name for name in names if name in MODULES}
    return found


def test_every_module_lives_in_a_room():
    for module in MODULES:
        assert module.split(".")[0] == "studies" or room(module) >= -1


def test_no_import_goes_up():
    upwards = [
        f"{module} → {other}"
        for module, path in MODULES.items()
        for other in imported(path)
        if room(other) > room(module) and module != "pnet"
    ]
    assert upwards == []


def test_no_circle():
    graph = {module: imported(path) for module, path in MODULES.items()}
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way, module))
        if module not in done:
            for other in sorted(graph[module] - {module}):
                walk(other, (*way, module))
            done.add(module)

    for module in graph:
        walk(module, ())
