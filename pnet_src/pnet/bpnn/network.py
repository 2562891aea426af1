"""The network: ResNet features of a stamp, then five Bayesian linear layers (section 3.3.2, Fig. 5)."""

import math
from dataclasses import asdict, dataclass

import torch
from bayesian_torch.layers import LinearFlipout
from torch import Tensor, nn
from torch.nn import functional

from pnet.bpnn.inputs import CONTEXT, IMAGES, Apertures, Inputs, Stamps, make_inputs
from pnet.errors import ConfigError

EXPANSION = 4  # of a bottleneck block, as in ResNet-50


@dataclass(frozen=True)
class BPNNConfig:
    """What a BPNN looks like.

    Parameters
    ----------
    stamp : int
        Odd width of the stamp in pixels; 9 in the paper.
    blocks, widths : tuple of int
        Bottleneck blocks of each stage and their inner width; (3, 4, 6, 3) and (64, 128, 256, 512) make a ResNet-50.
    hidden : tuple of int
        Widths of the first four flipout layers; the fifth gives mean and ln σ.
    target : {'magnitude', 'correction'}
        What is predicted: the magnitude from nothing, or the correction to the sum over the stamp in units of its
        expected error.
    context : bool
        Whether the frame's PSF width, the position in the pixel and simple fluxes join the features.
    prior_sigma : float
        Standard deviation of the Gaussian prior of every weight.
    """

    stamp: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    hidden: tuple[int, ...]
    target: str
    context: bool
    prior_sigma: float = 1.0

    def __post_init__(self):
        for name in ("blocks", "widths", "hidden"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.stamp % 2 == 0 or self.stamp < 5:
            raise ConfigError(f"stamp is {self.stamp}, allowed are odd widths from 5 px")
        if self.target not in ("magnitude", "correction"):
            raise ConfigError(f"target is {self.target!r}, allowed are 'magnitude' and 'correction'")
        if len(self.blocks) != len(self.widths):
            raise ConfigError(f"blocks {self.blocks} and widths {self.widths} must be of equal length")
        if len(self.hidden) != 4:
            raise ConfigError(f"hidden is {self.hidden}, four widths are needed for five flipout layers")

    def as_dict(self) -> dict:
        """Plain values for a card or a checkpoint."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


CONFIGS = {
    # Section 3.3.2: ResNet-50 with a 3×3 stem, no pooling, no fully connected layer; the paper gives no head widths.
    "paper": BPNNConfig(9, (3, 4, 6, 3), (64, 128, 256, 512), (512, 256, 128, 64), "magnitude", False),
    # The same blocks, fewer and narrower, correcting the sum over the stamp: minutes on a laptop.
    "compact": BPNNConfig(9, (1, 1, 1), (16, 24, 24), (96, 64, 48, 32), "correction", True),
    # For tests and the smoke profile.
    "tiny": BPNNConfig(9, (1,), (4,), (16, 16, 16, 16), "correction", True),
}


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = width * EXPANSION
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class BayesianPhotometryNet(nn.Module):
    """Predict a distribution of the magnitude from a stamp.

    `forward` takes `Stamps` and returns (N, 2), the mean and ln σ of the target in units of `Inputs.scale` for one
    sample of the Bayesian layers' weights, with the `Inputs`. `inputs`, `features` and `sample` are its parts, so that
    many
    samples share the features.
    """

    def __init__(self, config: BPNNConfig):
        super().__init__()
        self.config = config
        self.stem = nn.Sequential(
            nn.Conv2d(IMAGES, config.widths[0], 3, 1, 1, bias=False),
            nn.BatchNorm2d(config.widths[0]),
            nn.ReLU(inplace=True),
        )
        stages, channels, side = [], config.widths[0], config.stamp
        for index, (count, width) in enumerate(zip(config.blocks, config.widths, strict=True)):
            for block in range(count):
                stride = 2 if index and not block else 1
                stages.append(Bottleneck(channels, width, stride))
                channels, side = width * EXPANSION, -(-side // stride)
        self.stages = nn.Sequential(*stages)
        inputs = channels * side**2 + (CONTEXT if config.context else 0)
        widths = (inputs, *config.hidden, 2)
        self.bayesian = nn.ModuleList(
            LinearFlipout(
                a, b, prior_variance=config.prior_sigma, posterior_rho_init=-6.0
            )  # it uses the "variance" as σ
            for a, b in zip(widths, widths[1:], strict=False)
        )
        for layer in self.bayesian:
            # bayesian-torch starts every mean at N(0, 0.1): with thousands of inputs the first output would explode.
            nn.init.kaiming_uniform_(layer.mu_weight, a=math.sqrt(5))
            nn.init.zeros_(layer.mu_bias)

        unknown = Apertures.unknown()
        self.register_buffer("aperture_widths", unknown.widths)
        self.register_buffer("aperture_logs", unknown.logs)

    def calibrate_apertures(self, pixel_scale: float = 0.396) -> None:
        """Fill in the aperture corrections (some seconds); they are saved with the weights."""
        measured = Apertures.calibrated(self.config.stamp, pixel_scale)
        self.aperture_widths.copy_(measured.widths)
        self.aperture_logs.copy_(measured.logs)

    def inputs(self, stamps: Stamps) -> Inputs:
        """Return what `forward` takes for these stamps."""
        return make_inputs(stamps, self.config.target, Apertures(self.aperture_widths, self.aperture_logs))

    def features(self, inputs: Inputs) -> Tensor:
        """Return the deterministic features (N, F) of the stamps, with the context where the network has one."""
        x = self.stages(self.stem(inputs.images)).flatten(1)
        return torch.cat([x, inputs.context], dim=1) if self.config.context else x

    def sample(self, features: Tensor) -> Tensor:
        """Return (N, 2) outputs of one draw of the weights."""
        for layer in self.bayesian[:-1]:
            features = functional.relu(layer(features, return_kl=False))
        return self.bayesian[-1](features, return_kl=False)

    def forward(self, stamps: Stamps) -> tuple[Tensor, Inputs]:
        """Return one sample for stamps, and the inputs that give it its units."""
        inputs = self.inputs(stamps)
        return self.sample(self.features(inputs)), inputs
