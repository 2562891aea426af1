"""Comparisons that need training, at the smallest size: rows, columns, and what an ensemble is."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from pnet.common import paths
from pnet.common.files import read_json
from pnet.detection.network import CONFIGS as DETECTION
from pnet.simulation.datasets import make_dataset
from pnet.simulation.recipe import Recipe
from pnet.stars.network import CONFIGS
from pnet.stars.predict import Prediction
from pnet.training import fit
from pnet.training.config import FitConfig
from pnet.training.fields import RenderedFields
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


@pytest.fixture
def budget(monkeypatch, tmp_path):
    """The smallest budget, results apart, a folder of the run."""
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    return tmp_path / "run", FitConfig(1, 2)


def test_a_study_of_stars_trains_every_variant_and_reads_finished_ones_again(frames, budget, monkeypatch):
    tiny = dataclasses.replace(CONFIGS["tiny"], head="plain")
    monkeypatch.setitem(stars.STUDIES, "posterior", {"one": (CONFIGS["tiny"], 1.0, 1), "two of them": (tiny, 1.0, 2)})
    monkeypatch.setattr(stars, "BATCH_SIZE", 64)
    folder, fit = budget
    first, second = (
        read_json(stars.run("posterior", folder, frames, fit, command="c", progress=False)) for _ in range(2)
    )
    assert [row["name"] for row in first["rows"]] == ["one", "two of them"]
    assert set(first["rows"][0]) - {"seconds"} == set(first["columns"]) == set(stars.COLUMNS)
    assert first["provenance"]["n"] > 5 and first["rows"][1]["epistemic_share"] > 0
    assert second["rows"] == first["rows"]


def test_samples_are_timed_against_the_plain_loop(budget, monkeypatch):
    model = stars.network(CONFIGS["tiny"]).eval()
    monkeypatch.setattr(stars.weights, "load", lambda kind: (model, {"sha256": "0"}))
    rows = read_json(stars.sampling(seed=1, command="c", n=20, samples=3))["rows"]
    assert [row["stars"] for row in rows] == [20, 20] and rows[1]["speed"] == 1


def test_variants_learn_from_the_same_batches():
    source = ablations.remembered(fit.Mixed([], lambda _: object()))
    assert source.batch(1, None) is source.batch(1, None)
    assert source.batch(1, None) is not source.batch(2, None)


def test_pairs_found():
    truth = pd.DataFrame({"x": [10.0, 15.0, 50.0, 56.0, 90.0, 92.0], "y": [10.0, 10.0, 50.0, 50.0, 90.0, 90.0]})
    found = truth.assign(confidence=1.0)
    assert detection.pairs_found(truth, found) == (2, 2)  # the third pair is too close to count
    assert detection.pairs_found(truth, found.drop(index=1)) == (1, 2)
    assert detection.pairs_found(truth.iloc[:1], found.iloc[:1]) == (0, 0)


def test_ablation_of_the_detection_net(frames, budget, monkeypatch):
    rows = {"net": (DETECTION["tiny"], False), "refined": (DETECTION["tiny"], True)}
    # random weights find a star of low confidence in every cell
    for name, value in (("VARIANTS", rows), ("LOWEST", 0.15), ("BATCH_SIZE", 4), ("FIELD_SIZE", 128)):
        monkeypatch.setattr(detection, name, value)
    rendered = RenderedFields(Recipe.load(), 1, 128)
    monkeypatch.setattr(detection.injection, "fields", lambda *_: rendered)  # real frames are not at hand
    folder, fit = budget
    content = read_json(detection.run(folder, frames, fit, command="c", progress=False))
    assert [row["name"] for row in content["rows"]] == ["net", "refined"]
    assert set(content["rows"][0]) - {"seconds"} == set(content["columns"])
