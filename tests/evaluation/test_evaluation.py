"""The measurement table: its columns, its files, and failures that name their frame."""

import numpy as np
import pandas as pd
import pytest
from measured import Noisy, source, table, truth

from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import read_json
from pnet.evaluation import measurements
from pnet.evaluation.frames import Source
from pnet.simulation import datasets
from pnet.simulation.frame_file import read_frame


@pytest.fixture(scope="module")
def measured():
    return table(frames={"simulation": 4, "sdss": 1})


def test_the_table_holds_what_the_measurers_said(rng):
    truths = {"a": truth(rng), "b": truth(rng)}
    rows = measurements.evaluate(source(truths), {"pnet": Noisy(truths, rng, loss=0.0, false=0)}, "simulation")
    assert rows.columns.tolist() == list(measurements.COLUMNS)
    assert rows.groupby("frame").size().to_dict() == {"a": 40, "b": 40}
    assert rows["status"].value_counts().to_dict() == {"matched": 74, "ignored": 6}
    assert (rows["mag"] - rows["truth_mag"]).abs().max() < 0.06
    assert rows["limit_mag"].notna().all() and (rows["seeing"] == 1.4).all()
    assert rows.loc[rows["truth_mag"] > 19, "limit_mag"].min() > rows.loc[rows["truth_mag"] < 14, "limit_mag"].max()
    few = {"a": truth(rng, 4)}  # PNet is recorded down to a confidence of 1 %
    four = [0.009, 0.01, 0.5, 0.9]
    low = dict.fromkeys(("pnet", "sep"), lambda frame: Noisy(few, rng, loss=0, false=0)(frame).assign(confidence=four))
    rows = measurements.evaluate(source(few), low, "simulation")
    assert rows.groupby("method")["confidence"].count().to_dict() == {"pnet": 3, "sep": 4}


def test_a_frame_or_file_that_fails_names_itself(rng, tmp_path):
    truths = {"good": truth(rng), "bad": truth(rng)}
    noisy = Noisy(truths, rng)

    def fragile(measured):
        if measured.name == "bad":
            raise ValueError("no such luck")
        return noisy(measured)

    with pytest.raises(DataError, match="frame bad: sep failed: ValueError: no such luck"):
        measurements.evaluate(source(truths), {"sep": fragile}, "simulation")
    with pytest.raises(DataError, match="frame good: pnet failed: .*detections.*confidence"):
        measurements.evaluate(source(truths), {"pnet": lambda f: noisy(f).drop(columns="confidence")}, "sdss")
    with pytest.raises(DataError, match="frame good: the limit failed"):
        measurements.evaluate(source(truths, lambda *_: None), {"pnet": noisy}, "sdss")
    path = tmp_path / "broken.fits"
    path.write_bytes(b"SIMPLE  =                    T")
    with pytest.raises(DataError, match="broken.fits"):
        list(Source([path], read_frame))


def test_files_come_back_as_they_were_and_half_a_result_is_not_taken_for_whole(tmp_path, measured):
    path = tmp_path / "sdss.parquet"
    with pytest.raises(MissingError, match="pnet evaluate --dataset sdss"):
        measurements.read(path)
    measurements.write(measured, path, {"command": "c", "seed": 1})
    again, record = measurements.read(path)
    pd.testing.assert_frame_equal(again, measured)
    assert record["command"] == "c" and len(record["frames"]) == 5
    for rows, spoil, error, message in (
        (measured, lambda: path.with_suffix(".json").unlink(), MissingError, "sdss.json"),
        (measured, lambda: path.write_bytes(path.read_bytes()[:-100]), DataError, "SHA-256"),
        (measured.drop(columns="limit_x"), lambda: None, DataError, "limit_x"),
        (measured, lambda: path.with_suffix(".json").write_text("{"), DataError, "cannot be read"),
    ):
        measurements.write(rows, path, {})
        spoil()
        with pytest.raises(error, match=message):
            measurements.read(path)


def test_a_run_of_the_baseline_on_rendered_frames(tmp_path):
    datasets.simulate(tmp_path, counts={"test": 2}, seed=3, engine="renderer", progress=False)
    options = {"frames": 1, "seed": 3, "methods": ("baseline",), "progress": False}
    record = measurements.run("simulation", tmp_path, **options)
    rows, written = measurements.read(tmp_path / "measurements" / "simulation.parquet")
    assert written == record and measurements.run("simulation", tmp_path, **options) == record, "done is done"
    assert measurements.run("simulation", tmp_path, **options | {"frames": 2})["date"] >= record["date"]
    assert len(measurements.read(tmp_path / "measurements" / "simulation.parquet")[1]["frames"]) == 2
    assert rows["frame"].nunique() == 1 and record["engine"] == "renderer"
    matched = rows[rows["status"] == "matched"]
    assert len(matched) > 5 and np.hypot(matched["x"] - matched["truth_x"], matched["y"] - matched["truth_y"]).max() < 1
    assert record["command"].startswith("python -m pnet evaluate --dataset simulation")
    assert str(tmp_path) not in record["command"]  # released results name no machine
    with pytest.raises(ConfigError, match="methods"):
        measurements.run("simulation", tmp_path, methods=("magic",))
    with pytest.raises(ConfigError, match="dataset"):
        measurements.run("moon", tmp_path, methods=("baseline",))


def test_data_that_cannot_be_had_leave_a_record_of_why_and_no_older_measurement(tmp_path, measured):
    def fails():
        raise MissingError("no SDSS here; `get it`")

    path = tmp_path / "measurements" / "coadd.parquet"
    measurements.write(measured, path, {})
    with pytest.raises(MissingError, match="get it"):
        measurements.run("coadd", tmp_path, source=fails)
    record = measurements.run("coadd", tmp_path, source=fails, optional=True)
    assert record == {"available": False, "reason": "no SDSS here; `get it`"} == read_json(path.with_suffix(".json"))
    with pytest.raises(MissingError, match="no SDSS here"):
        measurements.read(path)
