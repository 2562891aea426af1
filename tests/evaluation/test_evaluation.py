"""The measurement table: its columns, its files, and failures that name their frame."""

import numpy as np
import pandas as pd
import pytest
from measured import Noisy, frame, psf_at, table, truth

from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import read_json
from pnet.evaluation import measurements as evaluation
from pnet.simulation import datasets
from pnet.simulation.frame_file import read_frame


@pytest.fixture(scope="module")
def measured():
    return table(frames={"simulation": 4, "sdss": 1})


def test_the_table_holds_what_the_measurers_said(rng):
    truths = {"a": truth(rng), "b": truth(rng)}
    noisy = Noisy(truths, rng, loss=0.0, false=0)
    pairs = [(frame(name), stars) for name, stars in truths.items()]
    rows = evaluation.evaluate(pairs, {"pnet": noisy}, "simulation", psf_at=psf_at)
    assert rows.columns.tolist() == list(evaluation.COLUMNS)
    assert rows.groupby("frame").size().to_dict() == {"a": 40, "b": 40}
    assert rows["status"].value_counts().to_dict() == {"matched": 74, "ignored": 6}
    assert (rows["mag"] - rows["truth_mag"]).abs().max() < 0.06
    assert rows["limit_mag"].notna().all() and (rows["seeing"] == 1.4).all()
    assert rows.loc[rows["truth_mag"] > 19, "limit_mag"].min() > rows.loc[rows["truth_mag"] < 14, "limit_mag"].max()


def test_pnet_is_recorded_down_to_a_confidence_of_one_percent(rng):
    truths = {"a": truth(rng, 4)}

    def low(measured):
        found = Noisy(truths, rng, loss=0.0, false=0)(measured)
        return found.assign(confidence=[0.009, 0.01, 0.5, 0.9])

    rows = evaluation.evaluate([(frame("a"), truths["a"])], {"pnet": low, "sep": low}, "simulation", psf_at=psf_at)
    assert rows.groupby("method")["confidence"].count().to_dict() == {"pnet": 3, "sep": 4}


def test_a_frame_that_fails_names_itself(rng):
    truths = {"good": truth(rng), "bad": truth(rng)}
    noisy = Noisy(truths, rng)

    def fragile(measured):
        if measured.name == "bad":
            raise ValueError("no such luck")
        return noisy(measured)

    pairs = [(frame(name), stars) for name, stars in truths.items()]
    with pytest.raises(DataError, match="frame bad: sep failed: ValueError: no such luck"):
        evaluation.evaluate(pairs, {"sep": fragile}, "simulation", psf_at=psf_at)
    with pytest.raises(DataError, match="frame good: pnet failed: detections: column.*confidence"):
        evaluation.evaluate(pairs, {"pnet": lambda f: noisy(f).drop(columns="confidence")}, "sdss", psf_at=psf_at)
    with pytest.raises(DataError, match="frame good: the limit failed"):
        evaluation.evaluate(pairs, {"pnet": noisy}, "sdss", psf_at=lambda *_: None)


def test_a_file_that_fails_names_itself(tmp_path):
    path = tmp_path / "broken.fits"
    path.write_bytes(b"SIMPLE  =                    T")
    reader = evaluation.frames_from([path], read_frame)
    with pytest.raises(DataError, match="broken.fits"):
        list(reader)


@pytest.mark.parametrize(
    "measurers, dataset, message",
    [({}, "sdss", "measurers"), ({"magic": None}, "sdss", "magic"), ({"pnet": None}, "moon", "dataset")],
)
def test_unknown_names_are_refused(measurers, dataset, message):
    with pytest.raises(ConfigError, match=message):
        evaluation.evaluate([], measurers, dataset)


def test_no_frames_is_an_error():
    with pytest.raises(DataError, match="no frame"):
        evaluation.evaluate([], {"pnet": lambda f: f}, "sdss")


def test_files_come_back_as_they_were(tmp_path, measured):
    path = tmp_path / "simulation.parquet"
    evaluation.write(measured, path, {"command": "c", "seed": 1})
    again, record = evaluation.read(path)
    pd.testing.assert_frame_equal(again, measured)
    assert record["command"] == "c" and len(record["frames"]) == 5


def test_half_a_result_is_not_taken_for_whole(tmp_path, measured):
    path = tmp_path / "sdss.parquet"
    with pytest.raises(MissingError, match="pnet evaluate --dataset sdss"):
        evaluation.read(path)
    evaluation.write(measured, path, {})
    path.with_suffix(".json").unlink()
    with pytest.raises(MissingError, match="sdss.json"):
        evaluation.read(path)
    evaluation.write(measured, path, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="SHA-256"):
        evaluation.read(path)
    evaluation.write(measured.drop(columns="limit_x"), path, {})
    with pytest.raises(DataError, match="limit_x"):
        evaluation.read(path)
    evaluation.write(measured, path, {})
    path.with_suffix(".json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        evaluation.read(path)


def test_a_run_of_the_baseline_on_rendered_frames(tmp_path):
    datasets.simulate(tmp_path, counts={"test": 2}, seed=3, engine="renderer", progress=False)
    options = {"frames": 1, "seed": 3, "methods": ("baseline",), "progress": False}
    record = evaluation.run("simulation", tmp_path, **options)
    rows, written = evaluation.read(tmp_path / "measurements" / "simulation.parquet")
    assert written == record and evaluation.run("simulation", tmp_path, **options) == record, "done is done"
    assert evaluation.run("simulation", tmp_path, **options | {"frames": 2})["date"] >= record["date"]
    assert len(evaluation.read(tmp_path / "measurements" / "simulation.parquet")[1]["frames"]) == 2
    assert rows["frame"].nunique() == 1 and record["engine"] == "renderer"
    matched = rows[rows["status"] == "matched"]
    assert len(matched) > 5 and np.hypot(matched["x"] - matched["truth_x"], matched["y"] - matched["truth_y"]).max() < 1
    assert record["command"].startswith("python -m pnet evaluate --dataset simulation")
    assert str(tmp_path) not in record["command"]  # released results name no machine
    with pytest.raises(ConfigError, match="methods"):
        evaluation.run("simulation", tmp_path, methods=("magic",))
    with pytest.raises(ConfigError, match="dataset"):
        evaluation.run("moon", tmp_path, methods=("baseline",))


def test_data_that_cannot_be_had_leave_a_record_of_why_and_no_older_measurement(tmp_path, measured):
    def fails():
        raise MissingError("no SDSS here; `get it`")

    path = tmp_path / "measurements" / "coadd.parquet"
    evaluation.write(measured, path, {})
    with pytest.raises(MissingError, match="get it"):
        evaluation.run("coadd", tmp_path, source=fails)
    record = evaluation.run("coadd", tmp_path, source=fails, optional=True)
    assert record == {"available": False, "reason": "no SDSS here; `get it`"} == read_json(path.with_suffix(".json"))
    with pytest.raises(MissingError, match="no SDSS here"):
        evaluation.read(path)
