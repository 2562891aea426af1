"""The settings of a training run, in one dataclass: the options of ``pnet train``, the sections ``train-…`` of a
profile, the recorded command and what a card tells of a run are its fields."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pnet.common import paths
from pnet.common.errors import ConfigError

KINDS = ("detection", "bpnn")
STARS = ("bpnn",)  # networks of single stars
# The parts that hold still while new data is met (section 4.1): the Hourglass Network and the photometry branch of the
# detection net, the feature extraction of the BPNN.
FREEZE = {
    "detection": ("hourglasses", "features", "merges", *(f"preheads.{i}.heads.flux" for i in range(4))),
    "bpnn": ("stem", "stages"),
}


@dataclass(frozen=True)
class FitConfig:
    """How long and how a network is trained: `epochs` of `steps` batches each.

    `learning_rate` is the peak; it rises linearly over `warmup` steps and falls along a cosine to a hundredth.
    Gradients of a norm above `clip_norm` are scaled down (section 4.2). For `freeze_epochs` epochs the modules whose
    names start with one of `freeze` stay as they are (section 4.1).

    Raises
    ------
    ConfigError
        If there is not at least one epoch and step, or learning rate or norm are not positive.
    """

    epochs: int
    steps: int
    learning_rate: float = 1e-3
    warmup: int = 200
    clip_norm: float = 1.0
    freeze_epochs: int = 0
    freeze: tuple[str, ...] = ()
    seed: int = 2023

    def __post_init__(self):
        for name in ("epochs", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if not self.learning_rate > 0 or not self.clip_norm > 0:
            raise ConfigError(f"learning_rate {self.learning_rate} and clip_norm {self.clip_norm} must be positive")

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over the whole run."""
        total = self.epochs * self.steps
        warm = min(1.0, (step + 1) / max(1, min(self.warmup, total // 5)))
        return self.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / total)))


