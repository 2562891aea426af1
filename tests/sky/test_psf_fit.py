"""Stars fitted with a known PSF: exact without noise, at the Cramér-Rao limit with it, and what lost pixels do."""

import numpy as np
import pandas as pd
import pytest
import torch
from psf_stars import SKY, DrawnStars

from pnet.sky import limits
from pnet.sky.frame_psf import FramePSF, seeing_of
from pnet.sky.psf import Aureole, Optics
from pnet.sky.psf_fit import fit_stars, psf_errors, side, together
from pnet.sky.render import psf_table, sample_psf
from pnet.sky.stamps import gaussian_width

WIDTH = 1.6  # px


@pytest.fixture(scope="module")
def psf():
    return FramePSF.unknown(WIDTH, (1000, 1000))


def assert_pulls_are_standard(stars, found):
    pull = stars.errors(found) / found.error
    assert ((pull.std(dim=0) - 1).abs() < 0.08).all() and (pull.mean(dim=0).abs() < 4 / len(pull) ** 0.5).all()


def test_without_stars_the_psf_is_that_of_the_renderer(psf):
    at, below = torch.tensor([50.3], dtype=torch.float64), torch.tensor([49.8], dtype=torch.float64)
    offsets = torch.tensor([0.3]), torch.tensor([-0.2])
    expected = sample_psf(psf_table(seeing_of(WIDTH), 0.396, Optics(), Aureole(), "cpu", 41), *offsets, 41)
    found = psf.drawn(at, below, 41)[0].float()
    assert torch.allclose(found, expected, atol=2e-5 * float(expected.max()))
    assert float(gaussian_width(found, *offsets)) == pytest.approx(WIDTH, rel=0.02)


def test_slopes_are_those_of_a_shifted_star(psf):
    at = torch.tensor([50.1], dtype=torch.float64)
    _, along, down = psf.drawn(at, at, 21)[:, 0]
    for axis, slope in enumerate((along, down)):
        low, high = (
            psf.drawn(at, at, 21, at=tuple(torch.tensor([0.1 + (h if k == axis else 0)]) for k in (0, 1)))[0, 0]
            for h in (-0.02, 0.02)
        )
        assert torch.allclose((high - low) / 0.04, slope, atol=5e-3 * float(slope.abs().max()))


@pytest.mark.parametrize("flux", [1e3, 1e6])
def test_without_noise_a_star_is_recovered(psf, flux):
    stars = DrawnStars(psf, flux, n=50, noise=False)
    found = stars.fitted()
    assert (stars.errors(found) / torch.tensor([flux, 1, 1])).abs().max() < 1e-6
    assert found.misfit.max() < 1e-9 and (found.likelier.abs() < 1e-3 * found.error).all()


@pytest.mark.parametrize("flux", [3e3, 3e4, 1e6])
def test_scatter_is_the_error_and_with_all_photons_the_cramer_rao_limit(psf, flux):
    """`limits.bound` knows nothing of the fit: another PSF table, another derivative, another Fisher matrix."""
    stars = DrawnStars(psf, flux)
    found = stars.fitted()
    assert_pulls_are_standard(stars, found)
    place = (value.numpy() for value in (stars.dx, stars.dy, stars.flux))
    limit = limits.bound(limits.simulated(seeing_of(WIDTH), 0.396), *place, SKY, 0.0)
    limit = torch.tensor(limit[["limit_flux", "limit_x", "limit_y"]].to_numpy())
    ratio = (found.error / limit).mean(dim=0)
    assert (ratio > 0.99).all() and (ratio < 1.08).all(), "the price of even weights"
    most_likely = ((stars.errors(found) + found.likelier) / limit).std(dim=0)
    assert ((most_likely - 1).abs() < 0.06).all()
    assert float(found.misfit.mean()) == pytest.approx(1, abs=0.01)


