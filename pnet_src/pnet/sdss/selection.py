"""The SDSS data set of a run: fields downloaded, stars selected, every number about it on record.

``build/<profile>/sdss/selected.parquet`` holds the objects of all catalogued fields, ``sdss.json`` beside it the
provenance and one entry per frame. ``results/sdss`` holds the same of the released run.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import sep
from scipy.ndimage import binary_dilation, gaussian_filter

from pnet.common import metrics, provenance
from pnet.common.errors import DataError, MissingError
from pnet.common.files import atomic_path, read_json, sha256, write_json
from pnet.frame import Frame
from pnet.sdss.catalogue import load_field
from pnet.sdss.files import COMMAND, Report, fetch
from pnet.sdss.manifest import Manifest
from pnet.sky import background, zero_point

TABLE, RECORD = "selected.parquet", "sdss.json"
APERTURE = 7.43  # arcsec, radius of SDSS's aperture 7, to which its PSF magnitudes are normalised
COLUMNS = ("frame", "x", "y", "mag", "flux", "kind", "counted", "reason", "clean", "objid", "psfmag_err", "ra", "dec")


@dataclass
class Selection:
    """The stars of a data set and where they come from."""

    table: pd.DataFrame  # rows of `catalogue.select` for every catalogued frame, with a column frame
    record: dict  # provenance (command, commit, date, ...), manifest, frames: one dict per frame
    report: Report | None = None  # what was downloaded; None for a selection read from a folder

    @property
    def frames(self) -> pd.DataFrame:
        """One row per frame, what :func:`describe` tells and split, stars, zero_point_check (mag; None if too few)."""
        return pd.DataFrame(self.record["frames"])


def make(manifest: Manifest | str, output: str | os.PathLike, *, seed: int = 0) -> Selection:
    """Download what a manifest lists, read every frame, select the stars, write table and record.

    The files go into ``sdss`` of `output`, the folder of the profile, as in ``build/standard``; nothing here is random,
    `seed` is only recorded. A MissingError if a required file cannot be had, a DataError if a file is damaged or no
    field has a catalogue.
    """
    report = fetch(manifest, progress=False)
    tables, frames = [], []
    for entry in report.manifest.fields:
        if report.path(entry.name, "frame-g") is None:
            continue
        frame, table = load_field(report, entry.name)
        stars = None if table is None else int(table["counted"].sum())
        check = check_zero_point(frame, table) if (stars or 0) >= zero_point.MINIMUM else None
        frames.append(describe(frame) | {"split": entry.split, "stars": stars, "zero_point_check": check})
        if table is not None:
            tables.append(table.assign(frame=frame.name)[list(COLUMNS)])
    if not tables:
        raise DataError(f"manifest {report.manifest.name}: no field has a photoObj catalogue to select from")
    table = pd.concat(tables, ignore_index=True)
    folder = Path(output) / "sdss"
    (folder / RECORD).unlink(missing_ok=True)
    with atomic_path(folder / TABLE) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd")
    details = {"manifest": report.manifest.name, "frames": frames, "sha256": sha256(folder / TABLE)}
    details["missing"] = [{"path": file.path, "reason": reason} for file, reason in report.missing]
    record = provenance.record(COMMAND, seed, "cpu", **details)
    write_json(folder / RECORD, record)  # last, with the hash of the table: without it the table is not whole
    return Selection(table, record, report)


def read(folder: str | os.PathLike) -> Selection:
    """Read a selection from a folder that holds `TABLE` and `RECORD`; a MissingError if they are not there, a DataError
    if they do not belong together."""
    folder = Path(folder)
    try:
        record = read_json(folder / RECORD)
        if record["sha256"] != sha256(folder / TABLE):
            raise DataError(f"{folder / TABLE} is not the table that {RECORD} describes; select again")
        return Selection(pd.read_parquet(folder / TABLE), record)
    except FileNotFoundError as error:
        raise MissingError(
            f"{error.filename} does not exist; `{COMMAND}` downloads SDSS files and selects stars"
        ) from error
    except (KeyError, TypeError, OSError) as error:
        raise DataError(f"{folder}: damaged selection ({type(error).__name__}: {error}); select again") from error


def describe(frame: Frame) -> dict:
    """Return the numbers of a frame that a reader wants: JSON-ready, sky in electrons, seeing in arcsec or None."""
    sky = background.estimate(frame)
    return {
        "frame": frame.name,
        "zero_point": float(frame.zero_point),
        "gain": float(frame.gain),
        "read_noise": float(frame.read_noise),
        "sky": float(np.median(sky.level)),
        "seeing": None if frame.seeing is None else float(frame.seeing),
        "airmass": float(frame.meta["airmass"]) if np.isfinite(frame.meta["airmass"]) else None,
        "masked": float(frame.mask.mean()),
        "noise_ratio": noise_ratio(frame, sky),
    }


def noise_ratio(frame: Frame, sky: background.Background | None = None) -> float:
    """Return the standard deviation of empty sky over the one that the frame's variance predicts; 1 is perfect.

    Pixels near anything above 3 σ of the smoothed image, and masked ones, are left out; what remains is clipped at 3 σ
    (with the factor that a clipped Gaussian needs), so that sources too faint to be seen one by one weigh little.
    """
    sky = background.estimate(frame) if sky is None else sky
    pull = (frame.image - sky.level) / np.sqrt(frame.variance)
    width = 2.0  # px, about a PSF: a star too faint for its brightest pixel stands out once smoothed
    smooth = gaussian_filter(np.where(frame.mask, 0, pull), width)
    sources = np.abs(smooth) > 3 / (2 * np.sqrt(np.pi) * width)
    empty = ~frame.mask & ~binary_dilation(sources, iterations=5)
    values = pull[empty].astype(float)
    if values.size < 1000:
        return float("nan")
    limit = 3 * metrics.robust_scatter(values)
    return float(values[np.abs(values - np.median(values)) < limit].std() / 0.98656)  # σ of a Gaussian cut at ±3 σ


def check_zero_point(frame: Frame, table: pd.DataFrame) -> dict[str, float]:
    """Fit Eq. 18 to the stars that count, with aperture fluxes, as a check of the frame's zero point.

    `table` is from :func:`pnet.sdss.catalogue.select`, with at least `zero_point.MINIMUM` stars that count. The answer
    holds the ``offset`` from the frame's zero point, which should be nothing as DR17 frames are calibrated, its
    ``error``, the stars' ``scatter`` (mag), and how many stars were ``used`` and ``rejected``.
    """
    stars, level = table[table["counted"]], background.estimate(frame).level
    x, y, mag = stars[["x", "y", "mag"]].to_numpy().T
    radius = APERTURE / frame.pixel_scale
    flux, _, _ = sep.sum_circle(frame.image - level, x, y, radius, mask=frame.mask)
    fit = zero_point.fit(-2.5 * np.log10(flux[flux > 0]), mag[flux > 0])
    return {
        "offset": fit.zero_point - float(frame.zero_point),
        "error": fit.error,
        "scatter": fit.scatter,
        "used": int(fit.used.sum()),
        "rejected": int((~fit.used).sum()),
    }
