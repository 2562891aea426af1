"""What is known of a training run: its card, its history, and whether this machine made it."""

import html
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pnet.common.errors import MissingError
from pnet.common.files import atomic_path
from pnet.common.paths import ROOT, WEIGHTS
from pnet.stars import weights
from pnet.training.fit import HISTORY, START_HISTORY

TITLES = {
    "detection": "Photometry-Detection Net",
    "refiner": "refinement step of the Photometry-Detection Net",
    "bpnn": "Bayesian Photometry Neural Network",
}


@dataclass(frozen=True)
class TrainingRecord:
    """A run of training.

    Parameters
    ----------
    kind : {'detection', 'refiner', 'bpnn'}
    card : dict
        As `pnet.stars.weights.check` returns it, its hash verified.
    history : DataFrame
        One row for each epoch; where the run started from another one's weights, after the rows of that run.
    origin : {'live', 'released'}
        Whether this build trained it.
    """

    kind: str
    card: dict[str, Any]
    history: pd.DataFrame
    origin: str

    def table(self) -> pd.DataFrame:
        """Return what a reader must know of the run, item by item."""
        card = self.card
        data, fit = card["data"], card["fit"]
        made = {
            "network": f"{TITLES[self.kind]}, file {card['file']}",
            "SHA-256": card["sha256"][:16] + "…",
            "command": card["command"],
            "commit": str(card["commit"])[:12],
            "date": str(card["date"])[:10],
            "device": f"{card['device']} ({card['machine']['cpu']}, {card['machine']['cores']} cores)",
            "seed": card["seed"],
            "epochs × steps × batch": f"{fit['epochs_done']} × {fit['steps']} × {fit['batch_size']}",
            "hours": f"{card['seconds'] / 3600:.2f}",
        }
        start, rank = card.get("start"), 1
        while start:
            epochs = start["fit"]["epochs_done"]
            key = "started from" if rank == 1 else f"started from ({rank})"
            made[key] = f"{start['command']} ({epochs} epochs, {start['seconds'] / 3600:.2f} hours)"
            start, rank = start.get("start"), rank + 1
        made |= {name.replace("_", " "): f"{data[name]:,}" for name in data if isinstance(data[name], int)}
        made |= {name.replace("_", " "): len(data[name]) for name in data if isinstance(data[name], list)}
        if card.get("recalibration"):
            for name, fitted in card["recalibration"].items():
                floor = f", at least {fitted['floor']:.4f} px" if fitted.get("floor") else ""
                text = f"× {fitted['ratio']:.3f}{floor}, from {fitted['n']:,} validation stars"
                made[f"recalibration of σ, {name}"] = text
        return pd.DataFrame({"item": list(made), "value": [html.unescape(str(value)) for value in made.values()]})


def load(kind: str, output: str | os.PathLike) -> TrainingRecord:
    """Return the run of this build where there is one, else the released one.

    Raises
    ------
    MissingError, DataError
        If neither is there, or its weights do not have the card's hash.
    """
    folder = Path(ROOT / output) / kind
    cards = sorted(folder.glob(f"{kind}-*.json"))
    if cards:
        return TrainingRecord(kind, weights.check(cards[0]), whole(folder / HISTORY), "live")
    card = weights.resolve(kind)
    history = card.with_suffix(".csv")
    if not history.is_file():
        raise MissingError(
            f"{history}, the history of {card.name}, does not exist; `git checkout -- weights` brings it back"
        )
    return TrainingRecord(kind, weights.check(card), whole(history), "released")


def whole(path: Path) -> pd.DataFrame:
    """Return a history, after that of the run it started from where ``<name>.start.csv`` lies beside it."""
    history = pd.read_csv(path)
    start = path.with_suffix(".start.csv")
    if not start.is_file():
        return history
    before = pd.read_csv(start)
    return pd.concat([before, history.assign(epoch=history["epoch"] + len(before))], ignore_index=True)


def release(card: str | os.PathLike) -> Path:
    """Copy a card, its weights and its history into ``weights/`` and return the copy of the card.

    Raises
    ------
    MissingError, DataError
        If the card, the weights or the history are missing or do not belong together.
    """
    card = Path(card)
    content = weights.check(card)
    source = {
        card: card.name,
        card.parent / content["file"]: content["file"],
        card.parent / HISTORY: f"{card.stem}.csv",
    }
    for path in source:
        if not path.is_file():
            raise MissingError(f"{path} does not exist: a release needs the card, the weights and {HISTORY}")
    before = card.parent / START_HISTORY
    if before.is_file():
        source[before] = f"{card.stem}.start.csv"
    else:
        (WEIGHTS / f"{card.stem}.start.csv").unlink(missing_ok=True)  # of the release before
    # The card comes last: without it the others are not taken for released.
    for path, name in sorted(source.items(), key=lambda item: item[1].endswith(".json")):
        with atomic_path(WEIGHTS / name) as temporary:
            shutil.copyfile(path, temporary)
    return WEIGHTS / card.name
