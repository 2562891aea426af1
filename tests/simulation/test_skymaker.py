"""The driver of SkyMaker and Stuff: what it writes, what it reads, and how it fails; live where the programs are."""

import dataclasses
import os
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import needs_program

from pnet.common.errors import ConfigError, DataError, MissingError, PNetError
from pnet.common.seeds import derive
from pnet.simulation import datasets, physics, skymaker
from pnet.simulation.frame_file import read_frame, write_frame
from pnet.simulation.galaxies import draw_galaxies
from pnet.simulation.recipe import Conditions, Recipe, draw_stars
from pnet.sky.psf import Aureole, Optics

CONDITIONS = Conditions(seeing=1.2, sky_mag=21.9, gain=4.0, read_noise=5.0, size=64)
RECIPE = Recipe.load()

# Stands in for `sky`: a 64 px image of 70.4 ADU and the list of what it was given, or a fault named by $FAULT.
FAKE_SKY = """#!{python} -S
import array, os, sys, time
if "-v" in sys.argv:
    print(os.environ.get("FAKE_VERSION", "SkyMaker version 4.3.0 (2025-01-01)"))
    sys.exit()
fault = os.environ.get("FAULT", "")
settings = dict(line.split(None, 1) for line in open("program.conf"))
sources = open(sys.argv[1]).read().splitlines()
if settings["IMAGE_TYPE"].strip() != "SKY_NONOISE":
    sys.exit("asked for noise")
if fault == "exit":
    sys.exit("> *Error*: no more memory")
if fault == "hang":
    time.sleep(60)
if fault == "nothing":
    sys.exit()
size = int(settings["IMAGE_SIZE"]) if fault != "size" else 32
image = array.array("f", [70.4]) * (size * size)
if fault == "nan":
    image[200] = float("nan")
image.byteswap()
cards = dict(SIMPLE="T", BITPIX=-32, NAXIS=2, NAXIS1=size, NAXIS2=size)
head = "".join(f"{{key:8}}= {{value:>20}}".ljust(80) for key, value in cards.items()) + "END".ljust(80)
pixels = image.tobytes()
content = head.ljust(2880).encode() + pixels + bytes(-len(pixels) % 2880)
content = {{"garbage": b"not a FITS file", "truncated": content[:4000]}}.get(fault, content)
open("frame.fits", "wb").write(content)
lines = []
for line in sources:
    kind, x, y, mag = line.split()[:4]
    if fault == "drops" and float(mag) > 19:
        continue
    lines.append(f"{{kind}} {{float(x):11.4f}} {{float(y):11.4f}} {{float(mag):8.4f}}")
lines += {{"list": ["100 some words"], "extra": ["100 1.0 1.0 15.0"]}}.get(fault, [])
open("frame.list", "w").write("\\n".join(lines) + "\\n")
"""
FAKE_STUFF = """#!{python} -S
import os, sys
if "-v" in sys.argv:
    print("Stuff version 1.26.0 (2014-03-19)")
    sys.exit()
shape = " 0.3 0.6 0.9 -20.0 0.8 0.5 -20.0 0.1 4.0\\n"
with open("galaxies.list", "w") as out:
    out.write(os.environ.get("LINE", "200 126.0 76.0 19.5" + shape))
    out.write("200 10.0 10.0 24.5" + shape)
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Return a function that writes an executable Python script and names it in an environment variable."""

    def write(text, variable, name):
        path = tmp_path / name
        path.write_text(text.format(python=sys.executable))
        path.chmod(0o755)
        monkeypatch.setenv(variable, str(path))
        return path

    return write


@pytest.fixture
def fake_sky(script):
    return script(FAKE_SKY, "SKY", "sky")


@pytest.fixture
def stars(rng):
    x, y = rng.uniform(0, 63, (2, 8))
    return pd.DataFrame({"x": x, "y": y, "mag": np.linspace(14, 20, 8), "kind": "star"})


