"""Tables of the networks: parts, channels and number of weights of every configuration."""

import pandas as pd
import torch
from torch import nn

from pnet.detection.network import CONFIGS as DETECTION
from pnet.detection.network import PhotometryDetectionNet
from pnet.stars.network import CONFIGS as BPNN
from pnet.stars.network import EXPANSION, BayesianPhotometryNet

SHOWN = ("paper", "compact")


def weights_of(*modules: nn.Module) -> str:
    """Return the number of trained values in modules, as text."""
    return f"{sum(parameter.numel() for module in modules for parameter in module.parameters()):,}"


def detection_parts() -> pd.DataFrame:
    """Return the parts of the Photometry-Detection Net, one column a configuration."""
    columns = {}
    for name in SHOWN:
        config = DETECTION[name]
        with torch.device("meta"):  # shapes without memory: the paper's net has tens of millions of weights
            model = PhotometryDetectionNet(config)
        columns[name] = {
            "input": config.inputs,
            "Downsample": f"7×7 → {config.stem}, residual → {config.channels[0]}: {weights_of(model.downsample)}",
            "Extractor": (
                f"{config.stacks} hourglasses {'-'.join(map(str, config.channels))}: "
                f"{weights_of(model.hourglasses, model.features, model.merges)}"
            ),
            "PreHeads": f"4 heads × {config.stacks} stacks, {config.head} channels: {weights_of(model.preheads)}",
            "flux head": {"log": "ln flux", "correction": "ln of flux over aperture flux"}[config.flux],
            "all weights": weights_of(model),
        }
    return _table(columns)


def bpnn_parts() -> pd.DataFrame:
    """Return the parts of the BPNN, one column a configuration."""
    columns = {}
    for name in SHOWN:
        config = BPNN[name]
        model = BayesianPhotometryNet(config)
        outputs = 2 * len(config.targets)  # mean and ln σ of each
        blocks = ", ".join(f"{n} × {width * EXPANSION}" for n, width in zip(config.blocks, config.widths, strict=True))
        columns[name] = {
            "stamp": f"{config.stamp} × {config.stamp} px",
            "Feature Extraction Layer": f"bottleneck blocks {blocks}: {weights_of(model.stem, model.stages)}",
            "frame's PSF and classical measurements": "given" if config.context else "not given",
            "Bayesian Layer (flipout)": f"{'-'.join(map(str, (*config.hidden, outputs)))}: {weights_of(model.head)}",
            "prior of a weight": f"N(0, {config.prior_sigma:g})",
            "magnitude": {"magnitude": "from nothing", "correction": "corrects an aperture's"}[config.target],
            "targets": ", ".join(config.targets),
            "all weights": weights_of(model),
        }
    return _table(columns)


def _table(columns: dict[str, dict[str, str]]) -> pd.DataFrame:
    rows = next(iter(columns.values()))
    return pd.DataFrame({"part": list(rows)} | {name: list(parts.values()) for name, parts in columns.items()})
