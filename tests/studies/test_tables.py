"""Tables and figures of chapters 09 and 10: the numbers are the ledger's; whole, legible, and the same every time."""

import json

import numpy as np
import pandas as pd
import pytest
from figure_checks import check, check_empty, panels, texts
from measured import table

from pnet.book.figures import detection, over_limit
from pnet.common import paths
from pnet.common.errors import DataError
from pnet.evaluation import confidence, detections, error_bars, measurements, scores
from pnet.evaluation.ledger import Entry, Ledger, entries_from_measurements
from pnet.stars.confidence import Calibration
from studies import conditions, detection_tables, error_tables, recalibrations, released
from studies.figures import curves, stress
from studies.figures import error_bars as figures

FITTED = Calibration(100, 80, 0.8, 0.4, threshold=0.5)


@pytest.fixture(scope="module")
def measured():
    rows = table(seed=3, frames={"simulation": 14, "sdss": 1})
    found = rows["x"].notna() & (rows["method"] == "pnet")
    rows.loc[found, ["x_err", "y_err"]] = 0.015
    # three kinds of seeing, so that it is a group
    rows["seeing"] = 1.2 + 0.2 * (rows["frame"].str.extract(r"(\d+)$")[0].astype(float) % 3)
    galaxies = rows[rows["dataset"] == "simulation"].assign(dataset="realistic")
    return pd.concat([rows, galaxies], ignore_index=True)


@pytest.fixture(scope="module")
def ledger(measured):
    groups = ("detection", "photometry", "astrometry", "positions", "confidence", "uncertainty", "calibration")
    made = {"engine": "frames", "confidence_calibration": FITTED.as_dict()}
    entries = entries_from_measurements(measured, seed=1, provenance=made, groups=groups)
    return Ledger([*entries, *conditions.entries(measured, "simulation", 1, made, "live")])


@pytest.fixture(scope="module")
def compared(measured):
    stars = error_bars.stars_of(measured, "simulation")
    return recalibrations.compare(recalibrations.fit(stars, "frames of val"), stars, seed=1)


def test_tables_of_detection(ledger):
    shown = detection_tables.detection(ledger)
    assert shown["method"].tolist() == ["PNet", "SExtractor", "PNet", "SExtractor"]
    assert shown["AP"].tolist()[1] == "–" and shown["stars"].tolist()[0] == str(14 * 37)
    shown = detection_tables.realistic(ledger)
    assert shown["method"].tolist() == ["PNet, confidence ≥ 0.3", "PNet, confidence ≥ 0.5", "SExtractor"]
    first = ledger["realistic.pnet.precision"]
    assert shown["precision (95 %)"][0].startswith(f"{100 * first.value:.2f} (")
    assert first.value <= ledger.value("realistic.pnet.precision_galaxies_ignored")
    assert detection_tables.confidence(ledger)[""].tolist() == ["as the network says", "calibrated"] * 2


def test_tables_of_positions(ledger):
    shown = detection_tables.ellipses(ledger)
    assert shown["about the"].tolist() == ["list", "light"] and "68 %, 13–16.5" in shown
    only = Ledger(entry for key, entry in ledger.items() if "placed" not in key)
    assert "about the" not in detection_tables.ellipses(only)
    pulls = detection_tables.pulls(ledger)
    assert "x" in pulls and pulls["mag"].tolist()[-2:] == ["14–20", "15–19"]


def test_tables_of_error_bars(ledger):
    shown = error_tables.quality(ledger).set_index("")
    assert list(shown.columns)[:2] == ["simulation", "simulation with galaxies"]
    expected = 1000 * ledger.value("simulation.pnet.crps")
    assert float(shown.loc["CRPS / mmag", "simulation"].split()[0]) == pytest.approx(expected, rel=5e-3)
    assert shown.loc["CRPS over that of a perfect measurement", "SDSS, photoObj"] == "–"
    shown = error_tables.sdss(ledger)
    assert list(shown["against"]) == ["photoObj"] and shown.loc[0, "MAE / mmag"] != "–"
    held, of = error_tables.spread_of_bins(ledger, "simulation.pnet", "mag")
    assert of == len(ledger.find("simulation.pnet.miscalibration_area.mag.*")) and of - 2 <= held <= of


def test_nothing_measured_gives_empty_tables(measured):
    for make in ("detection", "realistic", "ellipses", "pulls", "confidence"):
        assert getattr(detection_tables, make)(Ledger()).empty
    assert error_tables.quality(Ledger()).empty and error_tables.epochs(Ledger(), ["mag"]).empty
    assert error_tables.spread_of_bins(Ledger(), "simulation.pnet", "mag") == (0, 0)
    assert detection_tables.real_in_coadd(measured[measured["dataset"] == "simulation"]).empty


