"""Magnitudes and positions of stars with their uncertainties (Eq. 14 and 15)."""

from dataclasses import dataclass

import numpy as np
import torch

from pnet.stars.elbo import LOG_SIGMA
from pnet.stars.inputs import Inputs
from pnet.stars.network import BayesianPhotometryNet

SAMPLES = 50  # as in the paper
BATCH = 4096  # stars at once


@dataclass
class Prediction:
    """One quantity of N stars, flat arrays: magnitudes in the instrumental system (−2.5 log10 of electrons), or
    positions in pixels from the middle of the stamps.

    `mean` of the samples; `aleatoric`, the root of the mean predicted variance, and `epistemic`, the standard deviation
    of the means: the two terms of Eq. 15.
    """

    mean: np.ndarray
    aleatoric: np.ndarray
    epistemic: np.ndarray

    @property
    def sigma(self) -> np.ndarray:
        """Total standard deviation (Eq. 7 and 15)."""
        return np.hypot(self.aleatoric, self.epistemic)


@torch.inference_mode()
def predict(
    model: BayesianPhotometryNet, inputs: Inputs, *, samples: int = SAMPLES, seed: int = 0
) -> dict[str, Prediction]:
    """Sample the posterior predictive distribution of each star.

    Parameters
    ----------
    model : BayesianPhotometryNet
    inputs : Inputs
    samples : int
        Monte Carlo samples; the deterministic features are computed once for all of them, and all stars share the
        samples' weights. A plain head has one.
    seed : int
        The same seed gives the same numbers; torch's global generator is left as it was.

    Returns
    -------
    dict of str to Prediction
        One for each of the model's targets.
    """
    model.eval()
    parts = []
    for start in range(0, len(inputs), BATCH):
        part = inputs[start : start + BATCH]
        features = model.features(part)
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # for every batch anew: no star's samples depend on how many others there are
            parts.append(_moments(model.samples(features, samples)))
            mean, aleatoric, epistemic = parts[-1]
            base, scale = (value.double() for value in model.units(part))
            parts[-1] = torch.stack([base + scale * mean, scale * aleatoric, scale * epistemic])
    empty = torch.zeros(3, 0, len(model.config.targets), dtype=torch.float64)
    result = torch.cat([empty, *(part.cpu() for part in parts)], dim=1).numpy()
    return {name: Prediction(*result[:, :, index]) for index, name in enumerate(model.config.targets)}


def _moments(chunks) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean, aleatoric and epistemic part (N, K) of outputs that come in chunks (T, N, 2 K) of samples.

    Eq. 15 as printed subtracts two large squares; moments about the first sample are the same and stable.
    """
    count, first, shift, square, noise = 0, None, 0.0, 0.0, 0.0
    for chunk in chunks:
        means, log_sigmas = chunk.double().chunk(2, dim=2)
        first = means[0] if first is None else first
        count += len(means)
        shift = shift + (means - first).sum(dim=0)
        square = square + ((means - first) ** 2).sum(dim=0)
        noise = noise + torch.exp(2 * log_sigmas.clamp(*LOG_SIGMA)).sum(dim=0)
    variance = (square / count - (shift / count) ** 2).clamp(min=0)
    return first + shift / count, (noise / count).sqrt(), variance.sqrt()
