"""Figures and tables of chapter 10: same data, same bytes; whole where something is missing; the numbers are right."""

import json

import matplotlib
import numpy as np
import pytest
from figure_checks import overlaps, panels
from measured import table

from pnet.book.figures import style
from pnet.common.errors import DataError
from pnet.common.metrics import Estimate
from pnet.evaluation import error_bars as calibration_scores
from pnet.evaluation import ledger, scores
from pnet.evaluation.entries import entries_from_measurements
from pnet.evaluation.scores import Score
from studies import error_tables, recalibrations
from studies.figures import error_bars, stress


@pytest.fixture(scope="module")
def measured():
    return table(seed=3, frames={"simulation": 12, "sdss": 1})


@pytest.fixture(scope="module")
def book(measured):
    stars = measured.copy()  # three kinds of seeing, so that it is a group
    stars["seeing"] = 1.2 + 0.2 * (stars["frame"].str.extract(r"(\d+)$")[0].astype(float) % 3)
    groups = ("photometry", "uncertainty", "calibration")
    return ledger.Ledger(entries_from_measurements(stars, seed=1, groups=groups))


@pytest.fixture(scope="module")
def compared(measured):
    stars = calibration_scores.stars_of(measured, "simulation")
    return recalibrations.compare(recalibrations.fit(stars, "frames of val"), stars, seed=1)


def study(names=("validation", "in_range", "galaxies")):
    rows = []
    for number, name in enumerate(names):
        rows.append(
            {"name": name, "title": f"title of {name}", "n": 100 + number, "aleatoric": 0.01, "epistemic": 0.001}
            | {"error": 0.02, "aleatoric_over_limit": None, "z_scatter": 2.0, "auc": 0.5 + 0.2 * number}
            | {"flagged": 0.1, "flagged_low": 0.05, "flagged_high": 0.2, "quantiles": [-2, -1, 0, 1 + number, 3]}
        )
    columns = {"title": "condition", "n": "stars", "flagged": "flagged", "auc": "AUC", "aleatoric_over_limit": "a/l"}
    provenance = {"command": "python -m studies stress", "date": "2026-01-01T", "commit": "abc", "seed": 1}
    return {"rows": rows, "columns": columns, "flag": {"threshold": 2.5}, "provenance": provenance}


def texts(figure):
    return [text.get_text() for ax in panels(figure) for text in ax.texts]


@pytest.mark.parametrize("name", ["group", "pit", "coverage", "parts", "stress"])
def test_figures_are_whole_legible_and_the_same_every_time(name, measured, book, compared, tmp_path):
    draw, empty, n = {
        "group": (lambda: error_bars.by_group(book, seed=1), lambda: error_bars.by_group(ledger.Ledger(), seed=1), 6),
        "pit": (lambda: error_bars.pit(measured), lambda: error_bars.pit(measured.head(0)), 2),
        "coverage": (lambda: error_bars.coverage(compared), lambda: error_bars.coverage({}), 2),
        "parts": (lambda: error_bars.parts(measured), lambda: error_bars.parts(measured.head(0)), 2),
        "stress": (lambda: stress.conditions(study()), lambda: stress.conditions(None), 2),
    }[name]
    figure = draw()
    assert len(panels(figure)) == n and "no measurements" not in texts(figure)
    assert all(ax.get_title() and ax.get_xlabel() for ax in panels(figure))
    if name != "stress":  # its labels stand beside each other in rows by design
        assert overlaps(figure) == []
    first = style.save(draw(), tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 40}):
        second = style.save(draw(), tmp_path / "b.png")
    assert first.read_bytes() == second.read_bytes()
    missing = empty()
    assert texts(missing).count("no measurements") == n
    style.save(missing, tmp_path / "c.png")


def test_a_plain_head_has_no_epistemic_line(measured):
    plain = measured.assign(mag_epistemic=measured["mag_epistemic"] * 0)
    labels = [line.get_label() for line in panels(error_bars.parts(plain))[1].lines]
    assert "aleatoric" in labels and "epistemic" not in labels


