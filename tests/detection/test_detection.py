"""The Photometry-Detection Net: shapes, targets, losses, decoding, and that it learns."""

import numpy as np
import pytest
import torch

from pnet.common.errors import ConfigError, DataError
from pnet.common.seeds import derive
from pnet.detection import losses, network, predict, targets
from pnet.simulation.recipe import Recipe
from pnet.sky import render
from pnet.training import fields
from pnet.training.fields import FrameFields, RenderedFields
from pnet.training.sets import TrainingSet


def batch_of(x, y, flux, size=128, ignored=None):
    """A noiseless field of stars on a sky of noise 17 e-."""
    n = len(x)
    image = torch.zeros(1, size, size)
    x, y = (torch.tensor(at, dtype=torch.float64) for at in (x, y))
    stars = {"field": torch.zeros(n, dtype=torch.long), "x": x, "y": y, "flux": torch.tensor(flux, dtype=torch.float32)}
    render.add_stars(image, [1.4], **stars)
    return targets.Batch(
        image=image, sigma=torch.tensor([17.0]), fwhm=torch.tensor([3.6]), **stars | {"x": x.float(), "y": y.float()},
        ignored=torch.zeros(n, dtype=torch.bool) if ignored is None else torch.tensor(ignored),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["compact", "tiny"])
def test_output_shapes_and_intermediate_supervision(name):
    model = network.PhotometryDetectionNet(network.CONFIGS[name])
    x = torch.zeros(2, 2, 128, 192)
    model.train()
    outputs = model(x)
    assert len(outputs) == model.config.stacks
    for part, channels in network.HEAD_CHANNELS.items():
        assert outputs[-1][part].shape == (2, channels, 32, 48)
    model.eval()
    assert len(model(x)) == 1, "only the last stack's heads are used after training"


def test_paper_configuration_has_depth_four_and_a_seven_by_seven_stem():
    with torch.device("meta"):
        model = network.PhotometryDetectionNet(network.CONFIGS["paper"])
    stem = model.downsample[0]
    assert (stem.kernel_size, stem.stride, stem.padding, stem.in_channels) == ((7, 7), (2, 2), (3, 3), 1)
    depth = 0
    inner = model.hourglasses[0]
    while isinstance(inner, network.Hourglass):
        depth, inner = depth + 1, inner.inner
    assert depth == 4 and len(model.hourglasses) >= 2


def test_sizes_that_do_not_divide_are_refused():
    model = network.PhotometryDetectionNet(network.CONFIGS["tiny"])
    with pytest.raises(ConfigError, match="multiples of 64"):
        model(torch.zeros(1, 2, 100, 128))


def test_targets_mark_cells_and_offsets():
    batch = batch_of([10.0, 61.3, 90.0], [20.0, 61.9, 90.0], [1e5, 1e5, 1e5], ignored=[False, False, True])
    made = targets.make_targets(batch, 0)
    assert (made.heatmap == 1).sum() == 2
    assert made.heatmap[0, 0, 5, 2] == 1 and made.heatmap[0, 0, 15, 15] == 1
    assert made.weight[0, 0, 22, 22] == 0, "an ignored source's cell is not trained"
    x = (made.column + made.offset[:, 0]) * network.STRIDE - 0.5
    y = (made.row + made.offset[:, 1]) * network.STRIDE - 0.5
    np.testing.assert_allclose(x, batch.x[made.star], atol=1e-5)
    np.testing.assert_allclose(y, batch.y[made.star], atol=1e-5)
    assert ((made.offset >= 0) & (made.offset < 1)).all()
    wide = targets.make_targets(batch, 1)
    assert len(wide.star) == 18


@pytest.mark.parametrize("name", ["compact", "paper"])
def test_perfect_output_has_a_small_loss_and_decodes_to_the_truth(name):
    config = network.CONFIGS[name]
    batch = batch_of([10.0, 61.3, 95.6], [20.0, 61.9, 30.2], [2e4, 1e5, 8e5])
    made = targets.make_targets(batch, 0)
    logits = torch.full(made.heatmap.shape, -12.0)
    logits[made.heatmap == 1] = 12.0
    offset, flux, size = torch.zeros(1, 2, 32, 32), torch.zeros(1, 1, 32, 32), torch.full((1, 2, 32, 32), 0.9)
    base = losses.simple_log_flux(batch.image, batch.sigma, batch.field, batch.x, batch.y)
    offset[made.field, :, made.row, made.column] = made.offset
    own = {"compact": torch.log(batch.flux / 17.0) - base, "paper": batch.flux / 17.0 / losses.LINEAR_UNIT}[name]
    flux[made.field, 0, made.row, made.column] = own[made.star]
    assert losses.focal(logits, made.heatmap, made.weight, config.focal) < 1e-3
    assert losses.focal(-logits, made.heatmap, made.weight, config.focal) > 2
    output = {"heatmap": logits, "offset": offset, "flux": flux, "size": size}
    found = predict.decode(output, batch.image, batch.sigma, config, 0.3)
    order = found["x"].argsort()
    np.testing.assert_allclose(found["x"][order], batch.x, atol=1e-4)
    np.testing.assert_allclose(found["y"][order], batch.y[batch.x.argsort()], atol=1e-4)
    np.testing.assert_allclose(found["flux"][order], batch.flux, rtol=1e-3)
    np.testing.assert_allclose(found["fwhm"], 3.6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_focal_loss_against_the_formula(kind):
    """Zhou's Eq. 1, and the paper's Eq. 19: −α_t (1 − p_t)² ln p_t with labels 1 in a star's cell and 0 elsewhere."""
    heat, logits = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.3, -0.7, -2.0])
    p = torch.sigmoid(logits).double()
    p_t, balance = torch.stack([p[0], 1 - p[1], 1 - p[2]]), {"soft": [1, 0.5**4, 1], "hard": [0.25, 0.75, 0.75]}[kind]
    expected = -(torch.tensor(balance) * (1 - p_t) ** 2 * p_t.log()).sum()
    maps = (values.reshape(1, 1, 1, 3) for values in (logits, heat, torch.ones_like(heat)))
    assert float(losses.focal(*maps, kind)) == pytest.approx(float(expected), rel=1e-5)


