"""Images of cameras that nobody told us of: made-up ones whose truth is known, and real ones whose headers are."""

import bz2
import gzip
import io

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scipy import ndimage

from pnet import measure
from pnet.common.errors import ConfigError, DataError
from pnet.common.fits_file import open_fits
from pnet.sky import image as images
from pnet.sky.header import Given

GAIN, READ_NOISE, SKY = 2.5, 6.0, 400.0  # electrons per ADU, electrons, electrons


def stars(rng, count, brightest, shape=(256, 256), width=2.0):
    """Electrons of Gaussian stars of peaks from 300 on, as many above each as a power law of index 1 has."""
    light = np.zeros(shape)
    y, x = np.mgrid[:25, :25] - 12.0
    for row, column in zip(*(rng.integers(13, side - 13, count) for side in shape), strict=True):
        stamp = np.exp(-(x**2 + y**2) / 2 / width**2)
        light[row - 12 : row + 13, column - 12 : column + 13] += min(brightest, 300 / rng.uniform(0, 1)) * stamp
    return light


def exposure(rng, light=0.0, shape=(256, 256)):
    """Whole ADU that a camera without bias reads."""
    electrons = rng.poisson(np.broadcast_to(SKY + light, shape)) + rng.normal(0, READ_NOISE, shape)
    return np.round(electrons / GAIN)


def file_of(folder, *hdus, name="field.fits"):
    """Write images, or HDUs, and return the path; the name says how it is compressed."""
    made = [hdu if isinstance(hdu, fits.hdu.base._BaseHDU) else fits.ImageHDU(hdu) for hdu in hdus]
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *made]).writeto(stream)
    content = stream.getvalue()
    content = (
        bz2.compress(content) if name.endswith("bz2") else gzip.compress(content) if name.endswith("gz") else content
    )
    (folder / name).write_bytes(content)
    return folder / name


def image_of(pixels, **cards):
    hdu = fits.ImageHDU(pixels)
    hdu.header.update(cards)  # a value may be one with its comment
    return hdu


def read(folder, *hdus, **given):
    return measure.read_image(file_of(folder, *hdus), Given(**given))


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz", "a.fit.bz2", "a.fits.fz"])
def test_every_way_of_packing_gives_the_same_frame(name, rng, tmp_path):
    pixels = exposure(rng).astype(np.uint16)
    cards = fits.Header({"EGAIN": GAIN, "GAIN": 120, "RDNOISE": READ_NOISE, "MAGZERO": 27.0, "PIXSCALE": 0.3})
    kind = fits.CompImageHDU if name.endswith("fz") else fits.ImageHDU
    frame = measure.read_image(file_of(tmp_path, kind(pixels, cards), name=name))
    assert frame.name == "a" and frame.gain == GAIN and frame.read_noise == READ_NOISE and frame.pixel_scale == 0.3
    np.testing.assert_allclose(frame.image, pixels * GAIN, rtol=1e-6)
    assert frame.zero_point == pytest.approx(27 + 2.5 * np.log10(GAIN))
    assert np.median(frame.variance) == pytest.approx(SKY + READ_NOISE**2 + GAIN**2 / 12, rel=0.03)


def test_each_value_says_where_it_is_from(rng, tmp_path):
    """An option comes before the header, the header before an estimate; cards out of range are no values."""
    cards = {
        "GAIN": -1.0,
        "RDNOISE": "unknown",
        "SATURATE": 50000.0,
        "MAGZP": (24.0, "mag of 1 ADU/s"),
        "EXPTIME": "90",
    }
    frame = read(tmp_path, image_of(exposure(rng).astype(np.int32), **cards), read_noise=7.0)
    values = frame.meta["values"]
    assert frame.read_noise == 7 and "option --read-noise" in values["read noise"]
    assert "header SATURATE" in values["saturation"] and frame.saturation == pytest.approx(50000 * frame.gain)
    assert "estimate" in values["gain"] and "default" in values["pixel scale"] and "default" in values["unit"]
    assert frame.zero_point == pytest.approx(24 + 2.5 * np.log10(90 * frame.gain))
    nothing = read(tmp_path, exposure(rng))
    assert "instrumental" in nothing.meta["values"]["zero point"] and nothing.seeing is None and nothing.wcs is None


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("pedestal", [0, 1000])
def test_gain_and_noise_are_estimated_from_the_sky(crowded, pedestal, rng, tmp_path):
    light = stars(rng, 500, 3e4) if crowded else 0.0
    pixels = exposure(rng, light) + pedestal
    cards = {"RDNOISE": READ_NOISE, "PEDESTAL": -pedestal}  # as what must be added, as some cameras write it
    frame = read(tmp_path, image_of(pixels.astype(np.int32), **cards))
    assert frame.gain == pytest.approx(GAIN, rel=0.15 if crowded else 0.04)
    sky = np.percentile(frame.variance, 5)
    assert sky == pytest.approx(SKY + READ_NOISE**2, rel=0.25 if crowded else 0.06)


