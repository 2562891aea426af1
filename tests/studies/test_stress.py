"""The stress study: conditions do what they say, the flag keeps its promise, and a run writes what pages read."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pnet.common.errors import DataError
from pnet.evaluation.frames import Source
from pnet.simulation.recipe import Recipe, draw_conditions, draw_stars
from pnet.stars.network import CONFIGS, BayesianPhotometryNet
from studies import novelty, stress


@pytest.fixture(scope="module")
def model():
    return BayesianPhotometryNet(CONFIGS["tiny"]).eval()


def measured(rng, n, growth=1.0, spread=0.2):
    """Stars whose ratio of epistemic to aleatoric part falls with magnitude, `growth` times the usual one."""
    mean = rng.uniform(13, 20, n)
    aleatoric = 10 ** (0.2 * (mean - 22))
    ratio = growth * 10 ** (-0.2 * (mean - 10)) * np.exp(spread * rng.standard_normal(n))
    error = aleatoric * rng.standard_normal(n)
    parts = {"aleatoric": aleatoric, "epistemic": ratio * aleatoric, "ratio": ratio, "limit": aleatoric}
    return pd.DataFrame({"error": error, "sigma": aleatoric, **parts, "mean": mean})


def fitted(validation):
    return {quantity: novelty.Flag.fit(validation["mean"], validation[quantity]) for quantity in ("ratio", "sigma")}


def test_flag_keeps_its_promise_at_every_magnitude(rng):
    flag = fitted(measured(rng, 5000))["ratio"]
    others = measured(rng, 20_000)
    mean, ratio = others[["mean", "ratio"]].to_numpy().T
    flagged = flag.novelty(mean, ratio) > flag.threshold
    assert len(flag.edges) == 6
    for low in range(13, 20):
        member = (mean >= low) & (mean < low + 1)
        assert np.mean(flagged[member]) == pytest.approx(0.01, abs=0.015)
    # bright stars have large ratios: one threshold for all would find them alone
    assert np.mean((ratio > np.quantile(ratio, 0.99))[mean > 15]) < 0.002


def test_auc_is_that_of_two_gaussians(rng):
    validation = measured(rng, 8000)
    rules = fitted(validation)
    row = stress.row("other", "", measured(rng, 8000, growth=np.exp(0.3)), validation, rules)
    # ln ratio of two Gaussians 0.3 apart, both 0.2 wide (within a bin the trend widens them a little)
    assert row["auc"] == pytest.approx(stats.norm.cdf(0.3 / (0.2 * np.sqrt(2))), abs=0.06)
    same = stress.row("same", "", measured(rng, 8000), validation, rules)
    assert same["auc"] == pytest.approx(0.5, abs=0.02) and same["flagged"] == pytest.approx(0.01, abs=0.005)
    assert same["z_scatter"] == pytest.approx(1, abs=0.03) and same["error_over_limit"] == pytest.approx(1, abs=0.04)
    assert same["aleatoric_over_limit"] == 1.0


def test_flag_joins_small_bins_and_refuses_what_fixes_nothing(rng):
    stars = measured(rng, 400)
    assert min(fitted(stars[stars["mean"] > 17])["ratio"].edges) >= 17
    with pytest.raises(DataError, match="99 validation stars"):
        fitted(measured(rng, 99))
    with pytest.raises(DataError, match="no epistemic part"):
        fitted(measured(rng, 400, growth=0.0))


def test_conditions_change_what_they_say():
    base = draw_conditions(Recipe.load(), 1)
    changed = {name: condition.change(base, 1) for name, condition in stress.CONDITIONS.items()}
    assert changed["in_range"] == base
    assert changed["seeing_wide"].seeing == 2.75 and changed["seeing_sharp"].seeing == 0.55
    assert changed["sky_bright"].sky == pytest.approx(base.sky * 10**0.8)
    assert changed["read_noise"].read_noise == 5 * base.read_noise


def test_what_is_drawn_in_place_of_stars_keeps_their_light(rng):
    conditions = draw_conditions(Recipe.load(), 1)
    stars = draw_stars(Recipe.load(), "paper", 3).head(30)
    blends, galaxies, trailed = (
        stress.CONDITIONS[name].sources(stars, conditions, rng) for name in ("blends", "galaxies", "trailed")
    )
    light = conditions.flux(stars["mag"])
    assert conditions.flux(blends["mag"])[:30] == pytest.approx(light)
    assert conditions.flux(galaxies["mag"]).sum() == pytest.approx(light.sum())
    assert conditions.flux(trailed["mag"]).sum() == pytest.approx(light.sum())
    offset = blends[["x", "y"]].to_numpy()[30:] - stars[["x", "y"]].to_numpy()
    assert ((np.hypot(*offset.T) > 2) & (np.hypot(*offset.T) < 6)).all()
    assert (galaxies["kind"] == "galaxy").all() and galaxies["disk_radius"].between(0.1, 30).all()
    assert trailed["x"].mean() == pytest.approx(stars["x"].mean())
    assert np.hypot(*np.ptp(trailed[["x", "y"]].to_numpy()[::30], axis=0)) == pytest.approx(4)


def test_cosmic_rays_add_charge_beside_every_star(rng):
    condition, conditions = stress.CONDITIONS["cosmic_rays"], draw_conditions(Recipe.load(), 1)
    stars = pd.DataFrame({"x": np.linspace(30, 480, 10), "y": np.linspace(450, 40, 10)})
    image = np.zeros((512, 512))
    damaged = condition.damage(image, stars, conditions, rng)
    assert not image.any() and (damaged > 0).sum() == 30
    rows, columns = np.nonzero(damaged)
    for x, y in stars.to_numpy():
        assert np.hypot(columns - x, rows - y).min() < 5


def test_frames_are_the_same_for_the_same_seed(model):
    condition = stress.CONDITIONS["seeing_wide"]
    (frame, stars), (again, _) = (stress.make_frame(condition, 0, 5) for _ in range(2))
    np.testing.assert_array_equal(frame.image, again.image)
    assert frame.seeing == 2.5 and len(stars) == 64
    distance = np.hypot(*(stars[["x", "y"]].to_numpy()[:, None] - stars[["x", "y"]].to_numpy()).transpose(2, 0, 1))
    assert np.sort(distance, axis=1)[:, 1].min() > 30
    card = {"recalibration": {"mag": {"ratio": 2.0}}}
    found = stress.measure(model, card, frame, stars, seed=1)
    np.testing.assert_allclose(found.sigma, 2 * np.hypot(found.aleatoric, found.epistemic))
    assert np.isfinite(found.limit).all() and (found.limit > 0).all()
    faint = stars.iloc[[5]].assign(x=stars["x"][5] + 1, mag=24.0, flux=stars["flux"][5] / 1e3)
    both = stress.measure(model, card, frame, pd.concat([faint, stars]), seed=1)
    assert sorted(both.index) == list(range(1, 65)), "of two stars that nobody would tell apart the brighter"


def test_a_run_writes_what_pages_read(tmp_path, model, monkeypatch):
    frames = [stress.make_frame(stress.CONDITIONS["in_range"], number, 9) for number in range(2)]
    items = [(frame, stars.assign(counted=True)) for frame, stars in frames]
    source = Source(items, lambda item: item, None, {"engine": "renderer"})
    some = {name: stress.CONDITIONS[name] for name in ("in_range", "galaxies")}
    monkeypatch.setattr(stress, "simulated", lambda *_: source)
    monkeypatch.setattr(stress.weights, "load", lambda kind: (model, {"sha256": "abc"}))
    for name, value in (("CONDITIONS", some), ("FRAMES", 1)):
        monkeypatch.setattr(stress, name, value)
    monkeypatch.setattr(stress.paths, "RESULTS", tmp_path)
    path = stress.run(tmp_path, validation=2, seed=2023, command="python -m studies stress", progress=False)
    content = json.loads(path.read_text())
    assert path == tmp_path / "studies" / "stress.json"
    assert [row["name"] for row in content["rows"]] == ["validation", "in_range", "galaxies"]
    assert set(stress.COLUMNS) <= set(content["rows"][1]) and set(content["columns"]) == set(stress.COLUMNS)
    assert content["rows"][2]["aleatoric_over_limit"] is None and content["rows"][1]["aleatoric_over_limit"] > 0
    assert content["flag"]["n"] == 128 and content["provenance"]["weights"] == {"bpnn": "abc"}
    assert content["provenance"]["command"] == "python -m studies stress"
