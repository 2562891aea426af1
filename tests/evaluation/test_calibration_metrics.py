"""Measures of error bars against uncertainty-toolbox, closed forms and simulations."""

import numpy as np
import pytest
from scipy import stats

from pnet.common import metrics
from pnet.common.errors import DataError
from pnet.evaluation import calibration_metrics as calibration


def predictions(rng, n, factor=1.0):
    sigma = 10 ** rng.uniform(-3, -1, n)
    truth = rng.uniform(13, 20, n)
    return truth, truth + factor * sigma * rng.standard_normal(n), sigma


def test_crps_and_sharpness_are_those_of_uncertainty_toolbox_and_of_its_definition(rng):
    truth, mean, sigma = predictions(rng, 500, 1.7)
    values = calibration.crps(truth, mean, sigma)
    assert values.mean() == pytest.approx(metrics.toolbox().crps_gaussian(mean, sigma, truth), rel=1e-10)
    assert calibration.sharpness(sigma) == pytest.approx(metrics.toolbox().sharpness(sigma))
    x = np.linspace(-20, 20, 200_001)  # in σ; the integral of (F(x) − 1[x ≥ truth])² over all x
    for i in range(3):
        gap = stats.norm.cdf(x) - (x >= (truth[i] - mean[i]) / sigma[i])
        assert values[i] == pytest.approx(sigma[i] * np.trapezoid(gap**2, x), rel=1e-3)


def test_crps_of_a_perfect_prediction_is_sigma_over_root_pi(rng):
    truth, mean, sigma = predictions(rng, 200_000)
    expected = np.mean(sigma) * calibration.INVERSE_ROOT_PI
    assert calibration.crps(truth, mean, sigma).mean() == pytest.approx(expected, rel=0.01)
    for factor in (0.5, 2.0):  # a wrong σ can only make it worse
        assert calibration.crps(truth, mean, factor * sigma).mean() > 1.02 * expected


def test_pit_of_right_error_bars_is_uniform_and_the_test_knows(rng):
    p = [calibration.uniformity(calibration.pit(*predictions(rng, 1000)))[1] for _ in range(200)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3  # p values of a true hypothesis are uniform
    for wrong in (0.7, 1.4):
        chi2, p = calibration.uniformity(calibration.pit(*predictions(rng, 3000, wrong)))
        assert p < 1e-6 and chi2 > 3
    truth, mean, sigma = predictions(rng, 3000)
    assert calibration.uniformity(calibration.pit(truth, mean - 0.3 * sigma, sigma))[1] < 1e-6
    for values, message in ((np.linspace(0, 1, 99), "at least 5 a bin"), (np.linspace(0, 1.1, 200), "between 0 and 1")):
        with pytest.raises(DataError, match=message):
            calibration.uniformity(values)


@pytest.mark.parametrize("factor", [0.5, 0.97, 1.0, 1.1, 3.0])
@pytest.mark.parametrize("n", [7, 300, 4000])
def test_area_is_that_of_uncertainty_toolbox(rng, n, factor):
    truth, mean, sigma = predictions(rng, n, factor)
    found = calibration.miscalibration(truth, mean, sigma, seed=1)
    assert found.value == pytest.approx(metrics.toolbox().miscalibration_area(mean, sigma, truth), abs=1e-9)
    assert found.n == n and found.low <= found.high


def test_interval_of_the_area_is_the_bootstrap_over_stars(rng):
    truth, mean, sigma = predictions(rng, 400, 1.5)
    found = calibration.miscalibration(truth, mean, sigma, seed=1, resamples=2000)
    draws = [rng.integers(0, 400, 400) for _ in range(1500)]
    areas = [calibration.miscalibration_area(truth[i], mean[i], sigma[i]) for i in draws]
    assert found.low == pytest.approx(np.quantile(areas, 0.025), abs=0.005)
    assert found.high == pytest.approx(np.quantile(areas, 0.975), abs=0.005)


def test_floor_of_the_area(rng):
    for n in (66, 2000):
        found = calibration.perfect(n, seed=1)
        areas = [calibration.miscalibration_area(*predictions(rng, n)) for _ in range(100)]
        assert found.value == pytest.approx(np.mean(areas), rel=0.15)
        assert found.low < found.value < found.high
        assert np.mean(np.array(areas) <= found.high) > 0.9
    assert calibration.perfect(14_000, seed=1).value == pytest.approx(0.0028, abs=2e-4)
    assert calibration.miscalibration_floor(14_000, seed=1) == pytest.approx(0.0028, abs=0.0008)
    assert np.isnan(calibration.perfect(0, seed=1).value) and np.isnan(calibration.miscalibration_floor(0, seed=1))


def test_nothing_to_measure():
    nothing = np.array([])
    assert np.isnan(calibration.miscalibration(nothing, nothing, nothing, seed=1).value)
    with pytest.raises(DataError, match="sigma"):
        calibration.crps(np.ones(2), np.ones(2), np.array([1.0, 0.0]))
