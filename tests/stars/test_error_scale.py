"""Factor and floor of an error: what made the data is found, bad validation stars are named."""

import numpy as np
import pytest

from pnet.common.errors import DataError
from pnet.common.metrics import toolbox
from pnet.stars.error_scale import fit, scales_of


def predictions(rng, n=3000, factor=1.0):
    """Truth and predictions whose σ must be multiplied by `factor`."""
    sigma = 10 ** rng.uniform(-3, -1, n)
    truth = rng.uniform(13, 20, n)
    return truth + factor * sigma * rng.standard_normal(n), sigma, truth


@pytest.mark.parametrize("factor", [0.02, 0.15, 1.0, 6.0, 40.0])
def test_the_factor_is_found_and_calibrates_other_stars(rng, factor):
    found = fit(*predictions(rng, factor=factor), floor=False, data="val")
    assert found.ratio == pytest.approx(factor, rel=0.05) and (found.floor, found.n, found.data) == (0, 3000, "val")
    mean, sigma, truth = predictions(rng, factor=factor)
    assert toolbox().miscalibration_area(mean, found(sigma), truth) < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mean, sigma, truth: (mean[:5], sigma[:5], truth[:5]), "at least 20"),
        (lambda mean, sigma, truth: (mean, 0 * sigma, truth), "sigma"),
        (lambda mean, sigma, truth: (mean, sigma, truth * np.nan), "truth"),
        (lambda mean, sigma, truth: (truth, sigma, truth), "exactly"),
        (lambda mean, sigma, truth: (mean, 1e-6 * sigma, truth), "units"),
    ],
)
def test_stars_that_say_nothing_are_refused(rng, change, message):
    with pytest.raises(DataError, match=message):
        fit(*change(*predictions(rng, n=50)), floor=False, data="val")


def test_scales_of_a_card():
    scales = scales_of({"recalibration": {"x": {"ratio": 3.0, "floor": 4.0}}})
    assert scales["x"](1.0) == 5.0 and scales["y"](1.0) == 1.0
    assert scales_of({"recalibration": None}) == scales_of({}) == {}


def test_ratio_and_floor_are_found_again(rng):
    """Errors of 1.2 σ and a floor of 0.002 in quadrature, one in a hundred spoilt."""
    sigma = 10 ** rng.uniform(-3, -1, 4000)
    error = np.hypot(1.2 * sigma, 0.002) * rng.normal(size=sigma.size)
    error[:40] *= 20
    found = fit(np.zeros_like(error), sigma, error, floor=True, data="test")
    assert found.ratio == pytest.approx(1.2, rel=0.04) and found.floor == pytest.approx(0.002, rel=0.1)