def test_the_variance_of_a_star_is_that_of_its_photons(rng, tmp_path):
    light = stars(rng, 200, 2e4)
    frame = read(tmp_path, image_of(exposure(rng, light).astype(np.int32), GAIN=GAIN, RDNOISE=READ_NOISE))
    bright = light > 3000
    assert np.mean(frame.variance[bright]) == pytest.approx(np.mean(light[bright]) + SKY + READ_NOISE**2, rel=0.03)


def test_noise_of_registered_means_is_measured_and_told(rng, tmp_path):
    """A mean of eight shifted exposures: the header's gain is wrong, and neighbours share their noise."""
    mean = np.mean([ndimage.shift(exposure(rng), rng.uniform(-0.5, 0.5, 2), order=1, mode="wrap") for _ in range(8)], 0)
    frame = read(tmp_path, image_of(mean.astype(np.float32), GAIN=GAIN, RDNOISE=READ_NOISE))
    assert "a mean of exposures" in frame.meta["values"]["sky noise"]
    assert "correlated" in frame.meta["values"]["sky noise"]
    counted = read(tmp_path, image_of(mean.astype(np.float32), GAIN=GAIN, RDNOISE=READ_NOISE, NCOMBINE=8))
    assert "8 exposures" in counted.meta["values"]["gain"] and "say" not in counted.meta["values"]["sky noise"]
    assert counted.gain == pytest.approx(8 * GAIN)
    sums = counted.image.reshape(64, 4, 64, 4).sum(axis=(1, 3))
    assert np.sqrt(counted.variance.sum() / sums.size) == pytest.approx(sums.std(), rel=0.05)
    assert frame.meta["values"]["gain"].startswith("2.5 ")


def test_a_gain_that_the_noise_belies_fiftyfold_is_not_believed(rng, tmp_path):
    frame = read(tmp_path, image_of((exposure(rng) / 65535).astype(np.float32), EGAIN=1.0))
    assert "estimate" in frame.meta["values"]["gain"] and np.median(frame.image) == pytest.approx(SKY, rel=0.2)


@pytest.mark.parametrize(
    ("unit", "factor", "zero_point"),
    [
        ("adu", 1.0, 25.0),
        ("electron", GAIN, 25 + 2.5 * np.log10(GAIN)),
        ("count / s", 1 / 90, 25 - 2.5 * np.log10(90)),
        ("e-/s", GAIN / 90, 25 + 2.5 * np.log10(GAIN / 90)),
        ("nanomaggy", 0.01, None),
        ("MJy/sr", 0.01, 20.0),
    ],
)
def test_the_unit_changes_no_magnitude(unit, factor, zero_point, rng, tmp_path):
    pixels = exposure(rng, stars(rng, 1, 1e4))
    given = {"gain": GAIN / factor} if unit in ("nanomaggy", "MJy/sr") else {}
    cards = {"BUNIT": unit, "GAIN": GAIN, "RDNOISE": READ_NOISE, "EXPTIME": 90.0}
    frame = read(tmp_path, image_of((pixels * factor).astype(np.float32), **cards), zero_point=zero_point, **given)
    plain = read(tmp_path, image_of(pixels.astype(np.int32), GAIN=GAIN, RDNOISE=READ_NOISE, MAGZERO=25.0))
    np.testing.assert_allclose(frame.image, plain.image, rtol=1e-5)
    np.testing.assert_allclose(np.median(frame.variance), np.median(plain.variance), rtol=0.01)
    expected = {"nanomaggy": 22.5, "MJy/sr": 20.0}.get(unit)
    expected = plain.zero_point if expected is None else expected + 2.5 * np.log10(GAIN / 0.01)
    assert frame.zero_point == pytest.approx(expected)