def test_source_list_counts_from_one_and_has_galaxies_in_the_order_that_sky_reads():
    table = pd.DataFrame({"x": [0.0, 99.25], "y": [-0.5, 7.75], "mag": [14.5, 19.125], "kind": ["star", "star"]})
    values = {name: float(number) for number, name in enumerate(skymaker.GALAXY_COLUMNS, start=1)}
    table.loc[2, [*table, *values]] = [10.0, 20.0, 18.0, "galaxy", *values.values()]
    rows = [[float(word) for word in line.split()] for line in skymaker.source_list(table).splitlines()]
    assert rows[:2] == [[100, 1.0, 0.5, 14.5], [100, 100.25, 8.75, 19.125]]
    assert rows[2] == [200, 11.0, 21.0, 18.0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert skymaker.source_list(table[:0]) == ""


def test_configuration_holds_the_conditions():
    optics, aureole = Optics(m1=4.0, m2=1.0, wavelength=0.62, arms=0), Aureole(sb=17.0, radius=120)
    conditions = Conditions(seeing=1.35, sky_mag=21.4, gain=3.855, read_noise=4.4, optics=optics, aureole=aureole)
    settings = skymaker.configuration(conditions)
    expected = {
        "SEEING_FWHM": 1.35, "BACK_MAG": 21.4, "GAIN": 3.855, "READOUT_NOISE": 4.4, "EXPOSURE_TIME": 53.9,
        "MAG_ZEROPOINT": 24.2, "PIXEL_SIZE": 0.396, "IMAGE_SIZE": 512, "IMAGE_TYPE": "SKY_NONOISE",
        "WELL_CAPACITY": 0, "M1_DIAMETER": 4.0, "M2_DIAMETER": 1.0, "ARM_COUNT": 0, "WAVELENGTH": 0.62,
        "AUREOLE_RADIUS": 120, "AUREOLE_SB": 17.0, "STARCOUNT_ZP": 0,
    }  # fmt: skip
    assert {name: settings[name] for name in expected} == expected
    without = skymaker.configuration(dataclasses.replace(conditions, aureole=None))
    assert without["AUREOLE_RADIUS"] == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeing": 0.0}, "seeing is 0.0, it must be finite and positive"),
        ({"gain": np.nan}, "gain is nan"),
        ({"read_noise": -1.0}, "read_noise is -1.0, it must be finite and at least 0"),
        ({"sky_mag": np.inf}, "sky_mag is inf, it must be finite"),
        ({"size": 0}, "size is 0"),
    ],
)
def test_configuration_refuses(changes, words):
    with pytest.raises(ConfigError, match=words):
        skymaker.configuration(dataclasses.replace(CONDITIONS, **changes))


def test_missing_program_names_the_command_that_installs_it(tmp_path, monkeypatch, stars):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="mamba install -c conda-forge astromatic-skymaker"):
        skymaker.simulate_frame(CONDITIONS, stars, 1)
    with pytest.raises(MissingError, match="astromatic-skymaker"):
        make(tmp_path, RECIPE, 1)
    monkeypatch.setenv("SKY", str(tmp_path / "nowhere"))  # not passed over
    with pytest.raises(MissingError, match=r"\$SKY is .*nowhere.*no program"):
        skymaker.sky_program()


@pytest.mark.parametrize(
    ("says", "words"),
    [
        *((text, "this is not SkyMaker") for text in ("", "sky 1.0, a weather program", "SkyMaker version unknown")),
        ("Stuff version 4.1.0", "this is not SkyMaker"),
        ("SkyMaker version 3.3.1 (2007-01-01)", r"SkyMaker 3\.3\.1; 3\.10\.5 or newer"),
        ("\n         SkyMaker  version 4.2 (2020-12-01)\n\nWritten by", None),
    ],
)
def test_another_program_and_an_old_one_are_refused(fake_sky, monkeypatch, says, words):
    monkeypatch.setenv("FAKE_VERSION", says)
    if words is None:
        assert skymaker.sky_program().version == (4, 2)
    else:
        with pytest.raises(ConfigError, match=words):
            skymaker.sky_program()


