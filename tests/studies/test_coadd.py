"""The Stripe 82 co-add as truth, its files, and the scores against it."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from sdss_files import wcs

from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.evaluation.measurements import COLUMNS
from pnet.frame import Frame
from studies import coadd, stripe82

SHAPE, ZERO_POINT = (400, 500), 30.0
# x, y, g, star, saturated: three that count, then faint, saturated, galaxy, a close pair, and one near a faint source
SOURCES = [
    (100.0, 100.0, 16.0, True, False),
    (200.4, 300.3, 18.0, True, False),
    (300.0, 150.0, 19.9, True, False),
    (400.0, 300.0, 20.4, True, False),
    (50.0, 200.0, 15.0, True, True),
    (350.0, 350.0, 18.5, False, False),
    (250.0, 50.0, 18.0, True, False),
    (256.0, 50.0, 21.0, False, False),
    (306.0, 150.0, 23.5, False, False),
    (3.0, 100.0, 18.0, True, False),
]


@pytest.fixture
def frame():
    image = np.full(SHAPE, 300.0)
    return Frame("94-1-12-g", image, image, np.zeros(SHAPE, bool), 4.0, ZERO_POINT, 5.0, 0.396, seeing=1.4, wcs=wcs())


def write_coadd(path, sources=SOURCES):
    x, y, g, star, saturated = (np.array(column) for column in zip(*sources, strict=True))
    ra, dec = wcs().all_pix2world(x, y, 0)
    columns = {"ra": ra, "dec": dec, "probpsf": star, "psfmag_g": np.where(star, g, g + 0.7)}
    columns |= {"devmag_g": np.where(star, 0, g - 0.1), "expmag_g": np.where(star, 0, g), "fracdev_r": 0 * g}
    columns["x"] = x + 4.4  # pixels of the r frame: not to be used
    flags = {"galaxy_bool": ~star, "is_saturated": saturated}
    columns = [fits.Column(name, "D", array=values.astype(float)) for name, values in columns.items()]
    columns += [fits.Column(name, "L", array=values) for name, values in flags.items()]
    fits.BinTableHDU.from_columns(columns).writeto(path)
    return path


@pytest.fixture
def truth(frame, tmp_path):
    return stripe82.coadd_truth(write_coadd(tmp_path / "coadd.fits"), frame)


def test_coadd_truth_has_the_frames_pixels_and_marks_what_counts(truth):
    assert len(truth) == len(SOURCES)
    counted = truth[truth["counted"]].sort_values("mag")
    # not the faint, saturated, edge ones, the galaxy, or the one with a neighbour that the frame sees; the one beside a
    # source of 23.5 mag counts
    np.testing.assert_allclose(counted["mag"], [16.0, 18.0, 19.9])
    np.testing.assert_allclose(counted[["x", "y"]], [[100, 100], [200.4, 300.3], [300, 150]], atol=1e-6)
    np.testing.assert_allclose(counted["flux"], 10 ** (0.4 * (ZERO_POINT - counted["mag"])))
    galaxy = truth[(truth["kind"] == "galaxy") & (truth["mag"] < 19)]
    assert galaxy["mag"].item() == pytest.approx(18.5)  # its model magnitude, not that of the PSF


def test_detections_that_the_coadd_knows(truth):
    detections = pd.DataFrame({"x": [306.5, 320.0], "y": [151.0, 20.0]}, index=[7, 9])
    assert coadd.known(detections, truth).tolist() == [True, False], "within two pixels"
    assert not coadd.known(detections.iloc[:0], truth).size and not coadd.known(detections, truth.iloc[:0]).any()


def test_damaged_catalogues_are_named(frame, tmp_path):
    far = write_coadd(tmp_path / "far.fits", [(x + 5000, *rest) for x, *rest in SOURCES])
    with pytest.raises(DataError, match="no source of it lies on frame"):
        stripe82.coadd_truth(far, frame)
    short = tmp_path / "short.fits"
    fits.BinTableHDU.from_columns([fits.Column("ra", "D", array=[1.0])]).writeto(short)
    with pytest.raises(DataError, match="lacks the columns dec, probpsf"):
        stripe82.coadd_truth(short, frame)
    frame.wcs = None
    with pytest.raises(DataError, match="no celestial WCS"):
        stripe82.coadd_truth(far, frame)


def test_the_manifest_lists_every_file_with_its_public_copy():
    files = stripe82.load()
    assert {"coadd", "reference", "fpC-4192", "fpC-6377", "psField-4192", "fpM-6377", "tsField-6377"} <= set(files)
    for file in files.values():
        assert len(file.sha256) == 64 and file.bytes > 10_000
        assert file.url.startswith("https://raw.githubusercontent.com/") and len(file.url.split("/")[5]) == 40


@pytest.fixture
def put(tmp_path, monkeypatch):
    """A manifest of one file, and what puts that file into a folder."""
    content = b"co-add" * 100
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "stripe82.yml").write_text(
        f"files: [{{role: coadd, path: coadd/c.fits, sha256: {digest}, url: 'http://127.0.0.1:9/c.fits'}}]\n"
    )
    monkeypatch.setattr("pnet.common.paths.MANIFESTS", tmp_path)
    monkeypatch.setenv("PNET_DATA", str(tmp_path / "data"))
    for name in ("SDSS_MIRROR", "STRIPE82_MIRROR"):
        monkeypatch.delenv(name, raising=False)

    def put(folder, content=content):
        path = tmp_path / folder / "coadd" / "c.fits"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return path

    return put


@pytest.mark.parametrize(
    ("folder", "variable", "value"),
    [("data/stripe82", None, ""), ("mine", "STRIPE82_MIRROR", "mine"), ("sdss", "SDSS_MIRROR", "sdss/sas")],
)
def test_files_are_found_where_they_may_lie(put, tmp_path, monkeypatch, folder, variable, value):
    path = put(folder)
    (tmp_path / "sdss" / "sas" / "dr17").mkdir(parents=True)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / value))
    assert stripe82.fetch(["coadd"]) == {"coadd": path}


def test_a_missing_file_says_what_to_do(put, tmp_path, monkeypatch):
    put("mine", b"other bytes")  # a damaged copy is none
    monkeypatch.setenv("STRIPE82_MIRROR", str(tmp_path / "mine"))
    with pytest.raises(MissingError, match=r"STRIPE82_MIRROR=<folder that holds coadd/c\.fits>"):
        stripe82.fetch(["coadd"])
    monkeypatch.setenv("STRIPE82_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="no such folder"):
        stripe82.fetch(["coadd"])


def test_the_coadds_own_error_is_recovered(rng):
    """Of 400 stars, with 0.02 mag of its own beside our 0.01 mag."""
    values = dict.fromkeys(("x", "y", "truth_x", "truth_y", "mag_psf", "mag_det", "mag_aleatoric"), 0.0)
    values |= {"mag": 0.01 * rng.standard_normal(400), "mag_err": 0.01, "truth_mag": 0.02 * rng.standard_normal(400)}
    table = pd.DataFrame(values).assign(dataset="coadd", frame="94-1-12-g", method="pnet", status="matched")
    table = table.assign(counted=True, confidence=0.9).reindex(columns=list(COLUMNS))
    record = {"seed": 3, "command": "python -m studies coadd", "frames": []}
    (own,) = coadd.entries(table, record, "live")
    assert own.key == "coadd.pnet.own_error" and own.n == 400
    assert own.low < 0.02 < own.high and own.value == pytest.approx(0.02, rel=0.2)
    assert own.provenance == {"seed": 3, "command": record["command"]}
    assert coadd.entries(table.head(4), record, "live") == []
    assert coadd.own_error(0.5 * rng.standard_normal(500), np.ones(500)) == 0, "ours explain all"
