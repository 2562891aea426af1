"""Cores that have lost light without a word of it, and crowds."""

import numpy as np
import pandas as pd
from pixel_psf import PROFILES, drawn, grid_of_stars, guessed, light_of, on_pixels

from pnet.sky import background
from pnet.stars.fitted import fitted_stars


def test_a_core_without_its_light_is_found_and_the_star_measured_from_its_wings():
    truth = grid_of_stars(64, seed=3)
    frame = drawn(on_pixels(PROFILES["Moffat"]), truth)
    brightest = truth["flux"].to_numpy().argsort()[-3:]
    for index in brightest:  # as a survey fills what is saturated
        column, row = truth.loc[index, ["x", "y"]].round().astype(int)
        frame.image[row - 2 : row + 3, column - 2 : column + 3] *= 0.1
    start = guessed(truth, seed=5)
    start.loc[brightest, "flux"] *= 0.3  # a detection net sees what is there
    kept, stars, lost = fitted_stars(frame, start, background.subtracted(frame))
    assert len(kept) == len(truth)
    column, row = truth[["x", "y"]].round().astype(int).to_numpy().T
    np.testing.assert_array_equal(np.flatnonzero(lost[row, column]), np.sort(brightest))
    ratio = stars.table()["flux"] / truth["flux"]
    bright = truth["flux"].between(1e5, truth["flux"].nlargest(4).iloc[-1])
    off = ratio[brightest] / np.median(ratio[bright]) - 1
    assert np.abs(off).max() < 0.03


def test_wide_sources_lose_no_light():
    truth = grid_of_stars(64, seed=3)
    wide = truth.iloc[::8].assign(flux=5e4)
    frame, galaxies = (drawn(on_pixels(PROFILES["Moffat"]), truth), light_of(wide, (512, 512)))
    rolled = sum(np.roll(galaxies, (dy, dx), (0, 1)) for dy in (-3, 0, 3) for dx in (-3, 0, 3)) / 9
    frame.image += rolled.astype(np.float32)
    lost = fitted_stars(frame, guessed(truth, seed=5), background.subtracted(frame))[2]
    assert not lost.any()


def test_stars_of_a_crowd_share_its_light():
    """400 stars 10 px apart on average: hardly a pixel is empty, and a detection net sees every star too bright."""
    rng = np.random.default_rng(8)
    x, y = rng.uniform(25, 231, (2, 400))
    truth = pd.DataFrame({"x": x, "y": y, "flux": 10 ** rng.uniform(3.8, 5.2, 400), "fwhm": 3.5})
    order = truth["flux"].sort_values(ascending=False).index
    truth = truth.loc[order].assign(confidence=np.linspace(0.99, 0.4, 400)).reset_index(drop=True)
    frame = drawn(on_pixels(PROFILES["Moffat"]), truth, side=256)
    sky = background.subtracted(frame)
    assert sky.clutter > 1.2 * sky.rms
    assert abs(sky.rms / np.sqrt(300) - 1) < 0.35
    far = np.hypot(*(truth[["x", "y"]].to_numpy()[:, None] - truth[["x", "y"]].to_numpy()).T)
    np.fill_diagonal(far, np.inf)
    start = guessed(truth, seed=5).assign(flux=truth["flux"] * 1.5)
    kept, stars, _ = fitted_stars(frame, start, sky)
    source = start.reset_index().merge(kept, on=["x", "y"])["index"]
    alone = (far.min(axis=0)[source] > 4) & (truth["flux"].to_numpy()[source] > 3e4)
    flux = dict(zip(zip(kept["x"], kept["y"], strict=True), stars.table()["flux"], strict=True))
    found = np.array([flux[tuple(start.loc[index, ["x", "y"]])] for index in source])
    assert np.median(np.abs(found / truth["flux"].to_numpy()[source] - 1)[alone]) < 0.03
