"""The BPNN: ELBO against closed forms, Eq. 15, classical inputs, and that sampling is sound."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch

from pnet import stamps as cutting
from pnet import stardata
from pnet.bpnn import elbo, inputs, network, predict
from pnet.errors import ConfigError
from pnet.frame import Frame
from pnet.psf import pixel_psf
from pnet.simulation import Recipe


@pytest.fixture(scope="module")
def batch():
    return stardata.RenderedStamps(Recipe.load(), 256).batch(11, torch.device("cpu"))


def test_kl_of_one_layer_is_the_closed_form_summed_over_all_weights():
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"])
    expected = 0.0
    for layer in model.bayesian:
        for part in ("weight", "bias"):
            mean = getattr(layer, f"mu_{part}").detach().double()
            sigma = torch.nn.functional.softplus(getattr(layer, f"rho_{part}").detach().double())
            posterior = torch.distributions.Normal(mean, sigma)
            prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(sigma))
            expected += float(torch.distributions.kl_divergence(posterior, prior).sum())
    assert float(elbo.kl_divergence(model).detach()) == pytest.approx(expected, rel=1e-5)
    # bayesian-torch's own figure is a mean over each tensor: far smaller.
    assert sum(float(layer.kl_loss().detach()) for layer in model.bayesian) < expected / 50


def test_kl_is_zero_for_the_prior():
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"])
    for layer in model.bayesian:
        for part in ("weight", "bias"):
            torch.nn.init.zeros_(getattr(layer, f"mu_{part}"))
            torch.nn.init.constant_(getattr(layer, f"rho_{part}"), math.log(math.e - 1))  # softplus gives 1
    assert float(elbo.kl_divergence(model).detach()) == pytest.approx(0, abs=1e-2)


def test_likelihood_is_that_of_a_gaussian():
    output = torch.tensor([[0.3, -0.4], [-1.0, 0.7]])
    target = torch.tensor([0.1, 0.5])
    expected = -torch.distributions.Normal(output[:, 0], output[:, 1].exp()).log_prob(target)
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
    assert len(model.bayesian) == 5 and all(type(m).__name__ == "LinearFlipout" for m in model.bayesian)
    assert not any(isinstance(m, torch.nn.MaxPool2d | torch.nn.AvgPool2d | torch.nn.Linear) for m in model.modules())


@pytest.fixture(scope="module")
def apertures():
    return inputs.Apertures.calibrated(9)


class _Known(torch.nn.Module):
    """Stands in for the network: samples whose mean and variance are known."""

    def __init__(self, n, samples, spread):
        super().__init__()
        self.config = network.CONFIGS["tiny"]
        generator = torch.Generator().manual_seed(3)
        self.means = 1e3 + spread * torch.randn(samples, n, generator=generator, dtype=torch.float64)
        self.log_sigma = torch.randn(samples, n, generator=generator, dtype=torch.float64) * 0.3
        self.call = 0

    def inputs(self, stamps):
        return inputs.make_inputs(stamps, "correction", inputs.Apertures.unknown())

    def features(self, _):
        return None

    def sample(self, _):
        self.call += 1
        return torch.stack([self.means[self.call - 1], self.log_sigma[self.call - 1]], dim=1)


def test_equation_15(batch):
    """Aleatoric² is the mean variance, epistemic² the variance of the means; stable where the printed form is not."""
    n = len(batch.flux)
    known = _Known(n, 50, 1e-3)
    result = predict.predict(known, batch.stamps, samples=50)
    made = known.inputs(batch.stamps)
    scale = made.scale.double().numpy()
    np.testing.assert_allclose(result.epistemic / scale, known.means.numpy().std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(
        result.aleatoric / scale, np.sqrt(np.exp(2 * known.log_sigma.numpy()).mean(axis=0)), rtol=1e-6
    )
    np.testing.assert_allclose(result.sigma**2, result.aleatoric**2 + result.epistemic**2)
    printed = (known.means.float() ** 2).mean(dim=0) - known.means.float().mean(dim=0) ** 2
    assert (printed < 0).any(), "in single precision Eq. 15 as printed gives negative variances"


def test_prediction_repeats_with_its_seed_and_leaves_the_global_generator_alone(batch):
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"])
    before = torch.random.get_rng_state()
    first, second, other = (predict.predict(model, batch.stamps, samples=5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(first.mean, second.mean)
    assert not np.array_equal(first.mean, other.mean)
    assert (first.epistemic > 0).all() and (first.aleatoric > 0).all()


def test_shared_features_give_the_distribution_of_the_plain_loop(batch):
    """Features are deterministic, so that sampling only the head is the same distribution as 50 full passes."""
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"]).eval()
    for layer in model.bayesian:
        torch.nn.init.constant_(layer.rho_weight, -3.0)
    torch.manual_seed(5)
    with torch.inference_mode():
        loop = torch.stack([model(batch.stamps)[0][:, 0] for _ in range(600)])
        features = model.features(model.inputs(batch.stamps))
        shared = torch.stack([model.sample(features)[:, 0] for _ in range(600)])
    error = loop.std(dim=0) / math.sqrt(600)
    assert (((loop.mean(dim=0) - shared.mean(dim=0)) / error).abs() < 6).all()
    assert float((loop.std(dim=0) / shared.std(dim=0)).median()) == pytest.approx(1, abs=0.05)


def test_gaussian_width_and_flux_of_a_gaussian_are_exact():
    axis = np.arange(31) - 15
    dx, dy = 0.31, -0.22
    star = np.exp(-((axis[None] - dx) ** 2 + (axis[:, None] - dy) ** 2) / (2 * 1.7**2)) / (2 * np.pi * 1.7**2) * 5e4
    stamp = torch.from_numpy(star).float()[None]
    start = torch.zeros(1)
    x, y = cutting.gaussian_moments(stamp, start, start, torch.tensor([1.5]), iterations=20)
    assert (float(x), float(y)) == (pytest.approx(dx, abs=1e-4), pytest.approx(dy, abs=1e-4))
    assert float(cutting.gaussian_width(stamp, x, y)) == pytest.approx(1.7, rel=1e-3)
    assert float(cutting.gaussian_flux(stamp, x, y, torch.tensor([1.7]))) == pytest.approx(5e4, rel=1e-3)


def test_base_magnitude_is_close_to_the_truth_at_every_seeing(apertures):
    """The aperture-corrected flux of a noiseless star: what the network has to correct is small."""
    for seeing in (1.0, 1.4, 1.8):
        pixels = torch.from_numpy(pixel_psf(seeing, 0.396, 0.2, -0.3, 21) * 1e6).float()[None]
        offset = (torch.tensor([0.2]), torch.tensor([-0.3]))
        width = cutting.gaussian_width(pixels, *offset)
        stamps = inputs.Stamps(
            pixels[:, 6:15, 6:15], *offset, torch.tensor([17.0]), width, torch.zeros(1, dtype=torch.bool)
        )
        made = inputs.make_inputs(stamps, "correction", apertures)
        assert float(made.base) == pytest.approx(-15, abs=0.01)
        assert made.images.shape == (1, inputs.IMAGES, 9, 9) and made.context.shape == (1, inputs.CONTEXT)


def test_inputs_stay_finite_for_empty_and_saturated_stamps():
    pixels = torch.stack([torch.zeros(9, 9), torch.full((9, 9), -5.0), torch.full((9, 9), 2.5e5)])
    stamps = inputs.Stamps(
        pixels, torch.zeros(3), torch.zeros(3), torch.full((3,), 17.0), torch.full((3,), 1.6),
        torch.tensor([False, False, True]),
    )  # fmt: skip
    for target in ("correction", "magnitude"):
        made = inputs.make_inputs(stamps, target, inputs.Apertures.unknown())
        for value in vars(made).values():
            assert torch.isfinite(value).all()


def test_frame_stamps_find_the_psf_width_of_the_frame(rng):
    psf = pixel_psf(1.4, size=41)
    image = np.full((200, 200), 280.0)
    stars = pd.DataFrame({"x": [50.0, 120.0, 150.0], "y": [60.0, 130.0, 40.0], "flux": [2e5, 1e5, 5e4]})
    for star in stars.itertuples():
        row, column = int(star.y), int(star.x)
        image[row - 20 : row + 21, column - 20 : column + 21] += psf * star.flux
    image = rng.poisson(image) + rng.normal(0, 5, image.shape)
    frame = Frame("f", image, np.maximum(image, 1) + 25, np.zeros(image.shape, bool), 4.0, 29.8, 5.0, 0.396, seeing=1.4)
    cut = predict.frame_stamps(frame, stars.assign(fwhm=3.6, confidence=1.0), 9)
    clean = torch.from_numpy(psf[10:31, 10:31]).float()[None]
    expected = float(cutting.gaussian_width(clean, torch.zeros(1), torch.zeros(1)))
    assert float(cut.psf_width[0]) == pytest.approx(expected, rel=0.01)
    np.testing.assert_array_equal(cut.dx, np.zeros(3))
    nothing = predict.frame_stamps(frame, stars.iloc[:0].assign(fwhm=3.6), 9)
    assert len(nothing.dx) == 0
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"])
    assert len(predict.predict(model, nothing).mean) == 0


def test_seeing_from_the_width_of_the_psf():
    for seeing in (1.0, 1.4, 1.8):
        star = torch.from_numpy(pixel_psf(seeing, size=21)).float()[None]
        width = float(cutting.gaussian_width(star, torch.zeros(1), torch.zeros(1)))
        slope, intercept = predict.SEEING
        assert slope * width * 0.396 + intercept == pytest.approx(seeing, rel=0.01)


def test_light_of_a_bright_neighbour_is_taken_out():
    """Two stars 14 px apart, the brighter one of 4 million electrons: the faint stamp is clean to a hundredth of it."""
    image = torch.zeros(1, 201, 201)
    where = [torch.tensor([100.2, 114.0]), torch.tensor([99.7, 101.3])]
    flux = torch.tensor([2e4, 4e6])
    for star in range(2):
        column, row = round(float(where[0][star])), round(float(where[1][star]))
        stamp = pixel_psf(1.4, 0.396, float(where[0][star]) - column, float(where[1][star]) - row, 121) * float(
            flux[star]
        )
        image[0, row - 60 : row + 61, column - 60 : column + 61] += torch.from_numpy(stamp).float()
    stars = pd.DataFrame({"x": where[0].numpy(), "y": where[1].numpy(), "flux": flux.numpy(), "confidence": 1.0})
    width = 1.6474
    light = predict._neighbours(image, stars, width, 0.396, 9)
    alone = torch.from_numpy(pixel_psf(1.4, 0.396, 0.2, -0.3, 9) * 2e4).float()
    stamp = image[0, 96:105, 96:105]
    before, after = (stamp - alone).sum(), (stamp - light[0] - alone).sum()
    assert float(before) > 2000 and abs(float(after)) < 0.02 * float(before)
    lone = predict._neighbours(image, stars.iloc[:1], width, 0.396, 9)
    assert float(lone.abs().max()) == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [({"stamp": 8}, "odd widths"), ({"target": "flux"}, "allowed are"), ({"hidden": (1, 2)}, "four widths")],
)
def test_configuration_is_checked(change, text):
    values = network.CONFIGS["tiny"].as_dict() | change
    with pytest.raises(ConfigError, match=text):
        network.BPNNConfig(**values)


def test_a_tiny_net_learns_magnitudes():
    """From nothing, as the paper's net does; the correction starts so close to the limit that 60 steps show little."""
    torch.manual_seed(4)
    model = network.BayesianPhotometryNet(dataclasses.replace(network.CONFIGS["tiny"], target="magnitude"))
    model.calibrate_apertures()
    loss = elbo.ELBO(10**7)
    source = stardata.RenderedStamps(Recipe.load(), 256)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    values = []
    for step in range(60):
        optimizer.zero_grad()
        parts = loss(model, source.batch(step, torch.device("cpu")))
        parts["loss"].backward()
        optimizer.step()
        values.append(float(parts["likelihood"].detach()))
    assert np.mean(values[-10:]) < np.mean(values[:10]) - 0.5
