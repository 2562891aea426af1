"""Eq. 18 against made-up stars of known truth."""

import numpy as np
import pytest

from pnet.common.errors import ConfigError, DataError
from pnet.sky import zero_point
from pnet.sky.zero_point import fit

ZERO = 24.7


def stars(rng, n=80, scatter=0.02):
    """Reference stars: instrumental magnitudes and true ones."""
    reference = rng.uniform(14, 19, n)
    return reference - ZERO + rng.normal(0, scatter, n), reference


def test_without_noise_exact(rng):
    result = fit(*stars(rng, scatter=0))
    assert (result.zero_point, result.error) == (pytest.approx(ZERO, abs=1e-12), pytest.approx(0, abs=1e-12))
    assert result.used.all()


def test_outliers_go_and_good_stars_stay(rng):
    instrumental, reference = stars(rng)
    instrumental[::20] += 0.8  # four variable or blended stars
    result = fit(instrumental, reference)
    assert not result.used[::20].any()
    assert (~result.used).sum() - 4 <= 2
    assert result.zero_point == pytest.approx(ZERO, abs=4 * 0.02 / np.sqrt(76))


def test_the_papers_one_sigma():
    """What the docstring says of 1σ: a third of the good stars goes, and precision with it."""
    rng = np.random.default_rng(1)
    zero = {key: [] for key in ("3", "1 once", "1 repeated", "3 dirty", "1 once dirty")}
    share = []
    for _ in range(600):
        instrumental, reference = stars(rng)
        dirty = instrumental - np.where(rng.random(80) < 0.05, rng.uniform(0.2, 1, 80), 0)
        for key in zero:
            options = {"clip": 1 if "1" in key else 3} | ({"iterations": 1} if "once" in key else {})
            result = fit(dirty if "dirty" in key else instrumental, reference, **options)
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


@pytest.mark.parametrize("clip", [3, np.inf])
def test_the_error_is_the_scatter_of_many_fits(clip):
    rng = np.random.default_rng(2)
    found = [fit(*stars(rng), clip=clip) for _ in range(500)]
    assert np.std([(one.zero_point - ZERO) / one.error for one in found]) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"instrumental": np.r_[np.nan, np.ones(79)]}, DataError, "instrumental: 1 of 80 values are not finite"),
        ({"reference": np.r_[np.nan, np.ones(79)]}, DataError, "reference: 1 of 80 values are not finite"),
        ({"reference": np.ones(79)}, DataError, "reference has shape"),
        ({"instrumental": np.ones(49), "reference": np.ones(49)}, DataError, "49 reference stars; at least 50"),
        ({"clip": -1}, ConfigError, "clip -1"),
        ({"clip": 1e-4}, DataError, "raise clip"),
    ],
)
def test_bad_input_is_named(rng, options, error, message):
    given = dict(zip(("instrumental", "reference"), stars(rng), strict=True)) | options
    with pytest.raises(error, match=message):
        fit(given.pop("instrumental"), given.pop("reference"), **given)


def frame(rng, noise, n=70):
    """Magnitudes of a frame's stars without calibration, their known magnitudes, which are reference stars, places."""
    reference = rng.uniform(14, 20, n)
    return reference - 0.1 + rng.normal(0, noise, n), reference, np.ones(n, bool), *rng.uniform(0, 2000, (2, n))


def test_a_star_has_no_part_in_its_own_zero_point(rng):
    measured, reference, isolated, x, y = frame(rng, 0.01, 80)
    isolated[75:] = False
    offset = zero_point.without_itself(measured, reference, isolated, x, y, (0,))
    assert offset == pytest.approx(0.1, abs=0.005)
    shifted = measured.copy()
    shifted[3] += 0.02
    again = zero_point.without_itself(shifted, reference, isolated, x, y, (0,))
    assert again[3] == offset[3] and again[4] != offset[4]
    few = (values[:30] for values in (measured, reference, isolated, x, y))
    assert (zero_point.without_itself(*few) == 0).all()
    measured[10] = x[10] = np.nan
    assert np.isfinite(zero_point.without_itself(measured, reference, isolated, x, y)).all()
    # one zero point is that of `fit`, with outliers too
    measured[11:15] += 0.5
    known = isolated & np.isfinite(measured)
    offset = zero_point.without_itself(measured, reference, isolated, x, y, (0,))
    assert offset[76] == pytest.approx(fit(measured[known], reference[known]).zero_point, abs=1e-9)


def test_a_smooth_pattern_is_taken_off_and_an_outlier_leaves_no_trace(rng):
    measured, reference, isolated, x, y = frame(rng, 0.002)
    pattern = 0.1 + 0.02 * (x / 1000 - 1) ** 2 - 0.015 * (y / 1000 - 1)
    measured += 0.1 - pattern
    measured[0] -= 0.4
    offset = zero_point.without_itself(measured, reference, isolated, x, y)
    assert np.std((offset - pattern)[1:]) < 0.0015
    one = zero_point.without_itself(measured, reference, isolated, x, y, (0,))
    assert np.std((one - pattern)[1:]) > 0.008


def test_no_pattern_no_polynomial(rng):
    """Where the zero point is one number, choosing among degrees costs next to nothing."""
    given = frame(rng, 0.01)
    chosen, one = (zero_point.without_itself(*given, degrees) for degrees in (zero_point.DEGREES, (0,)))
    assert np.std(chosen) < 0.004 and np.std(one) < 0.001
