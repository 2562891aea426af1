"""Profiles: one YAML file with the parameters of every notebook and of every step before them, Snakemake's config."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pnet.book import notebooks
from pnet.common import paths
from pnet.common.errors import ConfigError, MissingError
from pnet.training.config import KINDS, TrainConfig

RESERVED = ("profile", "output")  # they follow from the profile's name
TRAINING = {f"train-{kind}": kind for kind in KINDS}
ALL = "train"  # what both training runs are given in place of their own settings
STEPS = ("simulate", "simulate-realistic", *TRAINING, ALL, "measure")
# Notebooks that make what they show, by the settings of the steps that made it before.
SIMULATED = ("01_skymaker_simulation",)
TRAINED = {"03_train_detection": ("detection",), "04_train_bpnn": ("bpnn",)}
MEASURED = ("05_detection", "06_photometry_astrometry", "07_uncertainty")


@dataclass(frozen=True)
class Profile:
    """What one profile asks for."""

    name: str  # the file's stem: smoke, standard, paper or the user's own
    common: dict[str, Any] = field(default_factory=dict)  # parameters that every notebook gets
    notebooks: dict[str, dict[str, Any]] = field(default_factory=dict)  # parameters by notebook, as 05_detection
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)  # options of STEPS, named as on the command line

    @property
    def output(self) -> str:
        """Folder of everything this profile makes, relative to the project's root."""
        return f"build/{self.name}"

    def parameters(self, stem: str) -> dict[str, Any]:
        """Return the parameters of the notebook `stem`: the common ones, the settings with which it asks for what the
        steps before it have made, its own, and name and folder."""
        simulated, asked = self.steps.get("simulate", {}), {}
        trained = [kind for kind in TRAINED.get(stem, ()) if f"train-{kind}" in self.steps]
        if stem in SIMULATED:
            asked = {f"n_{split}": n for split, n in simulated.items()}
        elif stem in MEASURED:
            asked = {"measure": "live", "frames": simulated.get("test", 120), "weights": self.measuring()}
        elif trained:
            asked = {"train": "live", **{kind: self.training(kind) for kind in trained}}
        return {**self.common, **asked, **self.notebooks.get(stem, {}), "profile": self.name, "output": self.output}

    def options(self, step: str) -> list[str]:
        """Return the command line options of `step`, such as ``["--count", "12", "--resume"]``."""
        words: list[str] = []
        for name, value in self.steps.get(step, {}).items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            elif value is not None:
                words += [f"--{option}", str(value)]
        return words

    def card(self, kind: str) -> str:
        """Return the card that this profile's training run of a network leaves."""
        config = self.steps.get(f"train-{kind}", {}).get("config", "compact")
        return f"{self.output}/{kind}/{kind}-{config}.json"

    def weights(self, kind: str) -> str:
        """Return what this profile measures with: the card of its own run where it asks for that, else "released"."""
        own = f"train-{kind}" in self.steps and self.steps.get("measure", {}).get("weights") == "trained"
        return self.card(kind) if own else "released"

    def paper(self, kind: str) -> bool:
        """Return whether this profile's run of a network trains one of the paper's, as written."""
        return str(self.steps.get(f"train-{kind}", {}).get("config", "")).startswith("paper")

    def measuring(self) -> dict[str, str]:
        """Return the weights that the methods of a measurement take, as `evaluation.measurements.run` names them."""
        own = {f"paper_{kind}" if self.paper(kind) else kind: self.weights(kind) for kind in KINDS}
        return dict.fromkeys(KINDS, "released") | own

    def training(self, kind: str) -> dict[str, Any]:
        """Return the fields of `pnet.training.config.TrainConfig` that this profile's run of a network sets."""
        before = KINDS[: KINDS.index(kind)]  # each network starts from what those before it find
        return {name: self.weights(name) for name in before} | self.steps.get(f"train-{kind}", {})

    def check(self) -> "Profile":
        """Check every value against the notebooks, now and not after an hour; return the profile.

        A ConfigError for parameters of a notebook (`notebooks.parameters`) or settings of a training run that are not
        allowed.
        """
        for step in self.steps.keys() & TRAINING.keys():
            try:
                TrainConfig(TRAINING[step], **self.steps[step])
            except (ConfigError, TypeError) as error:
                raise ConfigError(f"profile {self.name}, {step}: {error}") from error
        for source in notebooks.sources():
            where = f"profile {self.name}, {source.stem}"
            notebooks.parameters(notebooks.read(source), self.parameters(source.stem), where)
        return self

    def check_machine(self) -> None:
        """Check before the first of many hours that this machine has what the training runs compute on and start from.

        A ConfigError or MissingError if it has not, or if its devices cannot share a batch.
        """
        from pnet.stars import weights  # slow to import
        from pnet.training.fit import machine

        for step in sorted(self.steps.keys() & TRAINING.keys()):
            config = TrainConfig(TRAINING[step], **self.steps[step])
            config.at_once(machine(config.accelerator, config.devices)[1])
            if config.start is not None:
                weights.resolve(config.kind, config.start)


def find(name: str | Path) -> Path:
    """Return the file of a profile given by name (``standard``) or by path (``my/own.yml``); MissingError for none."""
    path = Path(name)
    if path.suffix not in (".yml", ".yaml"):
        path = paths.PROFILES / f"{name}.yml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in paths.PROFILES.glob("*.yml")))
        raise MissingError(f"profile {name}: there is no {path.name}; the profiles here are {known}")
    return path


def load(name: str | Path) -> Profile:
    """Read a profile by name or by path.

    A MissingError if there is no such file, a ConfigError if it is no YAML, or not what `of` takes.
    """
    path = find(name)
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"profile {path.name}: not valid YAML: {error}") from error
    return of(path.stem, content)


def of(name: str, content: Mapping[str, Any]) -> Profile:
    """Return the profile that the sections of a file describe: ``common``, ``steps``, and one a notebook.

    A ConfigError if a section or step is not known, or is not a mapping.
    """
    stems = [source.stem for source in notebooks.sources()]
    sections = _mappings(content, f"profile {name}", ("common", "steps", *stems))
    steps = _mappings(sections.pop("steps", {}), f"profile {name}, steps", STEPS)
    for step in steps.keys() & TRAINING.keys():
        for setting, value in steps.get(ALL, {}).items():  # Snakemake takes a number of its command line for a word
            steps[step][setting] = yaml.safe_load(value) if isinstance(value, str) else value
    for key, section in sections.items():
        if taken := sorted(set(section) & set(RESERVED)):
            raise ConfigError(f"profile {name}: {key} sets {', '.join(taken)}, which follows from the file's name")
    return Profile(name, sections.pop("common", {}), sections, steps)


def _mappings(content: Any, where: str, known: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return a mapping of mappings whose keys are `known`; an empty section counts as a mapping without entries."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: holds a {type(content).__name__}, it must be a mapping")
    if unknown := sorted(set(content) - set(known)):
        raise ConfigError(f"{where}: {', '.join(unknown)} is not known; allowed are {', '.join(known)}")
    for key, section in content.items():
        if not isinstance(section, Mapping | None):
            raise ConfigError(f"{where}: {key} must be a mapping, it is {section!r}")
    return {key: dict(section or {}) for key, section in content.items()}
