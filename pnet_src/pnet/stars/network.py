"""The network of single stars: ResNet features of a stamp, then five linear layers (section 3.3.2, Fig. 5).

With Bayesian (flipout) layers it is the paper's BPNN.
"""

import math
from dataclasses import asdict, dataclass

import torch
from bayesian_torch.layers import LinearFlipout
from torch import Tensor, nn
from torch.nn import functional

from pnet.common.errors import ConfigError
from pnet.detection.network import shortcut
from pnet.stars.inputs import BARE_UNIT, CONTEXT, IMAGES, MAGNITUDE_ZERO, POGSON, STAMP, TARGETS, Inputs

EXPANSION = 4  # of a bottleneck block, as in ResNet-50
HEADS = ("flipout", "plain", "dropout")
DROPOUT = 0.1  # share of the hidden units that Monte Carlo dropout (Gal & Ghahramani 2016) leaves out
# ln of the electrons that a magnitude from nothing is centred on: g = 18 in an SDSS frame
MAGNITUDE_START = MAGNITUDE_ZERO + math.log(BARE_UNIT)
CHUNK = 2**25  # weights drawn at once: 128 MB


@dataclass(frozen=True)
class BPNNConfig:
    """What a network of single stars looks like.

    Parameters
    ----------
    stamp : int
        Odd width of the stamp in pixels; 9 in the paper.
    blocks, widths : tuple of int
        Bottleneck blocks of each stage and their inner width; (3, 4, 6, 3) and (64, 128, 256, 512) make a ResNet-50.
    hidden : tuple of int
        Widths of the first four linear layers; the fifth gives mean and ln σ of every target.
    target : {'magnitude', 'correction'}
        Whether the magnitude is predicted from nothing, or as a correction to an aperture's in units of its expected
        error. Positions are corrections in either case.
    context : bool
        Whether the frame's PSF width, the position in the pixel and classical measurements join the features.
    targets : tuple of {'mag', 'x', 'y'}
        What is predicted, in the order of `pnet.stars.inputs.TARGETS`; the paper's BPNN gives the magnitude only.
    head : {'flipout', 'plain', 'dropout'}
        Bayesian layers with flipout, deterministic ones (a heteroscedastic regression), or Monte Carlo dropout.
    prior_sigma : float
        Standard deviation of the Gaussian prior of every Bayesian weight.
    bare : bool
        Whether the network sees the pixels of the stamp as they are cut from the frame and nothing else, as the paper's
        does: no neighbour is taken off, no classical measurement made.
    """

    stamp: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    hidden: tuple[int, ...]
    target: str
    context: bool
    targets: tuple[str, ...] = TARGETS
    head: str = "flipout"
    prior_sigma: float = 1.0
    bare: bool = False

    def __post_init__(self):
        for name in ("blocks", "widths", "hidden", "targets"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.stamp % 2 == 0 or not 5 <= self.stamp <= STAMP:
            raise ConfigError(f"stamp is {self.stamp}, allowed are odd widths from 5 to {STAMP} px")
        if self.target not in ("magnitude", "correction"):
            raise ConfigError(f"target is {self.target!r}, allowed are 'magnitude' and 'correction'")
        if self.head not in HEADS:
            raise ConfigError(f"head is {self.head!r}, allowed are {HEADS}")
        if not self.targets or self.targets != tuple(name for name in TARGETS if name in self.targets):
            raise ConfigError(f"targets are {self.targets}, allowed are some of {TARGETS}, in this order")
        if len(self.blocks) != len(self.widths):
            raise ConfigError(f"blocks {self.blocks} and widths {self.widths} must be of equal length")
        if self.bare and (self.context or self.target != "magnitude" or self.targets != ("mag",)):
            raise ConfigError("bare is set: context must not be, target must be 'magnitude' and targets ('mag',)")
        if len(self.hidden) != 4:
            raise ConfigError(f"hidden is {self.hidden}, four widths are needed for five linear layers")

    def as_dict(self) -> dict:
        """Plain values for a card or a checkpoint."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


CONFIGS = {
    # Section 3.3.2: ResNet-50 with a 3×3 stem, no pooling, no fully connected layer; the paper gives no head widths.
    "paper": BPNNConfig(
        9, (3, 4, 6, 3), (64, 128, 256, 512), (512, 256, 128, 64), "magnitude", False, ("mag",), bare=True
    ),
    # The same with a quarter of the width, the ablations' and trials' size.
    "paper-narrow": BPNNConfig(
        9, (3, 4, 6, 3), (16, 32, 64, 128), (128, 64, 32, 16), "magnitude", False, ("mag",), bare=True
    ),
    # The same blocks, fewer and narrower, correcting classical estimates: minutes on a laptop.
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
        self.shortcut = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


def _layer(head: str, inputs: int, outputs: int, prior_sigma: float) -> nn.Module:
    """Return one linear layer of a head."""
    if head != "flipout":
        return nn.Linear(inputs, outputs)
    # bayesian-torch uses what it calls the prior's variance as σ.
    layer = LinearFlipout(inputs, outputs, prior_variance=prior_sigma, posterior_rho_init=-6.0)
    # It starts every mean at N(0, 0.1): with thousands of inputs the first output would explode.
    nn.init.kaiming_uniform_(layer.mu_weight, a=math.sqrt(5))
    nn.init.zeros_(layer.mu_bias)
    return layer


class BayesianPhotometryNet(nn.Module):
    """Predict distributions of magnitude and position from a stamp.

    `forward` takes `Inputs` and returns (N, 2 K) for the K targets, their means and then their ln σ in units of the
    scale that `units` gives, for one sample of the head's weights. `features`, `sample` and `samples` are its parts, so
    that many samples share the features.
    """

    def __init__(self, config: BPNNConfig):
        super().__init__()
        self.config = config
        self.stem = nn.Sequential(
            nn.Conv2d(1 if config.bare else IMAGES, config.widths[0], 3, 1, 1, bias=False),
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
        widths = (channels * side**2 + (CONTEXT if config.context else 0), *config.hidden, 2 * len(config.targets))
        self.head = nn.ModuleList(
            _layer(config.head, a, b, config.prior_sigma) for a, b in zip(widths, widths[1:], strict=False)
        )

    def units(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return base and scale (N, K) of the network's own targets."""
        columns = [TARGETS.index(name) for name in self.config.targets]
        base, scale = inputs.base[:, columns], inputs.scale[:, columns]
        if self.config.target == "magnitude" and not self.config.bare:
            base, scale = base.clone(), scale.clone()
            base[:, 0], scale[:, 0] = -POGSON * MAGNITUDE_START, 1.0
        return base, scale

    def features(self, inputs: Inputs) -> Tensor:
        """Return the deterministic features (N, F) of the stamps, with the context where the network has one."""
        margin = (inputs.images.shape[-1] - self.config.stamp) // 2
        inner = slice(margin, margin + self.config.stamp)
        x = self.stages(self.stem(inputs.images[:, :, inner, inner])).flatten(1).float()
        return torch.cat([x, inputs.context], dim=1) if self.config.context else x

    def sample(self, features: Tensor) -> Tensor:
        """Return (N, 2 K) outputs of one draw of the weights; of the only one there is for a plain head."""
        # bfloat16 would round a magnitude's correction to a hundredth of its unit: the head stays in single precision.
        with torch.autocast(features.device.type, enabled=False):
            for index, layer in enumerate(self.head):
                features = layer(features, return_kl=False) if self.config.head == "flipout" else layer(features)
                if index < len(self.head) - 1:
                    features = functional.relu(features)
                    if self.config.head == "dropout":
                        features = functional.dropout(features, DROPOUT)
        return features

    def samples(self, features: Tensor, count: int):
        """Yield (T, N, 2 K) outputs of altogether `count` draws, as many at once as CHUNK allows.

        Flipout gives each star of a batch its own sign of one perturbation; here each sample's weights are drawn
        outright and serve all stars, so that one batched product does the work of many passes. For a single star both
        have the same distribution.
        """
        if self.config.head != "flipout":
            for _ in range(count if self.config.head == "dropout" else 1):
                yield self.sample(features)[None]
            return
        at_once = max(1, CHUNK // max(layer.mu_weight.numel() for layer in self.head))
        for first in range(0, count, at_once):
            n, x = min(at_once, count - first), features
            for index, layer in enumerate(self.head):
                weight, bias = (_draw(layer, part, n) for part in ("weight", "bias"))
                if index == 0:  # all samples see the same features: one product
                    flat = x @ weight.flatten(0, 1).T
                    x = flat.unflatten(1, (n, -1)).transpose(0, 1) + bias[:, None]
                else:
                    x = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
                x = functional.relu(x) if index < len(self.head) - 1 else x
            yield x

    def forward(self, inputs: Inputs) -> Tensor:
        """Return one sample."""
        return self.sample(self.features(inputs))


def _draw(layer: nn.Module, part: str, count: int) -> Tensor:
    """Return (count, ...) draws of a Bayesian layer's weight or bias."""
    mean, rho = getattr(layer, f"mu_{part}"), getattr(layer, f"rho_{part}")
    return mean + functional.softplus(rho) * torch.randn(count, *mean.shape, device=mean.device)
