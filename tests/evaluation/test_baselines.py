"""Baselines on rendered fields with known stars, and the programs on real SkyMaker frames where there are any."""

import numpy as np
import pandas as pd
import pytest
from conftest import needs_program

from pnet.common.errors import ConfigError, DataError, MissingError, PNetError
from pnet.evaluation import baselines, measurements, scores
from pnet.evaluation.baselines import common, photutils_psf
from pnet.evaluation.frames import Source, read_simulated
from pnet.frame import Frame
from pnet.sky import matching

sextractor = needs_program(*common.SEXTRACTOR.commands)
psfex = needs_program(*common.PSFEX.commands)
METHODS = [
    pytest.param(baselines.SExtractor, marks=sextractor, id="sextractor"),
    pytest.param(baselines.Sep, id="sep"),
    pytest.param(baselines.PSFEx, marks=[sextractor, psfex], id="psfex"),
    pytest.param(baselines.Photutils, id="photutils"),
]
PSF_METHODS = METHODS[2:]
SIGMA = 1.6  # px


def field(rng, n=20, shape=(200, 300), mask=None, seeing=1.4):
    """Gaussian stars of 15 to 19 mag on a grid, so that none is near another."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    places = [(x, y) for y in range(30, shape[0] - 20, 45) for x in range(30, shape[1] - 20, 45)][:n]
    truth = pd.DataFrame(places, columns=["x", "y"]) + rng.uniform(-0.5, 0.5, (len(places), 2))
    truth["flux"] = 10 ** rng.uniform(4.4, 6, len(truth))
    expected = np.full(shape, 270.0)
    for x, y, flux in truth.itertuples(index=False):
        r2 = (columns - x) ** 2 + (rows - y) ** 2
        expected += flux * np.exp(-r2 / (2 * SIGMA**2)) / (2 * np.pi * SIGMA**2)
    image = rng.poisson(expected) + rng.normal(0, 5, shape)
    mask = np.zeros(shape, bool) if mask is None else mask
    frame = Frame("field", image, expected + 25, mask, 3.8, 30.0, 5.0, 0.396, seeing=seeing)
    truth["mag"] = frame.magnitude(truth["flux"])
    return frame, truth.assign(kind="star", counted=True)


@pytest.mark.parametrize("method", METHODS)
def test_finds_and_measures_every_star(method, rng):
    frame, truth = field(rng)
    found = method()(frame)
    assert {"x", "y", "confidence", "flux", "mag", "mag_err"} <= set(found.columns)
    rows = matching.compare(truth, found, frame.shape)
    assert (rows["status"] == "matched").sum() == len(truth)
    assert (rows["status"] == "false").sum() == 0
    # 1-based positions of the program arrive counted from 0
    assert np.abs(rows["x"] - rows["truth_x"]).max() < 0.1 and np.abs(rows["y"] - rows["truth_y"]).max() < 0.1
    error = rows["mag"] - rows["truth_mag"]
    assert -0.02 < error.median() < 0.1  # apertures lose a little light
    assert error.std() < 0.05
    assert found["confidence"].between(0, 1).all()
    assert np.corrcoef(found["confidence"].rank(), found["mag_err"].rank())[0, 1] == pytest.approx(-1)


@pytest.mark.parametrize("method", METHODS)
def test_a_mask_and_an_unknown_seeing(method, rng):
    mask = np.tile((np.arange(300) >= 100) & (np.arange(300) < 110), (200, 1))
    frame, truth = field(rng, mask=mask, seeing=None)
    frame.image[:, 100:110] = 1e6
    rows = matching.compare(truth, method()(frame), frame.shape, mask=mask)
    assert (rows["status"] == "false").sum() == 0
    far = rows[(np.abs(rows["truth_x"] - 105) > 20) & rows["counted"]]
    assert (far["status"] == "matched").all()
    assert (far["mag"] - far["truth_mag"]).abs().max() < 0.15  # the mask must not spoil the photometry of the others


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_frame_gives_an_empty_table(method, rng):
    image = 270 + rng.normal(0, 5, (128, 128))
    frame = Frame("empty", image, np.full_like(image, 25.0), np.zeros(image.shape, bool), 3.8, 30.0, 5.0, 0.396)
    found = method(threshold=10.0)(frame)
    assert len(found) == 0 and "confidence" in found.columns


@pytest.mark.parametrize("method", PSF_METHODS)
def test_psf_photometry_and_its_errors(method, rng):
    """Against the truth: errors are as large as they say, and their part in the light is that of the noise."""
    pulls = []
    for _ in range(3):
        frame, truth = field(rng)
        found = method()(frame)
        assert (found["psf_stars"] >= 5).all(), "a PSF was made"
        rows = matching.compare(truth, found, frame.shape)
        rows = rows[rows["status"] == "matched"]
        assert len(rows) == len(truth)
        error = rows["mag"] - rows["truth_mag"]
        pull = pd.DataFrame({axis: (rows[axis] - rows[f"truth_{axis}"]) / rows[f"{axis}_err"] for axis in "xy"})
        pulls.append(pull.assign(mag=(error - error.median()) / rows["mag_err"]))
    scatter = 1.4826 * pd.concat(pulls).abs().median()
    assert scatter.between(0.5, 2.5).all(), scatter
    frame, truth = field(rng, n=2)  # too few for a PSF
    found = method()(frame)
    rows = matching.compare(truth, found, frame.shape)
    assert (found["psf_stars"] == 0).all() and (rows["status"] == "matched").sum() == len(truth)
    assert (rows["mag"] - rows["truth_mag"]).abs().max() < 0.15


def test_width_of_a_gaussian_where_there_is_no_psf(rng):
    frame, truth = field(rng, seeing=None)
    image = frame.image.astype(float) - 270
    found = truth.assign(peak=truth["flux"])
    width = photutils_psf.fitted_fwhm(image, frame.mask, found, fwhm=3.3)
    assert width == pytest.approx(2.3548 * SIGMA, rel=0.05)
    assert photutils_psf.fitted_fwhm(image, np.ones_like(frame.mask), found, fwhm=3.3) == 3.3


def test_photutils_leaves_out_saturated_pixels(rng):
    frame, truth = field(rng)
    brightest = truth["flux"].idxmax()
    level = 0.5 * frame.image.max()
    clipped = Frame(
        "clipped", np.minimum(frame.image, level), frame.variance, frame.mask, 3.8, 30.0, 5.0, 0.396, level, seeing=1.4
    )
    rows = matching.compare(truth, baselines.Photutils()(clipped), frame.shape)
    assert abs(rows.loc[brightest, "mag"] - truth.loc[brightest, "mag"]) < 0.1


def test_missing_program_is_named_with_the_way_to_get_it(monkeypatch, rng):
    for there, method, message in (
        ((), baselines.SExtractor(), "SExtractor.*conda install"),
        ((), baselines.PSFEx(), "SExtractor.*conda install"),
        (common.SEXTRACTOR.commands, baselines.PSFEx(), "PSFEx.*conda install"),
    ):
        monkeypatch.setattr("shutil.which", lambda name, there=there: "/bin/true" if name in there else None)
        with pytest.raises(MissingError, match=message):
            method(field(rng)[0])
        assert method.version() == "not installed"
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert baselines.available() == ("sep", "photutils") and list(baselines.chosen(["baseline"])) == ["sep"]


def test_a_failing_program_names_the_frame_and_class_star_needs_its_weights(monkeypatch, rng, tmp_path):
    program = tmp_path / "bin" / "sex"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho bad luck >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    with pytest.raises(MissingError, match="default.nnw"):
        baselines.SExtractor(min_class_star=0.5)(field(rng)[0])
    source = Source(["field"], lambda _: field(rng))
    with pytest.raises(PNetError, match=r"frame field: sextractor failed: SExtractor: sex failed \(3\): bad luck"):
        measurements.evaluate(source, {"sextractor": baselines.SExtractor()}, "simulation")


def test_confidence_rises_from_0_and_is_half_at_5_sigma():
    confidence = common.confidence_of(np.array([-1.0, 0.0, 5.0, 1e9, np.nan]))
    assert confidence == pytest.approx([0, 0, 0.5, 1, 0])


def test_the_offset_is_that_of_matched_stars_only_of_all_or_of_each_frame():
    table = pd.DataFrame({"status": ["matched", "matched", "matched", "false", "missed"], "y": 0.0, "truth_y": 0.0})
    table["truth_x"], table["x"] = [1.0, 2.0, 3.0, np.nan, 9.0], [1.1, 2.1, 3.3, 50.0, np.nan]
    table["truth_mag"], table["mag"] = [15.0, 16.0, 17.0, np.nan, 19.0], [15.2, 16.2, np.nan, 18.0, np.nan]
    corrected = scores.remove_offset(table)
    assert corrected["x"].iloc[:4].tolist() == pytest.approx([1.0, 2.0, 3.2, 49.9])
    assert corrected["mag"].iloc[:2].tolist() == pytest.approx([15.0, 16.0])
    assert table["x"].iloc[0] == 1.1  # the table given is left alone
    assert scores.remove_offset(table.iloc[3:])["x"].iloc[0] == 50.0, "no star, no offset"
    frames = pd.Series(list("aaaaaaaaabbbbbbbcccc"), name="frame").to_frame().assign(status="matched")
    frames["mag"] = 17 + frames["frame"].map({"a": 0.2, "b": -0.1, "c": 5.0})
    frames = frames.assign(truth_mag=17.0, x=0.0, y=0.0, truth_x=0.0, truth_y=0.0)
    error = scores.remove_offset(frames, per_frame=True).groupby("frame")["mag"].median() - 17
    assert error.tolist() == pytest.approx([0, 0, 4.8]), "four stars are too few: that frame takes the median of all"


def test_named_and_chosen_methods_and_their_settings(tmp_path):
    chosen = baselines.chosen(("photutils", "sep", "sep"))
    assert list(chosen) == ["photutils", "sep"] and all(name == method.name for name, method in chosen.items())
    assert chosen["sep"].threshold == baselines.settings("sextractor")["threshold"], "the same algorithm"
    default = baselines.named("sextractor_default")
    assert default.name == "sextractor_default" and default.threshold == 1.5, "the program's own"
    with pytest.raises(ConfigError, match="allowed are sextractor"):
        baselines.named("dolphot")
    for method in baselines.CLASSES.values():
        with pytest.raises(ConfigError, match="threshold"):
            method(threshold=0)
    with pytest.raises(MissingError, match="git checkout"):
        baselines.settings("photutils", tmp_path / "none.yml")
    (tmp_path / "bad.yml").write_text("photutils: 5\n")
    with pytest.raises(DataError, match="tune-baseline photutils"):
        baselines.settings("photutils", tmp_path / "bad.yml")


@sextractor
@psfex
def test_psf_fits_are_nearer_to_the_limit_on_real_frames(shared):
    files = sorted((shared / "skymaker" / "val").glob("paper-*.fits"))[:4]
    measurers = {name: baselines.CLASSES[name]() for name in ("sextractor", "psfex", "photutils")}
    table = measurements.evaluate(Source(files, read_simulated), measurers, "simulation")
    ratio = {}
    for method in measurers:
        stars = scores.matched(scores.select(table, "simulation", method), "mag")
        stars = stars[stars["truth_mag"].between(15, 20)]
        assert len(stars) > 60
        ratio[method] = 1.4826 * np.median(np.abs(stars["mag"] - stars["truth_mag"]) / stars["limit_mag"])
    assert ratio["psfex"] < 1.6 and ratio["photutils"] < 1.6 < ratio["sextractor"]


@sextractor
def test_two_implementations_agree_on_real_frames(shared):
    """SExtractor's numbers on test/paper-* are in shared/README.md; here a few frames, against SEP."""
    files = sorted((shared / "skymaker" / "test").glob("paper-*.fits"))[:8]
    measurers = {"sextractor": baselines.SExtractor(), "sep": baselines.Sep()}
    table = measurements.evaluate(Source(files, read_simulated), measurers, "simulation")
    for method in measurers:
        precision, recall = scores.rates(table[table["method"] == method])
        assert precision.value > 0.99 and recall.value > 0.97
    pair = [scores.select(table, "simulation", method) for method in measurers]
    both = pair[0].merge(pair[1], on=["frame", "truth_x", "truth_y"]).query("status_x == status_y == 'matched'")
    assert len(both) > 200
    assert np.median(np.abs(both["x_x"] - both["x_y"])) < 0.002
    # Faint stars differ by their skies: SExtractor's median of whole ADU jumps by a step, ours does not.
    bright = both[both["truth_mag_x"] < 17]
    assert len(bright) > 50 and np.median(np.abs(bright["mag_x"] - bright["mag_y"])) < 0.01
