"""Profiles: one YAML file with the parameters of every notebook and of every step before them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pnet.common import paths
from pnet.common.errors import ConfigError, MissingError

RESERVED = ("profile", "output")  # the runner sets them: they follow from the profile's name


@dataclass(frozen=True)
class Profile:
    """What one profile asks for.

    Parameters
    ----------
    name : str
        The file's stem: ``smoke``, ``standard``, ``paper`` or the user's own.
    common : dict
        Parameters that every notebook gets.
    notebooks : dict of dict
        Parameters by notebook, as ``05_detection``.
    steps : dict of dict
        Options by step that is not a notebook (``simulate``, ``train-detection``, ...), named as on the command line.
    """

    name: str
    common: dict[str, Any] = field(default_factory=dict)
    notebooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """Folder of everything this profile makes, relative to the project's root."""
        return f"build/{self.name}"

    def parameters(self, stem: str) -> dict[str, Any]:
        """Return the parameters of the notebook `stem`: the common ones, then its own, then name and folder."""
        return {**self.common, **self.notebooks.get(stem, {}), "profile": self.name, "output": self.output}

    def options(self, step: str) -> list[str]:
        """Return the command line options of `step`, such as ``["--count", "12", "--resume"]``."""
        words: list[str] = []
        for name, value in self.steps.get(step, {}).items():
            option = "--" + name.replace("_", "-")
            if isinstance(value, bool):
                words += [option] if value else []
            elif isinstance(value, list):
                for item in value:
                    words += [option, str(item)]
            elif value is not None:
                words += [option, str(value)]
        return words


def names() -> list[str]:
    """Return the names of the profiles that come with the project."""
    return sorted(path.stem for path in paths.PROFILES.glob("*.yml"))


def load(name: str | Path, notebooks: list[str] | None = None) -> Profile:
    """Read a profile by name (``standard``) or by path (``my/own.yml``).

    Parameters
    ----------
    name : str or Path
    notebooks : list of str, optional
        Stems of the notebooks that exist; a section for any other is refused. Without it sections are not checked.

    Raises
    ------
    MissingError
        If there is no such profile.
    ConfigError
        If the file is no YAML, or holds a section that is not known or is not a mapping.
    """
    path = Path(name)
    if path.suffix not in (".yml", ".yaml"):
        path = paths.PROFILES / f"{name}.yml"
    if not path.is_file():
        raise MissingError(f"profile {name}: there is no {path.name}; the profiles here are {', '.join(names())}")
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"profile {path.name}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"profile {path.name}: holds a {type(content).__name__}, it must be a mapping of sections")
    sections = {}
    for key, section in content.items():
        if section is None:
            section = {}
        if not isinstance(section, dict):
            raise ConfigError(f"profile {path.name}: section {key} must be a mapping, it is {section!r}")
        sections[key] = section
    common, steps = sections.pop("common", {}), sections.pop("steps", {})
    if notebooks is not None:
        unknown = sorted(set(sections) - set(notebooks))
        if unknown:
            known = ", ".join(["common", "steps", *notebooks])
            raise ConfigError(f"profile {path.name}: section {', '.join(unknown)} is not known; allowed are {known}")
    for key, section in {"common": common, **sections}.items():
        taken = sorted(set(section) & set(RESERVED))
        if taken:
            raise ConfigError(f"profile {path.name}: {key} sets {', '.join(taken)}, which follows from the file's name")
    for step, options in steps.items():
        if not isinstance(options, dict | None):
            raise ConfigError(f"profile {path.name}: steps.{step} must be a mapping of options, it is {options!r}")
    return Profile(path.stem, common, sections, {step: options or {} for step, options in steps.items()})
