"""Notebooks: MyST Markdown is the source; jupytext writes an output-free ``.ipynb`` beside it for Colab and Binder.

Reading, parameters, the pair, and what a running notebook calls (`glue`). `pnet.book.execute` runs them.
"""

import ast
import contextlib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pnet.common import paths
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from nbformat import NotebookNode

# The code of the set-up cells of every notebook (pnet.book.colab): the first one and the one after the parameters.
COLAB_CELLS = ("_colab_cell.txt", "_colab_parameters_cell.txt")


def sources() -> list[Path]:
    """Return the notebooks of the project (``NN_name.md``) in reading order."""
    return sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.md"))


def find(name: str | os.PathLike) -> Path:
    """Return the source of a notebook given by path, stem (``05_detection``), number (``05``) or either suffix.

    A MissingError if there is none, or if more than one matches.
    """
    path = Path(name)
    if path.suffix in (".md", ".ipynb") and path.with_suffix(".md").is_file():
        return path.with_suffix(".md")
    matches = [source for source in sources() if path.stem in (source.stem, source.stem.partition("_")[0])]
    if len(matches) == 1:
        return matches[0]
    stems = ", ".join(source.stem for source in sources())
    raise MissingError(f"notebook {name}: there is none by this name; the notebooks are {stems}")


def read(path: str | os.PathLike) -> "NotebookNode":
    """Read a notebook from its MyST source, with cell ids that follow from the content.

    A MissingError if the file is not there, a DataError if it cannot be parsed.
    """
    import jupytext

    try:
        notebook = jupytext.read(path)
    except FileNotFoundError as error:
        raise MissingError(f"{path}: no such notebook") from error
    except Exception as error:  # jupytext raises whatever its YAML and Markdown parsers do
        raise DataError(f"{path}: cannot be read as a MyST notebook: {error}") from error
    set_ids(notebook)
    return notebook


def set_ids(notebook: "NotebookNode") -> None:
    """Give every cell an id made of its source, so that the same notebook has the same ids everywhere."""
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def parameters(notebook: "NotebookNode", given: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the values for a notebook's parameters (its cell tagged ``parameters``), checked and ready for papermill.

    Parameters
    ----------
    given : dict
        Values by name; text for a parameter of another type, as a command line gives it, is read as a literal.
    where : str
        What errors name.

    Raises
    ------
    ConfigError
        For a parameter that the notebook does not have (papermill would only warn) or a value of another type than the
        parameter's annotation names (``int``, ``list[str]``; an int serves as float).
    """
    import papermill

    known = {name: item["inferred_type_name"] for name, item in papermill.inspect_notebook(notebook).items()}
    if unknown := ", ".join(sorted(set(given) - set(known))):
        raise ConfigError(f"{where}: parameter {unknown} is not known; its parameters are {', '.join(sorted(known))}")
    values = {}
    for name, value in given.items():
        wanted = known[name].partition("[")[0]
        if isinstance(value, str) and wanted != "str":
            with contextlib.suppress(ValueError, SyntaxError):
                value = ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
        values[name] = float(value) if type(value) is int and wanted == "float" else value
        if type(values[name]).__name__ != wanted:
            raise ConfigError(f"{where}: parameter {name} is {value!r}, it must be of type {wanted}")
    return values


def pair(path: Path, *, check: bool = False) -> bool:
    """Bring the set-up cells of a MyST notebook up to date and write its output-free ``.ipynb`` beside it.

    Returns whether both files had been in step already; with `check`, nothing is written. A ConfigError if the notebook
    lacks one of the two set-up cells.
    """
    import jupytext

    text = path.read_text()
    for name in COLAB_CELLS:
        code = (path.parent / name).read_text().rstrip("\n").replace("{stem}", path.stem)
        old = re.compile(re.escape(code.splitlines()[0]) + r".*?(?=\n```$)", re.DOTALL | re.MULTILINE)
        if len(old.findall(text)) != 1:
            raise ConfigError(f"{path}: must hold the code of {name} in one cell of its own, tagged remove-cell")
        text = old.sub(lambda _, code=code: code, text)
    notebook = jupytext.reads(text, fmt="md:myst")
    set_ids(notebook)
    wanted = {path: text, path.with_suffix(".ipynb"): jupytext.writes(notebook, fmt="ipynb") + "\n"}
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
    with contextlib.suppress(ImportError):
        from myst_nb import glue as store

        value = getattr(value, "item", lambda: value)()
        store(name, float("nan") if value is None else value, display=False)


def live(draw: Callable[["pd.DataFrame"], "Figure"]) -> Callable[[list[dict]], None]:
    """Return what `pnet.training.fit.fit` calls after every epoch (`on_epoch`) so that a cell's curve grows.

    `draw` makes a figure of the history so far, one row an epoch.
    """
    import io

    import pandas as pd
    from IPython.display import Image, display

    shown: list[Any] = []  # the cell's one picture; none where a finished run is not repeated

    def update(history: list[dict]) -> None:
        picture = io.BytesIO()
        draw(pd.DataFrame(history)).savefig(picture, format="png", dpi=100)
        image = Image(picture.getvalue())
        if shown:
            shown[0].update(image)
        else:
            shown.append(display(image, display_id=True))

    return update
