"""Eq. 18 against made-up stars of known truth."""

import numpy as np
import pytest

from pnet.common.errors import ConfigError, DataError
from pnet.sky import zero_point
from pnet.sky.zero_point import fit

ZERO, K = 24.7, -0.18
BROKEN = object()  # an array with a value that is not finite


@pytest.fixture
def stars(rng):
    """80 reference stars: true magnitudes and instrumental ones without noise at airmass 0."""
    reference = rng.uniform(14, 19, 80)
    return reference, reference - ZERO


def test_without_noise_exact(stars, rng):
    reference, instrumental = stars
    result = fit(instrumental, reference)
    assert result.zero_point == pytest.approx(ZERO, abs=1e-12)
    assert result.zero_point_error == pytest.approx(0, abs=1e-12)
    assert (result.used.all(), result.extinction, result.columns) == (True, 0.0, {})
    np.testing.assert_allclose(result.magnitude(instrumental), reference)


def test_extinction_and_columns_exact(rng):
    n = 300
    reference, airmass = rng.uniform(14, 19, n), rng.uniform(1, 2, n)
    terms = {1: 0.03, 2: -0.01, 5: -0.02}  # sums to zero
    column = rng.choice(list(terms), n)
    instrumental = reference - ZERO - K * airmass - np.array([terms[c] for c in column])
    result = fit(instrumental, reference, airmass=airmass, column=column.tolist())
    assert result.zero_point == pytest.approx(ZERO, abs=1e-10)
    assert result.extinction == pytest.approx(K, abs=1e-10)
    assert result.columns == pytest.approx(terms, abs=1e-10)
    assert result.covariance.shape == (4, 4)  # zero point, extinction, and two of the three columns
    np.testing.assert_allclose(result.magnitude(instrumental, airmass, column.tolist()), reference)
    for place, message in (
        ((), "airmass is not given"),
        ((airmass,), "column is not given"),
        ((airmass, [7] * n), "column holds 7; calibrated are 1, 2, 5"),
    ):
        with pytest.raises(ConfigError, match=message):
            result.magnitude(instrumental, *place)


@pytest.mark.parametrize("method", ["least_squares", "chi_square"])
def test_covariance_is_the_scatter_of_many_fits(method):
    """Zero point and extinction, errors of different size; pulls must be standard normal."""
    rng = np.random.default_rng(5)
    pulls = []
    for _ in range(400):
        reference, airmass = rng.uniform(14, 19, 80), rng.uniform(1, 2, 80)
        error = rng.uniform(0.01, 0.04, 80) if method == "chi_square" else np.full(80, 0.02)
        instrumental = reference - ZERO - K * airmass + rng.normal(0, error)
        result = fit(instrumental, reference, error=error, airmass=airmass, method=method, clip=np.inf)
        miss = np.array([result.zero_point - ZERO, result.extinction - K])
        pulls.append(miss @ np.linalg.solve(result.covariance, miss))
    assert np.mean(pulls) == pytest.approx(2, abs=0.3), "χ² of two parameters"


def test_weights_matter(rng):
    reference = rng.uniform(14, 19, 100)
    error = np.where(np.arange(100) < 50, 0.005, 0.5)
    chi, plain = [], []
    for _ in range(50):
        instrumental = reference - ZERO + rng.normal(0, error)
        chi.append(fit(instrumental, reference, error=error, method="chi_square").zero_point)
        plain.append(fit(instrumental, reference, clip=np.inf).zero_point)
    assert np.std(chi) < 0.1 * np.std(plain)


def test_outliers_go_and_good_stars_stay(stars, rng):
    reference, instrumental = stars
    noise = rng.normal(0, 0.02, 80)
    noise[::20] = 0.8  # four variable or blended stars
    result = fit(instrumental + noise, reference)
    assert not result.used[::20].any()
    assert (~result.used).sum() - 4 <= 2
    assert result.zero_point == pytest.approx(ZERO, abs=4 * 0.02 / np.sqrt(76))


def test_the_papers_one_sigma():
    """What the docstring says of 1σ: a third of the good stars goes, and precision with it."""
    rng = np.random.default_rng(1)
    zero = {key: [] for key in ("3", "1 once", "1 repeated", "3 dirty", "1 once dirty")}
    share = []
    for _ in range(600):
        reference = rng.uniform(14, 19, 80)
        noise = rng.normal(0, 0.02, 80)
        dirty = noise + np.where(rng.random(80) < 0.05, rng.uniform(0.2, 1, 80), 0)
        for key, values, options in (
            ("3", noise, {}),
            ("1 once", noise, {"clip": 1, "iterations": 1}),
            ("1 repeated", noise, {"clip": 1}),
            ("3 dirty", dirty, {}),
            ("1 once dirty", dirty, {"clip": 1, "iterations": 1}),
        ):
            result = fit(reference - ZERO - values, reference, **options)
            zero[key].append(result.zero_point - ZERO)
            if key == "1 once":
                share.append(result.used.mean())
    spread = {key: 1000 * np.std(values) for key, values in zero.items()}
    assert np.mean(share) == pytest.approx(0.68, abs=0.02)
    assert spread["3"] == pytest.approx(2.3, abs=0.2)
    assert spread["1 once"] == pytest.approx(2.6, abs=0.25)
    assert spread["1 repeated"] == pytest.approx(4.0, abs=0.4)
    assert abs(np.mean(zero["3 dirty"])) < 0.0004
    assert 1000 * np.mean(zero["1 once dirty"]) == pytest.approx(6, abs=1)


