"""SDSS frames, masks and PSF models: electrons, variance, damage."""

import time
from dataclasses import replace

import numpy as np
import pytest
import sdss_files
import sep
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from pnet.common.errors import DataError
from pnet.sdss.catalogue import select
from pnet.sdss.field import FieldId, identify
from pnet.sdss.frame import read_frame, read_mask
from pnet.sdss.psf import PSFModel, fwhm
from pnet.sdss.selection import noise_ratio
from pnet.sky import background

ID = FieldId(1234, 3, 56, "g")
SHAPE = (60, 80)


@pytest.fixture
def parts(rng):
    """Image in nanomaggies, calibration vector and coarse sky of a small frame."""
    return rng.normal(0.0, 0.02, SHAPE), rng.uniform(0.003, 0.004, SHAPE[1]), rng.uniform(80, 100, (9, 11))


@pytest.fixture
def frame_path(tmp_path, parts):
    return sdss_files.write_frame(tmp_path / "frame-g-001234-3-0056.fits.bz2", *parts, ID)


def expected(parts, gain, dark):
    """Image and variance in electrons, written down independently: sky by scipy, one pixel formula."""
    image, calibration, coarse = (np.asarray(part, np.float32).astype(float) for part in parts)
    rows = np.linspace(-0.4, coarse.shape[0] - 0.6, SHAPE[0]).astype(np.float32)
    columns = np.linspace(-0.4, coarse.shape[1] - 0.6, SHAPE[1]).astype(np.float32)
    inside = [np.clip(where, 0, size - 1) for where, size in zip((rows, columns), coarse.shape, strict=True)]
    points = np.stack(np.meshgrid(*inside, indexing="ij"), axis=-1)
    sky = RegularGridInterpolator(tuple(map(np.arange, coarse.shape)), coarse)(points)
    middle = np.median(calibration)
    counts = image / calibration + sky
    sigma_nmgy = calibration * np.sqrt(counts / gain + dark)  # as the data model writes it
    return gain * (image / middle + sky), (sigma_nmgy * gain / middle) ** 2, 22.5 - 2.5 * np.log10(middle / gain)


@pytest.mark.parametrize("own", [False, True])
def test_frame_in_electrons(tmp_path, frame_path, parts, own):
    """With gain, dark variance and seeing of its psField, else with the table's values of g, camera column 3."""
    gain, dark = (5.0, 2.0) if own else (3.845, 1.3225)
    more = {"gain": gain, "dark_variance": dark, "sigma": 1.8}
    frame = read_frame(frame_path, sdss_files.write_psfield(tmp_path / "psField.fit", ID, **more) if own else None)
    image, variance, zero_point = expected(parts, gain, dark)
    np.testing.assert_allclose(frame.image, image, rtol=1e-5)
    np.testing.assert_allclose(frame.variance, variance, rtol=1e-5)  # and one zero point for all columns
    assert frame.zero_point == pytest.approx(zero_point, abs=1e-6)
    assert (frame.name, frame.gain) == ("1234-3-56-g", gain)
    assert frame.read_noise == pytest.approx(gain * np.sqrt(dark))
    assert frame.meta["field"] == 56, "the header's FRAME is 64; the file name is right"
    assert frame.meta["airmass"] == 1.2 and frame.meta["exptime"] == pytest.approx(53.907456)
    assert frame.pixel_scale == pytest.approx(0.396, rel=1e-6)
    assert not frame.mask.any()
    # CRPIX counts from 1, ours from 0
    ra, dec = frame.wcs.all_pix2world(SHAPE[1] / 2, SHAPE[0] / 2, 0)
    assert (float(ra), float(dec)) == pytest.approx((150.0, 2.0), abs=1e-9)
    assert frame.meta["gain_source"] == ("psField" if own else "table")
    # the pixel's integration adds 1/12 to the Gaussian's variance
    seeing = 0.396 * 2.3548 * np.sqrt(1.8**2 + 1 / 12)
    assert frame.seeing == (pytest.approx(seeing, rel=0.01) if own else None)
    assert not own or frame.meta["psf"].at(3, 4).sum() == pytest.approx(1)


def test_identity_from_the_file_name_then_from_astrans(tmp_path, parts):
    odd = sdss_files.write_frame(tmp_path / "renamed.fits", *parts, ID, compress=False)
    assert identify(odd) == ID
    assert identify(tmp_path / "frame-r-000094-1-0012.fits.bz2") == FieldId(94, 1, 12, "r")
    bare = sdss_files.write_hdus(tmp_path / "bare.fits", [fits.PrimaryHDU(np.zeros((3, 3)))])
    with pytest.raises(DataError, match="cannot tell run"):
        identify(bare)


