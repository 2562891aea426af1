"""Batches of stars for training: what is fitted lies within its unit of the truth, and a mirror keeps it there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pnet.common.errors import ConfigError
from pnet.simulation.frame_file import read_frame
from pnet.simulation.recipe import Recipe
from pnet.sky import catalogue
from pnet.stars.inputs import POGSON
from pnet.training import stars
from pnet.training.stars import FrameStars, RenderedStars

CPU = torch.device("cpu")


def off(batch):
    """Return (N, 3) by how much the base is off the truth, in its units."""
    truth = torch.stack([-POGSON * batch.flux.double().log(), batch.x, batch.y], dim=1)
    return (batch.inputs.base - truth) / batch.inputs.scale


@pytest.fixture(scope="module")
def rendered_stars():
    return RenderedStars(Recipe.load(), 512, count=8)


def test_lone_stars_lie_within_their_unit(rendered_stars, monkeypatch):
    """The units count noise and the PSF's uncertainty: most are within one, and few beyond four."""
    for name in ("NEIGHBOURS", "UNKNOWN", "LOST"):
        monkeypatch.setattr(stars, name, 0.0)
    delta = off(rendered_stars.batch(3, CPU)).abs()
    assert ((delta < 1).double().mean(dim=0) > 0.5).all() and ((delta > 4).double().mean(dim=0) < 0.05).all()
    assert (delta.median(dim=0).values > 0.3).all(), "units are not too wide"


def test_neighbours_that_nobody_knows_make_stars_brighter(rendered_stars, monkeypatch):
    lone = off(rendered_stars.batch(3, CPU))[:, 0]
    monkeypatch.setattr(stars, "UNKNOWN", 1.0)
    crowded = off(rendered_stars.batch(3, CPU))[:, 0]
    assert (crowded < -4).double().mean() > 0.03 + (lone < -4).double().mean()


def test_a_batch_is_the_same_for_its_seed_and_of_any_size(rendered_stars):
    """The paper's 2,000 are no multiple of the 16 frames of a batch once a quarter is cut from frames."""
    small, large = (replace(rendered_stars, batch_size=n).batch(3, CPU) for n in (20, 32))
    assert len(small) == len(small.inputs) == 20
    assert torch.equal(small.inputs.images, large.inputs.images[:20])
    assert not torch.equal(small.flux, replace(rendered_stars, batch_size=20).batch(4, CPU).flux)


def test_bare_batches_are_pixels_of_the_recipes_sky():
    batch = RenderedStars(Recipe.load(), 64, bare=9, count=4).batch(3, CPU)
    assert batch.inputs.images.shape == (64, 1, 9, 9) and batch.inputs.context.shape == (64, 0)
    light = (17 * torch.sinh(3 * batch.inputs.images[:, 0].double())).sum(dim=(1, 2))
    alone = batch.flux > 3e4
    assert float((light / batch.flux)[alone].median()) == pytest.approx(0.9, abs=0.1)
    assert batch.x.abs().max() <= 0.5


@pytest.fixture(scope="module")
def frames(rendered):
    frame, truth = read_frame(rendered)
    rng = np.random.default_rng(5)
    truth = catalogue.mark_counted(truth, frame)
    inside = truth[truth["x"].between(0, frame.shape[1] - 1) & truth["y"].between(0, frame.shape[0] - 1)]
    found = inside[["x", "y", "flux"]].reset_index(drop=True)
    found = found.assign(confidence=0.9, fwhm=3.5)
    found[["x", "y"]] += rng.normal(0, 0.05, (len(found), 2))
    return [(frame, truth, found)]


def test_stars_of_frames_are_those_that_count_each_with_its_truth(frames):
    made, truth = FrameStars(frames, 40), frames[0][1]
    assert 0.8 * truth["counted"].sum() < len(made) <= truth["counted"].sum() and made.sources["counted"].all()
    np.testing.assert_allclose(made.truth("mag"), -2.5 * np.log10(made.sources["flux"].to_numpy()), rtol=1e-6)
    assert float(off(made.stars).abs().median()) < 2
    column = made.sources["x"].to_numpy() - made.truth("x")
    np.testing.assert_allclose(column, column.round(), atol=1e-4)


@pytest.mark.parametrize("bare", [None, 9])
def test_mirrored_draws_keep_base_and_truth_together(frames, bare):
    made = FrameStars(frames, 400, bare=bare)
    batch = made.batch(7, CPU)
    assert len(batch) == 400 and len(batch.inputs) == 400
    expected = off(made.stars).abs()
    index = (batch.flux[:, None] == made.stars.flux[None]).int().argmax(dim=1)
    torch.testing.assert_close(off(batch).abs(), expected[index], rtol=1e-3, atol=1e-3)
    signs = torch.stack([batch.x / made.stars.x[index], batch.y / made.stars.y[index]], dim=1)
    torch.testing.assert_close(signs.abs(), torch.ones_like(signs))
    assert all(0.4 < float((signs[:, axis] < 0).double().mean()) < 0.6 for axis in (0, 1))
    for axis, dim in (("x", 3), ("y", 2)):
        mirrored = made.stars.mirrored(axis)
        assert torch.equal(mirrored.inputs.images, made.stars.inputs.images.flip(dim))
        torch.testing.assert_close(off(mirrored).abs(), expected)


def test_frames_without_a_counted_star_are_refused(frames):
    frame, truth, found = frames[0]
    for wrong in ((truth.assign(counted=False), found), (truth, found.iloc[:0]), (truth.iloc[:0], found)):
        with pytest.raises(ConfigError, match="no counted star"):
            FrameStars([(frame, *wrong)], 8)
