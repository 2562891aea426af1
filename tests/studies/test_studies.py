"""Comparisons that need training, at the smallest size: rows, columns, and what an ensemble is."""

import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest

from pnet.common.files import read_json
from pnet.detection.network import CONFIGS as DETECTION
from pnet.simulation.datasets import make_dataset
from pnet.simulation.recipe import Recipe
from pnet.stars.network import CONFIGS
from pnet.stars.predict import Prediction
from pnet.training.config import FitConfig
from pnet.training.sets import TrainingSet
from studies import ablations, detection, stars


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    return TrainingSet(
        *(
            make_dataset(folder, Recipe.load(), split, n, 5, engine="renderer", progress=False)
            for split, n in (("train", 1), ("val", 2))
        )
    )


def test_mixture_has_the_moments_of_its_members(rng):
    """Against draws from the members: law of total variance."""
    members = [
        {"mag": Prediction(np.array([m]), np.array([s]), np.zeros(1))} for m, s in ((0.0, 1.0), (1.0, 0.5), (-2.0, 2.0))
    ]
    found = stars.mixture(members)["mag"]
    draws = np.concatenate([rng.normal(member["mag"].mean, member["mag"].aleatoric, 200_000) for member in members])
    assert found.mean[0] == pytest.approx(draws.mean(), abs=0.02)
    assert found.sigma[0] == pytest.approx(draws.std(), rel=0.01)


def test_a_study_of_stars_trains_every_variant_and_reads_finished_ones_again(frames, tmp_path, monkeypatch):
    tiny = dataclasses.replace(CONFIGS["tiny"], head="plain")
    monkeypatch.setitem(stars.STUDIES, "posterior", {"one": (CONFIGS["tiny"], 1.0, 1), "two of them": (tiny, 1.0, 2)})
    run = functools.partial(
        stars.run, "posterior", tmp_path / "run", frames, FitConfig(1, 2), batch_size=64, progress=False
    )
    content = read_json(run(path=tmp_path / "s.json"))
    assert [row["name"] for row in content["rows"]] == ["one", "two of them"]
    assert set(content["rows"][0]) - {"seconds"} == set(content["columns"]) == set(stars.COLUMNS)
    assert content["provenance"]["n"] > 5 and content["rows"][1]["epistemic_share"] > 0
    assert read_json(run(path=tmp_path / "t.json"))["rows"] == content["rows"]


def test_variants_learn_from_the_same_batches():
    class Source:
        def batch(self, seed, device):
            return object()

    remembered = ablations.Remembered(Source())
    assert remembered.batch(1, None) is remembered.batch(1, None)
    assert remembered.batch(1, None) is not remembered.batch(2, None)


def test_pairs_found():
    truth = pd.DataFrame({"x": [10.0, 15.0, 50.0, 56.0, 90.0, 92.0], "y": [10.0, 10.0, 50.0, 50.0, 90.0, 90.0]})
    found = truth.assign(confidence=1.0)
    assert detection.pairs_found(truth, found) == (2, 2)  # the third pair is too close to count
    assert detection.pairs_found(truth, found.drop(index=1)) == (1, 2)
    assert detection.pairs_found(truth.iloc[:1], found.iloc[:1]) == (0, 0)


def test_ablation_of_the_detection_net(frames, tmp_path, monkeypatch):
    rows = tuple(
        detection.Variant(name, DETECTION["tiny"], injected=False, refined=refined)
        for name, refined in (("net", False), ("refined", True))
    )
    monkeypatch.setattr(detection, "VARIANTS", rows)
    monkeypatch.setattr(detection, "LOWEST", 0.15)  # random weights find a star of low confidence in every cell
    options = {"batch_size": 2, "field_size": 128, "path": tmp_path / "d.json", "progress": False}
    content = read_json(detection.run(tmp_path / "run", frames, FitConfig(1, 1), **options))
    assert [row["name"] for row in content["rows"]] == ["net", "refined"]
    assert set(content["rows"][0]) - {"seconds"} == set(content["columns"])
