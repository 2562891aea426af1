"""Comparisons that need training, at the smallest size: rows, columns, and what an ensemble is."""

import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pnet.common import paths
from pnet.common.files import read_json
from pnet.detection.network import CONFIGS as DETECTION
from pnet.detection.network import PhotometryDetectionNet
from pnet.simulation.datasets import make_dataset
from pnet.simulation.recipe import Recipe
from pnet.stars.network import CONFIGS, BayesianPhotometryNet
from pnet.stars.predict import Prediction
from pnet.training import fit
from pnet.training.fields import RenderedFields
from pnet.training.injection import InjectedFields
from pnet.training.real_sky import RealSky
from studies import ablations, clipping, detection, freezing, stars
from studies.__main__ import app


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    for split, n in (("train", 1), ("val", 2)):
        make_dataset(folder, Recipe.load(), split, n, 5, engine="renderer", progress=False)
    return folder


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Runs ``python -m studies`` with the smallest budget, results apart; returns what it wrote."""
    monkeypatch.setattr(paths, "RESULTS", tmp_path)

    def run(name, *options, epochs=1):
        budget = ("--output", str(tmp_path / "run"), "--epochs", str(epochs), "--steps", "2", "--quiet")
        done = CliRunner().invoke(app, [name, *budget, *map(str, options)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return read_json(tmp_path / "studies" / f"{name}.json")

    return run


def test_mixture_has_the_moments_of_its_members(rng):
    """Against draws from the members: law of total variance."""
    members = [
        {"mag": Prediction(np.array([m]), np.array([s]), np.zeros(1))} for m, s in ((0.0, 1.0), (1.0, 0.5), (-2.0, 2.0))
    ]
    found = stars.mixture(members)["mag"]
    draws = np.concatenate([rng.normal(member["mag"].mean, member["mag"].aleatoric, 200_000) for member in members])
    assert found.mean[0] == pytest.approx(draws.mean(), abs=0.02)
    assert found.sigma[0] == pytest.approx(draws.std(), rel=0.01)


def test_a_study_of_stars_trains_every_variant_and_reads_finished_ones_again(frames, study, monkeypatch):
    tiny = dataclasses.replace(CONFIGS["tiny"], head="plain")
    monkeypatch.setitem(stars.STUDIES, "posterior", {"one": (CONFIGS["tiny"], 1.0, 1), "two of them": (tiny, 1.0, 2)})
    monkeypatch.setattr(stars, "BATCH_SIZE", 64)
    first, second = (study("posterior", "--frames", frames) for _ in range(2))
    assert [row["name"] for row in first["rows"]] == ["one", "two of them"]
    assert set(first["rows"][0]) - {"seconds"} == set(first["columns"]) == set(stars.COLUMNS)
    assert first["provenance"]["n"] > 5 and first["rows"][1]["epistemic_share"] > 0
    assert second["rows"] == first["rows"]


def test_samples_are_timed_against_the_plain_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    model = BayesianPhotometryNet(CONFIGS["tiny"]).eval()
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


def test_ablation_of_the_detection_net(frames, study, monkeypatch):
    rows = {"net": (DETECTION["tiny"], False), "fitted": (DETECTION["tiny"], True)}
    # random weights find a star of low confidence in every cell
    for name, value in (("VARIANTS", rows), ("LOWEST", 0.15), ("BATCH_SIZE", 4), ("FIELD_SIZE", 128)):
        monkeypatch.setattr(detection, name, value)
    rendered = RenderedFields(Recipe.load(), 1, 128)
    monkeypatch.setattr(detection.injection, "fields", lambda *_: rendered)  # real frames are not at hand
    content = study("detection", "--frames", frames)
    assert [row["name"] for row in content["rows"]] == ["net", "fitted"]
    assert set(content["rows"][0]) - {"seconds"} == set(content["columns"])


def test_clipping_compares_the_same_batches_and_a_run_that_diverges_is_a_row(frames, study, monkeypatch):
    tiny = dataclasses.replace(CONFIGS["tiny"], bare=True, context=False, target="magnitude", targets=("mag",))
    for name, value in (("CONFIG", tiny), ("BATCH_SIZE", 32), ("SEEDS", 1)):
        monkeypatch.setattr(clipping, name, value)
    clipped, free = study("clipping", "--frames", frames, epochs=2)["rows"]
    assert clipped["history"][0]["loss"] == pytest.approx(free["history"][0]["loss"], rel=0.05)
    assert (clipped["diverged"], free["diverged"]) == ("no", "no") and clipped["mag_mae"] > 0
    assert free["gradient_norm"] > 1 and free["loss"] != clipped["loss"]
    monkeypatch.setitem(clipping.NORMS, "free", 1e-30)  # another run: it does not go on from the last one's checkpoint
    monkeypatch.setattr(
        clipping, "ELBO", lambda n: lambda model, _: {"loss": sum(p.sum() for p in model.parameters()) / 0}
    )
    content = study("clipping", "--frames", frames, "--seed", 7, epochs=2)
    assert all("nan" in row["diverged"] or "inf" in row["diverged"] for row in content["rows"])
    assert all(row["loss"] is None and row["history"] == [] for row in content["rows"])


def test_tuning_begins_with_the_start_and_freezes_half_of_one_run(study, monkeypatch, rng):
    net = PhotometryDetectionNet(DETECTION["tiny"])
    monkeypatch.setattr(freezing.weights, "load", lambda *_: (copy.deepcopy(net).eval(), {"sha256": "0"}))
    empty = np.zeros((256, 256), np.float32)
    image, ignored = rng.normal(0, 10, empty.shape).astype(np.float32), np.float32([[60, 60]])
    sky = RealSky(image, empty, ignored, 10.0, 100.0, 1.3, 3.4, 30.0, 3e5)
    monkeypatch.setattr(
        freezing.injection, "fields", lambda _, n, size, *__: InjectedFields([sky], Recipe.load(), n, size)
    )
    for name, value in (("BATCH_SIZE", 2), ("FIELD_SIZE", 128), ("CUTOUTS", 6), ("SCENE", 256), ("SCENES", 2)):
        monkeypatch.setattr(freezing, name, value)
    scenes = freezing.injected(freezing.injection.fields("", 1, 256), 1, 3)
    monkeypatch.setattr(freezing, "catalogued", lambda _: scenes[0])
    assert scenes[0].frame.mask[52:69, 52:69].all() and scenes[0].frame.mask.sum() == 17**2
    assert scenes[0].truth["counted"].any()
    start, frozen, free = study("freezing", epochs=2)["rows"]
    assert frozen["history"][0] == free["history"][0] == {"steps": 0, "val_loss": pytest.approx(start["loss"])}
    assert [row["steps"] for row in free["history"]] == [0, 2, 4]
    assert frozen["seconds_frozen"] > 0 and free["seconds_frozen"] is None
    assert frozen["loss_low"] < frozen["loss"] < frozen["loss_high"] and frozen["loss"] != free["loss"]
