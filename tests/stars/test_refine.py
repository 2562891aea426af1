"""The refinement step: what it may change, what it must leave, and stars that are seen twice."""

import numpy as np
import pandas as pd
import pytest
import torch
from pixel_psf import pixel_psf

from pnet.frame import Frame
from pnet.stars import refine as refinement
from pnet.stars.error_scale import ErrorScale, Scales
from pnet.stars.network import BayesianPhotometryNet, refiner_config
from pnet.stars.refine import refine


@pytest.fixture(scope="module")
def scene():
    """A frame with three stars and what a detection net might say of them, a tenth of a pixel off."""
    rng = np.random.default_rng(4)
    image = np.full((128, 128), 280.0)
    truth = pd.DataFrame({"x": [40.3, 90.0, 60.6], "y": [50.2, 80.4, 100.1], "flux": [3e5, 1e5, 3e4]})
    for star in truth.itertuples():
        column, row = round(star.x), round(star.y)
        stamp = pixel_psf(1.4, 0.396, star.x - column, star.y - row, 41) * star.flux
        image[row - 20 : row + 21, column - 20 : column + 21] += stamp
    image = rng.poisson(image) + rng.normal(0, 5, image.shape)
    frame = Frame("f", image, np.maximum(image, 1) + 25, np.zeros(image.shape, bool), 4.0, 29.8, 5.0, 0.396, seeing=1.4)
    found = truth.assign(x=truth["x"] + 0.1, y=truth["y"] - 0.1, confidence=[0.9, 0.8, 0.7], fwhm=3.6)
    return frame, truth, found


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


@pytest.mark.parametrize("wild", ["far", "uncertain"])
def test_what_the_refiner_does_not_know_stays_as_the_net_saw_it(scene, neutral, wild):
    frame, _, found = scene
    model = BayesianPhotometryNet(refiner_config("tiny"))
    model.load_state_dict(neutral.state_dict())
    if wild == "far":
        torch.nn.init.constant_(model.head[-1].bias[1:2], 1e5)  # x by 100,000 times its error
    else:
        torch.nn.init.constant_(model.head[-1].bias[4:5], 6.0)  # σ of x by e^6
    result = refine(model, frame, found)
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
    model = BayesianPhotometryNet(refiner_config("tiny"))
    model.load_state_dict(neutral.state_dict())
    torch.nn.init.constant_(model.head[-1].bias[4:5], 6.0)  # nothing can be refined
    weak = found.iloc[:1].assign(x=found["x"].iloc[0] + distance, confidence=confidence)
    result = refine(model, frame, pd.concat([found, weak], ignore_index=True))
    assert len(result) == (4 if stays else 3)


def test_no_star_is_no_star(scene, neutral):
    frame, _, found = scene
    assert len(refine(neutral, frame, found.iloc[:0])) == 0
