"""Recalibration: known factors are found, and what is saved is what is applied later."""

import json

import numpy as np
import pytest
from scipy import stats

from pnet.common import metrics
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.stars import recalibration


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
    recalibration.fit(*predictions(rng), "conformal").save(path)
    good = json.loads(path.read_text())
    for bad in (good | {"scores": [[1.0]]}, good | {"edges": ["x"]}, {"method": "conformal"}, good | {"scores": 1}):
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


def conformal(rng, n):
    """A conformal recalibration of n validation stars whose errors follow Student's t with 2 degrees of freedom."""
    return recalibration.Conformal((), (tuple(np.sort(np.abs(rng.standard_t(2, n)))),))


@pytest.mark.parametrize(("n", "level"), [(19, 0.95), (60, 0.68), (101, 0.9)])
def test_conformal_coverage_keeps_the_bounds_of_the_theorem(rng, n, level):
    """Over many validation sets the exact coverage averages level to level + 1/(n + 1) and follows a beta law."""
    covered = [1 - 2 * stats.t(2).sf(conformal(rng, n).factors(level)[0]) for _ in range(2000)]
    error = np.std(covered) / np.sqrt(len(covered))
    assert level - 4 * error <= np.mean(covered) <= level + 1 / (n + 1) + 4 * error
    rank = int(np.ceil((n + 1) * level - 1e-9))
    assert stats.kstest(covered, stats.beta(rank, n + 1 - rank).cdf).pvalue > 1e-3


def test_conformal_covers_every_magnitude_where_one_ratio_does_not(rng):
    """Heavy tails among the faint, σ five times too small among the bright: each bin keeps its own promise."""

    def draw(n):
        mean = rng.uniform(13, 20, n)
        sigma = 10 ** rng.uniform(-3, -1, n)
        noise = np.where(mean < 15, 5 * rng.standard_normal(n), rng.standard_t(2, n))
        return mean, sigma, mean + sigma * noise

    validation, (mean, sigma, truth) = draw(7000), draw(14_000)
    found = recalibration.fit(*validation, "conformal")
    ratio = recalibration.fit(*validation)
    assert (len(found.scores), found.notes, found.n) == (7, (), 7000)
    for level in (0.68, 0.95):
        low, high = found.interval(mean, sigma, level)
        inside = [np.mean(((low <= truth) & (truth <= high))[(mean >= m) & (mean < m + 1)]) for m in range(13, 20)]
        # binomial noise of 2,000 stars and the beta law of 1,000 validation stars
        assert np.abs(np.array(inside) - level).max() < 4 * np.sqrt(level * (1 - level) * (1 / 2000 + 1 / 1000))
    low, high = ratio.interval(mean, sigma, 0.68)
    assert np.mean(((low <= truth) & (truth <= high))[mean < 14]) < 0.4
    expected, observed = found.proportions(mean, sigma, truth)
    assert np.abs(expected - observed).max() < 0.02 and (observed[0], observed[-1]) == (0, 1)


def test_ratios_by_magnitude_follow_a_need_and_only_a_need(rng):
    def draw(n, bright):
        mean = rng.uniform(13, 20, n)
        sigma = 10 ** rng.uniform(-3, -1, n)
        return mean, sigma, mean + np.where(mean < 15, bright, 1.5) * sigma * rng.standard_normal(n)

    found = recalibration.fit(*draw(7000, 3.0), "ratios")
    assert found.ratios == pytest.approx([3, 3, 1.5, 1.5, 1.5, 1.5, 1.5], rel=0.1) and found.spread > 0.2
    mean, sigma, truth = draw(14_000, 3.0)
    z = (truth - mean) / found.apply(mean, sigma)
    assert [np.std(z[(mean >= m) & (mean < m + 1)]) for m in range(13, 20)] == pytest.approx([1] * 7, abs=0.1)
    low, high = found.interval(mean, sigma, 0.95)
    assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(0.95, abs=0.01)
    # without a need the bins' own noise (7 % each) must not become seven ratios
    errors = []
    for _ in range(10):
        same = recalibration.fit(*draw(1400, 1.5), "ratios")
        errors.append(np.std(np.log(same.ratios)))
    assert np.median(errors) < 0.02
    assert recalibration.fit(*draw(1400, 1.5), "ratios", edges=(13, 20)).edges == ()


def test_conformal_joins_small_bins_and_says_so(rng):
    mean = np.repeat([13.5, 14.5, 15.5, 16.5], [5, 30, 60, 200])
    found = recalibration.fit(mean, np.ones(295), mean + rng.standard_normal(295), "conformal", edges=range(13, 18))
    assert found.edges == (16.0,) and [len(values) for values in found.scores] == [95, 200]
    assert len(found.notes) == 2 and "13–14 (5 stars) and 14–15 (30 stars) joined" in found.notes[0]
    # what lies beyond the outer edges belongs to the outer bins
    low, high = found.interval(np.array([5.0, 13.5, 25.0]), np.ones(3), 0.9)
    assert (high - low)[0] == (high - low)[1] and (high - low)[2] == pytest.approx(2 * found.factors(0.9)[1])


def test_conformal_promises_nothing_that_its_stars_cannot_hold(rng):
    assert np.isfinite(conformal(rng, 19).factors(0.95)).all()
    assert np.isinf(conformal(rng, 18).factors(0.95)).all()
    with pytest.raises(DataError, match="inner edges"):
        recalibration.Conformal((15.0,), ((1.0, 2.0),))
    with pytest.raises(DataError, match="rise"):
        recalibration.Conformal((), ((2.0, 1.0),))
    mean, sigma, truth = predictions(rng, n=50)
    for wrong, name in (({"edges": (14, 13)}, "edges"), ({"smallest": 0}, "smallest")):
        with pytest.raises(ConfigError, match=name):
            recalibration.fit(mean, sigma, truth, "conformal", **wrong)
    with pytest.raises(ConfigError, match="level"):
        conformal(rng, 19).interval(mean, sigma, 0.0)
