"""PSFs of no family: their light, their centre, how many kinds of them there are, and what is estimated of them."""

import numpy as np
import pytest
import torch

from pnet.sky import psf_estimate
from pnet.sky.frame_psf import STAMP, FramePSF
from pnet.sky.psf_fit import fit
from pnet.sky.stamps import gaussian_moments
from pnet.training import psfs

FWHM = 3.5  # px
GRID = torch.linspace(-0.4, 0.4, 5).double()


def drawn(seeds, family=0.0):
    return [psfs.draw(np.random.default_rng(seed), FWHM, family) for seed in seeds]


@pytest.fixture(scope="module")
def foreign():
    return drawn(range(12))


def stamps(true, u=0.0, v=0.0, size=STAMP):
    """Stars on a grid of places in the pixel, at one place of the frame."""
    dy, dx = (grid.reshape(-1) for grid in torch.meshgrid(GRID, GRID, indexing="ij"))
    where = (torch.full_like(dx, value) for value in (u, v))
    return true.stamps(*where, dx, dy, size).double(), dx, dy


def test_a_stamp_holds_the_light_of_the_atmosphere(foreign):
    for true in foreign:
        at = torch.zeros(1, dtype=torch.float64)
        expected = FramePSF.unknown(true.width, psfs.SHAPE).drawn(at, at, STAMP)[0].sum()
        for place in ((0, 0), (-1, 1), (1, 0.3)):
            assert float(stamps(true, *place)[0].sum(dim=(1, 2)).mean()) == pytest.approx(float(expected), rel=2e-3)


def test_stars_lie_where_they_are_said_to(foreign):
    """By their windowed centroid, at either end of the PSF's change over the frame and between."""
    for true in foreign:
        for place in ((0, 0), (-1, 1), (1, -1)):
            light, dx, dy = stamps(true, *place)
            x, y = gaussian_moments(light, dx, dy, torch.full_like(dx, 1.3 * true.width), scale=1.3, iterations=20)
            assert max(float((x - dx).abs().max()), float((y - dy).abs().max())) < 0.01
            assert abs(float((x - dx).mean())) < 3e-3 and abs(float((y - dy).mean())) < 3e-3


def misfit(true):
    """Return how much of a star the fit of the atmosphere leaves, in units of its light."""
    light, dx, dy = stamps(true, size=23)
    psf, at = FramePSF.unknown(true.width, psfs.SHAPE), torch.full_like(dx, 500)
    found = fit(psf, 1e6 * light, at, at, (torch.full_like(dx, 1e6), dx, dy), 300.0)
    return float(found.residual.square().sum(dim=(1, 2)).sqrt().mean() / 1e6)


def test_psfs_are_wider_spread_than_the_family(foreign):
    own, others = ([misfit(true) for true in some] for some in (drawn(range(6), family=1.0), foreign))
    assert max(own) < 0.005 and np.median(others) > 3 * max(own) and max(others) > 10 * max(own)


def test_a_map_is_that_of_the_kolmogorov_atmosphere():
    """Without all else its FWHM is what was asked for, but for the pixel."""
    true = drawn([3], family=1.0)[0]
    table = true.tables[0][0, 0].numpy()
    middle = table[table.shape[0] // 2]
    above = np.flatnonzero(middle > middle.max() / 2)
    pixel = np.hypot(FWHM, 2.355 * np.sqrt(1 / 12))
    assert len(above) / psfs.OVERSAMPLING == pytest.approx(pixel, rel=0.04)


def test_the_same_seed_draws_the_same_psfs():
    (one, first), (other, second) = (psfs.many(4, 1, (3.0, 4.0), 1)[0] for _ in range(2))
    psfs.many.cache_clear()
    again, third = psfs.many(4, 1, (3.0, 4.0), 1)[0]
    assert one is other and one is not again
    for a, b in zip(one.tables, again.tables, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first[0].coefficients, third[0].coefficients)
    psfs.many.cache_clear()
    assert not torch.equal(psfs.many(5, 1, (3.0, 4.0), 0)[0][0].tables[0], again.tables[0])


def test_more_stars_give_better_estimates(foreign, monkeypatch):
    """The rms of the PSF's error in units of its peak: the more stars, the less, and always less than the family's."""
    errors = {0: [], 5: [], 60: []}
    for n, found in errors.items():
        monkeypatch.setattr(psfs, "STARS", (max(n, 1), max(n, 1) + 1e-9))
        for index, true in enumerate(foreign[:6]):
            psf = psfs.estimated(true, np.random.default_rng(index), psfs.NOISE)
            assert psf.stars == (n if n >= psf_estimate.LEAST else 0)
            light, dx, dy = stamps(true, 0.2, 0.2, 23)
            at = psfs.places(torch.full_like(dx, 0.2), torch.full_like(dy, 0.2))
            found.append(float((psf.drawn(*at, 23, at=(dx, dy))[0] - light).square().mean().sqrt() / light.amax()))
    none, few, many = (np.median(found) for found in errors.values())
    assert many < 0.8 * few < 0.5 * none
