"""The loss of the Photometry-Detection Net: focal + MAE + MSE (Eq. 19, 20), summed over the stacks."""

import torch
from torch import Tensor
from torch.nn import functional

from pnet.detection.network import STRIDE, PhotometryDetectionNet, network_input
from pnet.detection.targets import Batch, make_targets
from pnet.sky.stamps import aperture_flux

ALPHA, BETA = 2.0, 4.0  # CenterNet's focal exponents; ALPHA is the paper's γ = 2
WEIGHTS = {"heatmap": 1.0, "offset": 1.0, "flux": 1.0, "size": 0.1}
FAINTEST = 3.0  # ln of the smallest simple flux in units of the sky noise that a logarithm is taken of: e^3 = 20 σ


def focal(logits: Tensor, heatmap: Tensor, weight: Tensor) -> Tensor:
    """Return the penalty-reduced focal loss per star (Zhou 2019, Eq. 1; the paper's Eq. 19 with soft negatives).

    Parameters
    ----------
    logits, heatmap, weight : Tensor, (B, 1, h, w)
    """
    logits = logits.float()
    positive = heatmap == 1
    confidence = torch.sigmoid(logits)
    hit = (1 - confidence) ** ALPHA * functional.logsigmoid(logits)
    clear = (1 - heatmap) ** BETA * confidence**ALPHA * functional.logsigmoid(-logits)
    return -(torch.where(positive, hit, clear) * weight).sum() / positive.sum().clamp(min=1)


def simple_log_flux(image: Tensor, sigma: Tensor, field: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return (N,) ln of the aperture flux in units of the sky noise, bounded below for the faintest."""
    flux = aperture_flux(image, field, x, y) / sigma[field]
    return torch.log(flux.clamp(min=float(torch.tensor(FAINTEST).exp())))


def flux_base(config_flux: str, image: Tensor, sigma: Tensor, field: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return (N,) what the flux head's output is added to: the simple flux's ln, or 0 where it predicts ln flux itself.

    ln fluxes are centred on ln(3000 σ), a star of about g = 18 in an SDSS frame.
    """
    if config_flux == "correction":
        return simple_log_flux(image, sigma, field, x, y)
    return torch.full_like(sigma[field], 8.0)


def detection_loss(model: PhotometryDetectionNet, batch: Batch) -> dict[str, Tensor]:
    """Return ``loss`` and its parts for a batch; positions are in cells, fluxes in natural logarithms."""
    config = model.config
    outputs = model(
        network_input(batch.image, batch.sigma, config.inputs).contiguous(memory_format=torch.channels_last)
    )
    targets = make_targets(batch, config.offset_reach)
    star = targets.star
    # The simple flux is taken where the star is, give or take the error that detection makes.
    jitter = 0.05 * torch.randn(2, len(batch.x), device=batch.x.device)
    base = flux_base(config.flux, batch.image, batch.sigma, batch.field, batch.x + jitter[0], batch.y + jitter[1])
    log_flux = torch.log(batch.flux / batch.sigma[batch.field]) - base
    size = (batch.fwhm / STRIDE)[targets.field, None]
    parts = {name: torch.zeros((), device=batch.image.device) for name in WEIGHTS}
    for output in outputs:
        parts["heatmap"] = parts["heatmap"] + focal(output["heatmap"], targets.heatmap, targets.weight)
        if not len(star):
            continue
        picked = {
            name: output[name].float()[targets.field, :, targets.row, targets.column]
            for name in ("offset", "flux", "size")
        }
        parts["offset"] = parts["offset"] + (picked["offset"] - targets.offset).abs().mean()
        parts["flux"] = parts["flux"] + ((picked["flux"][:, 0] - log_flux[star]) ** 2).mean()
        parts["size"] = parts["size"] + (picked["size"] - size).abs().mean()
    parts["loss"] = sum(WEIGHTS[name] * parts[name] for name in WEIGHTS)
    return parts
