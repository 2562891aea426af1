"""The refinement step: what it may change, what it must leave, and stars that are seen twice."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from pixel_psf import frame_with

from pnet.stars import refine as refinement
from pnet.stars.error_scale import ErrorScale, Scales
from pnet.stars.network import BayesianPhotometryNet, refiner_config
from pnet.stars.refine import refine


@pytest.fixture(scope="module")
def scene():
    """A frame with three stars and what a detection net might say of them, a tenth of a pixel off."""
    truth = pd.DataFrame({"x": [40.3, 90.0, 60.6], "y": [50.2, 80.4, 100.1], "flux": [3e5, 1e5, 3e4]})
    found = truth.assign(x=truth["x"] + 0.1, y=truth["y"] - 0.1, confidence=[0.9, 0.8, 0.7], fwhm=3.6)
    return frame_with(truth, (128, 128), np.random.default_rng(4)), truth, found


@pytest.fixture(scope="module")
def neutral():
    """A refiner that adds nothing to the classical estimates and whose σ is their expected error."""
    model = BayesianPhotometryNet(refiner_config("tiny"))
    model.calibrate_apertures()
    torch.nn.init.zeros_(model.head[-1].weight)
    torch.nn.init.zeros_(model.head[-1].bias)
    return model.eval()


def test_neutral_refiner_gives_the_windowed_centroid_and_the_aperture_flux(scene, neutral):
    frame, truth, found = scene
    result = refine(neutral, frame, found)
    for axis in ("x", "y"):
        assert (np.abs(result[axis] - truth[axis]) < 5 * result[f"{axis}_err"]).all()
        assert (np.abs(result[axis] - truth[axis]) < 0.03).all()
    assert np.allclose(result["flux"], truth["flux"], rtol=0.03)
    assert result["refined"].all()
    wider = refine(neutral, frame, found, Scales(x=ErrorScale(2.0)))
    np.testing.assert_allclose(wider["x_err"], 2 * result["x_err"])
    np.testing.assert_allclose(wider["y_err"], result["y_err"])


def biased(model, output, value):
    """A copy of a refiner with another bias of one of its outputs."""
    model = copy.deepcopy(model)
    torch.nn.init.constant_(model.head[-1].bias[output : output + 1], value)
    return model


@pytest.mark.parametrize("wild", ["far", "uncertain"])
def test_what_the_refiner_does_not_know_stays_as_the_net_saw_it(scene, neutral, wild):
    frame, _, found = scene
    # x by 100,000 times its error, or its σ by e^6
    result = refine(biased(neutral, *{"far": (1, 1e5), "uncertain": (4, 6.0)}[wild]), frame, found)
    kept = ~result["refined"]
    assert kept.any()
    for column in ("x", "y", "flux"):
        np.testing.assert_array_equal(result.loc[kept, column], found.loc[kept, column])
    assert (result.loc[kept, "x_err"] == refinement.REACH).all()


def test_one_star_seen_twice_is_kept_once(scene, neutral):
    frame, _, found = scene
    twin = found.iloc[:1].assign(x=found["x"].iloc[0] + 0.9, confidence=0.5)
    result = refine(neutral, frame, pd.concat([found, twin], ignore_index=True))
    assert len(result) == 3 and result["confidence"].min() == 0.7


@pytest.mark.parametrize(("confidence", "distance", "stays"), [(0.5, 4.0, False), (0.7, 4.0, True), (0.5, 9.0, True)])
def test_weak_peaks_beside_a_star_need_pixels_to_show_for(scene, neutral, confidence, distance, stays):
    frame, _, found = scene
    weak = found.iloc[:1].assign(x=found["x"].iloc[0] + distance, confidence=confidence)
    result = refine(biased(neutral, 4, 6.0), frame, pd.concat([found, weak], ignore_index=True))  # none is refined
    assert len(result) == (4 if stays else 3)


def test_no_star_is_no_star(scene, neutral):
    frame, _, found = scene
    assert len(refine(neutral, frame, found.iloc[:0])) == 0
