"""Dimmed twins: what is added to a frame, and what a check finds of programs whose faults are known."""

import galsim
import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from pixel_psf import drawn

from pnet.common.errors import DataError
from pnet.evaluation import twins as evaluation
from pnet.sky import background, twins

MAGNITUDES = (16.0, 17.0, 18.0)  # at a zero point of 28: 63,000 to 10,000 electrons
PSF = galsim.Moffat(beta=3.0, fwhm=3.3)


@pytest.fixture(scope="module")
def frame_and_stars():
    rng = np.random.default_rng(1)
    grid = np.stack(np.meshgrid([100, 256, 410], [100, 256, 410]), -1).reshape(-1, 2)
    x, y = (grid + rng.uniform(-2, 2, grid.shape)).T
    stars = pd.DataFrame({"x": x, "y": y, "flux": rng.uniform(2e5, 5e5, len(x))})
    return drawn(PSF, stars), stars


@pytest.fixture(scope="module")
def made(frame_and_stars):
    frame, stars = frame_and_stars
    return twins.make(frame, stars, background.subtracted(frame), MAGNITUDES, 6, seed=4)


def test_copies_hold_the_light_that_they_should(frame_and_stars, made):
    frame, stars = frame_and_stars
    copied, table = made
    assert len(table) == 12 and copied.name == "f+twins"
    added, half = copied.image - frame.image, 14
    for star in table.itertuples():
        column, row = round(star.x), round(star.y)
        light = added[row - half : row + half + 1, column - half : column + half + 1].sum()
        flux = float(frame.flux(star.mag))
        assert light == pytest.approx(flux, abs=0.04 * flux + 4 * np.sqrt(flux))
        original = stars.loc[np.hypot(stars["x"] - star.x_original, stars["y"] - star.y_original).idxmin(), "flux"]
        assert star.dimming == pytest.approx(-2.5 * np.log10(flux / original))
        assert np.hypot(stars["x"] - star.x, stars["y"] - star.y).min() > 7 * 3.3
        shift = np.array([star.x - star.x_original, star.y - star.y_original])
        assert np.allclose(shift, np.rint(shift))


def test_noise_of_copies_is_that_of_fainter_stars(frame_and_stars):
    """Copies of one star differ from each other by their photons' noise, as the variance plane says."""
    frame, stars = frame_and_stars
    sums, variances = [], []
    for seed in range(30):
        copied, table = twins.make(frame, stars, background.subtracted(frame), (17.0, 17.01), 1, seed=seed)
        star = table.iloc[0]
        rows, columns = (
            slice(round(star["y"]) - 6, round(star["y"]) + 7),
            slice(round(star["x"]) - 6, round(star["x"]) + 7),
        )
        sums.append((copied.image - frame.image)[rows, columns].sum() / float(frame.flux(star["mag"])))
        variances.append((copied.variance - frame.variance)[rows, columns].sum() / float(frame.flux(star["mag"])) ** 2)
    assert np.std(sums) == pytest.approx(np.sqrt(np.mean(variances)), rel=0.35)


def program(made, *, bias=0.0, noise=0.01, blind=False):
    """Return a program that knows all stars, makes an error of its own and says how large it is."""
    copied, table = made
    rng = np.random.default_rng(9)

    def measure(frame):
        originals = table.drop_duplicates("x_original")
        bright = {
            "x": originals["x_original"],
            "y": originals["y_original"],
            "mag": originals["mag"] - originals["dimming"],
        }
        found = pd.DataFrame(bright)
        if frame is copied and not blind:
            faint = table[["x", "y"]].assign(mag=table["mag"] + bias + rng.normal(0, noise, len(table)))
            found = pd.concat([found, faint])
        return found.assign(x_err=0.02, y_err=0.02, mag_err=np.where(found["mag"] > 15, 0.01, 1e-4))

    return measure


@pytest.mark.parametrize("bias", [0.0, 0.03])
def test_a_check_finds_a_bias(frame_and_stars, made, bias):
    table = evaluation.check(program(made, bias=bias), frame_and_stars[0], made)
    assert table["found"].all() and np.allclose(table["x_delta"], 0)
    rows = evaluation.summary(table, MAGNITUDES, seed=1)
    assert rows["n"].tolist() == [6, 6]
    assert np.mean([row.value for row in rows["bias"]]) == pytest.approx(bias, abs=0.01)


