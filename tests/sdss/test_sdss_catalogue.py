"""Selection of SDSS stars: flags, criteria, patches."""

import numpy as np
import pandas as pd
import pytest
import sdss_files
import sep
from astropy.io import fits
from sdss_files import BINNED1, BRIGHT, EDGE, NOTCHECKED, PEAKCENTER, SATUR

from pnet.common.errors import DataError
from pnet.sdss import catalogue
from pnet.sdss.field import FieldId
from pnet.sdss.frame import read_frame
from pnet.sky import background

ID = FieldId(1234, 3, 56, "g")
SHAPE = (300, 400)


def nmgy(mag):
    return 10 ** (0.4 * (22.5 - mag))


NMGY = nmgy(17.0)


@pytest.fixture
def frame(tmp_path):
    image = np.zeros(SHAPE)
    calibration = np.full(SHAPE[1], 0.0037)
    path = tmp_path / "frame-g-001234-3-0056.fits"
    sdss_files.write_frame(path, image, calibration, np.full((9, 11), 90.0), ID, compress=False)
    spans = {"INTERP": [[(row, 200, 200) for row in range(SHAPE[0])]]}
    fpm = sdss_files.write_fpm(tmp_path / "fpM-001234-g3-0056.fit", ID, SHAPE, spans)
    return read_frame(path, fpm=fpm)


def select(tmp_path, frame, rows):
    objects = pd.DataFrame(rows)
    objects["nmgy"] = objects["nmgy"].fillna(NMGY) if "nmgy" in objects else NMGY
    usual = {"flags": BINNED1, "objc_flags": 0, "nchild": 0, "mode": 1, "clean": 1, "type": 6}
    for column, default in usual.items():
        objects[column] = objects[column].fillna(default).astype(int) if column in objects else default
    path = sdss_files.write_photoobj(tmp_path / "photoObj.fits", ID, objects)
    return catalogue.select(path, frame)


def test_position_flux_and_identity(tmp_path, frame):
    table = select(tmp_path, frame, [{"x": 100.25, "y": 50.75}])
    row = table.iloc[0]
    assert (row.x, row.y) == pytest.approx((100.25, 50.75), abs=1e-4), "g pixels, from 0"
    assert row.mag == pytest.approx(17.0, abs=1e-5)
    assert row.flux == pytest.approx(NMGY / 0.0037 * 3.845, rel=1e-5), "nanomaggies / (nanomaggies per count) × gain"
    assert frame.magnitude(row.flux) == pytest.approx(row.mag)
    assert row.counted and row.reason == "" and row.kind == "star"
    assert row.objid == "1237600123400560000"
    assert (row.ra, row.dec, row.psfmag_err) == pytest.approx((150.0, 2.0, 0.02))


@pytest.mark.parametrize(
    "row, listed, counted, reason",
    [
        ({}, True, True, ""),
        *(({"flags": BINNED1 | flag}, True, False, "flags") for flag in (SATUR, EDGE, PEAKCENTER, NOTCHECKED)),
        ({"flags": 1 << 29}, True, False, "flags"),  # BINNED2: seen only in a smoothed image
        ({"flags": 0}, False, None, None),  # not detected in g
        ({"nchild": 2}, False, None, None),  # its children stand for it
        ({"objc_flags": BRIGHT}, False, None, None),  # listed twice by SDSS
        ({"type": 3}, True, False, "galaxy"),
        *(({"nmgy": flux}, True, False, "magnitude") for flux in (nmgy(20.01), nmgy(12.99), -0.3)),
        ({"x": 200.2}, True, False, "masked"),
        ({"x": 9.9}, True, False, "edge"),
        ({"y": 289.1}, True, False, "edge"),
        ({"y": 289.0}, True, True, ""),
        ({"mode": 2}, True, False, "flags"),  # another field's detection is the primary one
        ({"clean": 0}, True, False, "flags"),
        ({"x": -9999.0, "y": -9999.0}, False, None, None),
    ],
)
def test_each_criterion(tmp_path, frame, row, listed, counted, reason):
    # the second object makes the run a primary one and is far from everything
    table = select(tmp_path, frame, [{"x": 100.0, "y": 50.0, **row}, {"x": 300.0, "y": 200.0}])
    found = table[["counted", "reason"]].to_numpy().tolist()
    assert found == [[counted, reason]] * listed + [[True, ""]]


def test_runs_that_are_not_primary_go_by_flags_alone(tmp_path, frame):
    rows = [{"x": 100.0, "y": 50.0, "mode": 2, "clean": 0}, {"x": 300.0, "y": 200.0, "mode": 3, "clean": 0}]
    assert select(tmp_path, frame, rows)["counted"].all()


