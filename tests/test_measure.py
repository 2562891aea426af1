"""From image to catalogue, with networks that know nothing and frames that are hard."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sdss_files
import torch
from astropy.io import fits
from astropy.table import Table
from pixel_psf import frame_of, grid_of_stars, light_of
from typer.testing import CliRunner

from pnet import cli, measure
from pnet.common import paths
from pnet.common.errors import ConfigError, DataError
from pnet.detection.network import CONFIGS as DETECTION
from pnet.detection.network import PhotometryDetectionNet
from pnet.sdss.field import FieldId
from pnet.simulation.frame_file import read_frame
from pnet.sky import background, image
from pnet.sky.header import Given
from pnet.stars import weights
from pnet.stars.inputs import bare_inputs
from pnet.stars.network import CONFIGS as BPNN
from pnet.stars.network import BayesianPhotometryNet
from pnet.stars.predict import predict


@pytest.fixture(scope="module")
def model():
    """Untrained networks: every path is walked whatever they answer."""
    torch.manual_seed(2)
    detection = PhotometryDetectionNet(DETECTION["tiny"]).eval()
    torch.nn.init.constant_(detection.preheads[-1].heads["heatmap"][-1].bias, 0.0)
    card = {"sha256": "0" * 64}
    cards = {"detection": card, "bpnn": card | {"recalibration": {"mag": {"ratio": 2.0}}}}
    return measure.PNet(detection, BayesianPhotometryNet(BPNN["tiny"]).eval(), cards)


def noise(shape, rng):
    return rng.normal(280, 17, shape)


@pytest.mark.parametrize("shape", [(64, 64), (100, 300), (512, 512), (600, 520)])
def test_any_size_gives_a_catalogue(model, rng, shape):
    table = model.measure(frame_of(noise(shape, rng)), confidence=0.2)
    assert table.colnames == list(measure.COLUMNS)
    assert (table["x"] >= -0.5).all() and (table["x"] < shape[1]).all() and (table["y"] < shape[0]).all()
    assert np.isfinite(table["mag"]).all() and (table["mag_err"] > 0).all()
    other = table["flags"] & measure.UNFITTED > 0
    expected = 2.0 * np.hypot(table["mag_aleatoric"], table["mag_epistemic"])
    np.testing.assert_allclose(table["mag_err"], np.hypot(expected, 0.5 * other))
    assert (np.diff(table["confidence"]) <= 0).all()


def test_errors_add_up_and_places_are_the_bpnns_or_the_detection_nets(model, rng):
    """On a frame with stars: the parts of mag_err in quadrature, and which columns are whose."""
    stars = grid_of_stars(25, seed=1, side=256)
    frame = frame_of(light_of(stars, (256, 256)) + noise((256, 256), rng))
    table = model.measure(frame, confidence=0.2)
    parts = [table[f"mag_err_{part}"] for part in ("noise", "psf", "net")]
    own, whole = np.hypot(*parts[:2]), np.sqrt(sum(part**2 for part in parts))
    np.testing.assert_allclose(table["mag_psf_err"], own)
    adds = parts[2] > 0
    assert adds.any() and (table["mag_err"] <= own)[~adds].all()
    np.testing.assert_allclose(whole[adds], table["mag_err"][adds])
    np.testing.assert_allclose(table["flux"], frame.flux(np.asarray(table["mag"])))
    fitted = table["flags"] & measure.UNFITTED == 0
    for axis in ("x", "y"):
        assert (table[axis] != table[f"{axis}_det"])[fitted].all() and (table[axis] == table[f"{axis}_det"])[
            ~fitted
        ].all()
        assert (table[f"{axis}_err"][~fitted] == 1).all() and (table[f"{axis}_err"][fitted] < 0.5).all()
    assert fitted.any() and table.meta["psf_stars"] >= 0 and "refined" not in table.meta


def test_a_network_that_corrects_nothing_gives_the_fit(model, rng):
    """The catalogue's magnitudes and places are those of the fit, and the fit's those of the stars."""
    stars = grid_of_stars(36, seed=1, side=300)
    frame = frame_of(rng.poisson(light_of(stars, (300, 300)) + 280.0), seeing=1.4)
    idle = BayesianPhotometryNet(replace(BPNN["tiny"], head="plain")).eval()
    torch.nn.init.zeros_(idle.head[-1].weight)
    torch.nn.init.zeros_(idle.head[-1].bias)
    found = measure.PNet.load(device="cpu")
    net = measure.PNet(found.detection, idle, found.cards | {"bpnn": {"sha256": ""}})
    table = net.measure(frame).to_pandas()
    for name in ("x", "y", "mag"):
        np.testing.assert_allclose(table[name], table[f"{name}_psf"], atol=2e-4)
    truth, catalogue = (each[["x", "y"]].to_numpy() for each in (stars, table))
    distance = np.hypot(*(truth[:, None] - catalogue[None]).transpose(2, 0, 1))
    nearest = table.iloc[distance.argmin(axis=1)].reset_index(drop=True)
    assert len(table) == 36 and distance.min(axis=1).max() < 0.3
    pull = (nearest["mag"] - frame.magnitude(stars["flux"])) / nearest["mag_err"]
    assert 0.6 < pull.std() < 1.5 and abs(pull.mean()) < 0.6


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """A set of weights of the paper's kind of networks, untrained and narrow."""
    torch.manual_seed(3)
    detection = PhotometryDetectionNet(replace(DETECTION["paper"], stem=16, channels=(16,) * 5, head=16))
    torch.nn.init.constant_(detection.preheads[-1].heads["heatmap"][-1].bias, 0.0)
    bpnn = BayesianPhotometryNet(replace(BPNN["paper"], blocks=(1, 1), widths=(4, 4), hidden=(8, 8, 8, 8)))
    cards = {"detection": weights.save(detection, tmp_path / "net", kind="detection", card={})}
    cards |= {"bpnn": weights.save(bpnn, tmp_path / "bpnn", kind="bpnn", card={})}
    monkeypatch.setitem(weights.SETS, "paper", cards)
    return cards


