"""Metrics against hand-made lists, closed forms and independent implementations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pnet.common import metrics
from pnet.common.errors import ConfigError, DataError

CONFIDENCES = st.lists(st.integers(0, 20).map(lambda value: value / 20), max_size=30)
VALUES = st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=40).map(np.array)


def test_wilson_interval_is_the_textbook_formula():
    k, n, z = 66, 71, 1.959964
    centre = (k / n + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
    estimate = metrics.rate(k, n)
    assert (estimate.value, estimate.n) == (k / n, n)
    assert estimate.low == pytest.approx(centre - half, abs=1e-7)
    assert estimate.high == pytest.approx(centre + half, abs=1e-7)


@given(st.integers(0, 500), st.integers(0, 500))
def test_every_rate_lies_in_its_interval(right, wrong):
    found = metrics.rate(right, right + wrong)
    if right + wrong:
        assert found.value == right / (right + wrong) and 0 <= found.low <= found.value <= found.high <= 1
    else:
        assert np.isnan(found.value) and found.n == 0


@given(CONFIDENCES, CONFIDENCES, st.integers(0, 10))
def test_curves_agree_with_counting(true, false, missed):
    """Precision and recall at every threshold by hand; the area lies in 0 to 1, and the envelope is no smaller."""
    n = len(true) + missed
    precision, recall, thresholds = metrics.precision_recall_curve(true, false, n)
    for one, share, threshold in zip(precision, recall, thresholds, strict=True):
        kept, wrong = (sum(value >= threshold for value in values) for values in (true, false))
        assert one == kept / (kept + wrong) and (n == 0 or share == kept / n)
    if n:
        areas = [metrics.average_precision(precision, recall, how) for how in ("step", "envelope")]
        assert -1e-12 <= areas[0] <= areas[1] + 1e-12 and areas[1] <= 1 + 1e-12
    if n and not false:
        assert areas[0] == pytest.approx(len(true) / n)


@given(VALUES, st.floats(0.1, 10), st.floats(-100, 100))
def test_scatter_follows_the_unit_and_not_the_zero_point(values, factor, shift):
    for scatter in (metrics.robust_scatter, metrics.plain_scatter):
        assert scatter(factor * values + shift) == pytest.approx(factor * scatter(values), rel=1e-6, abs=1e-6)


@given(st.lists(st.sampled_from([-501, -500, 0, 9, 10, 500, 501]) | st.floats(-600, 600)).map(np.array))
def test_bins_are_half_open_and_the_last_is_closed(values):
    edges = [-500, 0, 10, 500]
    members = metrics.by_bin(values, np.array(edges))
    for member, low, high in zip(members, edges, edges[1:], strict=False):
        assert (member == ((values >= low) & ((values < high) | (values == high) & (high == 500)))).all()


def test_average_precision_of_a_hand_made_list():
    # by falling confidence: true, false, true, true, false; four stars, one never found
    precision, recall, thresholds = metrics.precision_recall_curve([0.9, 0.7, 0.6], [0.8, 0.5], 4)
    assert thresholds.tolist() == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert precision.tolist() == [1, 1 / 2, 2 / 3, 3 / 4, 3 / 5]
    assert recall.tolist() == [0.25, 0.25, 0.5, 0.75, 0.75]
    step = metrics.average_precision(precision, recall, "step")
    assert step == pytest.approx(0.25 * 1 + 0.25 * 2 / 3 + 0.25 * 3 / 4)
    envelope = metrics.average_precision(precision, recall)
    assert envelope == pytest.approx(0.25 * 1 + 0.25 * 3 / 4 + 0.25 * 3 / 4)


def test_equations_5_and_6_by_hand():
    truth, measured = np.array([14.0, 16.0, 19.0]), np.array([14.1, 15.8, 19.0])
    assert metrics.magnitude_error(truth, measured) == pytest.approx([-0.1, 0.2, 0.0])
    assert metrics.relative_error(truth, measured) == pytest.approx([-0.1 / 15, 0.2 / 17, 0.0])
    # median error 0, so the scaled deviations are 0.1/15, 0.2/17 and 0; their median is the first
    assert metrics.sigma_nmad(truth, truth - measured, seed=1).value == pytest.approx(1.4826 * 0.1 / 15)
    assert metrics.mean_absolute(truth - measured, seed=1).value == pytest.approx(0.1)


def test_outliers_of_gaussian_errors(rng):
    truth = rng.uniform(13, 20, 50_000)
    flat = truth + 0.01 * (1 + truth) * rng.standard_normal(truth.size)
    for scale in (1, 100):  # the threshold of three standard deviations normalises itself
        share = metrics.outliers_beyond_three_sigma(truth, truth + scale * (flat - truth))
        assert share.value == pytest.approx(0.0027, abs=0.0008)


def test_outliers_of_perfect_measurements(rng):
    """Stars of one brightness: the Gaussian 0.27 %. Errors from 1 to 20: several times that, all from the faintest."""
    mag = np.full(4000, 18.0)
    same = metrics.outliers_at_the_limit(mag, np.full(4000, 0.01), seed=1)
    assert same == pytest.approx(0.0027, abs=0.0003)
    mixed = metrics.outliers_at_the_limit(mag, np.geomspace(0.001, 0.02, 4000), seed=1)
    assert 0.012 < mixed < 0.03
    assert np.isnan(metrics.outliers_at_the_limit(mag[:0], mag[:0], seed=1))


def test_robust_scatter_of_a_gaussian_ignores_outliers(rng):
    values = rng.normal(3, 2, 100_000)
    assert metrics.robust_scatter(values) == pytest.approx(2, rel=0.02)
    values[:1000] = 1e6
    assert metrics.robust_scatter(values) == pytest.approx(2, rel=0.05) and metrics.plain_scatter(values) > 1e4


def test_scatter_over_limit_of_a_perfect_measurement_is_one(rng):
    limit = 10 ** rng.uniform(-3, -1, 4000)
    delta = limit * rng.standard_normal(4000)
    for robust in (True, False):
        one, two = (metrics.scatter_over_limit(k * delta, limit, seed=1, robust=robust) for k in (1, 2))
        assert one.low < 1 < one.high < one.low + 0.12
        assert two.value == pytest.approx(2 * one.value)


def test_bootstrap_interval_of_a_mean_is_the_standard_error(rng):
    values = rng.normal(0, 1, 2000)
    estimate = metrics.bootstrap(np.mean, values, seed=3)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 / np.sqrt(2000), rel=0.15)
    assert metrics.bootstrap(np.mean, values, seed=3) == estimate
    assert metrics.bootstrap(np.mean, values, seed=4) != estimate


def test_few_stars_give_a_value_but_no_interval():
    three = metrics.bootstrap(np.median, np.array([1.0, 2.0, 4.0]), seed=1)
    assert three.value == 2.0 and np.isnan(three.low) and three.n == 3
    assert np.isnan(metrics.bootstrap(np.median, np.array([1.0]), seed=1).value)
    assert metrics.bias(np.array([]), seed=1).n == 0


def test_coverage_of_perfect_and_wrong_error_bars(rng):
    n = 14_000
    truth, sigma = rng.uniform(13, 20, n), 10 ** rng.uniform(-3, -1, n)
    mean = truth + sigma * rng.standard_normal(n)
    for level in (0.5, 0.68, 0.95):
        share = metrics.coverage(metrics.standardised(truth, mean, sigma), level)
        assert share.value == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / n))
        assert share.low < share.value < share.high
    half = metrics.coverage(metrics.standardised(truth, mean, sigma / 2), 0.95)
    assert half.value == pytest.approx(2 * stats.norm.cdf(1.96 / 2) - 1, abs=0.01)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: metrics.standardised([1.0], [1.0], [0.0]), "sigma: 1 values are not positive"),
        (lambda: metrics.magnitude_error([np.nan], [1.0]), "truth: 1 of 1 values are not finite"),
        (lambda: metrics.magnitude_error([1.0, 2.0], [1.0]), "measured has shape"),
        (lambda: metrics.scatter_over_limit([1.0, 2.0], [0.0, 1.0], seed=1), "limit"),
        (lambda: metrics.coverage([1.0], 95), "level is 95"),
        (lambda: metrics.by_bin(np.array([1.0]), np.array([2.0, 1.0])), "edges"),
        (lambda: metrics.precision_recall_curve([0.5, 0.6], [], 1), "one to one"),
        (lambda: metrics.average_precision([1.0], [1.0], "linear"), "interpolation"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises((ConfigError, DataError), match=message):
        call()
