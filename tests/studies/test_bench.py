"""The bench: processes of their own, rows, tables, ledger entries."""

import os

import numpy as np
import pytest
import torch

from pnet.common import paths
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import write_json
from pnet.detection.network import CONFIGS, PhotometryDetectionNet
from pnet.simulation.datasets import make_dataset
from pnet.simulation.recipe import Recipe
from studies import bench, bench_network


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A rendered frame."""
    folder = tmp_path_factory.mktemp("frames")
    return str(make_dataset(folder, Recipe.load(), "test", 1, 5, engine="renderer")[0])


@pytest.fixture
def small_net(monkeypatch):
    """A net of random weights in place of the released one, without batch statistics to be learnt."""
    torch.manual_seed(1)
    model = PhotometryDetectionNet(CONFIGS["tiny"]).eval()
    monkeypatch.setattr(bench_network.weights, "load", lambda *_: (model, {}))
    return model


def test_a_row_of_a_method(file):
    row = bench.time_method("photutils", [file, file], seed=1, threads=1)
    assert row["method"] == "photutils" and row["frames"] == 2 and row["device"] == "cpu"
    assert 0 < row["seconds_per_frame"] < 60 and row["frames_per_second"] == pytest.approx(
        1 / row["seconds_per_frame"], rel=0.05
    )
    assert row["seconds"] == pytest.approx(2 * row["seconds_per_frame"], rel=1)
    # a frame is measured by this process alone: its processor time cannot be far above its time
    assert 0 < row["cpu_seconds_per_frame"] < 3 * row["seconds_per_frame"]
    assert row["peak_mib"] > 100, "numpy, torch and the frame"


def test_a_process_of_its_own_with_its_number_of_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    # functions of the standard library, so that the process need not import torch with this file
    assert bench.in_process(os.getenv, 3, "OMP_NUM_THREADS") == "3"
    assert os.environ["OMP_NUM_THREADS"] == "7", "put back"
    with pytest.raises(DataError, match="_exit.* died"):
        bench.in_process(os._exit, 1, 3)


def test_threads_must_be_positive(tmp_path):
    with pytest.raises(ConfigError, match="threads"):
        bench.run(tmp_path, threads=[0])


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
    assert table["frames per s"].tolist() == ["50.0", "4.0", "2.0"]
    assert bench.table(content(), "forward").empty and bench.table(content(), "training").empty
    forward = [
        {"way": "plain", "threads": 1, "shape": "512×512", "batch": 1, "seconds_per_patch": 0.5, "speed_up": 1.0},
        {"way": "compiled", "threads": 1, "shape": "512×512", "batch": 1, "reason": "not available: no C++ compiler"},
    ]
    shown = bench.table(content(forward=forward), "forward")
    assert shown["times the plain"].tolist() == ["1.00", "–"]
    assert shown[""].tolist() == ["–", "not available: no C++ compiler"]
    assert "change of confidence" not in shown.columns


def test_release_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    with pytest.raises(MissingError, match="make bench"):
        bench.release("build/bench")
    write_json(tmp_path / "build/bench/bench.json", content())
    assert bench.read(bench.release("build/bench")) == content()
    (tmp_path / "results/bench.json").write_text("[]")
    with pytest.raises(DataError, match="make bench"):
        bench.read(tmp_path / "results/bench.json")


def test_ways_of_the_forward_pass(file, small_net, monkeypatch):
    monkeypatch.setattr(bench_network, "WHOLE", (300, 600))
    monkeypatch.setattr(bench_network, "REPEATS", 1)
    monkeypatch.setattr(bench_network, "BATCHES", (1,))
    monkeypatch.setattr(bench_network, "CONFIDENT", 0.0)  # random weights are confident of nothing
    monkeypatch.setattr(bench_network.shutil, "which", lambda name: None)  # compiling takes a minute
    rows = {row["way"]: row for row in bench_network.forward(file, 1)}
    assert rows["plain"]["speed_up"] == 1 and rows["plain"]["confidence_change"] == 0
    assert rows["channels last"]["confidence_change"] < 1e-4
    assert rows["channels last"]["position_change"] < 1e-4
    assert 1e-5 < rows["channels last, bf16"]["confidence_change"] < 0.05, "heads in single precision, the rest not"
    for row in rows.values():
        if "reason" not in row:
            assert row["patches_per_second"] == pytest.approx(1 / row["seconds_per_patch"])
    if not torch.cuda.is_available():
        assert rows["channels last, compiled"]["reason"] == "not available: no C++ compiler"
    assert rows["SDSS frame at once"]["shape"] == "320×640"
    assert rows["SDSS frame in patches"]["shape"] == "1 × 4 × 512×512"


def test_a_changed_output_is_measured_in_pixels(rng):
    heatmap = torch.full((1, 1, 4, 4), -9.0)
    heatmap[0, 0, 1, 2] = 3.0
    offset = torch.zeros(1, 2, 4, 4)
    moved = offset + 0.01
    moved[0, :, 0, 0] = 5  # where there is no star
    change = bench_network._change({"heatmap": heatmap, "offset": moved}, {"heatmap": heatmap, "offset": offset})
    assert change["confidence_change"] == 0 and change["position_change"] == pytest.approx(0.04)
    heatmap = torch.full((1, 1, 4, 4), -9.0)
    change = bench_network._change({"heatmap": heatmap, "offset": moved}, {"heatmap": heatmap, "offset": offset})
    assert change["position_change"] is None


def test_training_steps_and_their_operations(monkeypatch):
    monkeypatch.setattr(bench_network, "TRAINING", (("tiny", 2, 64),))
    monkeypatch.setitem(bench_network.PRODUCT, "cpu", 128)
    (row,) = bench_network.training(1, 3, steps=1)
    assert row["images_per_second"] == pytest.approx(2 / row["seconds_per_step"])
    # the stem alone: 2 channels, 7 × 7, 16 filters on 32 × 32 cells, multiply and add, once more for its gradient
    assert row["tflop_per_step"] > 2 * 2 * 49 * 16 * 32**2 * 2 * 2 / 1e12
    assert row["tflops_per_second"] == pytest.approx(row["tflop_per_step"] / row["seconds_per_step"])
    assert np.isfinite(row["share_of_product"]) and row["share_of_product"] > 0
