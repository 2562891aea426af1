"""What chapter 01 shows: the sources of a run's frames, and the comparison of engines, made here or released."""

import shutil

import pandas as pd
import pytest

from pnet.book import simulated
from pnet.common import paths
from pnet.common.errors import ConfigError, DataError
from pnet.common.files import read_json
from pnet.simulation import datasets, physics, renderer
from pnet.simulation.recipe import Recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    output, counts = tmp_path_factory.mktemp("run"), {"train": 1, "val": 2, "test": 0}
    return output, read_json(datasets.simulate(output, counts=counts, seed=5, engine="renderer", progress=False))


def test_sources_and_checked_frames(run):
    _, record = run
    table = simulated.sources(record)
    assert table.groupby("split")["frame"].nunique().to_dict() == {"train": 1, "val": 2}
    assert table["simulator"].unique().tolist() == [renderer.SIMULATOR]
    assert [frame.name for frame, _ in simulated.checked(record)] == ["paper-300001", "paper-300002"]
    with pytest.raises(ConfigError, match="test frames are not for checks"):
        simulated.checked({"splits": {"test": ["a.fits"]}})


def test_comparison_is_live_with_skymaker_and_released_without(run, tmp_path, monkeypatch):
    output, record = run
    recipe, frames = Recipe.load(), simulated.checked(record)
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    none, _, origin = simulated.engines(frames, record, output, recipe, 1)
    assert none.empty and origin == "missing"
    # these frames as if SkyMaker had made them
    live, made, origin = simulated.engines(frames, {**record, "engine": "frames"}, output, recipe, 1)
    assert origin == "live" and made["frames"] == ["paper-300001", "paper-300002"]
    shutil.copytree(output / "simulation", tmp_path / "results/simulation")
    released, again, origin = simulated.engines(frames, record, output, recipe, 1)
    assert origin == "released" and again == made
    words = simulated.in_words(released)
    pd.testing.assert_frame_equal(words, simulated.in_words(live))
    assert {"SkyMaker", "renderer", "in order"} <= set(words.columns)
    assert "deviation" in simulated.in_words(physics.measure(frames, recipe))
    (tmp_path / "results/simulation/engines.csv").write_text('quantity,bin\n"flux')
    with pytest.raises(DataError, match="engines.csv or .json is damaged"):
        simulated.engines(frames, record, output, recipe, 1)
