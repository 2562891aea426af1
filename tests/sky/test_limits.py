"""The Cramér-Rao bound against closed forms, the design's numbers, and an estimator that reaches it."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special

from pnet.common.errors import DataError
from pnet.frame import Frame
from pnet.sky import limits

SIGMA = 1.5  # px


def gaussian_pixel(x, y):
    """Share of a Gaussian star's light in the pixels at these offsets, (N,) and (M,), from it: (M, N)."""

    def share(offset):
        return np.diff([special.erf((offset + edge) / (np.sqrt(2) * SIGMA)) for edge in (-0.5, 0.5)], axis=0)[0] / 2

    return np.outer(share(y), share(x))


def gaussian(size=41):
    """The Gaussian star, for stamps of `size` px."""
    axis = np.arange(-10 * (size // 2 + 1), 10 * (size // 2 + 1) + 1) / 10
    return limits.EffectivePSF(gaussian_pixel(axis, axis), 10)


def blank(shape=(64, 64), **options):
    values = {"gain": 3.8, "zero_point": 30.0, "read_noise": 5.0, "pixel_scale": 0.396, "seeing": 1.4, **options}
    image = np.full(shape, 270.0)
    return Frame(name="blank", image=image, variance=image + 25, mask=np.zeros(shape, bool), **values)


def test_source_and_sky_limited_stars():
    width = np.sqrt(SIGMA**2 + 1 / 12)  # pixels as wide as 0.67 σ blur by 1/12 px²
    # photons alone: σ_x = σ_PSF / √F, σ_F = √F
    flux = 1e8
    bound = limits.bound(gaussian(), [30.2], [30.4], [flux], 1e-3, 0.0).iloc[0]
    expected = [width / np.sqrt(flux), np.sqrt(flux), 1.0857 / np.sqrt(flux)]
    assert bound[["limit_x", "limit_flux", "limit_mag"]].tolist() == pytest.approx(expected, rel=0.01)
    # noise n per pixel: σ_F = n √(4π) σ, σ_x = √(8π) σ² n / F (King 1983)
    noise, flux = 100.0, 100.0
    bound = limits.bound(gaussian(), [30.0], [30.0], [flux], noise**2, 0.0).iloc[0]
    assert bound["limit_x"] == pytest.approx(np.sqrt(8 * np.pi) * width**2 * noise / flux, rel=0.02)
    assert bound["limit_flux"] == pytest.approx(noise * np.sqrt(4 * np.pi) * width, rel=0.01)
    # read noise adds to the sky
    split = limits.bound(gaussian(), [30.0], [30.0], [flux], noise**2 - 400, 20.0).iloc[0]
    assert split["limit_flux"] == pytest.approx(bound["limit_flux"], rel=1e-3)


@pytest.mark.parametrize("size", [9, 15, 41])
def test_a_star_without_photons_of_its_own_is_the_closed_form(size):
    """σ_F = n / √ΣP² with the sky known, whatever the stamp."""
    psf, pixels = gaussian(size), np.arange(size) - size // 2
    found = limits.bound(psf, [30.0], [30.0], [1e-3], 1e4, 0.0)["limit_flux"][0]
    assert psf.size == size
    assert found == pytest.approx(np.sqrt(1e4 / (gaussian_pixel(pixels, pixels) ** 2).sum()), rel=1e-6)


def test_a_maximum_likelihood_fit_reaches_the_bound(rng):
    flux, sky, noise, size = 3000.0, 200.0, 5.0, 15
    pixels = np.arange(size) - size // 2
    bound = limits.bound(gaussian(size), [30.3], [30.1], [flux], sky, noise)
    expected = flux * gaussian_pixel(pixels - 0.3, pixels - 0.1) + sky
    sigma = np.sqrt(expected + noise**2)
    found = []
    for _ in range(300):
        data = rng.poisson(expected) + rng.normal(0, noise, expected.shape)

        def residual(p, data=data):
            return ((p[2] * gaussian_pixel(pixels - p[0], pixels - p[1]) + sky - data) / sigma).ravel()

        found.append(optimize.least_squares(residual, [0.0, 0.0, 2500.0], x_scale=[1, 1, 1e3]).x)
    scatter, wanted = np.std(found, axis=0, ddof=1), bound[["limit_x", "limit_y", "limit_flux"]].to_numpy()[0]
    assert scatter == pytest.approx(wanted, rel=4 / np.sqrt(2 * 300))  # 4 σ of a standard deviation


def test_whole_pixels_tell_the_same_psf():
    arguments = ([30.3, 31.9], [30.1, 29.5], [3000.0, 1e5], 200.0, 5.0)
    other = limits.EffectivePSF.from_pixels(gaussian_pixel(*[np.arange(51) - 25] * 2))
    np.testing.assert_allclose(limits.bound(other, *arguments), limits.bound(gaussian(), *arguments), rtol=0.01)


def test_many_stars_are_as_each_alone(rng):
    x, y, flux = *rng.uniform(0, 512, (2, 700)), 10 ** rng.uniform(3, 6, 700)
    options = {"sky": 270.0, "read_noise": 5.0, "unusable": rng.random((512, 512)) < 0.01}
    together = limits.bound(gaussian(), x, y, flux, **options)
    for star in (0, 300, 699):
        alone = limits.bound(gaussian(), x[star], y[star], flux[star], **options)
        np.testing.assert_allclose(together.iloc[[star]], alone, rtol=1e-9)


def test_saturated_and_masked_pixels_carry_nothing():
    arguments = (gaussian(), [30.0], [30.0], [1e6], 200.0, 5.0)
    whole = limits.bound(*arguments)
    saturated = limits.bound(*arguments, saturation=3e4)
    assert saturated["limit_flux"][0] > 1.3 * whole["limit_flux"][0]
    mask = np.zeros((61, 61), bool)
    mask[:, :30] = True
    half = limits.bound(*arguments, unusable=mask)
    assert half["limit_flux"][0] > 1.1 * whole["limit_flux"][0]
    assert limits.bound(*arguments, unusable=np.ones((61, 61), bool)).isna().all(axis=None)


def test_frame_limits_at_edges_and_off_the_frame():
    psf = gaussian()
    truth = pd.DataFrame({"x": [32.0, 0.0, -5.0, 32.0], "y": [32.0, 32.0, 32.0, 20.0], "flux": [1e4, 1e4, 1e4, -1.0]})
    result = limits.frame_limits(blank(), truth, lambda *_: psf)
    assert result["limit_mag"].notna().tolist() == [True, True, False, False]
    assert result["limit_mag"][1] > result["limit_mag"][0]  # half of the star is lost
    assert result["sky"][0] == pytest.approx(270.0, abs=1)
    assert limits.frame_limits(blank(), truth.iloc[:0], lambda *_: psf).empty


def test_psf_of_each_part_of_a_frame():
    places = []

    def psf_at(frame, x, y):
        places.append((x, y))
        return gaussian(21)

    truth = pd.DataFrame({"x": [30.0, 40.0, 500.0], "y": [30.0, 35.0, 30.0], "flux": [1e4, 1e4, 1e4]})
    limits.frame_limits(blank((100, 600)), truth, psf_at)
    assert places == [(128.0, 99.0), (384.0, 99.0)]


def test_numbers_of_the_design_with_the_simulations_own_psf():
    """SDSS-like noise at a seeing of 1.4", g = 14, 16, 18, 20 (DESIGN section 6, computed without the aureole)."""
    stars = pd.DataFrame({"x": 32.2, "y": 32.3, "flux": 10 ** (0.4 * (30.0 - np.array([14, 16, 18, 20])))})
    result = limits.frame_limits(blank(), stars)
    assert result["limit_mag"].to_numpy() == pytest.approx([0.0007, 0.0018, 0.0051, 0.0175], rel=0.06)
    assert result["limit_x"].to_numpy() == pytest.approx([0.0012, 0.0031, 0.0092, 0.034], rel=0.06)
    assert result["limit_y"].to_numpy() == pytest.approx(result["limit_x"].to_numpy(), rel=0.01)
    with pytest.raises(DataError, match="seeing"):
        limits.frame_limits(blank(seeing=None), stars)


def test_wrong_input_is_refused():
    with pytest.raises(DataError, match="flux must be positive"):
        limits.bound(gaussian(), [1.0], [1.0], [0.0], 1.0, 1.0)
