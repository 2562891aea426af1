"""Where things live. Notebooks and modules take their folders from here and build none themselves."""

import os
from pathlib import Path


def _find_root() -> Path:
    """Return the project's root: $PNET_ROOT, or the checkout that this file lies in, or the working folder."""
    if os.environ.get("PNET_ROOT"):
        return Path(os.environ["PNET_ROOT"]).resolve()
    checkout = Path(__file__).resolve().parents[3]
    return checkout if (checkout / "data_manifests").is_dir() else Path.cwd()


ROOT = _find_root()
MANIFESTS = ROOT / "data_manifests"  # what data exists: fields, hashes, recipes, weights, paper values
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
WEIGHTS = ROOT / "weights"  # released weights and their cards
RESULTS = ROOT / "results"  # released measurements and ledger
BUILD = ROOT / "build"  # everything that a run makes: build/<profile>/...


def data_root() -> Path:
    """Return the folder of downloads, shared by all profiles ($PNET_DATA or ``data/`` in the project)."""
    return Path(os.environ.get("PNET_DATA", ROOT / "data"))


def folder_of(output: str | os.PathLike) -> Path:
    """Return a profile's folder; relative ones count from the project's root."""
    return ROOT / output


def shown(output: str | os.PathLike) -> str:
    """Return a path as commands name it: relative to the project where it lies inside, elsewhere by its name in angle
    brackets, as records name no machine."""
    path = Path(output)
    if not path.is_absolute():
        return str(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else f"<{path.name}>"
