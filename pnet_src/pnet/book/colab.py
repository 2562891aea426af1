"""Google Colab: install what is missing without touching torch, name the device, pick a profile.

Runs before anything is installed, so it imports the standard library only at the top.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from typing import Any

from pnet.common import paths

# Never reinstalled: Colab's own builds match its driver, and the image's NumPy is loaded already.
KEEP = ("torch", "torchvision", "torchaudio", "numpy", "pandas", "matplotlib", "scipy")
GPU_MEMORY = 20.0  # GiB from which on training at the paper's size is offered


def missing(requirements: list[str]) -> list[str]:
    """Return those of `requirements` (as ``astropy>=6.1``) whose package is not installed."""
    absent = []
    for requirement in requirements:
        name = re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            absent.append(requirement)
    return absent


def install_command(requirements: list[str], constraints: str) -> list[str]:
    """Return the pip command for `requirements` that leaves the packages in the file `constraints` alone."""
    return [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", constraints, *requirements]


def prepare() -> None:
    """Install the packages that this machine lacks, print one line about it, and remember the profile."""
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    absent = missing(project["dependencies"])
    if absent:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as stream:
            for name in KEEP:
                try:
                    # a local label such as +cu128 is part of the version that must stay
                    stream.write(f"{name}=={importlib.metadata.version(name)}\n")
                except importlib.metadata.PackageNotFoundError:
                    continue
            stream.flush()
            subprocess.run(install_command(absent, stream.name), check=True)
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
    return os.environ.get(
        "PNET_PROFILE", profile
    ), f"Python {sys.version.split()[0]}, torch {torch.__version__}, {device}"


def parameters(stem: str) -> dict[str, Any]:
    """Return the values of the chosen profile for the notebook `stem`, as the runner would inject them."""
    from pnet.book import profiles

    return profiles.load(os.environ.get("PNET_PROFILE", "standard")).parameters(stem)
