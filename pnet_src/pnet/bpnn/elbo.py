"""The evidence lower bound of Eq. 12 with its terms weighted as a sum over the data set asks for."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pnet.bpnn.inputs import POGSON, Stamps

LOG_SIGMA = (-4.0, 6.0)  # bounds of the predicted ln σ in units of the scale, against overflow early in training


def kl_divergence(model: nn.Module) -> Tensor:
    """Return Σ KL(q‖p) over every weight of the Bayesian layers, in nats.

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
    """Return (N,) −ln of the Gaussian density of `target` (N,) under outputs (N, 2) of mean and ln σ."""
    log_sigma = output[:, 1].clamp(*LOG_SIGMA)
    return 0.5 * ((target - output[:, 0]) * torch.exp(-log_sigma)) ** 2 + log_sigma + 0.9189385332046727


class ELBO:
    """The negative ELBO per star: −ln p(y | x, ω) + temperature · KL/N (Eq. 12 divided by the data set's size).

    Parameters
    ----------
    n_train : int
        Number of stars in the data set; with endless data, the number seen in the whole run.
    temperature : float
        1 is Eq. 12; smaller values make a "cold" posterior.
    """

    def __init__(self, n_train: int, temperature: float = 1.0):
        self.n_train, self.temperature = n_train, temperature

    def __call__(self, model: nn.Module, batch: "StampBatch") -> dict[str, Tensor]:  # noqa: F821
        output, inputs = model(batch.stamps)
        target = (-POGSON * torch.log(batch.flux) - inputs.base) / inputs.scale
        likelihood = negative_log_likelihood(output.float(), target).mean()
        divergence = kl_divergence(model) / self.n_train
        return {"loss": likelihood + self.temperature * divergence, "likelihood": likelihood, "kl": divergence}


def stamps_slice(stamps: Stamps, chosen: slice) -> Stamps:
    """Return part of the stamps."""
    return Stamps(**{name: value[chosen] for name, value in vars(stamps).items()})
