"""Verdicts on the paper's claims: the whole interval keeps it, the value does, or neither."""

import pytest

from pnet.common import paths
from pnet.common.errors import DataError
from pnet.evaluation import claims
from pnet.evaluation.claims import FAILS, PERHAPS, REPRODUCES, UNKNOWN, UNTESTABLE, Claim
from pnet.evaluation.ledger import Entry, Ledger


def ledger(**numbers):
    return Ledger(Entry(key.replace("__", "."), value=v, low=low, high=high) for key, (v, low, high) in numbers.items())


@pytest.mark.parametrize(
    ("bounds", "interval", "verdict"),
    [
        ({"least": 0.9}, (0.95, 0.92, 0.97), REPRODUCES),
        ({"least": 0.9}, (0.95, 0.88, 0.97), PERHAPS),
        ({"least": 0.9}, (0.89, 0.85, 0.95), FAILS),
        ({"most": 0.9}, (0.85, 0.8, 0.91), PERHAPS),
        ({"least": 0.6, "most": 0.7}, (0.65, 0.62, 0.68), REPRODUCES),
        ({"least": 0.6, "most": 0.7}, (0.72, 0.68, 0.75), FAILS),
        ({"least": 0.9}, (0.95, None, None), PERHAPS),
        ({"least": 0.9}, (None, None, None), UNKNOWN),
    ],
)
def test_a_number_and_its_interval_decide(bounds, interval, verdict):
    claim = Claim("a", "b", "c", key="simulation.pnet_paper.recall", **bounds)
    assert claim.decide(ledger(simulation__pnet_paper__recall=interval))[1] == verdict


@pytest.mark.parametrize(
    ("direction", "other", "verdict"),
    [
        ("more_than", (0.5, 0.4, 0.6), REPRODUCES),
        ("more_than", (0.75, 0.6, 0.85), PERHAPS),
        ("more_than", (0.9, 0.85, 0.95), FAILS),
        ("more_than", (0.8, 0.7, 0.9), FAILS),  # no more than the other
        ("less_than", (0.95, 0.92, 0.99), REPRODUCES),
        ("less_than", (0.5, 0.4, 0.6), FAILS),
    ],
)
def test_comparisons_need_intervals_apart(direction, other, verdict):
    claim = Claim("a", "b", "c", key="x.pnet_paper.y", **{direction: "x.sextractor.y"})
    assert claim.decide(ledger(x__pnet_paper__y=(0.8, 0.7, 0.9), x__sextractor__y=other))[1] == verdict
    assert claim.decide(ledger(x__pnet_paper__y=(0.8, 0.7, 0.9)))[1] == UNKNOWN
    assert claim.keys == ["x.pnet_paper.y", "x.pnet.y", "x.sextractor.y"]


def test_the_released_claims_name_chapters_and_a_reason_or_a_key():
    found = claims.load()
    stems = {path.stem for path in paths.NOTEBOOKS.glob("*.md")}
    assert {claim.page for claim in found} <= stems
    assert all(claim.where and claim.what for claim in found)
    untested = [claim for claim in found if claim.why]
    assert untested and all(claim.decide(Ledger())[1] == UNTESTABLE for claim in untested)
    # every number of Tables 1 and 2 of the paper's networks is claimed
    asked = {claim.key for claim in found}
    for data in ("simulation", "sdss"):
        for name in ("precision", "recall", "ap", "mae", "sigma_nmad", "eta", "e_bar"):
            assert f"{data}.pnet_paper.{name}" in asked


NO_CLAIMS = ("page: c", "page: c, key: d", "page: c, key: d, least: 1, more_than: e", "nothing: 1")


@pytest.mark.parametrize("text", [f"- {{what: a, where: b, {rest}}}" for rest in NO_CLAIMS])
def test_what_is_no_claim_is_refused(tmp_path, text):
    path = tmp_path / "claims.yml"
    path.write_text(text)
    with pytest.raises(DataError, match="claim"):
        claims.load(path)
