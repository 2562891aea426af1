"""The network: Downsample, Extractor and PreHead modules (section 3.3.1, Fig. 3 and 4).

Tensors are (batch, channels, rows, columns). One cell of the output covers STRIDE × STRIDE pixels; cell (i, j) holds
the pixels STRIDE·i … STRIDE·i + 3.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pnet.common.errors import ConfigError

STRIDE = 4  # px per cell: the stem and the strided residual each halve the image
HEAD_CHANNELS = {"heatmap": 1, "offset": 2, "flux": 1, "size": 2}
ALLOWED = {"inputs": ("asinh", "asinh+linear"), "flux": ("linear", "log", "correction"), "focal": ("soft", "hard")}


@dataclass(frozen=True)
class DetectionConfig:
    """What a Photometry-Detection Net looks like.

    Parameters
    ----------
    stem : int
        Channels after the 7×7 convolution.
    channels : tuple of int
        Channels at each scale of an hourglass, from 1/4 of the image downwards; its depth is one less than their
        number.
    stacks : int
        Number of hourglasses.
    head : int
        Channels of a PreHead's hidden layer.
    inputs : {'asinh', 'asinh+linear'}
        'asinh' is one channel asinh((I − sky)/σ); the second adds (I − sky)/σ itself, clipped, where faint stars live.
    flux : {'linear', 'log', 'correction'}
        What the flux head predicts: the flux itself in units of `losses.LINEAR_UNIT` times the sky noise, as the
        paper's words say; its ln in units of the sky noise; or the ln of the ratio between the flux and a simple
        aperture flux at the position.
    offset_reach : int
        Offsets are learnt in the star's own cell (0, as in CenterNet) or in its neighbours up to this distance as well,
        so that a peak in the next cell still points at the star.
    focal : {'soft', 'hard'}
        CenterNet's focal loss with soft labels around a star, or the α-balanced one of Eq. 19, whose labels are 1 in a
        star's cell and 0 in all others.
    """

    stem: int
    channels: tuple[int, ...]
    stacks: int
    head: int
    inputs: str
    flux: str
    offset_reach: int
    focal: str = "soft"

    def __post_init__(self):
        object.__setattr__(self, "channels", tuple(self.channels))
        for name, allowed in ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, allowed are {', '.join(allowed)}")
        if self.stacks < 1 or len(self.channels) < 2:
            raise ConfigError(f"stacks is {self.stacks} and channels {self.channels}: at least 1 and 2 are needed")

    @property
    def multiple(self) -> int:
        """The image's sides must be multiples of this many pixels."""
        return STRIDE * 2 ** (len(self.channels) - 1)

    def as_dict(self) -> dict:
        """Plain values for a card or a checkpoint."""
        return asdict(self) | {"channels": list(self.channels)}


CONFIGS = {
    # Section 3.3.1 read literally. Depth 4 and two stacks of CenterNet's hourglass-104; the paper gives no widths,
    # these are CenterNet's.
    "paper": DetectionConfig(128, (256, 256, 384, 384, 384), 2, 256, "asinh", "linear", 0, "hard"),
    # The same at about a fifth of the width: a laptop trains it in an hour or two.
    "paper-narrow": DetectionConfig(24, (48, 48, 64, 64, 64), 2, 48, "asinh", "linear", 0, "hard"),
    # Of the same width and structure, with what the paper leaves open chosen for accuracy.
    "compact": DetectionConfig(24, (48, 48, 64, 64, 64), 2, 48, "asinh+linear", "correction", 1),
    # For tests and the smoke profile. Not fewer channels: torch 2.13's convolutions of 8 crash on some processors.
    "tiny": DetectionConfig(16, (16, 16, 16, 16, 16), 2, 16, "asinh+linear", "correction", 1),
}


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return what a residual block adds its input by: itself, projected where the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """Two 3×3 convolutions around a shortcut, which is projected where the shape changes (Residual1, Residual2)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class Hourglass(nn.Module):
    """Halve the map `depth` times, double it again, and add each scale's own features on the way up (Newell 2016)."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        here, below = channels[:2]
        self.skip = Residual(here, here)
        self.down = Residual(here, below, stride=2)
        self.inner = Hourglass(channels[1:]) if len(channels) > 2 else Residual(below, below)
        self.up = Residual(below, here)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.up(self.inner(self.down(x)))
        return self.skip(x) + functional.interpolate(inner, size=x.shape[-2:], mode="nearest")


