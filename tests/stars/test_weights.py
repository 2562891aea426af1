"""Weights and cards: a missing file, a wrong hash, another network's card."""

import json

import pytest
import torch

from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.detection.network import CONFIGS, PhotometryDetectionNet
from pnet.stars import weights
from pnet.training import record


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
    before, start = 0, content.get("start")
    while start:  # a run may go on from one that went on from another
        before, start = before + start["fit"]["epochs_done"], start.get("start")
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
