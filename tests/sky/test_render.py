"""PSF and renderer against analytic truth, GalSim, and SkyMaker's own files."""

import numpy as np
import pytest
import torch
from astropy.io import fits
from pixel_psf import pixel_psf
from scipy.ndimage import uniform_filter

from pnet.common.errors import ConfigError
from pnet.sky import psf, render


def test_psf_without_atmosphere_limits_agrees_with_galsim():
    """An independent implementation of the same physics, without spider arms, whose wide wings GalSim cuts."""
    galsim = pytest.importorskip("galsim")
    optics = psf.Optics(arms=0)
    ours = psf.psf_map(1.4, 0.396, optics)
    telescope = galsim.OpticalPSF(lam=477, diam=2.5, obscuration=1.17 / 2.5)
    model = galsim.Convolve(galsim.Kolmogorov(fwhm=1.4), telescope, galsim.Pixel(0.396))
    n = psf.FIELD * psf.OVERSAMPLING
    half = 60
    theirs = model.drawImage(nx=2 * half + 1, ny=2 * half + 1, scale=0.396 / 8, method="no_pixel").array * 64
    cut = ours[n // 2 - half : n // 2 + half + 1, n // 2 - half : n // 2 + half + 1]
    assert np.abs(cut - theirs).max() < 0.005 * cut.max()


def test_psf_pixels_sum_to_one_at_every_phase():
    table = psf.psf_map(1.2)
    for phase in (0, 3, 5):
        assert table[phase :: psf.OVERSAMPLING, phase :: psf.OVERSAMPLING].sum() == pytest.approx(1, abs=1e-4)


def test_aureole_takes_its_light_from_the_star():
    aureole = psf.Aureole()
    kernel = aureole.kernel()
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    assert kernel[200, 200] == pytest.approx(1 - 0.05096, abs=1e-4)  # 5.1 % for 16 mag/arcsec² at 1', 200 px
    assert kernel[200, 260] == pytest.approx(3600 * 10**-6.4 / 60**2, rel=1e-9)  # r^-2
    core, with_aureole = pixel_psf(1.4, size=9, aureole=None), pixel_psf(1.4, size=9)
    assert with_aureole.sum() < core.sum()
    total = pixel_psf(1.4, size=177).sum()
    assert 0.98 < total < 1


def test_scatter_conserves_light_and_agrees_with_direct_convolution():
    image = torch.zeros(1, 450, 450)
    image[0, 225, 220] = 1000.0
    aureole = psf.Aureole()
    scattered = render.scatter(image, aureole)
    assert float(scattered.sum()) == pytest.approx(1000, rel=1e-4)
    np.testing.assert_allclose(scattered[0, 25:426, 20:421], 1000 * aureole.kernel(), atol=2e-4)


@pytest.mark.parametrize("bad", [{"seeing": 0.0}, {"seeing": 1.0, "pixel_scale": -1.0}])
def test_psf_refuses_nonsense(bad):
    with pytest.raises(ConfigError, match="must be positive"):
        psf.psf_map(**bad)


def test_rendered_star_is_the_psf_at_its_place():
    """Positions and fluxes to far below the Cramér-Rao limit of the brightest star (0.0007 px, 0.0005 mag)."""
    x, y, flux = 100.37, 99.81, 1e6
    image = torch.zeros(1, 201, 201)
    star = {name: torch.tensor([value]) for name, value in {"field": 0, "x": x, "y": y, "flux": flux}.items()}
    render.add_stars(image, [1.3], **star)
    stamp = pixel_psf(1.3, 0.396, x - 100, y - 100, 49, None) * flux
    np.testing.assert_allclose(image[0, 76:125, 76:125], stamp, atol=2e-5 * stamp.max())
    rows, columns = np.indices((201, 201))
    light = image[0].double().numpy()
    assert (light * columns).sum() / light.sum() == pytest.approx(x, abs=1e-3)
    assert (light * rows).sum() / light.sum() == pytest.approx(y, abs=1e-3)
    assert light.sum() == pytest.approx(flux, rel=3e-3)  # what lies beyond 77 px is missing


def test_stars_at_and_beyond_the_border_are_cut():
    image = torch.zeros(1, 64, 64)
    where = torch.tensor([-3.0, 63.4, 30.0, 200.0])
    stars = {"field": torch.zeros(4, dtype=torch.long), "flux": torch.full((4,), 1e5)}
    render.add_stars(image, [1.4], x=where, y=where.flip(0), **stars)
    assert torch.isfinite(image).all() and image.min() > -1


def test_bleeding_runs_both_ways_along_the_column():
    """By hand: 800 e- too much in one pixel, room of 100 in each neighbour; nothing is lost, other columns stay."""
    electrons = torch.full((1, 11, 3), 900.0, dtype=torch.float64)
    electrons[0, 5, 1] = 1800.0
    after = render.bleed(electrons.clone(), torch.tensor([1000.0]))[0]
    assert (after[:, [0, 2]] == 900).all() and after.sum() == electrons.sum()
    assert after[:, 1].tolist() == [900, *[1000] * 9, 900]


def test_read_out_has_the_stated_noise_and_levels():
    camera = {"gain": [4.0], "read_noise": [5.0], "well_capacity": [3e5]}
    camera = {name: torch.tensor(value) for name, value in camera.items()}
    adu = render.read_out(torch.full((1, 400, 400), 280.0), generator=torch.Generator().manual_seed(1), **camera)
    electrons = adu.double() * 4
    assert float(electrons.mean()) == pytest.approx(280, abs=0.2)
    assert float(electrons.var()) == pytest.approx(280 + 25 + 16 / 12, rel=0.01)
    assert torch.equal(adu, adu.round())
    assert float(render.read_out(torch.full((1, 4, 4), 5e5), **camera).max()) == 65535


def test_psf_agrees_with_skymakers_own(shared):
    """SkyMaker's PSF file before the pixel's integration, box-summed to pixels: 0.02 % of the peak everywhere."""
    for seeing in (1.0, 1.4, 1.8):
        samples = fits.getdata(shared / f"skymaker/psf/psf-fwhm{seeing:.1f}.fits").astype(float)
        theirs, ours = uniform_filter(samples, 11) * 121, psf.psf_map(seeing)[::8, ::8]
        centre, middle = theirs.shape[0] // 2, psf.FIELD // 2
        theirs = theirs[centre - 165 : centre + 166 : 11, centre - 165 : centre + 166 : 11]
        ours = ours[middle - 15 : middle + 16, middle - 15 : middle + 16]
        assert np.abs(theirs - ours).max() < 2e-4 * ours.max()
