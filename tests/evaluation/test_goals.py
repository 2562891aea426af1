"""Goals and claims: bounds, bins, comparisons, and honest verdicts on wide intervals and missing numbers."""

import math

import pytest

from pnet.book import tables
from pnet.common import paths
from pnet.common.errors import DataError, MissingError
from pnet.evaluation import goals
from pnet.evaluation.goals import Claim, Goal
from pnet.evaluation.ledger import Entry, Ledger

OURS, THEIRS = "x.pnet_paper.y", "x.sextractor.y"


def goal(**options):
    return Goal(**{"name": "a", "chapter": "c", "key": "k", "what": "w"} | options)


def claim(**options):
    return Claim(**{"what": "a", "where": "b", "page": "c", "key": OURS} | options)


@pytest.mark.parametrize(
    ("bounds", "number", "verdict"),
    [
        ((0.99, math.inf), (0.995, 0.991, 1.0), 2),
        ((0.99, math.inf), (0.995, 0.98, 1.0), 1),
        ((0.99, math.inf), (0.995,), 1),
        ((0.99, math.inf), (0.985, 0.97, 0.992), 0),
        ((0.99, math.inf), (0.985,), 0),
        ((0.99, math.inf), (math.nan,), None),
        ((-math.inf, 1.1), (1.05, 1.0, 1.09), 2),
        ((-math.inf, 1.1), (1.05, 1.0, 1.2), 1),
        ((-math.inf, 1.1), (1.15, 1.0, 1.3), 0),
        ((0.95, 1.05), (1.0, 0.96, 1.04), 2),
        ((0.95, 1.05), (1.0, 0.94, 1.04), 1),
        ((0.95, 1.05), (1.0, 0.96, 1.06), 1),
        ((0.95, 1.05), (1.1, 1.04, 1.2), 0),
    ],
)
def test_a_number_and_its_interval_decide(bounds, number, verdict):
    words = (goals.MISSED, goals.MET, goals.REACHED), (goals.FAILS, goals.PERHAPS, goals.REPRODUCES)
    both = (each(least=bounds[0], most=bounds[1]) for each in (goal, claim))
    for what, verdicts in zip(both, words, strict=True):
        wanted = goals.UNKNOWN if verdict is None else verdicts[verdict]
        assert what.decide(Ledger([Entry(what.key, *number)]))[1] == wanted
        assert what.decide(Ledger()) == (None, goals.UNKNOWN)


@pytest.mark.parametrize(
    ("direction", "other", "verdict"),
    [
        ("more_than", (0.5, 0.4, 0.6), goals.REPRODUCES),
        ("more_than", (0.75, 0.6, 0.85), goals.PERHAPS),
        ("more_than", (0.9, 0.85, 0.95), goals.FAILS),
        ("more_than", (0.8, 0.7, 0.9), goals.FAILS),  # no more than the other
        ("less_than", (0.95, 0.92, 0.99), goals.REPRODUCES),
        ("less_than", (0.5, 0.4, 0.6), goals.FAILS),
    ],
)
def test_comparisons_need_intervals_apart(direction, other, verdict):
    compared, ours = claim(**{direction: THEIRS}), Entry(OURS, 0.8, 0.7, 0.9)
    assert compared.decide(Ledger([ours, Entry(THEIRS, *other)])) == (ours, verdict)
    assert compared.decide(Ledger([ours]))[1] == goals.UNKNOWN
    assert compared.keys == [OURS, "x.pnet.y", THEIRS]


def test_the_worst_bin_decides_and_none_may_be_missing():
    bins = goal(least=0.95, most=1.05, bins=["14", "15"])
    low, high = Entry("k.14", 0.90), Entry("k.15", 1.02, 0.98, 1.05)
    assert bins.decide(Ledger([low, Entry("k.15", 1.07)])) == (bins.value(low), goals.MISSED)
    assert bins.decide(Ledger([Entry("k.14", 1.0, 0.99, 1.01), high]))[1] == goals.REACHED
    assert bins.decide(Ledger([Entry("k.14", 1.0, 0.9, 1.1), high]))[1] == goals.MET
    assert bins.decide(Ledger([Entry("k.14", 1.0)])) == (None, goals.UNKNOWN)


