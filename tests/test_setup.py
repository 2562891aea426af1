"""The three lists of packages agree; what names the release and the repository agrees; files that must be there are."""

import ast
import importlib.metadata as metadata
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pnet.book import notebooks
from pnet.common import paths

ROOT = paths.ROOT
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GROUPS = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
REQUIREMENTS = {
    canonicalize_name(requirement.name): requirement for group in GROUPS for requirement in map(Requirement, group)
}
# conda-forge's names where they differ from PyPI's
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "seaborn": "seaborn-base"}
GPU = ("nvidia", "cuda", "triton")
LEFT_OUT = {"torchvision", "tensorboard"}  # bayesian-torch lists them and never imports them
NOT_IMPORTED = {  # declared for what they do without being imported
    "ipykernel": "runs the notebooks",
    "jinja2": "pandas' Styler",
    "jupyter-book": "a process of its own",
    "pyarrow": "pandas' Parquet files",
    "pytest-xdist": "make test",
    "ruff": "make lint",
    "snakemake": "a process of its own",
    "sphinx-mathjax-offline": "an extension in _config.yml",
}


def locked():
    """Requirements of the lock, name → list."""
    found = defaultdict(list)
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            found[canonicalize_name(Requirement(line).name)].append(Requirement(line))
    return dict(found)


def conda():
    """Name → version specifiers of environment.yml, conda's and pip's."""
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [item for item in content["dependencies"] if isinstance(item, str)]
    plain += next(item for item in content["dependencies"] if isinstance(item, dict))["pip"]
    return dict(match.groups() for item in plain if (match := re.fullmatch(r"([\w-]+)(.*)", item)))


def imported():
    """Packages that library, studies, tests and notebooks import, by the names they are installed by."""
    code = [path.read_text() for folder in ("pnet_src", "tests") for path in (ROOT / folder).rglob("*.py")]
    cells = (cell for path in notebooks.sources() for cell in notebooks.read(path).cells)
    code += [cell.source for cell in cells if cell.cell_type == "code"]
    names = set()
    for node in (node for text in code for node in ast.walk(ast.parse(text))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    own = {"pnet", "studies", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    installed = metadata.packages_distributions()
    names -= own | sys.stdlib_module_names | {"google"}  # google.colab: only there
    return {canonicalize_name(installed.get(name, [name])[0]) for name in names}


def test_what_is_imported_is_declared_and_the_other_way_round():
    assert imported() - set(REQUIREMENTS) == set()
    assert set(REQUIREMENTS) - imported() == set(NOT_IMPORTED)


def test_environment_has_the_packages_and_ranges_of_pyproject():
    names = conda()
    for name, requirement in REQUIREMENTS.items():
        other = CONDA_NAMES.get(name, name)
        assert other in names, f"environment.yml lacks {other}"
        assert set(names[other].split(",")) == set(str(requirement.specifier).split(",")), other
    assert names["python"].startswith(PROJECT["requires-python"])
    assert {"astromatic-skymaker", "astromatic-source-extractor", "astromatic-psfex"} <= set(names)
    assert yaml.safe_load((ROOT / "environment.yml").read_text())["channels"] == ["conda-forge", "nodefaults"]


def test_lock_fixes_every_dependency_within_its_range():
    lock = locked()
    assert str(lock["jupyter-book"][0].specifier) == "==1.0.4.post1"  # the one that works with the book
    assert str(lock["torch"][0].specifier) == "==2.13.0"
    for name, requirement in REQUIREMENTS.items():
        assert name in lock, f"requirements.lock lacks {name}"
        (pin,) = lock[name]
        (specifier,) = pin.specifier
        assert specifier.operator == "==" and requirement.specifier.contains(specifier.version, prereleases=True), name


@pytest.mark.parametrize("python", ["3.11.0", "3.11.9", "3.12.3", "3.13.1"])
def test_lock_has_one_version_of_each_package_on_every_python(python):
    for platform in ("linux", "darwin"):
        environment = {"python_version": python[:4], "python_full_version": python, "sys_platform": platform}
        for name, pins in locked().items():
            chosen = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(environment)]
            assert len(chosen) <= 1, f"{name} on Python {python}: {chosen}"
            assert all(specifier.operator == "==" for pin in pins for specifier in pin.specifier)


def test_lock_is_complete_but_for_gpu_libraries_and_names_no_place():
    """Everything that an installed package of the lock needs here is in the lock, too."""
    lock = locked()
    text = "\n".join(str(pin) for pins in lock.values() for pin in pins)
    assert "://" not in text and "--" not in text
    assert not [name for name in lock if name.startswith(GPU) or name in LEFT_OUT]
    for name in lock:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                other = canonicalize_name(need.name)
                known = other in lock or other in LEFT_OUT or other.startswith(GPU)
                assert known, f"{name} needs {other}, which is not locked"


def test_bayesian_torch_works_without_what_the_lock_leaves_out():
    code = (
        "import sys\n"
        "for name in ('torchvision', 'tensorboard'): sys.modules[name] = None\n"
        "from bayesian_torch.layers import LinearFlipout\n"
        "import torch\n"
        "print(tuple(LinearFlipout(3, 2)(torch.zeros(4, 3), return_kl=False).shape))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "(4, 2)", done.stderr


def test_version_and_repository_are_the_same_everywhere():
    import pnet

    version, url = PROJECT["version"], PROJECT["urls"]["Repository"]
    assert pnet.__version__ == version
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["repository"] == {"url": url, "branch": f"v{version}"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version and citation["repository-code"] == url
    for name in ("notebooks/_colab_cell.txt", "book/reproduce.md"):
        assert url in (ROOT / name).read_text(), name
    cell = (ROOT / "notebooks/_colab_cell.txt").read_text()
    assert f'"v{version}"' in cell and "torch" not in cell.replace("never torch", "")


def make(*arguments, cwd):
    command = ["make", "-f", str(ROOT / "Makefile"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def test_make_alone_lists_the_targets():
    done = make(cwd=ROOT)
    assert done.returncode == 0
    for target in ("book", "test", "bench", "clean", "help"):
        assert f"make {target} " in done.stdout


@pytest.mark.parametrize(
    ("python", "status", "argument", "message"),
    [
        ("old-python", 1, "PYTHON={python}", "PNet needs Python 3.11 or later"),
        (".venv/bin/python", 0, "TORCH=quantum", "allowed are cpu and cuda"),
    ],
)
def test_make_refuses_an_old_python_and_unknown_builds_of_torch(tmp_path, python, status, argument, message):
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    file = tmp_path / python
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\nexit {status}\n")
    file.chmod(0o755)
    done = make("install", argument.format(python=file), cwd=tmp_path)
    assert done.returncode != 0 and message in done.stderr
    assert (tmp_path / ".venv").exists() == (status == 0)


def test_files_that_users_and_services_look_for_are_there():
    for name in (
        "README.md", "LICENSE", ".binder/environment.yml", ".binder/postBuild", ".ci/run", "book/references.bib",
    ):  # fmt: skip
        assert (ROOT / name).is_file(), name
    for name in (".ci/run", ".binder/postBuild"):
        assert (ROOT / name).stat().st_mode & 0o111, f"{name} must be executable"


def test_ci_tests_every_python_that_is_claimed():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    tested = set(workflow["jobs"]["test"]["strategy"]["matrix"]["python"])
    claimed = {text.split(" :: ")[-1] for text in PROJECT["classifiers"] if "Python :: 3." in text}
    assert tested == claimed
