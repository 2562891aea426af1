"""Training runs end to end at the smallest size: cards, starting from weights, SDSS as data, bad parameters."""

import functools

import numpy as np
import pandas as pd
import pytest

from pnet.common.errors import ConfigError, MissingError
from pnet.simulation.datasets import make_dataset
from pnet.simulation.recipe import Recipe
from pnet.stars import weights
from pnet.training import detection_run as training
from pnet.training import record as training_record
from pnet.training import sets as trainingsets
from pnet.training import star_run as star_training

RUNS = [training.train_detection, *(functools.partial(star_training.train, kind) for kind in ("bpnn", "refiner"))]
SMALL = {"config": "tiny", "epochs": 1, "steps": 2, "progress": False, "accelerator": "cpu", "devices": 1}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    recipe = Recipe.load()
    return {
        split: make_dataset(folder, recipe, split, 1, 5, engine="renderer", progress=False)
        for split in ("train", "val")
    }


def test_detection_run_leaves_a_card_and_can_be_started_from(frames, tmp_path):
    options = SMALL | {"batch_size": 2, "field_size": 128}
    card = training.train_detection(tmp_path / "a", **frames, **options, command="the command")
    content = weights.check(card)
    assert content["command"] == "the command" and content["data"]["train_frames"] == [frames["train"][0].name]
    assert {"val_precision", "val_recall"} <= set(content["figures"])
    second = training.train_detection(
        tmp_path / "b", **options, train=frames["train"], start=card, freeze_epochs=1, seed=1
    )
    started = weights.check(second)["start"]
    assert started["sha256"] == content["sha256"] and started["fit"]["epochs_done"] == 1
    assert (tmp_path / "b" / "history.start.csv").is_file()
    record = training_record.load("detection", "build/no-such-profile")
    assert len(record.table()) > 8
    frozen, first = weights.load("detection", second)[0], weights.load("detection", card)[0]
    for (name, a), b in zip(frozen.named_parameters(), first.parameters(), strict=True):
        assert bool((a == b).all()) == name.startswith(training.FREEZE_DETECTION), name


@pytest.mark.parametrize("kind", ["bpnn", "refiner"])
def test_star_run_fits_its_recalibration_on_validation_stars(frames, tmp_path, kind):
    card = star_training.train(kind, tmp_path / "c", **frames, **SMALL | {"batch_size": 64})
    content = weights.check(card)
    assert content["data"]["cut_stars"] == 2 * 16 and content["data"]["rendered_stars"] == 2 * 48
    assert content["data"]["found_by"]["detection"] == weights.check(weights.resolve("detection"))["sha256"]
    assert ("refiner" in content["data"]["found_by"]) == (kind == "bpnn")
    assert content["config"]["head"] == {"bpnn": "flipout", "refiner": "plain"}[kind]
    if content["recalibration"] is not None:  # a field may hold fewer stars than a ratio can be fitted to
        assert set(content["recalibration"]) == {"mag", "x", "y"}
        assert all(fit["ratio"] > 0 and "validation" in fit["data"] for fit in content["recalibration"].values())
    assert len(training_record.TrainingRecord(kind, content, pd.DataFrame(), True).table()) > 8


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"config": "huge"}, "allowed are"),
        ({"freeze_epochs": 1}, "needs start"),
        ({"rendered": False}, "nothing to train on"),
        ({"dataset": "gaia"}, "allowed are"),
    ],
)
@pytest.mark.parametrize("train", RUNS)
def test_bad_parameters_are_named(tmp_path, train, bad, text):
    with pytest.raises(ConfigError, match=text):
        train(tmp_path, **SMALL | {"batch_size": 16} | bad)


def test_a_manifest_without_training_fields_is_refused():
    with pytest.raises(MissingError, match="pnet sdss-manifest"):
        trainingsets.choose("sdss", "sdss-standard", (), ())


def test_doubtful_sources_of_a_real_catalogue_are_masked():
    truth = pd.DataFrame(
        {
            "kind": ["star", "star", "galaxy", "galaxy"],
            "mag": [15.0, 16.0, 18.0, 22.0],
            "counted": [True, False, False, False],
        }
    )
    marked = trainingsets.TrainingSet("sdss", (), ())._for_training(truth)
    np.testing.assert_array_equal(marked["ignored"], [False, True, False, True])
    assert "ignored" not in trainingsets.TrainingSet("simulation", (), ())._for_training(truth)
