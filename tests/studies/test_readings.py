"""Readings of Table 2: the four numbers of errors whose distribution is known, and what is solved for."""

import numpy as np
import pytest

from pnet.evaluation.ledger import paper_values
from studies import readings
from studies.figures import readings as drawn
from studies.readings import Reading

MANY = 400_000
FLAT = {"depth": np.inf, "slope": 0.0}


def test_errors_of_one_relative_size_have_the_numbers_of_a_gaussian():
    found = readings.experiment(Reading("", floor=0.01, bars=2.0, **FLAT), {}, 1, MANY)
    assert found["mae"] == pytest.approx(0.01 * np.sqrt(2 / np.pi), rel=0.01)
    assert found["sigma_nmad"] == pytest.approx(0.01 / 17.5, rel=0.01), "1 + mag is 17.5 in the mean"
    assert found["eta"] == pytest.approx(0.0027, rel=0.1) and found["e_bar"] == pytest.approx(0.02, rel=0.01)


def test_the_mean_of_fifty_draws_is_off_by_a_seventh_of_their_spread():
    found = readings.experiment(Reading("", width=0.07, **FLAT), {}, 1, MANY)
    assert found["e_bar"] == 0.07
    assert found["mae"] == pytest.approx(0.07 / np.sqrt(50) * np.sqrt(2 / np.pi), rel=0.01)


def test_photon_noise_falls_with_the_root_of_the_exposure_and_vanishes():
    mag = np.array([14.0, 17.0, 20.0])
    once, four = (readings.bound(mag, depth, 0.0) for depth in (10.0, 40.0))
    np.testing.assert_allclose(once / four, 2, rtol=0.05)
    assert (readings.bound(mag, 1.0, 1.0) > readings.bound(mag, 1.0, 0.0)).all()
    assert not readings.bound(mag, np.inf, 1.0).any()


@pytest.mark.parametrize("slope", [-0.3, 0.0, 0.2])
def test_counts_rise_with_their_slope(slope):
    mag = readings.magnitudes(slope, 20.0, np.random.default_rng(2).random(MANY))
    counts, _ = np.histogram(mag, np.arange(13, 21))
    assert mag.min() > 13 and mag.max() < 20
    np.testing.assert_allclose(np.diff(np.log10(counts)), slope, atol=0.02)


def test_what_is_left_open_is_solved_for_with_the_papers_numbers():
    paper = readings.stated(paper_values())
    assert paper["sdss"]["eta"] == 3.143e-3
    last = readings.READINGS[-1]
    values = readings.solved(last, paper["sdss"])
    assert set(values) == set(last.free) == {"width", "floor", "slope"}
    found = readings.experiment(last, values, 3, MANY)
    for name in ("mae", "sigma_nmad", "e_bar"):
        assert found[name] == pytest.approx(paper["sdss"][name], rel=0.01)
    # SDSS's MAE is above the limit: no longer exposure gives it, and the nearest is SDSS's own
    assert readings.solved(Reading("", depth=None), paper["sdss"]) == {"depth": 1.0}


def test_figure_and_table_hold_every_reading(monkeypatch):
    monkeypatch.setattr(readings, "DRAWS", 3)
    paper = {"simulation": readings.stated(paper_values())["simulation"]}
    rows = readings.compare(paper, seed=5)
    assert [row["reading"] for row in rows] == [reading.name for reading in readings.READINGS]
    table = readings.table(rows, paper)
    assert len(table) == len(rows) + 1 and table["η / %"][0] == "0.188" and table["η / %"][1].startswith("(")
    figure = drawn.rows(rows, paper)
    assert len(figure.axes[0].get_yticks()) == len(rows)
