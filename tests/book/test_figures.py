"""Figures: same data, same bytes; labelled, legible, and honest about what is missing."""

import functools

import numpy as np
import pandas as pd
import pytest
from figure_checks import check, check_empty, overlaps, panels, texts
from measured import table

from pnet.book.figures import accuracy, detection, frames, over_limit, style, training, twins
from pnet.common import metrics
from pnet.evaluation import calibration_metrics, ledger
from pnet.evaluation import twins as copies
from pnet.training import psfs

DRAW = {
    "figure_6": (detection.figure_6, 4),
    "figure_7": (accuracy.figure_7, 6),
    "figure_8": (accuracy.figure_8, 4),
    "figure_9": (functools.partial(accuracy.figure_9, seed=1), 4),
}


@pytest.fixture(scope="module")
def measured():
    return table(seed=3, frames={"simulation": 12, "sdss": 1})


@pytest.mark.parametrize("name", DRAW)
def test_figures_are_labelled_nothing_overlaps_and_the_same_data_give_the_same_bytes(name, measured, tmp_path):
    draw, n = DRAW[name]
    check(lambda: draw(measured), tmp_path)
    assert len(panels(draw(measured))) == n


@pytest.mark.parametrize("name", DRAW)
@pytest.mark.parametrize("keep", ["simulation", "nothing", "baseline", "one star"])
def test_missing_measurements_are_said_so(name, keep, measured, tmp_path):
    chosen = {
        "simulation": measured["dataset"] == "simulation",
        "nothing": measured["dataset"] == "none",
        "baseline": measured["method"] == "sextractor",
        "one star": measured["truth_mag"] == measured["truth_mag"].iloc[0],
    }[keep]
    draw, n = DRAW[name]
    figure = draw(measured[chosen])
    check_empty(figure, tmp_path)
    assert len(panels(figure)) == n


def test_figure_1_counts_stars_and_a_history_shows_what_a_run_has_and_rates_as_misses():
    table = pd.DataFrame({"mag": [13.0, 14.1, 14.2, 19.99, 20.0, 21.0, 15.0], "kind": ["star"] * 6 + ["galaxy"]})
    table["counted"] = [True, True, False, True, True, False, False]
    (ax,) = panels(frames.figure_1(table))
    heights = [bar.get_height() for bar in ax.containers[0]]
    assert heights[0] == 1 and heights[2] == 1 and heights[-1] == 2 and sum(heights) == 4
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(labels) == ["all point sources (5)", "stars that count (4)"]
    assert texts(frames.figure_1(table.head(0))) == ["no stars"]
    table = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "val_precision": [0.9, 1.0], "val_mag_mae": [0.0, 0.0]})
    losses, validation = panels(training.history(table))
    assert losses.get_yscale() == "log" and [text.get_text() for text in losses.get_legend().get_texts()] == ["sum"]
    (line,) = [line for line in validation.lines if len(line.get_xdata())]
    np.testing.assert_allclose(line.get_ydata(), [0.1, training.SMALLEST])
    _, nothing = panels(training.history(table[["epoch", "loss"]]))
    assert nothing.texts[0].get_text() == "this run had no validation frames"


def test_drawn_psfs_stand_above_what_their_estimates_have_wrong():
    known = psfs.many(1, 2, (2.5, 4.0), 1)
    figure = training.drawn_psfs(known)
    above, below = panels(figure)[:2], panels(figure)[2:]
    shown = [ax.images[0].get_array() for ax in (*above, *below)]
    assert all(image[10, 10] == 0 == image.max() for image in shown[:2]), "the star is in the middle, its peak is 1"
    assert all(0.01 < np.abs(image).max() < 50 for image in shown[2:]), "per cent of the peak"
    assert [ax.get_title() for ax in below] == [f"{estimates[0].stars} stars" for _, estimates in known]
    assert overlaps(figure) == []