@given(st.integers(1, 999999), st.integers(1, 6), st.integers(1, 9999), st.sampled_from("ugriz"))
def test_a_frame_is_known_by_its_path_on_the_server(run, camcol, field, band):
    identity = FieldId(run, camcol, field, band)
    assert identify(identity.server_path("frame")) == identity
    run, camcol, field = map(int, identity.name.split("-")[:3])
    assert (run, camcol, field) == (identity.run, identity.camcol, identity.field)
    for role in ("photoObj", "psField", "fpM"):
        assert f"{run:06d}" in identity.server_path(role)
    path = FieldId(94, 1, 12, "g").server_path("fpM")  # the frame's is in the standard manifest
    assert path == "dr17/eboss/photo/redux/301/94/objcs/1/fpM-000094-g1-0012.fit"


class TestDamage:
    def test_wrong_shapes(self, tmp_path, parts):
        image, calibration, sky = parts
        name = tmp_path / "frame-g-001234-3-0056.fits"
        for vector, more, words in (
            (calibration[:-1], {}, "vector of 80 calibrations"),
            (np.zeros(80), {}, "not finite and positive"),
            (calibration, {"xinterp": np.zeros(81)}, "does not fit"),
        ):
            with pytest.raises(DataError, match=words):
                read_frame(sdss_files.write_frame(name, image, vector, sky, ID, **more))
        with pytest.raises(DataError, match="has 1 HDUs"):
            read_frame(sdss_files.write_hdus(name, [fits.PrimaryHDU(image)]))

    def test_ccd_whose_gain_changed_needs_psfield(self, tmp_path, parts):
        identity = FieldId(1234, 2, 56, "u")
        path = sdss_files.write_frame(tmp_path / "frame-u-001234-2-0056.fits", *parts, identity)
        with pytest.raises(DataError, match="give the field's psField"):
            read_frame(path)


class TestMask:
    def test_planes_and_what_is_masked(self, tmp_path, frame_path):
        spans = {"INTERP": [[(0, 0, 0), (1, 3, 5)], [(59, 79, 79)]], "SATUR": [[(7, 2, 2)]], "CR": [[(8, 2, 3)]]}
        spans |= {"GHOST": [[(9, 0, 79)]], "OBJECT": [[(20, 10, 30)]], "NOTCHECKED": [[(40, 0, 79)]]}
        fpm = sdss_files.write_fpm(tmp_path / "fpM-001234-g3-0056.fit", ID, SHAPE, spans)
        planes = read_mask(fpm, ID, SHAPE)
        truth = np.zeros(SHAPE, bool)
        truth[0, 0] = truth[59, 79] = truth[1, 3:6] = True
        np.testing.assert_array_equal(planes["INTERP"], truth)
        assert {kind: plane.sum() for kind, plane in planes.items()} == {"INTERP": 5, "SATUR": 1, "CR": 2, "GHOST": 80}
        frame = read_frame(frame_path, fpm=fpm)
        np.testing.assert_array_equal(frame.mask, truth | planes["SATUR"] | planes["CR"] | planes["GHOST"])
        np.testing.assert_array_equal(frame.interpolated, truth)

    @pytest.mark.parametrize("run_of_pixels", [(60, 0, 1), (0, 70, 80), (0, 5, 4)])
    def test_pixels_outside(self, tmp_path, run_of_pixels):
        fpm = sdss_files.write_fpm(tmp_path / "m.fit", ID, SHAPE, {"CR": [[run_of_pixels]]})
        with pytest.raises(DataError, match="CR leaves the image"):
            read_mask(fpm, ID, SHAPE)

    @pytest.mark.parametrize(
        "name, field, shape, words",
        [
            ("m.fit", 57, SHAPE, "belongs to 1234-3-57, the frame is 1234-3-56-g"),
            ("fpM-001234-r3-0056.fit", 56, SHAPE, "band r"),
            ("m.fit", 56, (60, 81), r"mask is \(60, 81\)"),
        ],
    )
    def test_of_another_field_band_or_shape(self, tmp_path, frame_path, name, field, shape, words):
        other = sdss_files.write_fpm(tmp_path / name, FieldId(1234, 3, field, "g"), shape, {})
        with pytest.raises(DataError, match=words):
            read_frame(frame_path, fpm=other)
        with pytest.raises(DataError, match="no fpM mask"):
            read_mask(sdss_files.write_psfield(tmp_path / "psField.fit", ID), ID, SHAPE)