def test_saturation_is_where_pixels_pile_up(rng, tmp_path):
    light = stars(rng, 40, 4e5, width=2.5)
    pixels = exposure(rng, light)
    whole = read(tmp_path, image_of(pixels.astype(np.int32), GAIN=GAIN, DATAMAX=float(pixels.max())))
    assert np.isinf(whole.saturation) and "no pile" in whole.meta["values"]["saturation"]
    level = np.sort(pixels.ravel())[-60]
    flat = rng.uniform(0.97, 1.0, pixels.shape)  # a division by the flat field spreads the top
    cut = read(tmp_path, image_of((np.minimum(pixels, level) * flat).astype(np.float32), GAIN=GAIN))
    assert 0.9 * level * GAIN <= cut.saturation <= level * GAIN and cut.saturated.sum() >= 60


def test_pixels_without_data_are_masked(rng, tmp_path):
    pixels = exposure(rng)
    pixels[:20], pixels[50, 60] = 0, np.nan  # the edge of a registered image
    frame = read(tmp_path, pixels.astype(np.float32))
    assert frame.mask[:20].all() and frame.mask[50, 60] and frame.mask.sum() == 20 * 256 + 1
    integers = exposure(rng).astype(np.int16)
    integers[7, 9] = -32768
    path = file_of(tmp_path, image_of(integers))
    with fits.open(path, mode="update") as hdus:
        hdus[1].header["BLANK"] = -32768
    frame = measure.read_image(path)
    assert frame.mask[7, 9] and frame.mask.sum() == 1 and np.isfinite(frame.image).all()


def test_masks_come_from_the_file_or_from_another(rng, tmp_path):
    bad = np.zeros((256, 256), np.uint8)
    bad[10:20, 30:40] = 4
    science = [image_of(exposure(rng), EXTNAME="SCI", EXTVER=n) for n in (1, 2)]
    masks = [image_of(each, EXTNAME="DQ", EXTVER=n) for n, each in ((1, bad), (2, bad.T.copy()))]
    weight = image_of(np.ones((256, 256)), EXTNAME="WHT")
    path = file_of(tmp_path, science[0], weight, masks[0], science[1], masks[1], name="mef.fits")
    opened = measure.open_images(path)
    assert list(opened) == ["mef-1", "mef-4"]
    for name, mask in (("mef-1", bad), ("mef-4", bad.T)):
        np.testing.assert_array_equal(opened[name]().mask, mask > 0)
    other = file_of(tmp_path, image_of(bad[::-1].copy()), name="mask.fits")
    np.testing.assert_array_equal(measure.open_images(path, Given(mask=other))["mef-4"]().mask, bad[::-1] > 0)
    with pytest.raises(DataError, match="holds 2 images \\(mef-1, mef-4\\)"):
        measure.read_image(path)
    with pytest.raises(DataError, match=r"mask has shape \(100, 100\), the image \(256, 256\)"):
        wrong = file_of(tmp_path, bad[:100, :100].copy(), name="wrong.fits")
        measure.open_images(path, Given(mask=wrong))["mef-1"]()
    with pytest.raises(DataError, match="holds 2 masks for 3 images"):
        measure.open_images(file_of(tmp_path, *science, image_of(bad, EXTNAME="CCD3"), *masks))


