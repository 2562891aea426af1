"""Groups by seeing and crowding are the right stars."""

import numpy as np
import pandas as pd
import pytest
from measured import table

from pnet.evaluation import scores
from pnet.evaluation.ledger import Ledger
from studies import conditions


@pytest.fixture(scope="module")
def measured():
    return table(seed=5, frames={"simulation": 20}, scatter=1.0)


def test_neighbours_are_counted_by_hand():
    rows = pd.DataFrame(
        {
            "frame": ["a"] * 5 + ["b"],
            "truth_x": [0.0, 9.0, 25.0, 60.0, np.nan, 20.0],
            "truth_y": [0.0, 0.0, 0.0, 0.0, np.nan, 0.0],
        },
        index=[7, 3, 9, 1, 4, 2],
    )
    # 9 px is too near, 35 px too far, another frame is another sky, a false detection has no source
    assert conditions.neighbours(rows).tolist() == [1, 1, 2, 0, -1, 0]


def test_groups_are_disjoint_complete_and_reach_the_stars_that_were_matched(measured):
    bad = measured["frame"].isin(sorted(set(measured["frame"]))[::2])
    stars, found = conditions.groups(measured.assign(seeing=np.where(bad, 1.2, 1.4)), "simulation")
    for kind in ("seeing", "crowding"):
        members = np.array([member for key, _, member in found if key.startswith(kind)])
        assert (members.sum(axis=0) == 1).all() and members.shape[1] == len(stars), kind
    assert {"seeing.1.2", "seeing.1.4"} <= {key for key, _, _ in found}
    rows = scores.rows(measured, "simulation", "pnet")
    for _, star in stars.sample(20, random_state=1).iterrows():
        frame = rows[(rows["frame"] == star["frame"]) & rows["truth_x"].notna()]
        distance = np.hypot(frame["truth_x"] - star["truth_x"], frame["truth_y"] - star["truth_y"])
        assert star["crowding"] == ((distance > 10) & (distance <= 30)).sum()


def test_entries_of_the_ledger(measured):
    entries = Ledger(conditions.entries(measured, "simulation", 1, {"seed": 1}, "live"))
    assert len(entries.find("simulation.pnet.miscalibration_area.crowding.*")) >= 2
    assert not entries.find("*.seeing.*"), "one seeing is no group"
    assert all(entry.n >= 20 for entry in entries.values())
