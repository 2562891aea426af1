"""Training runs end to end at the smallest size: settings, cards, resuming, starting from weights, bad parameters."""

import contextlib
import dataclasses
import json
import shlex
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from typer.testing import CliRunner

from pnet import cli
from pnet.book import profiles
from pnet.common import paths
from pnet.common.errors import ConfigError, MissingError
from pnet.simulation import datasets
from pnet.stars import weights
from pnet.training import record, runs, sets
from pnet.training.config import FREEZE, TrainConfig
from pnet.training.fit import CHECKPOINT, HISTORY

SMALL = {"config": "tiny", "epochs": 1, "steps": 2, "accelerator": "cpu", "devices": 1}
BATCH = {"detection": {"batch_size": 2, "field_size": 64}, "bpnn": {"batch_size": 64}}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """A profile's folder with one simulated frame to train and one to validate on."""
    folder = tmp_path_factory.mktemp("profile")
    datasets.simulate(folder, counts={"train": 1, "val": 1}, seed=5, engine="renderer", progress=False)
    return datasets.simulation_folder(folder)


def train(kind, folder, frames=None, **settings):
    settings = SMALL | BATCH[kind] | settings
    config = TrainConfig(kind, frames=frames, simulated=frames is not None, **settings)
    return runs.train(config, folder, progress=False)


@pytest.fixture(scope="module")
def detection(frames, tmp_path_factory):
    return train("detection", tmp_path_factory.mktemp("detection"), frames)


def test_detection_run_leaves_a_card_and_can_be_started_from(frames, detection, tmp_path):
    content = weights.check(detection)
    assert content["command"].startswith("python -m pnet train detection --output <")
    assert content["data"]["train_frames"] == [path.name for path in (frames / "train").glob("*.fits")]
    assert {"val_precision", "val_recall"} <= set(content["figures"])
    second = train("detection", tmp_path, frames, start=detection, freeze_epochs=1, seed=1)
    started = weights.check(second)["start"]
    assert started["sha256"] == content["sha256"] and started["fit"]["epochs_done"] == 1
    assert len(record.history_of(second)) == 2, "the history of the start comes first"
    frozen, first = weights.load("detection", second)[0], weights.load("detection", detection)[0]
    for (name, a), b in zip(frozen.named_parameters(), first.parameters(), strict=True):
        assert bool((a == b).all()) == name.startswith(FREEZE["detection"]), name
    with pytest.raises(ConfigError, match="has the configuration"):
        train("detection", tmp_path / "c", start="released")


def test_star_run_fits_its_recalibration_on_validation_stars(frames, tmp_path):
    content = weights.check(train("bpnn", tmp_path, frames))
    assert content["data"]["cut_stars"] == 2 * 16 and content["data"]["rendered_stars"] == 2 * 48
    assert content["data"]["found_by"] == {"detection": weights.check(weights.resolve("detection"))["sha256"]}
    assert {f"val_{name}_mae" for name in ("mag", "x", "y")} <= set(content["figures"])
    if content["recalibration"] is not None:  # a field may hold fewer stars than a ratio can be fitted to
        assert set(content["recalibration"]) == {"mag", "x", "y"}
        assert all(fit["ratio"] > 0 and "validation" in fit["data"] for fit in content["recalibration"].values())
    assert len(record.TrainingRecord(content, pd.DataFrame(), True).table()) > 8


def test_recalibration_leaves_a_record(frames, tmp_path, monkeypatch):
    card = train("bpnn", tmp_path)
    before = weights.check(card)
    assert before["recalibration"] is None
    monkeypatch.setattr(runs.error_scale, "MIN_STARS", 2)
    runs.recalibrate(card, frames)
    content = weights.check(card)
    assert content["recalibration"]["mag"]["ratio"] > 0 and content["sha256"] == before["sha256"]
    assert content["recalibrated"]["command"].startswith("python -m pnet recalibrate --card <")
    assert len(content["recalibrated"]["frames"]) == 1 and content["recalibrated"]["found_by"]["detection"]