@pytest.mark.parametrize("version", ["3.10.5 (2014-03-19)", "4.3.0 (2025-01-01)"])
def test_noise_is_drawn_from_the_seed_and_truth_counts_from_zero(fake_sky, stars, monkeypatch, version):
    monkeypatch.setenv("FAKE_VERSION", f"SkyMaker version {version}")
    os.utime(fake_sky)  # another program: its version is asked for anew
    image, truth = skymaker.simulate_frame(CONDITIONS, stars, 1)
    assert image.dtype == np.uint16 and image.shape == (64, 64)
    assert (skymaker.simulate_frame(CONDITIONS, stars, 1)[0] == image).all()
    assert (skymaker.simulate_frame(CONDITIONS, stars, 2)[0] != image).any()
    # 70.4 ADU of Poisson light, 5 e- of read noise, rounding
    predicted = 70.4 / 4 + (5 / 4) ** 2 + 1 / 12
    assert abs(image.mean() - 70.4) < 4 * np.sqrt(predicted / image.size)
    assert abs(image.var() / predicted - 1) < 4 * np.sqrt(2 / image.size)
    pd.testing.assert_frame_equal(truth[["x", "y", "mag"]], stars[["x", "y", "mag"]])
    # zero point: 24.2 + 2.5 log10(53.9 s · 4 e-/ADU)
    np.testing.assert_allclose(truth["flux"], 53.9 * 4.0 * 10 ** (0.4 * (24.2 - stars["mag"])), rtol=1e-12)
    assert list(truth.columns) == ["x", "y", "mag", "flux", "kind"]


def test_sources_that_sky_passed_over_are_not_in_the_truth(fake_sky, stars, monkeypatch):
    image, truth = skymaker.simulate_frame(CONDITIONS, stars[:0], 1)  # an empty field is a frame
    assert image.shape == (64, 64) and len(truth) == 0
    monkeypatch.setenv("FAULT", "drops")
    _, truth = skymaker.simulate_frame(CONDITIONS, stars, 1)
    pd.testing.assert_series_equal(truth["mag"], stars.loc[stars["mag"] <= 19, "mag"])


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("exit", PNetError, r"night-3: sky failed \(1\): > \*Error\*: no more memory"),
        ("nothing", DataError, "night-3: SkyMaker ended without an image"),
        ("garbage", DataError, "night-3: .*not a FITS file"),
        ("truncated", DataError, "night-3: .*truncated"),
        ("nan", DataError, "night-3: .*no image of 64×64 finite pixels"),
        ("size", DataError, "night-3: .*no image of 64×64"),
        ("list", DataError, "night-3: the source list frame.list .*something else"),
        ("extra", DataError, "night-3: SkyMaker's list has a source that it was not given"),
        ("hang", PNetError, "night-3: sky did not end within 2 s"),
    ],
)
def test_faults_have_words(fake_sky, stars, monkeypatch, tmp_path, fault, error, words):
    monkeypatch.setenv("FAULT", fault)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(skymaker, "TIME_LIMIT", 2 if fault == "hang" else 60)
    with pytest.raises(error, match=words):
        skymaker.simulate_frame(CONDITIONS, stars, 1, name="night-3")
    assert [path.name for path in tmp_path.iterdir()] == ["sky"], "a temporary folder was left behind"


def make(folder, recipe, n):
    return datasets.make_dataset(folder, recipe, "test", n, 1, engine="skymaker", progress=False)


def test_a_data_set_holds_whole_frames_only(fake_sky, tmp_path, monkeypatch):
    small = dataclasses.replace(RECIPE, size=64)
    made = make(tmp_path / "frames", small, 3)
    frame, truth = read_frame(made[1])
    seed = derive(1, "test", "paper", 2)
    assert frame.meta["SIMULATR"] == "SkyMaker 4.3.0" and frame.meta["SEED"] == seed % 2**31
    pd.testing.assert_frame_equal(truth[["x", "y", "mag"]], draw_stars(small, "paper", seed)[["x", "y", "mag"]])
    monkeypatch.setenv("FAULT", "exit")
    with pytest.raises(PNetError, match="paper-200004: sky failed"):
        make(tmp_path / "frames", small, 4)
    assert sorted((tmp_path / "frames" / "test").iterdir()) == made


