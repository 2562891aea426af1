"""The BPNN: ELBO against closed forms, Eq. 15, classical inputs, and that sampling is sound."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from pixel_psf import frame_of, frame_with, light_of, pixel_psf, width_of

from pnet.common.errors import ConfigError
from pnet.simulation.recipe import Recipe
from pnet.sky.stamps import gaussian_flux, gaussian_moments, gaussian_width
from pnet.stars import cutouts, elbo, inputs, network, predict
from pnet.training.stars import RenderedStamps


@pytest.fixture(scope="module")
def batch():
    return RenderedStamps(Recipe.load(), 256).batch(11, torch.device("cpu"))


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
    made = model.inputs(batch.stamps)
    exact = torch.cat([elbo.truth(batch, inputs.TARGETS, made), torch.zeros(len(batch.flux), 3)], dim=1)
    each = elbo.negative_log_likelihood(exact, elbo.truth(batch, inputs.TARGETS, made))
    torch.testing.assert_close(each, torch.full_like(each, 0.5 * math.log(2 * math.pi)))
    measured = made.base + made.scale * exact[:, :3]
    torch.testing.assert_close(measured[:, 1], batch.x, atol=1e-4, rtol=0)
    torch.testing.assert_close(measured[:, 0], -2.5 * torch.log10(batch.flux), atol=1e-3, rtol=0)


@pytest.fixture(scope="module")
def apertures():
    return inputs.Apertures.calibrated()


class _Known(torch.nn.Module):
    """Stands in for the network: samples whose mean and variance are known, in chunks."""

    def __init__(self, n, samples, spread):
        super().__init__()
        self.config = network.CONFIGS["tiny"]
        generator = torch.Generator().manual_seed(3)
        self.means = 1e3 + spread * torch.randn(samples, n, 3, generator=generator, dtype=torch.float64)
        self.log_sigma = torch.randn(samples, n, 3, generator=generator, dtype=torch.float64) * 0.3

    def inputs(self, stamps):
        return inputs.make_inputs(stamps, 9, inputs.Apertures.unknown())

    def features(self, _):
        return None

    def samples(self, _, count):
        outputs = torch.cat([self.means, self.log_sigma], dim=2)
        yield from outputs[:count].split(20)


def test_equation_15(batch):
    """Aleatoric² is the mean variance, epistemic² the variance of the means; stable where the printed form is not."""
    known = _Known(len(batch.flux), 50, 1e-3)
    result = predict.predict(known, batch.stamps, samples=50)
    scale = known.inputs(batch.stamps).scale.double().numpy()
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
    first, second, other = (predict.predict(model, batch.stamps, samples=5, seed=seed)["mag"] for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(first.mean, second.mean)
    assert not np.array_equal(first.mean, other.mean)
    assert (first.epistemic > 0).all() and (first.aleatoric > 0).all()


def test_a_star_is_measured_the_same_whoever_else_is_in_the_frame(batch):
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"])
    together = predict.predict(model, batch.stamps, samples=5)["x"].mean
    alone = predict.predict(model, batch.stamps[7:8], samples=5)["x"].mean
    np.testing.assert_allclose(together[7], alone[0], atol=1e-5)


def test_samples_in_one_batch_have_the_distribution_of_the_plain_loop(batch):
    """Mean and spread of 600 draws: explicit weights for all stars at once against flipout in 600 full passes."""
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"]).eval()
    for layer in model.head:
        torch.nn.init.constant_(layer.rho_weight, -3.0)
    torch.manual_seed(5)
    with torch.inference_mode():
        loop = torch.stack([model(batch.stamps)[0] for _ in range(600)])
        at_once = torch.cat(list(model.samples(model.features(model.inputs(batch.stamps)), 600)))
    assert at_once.shape == loop.shape
    error = loop.std(dim=0) / math.sqrt(600)
    assert (((loop.mean(dim=0) - at_once.mean(dim=0)) / error).abs() < 8).all()
    assert float((loop.std(dim=0) / at_once.std(dim=0)).median()) == pytest.approx(1, abs=0.05)


def test_many_samples_come_in_chunks_of_bounded_size(batch, monkeypatch):
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"]).eval()
    features = model.features(model.inputs(batch.stamps))
    monkeypatch.setattr(network, "CHUNK", 3 * model.head[0].mu_weight.numel())
    with torch.inference_mode():
        assert [len(chunk) for chunk in model.samples(features, 8)] == [3, 3, 2]


@pytest.mark.parametrize(
    ("head", "stamp", "varies"), [("plain", 9, False), ("dropout", 11, True), ("plain", 21, False)]
)
def test_other_heads_and_stamps(batch, head, stamp, varies):
    """A plain head knows no epistemic uncertainty; dropout has one, also in evaluation mode."""
    config = dataclasses.replace(network.CONFIGS["tiny"], head=head, stamp=stamp)
    found = predict.predict(network.BayesianPhotometryNet(config), batch.stamps, samples=6)
    assert set(found) == set(inputs.TARGETS) and np.isfinite(found["mag"].mean).all()
    assert bool((found["mag"].epistemic > 0).any()) == varies
    assert float(elbo.kl_divergence(network.BayesianPhotometryNet(config))) == 0


@pytest.mark.parametrize("width", [1.2, 1.7, 2.4])
def test_moments_of_a_gaussian_are_exact_whatever_the_window(width):
    """The step length that belongs to a window: five steps find it from 0.3 px away to a ten-thousandth."""
    axis = np.arange(31) - 15
    star = np.exp(-((axis[None] - 0.31) ** 2 + (axis[:, None] + 0.22) ** 2) / (2 * 1.7**2)) / (2 * np.pi * 1.7**2) * 5e4
    stamp, start = torch.from_numpy(star).float()[None], torch.zeros(1)
    x, y = gaussian_moments(stamp, start, start, torch.tensor([width]), scale=width / 1.7)
    assert (float(x), float(y)) == (pytest.approx(0.31, abs=1e-4), pytest.approx(-0.22, abs=1e-4))
    assert float(gaussian_width(stamp, x, y)) == pytest.approx(1.7, rel=1e-3)
    assert float(gaussian_flux(stamp, x, y, torch.tensor([1.7]))) == pytest.approx(5e4, rel=1e-3)


def stamps_of(pixels, width, sigma=17.0, dx=0.0, dy=0.0, saturated=False):
    """Stamps (N, S, S) of a frame, all alike."""
    same = (torch.full((len(pixels),), value) for value in (dx, dy, sigma, width, 0.0, saturated))
    return inputs.Stamps(torch.as_tensor(pixels).float(), *same)


@pytest.mark.parametrize("seeing", [1.0, 1.4, 1.8])
def test_base_is_close_to_the_truth_at_every_seeing(apertures, seeing):
    """Centroid and aperture-corrected flux of a noiseless star: what the network has to correct is small."""
    width = width_of(seeing, 21)
    stamps = stamps_of(pixel_psf(seeing, 0.396, 0.2, -0.3, 21)[None] * 1e6, width, dx=0.1, dy=-0.2)
    made = inputs.make_inputs(stamps, 9, apertures)
    assert made.base[0].tolist() == pytest.approx([-15, 0.2, -0.3], abs=0.01)
    assert made.images.shape == (1, inputs.IMAGES, 9, 9) and made.context.shape == (1, inputs.CONTEXT)
    slope, intercept = cutouts.SEEING
    assert slope * width * 0.396 + intercept == pytest.approx(seeing, rel=0.01)


def test_unit_of_a_correction_is_the_error_of_the_base(apertures, rng):
    """Scatter of the base over noisy stars, in units of `scale`: 1 to 1.6, as a window cannot beat the noise."""
    clean = pixel_psf(1.4, size=21)
    for flux in (3e3, 3e4, 1e5):
        noisy = rng.poisson(np.broadcast_to(clean * flux + 280, (600, 21, 21))) - 280.0
        made = inputs.make_inputs(stamps_of(noisy, width_of(1.4, 21), 280**0.5), 9, apertures)
        ratio = made.base.std(dim=0) / made.scale.mean(dim=0)
        assert (ratio > 0.85).all() and (ratio < 1.6).all(), (flux, ratio)


@pytest.mark.parametrize("correction", [True, False])
@pytest.mark.parametrize(("value", "saturated"), [(0.0, False), (-5.0, False), (2.5e5, True)])
def test_inputs_stay_finite_for_empty_and_saturated_stamps(value, saturated, correction):
    stamps = stamps_of(np.full((2, 21, 21), value), 1.6, saturated=saturated)
    made = inputs.make_inputs(stamps, 9, inputs.Apertures.unknown(), correction)
    assert all(torch.isfinite(values).all() for values in vars(made).values())


def test_frame_stamps_find_the_psf_width_of_the_frame(rng):
    stars = pd.DataFrame({"x": [50.0, 120.0, 150.0], "y": [60.0, 130.0, 40.0], "flux": [2e5, 1e5, 5e4]})
    frame = frame_with(stars, (200, 200), rng)
    cut = cutouts.frame_stamps(frame, stars.assign(fwhm=3.6, confidence=1.0))
    assert float(cut.psf_width[0]) == pytest.approx(width_of(1.4, 21), rel=0.01)
    np.testing.assert_array_equal(cut.dx, np.zeros(3))
    nothing = cutouts.frame_stamps(frame, stars.iloc[:0].assign(fwhm=3.6))
    assert len(nothing.dx) == 0
    model = network.BayesianPhotometryNet(network.CONFIGS["tiny"])
    assert len(predict.predict(model, nothing)["mag"].mean) == 0


def test_light_of_a_bright_neighbour_is_taken_out():
    """Two stars 14 px apart, the brighter one of 4 million electrons: the faint stamp is clean to a hundredth of it."""
    stars = pd.DataFrame({"x": [100.2, 114.0], "y": [99.7, 101.3], "flux": [2e4, 4e6], "confidence": 1.0})
    image = torch.from_numpy(light_of(stars, (201, 201), 121)).float()[None]
    light, own = cutouts._light(image, stars, 1.6474, 0.396)
    alone = torch.from_numpy(pixel_psf(1.4, 0.396, 0.2, -0.3, 9) * 2e4).float()
    stamp = image[0, 96:105, 96:105]
    left = stamp - light[0, 96:105, 96:105] + own[0, 6:15, 6:15]
    before, after = (stamp - alone).sum(), (left - alone).sum()
    assert float(before) > 2000 and abs(float(after)) < 0.02 * float(before)
    light, own = cutouts._light(image, stars.iloc[:1], 1.6474, 0.396)
    assert float((light[0, 96:105, 96:105] - own[0, 6:15, 6:15]).abs().max()) < 0.02


def test_stamps_know_the_sky_beside_the_stars(rng):
    """A sky that the first estimate took 2 electrons too high, as it does among bright stars' aureoles, is mended."""
    image = np.round(rng.poisson(280.0, (256, 256)) / 4.0) * 4.0
    frame = frame_of(image, seeing=1.4)
    stars = pd.DataFrame({"x": [60.2, 128.0, 200.4], "y": [60.0, 128.3, 190.9], "flux": 1.0, "confidence": 1.0})
    wrong = (frame.image - 282.0, 16.7)
    cut = cutouts.frame_stamps(frame, stars.assign(fwhm=3.6), wrong)
    assert float(cut.pixels.mean()) == pytest.approx(0, abs=1.0)
    assert cut.pixels.shape == (3, 21, 21)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"stamp": 10}, "odd widths"), ({"stamp": 23}, "odd widths"), ({"target": "flux"}, "allowed are"),
        ({"head": "oak"}, "allowed are"), ({"targets": ("x", "mag")}, "in this order"), ({"hidden": (3, 2)}, "four"),
        ({"widths": (4, 4)}, "equal length"),
    ],
)  # fmt: skip
def test_bad_configurations_are_named(wrong, text):
    with pytest.raises(ConfigError, match=text):
        dataclasses.replace(network.CONFIGS["tiny"], **wrong)


def test_the_papers_network_sees_the_pixels_and_nothing_else(batch):
    """Not the frame's noise, its PSF, or the place that the detection net gives."""
    model = network.BayesianPhotometryNet(network.CONFIGS["paper-narrow"]).eval()
    seen = batch.stamps
    other = dataclasses.replace(
        seen, sigma=2 * seen.sigma, psf_width=seen.psf_width + 1, psf_scatter=seen.psf_scatter + 1, dx=seen.dx + 0.2
    )
    (a, b), outside = (model.inputs(each) for each in (seen, other)), seen.pixels.clone()
    assert torch.equal(model.features(a), model.features(b)) and torch.equal(a.base, b.base)
    outside[:, :6] = 0  # the 9 × 9 px in the middle of 21 × 21
    assert torch.equal(model.inputs(dataclasses.replace(seen, pixels=outside)).images, a.images)
    with pytest.raises(ConfigError, match="bare"):
        dataclasses.replace(network.CONFIGS["paper"], context=True)
