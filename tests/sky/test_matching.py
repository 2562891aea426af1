"""Matching: hand-made cases, an independent brute-force matcher, and the rows of the measurement table."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pnet.common.errors import ConfigError, DataError
from pnet.sky import matching
from pnet.sky.matching import FALSE, IGNORED, MATCHED, MISSED


def truth(*rows, counted=None):
    table = pd.DataFrame(rows, columns=["x", "y", "mag"])
    table["flux"] = 10 ** (0.4 * (30 - table["mag"]))
    table["kind"] = "star"
    table["counted"] = True if counted is None else counted
    return table


def detections(*rows):
    table = pd.DataFrame(rows, columns=["x", "y", "confidence"], dtype=float)
    return table.assign(flux=1e4, mag=20.0)


def brute_force(sources, found, confidence, radius):
    """The same rule in plain loops."""
    free, result = set(range(len(sources))), [-1] * len(found)
    for i in sorted(range(len(found)), key=lambda i: -confidence[i]):
        near = [(np.hypot(*(sources[j] - found[i])), j) for j in free]
        near = [pair for pair in near if pair[0] <= radius]
        if near:
            result[i] = min(near)[1]
            free.remove(result[i])
    return result


def places(most):
    """Positions on a grid of quarter pixels: many equal distances, and some exactly at the radius."""
    return st.integers(0, most).flatmap(
        lambda n: arrays(float, (n, 2), elements=st.integers(0, 40).map(lambda i: i / 4))
    )


@given(places(25), places(25), st.data(), st.sampled_from([0.25, 1.0, 2.0]))
def test_agrees_with_plain_loops(sources, found, data, radius):
    """Crowded or empty, the most confident first, the nearest free source within the radius, each once."""
    confidence = data.draw(arrays(float, len(found), elements=st.integers(0, 4).map(float)))
    taken = matching.match(*sources.T, *found.T, confidence, radius)
    assert taken.tolist() == brute_force(sources, found, confidence, radius)
    used = taken[taken >= 0]
    assert len(set(used)) == len(used)


@pytest.mark.parametrize("radius", [0, -1, np.nan])
def test_bad_input_is_named(radius):
    with pytest.raises(ConfigError, match="radius"):
        matching.match([1.0], [1.0], [1.0], [1.0], [1.0], radius)
    with pytest.raises(DataError, match="x: 1 of 1 values are not finite"):
        matching.match([1.0], [1.0], [np.nan], [1.0], [1.0])
    with pytest.raises(DataError, match="truth: column.*counted"):
        matching.compare(truth((1, 1, 15)).drop(columns="counted"), detections(), (50, 50))


def test_every_status():
    sources = truth((50, 50, 15), (100, 100, 16), (150, 150, 21), counted=[True, True, False])
    found = detections(
        (50.5, 50, 0.9), (150, 150.5, 0.8), (80, 20, 0.7), (4, 60, 0.6), (60, 3, 0.5), (60.3, 89.8, 0.4)
    )  # of those that match nothing two are near the edge, the last is on a masked pixel
    mask = np.zeros((200, 200), bool)
    mask[90, 60] = True
    rows = matching.compare(sources, found, (200, 200), mask=mask)
    assert rows["status"].tolist() == [MATCHED, MISSED, IGNORED, FALSE, IGNORED, IGNORED, IGNORED]
    assert rows["x"].iloc[0] == 50.5 and np.isnan(rows["x"].iloc[1]) and rows["y"].iloc[2] == 150.5
    assert rows["truth_x"].iloc[3:].isna().all() and (rows["match_radius"] == 2.0).all()
    assert not rows["counted"].iloc[3:].any()
    assert np.isnan(rows["mag_err"]).all()  # a measurer without error bars


def test_no_stars_and_no_detections():
    assert matching.compare(truth(), detections(), (50, 50)).empty
    only_found = matching.compare(truth(), detections((25, 25, 0.5)), (50, 50))
    assert only_found["status"].tolist() == [FALSE]
    only_truth = matching.compare(truth((25, 25, 15)), detections(), (50, 50))
    assert only_truth["status"].tolist() == [MISSED]


def field(rng, error):
    """40 stars and their detections, with 30 more that match nothing."""
    sources = truth(*np.column_stack([rng.uniform(20, 180, (40, 2)), rng.uniform(13, 20, 40)]))
    found = detections(
        *np.column_stack([sources[["x", "y"]] + rng.normal(0, error, (40, 2)), rng.random(40)]),
        *np.column_stack([rng.uniform(20, 180, (30, 2)), rng.random(30)]),
    )
    return sources, found


def test_a_threshold_afterwards_equals_fewer_detections_before(rng):
    sources, found = field(rng, 0.5)
    sources["counted"] = rng.random(40) < 0.7
    found.loc[60:, "x"] -= 20  # some in the border
    late = matching.at_threshold(matching.compare(sources, found, (200, 200)), 0.4)
    early = matching.compare(sources, found[found["confidence"] >= 0.4], (200, 200))
    pd.testing.assert_frame_equal(late, early)


def test_rematching_equals_matching_with_that_radius(rng):
    sources, found = field(rng, 0.7)
    rows = matching.compare(sources, found, (200, 200)).assign(frame="a")
    for radius in (0.5, 1.0, 4.0):
        again = matching.rematch(rows, radius)
        direct = matching.compare(sources, found, (200, 200), radius=radius)
        assert again["status"].value_counts().to_dict() == direct["status"].value_counts().to_dict()
        assert (again["match_radius"] == radius).all()