def _setting(
    text: str,
    default: Any = None,
    *,
    kinds: tuple[str, ...] = KINDS,
    least: float | None = None,
    allowed: tuple[str, ...] = (),
) -> Any:
    """Return a field: what it means, its default (a mapping where kinds differ), who has it, what it may be."""
    own = dict(default) if isinstance(default, Mapping) else dict.fromkeys(kinds, default)
    common = default if not isinstance(default, Mapping) and kinds == KINDS else None
    text += f" {' or '.join(allowed)}." if allowed else ""
    text += f" For {' and '.join(own)} only." if tuple(own) != KINDS else ""
    if common is None and default is not None:
        text += " By default " + ", ".join(f"{value} ({kind})" for kind, value in own.items()) + "."
    return field(default=common, metadata={"help": text, "own": own, "least": least, "allowed": allowed})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; every field says in its help what it is, and None stands for the kind's default.

    The paper trains the detection net with 40 fields of 512 px in a batch for 40 to 50 epochs of 324 s, and the BPNN
    with 2,000 stamps in a batch, 12 s an epoch (one RTX 3090 Ti); ``notebooks/profiles/paper.yml`` holds these sizes.

    Raises
    ------
    ConfigError
        If a value is not allowed, or set for a kind of network that has no such setting.
    """

    kind: str
    config: str = _setting("Size of the network: compact, paper, or tiny for trials.", "compact")
    dataset: str = _setting("Whose frames are mixed in:", "simulation", allowed=("simulation", "sdss"))
    manifest: str = _setting("Manifest of the SDSS fields, a name in data_manifests/ or a path.", "sdss-standard")
    simulated: bool = _setting("Mix in simulated frames, the profile's unless others are named.", True)
    frames: str | None = _setting("Folder with train/ and val/ of simulated frames in place of the profile's.")
    validation: int | None = _setting("Validate on so many frames at most.", least=1)
    rendered: bool = _setting("Render most of each batch on the fly.", True)
    injected: str | None = _setting("SDSS manifest with frames to add stars to.", kinds=("detection",))
    epochs: int | None = _setting("Epochs.", {"detection": 60, "bpnn": 40}, least=1)
    steps: int | None = _setting("Batches in an epoch.", {"detection": 200, "bpnn": 100}, least=1)
    batch_size: int | None = _setting("Fields or stamps in a batch.", {"detection": 8, "bpnn": 1024}, least=1)
    micro_batch: int | None = _setting(
        "Fields or stamps at once, of which a batch is made up where memory is short; by default a device's share. "
        "The paper's detection net takes 5 GB and, by estimate, 0.62 GB for each field of 512 px: 10 of its 40 at "
        "once on a card of 16 GB, 20 on one of 24 GB, all on one of 80 GB.",
        least=1,
    )
    field_size: int | None = _setting("Width of a training field in pixels.", 256, kinds=("detection",), least=64)
    learning_rate: float = _setting("Peak of the learning rate.", 2e-3, least=0)
    temperature: float | None = _setting("Weight of the KL term; 1 is Eq. 12.", 1.0, kinds=STARS, least=0)
    detection: str | None = _setting("Weights of the net that finds the stars.", "released", kinds=STARS)
    freeze_epochs: int = _setting("Epochs in which what new data leaves as it is holds still.", 0, least=0)
    start: str | None = _setting("Pre-trained weights to begin with.")
    precision: str = _setting(
        "Of the arithmetic, 16-mixed standing in for bf16-mixed on a card without bfloat16:",
        "32-true",
        allowed=("32-true", "bf16-mixed", "16-mixed"),
    )
    seed: int = _setting("All random numbers follow from it.", 2023, least=0)
    accelerator: str = _setting("What computes:", "auto", allowed=("auto", "cpu", "cuda", "mps"))
    devices: str = _setting("How many of them, or auto; they share each step.", "auto")

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ConfigError(f"network is {self.kind!r}, allowed are {', '.join(KINDS)}")
        for each in fields(self)[1:]:
            self._check(each.name, each.metadata)
        # late: the networks bring torch along, and the command line asks this module for its options only
        from pnet.detection.network import CONFIGS as DETECTION_CONFIGS
        from pnet.stars.network import CONFIGS as STAR_CONFIGS

        known = DETECTION_CONFIGS if self.kind == "detection" else STAR_CONFIGS
        if self.config not in known:
            raise ConfigError(f"config is {self.config!r}, allowed are {', '.join(sorted(known))}")
        if self.freeze_epochs and self.start is None:
            raise ConfigError("freeze_epochs needs start: freezing random weights would train nothing")
        if not self.learning_rate:
            raise ConfigError("learning_rate is 0, it must be positive")
        if not self.rendered and not self.simulated and self.dataset == "simulation":
            raise ConfigError("there is nothing to train on: set rendered or simulated, or dataset to sdss")
        if self.devices != "auto" and not (self.devices.isdigit() and int(self.devices)):
            raise ConfigError(f"devices is {self.devices!r}, allowed are auto and a positive number")
        multiple = known[self.config].multiple if self.kind == "detection" else 1
        if self.kind == "detection" and self.field_size % multiple:
            raise ConfigError(f"field_size is {self.field_size}, it must be a multiple of {multiple} px")
        at_once = self.at_once(1 if self.devices == "auto" else int(self.devices))
        if at_once == 1 and self.field_size == multiple:
            raise ConfigError(f"field_size is {multiple} with one field at once: the narrowest layer sees one value")

    def _check(self, name: str, about: Mapping[str, Any]) -> None:
        """Fill in the kind's default; refuse a value that is out of its range or not for this kind."""
        value, own, least = getattr(self, name), about["own"], about["least"]
        if self.kind not in own:
            if value is not None:
                raise ConfigError(f"{name} is {value!r}, but a {self.kind} network has none, only {' and '.join(own)}")
            return
        if value is None:
            value = own[self.kind]
        elif isinstance(value, os.PathLike) or name == "devices":
            value = str(value)
        object.__setattr__(self, name, value)
        if least is not None and value is not None:
            whole = not isinstance(own[self.kind], float)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ConfigError(f"{name} is {value!r}, it must be a {'whole ' if whole else ''}number")
            if not value >= least:
                raise ConfigError(f"{name} is {value}, it must be at least {least}")
        if about["allowed"] and value not in about["allowed"]:
            raise ConfigError(f"{name} is {value!r}, allowed are {', '.join(about['allowed'])}")

    def at_once(self, devices: int) -> int:
        """Return how many fields or stamps each of so many devices takes at once.

        Raises
        ------
        ConfigError
            If a batch cannot be made up of so many, or they are too few to mix in those of frames.
        """
        at_once = self.micro_batch or max(1, self.batch_size // devices)
        if self.batch_size % (at_once * devices):
            raise ConfigError(
                f"batch_size is {self.batch_size}, it must be a multiple of devices times micro_batch, "
                f"{devices} × {at_once}"
            )
        least = 4 if self.injected or self.kind in STARS else 2  # a quarter of them, or half, comes from frames
        mixed = self.injected or (self.rendered and (self.simulated or self.dataset == "sdss"))
        if mixed and at_once < least:
            raise ConfigError(f"{at_once} at once; of which some come from frames, they must be at least {least}")
        return at_once

    def fit(self) -> FitConfig:
        """Return the loop's part of the settings."""
        names = ("epochs", "steps", "learning_rate", "freeze_epochs", "seed")
        freeze = FREEZE[self.kind] if self.freeze_epochs else ()
        return FitConfig(freeze=freeze, **{name: getattr(self, name) for name in names})

    def settings(self) -> dict[str, Any]:
        """Return every setting that this kind of network has and that is set, but those of the machine."""
        own = {name: value for name, value in vars(self).items() if value is not None}
        return {name: value for name, value in own.items() if name not in ("accelerator", "devices")}

    def command(self, output: str | os.PathLike) -> str:
        """Return the command line that makes this run in a profile's folder; other folders by their names alone."""
        words = [f"python -m pnet train {self.kind} --output {paths.shown(output)}"]
        for name, value in list(self.settings().items())[1:]:
            option = name.replace("_", "-")
            if isinstance(value, bool):
                words += [] if value else [f"--no-{option}"]
            else:
                is_path = isinstance(value, str) and os.sep in value
                words.append(f"--{option} {paths.shown(Path(value)) if is_path else value}")
        return " ".join(words)
