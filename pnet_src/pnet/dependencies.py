"""Which files of the project a notebook or a module depends on: its import closure, for freshness."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

from pnet import paths
from pnet.notebooks import CODE_CELL

PACKAGE = Path(__file__).parent


def closure(*starts: str | Path, package: Path = PACKAGE, manifests: Path | None = None) -> list[Path]:
    """Return the project files that `starts` depend on, themselves included.

    Imports are followed through the package wherever they stand, inside functions too. A file in
    `data_manifests` belongs to the closure if a module names it (with or without its suffix) in a string.

    Parameters
    ----------
    starts : str or Path
        A notebook (``.md``), a Python file, or the dotted name of a module such as ``pnet.simulation``.
    package : Path
        Folder of the package ``pnet``.
    manifests : Path, optional
        Folder of the manifests, by default that of the project.

    Returns
    -------
    list of Path
        Sorted.

    Raises
    ------
    FileNotFoundError
        If a start does not exist.
    """
    manifests = paths.MANIFESTS if manifests is None else manifests
    named = {}
    for path in sorted(manifests.glob("*")):
        if path.is_file():
            named[path.name] = path
            named.setdefault(path.stem, path)
    found: set[Path] = set()
    todo: list[Path] = []
    for start in starts:
        dotted = isinstance(start, str) and Path(start).suffix not in (".md", ".py")
        path = _module_file(start, package) if dotted else Path(start)
        if path is None or not path.is_file():
            raise FileNotFoundError(f"{start}: no such notebook or module")
        todo.append(path)
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        tree = ast.parse(_code(path), filename=str(path))
        todo += [file for name in _imports(tree, path, package) for file in _files(name, package)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in named:
                found.add(named[node.value])
    return sorted(found)


def _code(path: Path) -> str:
    """Return the Python code of a module or of a notebook's code cells, without IPython's magics."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".md":
        return text
    lines: list[str] = []
    for match in CODE_CELL.finditer(text):
        body = match.group(3)
        if body.startswith("---\n"):
            body = body.partition("\n---\n")[2]
        if "\n# Set-up. On Google Colab" in f"\n{body}":
            continue  # the same in every notebook, and nothing that a result depends on
        lines += [line for line in body.splitlines() if not re.match(r"\s*([%!]|:[\w-]+:)", line)]
    return "\n".join(lines) + "\n"


def _imports(tree: ast.AST, path: Path, package: Path) -> Iterable[str]:
    """Yield the dotted names below ``pnet`` that a tree may import; some may be attributes, not modules."""
    here = ["pnet", *path.relative_to(package).parent.parts] if path.is_relative_to(package) else []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "pnet")
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                base = here[: len(here) - node.level + 1] + base
            if base[:1] == ["pnet"]:
                yield ".".join(base)
                yield from (".".join([*base, alias.name]) for alias in node.names)


def _files(name: str, package: Path) -> Iterable[Path]:
    """Yield the file of a module and those of the packages above it, as importing it runs them all."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = _module_file(".".join(parts[:end]), package)
        if path is not None:
            yield path


def _module_file(name: str, package: Path) -> Path | None:
    """Return the file of a module below ``pnet``, or None where there is none by that name."""
    base = package.joinpath(*name.split(".")[1:])
    for path in (base.with_name(base.name + ".py") if base != package else base / "__init__.py", base / "__init__.py"):
        if path.is_file():
            return path
    return None
