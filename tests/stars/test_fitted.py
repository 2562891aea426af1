"""From detections to fitted stars: each once, none that is none, and what unusable pixels do."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from pixel_psf import PROFILES, drawn, frame_of, frame_with, grid_of_stars, guessed, on_pixels

from pnet.sky import background
from pnet.sky.psf_fit import cut
from pnet.stars.fitted import CERTAIN, bare_stamps, fitted_stars, is_same, unusable
from pnet.stars.inputs import make_inputs


def measured(frame, found):
    """Return what is kept of detections, and the table of its fit."""
    kept, stars, _ = fitted_stars(frame, found, background.subtracted(frame))
    assert len(kept) == len(stars.x)
    return kept, stars.table()


@pytest.mark.parametrize("name", PROFILES)
def test_stars_of_foreign_psfs_are_measured_to_their_error_bars(name):
    """No family of ours made these stars: bright and faint ones keep their ratio, and errors what they say."""
    truth = grid_of_stars(100, seed=3)
    frame = drawn(on_pixels(PROFILES[name]), truth)
    kept, stars, _ = fitted_stars(frame, guessed(truth, seed=5), background.subtracted(frame))
    found = stars.table()
    assert stars.psf.stars > 30 and len(kept) == 100
    error = np.hypot(found["flux_err"], found["flux_psf"]) / found["flux"]
    ratio = np.log(found["flux"] / truth["flux"])
    bright = truth["flux"] > 1e5
    common = np.median(ratio[bright])  # what a PSF of unknown wings counts as the whole of a star
    assert abs(common) < 0.05
    assert abs(np.median(ratio[~bright]) - common) < 0.006
    pull = (ratio - common) / error
    assert 0.5 < np.std(pull[bright]) < 1.3 and 0.75 < np.std(pull[~bright]) < 1.3
    for axis in ("x", "y"):
        delta = found[axis] - truth[axis]
        pull = (delta - np.median(delta[bright])) / np.hypot(found[f"{axis}_err"], found[f"{axis}_psf"])
        assert 0.75 < np.std(pull) < 1.3


@pytest.fixture(scope="module")
def scene():
    """A frame with three stars and what a detection net might say of them, a tenth of a pixel off."""
    truth = pd.DataFrame({"x": [40.3, 90.0, 60.6], "y": [50.2, 80.4, 100.1], "flux": [3e5, 1e5, 3e4]})
    found = truth.assign(x=truth["x"] + 0.1, y=truth["y"] - 0.1, confidence=[0.9, 0.8, 0.7], fwhm=3.6)
    return frame_with(truth, (128, 128), np.random.default_rng(4)), truth, found


def test_stars_keep_their_order_and_their_columns(scene):
    frame, truth, found = scene
    kept, table = measured(frame, found)
    pd.testing.assert_frame_equal(kept, found)
    for name in ("x", "y", "flux"):
        assert (np.abs(table[name] - truth[name]) < 5 * np.hypot(table[f"{name}_err"], table[f"{name}_psf"])).all()


def test_one_star_seen_three_times_is_kept_once(scene):
    """As from both sides of a border between patches, with all its light each time; the most confident one stays."""
    frame, _, found = scene
    twins = [found.iloc[:1].assign(x=found["x"].iloc[0] + step, confidence=0.65) for step in (0.9, -1.2)]
    kept, _ = measured(frame, pd.concat([found, *twins], ignore_index=True))
    pd.testing.assert_frame_equal(kept, found)


@pytest.mark.parametrize(("confidence", "distance", "stays"), [(0.5, 4.0, False), (0.7, 4.0, True), (0.5, 9.0, True)])
def test_a_weak_peak_beside_a_star_needs_pixels_to_show_for(scene, confidence, distance, stays):
    frame, _, found = scene
    weak = found.iloc[:1].assign(x=found["x"].iloc[0] + distance, flux=300.0, confidence=confidence)
    kept, _ = measured(frame, pd.concat([found, weak], ignore_index=True))
    assert len(kept) == (4 if stays else 3)


def test_a_faint_star_beside_a_bright_one_stays(scene):
    _, truth, found = scene
    both = pd.concat([truth, truth.iloc[:1].assign(x=45.3, flux=2e4)], ignore_index=True)
    frame = frame_with(both, (128, 128), np.random.default_rng(6))
    kept, table = measured(frame, both.assign(confidence=[*found["confidence"], 0.5], fwhm=3.6))
    assert len(kept) == 4 and table["flux"].iloc[3] == pytest.approx(2e4, rel=0.03)


def test_masked_and_saturated_pixels_do_not_count(scene):
    """Half the core of one star is masked and the other's middle is saturated: whatever stands there, they are measured
    within their errors."""
    _, truth, found = scene
    tables = []
    for value in (0.0, 9e4):
        frame = frame_with(truth, (128, 128), np.random.default_rng(4))
        frame.image[80:83, 88:91], frame.image[49:52, 40] = value, 3e5
        frame.mask[80:83, 88:91] = True
        frame.saturation = 1e5
        tables.append(measured(frame, found)[1])
        for name in ("x", "y", "flux"):
            error = np.hypot(tables[-1][f"{name}_err"], tables[-1][f"{name}_psf"])
            assert (np.abs(tables[-1][name] - truth[name]) < 5 * error).all(), name
    np.testing.assert_allclose(*tables, rtol=2e-3)
    whole = measured(scene[0], found)[1]
    assert (tables[0]["flux_err"] / whole["flux_err"])[:2].min() > 1.1


def test_what_is_beside_a_saturated_pixel_is_not_used_either():
    frame = frame_of(np.full((9, 9), 280.0), saturation=1e4)
    frame.image[2, 2], frame.mask[7, 7] = 2e4, True
    rows, columns = np.nonzero(unusable(frame))
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == {(7, 7), *itertools.product((1, 2, 3), (1, 2, 3))}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_frame_without_enough_stars_keeps_the_prior(count):
    truth = grid_of_stars(9, seed=3).iloc[:count]
    frame = drawn(on_pixels(PROFILES["Moffat"]), truth)
    found, stars, _ = fitted_stars(frame, truth, background.subtracted(frame))
    assert stars.psf.stars == 0 and len(found) == count
    assert np.isfinite(stars.table().to_numpy()).all() and len(make_inputs(stars)) == count


def test_a_star_without_a_usable_pixel_is_not_certain():
    frame = drawn(on_pixels(PROFILES["Moffat"]), grid_of_stars(9, seed=3))
    frame.mask[200:290, 200:290] = True
    stars = fitted_stars(frame, grid_of_stars(9, seed=3), background.subtracted(frame))[1]
    assert stars.table()["x_err"].iloc[4] > 1 and (stars.table()["x_err"].drop(4) < 0.1).all()
    assert make_inputs(stars).scale[4].tolist() == [0.5, 0.5, 0.5]


def test_light_of_a_bright_neighbour_is_taken_off():
    """Two stars 14 px apart, one a hundred times the other: of its light there at most 5 % is left."""
    stars = pd.DataFrame({"x": [100.2, 114.0], "y": [99.7, 101.3], "flux": [2e4, 2e6], "confidence": 0.9, "fwhm": 3.6})
    more = grid_of_stars(36, seed=2)
    every = pd.concat([stars, more[np.hypot(more["x"] - 107, more["y"] - 100) > 60]], ignore_index=True)
    profile = on_pixels(PROFILES["Moffat"])
    frame = drawn(profile, every)
    found = fitted_stars(frame, every, background.subtracted(frame))[1]
    theirs = torch.from_numpy(drawn(profile, stars.iloc[1:], sky=0.0, noise=False).image)[None]
    theirs = cut(theirs, found.x[:1], found.y[:1], found.others.shape[-1])
    left = (theirs - found.others[:1]).sum()
    assert float(theirs.sum()) > 1e4 and abs(float(left)) < 0.05 * float(theirs.sum())


def test_the_sky_is_that_beside_the_stars(rng):
    """A first sky 2 electrons too high, as among bright stars' aureoles, is mended; bare pixels keep it."""
    frame = frame_of(np.round(rng.poisson(280.0, (256, 256)) / 4.0) * 4.0, seeing=1.4)
    x, y = np.meshgrid(np.linspace(30, 226, 6), np.linspace(30, 226, 6))
    stars = pd.DataFrame({"x": x.flatten(), "y": y.flatten(), "flux": 1.0, "confidence": 1.0})
    wrong = background.Subtracted(frame.image - 282.0, 16.7, 16.7)
    kept, found, _ = fitted_stars(frame, stars.assign(fwhm=3.6), wrong)
    light = found.fit.residual + found.fit.flux[:, None, None] * found.fit.share[0]
    assert float(light.mean()) == pytest.approx(0, abs=1.0)
    bare = bare_stamps(wrong, kept, 21)
    assert bare.shape == (36, 21, 21) and float(bare.mean()) == pytest.approx(-2, abs=1.0)


def test_what_is_far_from_a_detection_or_uncertain_is_another_star():
    found = pd.DataFrame({"x": [10.0, 20.0, 30.0], "y": 5.0})
    place = found.to_numpy() + [[0.9, 0], [0, 1.1], [0, 0]]
    error = np.array([[0.1, 0.1], [0.1, 0.1], [0.1, 1.1 * CERTAIN]])
    assert is_same(place, error, found, 1.5).tolist() == [True, False, False]
    assert is_same(place, error, found, 2.0).all(), "a wider PSF allows more"
