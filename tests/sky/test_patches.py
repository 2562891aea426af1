"""Tiles: every position belongs to one of them, and their stars come back to where they were."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from pnet.sky import patches

SIDES = st.integers(1, 2100)


@settings(max_examples=50)
@given(SIDES, SIDES, st.integers(0, 2**32 - 1))
def test_every_star_is_taken_once_where_it_is(height, width, seed):
    rng = np.random.default_rng(seed)
    stars = pd.DataFrame({"x": rng.uniform(-0.5, width - 0.5, 50), "y": rng.uniform(-0.5, height - 0.5, 50)})
    taken = []
    for patch in patches.split((height, width)):
        assert 0 <= patch.top <= max(0, height - patches.SIZE) and 0 <= patch.left <= max(0, width - patches.SIZE)
        own = patch.keep(stars - [patch.left, patch.top])
        # far enough from the border of the patch, but for that of the image
        for axis, start, side in (("x", patch.left, width), ("y", patch.top, height)):
            inner = own[(own[axis] > patches.OVERLAP) & (own[axis] < side - patches.OVERLAP)][axis] - start
            assert inner.between(patches.OVERLAP // 2 - 1, patches.SIZE - patches.OVERLAP // 2).all()
        taken.append(own)
    pd.testing.assert_frame_equal(pd.concat(taken).sort_index(), stars)


def test_cuts_hold_the_image_and_nothing_beyond_it(rng):
    image = rng.normal(size=(600, 300))
    again = np.full((600, 300), np.nan)
    for patch in patches.split(image.shape):
        cut = patch.cut(image)
        assert cut.shape == (patches.SIZE, patches.SIZE)
        again[patch.top : patch.top + patches.SIZE] = cut[: 600 - patch.top, :300]
        assert not cut[:, 300:].any()
    np.testing.assert_array_equal(again, image)
