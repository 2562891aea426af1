"""Tuning of the classical baselines: what is chosen is the best that was tried, on frames nothing is reported on."""

import pytest
import yaml

from pnet.common.errors import ConfigError, MissingError
from pnet.evaluation import baselines
from pnet.simulation.datasets import make_dataset
from pnet.simulation.recipe import Recipe
from studies import tuning


def test_the_settings_chosen_are_the_best_of_their_curve():
    for name, entry in yaml.safe_load(baselines.SETTINGS.read_text()).items():
        best = max(entry["curve"], key=lambda row: row["f1"])
        assert entry["chosen"] == {key: best[key] for key in tuning.GRIDS[name]} == baselines.settings(name)
        assert all("test" not in frames for frames in entry["frames"].values())
        for label in tuning.SETS:
            row = best[label]
            detections = row["found"] + row["false"] + row["galaxies"]
            assert row["precision"] == pytest.approx(row["found"] / detections, abs=1e-4)
            assert row["recall"] == pytest.approx(row["found"] / (row["found"] + row["missed"]), abs=1e-4)


def test_tuning_takes_the_threshold_with_the_best_f1(tmp_path, monkeypatch):
    recipe = Recipe.load()
    for kind, split in (("paper", "val"), ("realistic", "train")):
        files = make_dataset(tmp_path / kind, recipe, split, 1, 3, engine="renderer", kind=kind)
        folder = tmp_path / "frames" / split
        folder.mkdir(parents=True)
        files[0].rename(folder / f"{kind}-1.fits")
    path = tmp_path / "baselines.yml"
    path.write_text("psfex: {chosen: {threshold: 2.0}}\n")
    monkeypatch.setitem(tuning.GRIDS, "photutils", {"threshold": (5.0, 1000.0)})
    entry = tuning.tune("photutils", tmp_path / "frames", path=path)
    assert entry["chosen"] == {"threshold": 5.0} == baselines.settings("photutils", path)
    assert baselines.settings("psfex", path) == {"threshold": 2.0}, "others stay"
    good, high = entry["curve"]
    assert good["paper"]["found"] > high["paper"]["found"] and good["f1"] > high["f1"]
    total = [good[label]["found"] + good[label]["missed"] for label in ("paper", "realistic")]
    assert total == [high[label]["found"] + high[label]["missed"] for label in ("paper", "realistic")]
    with pytest.raises(MissingError, match=r"val/paper-\*.fits"):
        tuning.tune("photutils", tmp_path / "nothing", path=path)
    with pytest.raises(ConfigError, match="allowed are"):
        tuning.tune("sep", tmp_path / "frames", path=path)
