"""The website: prose pages and executed notebooks put together and built with Jupyter Book, warnings being errors."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pnet.book import tables
from pnet.common import paths
from pnet.common.errors import DataError, MissingError, PNetError

# What a browser fetches from elsewhere to show a page; links to follow are no matter.
_ELSEWHERE = r"""["']?(?:https?:)?//[^"')\s>]+"""
_LINKED = r"(?=[^>]*\srel=.?(?:stylesheet|preload|modulepreload|(?:shortcut )?icon)\b)"
OUTSIDE = {
    ".html": rf"<(?:(?:script|img|iframe|source|video)\b[^>]*\ssrc=|link\b{_LINKED}[^>]*\shref=){_ELSEWHERE}",
    ".css": rf"(?:url\(\s*|@import\s+){_ELSEWHERE}",
}


class BookError(PNetError, RuntimeError):
    """The pages could not be built without a warning."""


def pages(toc: Path | None = None) -> list[str]:
    """Return the pages of the table of contents in reading order, without suffix (``notebooks/05_detection``)."""

    def walk(node: Any) -> Iterator[str]:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if key in ("root", "file"):
                yield value
            elif isinstance(value, dict | list):
                yield from walk(value)

    return list(walk(yaml.safe_load((toc or paths.ROOT / "_toc.yml").read_text())))


def stage(output: Path, *, strict: bool = False) -> Path:
    """Collect what the site is made of in ``<output>/stage`` and return that folder.

    A page keeps its path in the repository, so that the buttons for Colab and Binder find the notebook.

    Parameters
    ----------
    output : Path
        Folder of a profile, holding executed notebooks.
    strict : bool
        Refuse notebooks that wrote to standard error.

    Raises
    ------
    MissingError
        If a notebook of the table of contents was not run.
    BookError
        If a notebook holds an error or, with `strict`, a warning.
    """
    import nbformat

    folder = output / "stage"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for page in pages():
        target = folder / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if not page.startswith("notebooks/"):
            shutil.copyfile(paths.ROOT / f"{page}.md", target.with_name(target.name + ".md"))
            continue
        executed, command = output / f"{page}.ipynb", f"`python -m pnet run {target.name}`"
        if not executed.is_file():
            raise MissingError(f"{executed}: this notebook was not run; {command} does")
        cells = nbformat.read(executed, as_version=4).cells
        outputs = [out for cell in cells for out in cell.get("outputs", [])]
        if any(out.output_type == "error" for out in outputs):
            raise BookError(f"{executed}: holds an error; {command} runs it again")
        warnings = [out["text"].strip() for out in outputs if out.get("name") == "stderr"]
        if warnings and strict:
            raise BookError(f"{executed}: wrote to standard error:\n" + "\n".join(warnings))
        shutil.copyfile(executed, target.with_name(target.name + ".ipynb"))
    shutil.copytree(paths.ROOT / "book/static", folder / "book/static")
    for name in ("_static", "generated"):
        (folder / name).mkdir()
    shutil.copyfile(paths.ROOT / "book/static/pnet.css", folder / "_static/pnet.css")  # found by its place
    for name in ("_config.yml", "_toc.yml", "book/references.bib"):
        shutil.copyfile(paths.ROOT / name, folder / name)
    for name, table in tables.PAGES.items():  # what the prose includes and no notebook computes
        (folder / f"generated/{name}.md").write_text(table(output))
    return folder


def build(output: Path, *, strict: bool = False) -> Path:
    """Build the site of a profile in ``<output>/site`` and return its first page.

    Raises
    ------
    BookError
        If Sphinx warns about anything (``-W``); the message holds the warnings, the log stays in ``<output>``.
    DataError
        If a page would need the network to be read.
    """
    staged = stage(output, strict=strict)
    with tempfile.TemporaryDirectory(dir=output, prefix=".site-") as folder:
        # in a process of its own, as Sphinx changes much of the one it runs in; anew, as incremental builds
        # leave pages stale that paste numbers of others
        command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(staged)]
        command += ["--path-output", folder, "-W", "--keep-going"]
        plain = {**os.environ, "PYTHONWARNINGS": "ignore", "TERM": "dumb", "NO_COLOR": "1"}
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(command, cwd=output, env=plain, text=True, **streams)
        log = done.stdout.replace(str(staged) + os.sep, "")
        (output / "site.log").write_text(log)
        html = Path(folder) / "_build" / "html"
        if done.returncode or not (html / "index.html").is_file():
            lines = [line for line in log.splitlines() if "WARNING" in line or "ERROR" in line]
            raise BookError("the site could not be built:\n" + "\n".join(lines or log.splitlines()[-30:]))
        if outside := external_resources(html):
            raise DataError("pages would need the network to be read:\n" + "\n".join(outside))
        site = output / "site"
        shutil.rmtree(site, ignore_errors=True)
        os.replace(html, site)
    return site / "index.html"


def external_resources(site: Path) -> list[str]:
    """Return the scripts, styles, images and fonts that pages of `site` would load over the network."""
    return [
        f"{path.relative_to(site)}: {found[0]}"
        for path in sorted(site.rglob("*"))
        if path.suffix in OUTSIDE
        for found in re.finditer(OUTSIDE[path.suffix], path.read_text(encoding="utf-8", errors="replace"))
    ]
