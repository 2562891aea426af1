"""Calibration by group: the groups are the right stars, and known faults of error bars are found where they are."""

import numpy as np
import pytest
from measured import LIMIT, table

from pnet.evaluation import calibration_metrics, error_bars
from pnet.evaluation.entries import compute


@pytest.fixture(scope="module")
def measured():
    return table(seed=5, frames={"simulation": 20, "sdss": 1}, scatter=1.0)


def test_right_error_bars_pass_everywhere(measured):
    found = compute(measured, "simulation", "pnet", seed=1, groups=("calibration",))
    assert found["crps"].estimate.value == pytest.approx(LIMIT / np.sqrt(np.pi), rel=0.1)
    assert found["crps_over_limit"].estimate.value == pytest.approx(1, abs=0.1) and found["crps"].limit > 0
    assert found["sharpness"].estimate.value == pytest.approx(LIMIT)
    assert found["pit_chi2"].estimate.value < 2.5 and found["pit_p"].estimate.value > 1e-3
    bins = [key for key in found if ".mag." in key]
    assert len(bins) == 7 * 6
    assert abs(found["bias_over_allowed.mag.17"].estimate.value) < 3  # of 1 mmag, where the error of one star is 10
    for key in bins:
        score = found[key]
        assert score.estimate.n >= 20 and np.isfinite(score.limit)
        if key.startswith(("z_scatter.", "coverage")):
            assert score.estimate.low - 0.1 <= score.limit <= score.estimate.high + 0.1, key
    assert compute(measured, "simulation", "sextractor", seed=1, groups=("calibration",)) == {}


def test_a_fault_is_found_in_its_bin_and_nowhere_else(measured):
    wrong = measured.copy()
    bright = (wrong["truth_mag"] < 15) & (wrong["truth_mag"] >= 14)
    wrong.loc[bright, "mag_err"] *= 0.5
    wrong.loc[bright, "mag"] += 0.005
    found = compute(wrong, "simulation", "pnet", seed=1, groups=("calibration",))
    assert found["bias_over_allowed.mag.14"].estimate.value == pytest.approx(-5, abs=2)
    assert found["z_scatter.mag.14"].estimate.low > 1.5 and found["z_scatter.mag.17"].estimate.high < 1.4
    area = {key: found[f"miscalibration_area.mag.{key}"] for key in (14, 17)}
    assert area[14].estimate.value > 3 * area[14].limit and area[17].estimate.value < 3 * area[17].limit
    stars = error_bars.stars_of(wrong, "simulation")
    stars = stars[stars["truth_mag"].between(14, 15, inclusive="left")]
    values = (stars[name].to_numpy() for name in ("truth_mag", "mag", "mag_err"))
    assert area[14].estimate.value == pytest.approx(calibration_metrics.miscalibration_area(*values), abs=1e-9)


def test_a_catalogue_has_no_limit(measured):
    found = compute(measured, "sdss", "pnet", seed=1, groups=("calibration",))
    assert np.isnan(found["crps"].limit) and "crps_over_limit" not in found
    assert not [score for score in found.values() if score.estimate.n < 20]