def test_covariance_after_rejection_is_honest():
    rng = np.random.default_rng(2)
    pulls = []
    for _ in range(500):
        reference = rng.uniform(14, 19, 80)
        result = fit(reference - ZERO + rng.normal(0, 0.02, 80), reference)
        pulls.append((result.zero_point - ZERO) / result.zero_point_error)
    assert np.std(pulls) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"instrumental": BROKEN}, DataError, "instrumental: 1 of 80 values are not finite"),
        ({"reference": BROKEN}, DataError, "reference: 1 of 80 values are not finite"),
        ({"error": BROKEN}, DataError, "error: 1 of 80 values are not finite"),
        ({"airmass": BROKEN}, DataError, "airmass: 1 of 80 values are not finite"),
        ({"airmass": np.full(80, 1.2)}, DataError, r"airmass spans 1\.2000 to 1\.2000"),
        ({"airmass": np.repeat([1.1, 1.5], 40), "column": [1] * 40 + [2] * 40}, DataError, "vary together"),
        ({"reference": np.ones(79)}, DataError, "reference has shape"),
        ({"column": [1, 2, 3]}, DataError, "column has 3 labels for 80"),
        ({"error": np.zeros(80)}, DataError, "not positive"),
        ({"method": "mean"}, ConfigError, "method is 'mean'"),
        ({"method": "chi_square"}, ConfigError, "needs error"),
        ({"clip": -1}, ConfigError, "clip -1"),
        ({"clip": 1e-4}, DataError, "raise clip"),
    ],
)
def test_bad_input_is_named(stars, rng, options, error, message):
    reference, instrumental = stars
    given = {"instrumental": instrumental + rng.normal(0, 0.02, 80), "reference": reference.copy()}
    for name, value in options.items():
        if value is BROKEN:
            given.setdefault(name, rng.uniform(1, 2, 80))[3] = np.nan
        else:
            given[name] = value
    with pytest.raises(error, match=message):
        fit(given.pop("instrumental"), given.pop("reference"), **given)


def test_too_few_stars(stars):
    with pytest.raises(DataError, match="49 reference stars; at least 50"):
        fit(*(values[:49] for values in stars))


def test_a_star_has_no_part_in_its_own_zero_point(rng):
    reference = rng.uniform(14, 20, 80)
    measured = reference - 0.3 + rng.normal(0, 0.01, 80)
    x, y = rng.uniform(0, 2000, (2, 80))
    isolated = np.ones(80, dtype=bool)
    isolated[75:] = False
    offset = zero_point.without_itself(measured, reference, isolated, x, y, (0,))
    assert offset == pytest.approx(0.3, abs=0.005)
    shifted = measured.copy()
    shifted[3] += 0.02
    again = zero_point.without_itself(shifted, reference, isolated, x, y, (0,))
    assert again[3] == offset[3] and again[4] != offset[4]
    few = (values[:30] for values in (measured, reference, isolated, x, y))
    assert (zero_point.without_itself(*few) == 0).all()
    measured[10] = np.nan
    x[10] = np.nan
    assert np.isfinite(zero_point.without_itself(measured, reference, isolated, x, y)).all()


def test_one_zero_point_is_the_fit_of_equation_18(rng):
    """Degree 0 against the fit for other telescopes, with outliers."""
    reference = rng.uniform(14, 20, 90)
    measured = reference - 0.2 + rng.normal(0, 0.02, 90)
    measured[:4] += 0.5
    isolated = np.arange(90) < 80
    offset = zero_point.without_itself(measured, reference, isolated, *rng.uniform(0, 1, (2, 90)), (0,))
    assert offset[85] == pytest.approx(fit(measured[:80], reference[:80]).zero_point, abs=0.001)


def test_a_smooth_pattern_is_taken_off_and_an_outlier_leaves_no_trace(rng):
    x, y = rng.uniform(0, [[2047], [1488]], (2, 70))
    pattern = 0.02 * (x / 1000 - 1) ** 2 - 0.015 * (y / 700 - 1) + 0.1
    reference = rng.uniform(14, 20, 70)
    measured = reference - pattern + rng.normal(0, 0.002, 70)
    measured[0] -= 0.4
    offset = zero_point.without_itself(measured, reference, np.ones(70, dtype=bool), x, y)
    assert np.std((offset - pattern)[1:]) < 0.0015
    one = zero_point.without_itself(measured, reference, np.ones(70, dtype=bool), x, y, (0,))
    assert np.std((one - pattern)[1:]) > 0.008


def test_no_pattern_no_polynomial(rng):
    """Where the zero point is one number, choosing among degrees costs next to nothing."""
    reference = rng.uniform(14, 20, 70)
    measured = reference - 0.1 + rng.normal(0, 0.01, 70)
    place = rng.uniform(0, 2000, (2, 70))
    chosen, one = (
        zero_point.without_itself(measured, reference, np.ones(70, dtype=bool), *place, degrees)
        for degrees in (zero_point.DEGREES, (0,))
    )
    assert np.std(chosen) < 0.004 and np.std(one) < 0.001
