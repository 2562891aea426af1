"""A frame's PSF from its stars, against PSFs that are known, and which stars it is taken from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pixel_psf import PROFILES, drawn, grid_of_stars, guessed, on_pixels
from psf_stars import SKY, DrawnStars

from pnet.sky import background, psf_estimate
from pnet.sky.frame_psf import FramePSF
from pnet.sky.psf_fit import fit_stars, places, psf_errors

WIDTH, SHAPE = 1.6, (1000, 1000)


def estimated(stars):
    psf, start = FramePSF.unknown(WIDTH, SHAPE), stars.truth
    for _ in range(psf_estimate.ROUNDS):
        psf, found = psf_estimate.refined(psf, stars.pixels, stars.x, stars.y, start, SKY)
        start = found.flux, found.dx, found.dy
    return psf


def residual(psf, stars):
    """Return the rms of what is wrong with a PSF, in units of its peak."""
    found = psf.drawn(stars.x, stars.y, stars.size, at=(stars.dx, stars.dy))[0]
    return float((found - stars.share).square().mean().sqrt() / stars.share.amax())


@pytest.fixture(scope="module")
def estimates():
    """Pulls of stars measured with estimates of PSFs that change over the frame, and residuals, by number of stars."""
    pulls, residuals = {10: [], 40: []}, []
    for seed in range(10):
        rng, unknown = np.random.default_rng(seed), FramePSF.unknown(WIDTH, SHAPE)
        prior = unknown.basis.scaled((0.3, 0.3, 1.0))
        true = replace(unknown, coefficients=prior * torch.from_numpy(rng.normal(size=prior.shape)))
        test, row = DrawnStars(true, 1e6, 30, seed, noise=False), []
        for n, found in pulls.items():
            psf = estimated(DrawnStars(true, 10 ** rng.uniform(4.7, 6, n), n, seed + 100))
            assert psf.stars == n
            measured = test.fitted(psf)
            delta = test.errors(measured) / torch.tensor([1e6, 1, 1])
            found.append(delta / psf_errors(psf, test.x, test.y, measured))
            row.append(residual(psf, test))
        residuals.append([residual(unknown, test), *row])
    return {n: torch.cat(found) for n, found in pulls.items()}, np.array(residuals)


def test_more_stars_tell_more_of_the_psf(estimates):
    _, residuals = estimates
    unknown, few, many = residuals.mean(axis=0)
    assert many < 0.8 * few and few < 0.05 * unknown


@pytest.mark.parametrize("n", [10, 40])
def test_errors_of_the_psf_cover_what_it_does_to_stars(estimates, n):
    """Noiseless stars: what is wrong with them is the PSF's. It is the model's error that makes bars somewhat wide."""
    scatter = estimates[0][n].square().mean(dim=0).sqrt()
    assert (scatter > 0.45).all() and (scatter < 1.3).all()


@pytest.mark.parametrize("name", PROFILES)
def test_residuals_of_foreign_psfs_are_smaller_than_the_familys(name):
    """PSFs of galsim: what the fit leaves of bright stars, without noise, falls to a fraction."""
    truth, profile = grid_of_stars(64, seed=3), on_pixels(PROFILES[name])
    frame, clean = drawn(profile, truth), drawn(profile, truth, noise=False)
    image, rms, _ = background.subtracted(frame)
    image, guess = torch.from_numpy(image)[None], guessed(truth, seed=5)
    chosen, width = psf_estimate.candidates(image, *places(guess), rms, np.inf, 1.5)
    first = FramePSF.unknown(width, frame.shape)
    psf = psf_estimate.estimate(first, image, guess, chosen, rms)
    stars = truth.iloc[1::2]
    light = torch.from_numpy(clean.image - np.float32(SKY))[None]
    left = [fit_stars(each, light, torch.ones_like(light), stars, rms).fit.residual.std() for each in (first, psf)]
    assert left[1] < 0.3 * left[0], left


def test_galaxies_pairs_saturated_and_cut_stars_do_not_shape_the_psf():
    truth = grid_of_stars(81, seed=7).assign(flux=3e5)
    profile = on_pixels(PROFILES["Moffat"])
    frame = drawn(profile, truth)
    galaxies, saturated, edge = truth.index[::4], [1, 41], [2]
    frame.image += drawn(profile.dilate(1.5), truth.loc[galaxies], sky=0.0).image
    truth.loc[edge, "y"] = 8.0
    pairs = [6, 7]
    truth.loc[7, ["x", "y"]] = truth.loc[6, ["x", "y"]] + 5
    for star in truth.loc[saturated].itertuples():
        frame.image[round(star.y), round(star.x)] = 1e5
    image, rms, _ = background.subtracted(frame)
    at = places(guessed(truth, seed=2))
    chosen, width = psf_estimate.candidates(torch.from_numpy(image)[None], *at, rms, 1e5, 1.5)
    assert not set(chosen.tolist()) & {*galaxies, *saturated, *edge, *pairs}
    assert len(chosen) > 45 and width == pytest.approx(1.6, abs=0.15)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_stars_leave_the_psf_as_it_was(count):
    truth = grid_of_stars(9, seed=3).iloc[:count]
    image = torch.zeros(1, 512, 512)
    chosen, width = psf_estimate.candidates(image, *places(truth), 17.0, np.inf, 1.7)
    assert width == 1.7 or count
    first = FramePSF.unknown(width, (512, 512))
    assert psf_estimate.estimate(first, image, truth, chosen, 17.0) is first
