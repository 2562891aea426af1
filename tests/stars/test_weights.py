"""Weights and cards: what is missing, wrong or another network's; what the released ones were made from can be had."""

import hashlib
import json
import re
import subprocess

import pytest
import torch

from pnet.common import paths
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import read_json
from pnet.detection.network import CONFIGS, PhotometryDetectionNet
from pnet.stars import weights
from pnet.training import record

CARDS = sorted(paths.WEIGHTS.glob("*.json"))
RECORDED = {"recalibration": "recalibrated", "confidence_calibration": "confidence_calibrated"}


@pytest.fixture
def card(tmp_path):
    torch.manual_seed(1)
    model = PhotometryDetectionNet(CONFIGS["tiny"])
    return weights.save(model, tmp_path / "detection-tiny", kind="detection", card={"seed": 1}), model


def test_what_is_saved_is_loaded(card):
    path, model = card
    loaded, content = weights.load("detection", path)
    assert content["seed"] == 1 and loaded.config == model.config and not loaded.training
    for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_damaged_weights_are_refused(card):
    path, _ = card
    tensors = path.with_suffix(".safetensors")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(DataError, match="SHA-256"):
        weights.load("detection", path)
    tensors.unlink()
    with pytest.raises(MissingError, match="does not exist"):
        weights.load("detection", path)


def test_missing_card_and_wrong_kind_are_refused(card, tmp_path):
    path, _ = card
    with pytest.raises(MissingError, match="pnet train detection"):
        weights.load("detection", tmp_path / "nothing.json")
    with pytest.raises(DataError, match="a bpnn network is needed"):
        weights.load("bpnn", path)
    with pytest.raises(ConfigError, match="allowed are"):
        weights.resolve("nonsense")
    path.write_text("{}")
    with pytest.raises(DataError, match="not a card"):
        weights.check(path)


def test_configuration_that_does_not_fit_is_refused(card):
    path, _ = card
    content = json.loads(path.read_text())
    content["config"]["stem"] = 24
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="does not fit"):
        weights.load("detection", path)


@pytest.mark.parametrize("kind", sorted(weights.RELEASED))
def test_released_weights_load_and_have_a_whole_record(kind):
    model, content = weights.load(kind)
    assert sum(parameter.numel() for parameter in model.parameters()) > 1e5
    trained = record.load(kind, "build/no-such-profile")
    before = sum(start["fit"]["epochs_done"] for start in chain(content))
    assert trained.origin == "released" and len(trained.history) == before + content["fit"]["epochs_done"]
    assert trained.history["epoch"].is_monotonic_increasing
    for name in ("command", "commit", "seed", "device", "date", "seconds", "data", "figures"):
        assert content.get(name) not in (None, ""), name
    assert not content["commit"].endswith("+"), "released weights come from a clean commit"


def test_release_needs_the_history(card, tmp_path, monkeypatch):
    path, _ = card
    monkeypatch.setattr(record, "WEIGHTS", tmp_path / "released")
    with pytest.raises(MissingError, match="history"):
        record.release(path)
    assert not (tmp_path / "released").exists()
    (tmp_path / "history.csv").write_text("epoch,loss\n1,2\n")
    released = record.release(path)
    assert weights.check(released)["seed"] == 1
    assert (tmp_path / "released" / "detection-tiny.csv").is_file()
    (tmp_path / "history.start.csv").write_text("epoch,loss\n1,3\n")
    record.release(path)
    assert (tmp_path / "released" / "detection-tiny.start.csv").is_file()
    (tmp_path / "history.start.csv").unlink()
    record.release(path)
    assert not (tmp_path / "released" / "detection-tiny.start.csv").exists()


def chain(card):
    """The weights that a card's own started from, and those that these started from."""
    while card.get("start"):
        card = card["start"]
        yield card


def test_every_card_is_whole():
    assert {path.stem for path in CARDS} >= set(weights.RELEASED.values())
    for path in CARDS:
        assert weights.check(path)["kind"] in weights.NETWORKS


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_chains_of_weights_resolve_and_what_was_fitted_later_has_a_record(path):
    """Each start is a file here or has its hash recorded, with the commit that holds it where one does.

    The networks that found the stars of the training are here.
    """
    card = read_json(path)
    here = {read_json(other)["sha256"] for other in CARDS}
    for start in chain(card):
        assert re.fullmatch("[0-9a-f]{64}", start["sha256"]) and start["command"] and start["commit"]
        if start["sha256"] in here or "found_at" not in start:
            continue
        commit, _, place = start["found_at"].partition(":")
        shown = subprocess.run(["git", "show", f"{commit}:{place}"], cwd=paths.ROOT, capture_output=True)
        if shown.returncode == 0:  # not in an archive or a shallow clone
            assert hashlib.sha256(shown.stdout).hexdigest() == start["sha256"]
    for hashed in card["data"].get("found_by", {}).values():
        assert hashed in here
    for fitted, made_by in RECORDED.items():
        if card.get(fitted):
            own = {**card, "frames": card["data"].get("val_frames"), "found_by": card["data"].get("found_by")}
            made = card.get(made_by, own)  # what the training run fitted itself has the run's own record
            assert made["date"] >= card["date"] and re.fullmatch("[0-9a-f]{40}", made["commit"])
            assert made["command"].startswith("python -m pnet ") and made["frames"] and made["found_by"]
