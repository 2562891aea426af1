"""Goals: bounds, bins, and an honest verdict where a number is missing or its interval is wide."""

import math

import pytest

from pnet.book import tables
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.evaluation import goals
from pnet.evaluation.goals import Goal
from pnet.evaluation.ledger import Entry, Ledger


def test_verdicts():
    for bounds, cases in (
        ((0.99, math.inf), {goals.REACHED: [(0.995, 0.991, 1.0)], goals.MET: [(0.995, 0.98, 1.0), (0.995,)]}),
        ((0.99, math.inf), {goals.MISSED: [(0.985, 0.97, 0.992), (0.985,)], goals.UNKNOWN: [(math.nan,)]}),
        ((-math.inf, 1.1), {goals.REACHED: [(1.05, 1.0, 1.09)], goals.MET: [(1.05, 1.0, 1.2)]}),
        ((-math.inf, 1.1), {goals.MISSED: [(1.15, 1.0, 1.3)]}),
        ((0.95, 1.05), {goals.REACHED: [(1.0, 0.96, 1.04)], goals.MET: [(1.0, 0.94, 1.04), (1.0, 0.96, 1.06)]}),
    ):
        goal = Goal("a", "c", "k", "what", *bounds)
        assert goal.decide(Ledger()) == (None, goals.UNKNOWN)
        for verdict, numbers in ((verdict, each) for verdict, several in cases.items() for each in several):
            assert goal.decide(Ledger([Entry("k", *numbers)]))[1] == verdict


def test_the_worst_bin_decides_and_none_may_be_missing():
    goal = Goal("a", "c", "k", "every bin", least=0.95, most=1.05, bins=("14", "15"))
    low, high = Entry("k.14", 0.90), Entry("k.15", 1.07)
    assert goal.decide(Ledger([low, high])) == (goal.value(low), goals.MISSED)
    good = Entry("k.14", 1.0, 0.99, 1.01)
    assert goal.decide(Ledger([good, Entry("k.15", 1.02, 0.98, 1.05)]))[1] == goals.REACHED
    assert goal.decide(Ledger([Entry("k.14", 1.0, 0.9, 1.1), Entry("k.15", 1.02, 0.98, 1.05)]))[1] == goals.MET
    assert goal.decide(Ledger([Entry("k.14", 1.0)])) == (None, goals.UNKNOWN)


def test_values_relative_to_the_limit_and_without_their_sign():
    entry = Entry("k", 0.0066, 0.0060, 0.0072, limit=0.006)
    value = Goal("a", "c", "k", "w", most=1.06, relative=True).value(entry)
    assert (value.value, value.low, value.high) == pytest.approx((1.1, 1.0, 1.2))
    absolute = Goal("a", "c", "k", "w", most=0.1, absolute=True)
    value = absolute.value(Entry("k", -0.2, -0.3, -0.1))
    assert (value.value, value.low, value.high) == (0.2, 0.1, 0.3)
    assert absolute.value(Entry("k", -0.2, -0.3, 0.1)).low == 0.0
    with pytest.raises(DataError, match="no limit"):
        Goal("a", "c", "k", "w", most=1.06, relative=True).value(Entry("k", 1.0))


def test_the_released_goals_can_be_read_and_told():
    wanted = goals.load()
    assert len({goal.name for goal in wanted}) == len(wanted) > 20
    assert {goal.chapter for goal in wanted} == {"detection", "uncertainty"}
    detection = goals.load(chapter="detection")
    table = tables.goals(Ledger([Entry("simulation.pnet.precision", 0.9995, 0.9992, 0.9999, 4000)]), detection)
    assert table[""].tolist().count(goals.UNKNOWN) == len(detection) - 1
    first = table.iloc[0]
    assert first["wanted"] == "≥ 99.9 %" and first["ours (95 %)"] == "99.95 (99.92 … 99.99) %"
    assert first[""] == "reached"
    assert first["paper"] == "99.43 %"
    with pytest.raises(ConfigError, match="detection, uncertainty"):
        goals.load(chapter="cooking")


def test_a_goal_stands_beside_the_classical_value():
    key = "simulation.{}.x_over_limit.{}"
    goal = Goal("a", "c", "simulation.pnet.x_over_limit", "x", most=1.1, bins=("14", "15"))
    entries = [Entry(key.format("pnet", "14"), 1.3, limit=1.0), Entry(key.format("pnet", "15"), 1.0, limit=1.0)]
    row = tables.goals(Ledger([*entries, Entry(key.format("sextractor", "14"), 2.0)]), [goal]).iloc[0]
    assert row["goal"] == "x (worst: 14)" and row["classical"] == "2.00, SExtractor" and row["wanted"] == "≤ 1.1"
    assert row["limit"] == "1.00" and row[""] == "missed"


def test_bad_files(tmp_path):
    path = tmp_path / "goals.yml"
    with pytest.raises(MissingError, match="goals.yml"):
        goals.load(path)
    for text, message in (
        ("- {name: a, chapter: c, key: k, what: w}", "no bound"),
        ("- {name: a, chapter: c, key: k, what: w, most: low}", "not a goal"),
        ("- {name: a, chapter: c, key: k, what: w, most: 1, colour: red}", "not a goal"),
        ("- [", "not YAML"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            goals.load(path)
