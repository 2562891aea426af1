"""The Cramér-Rao bound against closed forms, the design's numbers, and an estimator that reaches it."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special

from pnet.common.errors import ConfigError, DataError
from pnet.frame import Frame
from pnet.sky import limits

SIGMA = 1.5  # px


def gaussian_pixel(x_offset, y_offset, size, sigma=SIGMA):
    """Pixel-integrated Gaussian."""

    def profile(offset):
        edge = (np.arange(size + 1) - size / 2 - offset) / (np.sqrt(2) * sigma)
        return np.diff(special.erf(edge)) / 2

    return np.outer(profile(y_offset), profile(x_offset))


@pytest.fixture(scope="module")
def gaussian():
    return limits.EffectivePSF.from_function(gaussian_pixel)


def blank(shape=(64, 64), **options):
    values = {"gain": 3.8, "zero_point": 30.0, "read_noise": 5.0, "pixel_scale": 0.396, "seeing": 1.4, **options}
    image = np.full(shape, 270.0)
    return Frame(name="blank", image=image, variance=image + 25, mask=np.zeros(shape, bool), **values)


def test_source_limited_star(gaussian):
    # photons alone: σ_x = σ_PSF / √F, σ_F = √F (pixels as wide as 0.67 σ blur by 1/12 px²)
    flux = 1e8
    bound = limits.bound(gaussian, [30.2], [30.4], [flux], 1e-3, 0.0)
    width = np.sqrt(SIGMA**2 + 1 / 12)
    assert bound["limit_x"][0] == pytest.approx(width / np.sqrt(flux), rel=0.01)
    assert bound["limit_flux"][0] == pytest.approx(np.sqrt(flux), rel=0.01)
    assert bound["limit_mag"][0] == pytest.approx(1.0857 / np.sqrt(flux), rel=0.01)


def test_sky_limited_star(gaussian):
    # noise n per pixel: σ_F = n √(4π) σ, σ_x = √(8π) σ² n / F (King 1983)
    sky, flux = 1e4, 100.0
    noise, width = np.sqrt(sky), np.sqrt(SIGMA**2 + 1 / 12)
    bound = limits.bound(gaussian, [30.0], [30.0], [flux], sky, 0.0, size=41)
    assert bound["limit_x"][0] == pytest.approx(np.sqrt(8 * np.pi) * width**2 * noise / flux, rel=0.02)
    assert bound["limit_flux"][0] == pytest.approx(noise * np.sqrt(4 * np.pi) * width, rel=0.01)


@pytest.mark.parametrize("size", [9, 15, 41])
def test_the_sky_is_known_from_the_whole_frame(gaussian, size):
    """A star without photons of its own, in closed form: σ_F = n / √ΣP² with the sky known, and more by the factor
    1/√(1 − (ΣP)²/(N ΣP²)) where each stamp of N pixels must tell its own."""
    sky = 1e4
    share = gaussian_pixel(0, 0, size)
    known, fitted = (
        limits.bound(gaussian, [30.0], [30.0], [1e-3], sky, 0.0, size=size, fit_sky=fit_sky).iloc[0]
        for fit_sky in (False, True)
    )
    power, left = (share**2).sum(), 1 - share.sum() ** 2 / (size**2 * (share**2).sum())
    assert known["limit_flux"] == pytest.approx(np.sqrt(sky / power), rel=1e-6)
    assert fitted["limit_flux"] == pytest.approx(np.sqrt(sky / power / left), rel=1e-6)
    assert fitted["limit_sky"] == pytest.approx(np.sqrt(sky / left) / size, rel=1e-6)
    assert known["limit_x"] == pytest.approx(fitted["limit_x"], rel=1e-9)  # the sky says nothing of the position
    assert np.isnan(known["limit_sky"])


def test_read_noise_adds_to_the_sky(gaussian):
    only_sky = limits.bound(gaussian, [30.0], [30.0], [50.0], 1000.0, 0.0)
    with_noise = limits.bound(gaussian, [30.0], [30.0], [50.0], 600.0, 20.0)
    assert with_noise["limit_flux"][0] == pytest.approx(only_sky["limit_flux"][0], rel=1e-3)


def test_an_unknown_width_costs_flux_but_not_position(gaussian):
    known = limits.bound(gaussian, [30.0], [30.0], [1000.0], 300.0, 5.0)
    unknown = limits.bound(gaussian, [30.0], [30.0], [1000.0], 300.0, 5.0, fit_width=True)
    assert unknown["limit_x"][0] == pytest.approx(known["limit_x"][0], rel=1e-6)
    # sky-limited Gaussian: flux and width are correlated by −1/√2, so the variance doubles
    assert unknown["limit_flux"][0] / known["limit_flux"][0] == pytest.approx(np.sqrt(2), rel=0.06)


def test_numbers_of_the_design():
    # SDSS-like noise at a seeing of 1.4", g = 14, 16, 18, 20 (DESIGN section 6, computed without the aureole)
    galsim = pytest.importorskip("galsim")
    profile = galsim.Convolve(galsim.Kolmogorov(fwhm=1.4), galsim.OpticalPSF(lam=477, diam=2.5, obscuration=1.17 / 2.5))
    psf = limits.EffectivePSF.from_function(
        lambda x, y, size: profile.drawImage(nx=size, ny=size, scale=0.396, offset=(x, y)).array
    )
    gain, exposure = 3.845, 53.9
    electrons = exposure * gain
    flux = electrons * 10 ** (0.4 * (24.2 - np.array([14.0, 16.0, 18.0, 20.0])))
    sky = electrons * 10 ** (0.4 * (24.2 - 21.9)) * 0.396**2
    bound = limits.bound(psf, np.full(4, 30.2), np.full(4, 30.3), flux, sky, 4.97)
    assert bound["limit_mag"].to_numpy() == pytest.approx([0.0007, 0.0018, 0.0051, 0.0175], rel=0.03)
    assert bound["limit_x"].to_numpy() == pytest.approx([0.0012, 0.0031, 0.0092, 0.034], rel=0.03)
    assert bound["limit_y"].to_numpy() == pytest.approx(bound["limit_x"].to_numpy(), rel=1e-3)


def test_a_maximum_likelihood_fit_reaches_the_bound(gaussian, rng):
    flux, sky, noise, size = 3000.0, 200.0, 5.0, 15
    bound = limits.bound(gaussian, [30.3], [30.1], [flux], sky, noise, size=size, fit_sky=True)
    expected = flux * gaussian_pixel(0.3, 0.1, size) + sky
    sigma = np.sqrt(expected + noise**2)
    found = []
    for _ in range(300):
        data = rng.poisson(expected) + rng.normal(0, noise, expected.shape)

        def residual(p, data=data):
            return ((p[2] * gaussian_pixel(p[0], p[1], size) + p[3] - data) / sigma).ravel()

        found.append(optimize.least_squares(residual, [0.0, 0.0, 2500.0, 190.0], x_scale=[1, 1, 1e3, 1e2]).x)
    scatter = np.std(found, axis=0, ddof=1)
    wanted = bound[["limit_x", "limit_y", "limit_flux"]].to_numpy()[0]
    assert scatter[:3] == pytest.approx(wanted, rel=4 / np.sqrt(2 * 300))  # 4 σ of a standard deviation
    assert np.std(np.array(found)[:, 3]) == pytest.approx(bound["limit_sky"][0], rel=0.16)


def test_the_same_psf_in_three_forms(gaussian):
    oversampling = 11
    axis = (np.arange(43 * oversampling) - 43 * oversampling // 2) / oversampling
    samples = np.exp(-(axis**2 + axis[:, None] ** 2) / (2 * SIGMA**2))
    forms = [
        gaussian,
        limits.EffectivePSF.from_oversampled(samples / samples.sum(), oversampling),
        limits.EffectivePSF.from_pixels(gaussian_pixel(0, 0, 51)),
    ]
    arguments = ([30.3, 31.9], [30.1, 29.5], [3000.0, 1e5], 200.0, 5.0)
    first, *others = (limits.bound(psf, *arguments, size=31, fit_sky=True).drop(columns="limit_width") for psf in forms)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=0.01)


def test_even_oversampling_is_centred():
    axis = (np.arange(321) - 160) / 8
    samples = np.exp(-(axis**2 + axis[:, None] ** 2) / (2 * SIGMA**2))
    psf = limits.EffectivePSF.from_oversampled(samples / samples.sum(), 8)
    np.testing.assert_allclose(psf.samples, psf.samples[::-1, ::-1], atol=1e-15)
    np.testing.assert_allclose(psf.samples, psf.samples.T, atol=1e-15)
    assert psf.samples[::8, ::8].sum() == pytest.approx(1, abs=1e-3)


def test_saturated_and_masked_pixels_carry_nothing(gaussian):
    arguments = (gaussian, [30.0], [30.0], [1e6], 200.0, 5.0)
    whole = limits.bound(*arguments)
    saturated = limits.bound(*arguments, saturation=3e4)
    assert saturated["limit_flux"][0] > 1.3 * whole["limit_flux"][0]
    mask = np.zeros((61, 61), bool)
    mask[:, :30] = True
    half = limits.bound(*arguments, unusable=mask)
    assert half["limit_flux"][0] > 1.1 * whole["limit_flux"][0]
    assert limits.bound(*arguments, unusable=np.ones((61, 61), bool)).isna().all(axis=None)


def test_frame_limits_at_edges_and_off_the_frame():
    psf = limits.EffectivePSF.from_function(gaussian_pixel)
    truth = pd.DataFrame({"x": [32.0, 0.0, -5.0, 32.0], "y": [32.0, 32.0, 32.0, 20.0], "flux": [1e4, 1e4, 1e4, -1.0]})
    result = limits.frame_limits(blank(), truth, lambda frame, x, y: psf, sky=270.0)
    assert result["limit_mag"].notna().tolist() == [True, True, False, False]
    assert result["limit_mag"][1] > result["limit_mag"][0]  # half of the star is lost
    assert result["sky"][0] == 270.0
    assert limits.frame_limits(blank(), truth.iloc[:0], lambda frame, x, y: psf).empty


def test_psf_of_each_part_of_a_frame():
    places = []

    def psf_at(frame, x, y):
        places.append((x, y))
        return limits.EffectivePSF.from_function(gaussian_pixel, size=21)

    truth = pd.DataFrame({"x": [30.0, 40.0, 500.0], "y": [30.0, 35.0, 30.0], "flux": [1e4, 1e4, 1e4]})
    limits.frame_limits(blank((100, 600)), truth, psf_at, sky=200.0)
    assert places == [(128.0, 99.0), (384.0, 99.0)]


def test_default_psf_is_the_simulations_own():
    star = pd.DataFrame({"x": [32.2], "y": [31.7], "flux": [62_000.0]})
    result = limits.frame_limits(blank(), star, sky=270.0)
    assert result["limit_mag"][0] == pytest.approx(0.0052, rel=0.05)
    with pytest.raises(DataError, match="seeing"):
        limits.frame_limits(blank(seeing=None), star, sky=270.0)


def test_five_thousand_stars_take_seconds(gaussian, rng):
    import time

    start = time.perf_counter()
    x, y = rng.uniform(0, 512, (2, 5000))
    result = limits.bound(
        gaussian, x, y, 10 ** rng.uniform(3, 6, 5000), 270.0, 5.0, unusable=np.zeros((512, 512), bool)
    )
    assert time.perf_counter() - start < 20
    assert result["limit_mag"].notna().all()


def test_wrong_input_is_refused(gaussian):
    with pytest.raises(DataError, match="flux must be positive"):
        limits.bound(gaussian, [1.0], [1.0], [0.0], 1.0, 1.0)
    with pytest.raises(ConfigError, match="size"):
        limits.bound(gaussian, [1.0], [1.0], [1.0], 1.0, 1.0, size=40)
    with pytest.raises(DataError, match="odd"):
        limits.EffectivePSF(np.ones((10, 10)), 2)
    with pytest.raises(DataError, match="asked for"):
        limits.EffectivePSF.from_function(lambda x, y, size: np.ones((3, 3)))