def test_the_papers_networks_leave_empty_what_they_do_not_give(paper, rng, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "open_images", lambda *_: {"a": lambda: frame_of(noise((128, 128), rng))})
    (tmp_path / "a.fits").touch()
    command = ["measure", tmp_path / "a.fits", "-o", tmp_path / "c.ecsv", "--weights", "paper", "--confidence", "0.2"]
    result = CliRunner().invoke(cli.app, [str(word) for word in command])
    assert result.exit_code == 0, result.output
    assert "x_err is empty: these networks give positions without errors" in result.output
    assert "mag_psf is empty: the paper's networks see the bare pixels, without a fit" in result.output
    table = Table.read(tmp_path / "c.ecsv")
    assert len(table) and table.colnames == list(measure.COLUMNS)
    empty = {name for name in measure.COLUMNS if np.isnan(np.asarray(table[name], float)).all()}
    assert empty == set(table.meta["empty"]) == {"x_err", "y_err", "probability", *measure.FITTED}
    assert (table["flags"] & measure.UNFITTED == 0).all()
    for axis in ("x", "y"):
        np.testing.assert_array_equal(table[axis], table[f"{axis}_det"])


def test_the_papers_magnitudes_are_its_networks_answers_to_the_pixels(paper, rng):
    frame = frame_of(noise((128, 128), rng))
    net = measure.PNet.load("paper", device="cpu")
    table, padded = net.measure(frame, confidence=0.2), np.pad(background.subtracted(frame).image, 4)
    places = np.floor(np.stack([table["x_det"], table["y_det"]]) + 0.5).astype(int).T
    stamps = np.stack([padded[row : row + 9, column : column + 9] for column, row in places])
    mag = predict(net.bpnn, bare_inputs(torch.from_numpy(stamps)), seed=2023)["mag"]
    np.testing.assert_allclose(table["mag"], frame.zero_point + mag.mean, rtol=1e-6)
    np.testing.assert_allclose(table["mag_err"], mag.sigma, rtol=1e-5)


def test_sets_of_weights_are_checked(paper):
    with pytest.raises(ConfigError, match="allowed are released, paper"):
        measure.PNet.load("ours")
    net = measure.PNet.load(bpnn=paper["bpnn"], device="cpu")
    assert net.bpnn.config.bare and net.detection.config.focal != "hard"


def test_the_page_on_measuring_lists_every_column_and_every_flag():
    lines = (paths.ROOT / "book" / "measure.md").read_text().splitlines()
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    columns = [name for row in rows for name in re.findall(r"`([a-z_]+)`", row)]
    assert columns == [*measure.COLUMNS, *image.SKY_COLUMNS]
    assert [int(row) for row in rows if row.isdigit()] == list(measure.FLAGS)
    assert all(meaning in measure.COLUMNS["flags"][1] for meaning in measure.FLAGS.values())


def test_no_star_at_all(model, rng):
    table = model.measure(frame_of(noise((128, 128), rng)), confidence=1.0)
    assert len(table) == 0 and table.colnames == list(measure.COLUMNS)