class TestPSF:
    def test_polynomials_of_the_position(self, tmp_path, rng):
        narrow, wide = sdss_files.gaussian_psf(1.5), 0.1 * sdss_files.gaussian_psf(2.5)
        images = np.stack([narrow, wide, rng.normal(0, 1e-5, (51, 51))])
        coefficients = rng.uniform(0.5, 1.0, (3, 3, 2))
        path = sdss_files.write_psfield(tmp_path / "psField.fit", ID, images=images, coefficients=coefficients)
        x, y = 1200.0, 700.0
        row, column = (y + 0.5) / 1000, (x + 0.5) / 1000
        weights = [sum(c[i, j] * row**i * column**j for i in range(3) for j in range(2)) for c in coefficients]
        truth = sum(w * image for w, image in zip(weights, images, strict=True))
        psf = PSFModel.read(path, ID).at(x, y)
        assert psf.shape == (51, 51)
        np.testing.assert_allclose(psf, truth / truth.sum(), rtol=1e-4, atol=1e-9)
        assert not np.allclose(psf, PSFModel.read(path, ID).at(0, 0), rtol=1e-4, atol=0)

    def test_errors(self, tmp_path, frame_path):
        path = sdss_files.write_psfield(tmp_path / "psField.fit", FieldId(1, 1, 1, "g"))
        with pytest.raises(DataError, match="belongs to 1-1-1"):
            read_frame(frame_path, psfield=path)
        for wrong, words in (({"gain": 0.0}, "not physical"), ({"images": np.zeros((1, 51, 51))}, "has a sum of 0")):
            path = sdss_files.write_psfield(tmp_path / "psField.fit", ID, **wrong)
            with pytest.raises(DataError, match=words):
                PSFModel.read(path, ID).at(0, 0)
        with pytest.raises(DataError, match="holds no PSF of band y"):
            PSFModel.read(path, replace(ID, band="y"))


def concentration(image, x, y):
    """Light within 2 px over light within 8 px of the windowed centroid."""
    image = np.ascontiguousarray(image)
    x, y, _ = sep.winpos(image, [x], [y], 1.6)
    return sep.sum_circle(image, x, y, 2.0)[0][0] / sep.sum_circle(image, x, y, 8.0)[0][0]


class TestReal:
    """Field 94-1-12."""

    @pytest.fixture
    def files(self, shared):
        return sdss_files.real(shared)

    def test_frame(self, files):
        start = time.process_time()
        frame = read_frame(files["frame"], files["psField"], files["fpM"])
        assert time.process_time() - start < 2, "a frame must be read quickly"
        assert frame.shape == (1489, 2048)
        assert frame.name == "94-1-12-g"
        assert frame.gain == pytest.approx(3.32)
        assert frame.meta["dark_variance"] == pytest.approx(15.6025)
        assert frame.zero_point == pytest.approx(30.0425, abs=1e-3)
        assert frame.seeing == pytest.approx(1.55, abs=0.1)
        assert frame.meta["airmass"] == pytest.approx(1.2017, abs=1e-4)
        # psField's own sky noise is 4.4 % above gain and dark variance, so a ratio above 1 is what to expect
        summary = fits.getdata(files["psField"], 6)[0]
        predicted = np.sqrt(summary["sky"][1] / frame.gain + frame.meta["dark_variance"])
        assert summary["skysig"][1] / predicted == pytest.approx(1.044, abs=0.002)
        assert 1.0 < noise_ratio(frame) < 1.05
        # bad columns of the CCD, interpolated in every row
        assert frame.mask[:, 356].all() and not frame.mask[700, 100:110].any()

    def test_psf_agrees_with_the_stars(self, files):
        """Share of the light within 2 px of that within 8 px; with the polynomials transposed it fits worse."""
        frame = read_frame(files["frame"], files["psField"], files["fpM"])
        model = frame.meta["psf"]
        widths = [fwhm(model.at(x, 700)) * frame.pixel_scale for x in (100, 1000, 1900)]
        assert all(1.4 < width < 1.7 for width in widths)
        residual = {}
        signal = frame.image - background.estimate(frame).level
        table = select(files["photoObj"], frame)
        stars = table[table["counted"] & (table["mag"] < 18.5)]
        stars = stars[stars["x"].between(30, 2010) & stars["y"].between(30, 1450)]
        transposed = replace(model, coefficients=np.swapaxes(model.coefficients, 1, 2))
        for name, candidate in (("as read", model), ("transposed", transposed)):
            ratios = [
                concentration(signal, x, y) / concentration(candidate.at(x, y), 25.0, 25.0)
                for x, y in stars[["x", "y"]].to_numpy()
            ]
            residual[name] = np.std(ratios)
            assert np.median(ratios) == pytest.approx(1, abs=0.02)
        assert residual["as read"] < 0.03
        assert residual["as read"] < residual["transposed"]
