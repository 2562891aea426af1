"""Measures of error bars against uncertainty-toolbox, closed forms and simulations."""

import numpy as np
import pytest
from scipy import stats

from pnet.common import metrics
from pnet.common.errors import DataError
from pnet.evaluation import calibration_metrics as calibration


def test_crps_and_sharpness_are_those_of_uncertainty_toolbox_and_of_its_definition(rng):
    sigma, z = 10 ** rng.uniform(-3, -1, 500), 1.7 * rng.standard_normal(500)
    values = calibration.crps(z, sigma)
    assert values.mean() == pytest.approx(metrics.toolbox().crps_gaussian(0 * z, sigma, z * sigma), rel=1e-10)
    assert calibration.sharpness(sigma) == pytest.approx(metrics.toolbox().sharpness(sigma))
    x = np.linspace(-20, 20, 200_001)  # in σ; the integral of (F(x) − 1[x ≥ truth])² over all x
    for i in range(3):
        gap = stats.norm.cdf(x) - (x >= z[i])
        assert values[i] == pytest.approx(sigma[i] * np.trapezoid(gap**2, x), rel=1e-3)
    z = rng.standard_normal(200_000)  # of a perfect prediction σ/√π
    assert calibration.crps(z, 1.0).mean() == pytest.approx(calibration.INVERSE_ROOT_PI, rel=0.01)
    for factor in (0.5, 2.0):  # a wrong σ can only make it worse
        assert calibration.crps(z / factor, factor).mean() > 1.02 * calibration.INVERSE_ROOT_PI


def test_pit_of_right_error_bars_is_uniform_and_the_test_knows(rng):
    p = [calibration.uniformity(rng.standard_normal(1000))[1] for _ in range(200)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3  # p values of a true hypothesis are uniform
    z = rng.standard_normal(3000)
    for wrong in (0.7 * z, 1.4 * z):
        chi2, p = calibration.uniformity(wrong)
        assert p < 1e-6 and chi2 > 3
    assert calibration.uniformity(z + 0.3)[1] < 1e-6
    with pytest.raises(DataError, match="at least 5 a bin"):
        calibration.uniformity(z[:99])


@pytest.mark.parametrize("factor", [0.5, 0.97, 1.0, 1.1, 3.0])
@pytest.mark.parametrize("n", [7, 300, 4000])
def test_area_is_that_of_uncertainty_toolbox(rng, n, factor):
    z = factor * rng.standard_normal(n)
    found = calibration.miscalibration(z, seed=1)
    assert found.value == pytest.approx(metrics.toolbox().miscalibration_area(0 * z, 1 + 0 * z, z), abs=1e-9)
    assert found.n == n and found.low <= found.high


def test_interval_of_the_area_is_the_bootstrap_over_stars(rng):
    z = 1.5 * rng.standard_normal(400)
    counted, drawn = (calibration.miscalibration(z, seed=1, by_star=by_star) for by_star in (False, True))
    ends = np.quantile([calibration.miscalibration_area(rng.choice(z, 400)) for _ in range(1500)], [0.025, 0.975])
    for found in (counted, drawn):
        assert (found.low, found.high) == pytest.approx(ends, abs=0.009)


def test_floor_of_the_area(rng):
    for n in (66, 2000):
        found = calibration.perfect(n, seed=1)
        areas = [calibration.miscalibration_area(rng.standard_normal(n)) for _ in range(100)]
        assert found.value == pytest.approx(np.mean(areas), rel=0.15)
        assert found.low < found.value < found.high
        assert np.mean(np.array(areas) <= found.high) > 0.9
    assert calibration.perfect(14_000, seed=1).value == pytest.approx(0.0028, abs=2e-4)
    assert calibration.miscalibration_floor(14_000, seed=1) == pytest.approx(0.0028, abs=0.0008)
    assert np.isnan(calibration.perfect(0, seed=1).value) and np.isnan(calibration.miscalibration_floor(0, seed=1))
    assert np.isnan(calibration.miscalibration(np.array([]), seed=1).value)