def test_aperture_flux_follows_the_star():
    batch = batch_of([40.0, 80.37], [40.0, 80.81], [1e5, 1e5])
    log_flux = losses.simple_log_flux(batch.image, batch.sigma, batch.field, batch.x, batch.y)
    assert float((log_flux[0] - log_flux[1]).abs()) < 2e-3, "the sub-pixel position must not matter"
    assert 0.85 < float(torch.exp(log_flux[0]) * 17 / 1e5) < 1


def test_repeats_are_dropped_keeping_the_confident_one():
    x, y = torch.tensor([10.0, 10.9, 30.0, 31.0]), torch.tensor([10.0, 10.0, 5.0, 5.0])
    field, confidence = torch.tensor([0, 0, 0, 1]), torch.tensor([0.5, 0.9, 0.6, 0.3])
    keep = predict.without_repeats(field, x, y, confidence)
    assert keep.tolist() == [False, True, True, True]


def test_repeats_are_found_exactly_far_from_the_origin():
    """Distances from products of matrices, as torch.cdist makes them of more than 25 points, are off by tenths of a
    pixel here; in TF32 stars 100 px apart would be one."""
    x = torch.arange(40) * 50.0 + 4000
    x = torch.cat([x, x + 2.05, x + 1.95])
    y, field = torch.full_like(x, 4000.3), torch.zeros(len(x), dtype=torch.long)
    confidence = torch.linspace(0.9, 0.1, len(x))
    keep = predict.without_repeats(field, x, y, confidence)
    assert keep.tolist() == [True] * 80 + [False] * 40
    assert predict.without_repeats(*(torch.zeros(0) for _ in range(4))).tolist() == []


def test_without_a_star_every_head_has_a_gradient():
    """Several devices wait for all of them."""
    empty = batch_of([], [], [])
    model = network.PhotometryDetectionNet(network.CONFIGS["tiny"])
    parts = losses.detection_loss(model, empty)
    parts["loss"].backward()
    assert parts["offset"] == parts["flux"] == parts["size"] == 0 < parts["heatmap"]
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_same_seed_gives_the_same_rendered_batch():
    source = RenderedFields(Recipe.load(), 2, 128)
    a, b, c = (source.batch(seed, torch.device("cpu")) for seed in (1, 1, 2))
    assert torch.equal(a.image, b.image) and torch.equal(a.x, b.x)
    assert not torch.equal(a.image, c.image)


@pytest.mark.parametrize("cut", [False, True])
def test_a_batch_has_its_stars_where_it_says(rendered, cut):
    recipe, size = Recipe.load(), {"batch_size": 6, "size": 128}
    source = FrameFields(TrainingSet([rendered]).prepared(), **size) if cut else RenderedFields(recipe, **size)
    batch = source.batch(9, torch.device("cpu"))
    inside = (batch.x > 5) & (batch.x < 122) & (batch.y > 5) & (batch.y < 122) & (batch.flux > 1e5) & (batch.flux < 8e5)
    x, y, field = batch.x[inside].round().long(), batch.y[inside].round().long(), batch.field[inside]
    assert inside.sum() > 1 and (batch.image[field, y, x] > 10 * batch.sigma[field]).all()


def test_frames_smaller_than_a_cut_out_are_refused(rendered):
    with pytest.raises(DataError, match=r"\(512, 512\) pixels is smaller than a cut-out of 640"):
        FrameFields(TrainingSet([rendered]).prepared(), 2, 640).batch(1, torch.device("cpu"))


def test_a_tiny_net_learns_to_find_bright_stars(monkeypatch):
    """The loss must fall and the peak of the heat map must move onto the star: the path from data to gradient is
    whole."""
    monkeypatch.setattr(fields, "FAINT", 18.0)
    monkeypatch.setattr(fields, "FAINTEST", 18.0)
    torch.manual_seed(derive(1, "weights"))
    model = network.PhotometryDetectionNet(network.CONFIGS["tiny"])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    source = RenderedFields(Recipe.load(), 4, 128)
    values = []
    for step in range(60):
        optimizer.zero_grad()
        parts = losses.detection_loss(model, source.batch(step, torch.device("cpu")))
        parts["loss"].backward()
        optimizer.step()
        values.append(float(parts["loss"].detach()))
    assert np.mean(values[-10:]) < 0.6 * np.mean(values[:10])
    model.eval()
    batch = source.batch(10_000, torch.device("cpu"))
    output = model(network.network_input(batch.image, batch.sigma, model.config.inputs))[-1]
    confidence = torch.sigmoid(output["heatmap"][:, 0].detach())
    made = targets.make_targets(batch, 0)
    bright = batch.flux[made.star] > 2e5
    on_stars = confidence[made.field[bright], made.row[bright], made.column[bright]]
    elsewhere = confidence[made.heatmap[:, 0] < 0.01]
    assert float(on_stars.median()) > 5 * float(elsewhere.median())