def test_false_detections_by_hand():
    truth = {"truth_x": [50.0, 55.0, 100.0], "truth_y": [50.0, 50.0, 100.0], "status": "ignored"}
    false = {"x": [52.5, 107.0, 200.0], "y": [50.0, 100.0, 200.0], "confidence": 0.9, "status": "false"}
    rows = pd.concat([pd.DataFrame(truth), pd.DataFrame(false)], ignore_index=True)
    rows = rows.assign(frame="94-1-12-g", method="pnet").reindex(columns=measurements.COLUMNS)
    causes = detection_tables.false_detections(rows.assign(dataset="simulation"))
    assert causes.iloc[0].tolist() == ["PNet", "3", "1", "1", "1"]
    # the co-add knows a source where the third lies
    deep = rows.head(1).assign(dataset="coadd", truth_x=200.5, truth_y=200.0)
    known = detection_tables.real_in_coadd(pd.concat([rows.assign(dataset="sdss"), deep], ignore_index=True))
    assert known.iloc[0].tolist() == ["PNet", "3", "1", "2"]


@pytest.mark.parametrize(("quantity", "unit", "scatter"), [("x", "px", "0.0300"), ("mag", "mmag", "30.0")])
def test_epochs_show_bins_for_stripe_82_only(quantity, unit, scatter):
    values = {"repeatability": 0.03, "predicted": 0.02, "z": 1.5, "coverage68": 0.5}
    made = [
        Entry(f"repeat.pnet.{pair}.{quantity}_{what}.{name}", value, n=9, limit=0.01)
        for pair in ("stripe82", "overlap")
        for what, value in values.items()
        for name in ("17", "14-20")
    ]
    shown = error_tables.epochs(Ledger(made), [quantity])
    assert shown["mag"].tolist() == ["17–18", "14–20", "14–20"]
    assert shown.loc[0, f"scatter / √2 / {unit}"] == scatter and shown.loc[0, "within the promised 68 %"] == "50.00 %"


# Released studies


def study(names=("validation", "in_range", "galaxies")):
    rows = [
        {"name": name, "title": f"title of {name}", "n": 100 + number, "aleatoric": 0.01, "epistemic": 0.001}
        | {"error": 0.02, "aleatoric_over_limit": None, "z_scatter": 2.0, "auc": 0.5 + 0.2 * number}
        | {"flagged": 0.1, "flagged_low": 0.05, "flagged_high": 0.2, "quantiles": [-2, -1, 0, 1 + number, 3]}
        for number, name in enumerate(names)
    ]
    columns = {"flagged": "flagged", "title": "condition", "n": "stars", "auc": "AUC", "aleatoric_over_limit": "a/l"}
    provenance = {"command": "python -m studies stress", "date": "2026-01-01T", "commit": "abc", "seed": 1}
    return {"rows": rows, "columns": columns, "flag": {"threshold": 2.5}, "provenance": provenance}


def test_studies_are_shown_with_their_command_or_the_one_that_makes_them(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    assert released.read("stress") is None and released.entries() == []
    assert "python -m studies stress" in released.show("stress")
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "stress.json").write_text(json.dumps(study()))
    shown = released.show("stress")
    assert "commit abc" in shown and "title of galaxies" in shown and released.EARLIER in shown
    cells = released.table(study())
    assert cells.columns.tolist() == ["condition", "flagged", "stars", "AUC"], "the name first; none without a value"
    assert cells.iloc[0].tolist() == ["title of validation", "10.00 %", "100", "0.500"]
    speeds = [{"stars": 50, "samples": 50, "seconds": 9.0 - 8 * i, "speed": 1.0 + 8 * i} for i in range(2)]
    content = {"rows": speeds, "columns": {"speed": "times"}, "provenance": {"seed": 1}}
    (tmp_path / "studies" / "sampling.json").write_text(json.dumps(content))
    losses = [
        {"name": name, "loss": 1.0 + i, "diverged": "nan" if i == 4 else "no"}
        for i, name in enumerate(["clipped", "clipped", "free", "free", "free"])
    ]
    tuned = [{"name": "frozen", "loss": 0.2, "loss_low": 0.1, "loss_high": 0.3}]
    for name, rows in (("clipping", losses), ("freezing", tuned)):
        content = {"rows": rows, "columns": {}, "provenance": {"seed": 1, "cutouts": 8}}
        (tmp_path / "studies" / f"{name}.json").write_text(json.dumps(content))
    found = Ledger(released.entries())
    clipped, free = found["study.clipping.clipped.loss"], found["study.clipping.free.loss"]
    # Student's t of two and of three values a unit apart: 12.706/2, and 4.303/√3
    assert (clipped.value, clipped.high, clipped.n) == (1.5, pytest.approx(1.5 + 6.353, abs=1e-3), 2)
    assert (free.value, free.low) == (4.0, pytest.approx(4.0 - 2.484, abs=1e-3))
    assert found.value("study.clipping.free.diverged") == pytest.approx(1 / 3)
    assert (found["study.freezing.frozen.loss"].low, found["study.freezing.frozen.loss"].n) == (0.1, 8)
    assert found.value("study.stress.galaxies.auc") == pytest.approx(0.9)
    assert found["study.stress.galaxies.flagged"].high == 0.2
    assert (found.value("study.sampling.seconds"), found.value("study.sampling.speed")) == (1.0, 9.0)
    assert released.outside(study()) == (1, 1) and released.outside(None) == (0, 0)
    (tmp_path / "studies" / "stress.json").write_text("[]")
    with pytest.raises(DataError, match="stress.json"):
        released.read("stress")


