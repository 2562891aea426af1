"""The confidence as a probability: fitted maps against known ones, the diagram against counts by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from measured import table
from typer.testing import CliRunner

from pnet import cli
from pnet.common import paths
from pnet.common.errors import DataError, MissingError
from pnet.evaluation import confidence
from pnet.evaluation.scores import Sample
from pnet.stars import weights
from pnet.stars.confidence import KEY, Calibration, of_card


def drawn(rng, n=20000, slope=0.6, intercept=1.5):
    """Confidences and stars whose true probability is a logistic map of the confidence."""
    values = rng.uniform(0.01, 0.99, n)
    truth = 1 / (1 + np.exp(-(slope * np.log(values / (1 - values)) + intercept)))
    return values, rng.random(n) < truth, truth


def known(values, star, frame="a"):
    return pd.DataFrame({"frame": frame, "confidence": values, "is_star": np.array(star, bool)})


def test_the_map_that_made_the_data_is_found_and_survives_a_card(rng):
    values, star, truth = drawn(rng)
    fitted = confidence.fit(known(values, star), threshold=0.62, data="30 frames")
    assert fitted.slope == pytest.approx(0.6, abs=0.05) and fitted.intercept == pytest.approx(1.5, abs=0.06)
    assert fitted.n == 20000 and fitted.n_stars == star.sum()
    assert np.abs(fitted.apply(values) - truth).max() < 0.02
    again = Calibration.from_dict(json.loads(json.dumps(fitted.as_dict())) | {"method": "platt"})
    assert again == fitted and again.threshold == 0.62
    assert of_card({KEY: fitted.as_dict()}) == fitted and of_card({}) is None
    assert np.isnan(again.apply([np.nan])).all()
    assert 0 <= again.apply([0.0])[0] <= again.apply([1.0])[0] <= 1  # single precision rounds to exactly 1


def test_fates_and_the_diagram_equal_counts_by_hand():
    rows = pd.DataFrame({"frame": "a", "confidence": [0.9, 0.8, 0.7, 0.005, 0.6, np.nan]})
    rows["x"], rows["y"] = [50.0, 60, 70, 80, 3, np.nan], [50.0, 60, 70, 80, 50, np.nan]
    rows["truth_kind"] = ["star", "galaxy", None, "star", "star", "star"]
    # below the floor, in the border and not found are left out; on nothing is no star
    assert confidence.label(rows)[["confidence", "is_star"]].to_numpy().tolist() == [[0.9, 1], [0.8, 0], [0.7, 0]]
    values = np.array([0.05, 0.05, 0.55, 0.55, 0.95, 0.95, 0.95, 1.0])
    star = np.array([0, 1, 1, 1, 1, 1, 1, 1])
    result = confidence.reliability(known(values, star), seed=1)
    assert [(share.value, share.n) for share in result.table["share"]] == [(0.5, 2), (1.0, 2), (1.0, 4)]
    assert result.table["mean"].tolist() == pytest.approx([0.05, 0.55, 0.9625])
    # mean of |share − mean|, weighted with the detections
    assert result.error.value == pytest.approx((2 * 0.45 + 2 * 0.45 + 4 * 0.0375) / 8)
    assert result.brier == pytest.approx(np.mean((values - star) ** 2))
    assert result.error.low <= result.error.value <= result.error.high


def test_a_probability_that_is_right_has_a_small_error_and_a_wrong_one_has_not(rng):
    values, star, truth = drawn(rng, 5000)
    right = confidence.reliability(known(truth, star), seed=1, edges=confidence.WHOLE)
    wrong = confidence.reliability(known(values, star), seed=1)
    assert right.error.value < 0.02 < 0.2 < wrong.error.value
    after = confidence.cross_validated(known(values, star, rng.integers(0, 20, 5000)))
    assert np.isfinite(after).all() and np.abs(after - truth).max() < 0.06


def test_what_cannot_be_calibrated_is_said():
    for values, star, message in (
        ([0.5] * 40, [1] * 40, "10 others"),
        ([0.9] * 20 + [0.1] * 20, [0] * 20 + [1] * 20, "falls"),
    ):
        with pytest.raises(DataError, match=message):
            confidence.fit(known(values, star))
    for content in ({}, {"n": 5}, {"n": 1, "n_stars": 1, "slope": "steep", "intercept": 0.0}):
        with pytest.raises(DataError, match="confidence_calibration"):
            Calibration.from_dict(content)
    with pytest.raises(DataError, match="rising"):
        Calibration(1, 1, slope=-1.0, intercept=0.0)


def test_a_card_is_rewritten_with_its_calibration_on_frames_that_are_no_test_frames(tmp_path, monkeypatch):
    with pytest.raises(MissingError, match="val/paper"):
        confidence.validation_frames(tmp_path)
    for name in ("val/paper-1", "train/realistic-1", "test/paper-1", "test/realistic-1", "train/paper-1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.fits").touch()
    found = [file.relative_to(tmp_path).as_posix() for file in confidence.validation_frames(tmp_path)]
    assert found == ["val/paper-1.fits", "train/realistic-1.fits"]
    for name in ("detection-compact.json", "detection-compact.safetensors"):
        (tmp_path / name).write_bytes((paths.WEIGHTS / name).read_bytes())
    card = tmp_path / "detection-compact.json"
    rows = table(frames={"simulation": 20}, false=4)
    rows = rows[rows["method"] == "pnet"].assign(frame=lambda t: "train/realistic-" + t["frame"])
    monkeypatch.setattr(confidence, "from_frames", lambda *_: rows)
    before = json.loads(card.read_text())
    result, raw, _ = confidence.calibrate_card(card, tmp_path)
    after = json.loads(card.read_text())
    assert of_card(after) == result and result.data == "1 frames train/realistic-*, 1 frames val/paper-*"
    assert 0.05 <= result.threshold <= 0.99
    assert after[KEY]["expected_calibration_error"]["before"][0] == pytest.approx(raw.error.value)
    made = after["confidence_calibrated"]
    assert made["command"].startswith("python -m pnet calibrate-confidence <detection-compact.json> --frames <")
    assert made["frames"] == found and made["found_by"].keys() == {"detection", "bpnn"} and made["date"]
    assert made["found_by"]["detection"] == after["sha256"]
    same = before.keys() - {KEY, "confidence_calibrated"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    weights.check(card)


def test_scores_of_the_confidence():
    rows = table(frames={"simulation": 10}, false=3)
    rows = rows[rows["method"] == "pnet"]
    fitted = Calibration(100, 80, 0.8, 0.4, threshold=0.5)
    plain = confidence.compute(Sample(rows, "simulation", "pnet"))
    assert set(plain) == {"confidence_error", "confidence_brier"}
    record = {KEY: fitted.as_dict()}
    more = confidence.compute(Sample(rows, "simulation", "pnet", 1, record))
    assert {"probability_error", "probability_brier"} < set(more) and "recall_at_chosen" not in more
    galaxies = confidence.compute(Sample(rows.assign(dataset="realistic"), "realistic", "pnet", 1, record))
    assert galaxies["threshold_chosen"].estimate.value == 0.5
    found = ((rows["status"] == "matched") & (rows["confidence"] >= 0.5)).sum()
    stars = rows["status"].isin(["matched", "missed"]).sum()
    assert galaxies["recall_at_chosen"].estimate.value == pytest.approx(found / stars)


def test_the_command_says_what_it_did(tmp_path, monkeypatch):
    asked = {}

    def calibrate(card, folder, **options):
        asked.update(options, card=card, folder=folder)
        worth = confidence.reliability(known([0.5, 0.5], [0, 1]), seed=1)
        return Calibration(40, 30, 1.0, 0.0, 0.61, "3 frames val/paper-*"), worth, worth

    monkeypatch.setattr(confidence, "calibrate_card", calibrate)
    result = CliRunner().invoke(cli.app, ["calibrate-confidence", "a.json", "--frames", str(tmp_path), "--quiet"])
    assert result.exit_code == 0, result.output
    assert "40 detections, 30 of them stars, in 3 frames val/paper-*" in result.output and "0.61" in result.output
    assert asked["card"] == "a.json" and asked["folder"] == tmp_path
