"""The frame's own PSF against PSFs of other makers, and the fit of stars against the Cramér-Rao limit."""

import galsim
import numpy as np
import pandas as pd
import pytest
import torch
from pixel_psf import drawn

from pnet.sky import background, limits, psf_fit
from pnet.sky.frame_psf import FramePSF, seeing_of
from pnet.sky.psf import Aureole, Optics
from pnet.sky.render import psf_table, sample_psf
from pnet.sky.stamps import gaussian_width

SKY, SIZE = 300.0, 512  # electrons a pixel, px


def stars(count: int, seed: int) -> pd.DataFrame:
    """Return stars on a jittered grid, so that none has a neighbour, half of them bright."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(count)))
    grid = np.stack(np.meshgrid(*[np.linspace(35, SIZE - 36, side)] * 2), -1).reshape(-1, 2)[:count]
    x, y = (grid + rng.uniform(-3, 3, grid.shape)).T
    flux = np.where(np.arange(count) % 2, 10 ** rng.uniform(5, 6, count), 10 ** rng.uniform(3.6, 4.4, count))
    return pd.DataFrame({"x": x, "y": y, "flux": flux, "fwhm": 3.3})


def first_guess(truth: pd.DataFrame, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    moved = {axis: truth[axis] + rng.normal(0, 0.1, len(truth)) for axis in ("x", "y")}
    return truth.assign(**moved, flux=truth["flux"] * rng.normal(1, 0.03, len(truth)))


def test_without_stars_the_psf_is_that_of_the_renderer():
    psf = FramePSF.unknown(1.6, (100, 100))
    at, below = torch.tensor([50.3], dtype=torch.float64), torch.tensor([49.8], dtype=torch.float64)
    offsets = torch.tensor([0.3]), torch.tensor([-0.2])
    expected = sample_psf(psf_table(seeing_of(1.6), 0.396, Optics(), Aureole(), "cpu", 41), *offsets, 41)
    found = psf.drawn(at, below, 41)[0].float()
    assert torch.allclose(found, expected, atol=2e-5 * float(expected.max()))
    assert float(gaussian_width(found, *offsets)) == pytest.approx(1.6, rel=0.02)


def test_slopes_are_those_of_a_shifted_star():
    psf, at = FramePSF.unknown(1.6, (100, 100)), torch.tensor([50.1], dtype=torch.float64)
    share, along, down = psf.drawn(at, at, 21)[:, 0]
    for axis, slope in enumerate((along, down)):
        low, high = (
            psf.drawn(at, at, 21, at=tuple(torch.tensor([0.1 + (h if k == axis else 0)]) for k in (0, 1)))[0, 0]
            for h in (-0.02, 0.02)
        )
        assert torch.allclose((high - low) / 0.04, slope, atol=5e-3 * float(slope.abs().max()))


PROFILES = {
    "Moffat": galsim.Moffat(beta=3.0, fwhm=1.3),
    "elliptical": galsim.Kolmogorov(fwhm=1.2).shear(g1=0.05, g2=-0.03),
    "comatic": galsim.Convolve(
        galsim.Kolmogorov(fwhm=1.1), galsim.OpticalPSF(lam=477, diam=2.5, obscuration=0.47, coma1=0.12, defocus=0.15)
    ),
    "two Gaussians": galsim.Gaussian(sigma=0.45, flux=0.85) + galsim.Gaussian(sigma=1.2, flux=0.15),
}


@pytest.mark.parametrize("name", PROFILES)
def test_stars_of_foreign_psfs_are_measured_to_their_error_bars(name):
    """No family of ours made these stars: bright and faint ones keep their ratio, and errors what they say."""
    truth = stars(100, seed=3)
    profile = galsim.Convolve(PROFILES[name], galsim.Pixel(0.396)).dilate(1 / 0.396)
    frame = drawn(profile, truth)
    psf, found = psf_fit.of_frame(frame, first_guess(truth, seed=5), background.subtracted(frame))
    assert psf.stars > 30
    error = np.hypot(found["flux_err"], found["flux_psf"]) / found["flux"]
    ratio = np.log(found["flux"] / truth["flux"])
    bright = truth["flux"] > 1e5
    common = np.median(ratio[bright])  # what a PSF of unknown wings counts as the whole of a star
    assert abs(common) < 0.05
    assert abs(np.median(ratio[~bright]) - common) < 0.006
    pull = (ratio - common) / error
    assert 0.5 < np.std(pull[bright]) < 1.3 and 0.75 < np.std(pull[~bright]) < 1.3
    for axis in ("x", "y"):
        delta = found[axis] - truth[axis]
        pull = (delta - np.median(delta[bright])) / np.hypot(found[f"{axis}_err"], found[f"{axis}_psf"])
        assert 0.75 < np.std(pull) < 1.3


def test_errors_of_faint_stars_are_the_cramer_rao_limit():
    truth = stars(36, seed=1)
    faint = truth.assign(flux=3000.0)
    frame = drawn(galsim.Convolve(PROFILES["Moffat"], galsim.Pixel(0.396)).dilate(1 / 0.396), truth)
    psf = FramePSF.unknown(1.6, frame.shape)
    image = torch.from_numpy(frame.image - np.float32(SKY))[None]
    found = psf_fit.fit_all(psf, image, faint, np.sqrt(SKY))
    light = limits.simulated(seeing_of(1.6), 0.396)
    limit = limits.bound(light, *(found[c].to_numpy() for c in ("x", "y", "flux")), SKY, 0.0)
    for name in ("x", "y", "flux"):
        weak = found["flux"] < 2e4
        assert (found[f"{name}_err"] / limit[f"limit_{name}"])[weak].between(0.97, 1.06).all()


def test_galaxies_and_pairs_do_not_shape_the_psf():
    truth = stars(81, seed=7).assign(flux=3e5)
    profile = galsim.Convolve(PROFILES["Moffat"], galsim.Pixel(0.396)).dilate(1 / 0.396)
    frame = drawn(profile, truth)
    galaxies = truth.iloc[::4]
    wide = drawn(profile.dilate(1.5), galaxies, sky=0.0)
    frame.image += wide.image
    guess = first_guess(truth, seed=2)
    x, y, flux = (torch.tensor(guess[c].to_numpy()) for c in ("x", "y", "flux"))
    image, rms = background.subtracted(frame)
    chosen, width = psf_fit.candidates(torch.from_numpy(image)[None], x, y, flux, rms, np.inf)
    assert not set(chosen.tolist()) & set(galaxies.index)
    assert len(chosen) > 50


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_frame_without_enough_stars_keeps_the_prior(count):
    truth = stars(9, seed=3).iloc[:count]
    frame = drawn(galsim.Gaussian(sigma=1.5), truth)
    psf, found = psf_fit.of_frame(frame, truth, background.subtracted(frame))
    assert psf.stars == 0 and len(found) == count
    assert np.isfinite(found.to_numpy()).all()
