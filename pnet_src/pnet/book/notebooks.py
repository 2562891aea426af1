"""Notebooks: MyST Markdown is the source, an output-free ``.ipynb`` stands beside it for Colab and Binder.

Reading, parameters, the pair, and what a running notebook calls (`glue`). `pnet.book.runner` runs them.
"""

import ast
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pnet.common import paths
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import atomic_path

if TYPE_CHECKING:
    from nbformat import NotebookNode

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
COLAB_CELL = "_colab_cell.txt"  # the first cell of every notebook, see pnet.book.colab
COLAB_PARAMETERS_CELL = "_colab_parameters_cell.txt"  # the cell after the parameters
# A code cell in MyST: the fence, options in a YAML block or as :option: lines, then the code.
CODE_CELL = re.compile(r"^(`{3,})\{code-cell\}([^\n]*)\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)


def sources(folder: Path | None = None) -> list[Path]:
    """Return the notebooks of the project (``NN_name.md``) in reading order."""
    return sorted((paths.NOTEBOOKS if folder is None else folder).glob("[0-9][0-9]_*.md"))


def find(name: str | os.PathLike, folder: Path | None = None) -> Path:
    """Return the source of a notebook given by path, stem (``05_detection``), number (``05``) or either suffix.

    Raises
    ------
    MissingError
        If there is none, or if more than one matches.
    """
    path = Path(name)
    if path.suffix in (".md", ".ipynb") and path.with_suffix(".md").is_file():
        return path.with_suffix(".md")
    known = sources(folder)
    stem = path.stem if path.suffix in (".md", ".ipynb") else path.name
    matches = [source for source in known if source.stem == stem or source.stem.split("_")[0] == stem]
    if len(matches) == 1:
        return matches[0]
    raise MissingError(
        f"notebook {name}: there is none by this name; the notebooks are {', '.join(source.stem for source in known)}"
    )


def read(path: str | os.PathLike) -> "NotebookNode":
    """Read a notebook from its MyST source, with cell ids that follow from the content.

    Raises
    ------
    MissingError
        If the file is not there.
    DataError
        If it cannot be parsed.
    """
    import jupytext

    path = Path(path)
    if not path.is_file():
        raise MissingError(f"{path}: no such notebook")
    try:
        notebook = jupytext.read(path)
    except Exception as error:  # jupytext raises whatever its YAML and Markdown parsers do
        raise DataError(f"{path}: cannot be read as a MyST notebook: {error}") from error
    return _as_notebook(notebook)


def _as_notebook(notebook: "NotebookNode") -> "NotebookNode":
    """Give a notebook that jupytext read the format with ids, the kernel and the ids."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata["kernelspec"] = dict(KERNEL)  # jupytext leaves the name out where the header does
    set_ids(notebook)
    return notebook


def set_ids(notebook: "NotebookNode") -> None:
    """Give every cell an id made of its source, so that the same notebook has the same ids everywhere."""
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a notebook: its default and the types it may have."""

    name: str
    default: Any
    types: tuple[type, ...]

    def check(self, value: Any, where: str) -> Any:
        """Return `value` in the parameter's type, an int as float where a float is asked for.

        Raises
        ------
        ConfigError
            If it has another type.
        """
        if type(value) in self.types:
            return value
        if isinstance(value, int) and not isinstance(value, bool) and float in self.types:
            return float(value)
        allowed = " or ".join("None" if kind is type(None) else kind.__name__ for kind in self.types)
        raise ConfigError(f"{where}: parameter {self.name} is {value!r}, it must be of type {allowed}")

    def parse(self, text: str, where: str) -> Any:
        """Return the value that `text` of a command line stands for."""
        if text == "None" and type(None) in self.types:
            return None
        if str in self.types:
            return text
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = {"true": True, "false": False}.get(text, text)
        return self.check(value, where)


def parameters(notebook: "NotebookNode", where: str) -> dict[str, Parameter]:
    """Return the parameters of a notebook, read from its cell tagged ``parameters``.

    The type of a parameter is its annotation (``int``, ``str | None``, ...) or, without one, that of its default.

    Raises
    ------
    ConfigError
        If the cell is missing or holds anything but assignments of literals: papermill appends the values
        given after this cell, so that what is computed in it would not be computed again.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1 or cells[0].cell_type != "code":
        raise ConfigError(f"{where}: one code cell tagged 'parameters' is needed, there are {len(cells)}")
    found = {}
    for node in ast.parse(cells[0].source).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a string that explains
        target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        target = node.target if isinstance(node, ast.AnnAssign) else target
        if not isinstance(target, ast.Name) or node.value is None:
            raise ConfigError(f"{where}: the parameters cell may hold only 'name = literal', not: {ast.unparse(node)}")
        try:
            default = ast.literal_eval(node.value)
        except ValueError as error:
            raise ConfigError(f"{where}: parameter {target.id} must be a literal, not: {ast.unparse(node)}") from error
        types = _annotated(node.annotation, where) if isinstance(node, ast.AnnAssign) else (type(default),)
        found[target.id] = Parameter(target.id, default, types)
    return found


def _annotated(node: ast.expr, where: str) -> tuple[type, ...]:
    """Return the types of an annotation made of built-in types, ``None`` and ``|``."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _annotated(node.left, where) + _annotated(node.right, where)
    if isinstance(node, ast.Subscript):  # list[int]: the elements are the notebook's affair
        return _annotated(node.value, where)
    if isinstance(node, ast.Constant) and node.value is None:
        return (type(None),)
    known = {kind.__name__: kind for kind in (bool, int, float, str, list, tuple, dict)}
    if isinstance(node, ast.Name) and node.id in known:
        return (known[node.id],)
    raise ConfigError(f"{where}: a parameter's type must be one of {', '.join(known)}, not: {ast.unparse(node)}")


def resolve(notebook: "NotebookNode", given: dict[str, Any], where: str) -> dict[str, Any]:
    """Return `given` checked against the notebook's parameters, ready for papermill.

    Raises
    ------
    ConfigError
        For a parameter that the notebook does not have (papermill would only warn), or one of another type.
    """
    known = parameters(notebook, where)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(
            f"{where}: parameter {', '.join(unknown)} is not known; its parameters are {', '.join(sorted(known))}"
        )
    return {name: known[name].check(value, where) for name, value in given.items()}


def with_colab_cells(text: str, stem: str, folder: Path | None = None) -> str:
    """Return the MyST text of a notebook with its two cells for Colab: the first one, and one after the parameters.

    Cells of an earlier version are replaced (their first line tells them); nothing else is touched.
    """
    folder = paths.NOTEBOOKS if folder is None else folder
    start = (folder / COLAB_CELL).read_text().rstrip("\n")
    after = (folder / COLAB_PARAMETERS_CELL).read_text().rstrip("\n").replace("{stem}", stem)
    for code in (start, after):
        head = code.splitlines()[0]
        for match in reversed(list(CODE_CELL.finditer(text))):
            if head in match.group(3).splitlines():
                text = text[: match.start()] + text[match.end() :].lstrip("\n")
    cells = list(CODE_CELL.finditer(text))
    marked = [match for match in cells if re.search(r"tags:.*\bparameters\b|^\s*- parameters$", match.group(3), re.M)]
    for place, code in ((marked[0].end() if marked else None, after), (cells[0].start() if cells else None, start)):
        if place is not None:
            # the language's name must be the same in all cells
            block = f"```{{code-cell}}{cells[0].group(2)}\n:tags: [remove-cell]\n\n{code}\n```"
            text = text[:place].rstrip("\n") + f"\n\n{block}\n\n" + text[place:].lstrip("\n")
    return text


def pair(path: Path, *, check: bool = False) -> bool:
    """Put the cells for Colab into a MyST notebook and write its output-free ``.ipynb`` beside it.

    Parameters
    ----------
    path : Path
        The ``.md``.
    check : bool
        Only look, write nothing.

    Returns
    -------
    bool
        Whether both files had been in step already.
    """
    import jupytext
    import nbformat

    text = with_colab_cells(path.read_text(), path.stem, path.parent)
    notebook = _as_notebook(jupytext.reads(text, fmt="md:myst"))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell["outputs"], cell["execution_count"] = [], None
    # What the MyST header tells of its own file format, and by which version, does not belong into the other file.
    notebook.metadata["jupytext"] = {"formats": "md:myst,ipynb"}
    notebook.metadata["language_info"] = {"name": "python"}
    wanted = {path: text, path.with_suffix(".ipynb"): nbformat.writes(notebook) + "\n"}
    in_step = all(file.is_file() and file.read_text() == content for file, content in wanted.items())
    if not check and not in_step:
        for file, content in wanted.items():
            with atomic_path(file) as temporary:
                temporary.write_text(content)
    return in_step


def glue(name: str, value: float | int | str | None) -> None:
    """Store a number under `name` for the prose of any page: ``{glue:text}`notebooks/05_x.ipynb::name:.3f` ``.

    NumPy scalars become Python's, as formats fail on them; None becomes NaN. Where myst_nb is not
    installed (Colab), nothing happens: the pages are built elsewhere.
    """
    try:
        from myst_nb import glue as store
    except ImportError:
        return
    if hasattr(value, "item"):
        value = value.item()
    store(name, float("nan") if value is None else value, display=False)
