"""Figures: same data, same bytes; labelled, legible, and honest about what is missing."""

import matplotlib
import numpy as np
import pytest
from figure_checks import overlaps, panels
from measured import table
from PIL import Image

from pnet.book.figures import astrometry, detection, photometry, style, uncertainty
from pnet.common import metrics
from pnet.evaluation import ledger
from pnet.evaluation.entries import entries_from_measurements

DRAW = {
    "figure_6": (lambda t: detection.figure_6(t), 4),
    "figure_7": (lambda t: photometry.figure_7(t), 6),
    "figure_8": (lambda t: astrometry.figure_8(t), 3),
    "figure_9": (lambda t: uncertainty.figure_9(t, seed=1), 4),
}


@pytest.fixture(scope="module")
def measured():
    return table(seed=3, frames={"simulation": 12, "sdss": 1})


@pytest.mark.parametrize("name", DRAW)
def test_every_panel_is_labelled_and_nothing_overlaps(name, measured):
    draw, n = DRAW[name]
    figure = draw(measured)
    assert len(panels(figure)) == n
    for ax in panels(figure):
        assert ax.get_title() and ax.get_xlabel()
    assert overlaps(figure) == []


@pytest.mark.parametrize("name", DRAW)
def test_the_same_data_give_the_same_bytes(name, measured, tmp_path):
    draw, _ = DRAW[name]
    first = style.save(draw(measured), tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 40, "axes.facecolor": "red"}):  # a user's own settings must not matter
        second = style.save(draw(measured), tmp_path / "b.png")
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        assert image.info["dpi"][0] == pytest.approx(200, abs=1)
        assert not {"Software", "Creation Time", "date"} & set(image.info)
        assert image.width >= 1300


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
    texts = [text.get_text() for ax in panels(figure) for text in ax.texts]
    expected = {"simulation": True, "nothing": True, "baseline": True, "one star": True}[keep]
    assert ("no measurements" in texts) == expected
    assert len(panels(figure)) == n
    style.save(figure, tmp_path / "f.png")


def test_figure_6_shows_the_threshold_and_the_right_rates(measured):
    figure = detection.figure_6(measured)
    sweep = panels(figure)[1]
    assert "simulation" in sweep.get_title()
    line = next(line for line in sweep.lines if line.get_label() == "recall")
    rows = measured[(measured["dataset"] == "simulation") & (measured["method"] == "pnet") & measured["counted"]]
    at = np.searchsorted(line.get_xdata(), 0.5)
    threshold = line.get_xdata()[at]
    assert line.get_ydata()[at] == pytest.approx((rows["confidence"] >= threshold).mean())
    assert any(np.allclose(line.get_xdata(), 0.3) for line in sweep.lines)


def test_figure_7_counts_what_lies_beyond_its_frame(measured):
    wide = measured.copy()
    chosen = wide.index[(wide["method"] == "pnet") & (wide["dataset"] == "sdss") & (wide["status"] == "matched")][:2]
    wide.loc[chosen, ["mag", "mag_net"]] += 1.0
    titles = [ax.get_title() for ax in panels(photometry.figure_7(wide))]
    assert any("PNet, SDSS" in title and "2 beyond" in title for title in titles)


def test_figure_8_states_the_share_inside_its_circles(measured):
    label = panels(astrometry.figure_8(measured))[2].get_xlabel()
    assert "within 0.15 px:\n100.0 %" in label


def test_figure_9_quotes_the_area_of_uncertainty_toolbox(measured):
    figure = uncertainty.figure_9(measured, seed=1)
    rows = measured[
        (measured["dataset"] == "simulation") & (measured["status"] == "matched") & (measured["confidence"] >= 0.3)
    ].dropna(subset=["mag_err"])
    area = metrics.miscalibration_area(rows["truth_mag"], rows["mag"], rows["mag_err"])
    note = next(text.get_text() for text in panels(figure)[2].texts if "area" in text.get_text())
    assert f"area {area:.3f}" in note and f"{len(rows)} stars" in note


def test_scatter_over_limit_of_several_methods(measured, tmp_path):
    book = ledger.Ledger(entries_from_measurements(measured, seed=1, groups=("photometry",)))
    series = {"PNet": ("pnet", "mag"), "SExtractor": ("sextractor", "mag"), "SEP": ("sep", "mag")}
    figure = photometry.over_limit(book, series, "magnitude")
    (ax,) = panels(figure)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["PNet", "SExtractor"]
    assert ax.get_yscale() == "log" and overlaps(figure) == []
    nothing = photometry.over_limit(ledger.Ledger(), series, "magnitude")
    assert "no measurements" in [text.get_text() for text in panels(nothing)[0].texts]
    style.save(nothing, tmp_path / "n.png")


def test_a_failed_save_leaves_no_file(tmp_path, monkeypatch, measured):
    figure = astrometry.figure_8(measured)
    monkeypatch.setattr(type(figure), "savefig", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        style.save(figure, tmp_path / "f.png")
    assert list(tmp_path.iterdir()) == []
