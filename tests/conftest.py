"""Fixtures that every test may use."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from pnet.common import paths

# Threads of one test would only wait for those of the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples every time, and no test fails because the machine is slow.
settings.register_profile("pnet", derandomize=True, deadline=None, database=None)
settings.load_profile("pnet")


def shared_folder() -> Path | None:
    """Return the folder with real SkyMaker and SDSS frames: $PNET_SHARED, or ``shared`` beside the project."""
    folder = Path(os.environ.get("PNET_SHARED", paths.ROOT.parent / "shared"))
    return folder if (folder / "skymaker").is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real frames; the test is skipped where there is none."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("real frames: no folder shared/ beside the project (or $PNET_SHARED)")
    return folder


def needs_program(*names: str):
    """Mark a test that needs a program on PATH (any of `names`)."""
    found = any(shutil.which(name) for name in names)
    return pytest.mark.skipif(not found, reason=f"program {' or '.join(names)} is not installed")


@pytest.fixture(scope="session")
def rendered(tmp_path_factory) -> Path:
    """File of a frame of the renderer with stars as in the paper, the same in every session."""
    from pnet.simulation.datasets import make_dataset
    from pnet.simulation.recipe import Recipe

    folder = tmp_path_factory.mktemp("rendered")
    return make_dataset(folder, Recipe.load(), "test", 1, 77, engine="renderer", progress=False)[0]


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers with a fixed seed."""
    return np.random.default_rng(2023)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_outside_data(monkeypatch):
    """The user's environment must not decide what a test sees."""
    for name in ("SKYMAKER_FRAMES", "SDSS_MIRROR", "SKY", "PNET_DATA"):
        monkeypatch.delenv(name, raising=False)
