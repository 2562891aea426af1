"""A small project with one notebook, written by the tests that need one."""

import shutil
from pathlib import Path

from pnet.book.notebooks import COLAB_CELLS
from pnet.common import paths

TEMPLATES = paths.NOTEBOOKS  # tests put their own folder in its place

HEADER = """---
jupytext:
  formats: md:myst,ipynb
  text_representation: {extension: .md, format_name: myst}
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

"""

PARAMETERS = """```{code-cell} python
:tags: [parameters]

profile: str = "standard"
seed: int = 2023
output: str = "build/standard"
scale: float = 1.5
fast: bool = False
```

"""

BODY = """# A chapter

The mean is {glue:text}`mean:.2f`.

```{code-cell} python
from pnet.book.notebooks import glue

print(profile, seed, scale, fast, object())
glue("mean", 2 * scale)
```
"""


def write_notebook(folder: Path, stem: str = "01_chapter", body: str = BODY, parameters: str = PARAMETERS) -> Path:
    """Write a notebook, and the cells for Colab, into ``<folder>/notebooks`` and return its path."""
    notebooks = folder / "notebooks"
    (notebooks / "profiles").mkdir(parents=True, exist_ok=True)
    for cell in TEMPLATES.glob("_colab*.txt"):
        shutil.copyfile(cell, notebooks / cell.name)
    path = notebooks / f"{stem}.md"
    start, after = (
        f"```{{code-cell}} python\n:tags: [remove-cell]\n\n{(notebooks / cell).read_text().rstrip()}\n```\n\n"
        for cell in COLAB_CELLS
    )
    path.write_text(HEADER + start + parameters + after.replace("{stem}", stem) + body)
    return path


def own_project(folder: Path, monkeypatch) -> Path:
    """Make an empty folder the project, for the length of a test."""
    for name in ("NOTEBOOKS", "PROFILES", "WEIGHTS", "RESULTS", "ROOT"):
        monkeypatch.setattr(paths, name, folder / getattr(paths, name).relative_to(paths.ROOT))
    return folder


def write_profile(folder: Path, name: str, text: str) -> Path:
    """Write ``<folder>/notebooks/profiles/<name>.yml``."""
    path = folder / "notebooks" / "profiles" / f"{name}.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
