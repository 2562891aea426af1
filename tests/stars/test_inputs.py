"""What a star's network sees: symmetric, in units of the error, and finite whatever happens to a star."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from psf_stars import SKY, DrawnStars

from pnet.sky.frame_psf import FramePSF
from pnet.stars import inputs
from pnet.stars.inputs import IMAGES, NUMBERS, ODD, POGSON, RADII, STAMP, WINDOWS, bare_inputs, make_inputs


@pytest.fixture(scope="module")
def psf():
    """The atmosphere's, known without an error."""
    unknown = FramePSF.unknown(1.6, (1000, 1000))
    return replace(unknown, covariance=torch.zeros_like(unknown.covariance))


def columns(made):
    """Return the context's even columns that measure the flux, and those along x and y, without the phases."""
    along, down = (made.context[:, -n * ODD :][:, 1:ODD] for n in (2, 1))
    return made.context[:, NUMBERS : -2 * ODD], along, down


def assert_same(a, b, atol=1e-4):
    for name in vars(a):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=atol, rtol=1e-4)


def test_unit_is_the_scatter_of_the_base(psf):
    for flux in (3e3, 3e4, 1e6):
        stars = DrawnStars(psf, flux, 800)
        made = make_inputs(stars.stars())
        delta = made.base - torch.stack([-POGSON * stars.flux.log(), stars.dx, stars.dy], dim=1)
        assert ((delta / made.scale).std(dim=0) - 1).abs().max() < 0.15, flux
        assert made.base.dtype == torch.float64 and made.images.shape == (800, IMAGES, STAMP, STAMP)


def test_an_uncertain_psf_widens_the_unit(psf):
    stars, unknown = DrawnStars(psf, 3e5, 20), FramePSF.unknown(1.6, (1000, 1000))
    known, wide = (make_inputs(stars.stars(each)) for each in (psf, unknown))
    found = stars.stars(unknown)
    assert (wide.scale > 1.3 * known.scale).all()
    expected = POGSON * torch.hypot(found.fit.error[:, 0] / found.fit.flux, found.shape_error[:, 0])
    torch.testing.assert_close(wide.scale[:, 0].double(), expected.clamp(max=inputs.MOST_ERROR), rtol=0.01, atol=0)


def test_windows_say_what_the_fit_has_missed(psf):
    """A fit that is 3 % too faint, or a hundredth of a pixel off: every window and aperture finds that."""
    stars = DrawnStars(psf, 3e4, 40, noise=False)
    faint = make_inputs(stars.stars(start=(0.97 * stars.flux, stars.dx, stars.dy), iterations=0))
    even, along, down = columns(faint)
    missed = -POGSON * (0.03 / 0.97) / faint.scale[:, :1]
    assert even.shape[1] == 1 + len(WINDOWS) + len(RADII)
    torch.testing.assert_close(even[:, 1:], (torch.asinh(missed) / 2).expand(-1, even.shape[1] - 1), rtol=0.01, atol=0)
    torch.testing.assert_close(even[:, :1], torch.asinh(missed), rtol=0.02, atol=0)
    assert along.abs().max() < 0.02 and down.abs().max() < 0.02
    moved = make_inputs(stars.stars(start=(stars.flux, stars.dx - 0.01, stars.dy), iterations=0))
    even, along, down = columns(moved)
    missed = 0.01 / moved.scale[:, 1:2]
    torch.testing.assert_close(along[:, 1:], (torch.asinh(missed) / 2).expand(-1, len(WINDOWS)), rtol=0.03, atol=0)
    torch.testing.assert_close(along[:, :1], torch.asinh(missed), rtol=0.03, atol=0)
    assert down.abs().max() < 0.02 * along.abs().min() + 0.01


