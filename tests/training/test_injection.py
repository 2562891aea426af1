"""Stars injected into frames: their light, what is masked, and the targets that follow."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from emulated_device import Emulated, emulated
from pixel_psf import pixel_psf, width_of

from pnet.common.errors import MissingError
from pnet.detection.network import STRIDE
from pnet.detection.targets import make_targets
from pnet.frame import Frame
from pnet.simulation.recipe import Recipe
from pnet.sky.stamps import aperture_flux
from pnet.training import injection, real_sky
from pnet.training.fields import add_stars

SEEING, SIZE, SKY, GAIN, READ = 1.3, 400, 300.0, 4.0, 5.0
ZERO_POINT = 30.0
GALAXY, DOUBTFUL = (300.0, 90.0), (60.0, 330.0)
STARS = [(80.0, 80.0), (200.3, 70.6), (120.7, 200.2), (330.4, 210.1), (220.0, 320.5), (340.0, 340.0), (60.2, 240.9)]
FLUX = 10 ** (0.4 * (ZERO_POINT - 17.0))


@pytest.fixture(scope="module")
def recipe():
    return Recipe.load()


@pytest.fixture(scope="module")
def frame():
    """Sky with seven stars of 17 mag, a round galaxy of 17.5 mag and a source of 20.9 mag."""
    rng = np.random.default_rng(5)
    light = torch.zeros(1, SIZE, SIZE)
    x, y = np.transpose([*STARS, DOUBTFUL])
    mag = np.append(np.full(len(STARS), 17.0), 20.9)
    stars = pd.DataFrame({"field": 0, "x": x, "y": y, "flux": 10 ** (0.4 * (ZERO_POINT - mag))})
    add_stars(light, stars, [SEEING], Recipe.load())
    expected = light[0].numpy().astype(float) + SKY
    axis = np.arange(SIZE)
    radius = np.hypot(axis - GALAXY[0], axis[:, None] - GALAXY[1])
    profile = np.exp(-radius / 3.0)
    expected += 10 ** (0.4 * (ZERO_POINT - 17.5)) * profile / profile.sum()
    image = rng.poisson(expected) + rng.normal(0, READ, expected.shape)
    mask = np.zeros(image.shape, bool)
    mask[250:254, 100:140] = True
    return Frame("sky", image, expected + READ**2, mask, GAIN, ZERO_POINT, READ, 0.396)


@pytest.fixture(scope="module")
def sky(frame, recipe):
    return real_sky.prepare(frame, recipe)


@pytest.fixture(scope="module")
def source(sky, recipe):
    return injection.InjectedFields([sky], recipe, batch_size=6, size=256)


def test_the_frames_psf_is_measured(sky):
    assert sky.seeing == pytest.approx(SEEING, rel=0.01)
    assert sky.sigma == pytest.approx(np.sqrt(SKY + READ**2), rel=0.02)
    assert sky.sky == pytest.approx(SKY, rel=0.02)


@pytest.mark.parametrize("seeing", [0.83, 1.2, 1.77])
def test_seeing_follows_from_the_width(recipe, seeing):
    width = width_of(seeing, aureole=None)
    assert real_sky.seeing_of_width(width, 0.396, recipe) == pytest.approx(seeing, abs=0.01)


def test_an_extended_source_is_a_negative_and_stars_are_ignored(sky):
    def distance(position):
        return np.hypot(*(sky.ignored - np.float32(position)).T).min()

    assert all(distance(position) < 1 for position in [*STARS, DOUBTFUL])
    assert distance(GALAXY) > 12
    assert distance((110, 252)) < real_sky.BLOCK  # the masked pixels


def test_contamination_is_the_light_of_real_sources(sky):
    x, y = STARS[2]
    inside = sky.contamination[round(y), round(x)]
    assert 0.5 * FLUX < inside < 1.05 * FLUX
    assert sky.contamination[20, 360] == 0
    assert np.isinf(sky.contamination[251, 120])


class Grid(injection.InjectedFields):
    """Stars of 16.5–19.5 mag, 50 px apart: nobody's light is in another's aperture."""

    def _stars(self, index, sky, rng):
        axis = np.arange(4) * 50.0 + 40
        x, y = (grid.ravel() + rng.uniform(-2, 2, 16) for grid in np.meshgrid(axis, axis))
        flux = 10 ** (0.4 * (ZERO_POINT - rng.uniform(16.5, 19.5, 16)))
        return pd.DataFrame({"field": index, "x": x, "y": y, "flux": flux})


def test_injected_flux_is_recovered_to_the_noise(sky, recipe):
    batch = Grid([sky], recipe, batch_size=8, size=256).batch(4, torch.device("cpu"))
    added = batch.flux > 1.5
    clean = added & ~batch.ignored
    assert 0.6 * added.sum() < clean.sum() < added.sum()  # real stars spoil some
    for index in np.flatnonzero(clean.numpy()):  # ... and so do real ones a few pixels away
        real = (batch.field == batch.field[index]) & ~added
        clean[index] = torch.hypot(batch.x[real] - batch.x[index], batch.y[real] - batch.y[index]).amin() >= 25
    measured = aperture_flux(batch.image, batch.field[clean], batch.x[clean], batch.y[clean], 8.0)
    sigma, flux = batch.sigma[batch.field[clean]], batch.flux[clean]
    share = torch.tensor([psf_share(float(x), float(y)) for x, y in zip(batch.x[clean], batch.y[clean], strict=True)])
    area = np.pi * 8**2
    # photons of star and sky, and the sky's level, off by 3 % of the noise
    error = torch.sqrt(flux + area * sigma**2 + (area * 0.03 * sigma) ** 2)
    pull = ((measured - share * flux) / error).numpy()
    on_galaxy = pull > 6  # the galaxy's own light, which training does not ignore far out
    assert on_galaxy.sum() <= 2
    pull = pull[~on_galaxy]
    assert len(pull) > 50
    assert abs(pull.mean()) < 0.5
    assert 0.8 < pull.std() < 1.3


def psf_share(x, y):
    """Return the light of a star in the soft aperture of 8 px."""
    dx, dy = x - np.floor(x + 0.5), y - np.floor(y + 0.5)
    psf = torch.from_numpy(pixel_psf(SEEING, 0.396, dx, dy, 61).astype(np.float32))[None]
    centre = torch.tensor([30.0])
    return float(aperture_flux(psf, torch.zeros(1, dtype=torch.long), centre + dx, centre + dy, 8.0))


def test_targets_have_stars_where_they_were_added(source):
    batch = source.batch(3, torch.device("cpu"))
    targets = make_targets(batch, 1)
    used = ~batch.ignored
    assert used.sum() > 10
    row, column = (((value + 0.5) / STRIDE).long() for value in (batch.y[used], batch.x[used]))
    assert (targets.heatmap[batch.field[used], 0, row, column] == 1).all()
    assert (targets.weight[batch.field[used], 0, row, column] == 1).all()
    share = targets.weight.mean(dim=(1, 2, 3))
    assert ((share > 0.5) & (share < 1)).all()


def test_real_stars_keep_weight_zero_and_the_galaxy_one(sky, recipe):
    whole = injection.InjectedFields([sky], recipe, batch_size=4, size=SIZE)
    batch = whole.batch(1, torch.device("cpu"))
    targets = make_targets(batch, 1)
    # Where a bright pixel was there before and no star was added, only the galaxy may be trained on.
    for index in range(4):
        own = (batch.field == index) & ~batch.ignored
        for y, x in (batch.image[index] > 40 * batch.sigma[index]).nonzero().tolist():
            if torch.hypot(batch.x[own] - x, batch.y[own] - y).min() < 25:
                continue
            mirrored = itertools.product(*((place, SIZE - 1 - place) for place in GALAXY))
            on_galaxy = any(np.hypot(u - x, v - y) < 8 for u, v in mirrored)
            trained = bool(targets.weight[index, 0, y // STRIDE, x // STRIDE])
            assert trained == on_galaxy, (x, y)


def test_stars_on_real_ones_are_ignored(sky, recipe):
    spoilt = replace(sky, contamination=np.full_like(sky.contamination, np.inf))
    batch = injection.InjectedFields([spoilt], recipe, 2, 256).batch(2, torch.device("cpu"))
    assert (batch.flux > 1.5).any() and batch.ignored.all()


def test_same_seed_same_batch(source):
    first, second = (source.batch(9, torch.device("cpu")) for _ in range(2))
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in vars(first))
    assert not torch.equal(first.image, source.batch(10, torch.device("cpu")).image)


def test_a_batch_is_made_on_the_device_that_is_asked_for(source):
    with emulated() as device:
        batch = source.batch(9, device)
    for name, value in vars(source.batch(9, torch.device("cpu"))).items():
        assert isinstance(getattr(batch, name), Emulated)
        torch.testing.assert_close(getattr(batch, name).held, value)


def test_saturated_stars_bleed_and_masked_ones_are_filled(sky, recipe):
    source = injection.InjectedFields([sky], recipe, batch_size=8, size=64)
    image, light = torch.zeros(2, 8, 64, 64)
    light[:, 32, 32] = 3e6
    result = source._expose(image, light, [sky] * 8, np.random.default_rng(0), 1) + sky.sky
    full = sky.full_well
    peaks = result.amax(dim=(1, 2))
    assert ((peaks < 0.2 * full) | ((peaks > 0.99 * full) & (peaks < 1.01 * full))).all()
    clipped = result[peaks > 0.9 * full][0]
    assert (clipped[:, 32] > 0.99 * full).sum() >= 9  # three million electrons fill about twelve pixels
    assert len(set((peaks > 0.9 * full).tolist())) == 2  # some are filled, some are not


def test_missing_frames_name_the_command(tmp_path, monkeypatch):
    (tmp_path / "sas" / "dr17").mkdir(parents=True)
    monkeypatch.setenv("SDSS_MIRROR", str(tmp_path / "sas"))
    monkeypatch.setenv("PNET_DATA", str(tmp_path / "data"))
    with pytest.raises(MissingError, match="pnet sdss-download"):
        injection.fields("sdss-standard", 2)


def test_halo_and_spikes_of_a_bright_star_are_empty_sky(frame, recipe):
    light = torch.zeros(1, SIZE, SIZE)
    star = {"field": 0, "x": [200.0], "y": [150.0], "flux": [10 ** (0.4 * (ZERO_POINT - 13.5))]}
    add_stars(light, pd.DataFrame(star), [SEEING], recipe)
    spiked = light[0].numpy()
    reach = np.arange(8, 45)
    for up, right in itertools.product((1, -1), repeat=2):
        spiked[150 + up * reach, 200 + right * reach] += 400 * np.exp(-reach / 20)
    sky = real_sky.prepare(replace(frame, image=frame.image + spiked), recipe)
    points = sky.ignored[np.hypot(*(sky.ignored - np.float32([200, 150])).T) < 60]
    assert np.hypot(*(points - np.float32([200, 150])).T).min() < 1
    tip = np.hypot(*(points - np.float32([225, 175])).T)
    assert tip.min() > real_sky.BLOCK
    assert sky.contamination[175, 225] > 500  # ... where an added star would be spoilt
