"""Reading, pairing, parameters and running of notebooks."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from notebook_files import BODY, own_project, write_notebook, write_profile

from pnet.book import colab, execute, notebooks, profiles
from pnet.common import paths
from pnet.common.errors import ConfigError, DataError, MissingError

ROOT = paths.ROOT


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project that the runner takes for its own."""
    return own_project(tmp_path, monkeypatch)


# Reading


def test_ids_follow_from_the_content_and_are_all_different(tmp_path):
    first, second = (notebooks.read(write_notebook(tmp_path / name)) for name in "ab")
    ids = [cell.id for cell in first.cells]
    assert ids == [cell.id for cell in second.cells] and len(set(ids)) == len(ids)
    changed = notebooks.read(write_notebook(tmp_path / "c", body=BODY.replace("2 * scale", "3 * scale")))
    assert [a == b.id for a, b in zip(ids, changed.cells, strict=True)] == [True] * 4 + [False]
    equal = notebooks.read(write_notebook(tmp_path / "d", body="```{code-cell} python\nx = 1\n```\n\n" * 3))
    assert len({cell.id for cell in equal.cells}) == 6


def test_missing_and_broken_files_are_named(tmp_path, project):
    path = write_notebook(project, "05_detection")
    for name in ("05", "05_detection", "05_detection.ipynb", path, path.with_suffix(".ipynb")):
        assert notebooks.find(name) == path
    with pytest.raises(MissingError, match="06.*the notebooks are 05_detection"):
        notebooks.find("06")
    with pytest.raises(MissingError, match="01_none.md"):
        notebooks.read(tmp_path / "01_none.md")
    broken = tmp_path / "01_broken.md"
    broken.write_text("---\njupytext: [\n---\n")
    with pytest.raises(DataError, match="01_broken.md"):
        notebooks.read(broken)


# Parameters


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"scale": 2}, 2.0), ({"scale": "2"}, 2.0),
        ({"fast": "true"}, True), ({"seed": "7"}, 7), ({"profile": "7"}, "7"),
    ],
)  # fmt: skip
def test_values_take_the_parameters_type(tmp_path, given, value):
    (result,) = notebooks.parameters(notebooks.read(write_notebook(tmp_path)), given, "here").values()
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sclae": 2.0}, "here: parameter sclae is not known; its parameters are fast, output, profile, scale, seed"),
        ({"scale": "wide"}, "here: parameter scale is 'wide', it must be of type float"),
        ({"seed": 1.0}, "seed is 1.0, it must be of type int"),
        ({"seed": True}, "seed is True"),
        ({"fast": "maybe"}, "fast is 'maybe', it must be of type bool"),
    ],
)
def test_wrong_values_are_refused(tmp_path, given, message):
    with pytest.raises(ConfigError, match=message):
        notebooks.parameters(notebooks.read(write_notebook(tmp_path)), given, "here")


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda path: path.stem)
def test_parameters_of_the_projects_notebooks_are_literals_with_types(source):
    """papermill appends the values given after this cell: what is computed in it would not be computed again."""
    (cell,) = [cell for cell in notebooks.read(source).cells if "parameters" in cell.metadata.get("tags", [])]
    for node in ast.parse(cell.source).body:
        assert isinstance(node, ast.AnnAssign), ast.unparse(node)
        ast.literal_eval(node.value)


# Pairs


def test_pair_is_free_of_outputs_and_stable(tmp_path):
    path = write_notebook(tmp_path)
    assert not notebooks.pair(path, check=True) and not path.with_suffix(".ipynb").exists()
    assert not notebooks.pair(path)
    assert notebooks.pair(path, check=True)
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"
    # the set-up cell comes first, the one for Colab's parameters right after the parameters
    assert '"google.colab" in sys.modules' in code[0].source
    marked = [number for number, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])]
    assert marked == [1] and 'colab.parameters("01_chapter")' in code[2].source


def test_either_file_or_a_set_up_cell_changed_is_out_of_step(tmp_path):
    path = write_notebook(tmp_path)
    for file, old, new in ((path, "A chapter", "More words"), (path.with_suffix(".ipynb"), "More words", "Others")):
        notebooks.pair(path)
        file.write_text(file.read_text().replace(old, new))
        assert not notebooks.pair(path, check=True)
    cell = path.parent / notebooks.COLAB_CELLS[0]
    cell.write_text(cell.read_text().replace("v0.1.0", "v0.2.0"))
    assert not notebooks.pair(path)
    for file in (path, path.with_suffix(".ipynb")):
        text = file.read_text()
        assert text.count("v0.2.0") == 1 and "v0.1.0" not in text and text.count("colab.parameters") == 1
    path.write_text(path.read_text().replace("# Set-up", "# Start"))
    with pytest.raises(ConfigError, match=r"01_chapter.md: must hold the code of _colab_cell.txt"):
        notebooks.pair(path)


