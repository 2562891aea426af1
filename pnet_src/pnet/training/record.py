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
    "bpnn": "Bayesian Photometry Neural Network",
}


@dataclass(frozen=True)
class TrainingRecord:
    """A run of training."""

    card: dict[str, Any]  # as `weights.check` returns it, its hash verified
    history: pd.DataFrame  # a row an epoch; where the run started from another one's weights, that run's come first
    origin: str  # 'live' where this build trained it, or 'released'

    def table(self) -> pd.DataFrame:
        """Return what a reader must know of the run, item by item."""
        card, data, fit = self.card, self.card["data"], self.card["fit"]
        made = {
            "network": f"{TITLES[card['kind']]}, file {card['file']}",
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
            hours = f"{start['fit']['epochs_done']} epochs, {start['seconds'] / 3600:.2f} hours"
            made["started from" + (f" ({rank})" if rank > 1 else "")] = f"{start['command']} ({hours})"
            start, rank = start.get("start"), rank + 1
        made |= {name.replace("_", " "): f"{value:,}" for name, value in data.items() if isinstance(value, int)}
        made |= {name.replace("_", " "): len(value) for name, value in data.items() if isinstance(value, list)}
        for name, fitted in (card.get("recalibration") or {}).items():
            floor = f", at least {fitted['floor']:.4f} px" if fitted.get("floor") else ""
            text = f"× {fitted['ratio']:.3f}{floor}, from {fitted['n']:,} validation stars"
            made[f"recalibration of σ, {name}"] = text
        return pd.DataFrame({"item": list(made), "value": [html.unescape(str(value)) for value in made.values()]})


def load(kind: str, output: str | os.PathLike, together: str = "released") -> TrainingRecord:
    """Return the run of this build where there is one, else the released one.

    `together` is the set of `weights.SETS` that the network is of: 'paper' for those of the paper as written.

    Raises
    ------
    MissingError, DataError
        If neither is there, or its weights do not have the card's hash.
    """
    cards = sorted((ROOT / output / kind).glob(f"{kind}-*.json"))
    cards = [card for card in cards if card.stem.startswith(f"{kind}-paper") == (together == "paper")]
    card = cards[0] if cards else weights.resolve(kind, together)
    history = history_of(card)
    if history is None:
        raise MissingError(
            f"{card.with_suffix('.csv')}, the history of {card.name}, does not exist; "
            "`git checkout -- weights` brings it back"
        )
    return TrainingRecord(weights.check(card), history, "live" if cards else "released")


def history_of(card: Path) -> pd.DataFrame | None:
    """Return the history of a card's run, after that of the run it started from; None where there is none."""
    here = [path for path in (card.with_suffix(".csv"), card.parent / HISTORY) if path.is_file()]
    if not here:
        return None
    history, start = pd.read_csv(here[0]), here[0].with_suffix(".start.csv")
    if not start.is_file():
        return history
    before = pd.read_csv(start)
    return pd.concat([before, history.assign(epoch=history["epoch"] + len(before))], ignore_index=True)


def release(card: str | os.PathLike) -> Path:
    """Copy a card, its weights and its history into ``weights/`` and return the copy of the card.

    Raises
    ------
    MissingError, DataError
        If the weights or the history are missing or do not belong to the card.
    """
    card = Path(card)
    tensors, history, start = weights.check(card)["file"], card.parent / HISTORY, card.parent / START_HISTORY
    if not history.is_file():
        raise MissingError(f"{history} does not exist: a release needs the card, the weights and {HISTORY}")
    copies = {card.parent / tensors: tensors, history: f"{card.stem}.csv", start: f"{card.stem}.start.csv"}
    if not start.is_file():
        (WEIGHTS / copies.pop(start)).unlink(missing_ok=True)  # of the release before
    copies[card] = card.name  # last: without it the others are not taken for released
    for path, name in copies.items():
        with atomic_path(WEIGHTS / name) as temporary:
            shutil.copyfile(path, temporary)
    return WEIGHTS / card.name
