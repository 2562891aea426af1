"""A release is whole, comes from committed code, and is not half-written."""

import shutil

import pandas as pd
import pytest
from notebook_files import own_project

from pnet.book import release
from pnet.common import paths
from pnet.common.errors import ConfigError, MissingError
from pnet.common.files import write_json
from pnet.evaluation import measurements as evaluation
from pnet.evaluation.ledger import Ledger, entries_from_measurements


@pytest.fixture
def run(tmp_path, monkeypatch):
    folder = own_project(tmp_path, monkeypatch) / "build"
    for part in release.PARTS:
        write_json(folder / part, {"commit": "abc"})
    for name in evaluation.DATASETS:
        table = pd.DataFrame({column: [0.0] for column in evaluation.COLUMNS}).assign(frame="f")
        evaluation.write(table, folder / f"measurements/{name}.parquet", {"commit": "abc"})
    return folder


def test_a_whole_run_is_copied_and_a_missing_part_or_uncommitted_code_stops_it(run, tmp_path):
    copies = release.release_results(run)
    assert {str(path.relative_to(tmp_path / "results")) for path in copies} == set(release.PARTS)
    evaluation.read(tmp_path / "results/measurements/sdss.parquet")
    shutil.rmtree(tmp_path / "results")
    write_json(run / "simulation/engines.json", {"commit": "abc+"})
    with pytest.raises(ConfigError, match="commit, run again"):
        release.release_results(run)
    (run / "sdss/sdss.json").unlink()
    with pytest.raises(MissingError, match="sdss/sdss.json"):
        release.release_results(run)
    assert not (tmp_path / "results").exists()


def test_a_ledger_is_compared_on_the_frames_that_both_have(tmp_path):
    """A part of the released frames must give what the released measurements give for that part, to 1 %."""
    table, record = evaluation.read(paths.RESULTS / "measurements" / "simulation.parquet")
    part = table[table["frame"].isin(sorted(set(table["frame"]))[:3])]
    evaluation.write(part, tmp_path / "measurements/simulation.parquet", record)
    ledger = Ledger(entries_from_measurements(part, seed=record["seed"]))
    ledger.write(tmp_path / "ledger.json")
    problems, compared = release.check(tmp_path / "ledger.json", paths.RESULTS / "ledger.json")
    assert problems == [] and compared > 50
    worse = part.assign(mag=part["mag"] + 0.05)
    Ledger(entries_from_measurements(worse, seed=record["seed"])).write(tmp_path / "ledger.json")
    problems, _ = release.check(tmp_path / "ledger.json", paths.RESULTS / "ledger.json")
    assert any(problem.startswith("simulation.pnet.mae") for problem in problems)


def test_the_released_ledger_is_that_of_the_released_measurements():
    released, compared = Ledger.read(paths.RESULTS / "ledger.json"), 0
    for name in ("simulation", "sdss"):
        table, record = evaluation.read(paths.RESULTS / "measurements" / f"{name}.parquet")
        for entry in entries_from_measurements(table, seed=record["seed"]):
            if entry.key in released:
                compared += 1
                wanted = float("nan") if entry.value is None else entry.value
                assert released.value(entry.key) == pytest.approx(wanted, rel=1e-6, nan_ok=True), entry.key
    assert compared > 700
