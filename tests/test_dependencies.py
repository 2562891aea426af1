"""Import closures: what a change makes out of date."""

import pytest
from notebook_files import write_notebook

from pnet import dependencies, paths
from pnet.notebooks import sources


@pytest.fixture
def package(tmp_path):
    """A small package with a lazy import, a relative one, a subpackage, a cycle, and a manifest that is named."""
    files = {
        "__init__.py": "",
        "a.py": "from pnet import b\nimport numpy\n",
        "b.py": "def f():\n    from pnet.sub import c\n",
        "sub/__init__.py": "",
        "sub/c.py": "from ..d import thing\nfrom . import e\n",
        "sub/e.py": "import pnet.a\n",
        "d.py": 'thing = "recipe.yml"\n',
        "lonely.py": "from pnet import a\n",
    }
    for name, text in files.items():
        path = tmp_path / "pnet" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "manifests").mkdir()
    for name in ("recipe.yml", "other.yml"):
        (tmp_path / "manifests" / name).write_text("")
    return tmp_path / "pnet"


def names(paths_, package):
    return sorted(str(path.relative_to(package.parent)) for path in paths_)


def test_imports_are_followed_wherever_they_stand(package):
    found = dependencies.closure("pnet.a", package=package, manifests=package.parent / "manifests")
    assert names(found, package) == [
        "manifests/recipe.yml",
        "pnet/__init__.py",
        "pnet/a.py",
        "pnet/b.py",
        "pnet/d.py",
        "pnet/sub/__init__.py",
        "pnet/sub/c.py",
        "pnet/sub/e.py",
    ]
    assert names(dependencies.closure("pnet.d", package=package), package)[-1] == "pnet/d.py"


def test_a_notebook_depends_on_itself_and_its_imports(package):
    body = "```{code-cell} python\n%matplotlib inline\nfrom pnet import (\n    d,\n)\n!ls\n```\n"
    path = write_notebook(package.parent, body=body)
    found = dependencies.closure(path, package=package, manifests=package.parent / "manifests")
    assert names(found, package) == ["manifests/recipe.yml", "notebooks/01_chapter.md", "pnet/__init__.py", "pnet/d.py"]


def test_cells_with_options_in_yaml_are_read(package):
    body = "```{code-cell} python\n---\nmystnb:\n  alt: from pnet import lonely\n---\nfrom pnet import d\n```\n"
    path = write_notebook(package.parent, body=body)
    assert "pnet/d.py" in names(dependencies.closure(path, package=package), package)
    assert "pnet/lonely.py" not in names(dependencies.closure(path, package=package), package)


def test_unknown_starts_are_refused(package):
    with pytest.raises(FileNotFoundError, match=r"pnet\.nothing"):
        dependencies.closure("pnet.nothing", package=package)
    with pytest.raises(FileNotFoundError, match="09_none"):
        dependencies.closure(package / "09_none.md", package=package)


def test_figures_do_not_lead_to_new_measurements():
    """The point of it all: a change of a figure's code must not train or measure again."""
    for step in ("pnet.evaluation", "pnet.training", "pnet.fields", "pnet.manifest"):
        closure = dependencies.closure(step, manifests=paths.ROOT / "none")
        reached = {path.relative_to(dependencies.PACKAGE).parts[0] for path in closure}
        assert not reached & {"figures", "tables.py", "book.py", "cli.py", "steps.py", "workflow.py"}, step


def test_every_notebook_has_a_closure_of_its_own():
    found = {path.stem: set(dependencies.closure(path)) for path in sources()}
    for stem, closure in found.items():
        assert (paths.NOTEBOOKS / f"{stem}.md").resolve() in {path.resolve() for path in closure}
    photometry = paths.ROOT / "pnet_src/pnet/figures/photometry.py"
    assert photometry in found["06_photometry_astrometry"]
    assert photometry not in found["05_detection"]
