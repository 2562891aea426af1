"""The studies in ``results/studies``, which take from minutes to hours: their tables, and what the ledger keeps."""

import html
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from pnet.book import shown
from pnet.book.tables import NO_VALUE, text, to_html
from pnet.common import metrics, paths
from pnet.common.errors import DataError
from pnet.common.files import read_json
from pnet.common.metrics import Estimate
from pnet.evaluation.ledger import Entry, entries_of
from pnet.evaluation.scores import Score

SHARES = (  # in percent
    *("precision", "recall", "ap", "pairs_found", "coverage_68", "flagged", "flagged_sigma"),
    *("share_of_product", "share_of_peak", "sdss_precision", "sdss_recall"),
)
# Studies of single stars, and from when on these are corrected fits with the frame's PSF.
OF_STARS, FITTED = ("detection", "posterior", "stamps", "stress"), "2026-11-24T20:47"
EARLIER = (
    "At the commit of these numbers a network for windowed centroids and apertures, the refinement step, stood where "
    "the fit with the frame's PSF is now, and the BPNN corrected apertures instead of the fit."
)


def checked(path: Path, command: str, **kinds: type) -> dict[str, Any] | None:
    """Return what a command wrote into a JSON file, which must hold these keys of these types; None without a file.

    Raises
    ------
    DataError
        If the file is something else.
    """
    try:
        content = read_json(path)
        if not all(isinstance(content[key], kind) for key, kind in kinds.items()):
            raise TypeError(", ".join(kinds))
        return content
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not the result of `{command}`: {error!r}") from error


def read(name: str) -> dict[str, Any] | None:
    """Return what ``python -m studies <name>`` wrote, None where it has not been made; DataError as `checked`."""
    path = paths.RESULTS / "studies" / f"{name}.json"
    return checked(path, f"python -m studies {name}", rows=list, columns=dict, provenance=dict)


def table(content: dict[str, Any]) -> pd.DataFrame:
    """Return the table of a study, one change a row, as texts; without columns that no row has a value for."""
    # JSON keeps the keys in the order of the alphabet: the row's name comes first.
    columns = sorted(content["columns"].items(), key=lambda item: item[0] not in ("name", "title"))
    table = pd.DataFrame({head: _cell(row.get(key), key in SHARES) for key, head in columns} for row in content["rows"])
    return table.loc[:, (table != NO_VALUE).any()] if len(table) else table


def _cell(value: float | str | None, share: bool) -> str:
    if value is None or isinstance(value, str | int):
        return str(value or NO_VALUE) if value != 0 else "0"
    return text(value, "percent") if share else text(value)


def show(name: str) -> str:
    """Return the table of a study as HTML with where it is from, or which command makes it; of one made before stars
    were fitted with the frame's PSF it says so."""
    content = read(name)
    if content is None:
        return shown.notice(f"study-{name}", shown.MISSING, {})
    record = content["provenance"]
    where = shown.title(f"study-{name}", shown.RELEASED, record)
    command = html.escape(str(record.get("command", "")))
    note = f"<p>{EARLIER}</p>" if name in OF_STARS and record.get("date", "") < FITTED else ""
    return f"{to_html(table(content))}<p><small>{where}: <code>{command}</code></small></p>{note}"


def entries() -> list[Entry]:
    """Return the numbers of the studies that the ledger keeps, ``study.<name>.<row>.<what>``."""
    found: list[Entry] = []

    def keep(head: str, study: dict[str, Any], **kept: Score) -> None:
        found.extend(entries_of(kept, f"study.{head}", "released", study["provenance"]))

    if study := read("posterior"):
        # the first row of a kind is the kind's own
        for kind in ("flipout", "dropout", "plain", "ensemble"):
            row = next((row for row in study["rows"] if kind in row["name"]), None)
            if row is not None:
                crps = Estimate(row["crps"] / 1e3, n=study["provenance"]["n"])
                keep(f"posterior.{kind}", study, crps=Score(crps, f"CRPS, {row['name']}", "mag"))
    if study := read("stress"):
        for row in study["rows"]:
            title, n = row["title"], int(row["n"])
            flagged = Estimate(row["flagged"], row["flagged_low"], row["flagged_high"], n)
            keep(
                f"stress.{row['name']}",
                study,
                auc=Score(Estimate(row["auc"], n=n), f"AUC of the novelty, {title}"),
                flagged=Score(flagged, f"share of stars flagged, {title}"),
                z_scatter=Score(Estimate(row["z_scatter"], n=n), f"standard deviation of error / σ, {title}"),
            )
    if study := read("sampling"):
        fast = max(study["rows"], key=lambda row: row["speed"])
        seconds, speed = (Estimate(fast[name], n=int(fast["stars"])) for name in ("seconds", "speed"))
        title = f"{fast['samples']} samples of {seconds.n:,} stars"
        times = Score(speed, "times as fast as the plain loop of the same net")
        keep("sampling", study, seconds=Score(seconds, title, "s"), speed=times)
    if study := read("freezing"):
        for row in study["rows"]:
            loss = Estimate(row["loss"], row["loss_low"], row["loss_high"], study["provenance"]["cutouts"])
            keep(f"freezing.{row['name']}", study, loss=Score(loss, f"loss on real cut-outs, {row['name']}"))
    if study := read("clipping"):
        for kind in ("clipped", "free"):
            rows = [row for row in study["rows"] if row["name"] == kind]
            loss = np.array([row["loss"] for row in rows], dtype=float)
            # Student's: of three seeds
            ends = stats.t.interval(0.95, len(loss) - 1, loss.mean(), stats.sem(loss)) if len(loss) > 1 else ()
            final = Score(Estimate(loss.mean(), *ends, n=len(loss)), f"final loss, {kind}")
            diverged = metrics.share(np.array([row["diverged"] != "no" for row in rows]))
            keep(f"clipping.{kind}", study, loss=final, diverged=Score(diverged, f"runs that diverged, {kind}"))
    return found


def outside(study: dict[str, Any] | None) -> tuple[int, int]:
    """Return how many conditions of the stress study are told from validation stars with an AUC of 0.8, of all."""
    rows = [row for row in study["rows"] if row["name"] not in ("validation", "in_range")] if study else []
    return sum(row["auc"] >= 0.8 for row in rows), len(rows)
