"""The loss of the Photometry-Detection Net: focal + MAE + MSE (Eq. 19, 20), summed over the stacks."""

import torch
from torch import Tensor
from torch.nn import functional

from pnet.detection.network import STRIDE, PhotometryDetectionNet, network_input
from pnet.detection.targets import Batch, make_targets
from pnet.sky.stamps import aperture_flux

ALPHA, BETA = 2.0, 4.0  # CenterNet's focal exponents; ALPHA is the paper's γ = 2
BALANCE = 0.25  # α_t of Eq. 19 in stars' cells, 1 − α_t elsewhere: the value of Lin et al. (2017), the paper gives none
WEIGHTS = {"heatmap": 1.0, "offset": 1.0, "flux": 1.0, "size": 0.1}
FAINTEST = 3.0  # ln of the smallest flux in units of the sky noise that a logarithm is taken of: e^3 = 20 σ
LINEAR_UNIT = 8e4  # sky noises, the rms flux of the stars in training: a unit in which the terms of the loss are alike


def focal(logits: Tensor, heatmap: Tensor, weight: Tensor, kind: str = "soft") -> Tensor:
    """Return the focal loss per star: the paper's Eq. 19 ('hard'), or with penalties that soft labels reduce around a
    star (Zhou 2019, Eq. 1; 'soft').

    Parameters
    ----------
    logits, heatmap, weight : Tensor, (B, 1, h, w)
    kind : str
        As in `DetectionConfig`.
    """
    logits = logits.float()
    positive = heatmap == 1
    confidence = torch.sigmoid(logits)
    hit = (1 - confidence) ** ALPHA * functional.logsigmoid(logits)
    clear = confidence**ALPHA * functional.logsigmoid(-logits)
    if kind == "hard":
        hit, clear = BALANCE * hit, (1 - BALANCE) * clear
    else:
        clear = (1 - heatmap) ** BETA * clear
    return -(torch.where(positive, hit, clear) * weight).sum() / positive.sum().clamp(min=1)


def simple_log_flux(image: Tensor, sigma: Tensor, field: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return (N,) ln of the aperture flux in units of the sky noise, bounded below for the faintest."""
    flux = aperture_flux(image, field, x, y) / sigma[field]
    return torch.log(flux.clamp(min=float(torch.tensor(FAINTEST).exp())))


def flux_base(config_flux: str, image: Tensor, sigma: Tensor, field: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return (N,) what the flux head's output is added to: the simple flux's ln, or where it predicts ln flux itself
    ln(3000 σ), a star of about g = 18 in an SDSS frame; 0 for a linear flux."""
    if config_flux == "correction":
        return simple_log_flux(image, sigma, field, x, y)
    return torch.full_like(sigma[field], 8.0 if config_flux == "log" else 0.0)


def log_flux(config_flux: str, output: Tensor, base: Tensor) -> Tensor:
    """Return (N,) ln fluxes in units of the sky noise from the flux head's output (N,) and its base; a linear flux may
    come out negative, and is bounded below like the simple one."""
    if config_flux == "linear":
        return torch.log((LINEAR_UNIT * output).clamp(min=float(torch.tensor(FAINTEST).exp())))
    return output + base


def detection_loss(model: PhotometryDetectionNet, batch: Batch) -> dict[str, Tensor]:
    """Return ``loss`` and its parts for a batch; positions are in cells, fluxes in the head's own unit."""
    config = model.config
    outputs = model(
        network_input(batch.image, batch.sigma, config.inputs).contiguous(memory_format=torch.channels_last)
    )
    targets = make_targets(batch, config.offset_reach)
    star = targets.star
    # The simple flux is taken where the star is, give or take the error that detection makes.
    jitter = 0.05 * torch.randn(2, len(batch.x), device=batch.x.device)
    base = flux_base(config.flux, batch.image, batch.sigma, batch.field, batch.x + jitter[0], batch.y + jitter[1])
    flux = batch.flux / batch.sigma[batch.field]
    flux = flux / LINEAR_UNIT if config.flux == "linear" else torch.log(flux) - base
    size = (batch.fwhm / STRIDE)[targets.field, None]
    parts = {name: torch.zeros((), device=batch.image.device) for name in WEIGHTS}
    for output in outputs:
        parts["heatmap"] = parts["heatmap"] + focal(output["heatmap"], targets.heatmap, targets.weight, config.focal)
        picked = {
            name: output[name].float()[targets.field, :, targets.row, targets.column]
            for name in ("offset", "flux", "size")
        }
        # Sums, not means: without a star they are 0 with a gradient of 0, which several devices wait for.
        parts["offset"] = parts["offset"] + (picked["offset"] - targets.offset).abs().sum() / max(1, 2 * len(star))
        parts["flux"] = parts["flux"] + ((picked["flux"][:, 0] - flux[star]) ** 2).sum() / max(1, len(star))
        parts["size"] = parts["size"] + (picked["size"] - size).abs().sum() / max(1, 2 * len(star))
    parts["loss"] = sum(WEIGHTS[name] * parts[name] for name in WEIGHTS)
    return parts