def test_a_check_finds_error_bars_that_are_too_small_and_stars_that_are_missed(frame_and_stars, made):
    frame = frame_and_stars[0]
    wrong = evaluation.summary(evaluation.check(program(made, noise=0.05), frame, made), (16.0, 18.0), seed=1)
    assert wrong["mag_pull"][0].value > 2.5 and wrong["mag_within"][0].value < 0.5
    missed = evaluation.summary(evaluation.check(program(made, blind=True), frame, made), (16.0, 18.0), seed=1)
    assert missed["found"][0].value == 0 and np.isnan(missed["bias"][0].value)


def test_a_frame_without_bright_lone_stars_says_so(frame_and_stars):
    frame, stars = frame_and_stars
    with pytest.raises(DataError, match="bright, unsaturated and alone"):
        twins.make(frame, stars.assign(flux=500.0), background.subtracted(frame), MAGNITUDES, 6, seed=4)


def test_a_frame_without_room_for_copies_says_so(frame_and_stars):
    frame, stars = frame_and_stars
    with pytest.raises(DataError, match=r"an empty place, or .* too faint for copies of \(10.0, 11.0\) mag"):
        twins.make(frame, stars, background.subtracted(frame), (10.0, 11.0), 1, seed=4)


@pytest.mark.parametrize(("faintest", "end"), [(18.0, 18.0), (22.0, 20.0)])
def test_bins_end_where_the_error_bar_is_a_tenth_or_the_catalogue_ends(faintest, end):
    """In magnitudes of any zero point; sky makes the noise of these stars, so that the error is the inverse flux."""
    for zero_point in (0.0, -30.0):
        mag = np.linspace(14.0, faintest, 400) + zero_point
        table = Table({"mag": mag, "mag_psf_err": 0.1 * 10 ** (0.4 * (mag - zero_point - 20.0))})
        assert evaluation.faint_end(table) == pytest.approx(end + zero_point, abs=0.25)
    table["mag_psf_err"] = np.nan
    table.meta["frame"] = "dark"
    with pytest.raises(DataError, match="frame dark: none of 400 stars has a mag_psf_err"):
        evaluation.faint_end(table)


class Copier:
    """Networks that find every star by what is known of it, and are 30 mmag off where it is a copy."""

    def __init__(self, stars, monkeypatch):
        self.known = stars.assign(mag=28 - 2.5 * np.log10(stars["flux"]), off=0.0)
        self.original = twins.make
        monkeypatch.setattr(twins, "make", self.make)

    def make(self, *arguments):
        copied, places = self.original(*arguments)
        self.known = pd.concat([self.known, places[["x", "y", "mag"]].assign(off=0.03)])
        return copied, places

    def measure(self, frame, confidence=0.3, seed=1):
        error = 0.1 * 10 ** (0.4 * (self.known["mag"] - 18.5))
        mag_psf = self.known["mag"] + np.random.default_rng(8).normal(0, error)
        table = self.known.assign(mag=mag_psf + self.known["off"], mag_err=error, mag_psf=mag_psf, mag_psf_err=error)
        table = Table.from_pandas(table.assign(flux=frame.flux(table["mag"]), x_err=0.02, y_err=0.02))
        table.meta = {"frame": frame.name, "confidence": confidence, "seed": seed}
        return table


def test_a_catalogue_is_checked_on_its_own_frame(frame_and_stars, monkeypatch):
    frame, stars = frame_and_stars
    faint = pd.DataFrame({"x": 5.0, "y": np.linspace(5, 500, 100), "flux": frame.flux(np.linspace(17.5, 18.1, 100))})
    networks = Copier(pd.concat([stars, faint]), monkeypatch)
    catalogue = networks.measure(frame)
    table, rows = evaluation.of_catalogue(networks, frame, catalogue)
    assert rows["n"].max() > 10 and rows["n"].sum() == len(table) and table["found"].all()
    text = Table.read(catalogue.meta["check"], format="ascii")
    assert text.colnames == ["of", "from", "to", "n", "found", "bias", "error", "scatter", "pull", "within"]
    assert len(text) == 16 and (text["to"] - text["from"] == pytest.approx(1.0)) and text["to"].max() == 18.1
    for of, off in (("mag", 30), ("mag_psf", 0), ("x", 0), ("y", 0)):
        some = text[(text["of"] == of) & (text["n"] > 10)]
        assert (abs(some["bias"] - off) <= 4 * some["error"] + 0.1).all() and (some["found"] == 100).all()
    with pytest.raises(DataError, match="bright, unsaturated and alone"):
        evaluation.of_catalogue(networks, frame, catalogue[catalogue["mag"] > 17])
