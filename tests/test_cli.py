"""The command line: what it hands on, what it prints, how it fails; and the steps behind it."""

import inspect
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from pnet import cli
from pnet.book import release
from pnet.common import paths
from pnet.common.errors import ConfigError
from pnet.common.files import read_json
from pnet.evaluation import measurements
from pnet.evaluation.ledger import Entry, Ledger
from pnet.simulation import datasets
from pnet.stars.weights import RELEASED, SETS

runner = CliRunner()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project's root of its own."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


def test_every_command_has_help():
    commands = typer.main.get_command(cli.app).commands
    assert {"measure", "train", "evaluate", "make"} <= set(commands)
    for command in commands:
        done = runner.invoke(cli.app, [command, "--help"])
        assert done.exit_code == 0 and "Usage" in done.output


def test_nothing_heavy_is_imported_for_help():
    code = "import sys; import pnet.cli, pnet.book.notebooks, pnet.book.doctor, pnet.book.profiles, pnet.book.execute\n"
    code += "print([name for name in ('torch', 'astropy', 'matplotlib', 'pandas', 'galsim') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_errors_of_pnet_have_no_traceback_and_code_2():
    words = [sys.executable, "-m", "pnet", "measure", "none.fits", "-o", "out.ecsv"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == cli.FAILED == 2
    assert done.stderr.startswith("error: ") and "none.fits" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["simulate", "--test", "-1"], "--test"),
        (["evaluate", "--dataset", "hubble"], "hubble"),
        (["measure", "a.fits"], "--output"),
    ],
)
def test_bad_options_are_named(arguments, named):
    done = runner.invoke(cli.app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 2 and named in done.output


def test_version():
    import pnet

    assert runner.invoke(cli.app, ["--version"]).output.strip() == pnet.__version__


def test_run_needs_name_and_value():
    done = runner.invoke(cli.app, ["run", "05", "-p", "seed"])
    assert isinstance(done.exception, ConfigError) and "name=value" in str(done.exception)


# Simulated frames


def test_simulate_makes_frames_and_a_record(root):
    done = runner.invoke(cli.app, ["simulate", "-O", "build/x", "--val", "1", "--test", "2", "--engine", "renderer"])
    assert done.exit_code == 0, done.output
    record = read_json(root / "build/x/simulation/simulation.json")
    made = {split: len(files) for split, files in record["splits"].items()}
    assert record["engine"] == "renderer" and made == {"val": 1, "test": 2}
    assert [path.exists() for path in datasets.frames_of("build/x", "test")] == [True, True]
    assert "pnet simulate --output build/x --seed 2023" in record["command"]


# SDSS files


def test_download_that_may_fail_says_why(root, monkeypatch):
    monkeypatch.setenv("PNET_DATA", str(root / "data"))
    (root / "mirror/dr17").mkdir(parents=True)  # a mirror without any file
    monkeypatch.setenv("SDSS_MIRROR", str(root / "mirror"))
    done = runner.invoke(cli.app, ["sdss-download", "-O", "build/x", "--optional", "-q"])
    assert done.exit_code == 0 and "cannot be had" in done.output
    state = read_json(root / "build/x/sdss/download.json")
    assert state["available"] is False and state["reason"]


# Training and measuring


def test_evaluate_hands_its_options_on(root, monkeypatch):
    calls = []
    paper = {f"paper_{kind}" for kind in SETS["paper"]}
    known = {*inspect.signature(measurements.run).parameters, *RELEASED, *paper}
    monkeypatch.setattr(measurements, "run", lambda *names, **options: calls.append((names, options)) or {})
    words = ["evaluate", "--dataset", "simulation", "-O", "build/x", "--frames", "3", "--method", "pnet"]
    assert runner.invoke(cli.app, words).exit_code == 0
    ((names, options),) = calls
    assert names[0] == "simulation" and options["frames"] == 3 and options["methods"] == ["pnet"]
    assert set(options) <= known, "measurements.run takes all of them"


# The ledger


COMMITTED = [("s.p", 0.99, 0.98, 1.0, 3000), ("s.mae", 0.0100, None, None, 66), ("old", 1, 0, 2, 5)]
DIFFERENT = [("s.p", 0.90, 0.85, 0.95, 300), ("s.mae", 0.0103, None, None, 66)]


@pytest.mark.parametrize(
    ("entries", "code", "words"),
    [
        ([("s.p", 0.97, 0.93, 0.985, 300), ("s.mae", 0.01005, None, None, 66), ("new", 1, 0, 2, 5)], 0, "2 numbers"),
        (DIFFERENT, 1, "2 contradict"),
        ([("b", 1, 0, 2, 5)], 1, "nothing was compared"),
    ],
)
def test_ledgers_are_compared(tmp_path, entries, code, words):
    here, committed = tmp_path / "b.json", tmp_path / "a.json"
    for path, rows in ((here, entries), (committed, COMMITTED)):
        Ledger(Entry(*row) for row in rows).write(path)
    done = runner.invoke(cli.app, ["ledger-check", str(here), str(committed)])
    assert done.exit_code == code and words in done.output
    problems, _ = release.check(here, committed)
    if entries is DIFFERENT:
        assert "do not meet" in problems[1] and "must agree to 1 %" in problems[0]


def test_released_numbers_are_not_compared_with_themselves(tmp_path):
    here, committed = tmp_path / "b.json", tmp_path / "a.json"
    Ledger([Entry("a", 1, 0, 2, 5)]).write(committed)
    Ledger([Entry("a", 1, 0, 2, 5, source="released")]).write(here)
    assert release.check(here, committed) == ([], 0)