def test_a_finished_run_returns_at_once_and_others_are_set_aside(tmp_path, monkeypatch):
    def stops(history):
        raise KeyboardInterrupt

    config = TrainConfig("detection", simulated=False, **SMALL | BATCH["detection"] | {"epochs": 2})
    whole = runs.train(config, tmp_path / "whole", progress=False)
    (tmp_path / "detection").mkdir()  # as Snakemake does beforehand
    with pytest.raises(KeyboardInterrupt):
        runs.train(config, tmp_path, on_epoch=stops, progress=False)
    assert (tmp_path / "detection" / CHECKPOINT).is_file()
    card = runs.train(config, tmp_path, progress=False)
    assert weights.check(card)["sha256"] == weights.check(whole)["sha256"], "resumed as if it had never stopped"
    monkeypatch.setattr(runs, "fit", None)
    assert runs.train(config, tmp_path) == card, "nothing is left to do"
    monkeypatch.undo()
    card.unlink()  # as Snakemake does with what is out of date
    assert runs.train(config, tmp_path, progress=False) == card
    assert (tmp_path / "detection.1" / HISTORY).is_file()
    train("detection", tmp_path, seed=7)
    assert (tmp_path / "detection.2" / card.name).is_file(), "a run of other settings may have taken hours"


def test_two_devices_share_each_step_and_go_on_where_one_stopped(detection, tmp_path):
    """Through the command line, frozen parts included; what two devices do side by side one does one after the other,
    so that the weights are the same but for rounding."""

    def stops(history):
        raise KeyboardInterrupt

    settings = {"config": "tiny", "epochs": 3, "steps": 2, "batch_size": 4, "micro_batch": 2, "field_size": 64}
    settings |= {"start": detection, "freeze_epochs": 2}
    config = TrainConfig("detection", simulated=False, accelerator="cpu", **settings)
    whole = weights.load("detection", runs.train(config, tmp_path / "one", progress=False))[0].state_dict()
    with pytest.raises(KeyboardInterrupt):
        runs.train(config, tmp_path / "two", on_epoch=stops, progress=False)
    words = ["train", "detection", "--output", tmp_path / "two", "--no-simulated", "--accelerator", "cpu"]
    words += [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
    command = [sys.executable, "-m", "pnet", *map(str, words), "--devices", "2", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("this run had {'devices': 1, 'pieces': 2}, it goes on with") == 1
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["detection"], "nothing was set aside"
    shared, card = weights.load("detection", tmp_path / "two" / "detection" / "detection-tiny.json")
    assert card["fit"]["devices"] == 2 and card["data"]["rendered_fields"] == 3 * 2 * 4
    before = weights.load("detection", detection)[0].state_dict()
    for name, value in shared.state_dict().items():
        if "running" not in name and "num_batches" not in name:  # each device's own
            apart, moved = (float((value - other[name]).abs().median()) for other in (whole, before))
            assert apart <= 0.01 * moved, name


def test_of_several_devices_only_the_first_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(Fabric, "is_global_zero", False)
    assert not train("bpnn", tmp_path).exists()
    assert list(tmp_path.iterdir()) == []


def test_the_stars_of_frames_are_found_on_the_device_of_the_run(frames, tmp_path, monkeypatch):
    places, load = {}, weights.load
    monkeypatch.setattr(weights, "load", lambda *words: (places.update({words[0]: words[2:]}), load(*words[:2]))[1])
    config = TrainConfig("bpnn", config="tiny", frames=frames)
    runs._stars(config, sets.chosen(config, tmp_path), 64, torch.device("cuda:3"))
    assert places == {"detection": (torch.device("cuda:3"),)}


def test_a_batch_that_devices_cannot_share_is_refused():
    config = TrainConfig("bpnn", batch_size=2000, micro_batch=500)
    assert config.at_once(2) == 500 and TrainConfig("bpnn", batch_size=2000).at_once(2) == 1000
    with pytest.raises(ConfigError, match="multiple of devices times micro_batch, 3 × 500"):
        config.at_once(3)
    with pytest.raises(ConfigError, match="1 at once; of which some come from frames"):
        TrainConfig("detection", batch_size=3).at_once(3)


def test_a_run_on_other_frames_or_with_another_net_is_another_run(tmp_path, monkeypatch):
    config = TrainConfig("bpnn", detection="net", **SMALL | BATCH["bpnn"])
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path)
    (tmp_path / "net.json").write_text("{}")

    def asked(seed):
        datasets.simulate(tmp_path, counts={"train": 1}, seed=seed, engine="renderer", progress=False)
        return runs._asked(config, tmp_path, sets.chosen(config, tmp_path))

    first = asked(1)
    assert json.loads(json.dumps(first)) == first == asked(1)
    config = dataclasses.replace(config, detection=tmp_path / "net.json")
    assert asked(1) == first, "the same weights by another name"
    (tmp_path / "net.json").write_text('{"version": 2}')
    second = asked(1)
    assert second != first and asked(2) != second


def test_the_command_line_the_profile_and_the_record_have_the_same_settings(tmp_path, monkeypatch):
    """The recorded command, given to the command line, asks for the very same run."""
    asked = []
    monkeypatch.setattr(runs, "train", lambda config, output, **_: asked.append((config, output)))
    config = TrainConfig("bpnn", simulated=False, frames="a/b", epochs=3, learning_rate=1e-3)
    for given in (config, TrainConfig("detection", injected="sdss-standard")):
        words = shlex.split(given.command("build/x"))
        done = CliRunner().invoke(cli.app, words[words.index("pnet") + 1 :])
        assert done.exit_code == 0, done.output
        assert (given, paths.Path("build/x")) == asked.pop()


@pytest.mark.parametrize(
    ("kind", "bad", "text"),
    [
        ("hal", {}, "allowed are detection, bpnn"),
        ("detection", {"config": "huge"}, "allowed are"),
        ("bpnn", {"freeze_epochs": 1}, "needs start"),
        ("bpnn", {"rendered": False, "simulated": False}, "nothing to train on"),
        ("detection", {"dataset": "gaia"}, "allowed are"),
        ("bpnn", {"epochs": 0}, "at least 1"),
        ("bpnn", {"epochs": 2.5}, "whole number"),
        ("detection", {"learning_rate": 0}, "positive"),
        ("bpnn", {"devices": "0"}, "positive number"),
        ("bpnn", {"precision": "half"}, "allowed are"),
        ("detection", {"batch_size": 40, "micro_batch": 16}, "1 × 16"),
        ("bpnn", {"batch_size": 40, "devices": 3}, "3 × 13"),
        ("detection", {"field_size": 500}, "field_size is 500, it must be a multiple of 64"),
        ("detection", {"field_size": 64, "batch_size": 4, "micro_batch": 1, "simulated": False}, "one field at once"),
        ("detection", {"batch_size": 1}, "1 at once; of which some come from frames, they must be at least 2"),
        ("detection", {"injected": "sdss-standard", "micro_batch": 2}, "2 at once; .* at least 4"),
        ("bpnn", {"field_size": 64}, "a bpnn network has none"),
        ("detection", {"temperature": 0.1}, "a detection network has none"),
    ],
)
def test_bad_settings_are_named(kind, bad, text):
    with pytest.raises(ConfigError, match=text):
        TrainConfig(kind, **bad)


def test_what_is_missing_is_named_before_anything_is_done(tmp_path):
    for words, config in (
        ("pnet sdss-manifest", TrainConfig("detection", dataset="sdss")),
        ("pnet simulate", TrainConfig("detection")),
        (r"no train/\*.fits", TrainConfig("detection", frames=tmp_path)),
        ("pnet train", TrainConfig("bpnn", simulated=False, start="mine")),
    ):
        with pytest.raises(MissingError, match=words):
            runs.train(config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_doubtful_sources_of_a_real_catalogue_are_masked():
    rows = [("star", 15.0, True), ("star", 16.0, False), ("galaxy", 18.0, False), ("galaxy", 22.0, False)]
    truth = pd.DataFrame(rows, columns=["kind", "mag", "counted"])
    marked = sets.TrainingSet(manifest="sdss-standard")._for_training(truth)
    assert marked["ignored"].tolist() == [False, True, False, True]
    assert "ignored" not in sets.TrainingSet()._for_training(truth)


def train_gpu(*settings):
    """Return the command that `make train-gpu` gives."""
    words = ["make", "--no-print-directory", "-n", "train-gpu", f"PY={sys.executable}", "READY=", "JOBS=1", *settings]
    return subprocess.run(words, cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout.strip()


PAPER = {"detection": {"batch_size": 40, "field_size": 512}, "bpnn": {"batch_size": 2000}}


@pytest.mark.parametrize("kind", PAPER)
def test_the_papers_training_in_miniature(frames, tmp_path, kind):
    """Every setting of the profile but those of size; the narrow configurations differ from the paper's in width."""
    settings = profiles.load("paper").training(kind)
    assert settings["config"] == "paper" and settings | PAPER[kind] == settings
    settings |= SMALL | BATCH[kind] | {"config": "paper-narrow"} | ({"detection": "released"} if kind == "bpnn" else {})
    content = weights.check(train(kind, tmp_path, frames, **settings))
    assert content["fit"]["precision"] == ("bf16-mixed" if kind == "detection" else "32-true")
    assert content["data"]["train_frames"]


def test_a_machine_without_what_a_profile_needs_is_told_before_anything_is_done(monkeypatch):
    paper = profiles.load("paper")
    started = dataclasses.replace(paper, steps={"train-bpnn": {"start": "mine", "accelerator": "cpu"}})
    with pytest.raises(MissingError, match="'mine'"):
        started.check_machine()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="accelerator is cuda, but PyTorch sees no GPU"):
        paper.check_machine()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for gpus, fits in ((1, True), (4, True), (3, False)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        with contextlib.nullcontext() if fits else pytest.raises(ConfigError, match="batch_size is 2000, .* 3 × 666"):
            paper.check_machine()


def test_make_train_gpu_trains_the_networks_of_a_profile(tmp_path):
    """In miniature, on the CPU; the profile paper differs in its numbers."""
    (tmp_path / "train-gpu-trial.yml").write_text(
        "steps:\n"
        "  simulate: {train: 1, val: 1, test: 0}\n"
        "  train: {accelerator: cuda}\n"
        "  train-detection: {config: tiny, batch_size: 2, field_size: 64}\n"
        "  train-bpnn: {config: tiny, batch_size: 64, simulated: false}\n"
    )
    build = paths.BUILD / "train-gpu-trial"
    profile = f"PROFILE={tmp_path}/train-gpu-trial.yml"
    options = {"cwd": paths.ROOT, "capture_output": True, "text": True}
    try:
        done = subprocess.run(f"CUDA_VISIBLE_DEVICES='' {train_gpu(profile)} --nolock", shell=True, **options)
        assert done.returncode and "PyTorch sees no GPU here" in done.stdout + done.stderr
        assert not build.exists(), "nothing was simulated first"
        command = train_gpu(profile, "ACCELERATOR=cpu", "EPOCHS=1", "STEPS=2")
        done = subprocess.run(f"{command} --nolock", shell=True, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert sorted(card.parent.name for card in build.glob("*/*-tiny.json")) == ["bpnn", "detection"]
        for kind in ("detection", "bpnn"):
            card = weights.check(build / kind / f"{kind}-tiny.json")
            assert card["fit"]["steps"] == 2 and card["device"] == "cpu"
            assert f"train {kind} --output build/train-gpu-trial" in card["command"]
    finally:
        shutil.rmtree(build, ignore_errors=True)