class PreHeads(nn.Module):
    """The four PreHeads: 3×3 convolution, ReLU, 1×1 convolution each (Fig. 4)."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Conv2d(inputs, hidden, 3, 1, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, n, 1))
                for name, n in HEAD_CHANNELS.items()
            }
        )
        # Most cells are empty: start at a confidence of 0.1 so that the first steps are not spent on saying so.
        nn.init.constant_(self.heads["heatmap"][-1].bias, -2.19)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        # bfloat16 would round an offset to 0.01 px: the heads stay in single precision under autocast.
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            return {name: head(x) for name, head in self.heads.items()}


class PhotometryDetectionNet(nn.Module):
    """Find stars, their sub-pixel positions and their fluxes in one image.

    `forward` takes (B, C, H, W) with H and W multiples of STRIDE·2^depth and returns for every stack a dictionary of
    ``heatmap`` (B, 1, h, w; logits), ``offset`` (B, 2, h, w; x and y in cells from the cell's corner), ``flux``
    (B, 1, h, w; in units of its own, see `DetectionConfig.flux`) and ``size`` (B, 2, h, w; FWHM in cells), with
    h = H/STRIDE. The last one is the result; the others serve the intermediate supervision.
    """

    def __init__(self, config: DetectionConfig):
        super().__init__()
        self.config = config
        width = config.channels[0]
        self.downsample = nn.Sequential(
            nn.Conv2d(2 if config.inputs == "asinh+linear" else 1, config.stem, 7, 2, 3, bias=False),
            nn.BatchNorm2d(config.stem),
            nn.ReLU(inplace=True),
            Residual(config.stem, width, stride=2),
        )
        self.hourglasses = nn.ModuleList(Hourglass(config.channels) for _ in range(config.stacks))
        self.features = nn.ModuleList(Residual(width, width) for _ in range(config.stacks))
        self.merges = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
            for _ in range(config.stacks - 1)
        )
        self.preheads = nn.ModuleList(PreHeads(width, config.head) for _ in range(config.stacks))

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        multiple = self.config.multiple
        if x.shape[-1] % multiple or x.shape[-2] % multiple:
            raise ConfigError(f"the image is {tuple(x.shape[-2:])}, its sides must be multiples of {multiple} px")
        x = self.downsample(x)
        outputs = []
        for index, hourglass in enumerate(self.hourglasses):
            features = self.features[index](hourglass(x))
            # Only the last stack's heads are used after training (section 3.3.1).
            if self.training or index == len(self.hourglasses) - 1:
                outputs.append(self.preheads[index](features))
            if index < len(self.merges):
                x = functional.relu(x + self.merges[index](features))
        return outputs


def network_input(image: Tensor, sigma: Tensor, inputs: str) -> Tensor:
    """Return what the network sees.

    Parameters
    ----------
    image : Tensor, (B, H, W)
        Electrons, sky subtracted.
    sigma : Tensor, (B,)
        Noise of an empty pixel in electrons.
    inputs : str
        As in `DetectionConfig`.

    Returns
    -------
    Tensor, (B, 1 or 2, H, W)
    """
    scaled = image / sigma[:, None, None]
    channels = [torch.asinh(scaled) / 3]
    if inputs == "asinh+linear":
        channels.append(scaled.clamp(-5, 20) / 5)
    return torch.stack(channels, dim=1)
