"""From network output to a list of stars, frame by frame."""

import numpy as np
import pandas as pd
import scipy
import torch
from torch import Tensor
from torch.nn import functional

from pnet.detection.losses import flux_base, log_flux
from pnet.detection.network import STRIDE, DetectionConfig, PhotometryDetectionNet, network_input
from pnet.frame import Frame
from pnet.sky import background, patches

LOWEST = 0.01  # confidence down to which detections are kept for the precision-recall curves
REPEAT = 2.0  # px; nearer detections are the same star
APART = 0.6  # FWHM; what is nearer to another detection, or narrower, is no second star
SLACK = 0.25  # cells; offsets near a border are uncertain by less
BATCH = {"cpu": 4, "cuda": 32}  # patches at once; more does not pay on a CPU


def decode(
    output: dict[str, Tensor], image: Tensor, sigma: Tensor, config: DetectionConfig, lowest: float = LOWEST
) -> dict[str, Tensor]:
    """Turn one stack's output into a list of stars.

    Where neighbours learn offsets (`DetectionConfig.offset_reach`), a cell counts if its own points into itself, give
    or take SLACK: its neighbours' confidence comes from the same star, and their offsets say so. CenterNet's rule, a
    maximum of 3 × 3 cells, which is all there is without such offsets, keeps one of two stars in cells that touch, 4 to
    8 px apart. There is no cap on their number (CenterNet's 100 would lose stars in any dense field).

    Parameters
    ----------
    output : dict
        As `PhotometryDetectionNet.forward` returns.
    image, sigma : Tensor, (B, H, W) and (B,)
        Electrons, sky subtracted, and the noise of an empty pixel.
    config : DetectionConfig
        Of the network.
    lowest : float
        Confidence below which nothing is kept.

    Returns
    -------
    dict of Tensor, (N,)
        ``field``, ``x``, ``y`` (px), ``flux`` (electrons), ``confidence``, ``fwhm`` (px).
    """
    confidence = torch.sigmoid(output["heatmap"].float())[:, 0]
    if config.offset_reach:
        inside = ((output["offset"].float() - 0.5).abs() <= 0.5 + SLACK).all(dim=1)
    else:
        inside = confidence == functional.max_pool2d(confidence, 3, 1, 1)
    cells = torch.stack(torch.where(inside & (confidence >= lowest)))

    def at(name: str, cells: Tensor) -> Tensor:
        return output[name].float()[cells[0], :, cells[1], cells[2]]

    def place(cells: Tensor) -> Tensor:
        return (cells[[2, 1]] + at("offset", cells).T) * STRIDE - 0.5

    # Twice the same star, seen from both sides of a border between cells: keep the more confident one.
    cells = cells[:, without_repeats(cells[0], *place(cells), confidence[tuple(cells)])]
    field, (x, y) = cells[0], place(cells)
    base = flux_base(config.flux, image, sigma, field, x, y)
    return {
        "field": field,
        "x": x,
        "y": y,
        "flux": torch.exp(log_flux(config.flux, at("flux", cells)[:, 0], base)) * sigma[field],
        "confidence": confidence[tuple(cells)],
        "fwhm": at("size", cells).mean(dim=1) * STRIDE,
    }


def without_repeats(field: Tensor, x: Tensor, y: Tensor, confidence: Tensor, distance: float = REPEAT) -> Tensor:
    """Return a mask that drops every detection within `distance` px of a more confident one in the same field."""
    order = confidence.cpu().argsort(descending=True, stable=True)
    # On the CPU, which a GPU would wait for at every star, and by a tree: a product of matrices, as torch.cdist makes
    # it, is off by tenths of a pixel far from the origin. Fields lie far from each other along a third axis.
    place = torch.stack([1e3 * distance * field, x, y], dim=1).double().cpu()[order].numpy()
    pairs = scipy.spatial.cKDTree(place).query_pairs(np.nextafter(distance, 0), output_type="ndarray")
    kept = np.ones(len(order), dtype=bool)
    for first, second in sorted(pairs.tolist(), key=lambda pair: pair[1]):  # the first is the more confident one
        kept[second] &= not kept[first]
    keep = torch.empty(len(order), dtype=torch.bool)
    keep[order] = torch.from_numpy(kept)
    return keep.to(confidence.device)


def half_precision(kind: str) -> torch.dtype:
    """Return the 16-bit numbers that a kind of device computes with: bfloat16, or float16 on a GPU that has none of its
    own and would emulate it slowly, as a T4."""
    emulated = kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if emulated else torch.bfloat16


@torch.inference_mode()
def detect(
    model: PhotometryDetectionNet,
    frame: Frame,
    lowest: float = LOWEST,
    subtracted: background.Subtracted | None = None,
) -> pd.DataFrame:
    """Find the stars of a frame of any size.

    The net judges a star against the noise. Where hardly a pixel is empty it is asked twice: against the clutter, by
    which it knows bright stars from the crowd around them, and against the noise itself for those that are fainter.

    Parameters
    ----------
    model : PhotometryDetectionNet
    frame : Frame
    lowest : float
        Confidence below which nothing is kept.
    subtracted : Subtracted, optional
        What `background.subtracted` gives for the frame, where it is known.

    Returns
    -------
    DataFrame
        ``x``, ``y`` (px from 0), ``flux`` (electrons), ``confidence``, ``fwhm`` (px), by falling confidence; empty
        where there is no star.
    """
    sky = subtracted or background.subtracted(frame)
    found = _found(model, sky.image, sky.clutter, lowest)
    if sky.clutter > sky.rms and len(found):
        width = found["fwhm"].median()
        fainter = _found(model, sky.image, sky.rms, lowest)
        away, _ = scipy.spatial.cKDTree(found[["x", "y"]]).query(fainter[["x", "y"]])
        # against the noise, a wide star may fall into several narrow ones
        kept = (away > APART * width) & (fainter["fwhm"] > APART * width)
        found = pd.concat([found, fainter[kept]])
    return found.sort_values("confidence", ascending=False, kind="stable").reset_index(drop=True)


def _found(model: PhotometryDetectionNet, image: np.ndarray, rms: float, lowest: float) -> pd.DataFrame:
    """Return the stars of an image as `detect` does, unsorted."""
    device = next(model.parameters()).device
    model.eval()
    tiles, at_once = patches.split(image.shape), BATCH.get(device.type, BATCH["cpu"])
    found = []
    for start in range(0, len(tiles), at_once):
        chunk = tiles[start : start + at_once]
        pixels = torch.from_numpy(np.stack([tile.cut(image) for tile in chunk])).to(device)
        sigma = torch.full((len(chunk),), rms, device=device)
        inputs = network_input(pixels, sigma, model.config.inputs).contiguous(memory_format=torch.channels_last)
        # 16 bits double the speed of a GPU; a CPU keeps single precision, so that every machine finds the same.
        with torch.autocast(device.type, half_precision(device.type), enabled=device.type == "cuda"):
            output = model(inputs)[-1]
        stars = decode(output, pixels, sigma, model.config, lowest)
        table = pd.DataFrame({name: value.cpu().double().numpy() for name, value in stars.items()})
        for index, tile in enumerate(chunk):
            found.append(tile.keep(table[table["field"] == index].drop(columns="field")))
    return pd.concat(found)