@pytest.mark.parametrize(
    "neighbour, reason",
    [
        ({}, "star"),
        ({"type": 3, "cmodel": 1.0}, "object"),
        ({"nmgy": nmgy(22.0)}, "object"),
        ({"flags": 1 << 30}, "star"),
    ],
)
def test_neighbours(tmp_path, frame, neighbour, reason):
    near = select(tmp_path, frame, [{"x": 100.0, "y": 50.0}, {"x": 106.0, "y": 57.0, **neighbour}])
    assert not near["counted"].iloc[0] and near["reason"].iloc[0] == reason
    far = select(tmp_path, frame, [{"x": 100.0, "y": 50.0}, {"x": 107.5, "y": 57.5, **neighbour}])
    assert far["counted"].iloc[0]
    unseen = select(tmp_path, frame, [{"x": 100.0, "y": 50.0}, {"x": 103.0, "y": 50.0, "flags": 0}])
    assert unseen["counted"].tolist() == [True], "what is not detected in g is no neighbour"


def test_galaxies_have_their_own_flux(tmp_path, frame):
    table = select(tmp_path, frame, [{"x": 100.0, "y": 50.0, "type": 3, "cmodel": 10.0}])
    assert table["mag"].iloc[0] == pytest.approx(20.0, abs=1e-5)


def test_exclusions_add_up(tmp_path, frame):
    rows = [{"x": 100.0, "y": 50.0}, {"x": 5.0, "y": 50.0}, {"x": 250.0, "y": 100.0, "flags": BINNED1 | SATUR}]
    rows += [{"x": 300.0, "y": 200.0}, {"x": 304.0, "y": 200.0, "type": 3, "cmodel": 1.0}]
    rows += [{"x": 50.0, "y": 200.0, "nmgy": 0.5}]
    all_, *excluded, counted = catalogue.exclusions(select(tmp_path, frame, rows))["stars"]
    assert (all_, sum(excluded), counted) == (4, 3, 1)


def test_wrong_files(tmp_path, frame):
    one, none = (pd.DataFrame({"x": places, "y": places}) for places in ([1.0], []))
    other = sdss_files.write_photoobj(tmp_path / "o.fits", FieldId(1234, 3, 57, "g"), one)
    table = fits.BinTableHDU.from_columns([fits.Column("RUN", "J", array=[1234])])
    bare = sdss_files.write_hdus(tmp_path / "b.fits", [fits.PrimaryHDU(), table])
    empty = sdss_files.write_hdus(tmp_path / "e.fits", [fits.PrimaryHDU()])
    cut = tmp_path / "cut.fits"
    cut.write_bytes(other.read_bytes()[:-2880])
    for path, words in (
        (other, "has FIELD 57, the frame 1234-3-56-g has 56"),
        (bare, "lacks the columns OBJID"),
        (empty, "no table in HDU 1"),
        (sdss_files.write_photoobj(tmp_path / "n.fits", ID, none), "holds no object"),
        (cut, r"cut\.fits"),
    ):
        with pytest.raises(DataError, match=words):
            catalogue.select(path, frame)


class TestReal:
    """Field 94-1-12, a run that is not primary."""

    @pytest.fixture
    def field(self, shared):
        paths = sdss_files.real(shared)
        frame = read_frame(paths["frame"], paths["psField"], paths["fpM"])
        return frame, catalogue.select(paths["photoObj"], frame), fits.getdata(paths["photoObj"], 1)

    def test_counts(self, field):
        frame, table, native = field
        bright = (native["OBJC_FLAGS"] & BRIGHT) != 0
        mag = native["PSFMAG"][:, 1]
        stars = (native["OBJC_TYPE"] == 6) & (native["NCHILD"] == 0) & ~bright & (mag > 13) & (mag < 20)
        assert stars.sum() == 70
        numbers = dict(zip(*catalogue.exclusions(table)[["criterion", "stars"]].to_numpy().T, strict=True))
        # one of the 70 is a fragment of a saturated star that is not detected in g
        assert numbers["point sources of 13–20 mag"] == 69
        in_range = (table["kind"] == "star") & table["mag"].between(13, 20)
        assert (in_range & table["clean"]).sum() == 68
        assert numbers[catalogue.REASONS["object"]] == 2
        assert numbers["stars that count"] == table["counted"].sum() == 66

    def test_positions_and_magnitudes(self, field):
        frame, table, _ = field
        stars = table[table["counted"]]
        x, y = stars["x"].to_numpy(), stars["y"].to_numpy()
        signal = frame.image - background.estimate(frame).level
        px, py, _ = sep.winpos(signal, x, y, frame.seeing / frame.pixel_scale / 2.355)
        # windowed centroids against SDSS's own, which are corrected for the PSF's asymmetry: a tenth of a pixel
        assert np.median(px - x) == pytest.approx(0.10, abs=0.03)
        assert np.median(py - y) == pytest.approx(0.02, abs=0.03)
        bright = stars["mag"].to_numpy() < 18
        flux, _, _ = sep.sum_circle(signal, x[bright], y[bright], 7.43 / frame.pixel_scale)
        difference = frame.magnitude(flux) - stars["mag"].to_numpy()[bright]
        assert np.median(difference) == pytest.approx(0.0, abs=0.01)
        assert 1.4826 * np.median(np.abs(difference - np.median(difference))) < 0.04
        ra, dec = frame.wcs.all_pix2world(x, y, 0)
        assert np.median(np.abs(ra - stars["ra"])) * 3600 < 0.1
