"""Cards of the released weights: what each was made from can be had, what was fitted later says when and how."""

import hashlib
import re
import subprocess

import pytest

from pnet.common import paths
from pnet.common.files import read_json
from pnet.stars import weights

CARDS = sorted(paths.WEIGHTS.glob("*.json"))
RECORDED = {"recalibration": "recalibrated", "confidence_calibration": "confidence_calibrated"}


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
def test_chains_of_weights_resolve(path):
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


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_what_was_fitted_after_training_has_a_record(path):
    card = read_json(path)
    for fitted, record in RECORDED.items():
        if card.get(fitted):
            own = {**card, "frames": card["data"].get("val_frames"), "found_by": card["data"].get("found_by")}
            made = card.get(record, own)  # what the training run fitted itself has the run's own record
            assert made["date"] >= card["date"] and re.fullmatch("[0-9a-f]{40}", made["commit"])
            assert made["command"].startswith("python -m pnet ") and made["frames"] and made["found_by"]
