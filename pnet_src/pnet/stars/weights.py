"""Weights on disk: a safetensors file and a card that says what they are, with a hash that is checked on loading."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import atomic_path, read_json, sha256, write_json
from pnet.common.paths import WEIGHTS
from pnet.detection.network import DetectionConfig, PhotometryDetectionNet
from pnet.stars.network import BayesianPhotometryNet, BPNNConfig

RELEASED = {"detection": "detection-compact", "bpnn": "bpnn-compact"}
# The networks that measure together
SETS = {"released": RELEASED, "paper": {"detection": "detection-paper-narrow", "bpnn": "bpnn-paper-narrow"}}
NETWORKS: dict[str, tuple[type[nn.Module], type]] = {
    "detection": (PhotometryDetectionNet, DetectionConfig),
    "bpnn": (BayesianPhotometryNet, BPNNConfig),
}


def resolve(kind: str, weights: str | os.PathLike = "released") -> Path:
    """Return the card that `weights` means: a set of `SETS`, the name of a card in ``weights/``, or a path of a card.

    Raises
    ------
    ConfigError, MissingError
    """
    if kind not in RELEASED:
        raise ConfigError(f"kind is {kind!r}, allowed are {sorted(RELEASED)}")
    if str(weights) in SETS:
        weights = SETS[str(weights)][kind]
    path = Path(weights)
    if path.suffix != ".json":
        path = WEIGHTS / f"{weights}.json"
    if not path.is_file():
        raise MissingError(
            f"weights {weights!r} of the {kind} network: {path} does not exist; `git checkout -- weights` brings the "
            f"released ones back, `pnet train {kind}` makes new ones"
        )
    return path


def save(model: nn.Module, path: str | os.PathLike, *, kind: str, card: Mapping[str, Any]) -> Path:
    """Write ``path.safetensors`` and ``path.json`` and return the card's path.

    Parameters
    ----------
    model : nn.Module
        Has a ``config`` with ``as_dict()``.
    path : path
        Without suffix.
    kind : {'detection', 'bpnn'}
    card : mapping
        What a reader must know: data, steps, device, date, commit, command, figures.
    """
    path = Path(path)
    # Not with_suffix: a name such as detection-v1.2 has a dot.
    tensors = path.parent / f"{path.name}.safetensors"
    with atomic_path(tensors) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, temporary)
    target = path.parent / f"{path.name}.json"
    write_json(
        target,
        {**card, "kind": kind, "config": model.config.as_dict(), "file": tensors.name, "sha256": sha256(tensors)},
    )
    return target


def check(card: str | os.PathLike) -> dict[str, Any]:
    """Read a card and check that its weights are there and have the card's hash.

    Raises
    ------
    DataError
        If the card is no card, or the hash differs.
    MissingError
        If the weights' file is not there.
    """
    card = Path(card)
    try:
        content = read_json(card)
        tensors = card.parent / content["file"]
        expected = content["sha256"]
        content["config"], content["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{card} is not a card of weights ({error!r})") from error
    if not tensors.is_file():
        raise MissingError(
            f"{tensors}, named by {card}, does not exist; `git checkout -- weights` brings released ones back"
        )
    found = sha256(tensors)
    if found != expected:
        raise DataError(
            f"{tensors} has SHA-256 {found}, its card {card.name} says {expected}: the file is damaged or belongs to "
            "another card; `git checkout -- weights` brings released ones back"
        )
    return content


def load(kind: str, weights: str | os.PathLike = "released", device: str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """Load a network in evaluation mode.

    Parameters
    ----------
    kind : {'detection', 'bpnn'}
    weights : str or path
        As in `resolve`.
    device : str

    Returns
    -------
    model : nn.Module
    card : dict

    Raises
    ------
    ConfigError, MissingError, DataError
        If the card or the file is missing or wrong, or the tensors do not fit the network.
    """
    path = resolve(kind, weights)
    card = check(path)
    if card["kind"] != kind:
        raise DataError(f"{path} is the card of a {card['kind']} network, a {kind} network is needed")
    network, config = NETWORKS[kind]
    model = network(config(**card["config"]))
    try:
        model.load_state_dict(load_file(path.parent / card["file"]))
    except (RuntimeError, OSError) as error:
        raise DataError(f"{path.parent / card['file']} does not fit the configuration in {path}: {error}") from error
    return model.to(device).eval(), card