def test_the_projects_pairs_are_in_step():
    behind = [path.stem for path in notebooks.sources() if not notebooks.pair(path, check=True)]
    assert not behind, f"`make notebooks` mends {', '.join(behind)}"


# Running


def test_run_injects_parameters_and_leaves_no_trace_of_when(project):
    path = write_notebook(project)
    profile = profiles.Profile("mine", {"seed": 7})
    with pytest.raises(ConfigError, match="sclae"):
        execute.run(path, profile=profile, overrides={"sclae": "4"})
    assert not (project / "build").exists(), "wrong parameters stop before anything runs"
    target = execute.run(path, profile=profile, overrides={"scale": "4"})
    assert target == project / "build/mine/notebooks/01_chapter.ipynb"
    first = target.read_text()
    notebook = nbformat.reads(first, as_version=4)
    nbformat.validate(notebook)
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    printed = "".join(out.text for out in outputs if "text" in out)
    assert printed == "mine 7 4.0 False <object object at 0x…>\n"
    injected = [cell for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert len(injected) == 1 and "remove-input" in injected[0].metadata.tags
    assert "papermill" not in notebook.metadata and not any("papermill" in cell.metadata for cell in notebook.cells)
    assert str(project) not in first
    assert execute.run(path, profile=profile, overrides={"scale": "4"}).read_text() == first
    glued = [out for out in outputs if "scrapbook" in out.get("metadata", {})]
    assert glued[0]["data"]["application/papermill.record/text/plain"] == "8.0"
    # nothing of the kernel's is left in the working folder
    assert sorted(item.name for item in project.iterdir()) == ["build", "notebooks"]


def test_a_failing_cell_leaves_nothing_to_publish(project):
    cell = "```{{code-cell}} python\n{}\n```\n"
    profile = profiles.Profile("mine")
    target = execute.run(write_notebook(project), profile=profile)
    path = write_notebook(project, body=cell.format('raise OSError(f"frame {seed} is torn")'))
    told = r"01_chapter failed.*failed/01_chapter.ipynb(?s:.*)frame 2023 is torn"
    with pytest.raises(execute.NotebookError, match=told):
        execute.run(path, profile=profile)
    assert not target.exists(), "the copy of the earlier run would pass for this one's"
    assert (project / "build/mine/failed/01_chapter.ipynb").is_file()
    write_notebook(project, body=cell.format("import os\n\nos._exit(3)"))
    with pytest.raises(execute.NotebookError, match="kernel died"):
        execute.run(path, profile=profile)
    write_notebook(project, body=cell.format('import warnings\n\nwarnings.warn("old way")\nprint("fine")'))
    execute.run(path, profile=profile)
    assert not (project / "build/mine/failed/01_chapter.ipynb").exists()
    assert "UserWarning: old way" in target.read_text()


def test_two_runs_side_by_side(tmp_path):
    stems = ("01_first", "02_second")
    for stem in stems:
        write_notebook(tmp_path, stem)
    write_profile(tmp_path, "mine", "")
    (tmp_path / "data_manifests").mkdir()
    environment = {**os.environ, "PNET_ROOT": str(tmp_path), "PYTHONPATH": str(ROOT / "pnet_src")}
    command = [sys.executable, "-m", "pnet", "run", "--profile", "mine"]
    options = {"env": environment, "cwd": tmp_path, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen([*command, stem], **options) for stem in stems]
    for running in runs:
        _, errors = running.communicate(timeout=120)
        assert running.returncode == 0, errors
    assert len(list((tmp_path / "build/mine/notebooks").glob("*.ipynb"))) == 2


# Colab


def test_colab_installs_only_what_is_missing_and_takes_the_parameters_of_the_profile(project, monkeypatch, capsys):
    assert colab.missing(["numpy>=1", "no-such-package>=2", "torch"]) == ["no-such-package>=2"]
    commands = []

    def install(command, check):
        commands.append((command, Path(command[-2]).read_text()))

    monkeypatch.setattr(colab.subprocess, "run", install)
    monkeypatch.setattr(colab, "missing", lambda _: ["sep>=1.4"])
    monkeypatch.setenv("PNET_PROFILE", "smoke")
    shutil.copyfile(ROOT / "pyproject.toml", project / "pyproject.toml")
    colab.prepare()
    ((command, constraints),) = commands
    assert command[-3] == "--constraint" and command[-1] == "sep>=1.4" and "torch==" in constraints
    assert "profile smoke" in capsys.readouterr().out
    write_profile(project, "big", "common: {seed: 7}\n")
    monkeypatch.setenv("PNET_PROFILE", "big")
    assert colab.parameters("01_chapter") == {"seed": 7, "profile": "big", "output": "build/big"}
    assert colab.choose()[0] == "big"
