"""Baselines on rendered fields with known stars, and SExtractor on real SkyMaker frames where there are any."""

import numpy as np
import pandas as pd
import pytest
from conftest import needs_program

from pnet import baselines, matching
from pnet.errors import ConfigError, DataError, MissingError
from pnet.frame import Frame

sextractor = needs_program(*baselines.PROGRAMS)
METHODS = [pytest.param(baselines.SExtractor, marks=sextractor, id="sextractor"), pytest.param(baselines.Sep, id="sep")]
SIGMA = 1.6  # px


def field(rng, n=12, shape=(200, 300), mask=None, seeing=1.4):
    """Gaussian stars of 15 to 19 mag on a grid, so that none is near another."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    places = [(x, y) for y in range(30, shape[0] - 20, 45) for x in range(30, shape[1] - 20, 45)][:n]
    truth = pd.DataFrame(places, columns=["x", "y"]) + rng.uniform(-0.5, 0.5, (len(places), 2))
    truth["flux"] = 10 ** rng.uniform(4.4, 6, len(truth))
    expected = np.full(shape, 270.0)
    for x, y, flux in truth.itertuples(index=False):
        r2 = (columns - x) ** 2 + (rows - y) ** 2
        expected += flux * np.exp(-r2 / (2 * SIGMA**2)) / (2 * np.pi * SIGMA**2)
    image = rng.poisson(expected) + rng.normal(0, 5, shape)
    mask = np.zeros(shape, bool) if mask is None else mask
    frame = Frame("field", image, expected + 25, mask, 3.8, 30.0, 5.0, 0.396, seeing=seeing)
    truth["mag"] = frame.magnitude(truth["flux"])
    return frame, truth.assign(kind="star", counted=True)


@pytest.mark.parametrize("method", METHODS)
def test_finds_and_measures_every_star(method, rng):
    frame, truth = field(rng)
    found = method()(frame)
    assert {"x", "y", "confidence", "flux", "mag", "mag_err", "snr", "class_star", "flags"} <= set(found.columns)
    rows = matching.compare(truth, found, frame.shape)
    assert (rows["status"] == "matched").sum() == len(truth)
    assert (rows["status"] == "false").sum() == 0
    # 1-based positions of the program arrive counted from 0
    assert np.abs(rows["x"] - rows["truth_x"]).max() < 0.1 and np.abs(rows["y"] - rows["truth_y"]).max() < 0.1
    error = rows["mag"] - rows["truth_mag"]
    assert 0 <= error.median() < 0.1  # apertures lose a little light
    assert error.std() < 0.05
    assert found["confidence"].between(0, 1).all()
    assert np.corrcoef(found["confidence"].rank(), found["snr"].rank())[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("method", METHODS)
def test_a_mask_and_an_unknown_seeing(method, rng):
    mask = np.zeros((200, 300), bool)
    mask[:, 100:110] = True
    frame, truth = field(rng, mask=mask, seeing=None)
    frame.image[:, 100:110] = 1e6
    rows = matching.compare(truth, method()(frame), frame.shape, mask=mask)
    far = np.abs(rows["truth_x"] - 105) > 20
    assert (rows.loc[far & rows["counted"], "status"] == "matched").all()
    error = rows.loc[far & rows["counted"], "mag"] - rows.loc[far & rows["counted"], "truth_mag"]
    assert error.abs().max() < 0.15  # the mask must not spoil the photometry of the others
    assert (rows["status"] == "false").sum() == 0


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_frame_gives_an_empty_table(method, rng):
    image = 270 + rng.normal(0, 5, (128, 128))
    frame = Frame("empty", image, np.full_like(image, 25.0), np.zeros(image.shape, bool), 3.8, 30.0, 5.0, 0.396)
    found = method(threshold=10.0)(frame)
    assert len(found) == 0 and "confidence" in found.columns


@pytest.mark.parametrize("method", [baselines.SExtractor, baselines.Sep])
def test_threshold_must_be_positive(method):
    with pytest.raises(ConfigError, match="threshold"):
        method(threshold=0)


def test_missing_program_is_named_with_the_way_to_get_it(monkeypatch, rng):
    monkeypatch.setattr(baselines.shutil, "which", lambda name: None)
    with pytest.raises(MissingError, match="conda install"):
        baselines.SExtractor()(field(rng)[0])
    assert baselines.baseline().name == "sep"
    assert baselines.SExtractor().version() == "not installed"


def test_a_failing_program_names_the_frame(monkeypatch, rng, tmp_path):
    program = tmp_path / "sex"
    program.write_text("#!/bin/sh\necho bad luck >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"frame field: SExtractor failed \(3\): bad luck"):
        baselines.SExtractor()(field(rng)[0])


def test_confidence_rises_from_0_and_is_half_at_5_sigma():
    confidence = baselines.confidence_of(np.array([-1.0, 0.0, 5.0, 1e9, np.nan]))
    assert confidence == pytest.approx([0, 0, 0.5, 1, 0])


def test_the_offset_is_that_of_matched_stars_only():
    table = pd.DataFrame(
        {
            "status": ["matched", "matched", "matched", "false", "missed"],
            "truth_x": [1.0, 2.0, 3.0, np.nan, 9.0],
            "x": [1.1, 2.1, 3.3, 50.0, np.nan],
            "truth_mag": [15.0, 16.0, 17.0, np.nan, 19.0],
            "mag": [15.2, 16.2, np.nan, 18.0, np.nan],
        }
    )
    corrected, offsets = baselines.remove_offset(table, ("x", "mag"))
    assert offsets == pytest.approx({"x": 0.1, "mag": 0.2})
    assert corrected["x"].iloc[:4].tolist() == pytest.approx([1.0, 2.0, 3.2, 49.9])
    assert table["x"].iloc[0] == 1.1  # the table given is left alone
    assert baselines.remove_offset(table.iloc[3:], ("x",))[1] == {"x": 0.0}


@sextractor
def test_two_implementations_agree_on_real_frames(shared):
    """SExtractor's numbers on test/paper-* are in shared/README.md; here a few frames, against SEP."""
    from pnet import evaluation, evaluation_frames, scores

    files = sorted((shared / "skymaker" / "test").glob("paper-*.fits"))[:8]
    frames = evaluation.frames_from(files, evaluation_frames.read_simulated)
    measurers = {"sextractor": baselines.SExtractor(), "sep": baselines.Sep()}
    table = evaluation.evaluate(frames, measurers, "simulation")
    for method in measurers:
        precision, recall = scores.rates(table[table["method"] == method])
        assert precision.value > 0.99 and recall.value > 0.97
    pair = [scores.select(table, "simulation", method) for method in measurers]
    both = pair[0].merge(pair[1], on=["frame", "truth_x", "truth_y"]).query("status_x == status_y == 'matched'")
    assert len(both) > 200
    assert np.median(np.abs(both["x_x"] - both["x_y"])) < 0.002
    # Faint stars differ by their skies: SExtractor's median of whole ADU jumps by a step, ours does not.
    bright = both[both["truth_mag_x"] < 17]
    assert len(bright) > 50 and np.median(np.abs(bright["mag_x"] - bright["mag_y"])) < 0.01