def test_values_relative_to_the_limit_and_without_their_sign():
    relative, absolute = goal(most=1.06, relative=True), goal(most=0.1, absolute=True)
    value = relative.value(Entry("k", 0.0066, 0.0060, 0.0072, limit=0.006))
    assert (value.value, value.low, value.high) == pytest.approx((1.1, 1.0, 1.2))
    value = absolute.value(Entry("k", -0.2, -0.3, -0.1))
    assert (value.value, value.low, value.high) == (0.2, 0.1, 0.3)
    assert absolute.value(Entry("k", -0.2, -0.3, 0.1)).low == 0.0
    with pytest.raises(DataError, match="no limit"):
        relative.value(Entry("k", 1.0))


def test_the_released_goals_can_be_read_and_told():
    wanted = Goal.load()
    assert len({each.name for each in wanted}) == len(wanted) > 20
    assert {each.chapter for each in wanted} == {"detection", "uncertainty"}
    table = tables.goals(Ledger([Entry("simulation.pnet.precision", 0.9995, 0.9992, 0.9999, 4000)]), wanted)
    assert table[""].tolist() == [goals.REACHED] + [goals.UNKNOWN] * (len(wanted) - 1)
    first = table.iloc[0]
    assert first["wanted"] == "≥ 99.9 %" and first["ours (95 %)"] == "99.95 (99.92 … 99.99) %"
    assert first["paper"] == "99.43 %"


def test_the_released_claims_name_chapters_and_a_reason_or_a_key():
    found = Claim.load()
    assert {each.page for each in found} <= {path.stem for path in paths.NOTEBOOKS.glob("*.md")}
    assert all(each.where and each.what for each in found)
    untested = [each for each in found if each.why]
    assert untested and all(each.decide(Ledger())[1] == goals.UNTESTABLE for each in untested)
    # every number of Tables 1 and 2 of the paper's networks is claimed
    names = ("precision", "recall", "ap", "mae", "sigma_nmad", "eta", "e_bar")
    wanted = {f"{data}.pnet_paper.{name}" for data in ("simulation", "sdss") for name in names}
    assert wanted <= {each.key for each in found}


def test_a_goal_stands_beside_the_classical_value():
    key = "simulation.{}.x_over_limit.{}"
    wanted = goal(key="simulation.pnet.x_over_limit", what="x", most=1.1, bins=("14", "15"))
    entries = [Entry(key.format("pnet", "14"), 1.3, limit=1.0), Entry(key.format("pnet", "15"), 1.0, limit=1.0)]
    row = tables.goals(Ledger([*entries, Entry(key.format("sextractor", "14"), 2.0)]), [wanted]).iloc[0]
    assert row["goal"] == "x (worst: 14)" and row["classical"] == "2.00, SExtractor" and row["wanted"] == "≤ 1.1"
    assert row["limit"] == "1.00" and row[""] == "missed"


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (Goal, "name: a, chapter: c, key: k, what: w", "not a goal: .*no bound"),
        (Goal, "name: a, chapter: c, key: k, what: w, most: low", "not a goal"),
        (Goal, "name: a, chapter: c, key: k, what: w, most: 1, colour: red", "not a goal"),
        (Goal, "name: [", "not YAML"),
        (Claim, "what: a, where: b, page: c", "not a claim: .*why"),
        (Claim, "what: a, where: b, page: c, key: d", "not a claim: .*why"),
        (Claim, "what: a, where: b, page: c, key: d, least: 1, more_than: e", "not a claim: .*why"),
        (Claim, "nothing: 1", "not a claim"),
    ],
)
def test_bad_files(tmp_path, kind, text, message):
    with pytest.raises(MissingError, match="none.yml"):
        kind.load(tmp_path / "none.yml")
    path = tmp_path / "bad.yml"
    path.write_text(f"- {{{text}}}")
    with pytest.raises(DataError, match=message):
        kind.load(path)
