"""What a page shows, this run's results or the released ones, and what it says about it."""

import pytest
from measured import table

from pnet.book import shown
from pnet.common import paths
from pnet.common.errors import DataError
from pnet.evaluation import measurements

RECORD = {"date": "2026-01-02T03:04:05+00:00", "commit": "0123456789abcdef", "baseline": "SExtractor 2"}


@pytest.fixture(scope="module")
def measured():
    return table(frames={"simulation": 4, "sdss": 1})


def test_a_page_falls_back_to_released_measurements_and_says_so(tmp_path, measured, monkeypatch):
    run, results = tmp_path / "run", tmp_path / "results"
    monkeypatch.setattr(paths, "RESULTS", results)
    nothing = shown.load(run)
    assert nothing.origin == {"simulation": "missing", "sdss": "missing"} and nothing.table.empty
    assert "No measurements" in nothing.notice() and nothing.entries(seed=1) == []
    one = {name: measured[measured["dataset"] == name] for name in ("simulation", "sdss")}
    measurements.write(one["simulation"], run / "measurements/simulation.parquet", {"engine": "renderer"})
    for name, part in one.items():
        measurements.write(part, results / f"measurements/{name}.parquet", RECORD)
    loaded = shown.load(run)
    assert loaded.origin == {"simulation": "live", "sdss": "released"}
    assert len(loaded.table) == len(measured)
    notice = loaded.notice()
    assert "Released result (2026-01-02, commit 0123456789)" in notice and "SDSS_MIRROR" in notice
    assert "own renderer" in notice and "Baseline: SExtractor 2" in notice
    sources = {entry.key.split(".")[0]: entry.source for entry in loaded.entries(seed=1, groups=("detection",))}
    assert sources == {"simulation": "live", "sdss": "released"}
    (run / "measurements/simulation.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="simulation.parquet"):  # what is damaged does not hide behind a released one
        shown.load(run)


@pytest.mark.parametrize("name", shown.SUBJECTS)
def test_every_subject_is_worded_alike(name):
    live, released, missing = (shown.notice(name, origin, RECORD, output="build/x") for origin in shown.ORIGINS)
    assert "Made by this run" in live and "pnet-source" in live and "<code>" not in live
    assert "Released result (2026-01-02, commit 0123456789)" in released and "admonition warning" in released
    assert ">No " in missing
    for text in (released, missing):
        command = text.partition("<code>")[2].partition("</code>")[0]
        assert command.startswith(("python -m ", "make book ")) and "{" not in command and "<" not in command
    text = shown.notice("selection", "released", RECORD, details="Manifest a<b", reason="no network")
    assert "Manifest a&lt;b. " in text and "(no network)" in text


def test_a_chapter_alone_measures_what_the_rules_do(monkeypatch):
    asked = []
    monkeypatch.setattr(measurements, "run", lambda dataset, output, **options: asked.append((dataset, options)))
    shown.measure("build/alone", frames=1, weights={"bpnn": "released"}, seed=5, progress=False)
    options = {"frames": 1, "bpnn": "released", "seed": 5, "progress": False}
    assert asked == [("simulation", options | {"optional": False}), ("sdss", options | {"optional": True})]


def test_a_frame_to_look_at_is_made_where_a_run_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    frame = shown.test_frame("build/none", seed=5)
    assert frame.is_file() and frame.is_relative_to(tmp_path)
    assert shown.test_frame("build/none", seed=5) == frame
