"""Google Colab: install what is missing without touching torch, name the device, pick a profile.

Runs before anything is installed, so it imports the standard library only at the top.
"""

import contextlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from typing import Any

from pnet.common import paths

# Never reinstalled: Colab's own builds match its driver, and the image's NumPy is loaded already.
KEEP = ("torch", "torchvision", "torchaudio", "numpy", "pandas", "matplotlib", "scipy")
GPU_MEMORY = 20.0  # GiB from which on training at the paper's size is offered


def missing(requirements: list[str]) -> list[str]:
    """Return those of `requirements` (as ``astropy>=6.1``) whose package is not installed."""
    names = {re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]: requirement for requirement in requirements}
    there = installed(names)
    return [requirement for name, requirement in names.items() if name not in there]


def installed(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed, with local labels such as +cu128."""
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def prepare() -> None:
    """Install the packages that this machine lacks, print one line about it, and remember the profile."""
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    absent = missing(project["dependencies"])
    if absent:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as stream:
            stream.write("".join(f"{name}=={version}\n" for name, version in installed(KEEP).items()))
            stream.flush()
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", stream.name, *absent]
            subprocess.run(command, check=True)
    profile, device = choose()
    os.environ["PNET_PROFILE"] = profile
    print(f"{device}; profile {profile} (PNET_PROFILE chooses another before this cell)")


def choose() -> tuple[str, str]:
    """Return the profile for this machine and a description of its device.

    ``PNET_PROFILE`` wins; else ``paper`` on a GPU with room for the paper's batch, ``standard`` anywhere else.
    """
    import torch

    profile, device = "standard", f"CPU with {os.cpu_count()} cores"
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        device = f"{torch.cuda.get_device_name(0)} with {memory:.0f} GiB"
        profile = "paper" if memory >= GPU_MEMORY else "standard"
    versions = f"Python {sys.version.split()[0]}, torch {torch.__version__}"
    return os.environ.get("PNET_PROFILE", profile), f"{versions}, {device}"


def parameters(stem: str) -> dict[str, Any]:
    """Return the values of the chosen profile for the notebook `stem`, as the runner would inject them."""
    from pnet.book import profiles

    return profiles.load(os.environ.get("PNET_PROFILE", "standard")).parameters(stem)
