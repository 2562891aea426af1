"""The command line: what it hands on, what it prints, how it fails; and the steps behind it."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pnet import cli
from pnet.common import paths
from pnet.common.errors import ConfigError
from pnet.common.files import read_json
from pnet.evaluation import check
from pnet.evaluation.ledger import Entry, Ledger
from pnet.simulation import datasets

runner = CliRunner()
COMMANDS = (
    "doctor", "measure", "simulate", "sdss-manifest", "sdss-download", "train", "evaluate", "run", "book", "pair",
    "ledger-check", "make",
)  # fmt: skip


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project's root of its own."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


def test_every_command_has_help():
    listed = runner.invoke(cli.app, ["--help"]).output
    for command in COMMANDS:
        assert command in listed
        done = runner.invoke(cli.app, [command, "--help"])
        assert done.exit_code == 0 and "Usage" in done.output


def test_nothing_heavy_is_imported_for_help():
    code = "import sys; import pnet.cli, pnet.book.notebooks, pnet.book.doctor, pnet.book.profiles, pnet.book.make\n"
    code += "print([name for name in ('torch', 'astropy', 'matplotlib', 'pandas', 'galsim') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_errors_of_pnet_have_no_traceback_and_code_2():
    done = subprocess.run(
        [sys.executable, "-m", "pnet", "measure", "none.fits", "-o", "out.ecsv"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == cli.FAILED == 2
    assert done.stderr.startswith("error: ") and "none.fits" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["simulate", "--test", "-1"], "--test"),
        (["simulate", "--engine", "magic"], "magic"),
        (["evaluate", "--dataset", "hubble"], "hubble"),
        (["measure", "a.fits"], "--output"),
        (["nonsense"], "nonsense"),
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
    assert record["engine"] == "renderer" and {key: len(files) for key, files in record["splits"].items()} == {
        "val": 1,
        "test": 2,
    }
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
    import inspect

    from pnet.evaluation import measurements as evaluation

    calls = []
    known = set(inspect.signature(evaluation.run).parameters)
    monkeypatch.setattr(evaluation, "run", lambda *names, **options: calls.append((names, options)) or {})
    done = runner.invoke(
        cli.app, ["evaluate", "--dataset", "simulation", "-O", "build/x", "--frames", "3", "--method", "pnet"]
    )
    assert done.exit_code == 0
    ((names, options),) = calls
    assert names[0] == "simulation" and options["frames"] == 3 and options["methods"] == ("pnet",)
    assert set(options) <= known, "evaluation.run takes all of them"


# The ledger


def ledger(path, *entries):
    Ledger(Entry(key, value, low, high, n) for key, value, low, high, n in entries).write(path)
    return path


def test_ledgers_that_agree(tmp_path):
    committed = ledger(
        tmp_path / "a.json", ("s.p", 0.99, 0.98, 1.0, 3000), ("s.mae", 0.0100, None, None, 66), ("old", 1, 0, 2, 5)
    )
    here = ledger(
        tmp_path / "b.json", ("s.p", 0.97, 0.93, 0.985, 300), ("s.mae", 0.01005, None, None, 66), ("new", 1, 0, 2, 5)
    )
    done = runner.invoke(cli.app, ["ledger-check", str(here), str(committed)])
    assert done.exit_code == 0 and "2 numbers" in done.output and "0 contradict" in done.output


def test_ledgers_that_contradict_each_other(tmp_path):
    committed = ledger(tmp_path / "a.json", ("s.p", 0.99, 0.98, 1.0, 3000), ("s.mae", 0.0100, None, None, 66))
    here = ledger(tmp_path / "b.json", ("s.p", 0.90, 0.85, 0.95, 300), ("s.mae", 0.0103, None, None, 66))
    done = runner.invoke(cli.app, ["ledger-check", str(here), str(committed)])
    assert done.exit_code == 1 and "2 contradict" in done.output
    problems, _ = check.check(here, committed)
    assert "do not meet" in problems[1] and "must agree to 1 %" in problems[0]


def test_nothing_compared_is_no_success(tmp_path):
    committed = ledger(tmp_path / "a.json", ("a", 1, 0, 2, 5))
    here = ledger(tmp_path / "b.json", ("b", 1, 0, 2, 5))
    assert runner.invoke(cli.app, ["ledger-check", str(here), str(committed)]).exit_code == 1


def test_released_numbers_are_not_compared_with_themselves(tmp_path):
    committed = ledger(tmp_path / "a.json", ("a", 1, 0, 2, 5))
    shown = tmp_path / "b.json"
    Ledger([Entry("a", 1, 0, 2, 5, source="released")]).write(shown)
    assert check.check(shown, committed) == ([], 0)