def test_nan_and_masked_pixels_are_no_stars(model, rng):
    image = noise((128, 128), rng)
    image[40:60, 40:60] = np.nan
    image[100, :] = np.inf
    frame = frame_of(image)
    assert frame.mask[50, 50] and frame.mask[100, 3] and np.isfinite(frame.image).all()
    table = model.measure(frame, confidence=0.2)
    inside = (abs(table["x"] - 50) < 6) & (abs(table["y"] - 50) < 6)
    assert np.isfinite(table["mag"]).all()
    assert (table["flags"][inside] & measure.MASKED > 0).all()


def test_a_constant_image_does_not_divide_by_zero(model):
    table = model.measure(frame_of(np.full((128, 128), 100.0)), confidence=0.2)
    assert np.isfinite(table["flux"]).all()


def test_wholly_masked_frames_and_wrong_shapes_are_refused():
    with pytest.raises(DataError, match="no pixel"):
        frame_of(np.full((64, 64), np.nan))
    with pytest.raises(DataError, match="2-d image"):
        frame_of(np.zeros(64))
    with pytest.raises(DataError, match="gain"):
        frame_of(np.zeros((64, 64)), gain=0.0)


def test_confidence_is_checked(model, rng):
    with pytest.raises(ConfigError, match="confidence is 1.5"):
        model.measure(frame_of(noise((64, 64), rng)), confidence=1.5)


def test_flags_tell_saturation_and_edge(model, rng):
    frame = frame_of(noise((64, 64), rng), saturation=1e5)
    frame.image[30, 30] = 2e5
    flags = model._flags(frame, pd.DataFrame({"x": [30.0, 1.0, 50.0], "y": [32.0, 30.0, 50.0]}), frame.mask)
    assert flags.tolist() == [measure.SATURATED, measure.EDGE, 0]


def test_catalogue_round_trip_and_suffix(model, rng, tmp_path):
    table = model.measure(frame_of(noise((128, 128), rng)), confidence=0.2)
    measure.write_catalogue(table, tmp_path / "c.ecsv")
    back = Table.read(tmp_path / "c.ecsv")
    np.testing.assert_allclose(back["mag"], table["mag"])
    assert str(back["mag"].unit) == "mag" and back.meta["seed"] == 2023
    with pytest.raises(ConfigError, match="allowed are"):
        measure.write_catalogue(table, tmp_path / "c.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["c.ecsv"]


def test_frames_of_surveys_and_simulators_are_recognised(rendered, tmp_path):
    frame = measure.read_image(rendered)
    assert frame.name == rendered.stem and "SIMULATR" in frame.meta
    with pytest.raises(ConfigError, match="--gain is not for a simulated frame"):
        measure.read_image(rendered, Given(gain=2.0))
    with pytest.raises(DataError, match="none.fits"):
        measure.read_image(tmp_path / "none.fits")


def test_several_images_in_one_call(model, rng, tmp_path, monkeypatch):
    """Every image has its catalogue in the folder; one that fails is told and stops no other."""
    monkeypatch.setattr(measure.PNet, "load", lambda *sets, **networks: model)
    chips = [fits.ImageHDU(noise((64, 64), rng).astype("f4"), name=name) for name in ("CCD1", "CCD 2")]
    bad = fits.ImageHDU(np.zeros((64, 64)), name="GUIDE")
    fits.HDUList([fits.PrimaryHDU(), chips[0], bad, chips[1]]).writeto(tmp_path / "mef.fits")
    wcs = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-4, "CDELT2": 1e-4})
    fits.PrimaryHDU(noise((64, 64), rng).astype("f4"), wcs).writeto(tmp_path / "one.fits")
    (tmp_path / "bad.fits").write_bytes(b"SIMPLE  =")
    names = [str(tmp_path / name) for name in ("mef.fits", "bad.fits", "one.fits")]
    out = ["--confidence", "0.1", "--gain", "1.5", "-o"]
    done = CliRunner().invoke(cli.app, ["measure", *names, *out, str(tmp_path / "out")])
    assert done.exit_code == cli.FAILED and "  gain: 1.5 electrons per ADU (option --gain)" in done.output
    assert "GUIDE" in done.output and "bad.fits" in done.output and done.output.count("error: ") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("mef-CCD1.ecsv", "mef-CCD_2.ecsv", "one.ecsv")
    ]
    table = Table.read(tmp_path / "out" / "one.ecsv")
    assert table.colnames == [*measure.COLUMNS, *image.SKY_COLUMNS] and len(table)
    assert "gain: 1.5 electrons per ADU (option --gain)" in table.meta["values"]
    refused = CliRunner().invoke(cli.app, ["measure", *names[:1], *out, str(tmp_path / "c.ecsv")])
    assert refused.exit_code == cli.FAILED and "one file for several images; allowed is a folder" in refused.output
    done = CliRunner().invoke(cli.app, ["measure", names[2], *out, str(tmp_path / "c.fits")])
    assert done.exit_code == 0, done.output
    assert "gain: 1.5 electrons per ADU (option --gain)" in Table.read(tmp_path / "c.fits").meta["VALUES"]
    assert not (tmp_path / "c.ecsv").exists()


