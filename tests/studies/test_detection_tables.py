"""Chapter 09: its tables, its figures, and that both are whole where results are missing."""

import json

import numpy as np
import pandas as pd
import pytest
from figure_checks import overlaps, panels
from measured import table

from pnet.book.figures import positions, reliability, style
from pnet.common.errors import DataError, MissingError
from pnet.evaluation import confidence, scores
from pnet.evaluation import contaminants as realistic
from pnet.evaluation import measurements as evaluation
from pnet.evaluation.entries import entries_from_measurements
from pnet.evaluation.ledger import Entry, Ledger
from pnet.stars.confidence import Calibration
from studies import detection_tables

FITTED = Calibration("platt", 100, 80, 0.8, 0.4, threshold=0.5)
GROUPS = ("detection", "astrometry", "positions", "confidence")


@pytest.fixture(scope="module")
def measured():
    rows = table(seed=3, frames={"simulation": 14, "sdss": 1})
    galaxies = rows[rows["dataset"] == "simulation"].assign(dataset="realistic")
    found = rows["x"].notna() & (rows["method"] == "pnet")
    rows.loc[found, ["x_err", "y_err"]] = 0.015
    return {
        "simulation": rows[rows["dataset"] == "simulation"],
        "realistic": galaxies,
        "sdss": rows[rows["dataset"] == "sdss"],
    }


@pytest.fixture(scope="module")
def ledger(measured):
    made = {"engine": "frames", "confidence_calibration": FITTED.as_dict()}
    return Ledger(
        entry
        for rows in measured.values()
        for entry in entries_from_measurements(rows, seed=1, provenance=made, groups=GROUPS)
    )


def test_table_of_detection(ledger):
    shown = detection_tables.detection(ledger)
    assert shown["method"].tolist() == ["PNet", "SExtractor", "PNet", "SExtractor"]
    assert shown["AP"].tolist()[1] == "–" and shown["stars"].tolist()[0] == str(14 * 37)


def test_table_of_frames_with_galaxies(ledger):
    shown = detection_tables.realistic(ledger)
    assert shown["method"].tolist() == ["PNet, confidence ≥ 0.3", "PNet, confidence ≥ 0.5", "SExtractor"]
    first = ledger["realistic.pnet.precision"]
    assert shown["precision (95 %)"][0].startswith(f"{100 * first.value:.2f} (")
    assert ledger.value("realistic.pnet.precision") <= ledger.value("realistic.pnet.precision_galaxies_ignored")


def test_tables_of_error_bars(ledger):
    shown = detection_tables.ellipses(ledger)
    assert shown["about the"].tolist() == ["list", "light"] and "68 %, 13–16.5" in shown
    only = Ledger(entry for entry in ledger if "placed" not in entry.key)
    assert "about the" not in detection_tables.ellipses(only)
    pulls = detection_tables.pulls(ledger)
    assert pulls.columns.tolist() == ["mag", "x", "y"] and pulls["mag"].tolist()[-2:] == ["14–20", "15–19"]
    errors = detection_tables.confidence(ledger)
    assert errors[""].tolist() == ["as the network says", "calibrated"] * 2


def test_nothing_measured_gives_empty_tables(measured):
    nothing = Ledger()
    for make in ("detection", "realistic", "ellipses", "pulls", "confidence", "epochs"):
        assert getattr(detection_tables, make)(nothing).empty
    assert detection_tables.real_in_coadd(measured["simulation"]).empty


def test_false_detections_that_the_coadd_knows(measured):
    rows = measured["sdss"].assign(frame="94-1-12-g")
    one = rows[(rows["method"] == "pnet") & (rows["status"] == "false") & (rows["confidence"] >= 0.3)]
    known = rows[rows["truth_x"].notna() & (rows["method"] == "pnet")].assign(dataset="coadd").head(len(one) + 1)
    x, y = known["truth_x"].to_numpy().copy(), known["truth_y"].to_numpy().copy()
    x[: len(one)], y[: len(one)] = one["x"] + 0.5, one["y"]
    known = known.assign(truth_x=x, truth_y=y)
    shown = detection_tables.real_in_coadd(pd.concat([rows, known])).set_index("method")
    assert shown.loc["PNet", "false against photoObj"] == shown.loc["PNet", "in the co-add"] == str(len(one))