# Figures


def growing(content):
    return curves.growing(content, {"loss": "loss", "norm": "norm"}, frozen=5, marks={"norm": 1.0})


def grown():
    """Two runs, one of which had not begun to learn at its first point."""
    runs = {"frozen": [None, 0.5, 0.2], "free": [None, 0.6, 0.3]}
    points = {
        name: [{"steps": 5 * i, "loss": loss, "norm": 1.0 + i} for i, loss in enumerate(values)]
        for name, values in runs.items()
    }
    return {
        "rows": [{"name": "start", "history": []}, *({"name": name, "history": each} for name, each in points.items())]
    }


def drawings(measured, ledger, compared):
    """Return what draws each figure, with results and without."""
    rows, nothing = scores.rows(measured, "realistic", "pnet"), measured.iloc[:0]
    pair = confidence.pair(scores.rows(measured, "simulation", "pnet"), FITTED, seed=1)
    stars = scores.matched(scores.select(measured, "simulation", "pnet"), "x")
    series = {
        axis: {"PNet": f"simulation.pnet.{axis}_over_limit", "missing": f"simulation.psfex.{axis}_over_limit"}
        for axis in "xy"
    }
    floors = {axis: over_limit.placement_floor(stars, axis) for axis in "xy"}

    def sweep(table, threshold):
        return detection.galaxies(detections.sweep(table), threshold, (0.97, 0.98))

    def drawn(ledger):
        return over_limit.scatter(ledger, series, {"pooled": 1.05, "bins": 1.1}, floors)

    return {
        "diagram": (lambda: detection.reliability({"a": pair, "b": pair}, FITTED), lambda: detection.reliability({})),
        "sweep": (lambda: sweep(rows, 0.62), lambda: sweep(nothing, None)),
        "positions": (lambda: drawn(ledger), lambda: drawn(Ledger())),
        "group": (lambda: figures.by_group(ledger, seed=1), lambda: figures.by_group(Ledger(), seed=1)),
        "pit": (lambda: figures.pit(measured), lambda: figures.pit(nothing)),
        "coverage": (lambda: figures.coverage(compared), lambda: figures.coverage({})),
        "parts": (lambda: figures.parts(measured), lambda: figures.parts(nothing)),
        "stress": (lambda: stress.conditions(study()), lambda: stress.conditions(None)),
        "curves": (lambda: growing(grown()), lambda: growing(None)),
    }


@pytest.mark.parametrize(
    "name", ["diagram", "sweep", "positions", "group", "pit", "coverage", "parts", "stress", "curves"]
)
def test_figures_are_whole_legible_and_the_same_every_time(name, measured, ledger, compared, tmp_path):
    draw, empty = drawings(measured, ledger, compared)[name]
    check(draw, tmp_path, apart=name != "stress")  # whose labels stand beside each other in rows by design
    check_empty(empty(), tmp_path)


def test_figures_say_what_the_ledger_has(measured, ledger):
    plain = measured.assign(mag_epistemic=measured["mag_epistemic"] * 0)
    labels = [line.get_label() for line in panels(figures.parts(plain))[1].lines]
    assert "aleatoric" in labels and "epistemic" not in labels, "a plain head"
    figure = figures.pit(measured)
    value = ledger.value("simulation.pnet.pit_chi2")
    assert any(f"χ²/dof {value:.2f}" in text for text in texts(figure))
    bars = [patch.get_height() for patch in panels(figure)[0].patches if patch.get_width() < 0.5]
    assert np.mean(bars) == pytest.approx(1)
    # with a limit of 0.01 px SkyMaker's displacement of 0.0013 px adds less than a percent; with 0.0013 px it adds 41 %
    stars = scores.matched(scores.select(measured, "simulation", "pnet"), "x")
    small = over_limit.placement_floor(stars.assign(limit_x=0.0013), "x")
    for (_, large), (_, factor) in zip(over_limit.placement_floor(stars, "x"), small, strict=True):
        assert 1.0 < large < 1.02 and factor == pytest.approx(np.sqrt(2), abs=0.1)
