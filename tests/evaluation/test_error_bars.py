"""Error bars of magnitudes and positions: known faults are found where they are; positions about SkyMaker's light."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import needs_program
from measured import LIMIT, table

from pnet.common import metrics
from pnet.common.errors import ConfigError, DataError
from pnet.evaluation import calibration_metrics, error_bars, ledger
from pnet.evaluation.ledger import compute, entries_from_measurements
from pnet.simulation.recipe import Recipe, draw_conditions
from pnet.sky import limits


@pytest.fixture(scope="module")
def measured():
    """PNet with errors that are right, and a fit that is as good in position, and in magnitude √5 times worse."""
    rows = table(seed=5, frames={"simulation": 40, "sdss": 1}, scatter=1.0)
    found = rows["x"].notna() & (rows["method"] == "pnet")
    rows.loc[found, ["x_err", "y_err"]] = LIMIT
    rows.loc[found, "mag_psf_err"] = 5**0.5 * LIMIT  # measured.Noisy's
    rows.loc[found, ["x_psf", "y_psf"]] = rows.loc[found, ["x", "y"]].to_numpy()
    return rows


def test_the_ellipse_of_gaussian_errors_holds_what_it_says(rng):
    sigma = rng.uniform(0.001, 0.1, (2, 40000))
    dx, dy = sigma * rng.standard_normal((2, 40000))
    for level in (0.5, 0.68, 0.95):
        assert metrics.inside_ellipse(dx, dy, *sigma, level=level).value == pytest.approx(level, abs=0.012)
    assert metrics.inside_ellipse(dx, dy, *(2 * sigma)).value > 0.98
    assert metrics.scatter_over_limit(dx, sigma[0], seed=1, robust=False).value == pytest.approx(1, abs=0.02)
    with pytest.raises(ConfigError, match="level"):
        metrics.inside_ellipse(dx, dy, *sigma, level=1.0)
    with pytest.raises(DataError, match="sigma"):
        metrics.inside_ellipse(dx, dy, 0 * dx, dy)


def test_right_error_bars_pass_everywhere(measured):
    found = compute(measured, "simulation", "pnet", seed=1, groups=("calibration",))
    assert found["crps"].estimate.value == pytest.approx(LIMIT / np.sqrt(np.pi), rel=0.1)
    assert found["crps_over_limit"].estimate.value == pytest.approx(1, abs=0.1) and found["crps"].limit > 0
    assert found["sharpness"].estimate.value == pytest.approx(LIMIT)
    assert found["pit_chi2"].estimate.value < 2.5
    bins = [key for key in found if ".mag." in key]
    assert len(bins) == 7 * 6
    assert abs(found["bias_over_allowed.mag.17"].estimate.value) < 3  # of 1 mmag, where the error of one star is 10
    for key in bins:
        score = found[key]
        assert score.estimate.n >= 20 and np.isfinite(score.limit)
        if key.startswith(("z_scatter.", "coverage")):
            assert score.estimate.low - 0.1 <= score.limit <= score.estimate.high + 0.1, key


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
    z = metrics.standardised(*stars[["truth_mag", "mag", "mag_err"]].to_numpy().T)
    assert area[14].estimate.value == pytest.approx(calibration_metrics.miscalibration_area(z), abs=1e-9)


def test_scores_tell_right_from_wrong_error_bars(measured):
    found = compute(measured, "simulation", "pnet", seed=1, groups=("positions",))
    small = compute(measured.eval("x_err = x_err / 2\ny_err = y_err / 2"), "simulation", "pnet", seed=1)
    for name in ("all", "bright", "faint"):
        score = found[f"ellipse_68.{name}"]
        assert score.estimate.low < 0.68 < score.estimate.high and score.limit == 0.68
        # a quarter of the area: 1 − 0.32^(1/4)
        assert small[f"ellipse_68.{name}"].estimate.value == pytest.approx(1 - 0.32**0.25, abs=0.06)
    assert found["x_pull.14-20"].estimate.value == pytest.approx(1.0, abs=0.06)
    assert small["y_pull.14-20"].estimate.value == pytest.approx(2.0, abs=0.12)
    assert found["psf_mag_pull.14-20"].estimate.value == pytest.approx(1.0, abs=0.06)
    assert "x_pull.17" in found and "psf_x_over_limit.17" in found and "psf_x_pull.17" not in found
    assert not any("placed" in name for name in found)  # nobody said that SkyMaker made these frames
    assert "x_over_limit.17" not in found  # the group astrometry has it


def test_the_stages_stand_beside_each_other(measured):
    coarse = measured.copy()
    assert not [key for key in compute(measured, "simulation", "pnet", seed=1) if key.startswith("det_")]
    for name in ("x", "y", "mag"):  # the detection net alone, three times as far off
        coarse[f"{name}_det"] = coarse[f"truth_{name}"] + 3 * (coarse[name] - coarse[f"truth_{name}"])
    found = compute(coarse, "simulation", "pnet", seed=1)
    for name in ("x_over_limit.14-20", "y_over_limit.17", "mag_over_limit.14-20", "mean_abs_dx", "mae"):
        alone, final = found[f"det_{name}"], found[name]
        assert alone.estimate.value == pytest.approx(3 * final.estimate.value)
        assert "detection net alone" in alone.title and "detection net" not in final.title
        assert "of the fit alone" in found[f"psf_{name}"].title
    assert "det_ellipse_68.all" not in found


def test_what_a_method_or_a_catalogue_lacks_has_no_scores(measured):
    found = compute(measured, "sdss", "pnet", seed=1, groups=("calibration",))
    assert np.isnan(found["crps"].limit) and "crps_over_limit" not in found
    assert not [score for score in found.values() if score.estimate.n < 20]
    for group in ("positions", "calibration"):
        assert compute(measured, "simulation", "sextractor", seed=1, groups=(group,)) == {}
    some = measured.copy()
    some.loc[some.index[::2], "x_err"] = np.nan
    found = compute(some, "simulation", "pnet", seed=1, groups=("positions",))
    whole = compute(measured, "simulation", "pnet", seed=1, groups=("positions",))
    assert found["ellipse_68.all"].estimate.n < whole["ellipse_68.all"].estimate.n


def test_the_displacement_is_taken_off_where_skymaker_made_the_frames(measured):
    moved = measured.copy()
    for axis in "xy":  # as if SkyMaker's displacement were all the error there is
        displacement = limits.skymaker_displacement(moved[f"truth_{axis}"].to_numpy())
        moved[axis] = moved[f"truth_{axis}"] + displacement
    entries = entries_from_measurements(moved, seed=1, provenance={"engine": "frames"}, groups=("positions",))
    found = ledger.Ledger(entries)
    assert found.value("simulation.pnet.x_over_limit_placed.14-20") == pytest.approx(0, abs=1e-9)
    assert all(f"simulation.pnet.{key}" in found for key in ("ellipse_95_placed.faint", "psf_x_over_limit_placed.18"))
    entry = found["simulation.pnet.ellipse_68_placed.all"]
    assert entry.value == 1.0 and "SkyMaker put the light" in entry.title
    rendered = entries_from_measurements(moved, seed=1, provenance={"engine": "renderer"}, groups=("positions",))
    assert not any("placed" in each.key for each in rendered)


def test_the_displacement_has_the_period_of_skymakers_samples(rng):
    x = rng.uniform(0, 500, 20000)
    displacement = limits.skymaker_displacement(x)
    assert np.std(displacement) == pytest.approx(0.0013, abs=5e-5) and np.abs(displacement).max() < 0.00185
    assert np.abs(np.mean(displacement)) < 5e-5
    assert limits.skymaker_displacement(x + 3 / 11) == pytest.approx(displacement, abs=1e-9)
    assert limits.skymaker_displacement(np.arange(5) + 0.0) == pytest.approx(0, abs=1e-15)
    assert limits.skymaker_displacement(-x) == pytest.approx(-displacement, abs=1e-9)


@needs_program("sky")
def test_the_displacement_is_skymakers(rng):
    import sep

    from pnet.simulation import skymaker

    conditions = replace(draw_conditions(Recipe.load(), 1), seeing=1.4, aureole=None)
    places = np.stack(np.meshgrid(np.arange(60, 460, 50.0), np.arange(60, 460, 50.0))).reshape(2, -1)
    x, y = places + rng.uniform(-0.5, 0.5, places.shape)
    stars = pd.DataFrame({"x": x, "y": y, "mag": 15.0, "kind": "star"})
    light, _ = skymaker.expected_image(conditions, stars)
    image = np.ascontiguousarray(light - np.median(light))
    found_x, found_y, _ = sep.winpos(image, x, y, np.full(x.size, 1.5))
    for found, listed in ((found_x, x), (found_y, y)):
        assert np.std(found - listed) > 0.001
        assert np.std(found - listed - limits.skymaker_displacement(listed)) < 5e-5