def test_pixels_that_are_lost_change_nothing_but_the_error(psf):
    stars = DrawnStars(psf, 3e4)
    generator = torch.Generator().manual_seed(3)
    usable = torch.rand(stars.pixels.shape, generator=generator) > 0.2
    found = stars.fitted(usable=usable)
    assert_pulls_are_standard(stars, found)
    assert (found.error > stars.fitted().error).double().mean() > 0.99
    spoilt = stars.fitted(usable=usable, pixels=torch.where(usable, stars.pixels, 1e7))
    for name in ("flux", "dx", "dy", "covariance", "misfit", "residual", "likelier"):
        assert torch.equal(getattr(spoilt, name), getattr(found, name)), name


def test_a_star_with_a_saturated_core_is_measured_from_its_wings(psf):
    stars, full = DrawnStars(psf, 2e6), 6e4
    usable = stars.pixels < full
    found = stars.fitted(usable=usable, pixels=stars.pixels.clamp(max=full))
    assert float((~usable).sum(dim=(1, 2)).double().mean()) > 5
    assert_pulls_are_standard(stars, found)
    assert float((found.error[:, 0] / stars.flux).max()) < 0.003


@pytest.mark.parametrize("seen", [(), (11, 10), (slice(None), 11)])
def test_what_no_pixel_tells_is_unknown(psf, seen):
    """No pixel, one, and a column, which says nothing of x."""
    stars = DrawnStars(psf, 1e4, n=3)
    usable = torch.zeros_like(stars.pixels, dtype=torch.bool)
    if seen:
        usable[:, *seen] = True
    found = stars.fitted(usable=usable)
    shape = psf_errors(psf, stars.x, stars.y, found)
    assert (torch.hypot(found.error, shape)[:, 1] > 1).all()
    assert all(torch.isfinite(value).all() for value in vars(found).values()) and torch.isfinite(shape).all()


@pytest.mark.parametrize("apart", [6.0, 9.0])
def test_neighbours_are_taken_off_each_other(apart):
    """Noiseless pairs, fitted together from the truth: each star is as if it were alone."""
    psf = FramePSF.unknown(WIDTH, (80, 80))
    stars = pd.DataFrame({"x": [35.2, 35.2 + apart], "y": [40.1, 41.7], "flux": [1e5, 2e4]})
    image = psf.light(*(torch.from_numpy(stars[name].to_numpy(copy=True)) for name in stars))
    found = fit_stars(psf, image, torch.ones(1, 80, 80), stars, SKY**0.5).table()
    np.testing.assert_allclose(found["flux"], stars["flux"], rtol=1e-5)
    np.testing.assert_allclose(found[["x", "y"]], stars[["x", "y"]], atol=1e-5)


def test_fluxes_together_are_the_least_squares_solution():
    """Forty stars on 60 × 60 px with lost pixels, against numpy's dense solution of the same equations."""
    psf, n, rng = FramePSF.unknown(WIDTH, (60, 60)), 40, np.random.default_rng(5)
    stars = pd.DataFrame(rng.uniform(5, 54, (n, 2)), columns=["x", "y"]).assign(flux=rng.uniform(1e3, 1e5, n))
    x, y = (torch.from_numpy(stars[axis].to_numpy(copy=True)) for axis in ("x", "y"))
    design, size = np.zeros((60, 60, n)), side(WIDTH)
    for index, (stamp, star) in enumerate(zip(psf.drawn(x, y, size)[0].numpy(), stars.itertuples(), strict=True)):
        wide = np.zeros((60 + 2 * size, 60 + 2 * size))
        row, column = (round(place) + size - size // 2 for place in (star.y, star.x))
        wide[row : row + size, column : column + size] = stamp
        design[..., index] = wide[size:-size, size:-size]
    usable = rng.random((60, 60)) > 0.1
    pixels = design @ stars["flux"].to_numpy() + rng.normal(0, 17, (60, 60))
    expected = np.linalg.lstsq(design[usable], pixels[usable], rcond=None)[0]
    image, good = (torch.from_numpy(value.astype(np.float32))[None] for value in (pixels, usable))
    found, error = together(psf, image, good, stars.assign(flux=1.0))
    alone = (design[usable] ** 2).sum(axis=0) ** -0.5
    np.testing.assert_allclose(error, alone, rtol=1e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=0.3 * 17 * alone.min())
