"""The bench: processes of their own, rows, tables, ledger entries."""

import os

import pytest

from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import write_json
from studies import bench, speed


def test_a_row_of_a_method(rendered):
    row = speed.in_process(speed.time_method, 1, "photutils", 2 * [str(rendered)], 1, 1)
    assert row["method"] == "photutils" and row["frames"] == 2 and row["device"] == "cpu"
    assert row["frames_per_second"] == pytest.approx(1 / row["seconds_per_frame"], rel=0.05)
    assert row["seconds"] == pytest.approx(2 * row["seconds_per_frame"], rel=1)
    # a frame is measured by this process alone: its processor time cannot be far above its time
    assert 0 < row["cpu_seconds_per_frame"] < 3 * row["seconds_per_frame"]
    assert 100 < row["peak_mib"] < 330, "numpy and the frame, but not torch, which this process holds"


def test_a_process_of_its_own_with_its_number_of_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    # functions of the standard library, so that the process need not import torch with this file
    assert speed.in_process(os.getenv, 3, "OMP_NUM_THREADS") == "3"
    assert os.environ["OMP_NUM_THREADS"] == "7", "put back"
    with pytest.raises(DataError, match="_exit.* died"):
        speed.in_process(os._exit, 1, 3)
    with pytest.raises(ConfigError, match="threads"):
        bench.run("build/none", threads=[0])


def content(**more):
    rows = [
        {"method": method, "version": "1", "threads": threads, "device": "cpu", "precision": "", "frames": 20}
        | {"seconds": 20 * s, "seconds_per_frame": s, "frames_per_second": 1 / s, "cpu_seconds_per_frame": s}
        | {"peak_mib": 500}
        for method, threads, s in (("pnet", 1, 0.5), ("pnet", 2, 0.25), ("sextractor", 1, 0.02))
    ]
    return {"command": "c", "commit": "abc", "device": "cpu", "seed": 1, "date": "d", "rows": rows, **more}


def test_entries_for_the_ledger():
    training = [{"config": "compact", "images_per_second": 9.0, "steps": 3, "size": 256, "device": "cpu"}]
    found = {entry.key: entry for entry in bench.entries(content(training=training))}
    assert found["bench.pnet.seconds_per_frame"].value == 0.5
    assert found["bench.pnet.seconds_per_frame.2_threads"].value == 0.25
    assert found["bench.sextractor.frames_per_second"].value == pytest.approx(50)
    assert found["bench.training_compact.images_per_second"].n == 3
    entry = found["bench.pnet.peak_mib"]
    assert entry.unit == "MiB" and entry.n == 20 and entry.source == "released"
    assert entry.provenance == {"command": "c", "commit": "abc", "device": "cpu", "seed": 1, "date": "d"}


def test_tables_show_what_there_is():
    table = bench.table(content())
    assert table["method"].tolist() == ["SExtractor", "PNet, whole", "PNet, whole"]
    assert table["frames per s"].tolist() == ["50.0", "4.00", "2.00"]
    assert bench.table(content(), "training").empty
    training = [{"config": "compact", "batch": 8, "images_per_second": 9.0, "share_of_product": 0.5}]
    shown = bench.table(content(training=training), "training")
    assert shown["share of the matrix product's rate"].tolist() == ["50.00 %"] and "device" not in shown


def test_read(tmp_path):
    path = tmp_path / "bench.json"
    with pytest.raises(MissingError, match="make bench"):
        bench.read(path)
    write_json(path, content())
    assert bench.read(path) == content()
    path.write_text("[]")
    with pytest.raises(DataError, match="make bench"):
        bench.read(path)


def test_training_steps_and_their_operations(monkeypatch):
    monkeypatch.setattr(bench, "TRAINING", (("tiny", 2, 64),))
    monkeypatch.setattr(bench, "STEPS", 1)
    monkeypatch.setitem(bench.PRODUCT, "cpu", 128)
    (row,) = bench.train(1, 3)
    assert row["images_per_second"] == pytest.approx(2 / row["seconds_per_step"])
    # the stem alone: 2 channels, 7 × 7, 16 filters on 32 × 32 cells, multiply and add, once more for its gradient
    assert row["tflop_per_step"] > 2 * 2 * 49 * 16 * 32**2 * 2 * 2 / 1e12
    assert row["tflops_per_second"] == pytest.approx(row["tflop_per_step"] / row["seconds_per_step"])
    assert row["share_of_product"] > 0