@pytest.mark.parametrize("kind", ["skymaker", "sdss"])
def test_flipped_bits_are_an_error_that_names_the_file_or_go_unseen(kind, rendered, tmp_path):
    """Many offsets: headers, tables of RICE-compressed pixels, bzip2 blocks; in a SkyMaker frame where there is one."""
    real = sorted(Path(os.environ.get("SKYMAKER_FRAMES", "")).glob("test/paper-*.fits"))
    rng = np.random.default_rng(8)
    if kind == "sdss":
        path = tmp_path / "frame-g-001234-3-0056.fits.bz2"
        sky, pixels = np.full((9, 11), 90.0), rng.normal(0, 0.02, (60, 80))
        sdss_files.write_frame(path, pixels, np.full(80, 0.005), sky, FieldId(1234, 3, 56, "g"))
    elif real:
        path = Path(shutil.copy(real[0], tmp_path))
    else:  # the renderer's files have the same layout
        path = Path(shutil.copy(rendered, tmp_path))
    assert measure.read_image(path).image.size > 0
    content = path.read_bytes()
    refused = 0
    for number in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, len(damaged) if number % 2 else min(len(damaged), 25_000), 1 + number % 4):
            damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            measure.read_image(path)
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 5


def test_measuring_starts_without_what_only_training_and_evaluation_need():
    heavy = {
        "scipy.stats",
        "scipy.optimize",
        "scipy.interpolate",
        "scipy.spatial",
        "sklearn",
        "matplotlib",
        "uncertainty_toolbox",
        "galsim",
        "pooch",
    }
    code = "import sys; from pnet import measure; measure.PNet.load(device='cpu'); print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "torch" in loaded and not loaded & heavy
    assert not [name for name in loaded if name.startswith(("pnet.training", "pnet.evaluation", "pnet.book"))]


def test_released_networks_measure_a_rendered_frame(rendered):
    """What the project promises, on a frame nobody has seen: stars found where they are, error bars of the right
    size."""
    from pnet.sky import catalogue
    from pnet.sky.matching import compare

    frame, truth = read_frame(rendered)
    table = measure.PNet.load(device="cpu").measure(frame)
    rows = compare(catalogue.mark_counted(truth, frame), table.to_pandas(), frame.shape)
    matched = rows[rows["status"] == "matched"]
    counted = int((rows["status"].isin(["matched", "missed"])).sum())
    assert len(matched) >= counted - 1 and (rows["status"] == "false").sum() <= 1
    assert float((matched["x"] - matched["truth_x"]).abs().mean()) < 0.15
    normalised = (matched["mag"] - matched["truth_mag"]) / matched["mag_err"]
    assert 0.5 < float(normalised.std()) < 2


def test_a_check_is_printed_kept_and_drawn_and_where_it_cannot_be_the_catalogue_is_there(rendered, rng, tmp_path):
    """Released networks: magnitudes of copies of stars are what they should be, within errors."""
    done = CliRunner().invoke(cli.app, ["measure", str(rendered), "--check", "-o", str(tmp_path / "c.fits")])
    assert done.exit_code == 0, done.output
    kept = Table.read(tmp_path / "c.fits").meta["CHECK"]
    assert (
        all(f"  {line.rstrip()}\n" in done.output for line in kept) and (tmp_path / "c.check.png").stat().st_size > 1e4
    )
    table = Table.read(kept, format="ascii")
    known = table[(table["of"] == "mag") & (table["n"] >= 20) & (table["found"] > 90)]
    assert len(known) and (abs(known["bias"]) < 3 * known["error"] + 5).all() and (known["pull"] < 2).all()
    fits.PrimaryHDU(noise((128, 128), rng).astype("f4")).writeto(tmp_path / "dark.fits")
    words = ["measure", str(tmp_path / "dark.fits"), "--check", "--gain", "1", "-o", str(tmp_path / "d.ecsv")]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == cli.FAILED and "error: frame " in done.output and "d.ecsv" in done.output
    assert "check" not in Table.read(tmp_path / "d.ecsv").meta and not (tmp_path / "d.check.png").exists()
