"""The sky: unbiased on whole ADU, blind to masked pixels, alive where there is no noise."""

import numpy as np
import pytest
from pixel_psf import frame_of, pixel_psf

from pnet.sky import background


def test_whole_adu_do_not_bias_the_sky(rng):
    """Poisson sky in steps of 4 electrons: within a fifth of the noise everywhere, where medians jump by 4."""
    for level in (278.0, 279.3, 281.1):
        image = np.round((rng.poisson(level, (512, 512)) + rng.normal(0, 5, (512, 512))) / 4.0) * 4.0
        sky = background.estimate(frame_of(image))
        np.testing.assert_array_equal(sky.level, background.estimate(frame_of(image)).level)
        assert abs(sky.level - level).max() < 3.5
        assert abs(np.median(sky.level) - level) < 1.0
        assert sky.rms == pytest.approx(np.sqrt(level + 25 + 16 / 6), rel=0.02)


def test_masked_pixels_and_stars_do_not_raise_the_sky(rng):
    image = rng.normal(280, 17, (256, 256))
    mask = np.zeros(image.shape, bool)
    image[40:80, 40:80], mask[40:80, 40:80] = 5e4, True
    image[150:156, 150:156] += 3000
    assert abs(np.median(background.estimate(frame_of(image, mask)).level) - 280) < 1.5


def test_a_frame_without_noise_has_a_positive_rms():
    assert background.estimate(frame_of(np.full((64, 64), 100.0), gain=1e-3)).rms > 0


def test_masked_patches_take_the_value_around_them(rng):
    image = rng.normal(280, 17, (128, 128))
    image[60:70, 60:70] = 280 + 5e4  # a saturated star whose core is masked and holds nonsense
    mask = np.zeros(image.shape, bool)
    mask[62:68, 62:68], mask[20:23, 20:23] = True, True
    image[mask] = -1e6
    frame = frame_of(image, mask)
    clean, rms, _ = background.subtracted(frame)
    assert clean[65, 65] == pytest.approx(5e4, rel=0.01) and abs(clean[21, 21]) < 20
    assert rms == pytest.approx(17, rel=0.1)
    np.testing.assert_array_equal(frame.image[mask], np.float32(-1e6))


def test_interpolated_pixels_keep_their_value(rng):
    """A star on a bad column that the survey has interpolated keeps all of its light; without the note it loses a
    column."""
    psf, mask = pixel_psf(1.4, size=41), np.zeros((120, 120), bool)
    image = rng.normal(280, 1, mask.shape)
    image[40:81, 40:81] += 1e5 * psf
    mask[:, 60] = True
    light = {
        name: background.subtracted(frame_of(image, mask, interpolated=known))[0][50:71, 50:71].sum()
        for name, known in (("kept", mask), ("filled", None))
    }
    assert light["kept"] == pytest.approx(1e5 * psf[10:31, 10:31].sum(), rel=0.01)
    assert light["filled"] < 0.9 * light["kept"]


def test_the_skew_of_photons_does_not_bias_the_sky(rng):
    """The mean of eight frames to a twentieth of an electron, where the mode alone lies 0.4 below."""
    images = (rng.poisson(280.0, (512, 512)) + rng.normal(0, 5, (512, 512)) for _ in range(8))
    found = [background.estimate(frame_of(image, gain=0.1)).level.mean() for image in images]
    assert np.mean(found) == pytest.approx(280.0, abs=0.06)