def test_figure_6_shows_the_threshold_and_the_right_rates(measured):
    sweep = panels(detection.figure_6(measured))[1]
    assert "simulation" in sweep.get_title()
    line = next(line for line in sweep.lines if line.get_label() == "recall")
    rows = measured.query("dataset == 'simulation' and method == 'pnet' and counted")
    at = np.searchsorted(line.get_xdata(), 0.5)
    threshold = line.get_xdata()[at]
    assert line.get_ydata()[at] == pytest.approx((rows["confidence"] >= threshold).mean())
    assert any(np.allclose(line.get_xdata(), 0.3) for line in sweep.lines)


def test_figure_7_counts_what_lies_beyond_its_frame_and_shows_the_spread_of_many(measured):
    wide = measured.copy()
    chosen = wide.index[(wide["method"] == "pnet") & (wide["dataset"] == "sdss") & (wide["status"] == "matched")][:2]
    wide.loc[chosen, ["mag", "mag_det", "mag_psf"]] += 1.0
    axes = panels(accuracy.figure_7(wide))
    assert any("PNet, SDSS" in ax.get_title() and "2 beyond" in ax.get_title() for ax in axes)
    assert "68 % of the stars" in [text.get_text() for text in axes[4].get_legend().get_texts()]
    assert axes[2].get_legend() is None


def test_figure_9_quotes_the_area_of_uncertainty_toolbox(measured):
    figure = accuracy.figure_9(measured, seed=1)
    rows = measured.query("dataset == 'simulation' and status == 'matched' and confidence >= 0.3")
    rows = rows.dropna(subset=["mag_err"])
    z = metrics.standardised(*rows[["truth_mag", "mag", "mag_err"]].to_numpy().T)
    area = calibration_metrics.miscalibration_area(z)
    note = next(text.get_text() for text in panels(figure)[2].texts if "area" in text.get_text())
    assert f"area {area:.3f}" in note and f"{len(rows)} stars" in note


def test_scatter_over_limit_of_several_methods(measured, tmp_path):
    book = ledger.Ledger(ledger.entries_from_measurements(measured, seed=1, groups=("photometry",)))
    methods = {"PNet": "pnet", "SExtractor": "sextractor", "SEP": "sep"}
    series = {label: f"simulation.{method}.mag_over_limit" for label, method in methods.items()}
    figure = over_limit.scatter(book, {"magnitude": series})
    (ax,) = panels(figure)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["PNet", "SExtractor"]
    assert ax.get_yscale() == "log" and overlaps(figure) == []
    check_empty(over_limit.scatter(ledger.Ledger(), {"magnitude": series}), tmp_path)


def test_figure_8_states_the_share_inside_its_circles_and_a_failed_save_leaves_no_file(tmp_path, monkeypatch, measured):
    figure = accuracy.figure_8(measured)
    assert "within 0.15 px:\n100.0 %" in panels(figure)[2].get_xlabel()
    monkeypatch.setattr(type(figure), "savefig", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        style.save(figure, tmp_path / "f.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("faintest", [20.0, 17.0])  # the second leaves bins without a copy
def test_a_check_shows_every_copy_and_each_bins_scatter(faintest, tmp_path):
    rng = np.random.default_rng(5)
    table = pd.DataFrame({"mag": rng.uniform(16, faintest, 160), "found": True})
    for name in copies.QUANTITIES:
        table[f"{name}_delta"], table[f"{name}_sigma"] = rng.normal(0, 0.02, 160), 0.02
    rows = copies.summary(table, (16, 17, 18, 19, 20), seed=1)
    check(lambda: twins.check(table, rows), tmp_path)
    assert texts(twins.check(table, rows)) == []
    table.loc[3, "mag_delta"] = 2.0
    figure = twins.check(table, rows)
    assert texts(figure) == ["1 beyond this range are drawn at its edge"]
    magnitudes = panels(figure)[0]
    shown = {line.get_label(): line.get_ydata() for line in magnitudes.lines}
    np.testing.assert_allclose(shown["a copy"], (1000 * table["mag_delta"]).clip(upper=magnitudes.get_ylim()[1]))
    check_empty(twins.check(table.head(0), copies.summary(table.head(0), (16, 17), seed=1)), tmp_path)
