"""Frames with galaxies: what counts, what is false, and a threshold chosen between the two."""

import numpy as np
import pandas as pd
import pytest
from measured import frame

from pnet.common import programs
from pnet.common.errors import DataError
from pnet.evaluation import detections, frames
from pnet.simulation import datasets
from pnet.sky import catalogue, matching


def sources(rows):
    return pd.DataFrame(rows, columns=["x", "y", "mag", "kind"]).assign(flux=lambda t: 10 ** (0.4 * (30 - t["mag"])))


def test_a_faint_neighbour_does_not_exclude_a_bright_star():
    places = [(50, 50), (55, 50), (120, 50), (125, 50), (50, 120), (55, 120), (200, 200), (5, 200), (200, 60)]
    # with a neighbour of a hundredth, of more and of just less than a tenth of its light; alone, in the border, faint
    mags = [17.0, 22.0, 17.0, 19.4, 16.9, 19.5, 19.0, 19.0, 20.5]
    table = sources([(*place, mag, "star") for place, mag in zip(places, mags, strict=True)])
    table.loc[3, "kind"] = "galaxy"
    counted = catalogue.mark_counted(table, frame("a"), contrast=frames.CONTRAST)["counted"]
    assert counted.tolist() == [True, False, False, False, True, False, True, False, False]
    assert catalogue.mark_counted(table, frame("a"))["counted"].sum() == 1  # the rule of the simple frames


def test_isolation_equals_a_loop_over_all_pairs(rng):
    x, y, mag = rng.uniform(0, 60, 40), rng.uniform(0, 60, 40), rng.uniform(13, 23, 40)
    wanted = [
        not any(i != j and np.hypot(x[i] - x[j], y[i] - y[j]) <= 10 and mag[j] < mag[i] + 2.5 for j in range(40))
        for i in range(40)
    ]
    assert catalogue.isolated(x, y, mag, 2.5).tolist() == wanted
    assert catalogue.isolated(x[:1], y[:1], mag[:1]).tolist() == [True]


@pytest.fixture
def rows():
    """Three stars, two galaxies that were found (one listed brighter than 20 mag), one faint star, one false."""
    places = [(50, 50), (100, 50), (150, 50), (50, 150), (100, 150), (150, 150), (4, 150)]
    mags, kinds = [17.0, 18.0, 19.0, 18.5, 20.5, 20.5, 18.5], ["star"] * 3 + ["galaxy"] * 2 + ["star", "galaxy"]
    truth = sources([(*place, *each) for place, *each in zip(places, mags, kinds, strict=True)])
    truth = catalogue.mark_counted(truth, frame("a"), contrast=frames.CONTRAST)
    found = truth.drop(index=2)[["x", "y", "mag", "flux"]].assign(confidence=[0.99, 0.9, 0.6, 0.5, 0.4, 0.8])
    false = pd.DataFrame({"x": [200.0], "y": [200.0], "mag": 21.0, "flux": 1.0, "confidence": 0.7})
    table = matching.compare(truth, pd.concat([found, false]), (256, 256))
    return table.assign(frame="a", method="pnet", dataset="realistic")


def test_rates_by_hand_the_sweep_and_the_choice(rows):
    at = detections.rates(rows)
    ignored = at["precision_galaxies_ignored"]
    assert (at["recall"].value, at["recall"].n) == (ignored.value, ignored.n) == (pytest.approx(2 / 3), 3)
    assert at["precision"].value == pytest.approx(2 / 4)  # the galaxy of 18.5 mag; the one in the border is left out
    assert at["precision_all_galaxies"].value == pytest.approx(2 / 5)
    table = detections.sweep(rows, thresholds=np.array([0.3, 0.65, 0.75]))
    assert [rate.value for rate in table["precision"]] == pytest.approx([2 / 4, 2 / 3, 1.0])
    assert [rate.value for rate in table["recall"]] == pytest.approx([2 / 3] * 3)
    for threshold, precision in table["precision"].items():
        assert detections.rates(matching.at_threshold(rows, threshold))["precision"] == precision
    chosen = detections.choose_threshold(rows)
    assert 0.7 < chosen <= 0.9  # above the false one, and not so high that a star is lost
    with pytest.raises(DataError, match="no threshold"):
        detections.choose_threshold(rows[rows["x"].isna()])
    with pytest.raises(DataError, match="2 methods"):
        detections.rates(pd.concat([rows, rows.assign(method="sep")]))


def test_a_frame_is_made_read_and_marked_where_a_folder_has_none_with_galaxies(tmp_path, monkeypatch):
    (tmp_path / "test").mkdir()
    monkeypatch.setenv("SKYMAKER_FRAMES", str(tmp_path))
    monkeypatch.setattr(programs.shutil, "which", lambda name: None)
    assert datasets.find_engine() == "frames" and datasets.find_engine("realistic") == "renderer"
    (tmp_path / "test" / "realistic-1.fits").touch()
    assert datasets.find_engine("realistic") == "frames"
    path = datasets.simulate(tmp_path, counts={"test": 1}, seed=3, kind="realistic", engine="renderer", progress=False)
    assert path == tmp_path / "realistic" / "simulation.json" and not (tmp_path / "simulation").exists()
    source = frames.simulated("realistic", tmp_path, 5, 3)
    ((made, truth),) = source
    assert source.details["engine"] == "renderer" and made.meta["FIELDKIN"] == "realistic"
    assert (truth["kind"] == "galaxy").any() and truth["counted"].any()
    assert truth.loc[truth["counted"], "mag"].between(13, 20).all()
