"""The BPNN: ELBO against closed forms, Eq. 15, and that sampling is sound."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from pnet.common.errors import ConfigError
from pnet.simulation.recipe import Recipe
from pnet.stars import elbo, inputs, network, predict
from pnet.training.stars import RenderedStars


@pytest.fixture(scope="module")
def batch():
    return RenderedStars(Recipe.load(), 256, count=4).batch(11, torch.device("cpu"))


def test_kl_of_one_layer_is_the_closed_form_summed_over_all_weights():
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"])
    expected = 0.0
    for layer in model.head:
        for part in ("weight", "bias"):
            mean = getattr(layer, f"mu_{part}").detach().double()
            sigma = torch.nn.functional.softplus(getattr(layer, f"rho_{part}").detach().double())
            posterior = torch.distributions.Normal(mean, sigma)
            prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(sigma))
            expected += float(torch.distributions.kl_divergence(posterior, prior).sum())
    assert float(elbo.kl_divergence(model).detach()) == pytest.approx(expected, rel=1e-5)
    # bayesian-torch's own figure is a mean over each tensor: far smaller.
    assert sum(float(layer.kl_loss().detach()) for layer in model.head) < expected / 50


def test_likelihood_is_that_of_a_gaussian():
    output = torch.tensor([[0.3, -2.0, -0.4, 0.1], [-1.0, 1.0, 0.7, -0.3]])
    target = torch.tensor([[0.1, -1.5], [0.5, 1.2]])
    expected = -torch.distributions.Normal(output[:, :2], output[:, 2:].exp()).log_prob(target)
    torch.testing.assert_close(elbo.negative_log_likelihood(output, target), expected)


def test_elbo_weighs_the_divergence_by_the_number_of_stars(batch):
    torch.manual_seed(1)
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"])
    divergence = float(elbo.kl_divergence(model).detach())
    for n in (100, 10_000):
        parts = elbo.ELBO(n, 0.5)(model, batch)
        assert float(parts["loss"].detach()) == pytest.approx(
            float(parts["likelihood"].detach()) + 0.5 * divergence / n, rel=1e-5
        )


def test_paper_configuration_is_resnet_50_with_five_flipout_layers():
    model = network.BayesianPhotometryNet(network.CONFIGS["paper"])
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size != (1, 1)]
    bottlenecks = [m for m in model.modules() if isinstance(m, network.Bottleneck)]
    assert len(bottlenecks) == 3 + 4 + 6 + 3 and len(convolutions) == 1 + 16
    assert model.stem[0].kernel_size == (3, 3)
    assert len(model.head) == 5 and all(type(m).__name__ == "LinearFlipout" for m in model.head)
    assert not any(isinstance(m, torch.nn.MaxPool2d | torch.nn.AvgPool2d | torch.nn.Linear) for m in model.modules())


def test_likelihood_counts_every_target_in_its_own_unit(batch):
    """An output that is the truth itself, σ of one unit: the likelihood is that of a standard Gaussian at 0."""
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"])
    base, scale = model.units(batch.inputs)
    wanted = elbo.truth(batch, inputs.TARGETS, base, scale)
    exact = torch.cat([wanted, torch.zeros(len(batch), 3)], dim=1)
    each = elbo.negative_log_likelihood(exact, wanted)
    torch.testing.assert_close(each, torch.full_like(each, 0.5 * math.log(2 * math.pi)))
    measured = (base + scale * wanted).float()
    torch.testing.assert_close(measured[:, 1], batch.x, atol=1e-4, rtol=0)
    torch.testing.assert_close(measured[:, 0], -2.5 * torch.log10(batch.flux), atol=1e-3, rtol=0)


class _Known(torch.nn.Module):
    """Stands in for the network: samples whose mean and variance are known, in chunks."""

    def __init__(self, n, samples, spread):
        super().__init__()
        self.config = network.CONFIGS["tiny"]
        generator = torch.Generator().manual_seed(3)
        self.means = 1e3 + spread * torch.randn(samples, n, 3, generator=generator, dtype=torch.float64)
        self.log_sigma = torch.randn(samples, n, 3, generator=generator, dtype=torch.float64) * 0.3

    units = network.BayesianPhotometryNet.units

    def features(self, _):
        return None

    def samples(self, _, count):
        outputs = torch.cat([self.means, self.log_sigma], dim=2)
        yield from outputs[:count].split(20)


def test_equation_15(batch):
    """Aleatoric² is the mean variance, epistemic² the variance of the means; stable where the printed form is not."""
    known = _Known(len(batch), 50, 1e-3)
    result = predict.predict(known, batch.inputs, samples=50)
    scale = batch.inputs.scale.double().numpy()
    for index, name in enumerate(inputs.TARGETS):
        found, unit = result[name], scale[:, index]
        np.testing.assert_allclose(found.epistemic / unit, known.means[:, :, index].numpy().std(axis=0), rtol=1e-6)
        variance = np.exp(2 * known.log_sigma[:, :, index].numpy()).mean(axis=0)
        np.testing.assert_allclose(found.aleatoric / unit, np.sqrt(variance), rtol=1e-6)
        np.testing.assert_allclose(found.sigma**2, found.aleatoric**2 + found.epistemic**2)
    printed = (known.means.float() ** 2).mean(dim=0) - known.means.float().mean(dim=0) ** 2
    assert (printed < 0).any(), "in single precision Eq. 15 as printed gives negative variances"


def test_prediction_repeats_with_its_seed_and_leaves_the_global_generator_alone(batch):
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"])
    before = torch.random.get_rng_state()
    first, second, other = (predict.predict(model, batch.inputs, samples=5, seed=seed)["mag"] for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(first.mean, second.mean)
    assert not np.array_equal(first.mean, other.mean)
    assert (first.epistemic > 0).all() and (first.aleatoric > 0).all()


def test_a_star_is_measured_the_same_whoever_else_is_in_the_frame(batch):
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"])
    together = predict.predict(model, batch.inputs, samples=5)["x"].mean
    alone = predict.predict(model, batch.inputs[7:8], samples=5)["x"].mean
    np.testing.assert_allclose(together[7], alone[0], atol=1e-5)


def test_samples_in_one_batch_have_the_distribution_of_the_plain_loop(batch):
    """Mean and spread of 600 draws: explicit weights for all stars at once against flipout in 600 full passes."""
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"]).eval()
    for layer in model.head:
        torch.nn.init.constant_(layer.rho_weight, -3.0)
    torch.manual_seed(5)
    with torch.inference_mode():
        loop = torch.stack([model(batch.inputs) for _ in range(600)])
        at_once = torch.cat(list(model.samples(model.features(batch.inputs), 600)))
    assert at_once.shape == loop.shape
    error = loop.std(dim=0) / math.sqrt(600)
    assert (((loop.mean(dim=0) - at_once.mean(dim=0)) / error).abs() < 8).all()
    assert float((loop.std(dim=0) / at_once.std(dim=0)).median()) == pytest.approx(1, abs=0.05)


def test_many_samples_come_in_chunks_of_bounded_size(batch, monkeypatch):
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"]).eval()
    features = model.features(batch.inputs)
    monkeypatch.setattr(network, "CHUNK", 3 * model.head[0].mu_weight.numel())
    with torch.inference_mode():
        assert [len(chunk) for chunk in model.samples(features, 8)] == [3, 3, 2]


@pytest.mark.parametrize(
    ("head", "stamp", "varies"), [("plain", 9, False), ("dropout", 11, True), ("plain", 15, False)]
)
def test_other_heads_and_stamps(batch, head, stamp, varies):
    """A plain head knows no epistemic uncertainty; dropout has one, also in evaluation mode."""
    config = dataclasses.replace(network.CONFIGS["tiny"], head=head, stamp=stamp)
    found = predict.predict(network.BayesianPhotometryNet(config), batch.inputs, samples=6)
    assert set(found) == set(inputs.TARGETS) and np.isfinite(found["mag"].mean).all()
    assert bool((found["mag"].epistemic > 0).any()) == varies
    assert float(elbo.kl_divergence(network.BayesianPhotometryNet(config))) == 0


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"stamp": 10}, "odd widths"), ({"stamp": 17}, "odd widths"), ({"target": "flux"}, "allowed are"),
        ({"head": "oak"}, "allowed are"), ({"targets": ("x", "mag")}, "in this order"), ({"hidden": (3, 2)}, "four"),
        ({"widths": (4, 4)}, "equal length"), ({"bare": True}, "bare is set"),
    ],
)  # fmt: skip
def test_bad_configurations_are_named(wrong, text):
    with pytest.raises(ConfigError, match=text):
        dataclasses.replace(network.CONFIGS["tiny"], **wrong)


def test_bare_and_correcting_networks_have_units_of_their_own(batch):
    """A magnitude from nothing is about one constant in magnitudes, whatever the fit says; positions keep theirs."""
    config = dataclasses.replace(network.CONFIGS["tiny"], target="magnitude")
    base, scale = network.BayesianPhotometryNet(config).units(batch.inputs)
    assert (base[:, 0] == base[0, 0]).all() and (scale[:, 0] == 1).all()
    assert torch.equal(base[:, 1:], batch.inputs.base[:, 1:]) and torch.equal(scale[:, 1:], batch.inputs.scale[:, 1:])
    made = inputs.bare_inputs(torch.zeros(3, 9, 9))
    bare, one = network.BayesianPhotometryNet(network.CONFIGS["paper-narrow"]).units(made)
    assert bare.shape == (3, 1) and torch.equal(bare[:, 0], base[:3, 0]) and (one == 1).all()
