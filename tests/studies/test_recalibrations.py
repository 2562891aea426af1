"""Other recalibrations: each keeps its promise on stars that had no part in its fit, and promises no more."""

import numpy as np
import pytest
from measured import LIMIT, table
from scipy import stats

from pnet.common.errors import DataError
from pnet.evaluation import calibration_metrics, error_bars
from studies import recalibrations
from studies.recalibrations import Bins, Isotonic, scaled

ONE_SIGMA = 0.6826894921370859  # of a Gaussian within one σ


def drawn(rng, n, noise=None):
    """Predictions of stars whose σ must be multiplied by their noise (of Student's t with 3 degrees of freedom)."""
    mean, sigma = rng.uniform(13, 20, n), 10 ** rng.uniform(-3, -1, n)
    return mean, sigma, mean + sigma * (rng.standard_t(3, n) if noise is None else noise(mean))


def inside(how, mean, sigma, truth, level):
    low, high = how.interval(mean, sigma, level)
    return (low <= truth) & (truth <= high)


def by_magnitude(mean, values, what=np.mean):
    return np.array([what(values[(mean >= m) & (mean < m + 1)]) for m in range(13, 20)])


@pytest.fixture(scope="module")
def rows():
    """Validation stars and others; the raw σ of these tables is three times the scatter."""
    return [
        error_bars.stars_of(table(seed=seed, frames={"simulation": 18}, scatter=1.0), "simulation") for seed in (1, 2)
    ]


@pytest.fixture(scope="module")
def compared(rows):
    return recalibrations.compare(recalibrations.fit(rows[0], "frames of val"), rows[1], seed=1)


def test_recalibrations_fitted_on_validation_hold_on_other_stars(rows, compared):
    assert compared["coverage_68.raw"].estimate.value > 0.95
    assert compared["half_width_68.raw"].estimate.value == pytest.approx(3 * LIMIT * 0.9945, rel=0.01)
    for name in ("ratio", "isotonic", "conformal"):
        estimate = compared[f"coverage_68.{name}"].estimate
        assert estimate.low - 0.03 < 0.68 < estimate.high + 0.03
        assert compared[f"miscalibration_area.{name}"].estimate.value < 0.03
        assert compared[f"half_width_68.{name}"].estimate.value == pytest.approx(LIMIT, rel=0.12)
    assert compared["coverage_68.conformal.mag.16"].estimate.n > 30
    floor = calibration_metrics.perfect(len(rows[1]), seed=1).value
    assert compared["miscalibration_area.ratio"].limit == pytest.approx(floor)


def test_too_few_validation_stars_are_named_and_the_worst_bin_is(rows, compared):
    with pytest.raises(DataError, match="val frames.*at least 20"):
        recalibrations.fit(rows[0].head(5), "val frames")
    assert recalibrations.compare({}, rows[0].head(5), seed=1) == {} and recalibrations.table({}).empty
    shown = recalibrations.table(compared)
    assert list(shown["recalibration"]) == list(recalibrations.METHODS.values())
    bins = {key: score.estimate.value for key, score in compared.items() if key.startswith("coverage_68.raw.mag.")}
    worst = max(bins, key=lambda key: abs(bins[key] - 0.68)).rpartition(".")[2]
    assert shown.loc[0, "68 %, worst bin"].endswith(f"at {worst} mag")


def test_isotonic_corrects_the_shape_where_one_factor_cannot(rng):
    validation, other = drawn(rng, 6000), drawn(rng, 6000)
    isotonic, ratio = Isotonic.fit(*validation), scaled(1.15)
    areas = []
    for found in (ratio, isotonic):
        expected, observed = found.proportions(*other)
        areas.append(np.mean(np.abs(expected - observed)))
    assert areas[1] < areas[0] and areas[1] < 0.01
    for level in (0.5, 0.9):
        assert inside(isotonic, *other, level).mean() == pytest.approx(level, abs=0.02)


def conformal(rng, n):
    """A conformal recalibration of n validation stars whose errors follow Student's t with 2 degrees of freedom."""
    return recalibrations.conformal(np.zeros(n), np.ones(n), rng.standard_t(2, n), Bins(members=(np.arange(n),)))


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

    def noise(mean):
        return np.where(mean < 15, 5 * rng.standard_normal(len(mean)), rng.standard_t(2, len(mean)))

    validation, other = drawn(rng, 7000, noise), drawn(rng, 14_000, noise)
    found = recalibrations.conformal(*validation, Bins.of(validation[0]))
    assert (len(found.edges), found.notes) == (6, ())
    for level in (0.68, 0.95):
        share = by_magnitude(other[0], inside(found, *other, level))
        # binomial noise of 2,000 stars and the beta law of 1,000 validation stars
        assert np.abs(share - level).max() < 4 * np.sqrt(level * (1 - level) * (1 / 2000 + 1 / 1000))
    one = scaled(recalibrations.best_ratio(*validation))
    assert by_magnitude(other[0], inside(one, *other, 0.68))[0] < 0.4
    expected, observed = found.proportions(*other)
    assert np.abs(expected - observed).max() < 0.02 and (observed[0], observed[-1]) == (0, 1)


def test_ratios_by_magnitude_follow_a_need_and_only_a_need(rng):
    def draw(n, bright):
        return drawn(rng, n, lambda mean: np.where(mean < 15, bright, 1.5) * rng.standard_normal(n))

    def fit(validation, **options):
        return recalibrations.ratios(*validation, Bins.of(validation[0], **options))

    found = fit(draw(7000, 3.0))
    assert found.factors(ONE_SIGMA) == pytest.approx([3, 3, 1.5, 1.5, 1.5, 1.5, 1.5], rel=0.1)
    mean, sigma, truth = draw(14_000, 3.0)
    assert by_magnitude(mean, inside(found, mean, sigma, truth, 0.95)) == pytest.approx([0.95] * 7, abs=0.03)
    # without a need the bins' own noise (7 % each) must not become seven ratios
    assert np.median([np.std(np.log(fit(draw(1400, 1.5)).factors(ONE_SIGMA))) for _ in range(10)]) < 0.02
    assert fit(draw(1400, 1.5), edges=(13, 20)).edges == ()


def test_small_bins_are_joined_and_that_is_said(rng):
    mean = np.repeat([13.5, 14.5, 15.5, 16.5], [5, 30, 60, 200])
    bins = Bins.of(mean, range(13, 18))
    found = recalibrations.conformal(mean, np.ones(295), mean + rng.standard_normal(295), bins)
    assert found.edges == (16.0,) and [len(members) for members in bins.members] == [95, 200]
    assert len(found.notes) == 2 and "13–14 (5 stars) and 14–15 (30 stars) joined" in found.notes[0]
    # what lies beyond the outer edges belongs to the outer bins
    low, high = found.interval(np.array([5.0, 13.5, 25.0]), np.ones(3), 0.9)
    assert (high - low)[0] == (high - low)[1] and (high - low)[2] == pytest.approx(2 * found.factors(0.9)[1])
    assert np.isinf(conformal(rng, 18).factors(0.95)).all(), "nothing is promised that cannot be held"
