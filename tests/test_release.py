"""A release is whole, comes from committed code, and is not half-written."""

import pandas as pd
import pytest

from pnet import evaluation, paths, release
from pnet.errors import ConfigError, MissingError
from pnet.files import write_json


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    folder = tmp_path / "build"
    for part in release.PARTS:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        if part.endswith(".json"):
            write_json(folder / part, {"commit": "abc"})
        else:
            (folder / part).write_text("x")
    for name in ("simulation", "sdss"):
        table = pd.DataFrame({column: [0.0] for column in evaluation.COLUMNS}).assign(frame="f")
        evaluation.write(table, folder / f"measurements/{name}.parquet", {"commit": "abc"})
    return folder


def test_a_whole_run_is_copied(run, tmp_path):
    copies = release.release_results(run)
    assert {str(path.relative_to(tmp_path / "results")) for path in copies} == set(release.PARTS)
    evaluation.read(tmp_path / "results/measurements/sdss.parquet")


def test_a_part_that_is_missing_stops_it(run, tmp_path):
    (run / "sdss/sdss.json").unlink()
    with pytest.raises(MissingError, match="sdss/sdss.json"):
        release.release_results(run)
    assert not (tmp_path / "results").exists()


def test_uncommitted_code_stops_it(run, tmp_path):
    write_json(run / "simulation/engines.json", {"commit": "abc+"})
    with pytest.raises(ConfigError, match="commit, run again"):
        release.release_results(run)
    assert not (tmp_path / "results").exists()