@pytest.mark.parametrize(
    ("pixels", "cards", "message"),
    [
        (np.zeros((3, 64, 64)), {}, r"no 2-d image, only HDU 1 of shape \(3, 64, 64\)"),
        (np.zeros(64), {}, "no 2-d image"),
        (np.zeros((64, 64)), {}, "no noise"),
        (np.full((64, 64), np.nan), {}, "0 usable pixels"),
        (np.arange(100.0).reshape(10, 10), {}, "at least 16×16"),
        (np.arange(4096.0).reshape(64, 64), {"BUNIT": "mag"}, "holds magnitudes"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_reason(pixels, cards, message, tmp_path):
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, image_of(pixels, **cards))
    assert "field.fits" in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [{"gain": 0.0}, {"read_noise": -1.0}, {"pixel_scale": np.nan}, {"zero_point": np.inf}, {"saturation": -5.0}],
)
def test_options_out_of_range_are_named(wrong):
    with pytest.raises(ConfigError, match=f"--{next(iter(wrong)).replace('_', '-')} is .*, it must be"):
        Given(**wrong)


def header_of(kind, ra=0.001, dec=-40.0, scale=0.4 / 3600):
    """A celestial header with rotation and, by its kind, with distortion; near right ascension 0."""
    cards = {"CTYPE1": f"RA---{kind[:3]}", "CTYPE2": f"DEC--{kind[:3]}", "CRVAL1": ra, "CRVAL2": dec}
    cards |= {"CRPIX1": 100.0, "CRPIX2": 120.0, "CUNIT1": "deg", "CUNIT2": "deg"}
    cards |= {"CD1_1": -scale * 0.8, "CD1_2": scale * 0.6, "CD2_1": scale * 0.6, "CD2_2": scale * 0.8}
    if kind == "TAN-SIP":
        cards |= {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"}
        cards |= {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-4, "B_0_2": -1e-4}
    if kind == "TPV":
        cards |= {"PV1_0": 0.0, "PV1_1": 1.0, "PV1_4": 0.5, "PV2_0": 0.0, "PV2_1": 1.0}
    return fits.Header(cards)


@pytest.mark.parametrize("kind", ["TAN", "TAN-SIP", "TPV"])
def test_sky_positions_and_their_errors(kind, rng, tmp_path):
    """Against the scatter, as astropy's coordinates give it, of positions drawn from their errors."""
    frame = read(tmp_path, fits.ImageHDU(exposure(rng), header_of(kind)))
    table = Table({"x": [20.0, 99.0, 200.0], "y": [30.0, 119.0, 220.0], "x_err": [0.1] * 3, "y_err": [0.03] * 3})
    images.complete(table, frame)
    np.testing.assert_allclose([table["ra"][1], table["dec"][1]], [0.001, -40], atol=1e-9)
    assert str(table["ra_err"].unit) == "arcsec" and frame.pixel_scale == pytest.approx(0.4, rel=0.02)
    where = SkyCoord(table["ra"], table["dec"], unit="deg")
    x, y = (rng.normal(table[name], table[f"{name}_err"], (20000, 3)) for name in "xy")
    drawn = SkyCoord(*WCS(header_of(kind)).all_pix2world(x, y, 0), unit="deg")
    for name, offset in zip(("ra_err", "dec_err"), where.spherical_offsets_to(drawn), strict=True):
        np.testing.assert_allclose(table[name], offset.to_value("arcsec").std(axis=0), rtol=0.02)


@pytest.mark.parametrize(
    "cards", [{"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, {"CTYPE1": "RA---XYZ"}, {"CD1_1": 0.0, "CD1_2": 0.0}]
)
def test_without_right_ascension_there_are_no_sky_positions(cards, rng, tmp_path):
    header = header_of("TAN")
    header.update(cards)
    frame = read(tmp_path, fits.ImageHDU(exposure(rng), header))
    table = Table({"x": [20.0], "y": [30.0], "x_err": [0.1], "y_err": [0.1]})
    images.complete(table, frame)
    assert table.colnames == ["x", "y", "x_err", "y_err"] and table.meta["values"]


def test_real_cameras(shared):
    """SAAO's 1 m telescope, saturated from about 59,000 ADU; a mean of twelve CMOS exposures; SDSS's counts."""
    series = sorted((shared / "other" / "bulge_series").glob("*.fz"))[::20]
    if not series:
        pytest.skip("no images of other telescopes beside the project")
    for path in series:
        hdus = open_fits(path)
        frame = images.read(hdus, images.entries(hdus, path)[0])
        assert frame.gain == 1.9 and 58_000 < frame.saturation / 1.9 < 65_400
        del hdus[1].header["GAIN"]
        assert images.read(hdus, images.entries(hdus, path)[0]).gain == pytest.approx(1.9, rel=0.1)
    mean = measure.read_image(next((shared / "other" / "cmos_17inch").glob("*B.fits.fz")))
    assert mean.gain == 12 and "correlated" in mean.meta["values"]["sky noise"] and mean.pixel_scale > 0.8
    counts = measure.read_image(next((shared / "sdss" / "stripe82_repeat").glob("fpC-004192-g4*")))
    assert counts.gain == pytest.approx(3.995, rel=0.1) and "SOFTBIAS" in counts.meta["values"]["pedestal"]
