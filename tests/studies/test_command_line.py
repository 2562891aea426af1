"""``python -m studies``: what it hands on and how it fails."""

from pathlib import Path
from unittest import mock

import typer
from typer.testing import CliRunner

from studies import bench
from studies.__main__ import _command, app


def test_every_command_has_help():
    for command in typer.main.get_command(app).commands:
        done = CliRunner().invoke(app, [command, "--help"])
        assert done.exit_code == 0 and "Usage" in done.output


def test_the_command_that_is_recorded():
    assert _command("stress", output=None, seed=3) == "python -m studies stress --seed 3"


def test_bench_hands_its_options_on_and_prints_its_tables(monkeypatch):
    row = {"method": "sep", "device": "cpu", "threads": 1, "seconds_per_frame": 0.5, "frames_per_second": 2}
    run = mock.create_autospec(bench.run, return_value={"rows": [row], "training": []})
    monkeypatch.setattr(bench, "run", run)
    done = CliRunner().invoke(app, ["bench", "--frames", "2", "--threads", "1", "--output", "build/b"])
    assert done.exit_code == 0, done.output
    assert "SEP" in done.output and "frames per s" in done.output
    options = {"frames": 2, "seed": 2023, "threads": [1], "training": False}
    run.assert_called_once_with(Path("build/b"), **options)
