"""Recalibration: known factors are found, and what is saved is what is applied later."""

import json

import numpy as np
import pytest
from scipy import stats

from pnet import metrics, recalibration
from pnet.errors import ConfigError, DataError, MissingError


def predictions(rng, n=3000, factor=1.0, heavy=False):
    """Truth and predictions whose σ must be multiplied by `factor`."""
    sigma = 10 ** rng.uniform(-3, -1, n)
    noise = rng.standard_t(3, n) if heavy else rng.standard_normal(n)
    truth = rng.uniform(13, 20, n)
    return truth + factor * sigma * noise, sigma, truth


@pytest.mark.parametrize("factor", [0.02, 0.15, 1.0, 6.0, 40.0])
def test_the_factor_is_found(rng, factor):
    found = recalibration.fit(*predictions(rng, factor=factor))
    assert found.ratio == pytest.approx(factor, rel=0.05)


def test_a_factor_from_validation_data_calibrates_other_data(rng):
    found = recalibration.fit(*predictions(rng, factor=0.2), data="val")
    mean, sigma, truth = predictions(rng, factor=0.2)
    before, after = (metrics.miscalibration_area(truth, mean, s) for s in (sigma, found.apply(sigma)))
    assert before > 0.3 and after < 0.02
    low, high = found.interval(mean, sigma, 0.95)
    assert np.mean((truth > low) & (truth < high)) == pytest.approx(0.95, abs=0.015)
    assert (found.n, found.data) == (3000, "val")


def test_isotonic_corrects_the_shape_where_one_factor_cannot(rng):
    validation, other = predictions(rng, heavy=True, n=6000), predictions(rng, heavy=True, n=6000)
    mean, sigma, truth = other
    ratio, isotonic = (recalibration.fit(*validation, method) for method in ("ratio", "isotonic"))
    areas = []
    for found in (ratio, isotonic):
        expected, observed = found.proportions(mean, sigma, truth)
        areas.append(np.mean(np.abs(expected - observed)))
    assert areas[1] < areas[0] and areas[1] < 0.01
    for level in (0.5, 0.9):
        low, high = isotonic.interval(mean, sigma, level)
        assert np.mean((truth > low) & (truth < high)) == pytest.approx(level, abs=0.02)
    # its σ is the half-width of the 68.3 % interval of Student's t with three degrees of freedom
    assert isotonic.ratio == pytest.approx(stats.t(3).ppf(0.5 + recalibration.ONE_SIGMA / 2), rel=0.05)


@pytest.mark.parametrize("method", recalibration.METHODS)
def test_what_is_read_is_what_was_saved(tmp_path, rng, method):
    found = recalibration.fit(*predictions(rng, factor=3, heavy=True), method, data="frames of val")
    found.save(tmp_path / "r.json")
    again = recalibration.load(tmp_path / "r.json")
    assert again == found
    mean, sigma, truth = predictions(rng, n=200)
    for first, second in zip(found.interval(mean, sigma, 0.8), again.interval(mean, sigma, 0.8), strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(found.proportions(mean, sigma, truth), again.proportions(mean, sigma, truth))


def test_bad_files(tmp_path, rng):
    path = tmp_path / "r.json"
    with pytest.raises(MissingError, match="r.json"):
        recalibration.load(path)
    recalibration.fit(*predictions(rng)).save(path)
    good = json.loads(path.read_text())
    for bad in (good | {"method": "magic"}, good | {"ratio": -1.0}, {"method": "ratio"}, [1], good | {"n": "many"}):
        path.write_text(json.dumps(bad))
        with pytest.raises(DataError, match="r.json"):
            recalibration.load(path)
    path.write_text('{"method": "rat')
    with pytest.raises(DataError, match="r.json"):
        recalibration.load(path)


def test_bad_input(rng):
    mean, sigma, truth = predictions(rng, n=50)
    with pytest.raises(ConfigError, match="method"):
        recalibration.fit(mean, sigma, truth, "platt")
    with pytest.raises(DataError, match="at least 20"):
        recalibration.fit(mean[:5], sigma[:5], truth[:5])
    with pytest.raises(DataError, match="sigma"):
        recalibration.fit(mean, 0 * sigma, truth)
    with pytest.raises(DataError, match="truth"):
        recalibration.fit(mean, sigma, np.full(50, np.nan))
    with pytest.raises(DataError, match="exactly"):
        recalibration.fit(truth, sigma, truth)
    with pytest.raises(ConfigError, match="level"):
        recalibration.fit(mean, sigma, truth).interval(mean, sigma, 1.0)