def test_images_of_a_star_that_is_fitted(psf):
    """Nothing is left, the star in units of the sky's noise, a Gaussian's peak, no neighbour, all pixels usable."""
    stars = DrawnStars(psf, 3e4, 10, noise=False)
    left, star, shape, others, usable = make_inputs(stars.stars()).images.unbind(1)
    margin = (stars.size - STAMP) // 2
    inner = stars.pixels[:, margin : margin + STAMP, margin : margin + STAMP]
    torch.testing.assert_close(star.double(), torch.asinh(inner / SKY**0.5) / 3, atol=1e-5, rtol=1e-4)
    assert left.abs().max() < 1e-3 and others.abs().max() == 0 and usable.min() == 1
    assert 0.7 < float(shape.amax()) < 1.2


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_mirrored_sky_gives_mirrored_inputs(psf, axis):
    """Pixels, those that are lost, light of neighbours and places: fitted after or before the mirror."""
    stars = DrawnStars(psf, 10 ** np.linspace(3.3, 6, 60), 60)
    generator = torch.Generator().manual_seed(4)
    usable = torch.rand(stars.pixels.shape, generator=generator) > 0.05
    others = 50 * torch.rand(stars.pixels.shape, generator=generator, dtype=torch.float64)
    made = make_inputs(replace(stars.stars(usable=usable), others=others))
    assert_same(made.mirrored(axis).mirrored(axis), made, atol=0)
    dim, (flux, dx, dy) = {"x": 2, "y": 1}[axis], (0.9 * stars.flux, stars.dx + 0.1, stars.dy - 0.1)
    start = (flux, -dx, dy) if axis == "x" else (flux, dx, -dy)
    other = stars.stars(usable=usable.flip(dim), pixels=stars.pixels.flip(dim), start=start)
    again = make_inputs(replace(other, others=others.flip(dim)))
    assert_same(again, made.mirrored(axis), atol=2e-3)
    assert not torch.allclose(again.context, made.context, atol=2e-3)


def test_where_photons_do_not_count_only_ratios_to_the_noise_do(psf):
    """All electrons ten times as many, the noise too: the image, the units and all numbers but one are the same."""
    one, ten = (DrawnStars(psf, factor * 1e7, 20, sky=(factor * 1e5) ** 2) for factor in (1, 10))
    first, second = (make_inputs(each.stars()) for each in (one, ten))
    torch.testing.assert_close(first.images, second.images, atol=5e-3, rtol=0)
    torch.testing.assert_close(first.scale, second.scale, rtol=2e-3, atol=0)
    rest = [index for index in range(first.context.shape[1]) if index != 2]
    torch.testing.assert_close(first.context[:, rest], second.context[:, rest], atol=2e-2, rtol=0)
    torch.testing.assert_close(second.context[:, 2] - first.context[:, 2], torch.full((20,), np.log(10) / 2).float())


@pytest.mark.parametrize("flux", [10.0, 1e9])
@pytest.mark.parametrize("share", [0.0, 0.003, 0.5, 1.0])
def test_inputs_of_hopeless_stars_are_finite(psf, flux, share):
    """Ten electrons or a thousand million, and no usable pixel, one, half of them or all."""
    stars = DrawnStars(psf, flux, 30)
    generator = torch.Generator().manual_seed(4)
    made = make_inputs(stars.stars(usable=torch.rand(stars.pixels.shape, generator=generator) < share))
    assert all(torch.isfinite(values).all() for values in vars(made).values())
    assert made.images.abs().max() <= inputs.SHAPE and made.context.abs().max() <= inputs.SHAPE
    assert (made.scale > 0).all() and (share or (made.scale == 0.5).all())


def test_bare_pixels_are_the_pixels_and_nothing_else(rng):
    """In a fixed unit of 17 electrons, about one constant in magnitudes: that of ln(flux/17) = 8."""
    pixels = rng.normal(0, 500, (4, 9, 9))
    made = bare_inputs(torch.from_numpy(pixels))
    np.testing.assert_allclose(made.images[:, 0], np.arcsinh(pixels / 17) / 3, rtol=1e-5)
    assert made.context.shape == (4, 0)
    np.testing.assert_allclose(made.base, [[-2.5 * np.log10(17 * np.exp(8)), 0, 0]] * 4)
    assert (made.scale == 1).all()


def test_rows_are_chosen_and_joined(psf):
    made = make_inputs(DrawnStars(psf, 3e4, 6).stars())
    assert len(made) == 6 and len(made[2:4]) == 2
    assert_same(inputs.Inputs.join([made[:2], made[2:]]), made, atol=0)