def test_causes_of_false_detections_by_hand():
    truth = {"truth_x": [50.0, 55.0, 100.0], "truth_y": [50.0, 50.0, 100.0], "status": "ignored"}
    false = {"x": [52.5, 107.0, 200.0], "y": [50.0, 100.0, 200.0], "confidence": 0.9, "status": "false"}
    rows = pd.concat([pd.DataFrame(truth), pd.DataFrame(false)], ignore_index=True)
    rows = rows.assign(frame="a", method="pnet", dataset="simulation").reindex(columns=evaluation.COLUMNS)
    shown = detection_tables.false_detections(rows)
    assert shown.iloc[0].tolist() == ["PNet", "3", "1", "1", "1"]


def test_epochs_show_bins_for_stripe_82_only():
    def entries(pair, what, value):
        return [Entry(f"repeat.pnet.{pair}.x_{what}.{name}", value, n=9, limit=0.01) for name in ("17", "14-20")]

    made = [
        entry
        for pair in ("stripe82", "overlap")
        for what, value in (("repeatability", 0.03), ("predicted", 0.02), ("z", 1.5), ("coverage68", 0.5))
        for entry in entries(pair, what, value)
    ]
    shown = detection_tables.epochs(Ledger(made))
    assert shown["mag"].tolist() == ["17–18", "14–20", "14–20"]
    assert shown.iloc[0]["scatter / px"] == "0.0300" and shown.iloc[0]["within 68 %"] == "50.00 %"


def test_a_study_is_shown_or_named(tmp_path):
    with pytest.raises(MissingError, match="studies detection"):
        detection_tables.study("detection", tmp_path)
    content = {"columns": {"name": "variant", "recall": "recall", "ap": "AP", "steps": "steps"}}
    content["rows"] = [{"name": "ours", "recall": 0.999, "ap": None, "steps": 400}]
    (tmp_path / "detection.json").write_text(json.dumps(content))
    shown = detection_tables.study("detection", tmp_path)
    assert shown.to_dict("list") == {"variant": ["ours"], "recall": ["99.90 %"], "steps": ["400"]}
    (tmp_path / "detection.json").write_text("[]")
    with pytest.raises(DataError, match="not the result"):
        detection_tables.study("detection", tmp_path)


def drawings(measured, ledger):
    pair = confidence.pair(measured["simulation"], FITTED, seed=1)
    rows = scores.rows(measured["realistic"], "realistic", "pnet")
    stars = scores.matched(scores.select(measured["simulation"], "simulation", "pnet"), "x")
    series = {
        "PNet": ("pnet", "{axis}_over_limit", "pnet"),
        "PNet, about the light": ("pnet", "{axis}_over_limit_placed", "purple"),
        "missing": ("psfex", "{axis}_over_limit", "psfex"),
    }
    return {
        "diagram": reliability.diagram({"simulation": pair, "again": pair}, FITTED),
        "sweep": reliability.threshold_sweep(realistic.sweep(rows, size=256), 0.62, (0.97, 0.98)),
        "positions": positions.over_limit(ledger, series, (1.05, 1.1), stars),
    }


def test_figures_are_labelled_and_nothing_overlaps(measured, ledger, tmp_path):
    for name, figure in drawings(measured, ledger).items():
        assert overlaps(figure) == [], name
        for ax in panels(figure):
            assert ax.get_title() and ax.get_xlabel()
        assert style.save(figure, tmp_path / f"{name}.png").stat().st_size > 10000
    again = drawings(measured, ledger)["positions"]
    first = (tmp_path / "positions.png").read_bytes()
    assert style.save(again, tmp_path / "again.png").read_bytes() == first


def test_figures_without_results_say_so(measured):
    nothing = measured["sdss"].iloc[:0]
    empty = {
        "diagram": reliability.diagram({}),
        "sweep": reliability.threshold_sweep(realistic.sweep(nothing, size=256), None, (0.97, 0.98)),
        "positions": positions.over_limit(Ledger(), {"PNet": ("pnet", "{axis}_over_limit", "pnet")}, (1.05, 1.1)),
    }
    for figure in empty.values():
        assert any("no measurements" in text.get_text() for ax in figure.axes for text in ax.texts)


def test_the_floor_under_skymakers_list(measured):
    """With a limit of 0.01 px the displacement of 0.0013 px adds less than a percent; with 0.0013 px it adds 41 %."""
    stars = scores.matched(scores.select(measured["simulation"], "simulation", "pnet"), "x")
    small = positions.placement_floor(stars.assign(limit_x=0.0013), "x")
    for (_, large), (_, factor) in zip(positions.placement_floor(stars, "x"), small, strict=True):
        assert 1.0 < large < 1.02
        assert factor == pytest.approx(np.sqrt(2), abs=0.1)