def test_quality_is_that_of_the_ledger(book):
    shown = error_tables.quality(book).set_index("")
    assert list(shown.columns) == ["simulation", "SDSS, photoObj"]
    expected = 1000 * book.value("simulation.pnet.crps")
    assert float(shown.loc["CRPS / mmag", "simulation"].split()[0]) == pytest.approx(expected, rel=5e-3)
    assert shown.loc["CRPS over that of a perfect measurement", "SDSS, photoObj"] == "–"
    assert error_tables.quality(ledger.Ledger()).empty


def test_sdss_and_epochs_from_the_ledger(book):
    shown = error_tables.sdss(book)
    assert list(shown["against"]) == ["photoObj"] and shown.loc[0, "MAE / mmag"] != "–"
    score = Score(Estimate(0.010, 0.008, 0.012, 30), "scatter", "mag", 0.009)
    entries = ledger.entries_of({"stripe82.mag_repeatability.14": score}, "repeat.pnet", "live", {"seed": 1})
    row = error_tables.epochs(ledger.Ledger(entries), "stripe82").iloc[0]
    assert row["mag"] == "14–15" and row["scatter / √2 / mmag"].startswith("10.0") and row["limit / mmag"] == "9.00"
    assert entries[0].provenance == {"seed": 1} and error_tables.epochs(book, "stripe82").empty


def test_areas_inside_the_range_of_perfect_error_bars_are_counted(book):
    held, of = error_tables.spread_of_bins(book, "simulation.pnet", "mag")
    assert of == len(book.find("simulation.pnet.miscalibration_area.mag.*")) and of - 2 <= held <= of
    assert error_tables.spread_of_bins(ledger.Ledger(), "simulation.pnet", "mag") == (0, 0)


def test_studies_are_shown_with_their_command_or_the_one_that_makes_them(tmp_path):
    assert error_tables.study("stress", tmp_path) is None
    assert "studies stress" in error_tables.study_html("stress", tmp_path)
    assert error_tables.study_entries(tmp_path) == []
    (tmp_path / "stress.json").write_text(json.dumps(study()))
    shown = error_tables.study_html("stress", tmp_path)
    assert "commit abc" in shown and "title of galaxies" in shown and "10.00&nbsp;%" in shown
    assert "a/l" not in shown  # a column without any value
    speeds = [{"stars": 50, "samples": 50, "seconds": 9.0 - 8 * i, "speed": 1.0 + 8 * i} for i in range(2)]
    content = {"rows": speeds, "columns": {"speed": "times"}, "provenance": {"seed": 1}}
    (tmp_path / "sampling.json").write_text(json.dumps(content))
    found = ledger.Ledger(error_tables.study_entries(tmp_path))
    assert found.value("study.stress.galaxies.auc") == pytest.approx(0.9)
    assert found["study.stress.galaxies.flagged"].high == 0.2
    assert (found.value("study.sampling.seconds"), found.value("study.sampling.speed")) == (1.0, 9.0)
    assert error_tables.outside(study()) == (1, 1) and error_tables.outside(None) == (0, 0)
    (tmp_path / "stress.json").write_text("[]")
    with pytest.raises(DataError, match="stress.json"):
        error_tables.study("stress", tmp_path)


def test_pit_notes_the_test_that_the_ledger_has(measured, book):
    figure = error_bars.pit(measured)
    value = book.value("simulation.pnet.pit_chi2")
    assert any(f"χ²/dof {value:.2f}" in text for text in texts(figure))
    bars = [patch.get_height() for patch in panels(figure)[0].patches if patch.get_width() < 0.5]
    assert np.mean(bars) == pytest.approx(1)
    assert len(scores.matched(scores.select(measured, "simulation", "pnet"), "mag", "mag_err", "truth_mag")) > 300