def test_stuff_galaxies_are_shifted_and_cut(script, monkeypatch):
    script(FAKE_STUFF, "STUFF", "stuff")
    table = skymaker.galaxies(dataclasses.replace(RECIPE, size=128), (15, 23), 1)
    assert len(table) == 1, "the one of 24.5 mag lies outside the limits"
    assert table[["x", "y", "mag"]].iloc[0].tolist() == [100.0, 50.0, 19.5]
    assert skymaker.source_list(table).startswith("200 101.0")
    monkeypatch.setenv("LINE", "100 1.0 1.0 15.0\n")
    with pytest.raises(DataError, match="does not hold galaxies"):
        skymaker.galaxies(RECIPE, (15, 23), 1)


def test_without_stuff_our_own_galaxies_keep_their_half_light_radius(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    table = skymaker.galaxies(RECIPE, (15.0, 23.0), 1)
    own = draw_galaxies(RECIPE, (15.0, 23.0), 1)
    # half-light ellipse of a disc with scale length a along its major axis: 1.678 a by 1.678 a q
    area = np.pi * (1.67835 * table["disk_scale"]) ** 2 * table["disk_aspect"]
    np.testing.assert_allclose(area, np.pi * own["disk_radius"] ** 2, rtol=1e-6)
    assert skymaker.source_list(table).count("200 ") == len(own) > 3


@needs_program("sky")
def test_live_frame_is_true_to_its_truth(rng, tmp_path):
    """Positions, flux, PSF, sky and noise of a real SkyMaker frame against the analytic prediction."""
    x, y = np.stack(np.meshgrid(*[45.0 + 70 * np.arange(7)] * 2)).reshape(2, -1) + rng.uniform(-0.5, 0.5, (2, 49))
    field = pd.DataFrame(
        {"x": x, "y": y, "mag": rng.uniform(14.2, 17.4, 49), "kind": "star"}
    )  # none of them fills its pixels
    field.loc[24, "mag"] = 11.0  # but the middle one, which bleeds
    # gain of 6: the full well (50,000 ADU) stays below the converter's limit
    conditions = Conditions(seeing=1.2, sky_mag=21.9, gain=6.0, read_noise=5.0)
    image, truth = skymaker.simulate_frame(conditions, field, 7)
    write_frame(tmp_path / "a.fits", image, truth, conditions, simulator="SkyMaker", kind="paper", seed=7)
    frame, truth = read_frame(tmp_path / "a.fits")
    assert len(truth) == len(field)
    table = physics.measure([(frame, truth)], RECIPE)
    assert table.loc[table["quantity"] == "flux", "n"].item() >= 40
    assert table["ok"].all(), table.to_string()
    bright = truth.loc[truth["mag"].idxmin()]
    column, row = round(bright["x"]), round(bright["y"])
    trail = np.flatnonzero(np.abs(frame.image[:, column] - conditions.well_capacity) < 0.6 * conditions.gain)
    assert len(trail) > 8
    assert abs((trail[0] + trail[-1]) / 2 - row) <= 1, "half of the charge goes each way"
    # nothing is lost: the light within 30 px is the share that the PSF says, bled or not
    box = (slice(row - 60, row + 61), slice(column - 30, column + 31))
    light = physics.far_light(frame, truth, RECIPE)[box]
    assert (frame.image[box] - conditions.sky).sum() / light.sum() == pytest.approx(1, abs=0.002)


@needs_program("sky")
@needs_program("stuff")
def test_live_galaxies(tmp_path):
    """A field with Stuff's galaxies: each is in the truth, and its light is in the image."""
    conditions = Conditions(seeing=1.2, sky_mag=21.9, gain=4.0, read_noise=5.0)
    galaxies = skymaker.galaxies(RECIPE, (15, 21), 4)
    assert (skymaker.galaxies(RECIPE, (15, 21), 4) == galaxies).all(axis=None)
    inside = galaxies[galaxies[["x", "y"]].apply(lambda v: v.between(40, 471)).all(axis=1)]
    assert len(inside)
    image, truth = skymaker.simulate_frame(conditions, galaxies, 1)
    assert len(truth) == len(galaxies)
    total = (image * conditions.gain - conditions.sky).sum()
    noise = np.sqrt(image.size * (conditions.sky + 25))
    assert 0.8 * truth.loc[inside.index, "flux"].sum() - 4 * noise < total < truth["flux"].sum() + 4 * noise
