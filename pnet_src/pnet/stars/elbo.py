"""The evidence lower bound of Eq. 12 with its terms weighted as a sum over the data set asks for."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pnet.stars.inputs import POGSON, TARGETS

LOG_SIGMA = (-4.0, 6.0)  # bounds of the predicted ln σ in units of the scale, against overflow early in training


def kl_divergence(model: nn.Module) -> Tensor:
    """Return Σ KL(q‖p) over every weight of the Bayesian layers, in nats; 0 for a head without any.

    bayesian-torch's own `kl_loss` takes the mean over each tensor's entries, which for a layer of a million weights is
    a million times too small for Eq. 12; hence the closed form for two Gaussians here:
    ln(σp/σq) + (σq² + (μq − μp)²)/(2σp²) − 1/2.
    """
    total = torch.zeros((), device=next(model.parameters()).device)
    for layer in model.modules():
        for part in ("weight", "bias"):
            mean = getattr(layer, f"mu_{part}", None)
            if mean is None:
                continue
            sigma = functional.softplus(getattr(layer, f"rho_{part}"))
            # bayesian-torch calls it prior_variance and uses it as a standard deviation; so do we.
            prior_mean, prior_sigma = float(layer.prior_mean), float(layer.prior_variance)
            ratio = sigma / prior_sigma
            total = total + (0.5 * (ratio**2 + ((mean - prior_mean) / prior_sigma) ** 2 - 1) - torch.log(ratio)).sum()
    return total


def negative_log_likelihood(output: Tensor, target: Tensor) -> Tensor:
    """Return (N, K) −ln of the Gaussian density of `target` (N, K) under outputs (N, 2 K) of means and ln σ."""
    mean, log_sigma = output.chunk(2, dim=1)
    log_sigma = log_sigma.clamp(*LOG_SIGMA)
    return 0.5 * ((target - mean) * torch.exp(-log_sigma)) ** 2 + log_sigma + 0.9189385332046727


def truth(batch: "StarBatch", names: tuple[str, ...], base: Tensor, scale: Tensor) -> Tensor:  # noqa: F821
    """Return (N, K) true values of the targets in the network's units."""
    values = {"mag": -POGSON * torch.log(batch.flux.double()), "x": batch.x, "y": batch.y}
    return ((torch.stack([values[name] for name in TARGETS if name in names], dim=1) - base) / scale).float()


class ELBO:
    """The negative ELBO per star: −ln p(y | x, ω) + temperature · KL/N (Eq. 12 divided by the data set's size).

    With a head that has no Bayesian layer only the likelihood is left.

    Parameters
    ----------
    n_train : int
        Number of stars in the data set; with endless data, the number seen in the whole run.
    temperature : float
        1 is Eq. 12; smaller values make a "cold" posterior.
    """

    def __init__(self, n_train: int, temperature: float = 1.0):
        self.n_train, self.temperature = n_train, temperature

    def __call__(self, model: nn.Module, batch: "StarBatch") -> dict[str, Tensor]:  # noqa: F821
        output = model(batch.inputs)
        wanted = truth(batch, model.config.targets, *model.units(batch.inputs))
        each = negative_log_likelihood(output.float(), wanted).mean(dim=0)
        likelihood = each.sum()
        divergence = kl_divergence(model) / self.n_train
        parts = {"loss": likelihood + self.temperature * divergence, "likelihood": likelihood, "kl": divergence}
        return parts | dict(zip((f"likelihood_{name}" for name in model.config.targets), each, strict=True))
