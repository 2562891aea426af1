"""Profiles, and the Snakefile: every profile can be made, and a change runs again what depends on it and no more."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from notebook_files import own_project, write_notebook, write_profile

from pnet.book import profiles
from pnet.common import paths
from pnet.common.errors import ConfigError, MissingError

ROOT = paths.ROOT


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one notebook."""
    own_project(tmp_path, monkeypatch)
    write_notebook(tmp_path)
    return tmp_path


def test_profile_is_found_and_adds_common_own_and_its_name(project):
    steps = "steps: {simulate: {test: 3, fast: true, slow: false}}\n"
    write_profile(project, "mine", f"common: {{seed: 7}}\n01_chapter: {{scale: 3.0}}\n{steps}")
    profile = profiles.load("mine")
    assert profile.parameters("01_chapter") == {"seed": 7, "scale": 3.0, "profile": "mine", "output": "build/mine"}
    assert profile.parameters("02_other") == {"seed": 7, "profile": "mine", "output": "build/mine"}
    assert profile.options("simulate") == ["--test", "3", "--fast", "--no-slow"]
    assert profiles.load(project / "notebooks/profiles/mine.yml") == profile
    with pytest.raises(MissingError, match=r"profile his.*mine"):
        profiles.load("his")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("02_chapter: {scale: 1.0}", "bad: 02_chapter is not known; allowed are common, steps, 01_chapter"),
        ("common: 3", "common must be a mapping"),
        ("common: {output: elsewhere}", "common sets output"),
        ("[1, 2]", "holds a list"),
        ("common: {", "not valid YAML"),
        ("steps: {simulate: 3}", "steps: simulate must be a mapping"),
        ("steps: {cook: {}}", "steps: cook is not known; allowed are simulate"),
        ("01_chapter: {epochz: 3}", r"profile bad, 01_chapter: parameter epochz is not known"),
        ("steps: {train-bpnn: {epochz: 3}}", "train-bpnn: .*epochz"),
        ("steps: {train-bpnn: {field_size: 64}}", "train-bpnn: field_size is 64, but a bpnn network has none"),
        ("steps: {train: {epochs: 0}, train-bpnn: {epochs: 3}}", "train-bpnn: epochs is 0"),
    ],
)
def test_bad_profiles_are_refused(project, text, message):
    write_profile(project, "bad", text)
    with pytest.raises(ConfigError, match=message):
        profiles.load("bad").check()


def snakemake(root: Path, *arguments: str) -> str:
    """Run Snakemake in a checkout and return what it printed."""
    environment = {**os.environ, "PNET_ROOT": str(root), "PYTHONPATH": str(root / "pnet_src")}
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile"), "--directory", str(root)]
    command += ["--cores", "2", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def jobs(printed: str) -> set[str]:
    """Return the rules that a dry run would run."""
    table = printed.partition("Job stats:")[2].partition("\ntotal")[0]
    return {line.split()[0] for line in table.splitlines()[3:]}


@pytest.mark.parametrize("profile", sorted(path.stem for path in paths.PROFILES.glob("*.yml")))
def test_snakemake_knows_how_to_make_every_profile(profile):
    """A dry run, so that a rule that nobody makes the input of is found without hours of work."""
    profiles.load(profile).check()
    config = f"notebooks/profiles/{profile}.yml"
    found = jobs(snakemake(ROOT, "--dry-run", "--forceall", "--nolock", "--configfile", config))
    assert {"simulate", "sdss_download", "measure_simulation", "measure_sdss", "notebook_08_scorecard"} <= found
    assert ("train_detection" in found) == (profile != "standard"), "the standard profile shows the released training"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkout in which the standard profile has been made: every output is there, newer than what it is made of."""
    root = tmp_path_factory.mktemp("checkout")
    names = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True)
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    for line in snakemake(root, "--summary").splitlines()[1:]:
        file = root / line.split("\t")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    snakemake(root, "--touch")
    return root


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        (None, set()),
        ("pnet_src/pnet/book/figures/training.py", {"notebook_03_train_detection", "notebook_04_train_bpnn"}),
        ("pnet_src/pnet/book/doctor.py", set()),
        ("book/limit.md", {"site"}),
    ],
)
def test_a_change_runs_again_only_what_depends_on_it(made, changed, again):
    if changed:
        with open(made / changed, "a") as stream:
            stream.write("\n")
    found = jobs(snakemake(made, "--dry-run"))
    if again and again != {"site"}:
        again = again | {"notebook_08_scorecard", "notebook_12_verdicts", "site"}
    assert found - {"all"} == again
    snakemake(made, "--touch")
