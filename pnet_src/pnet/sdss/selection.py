"""The SDSS data set of a run: fields downloaded, stars selected, every number about it on record.

``build/<profile>/sdss/selected.parquet`` holds the objects of all catalogued fields, ``sdss.json`` beside it the
provenance and one entry per frame. ``results/sdss`` holds the same of the released run, which pages show, marked,
where nothing can be downloaded.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import sep
from scipy.ndimage import binary_dilation, gaussian_filter

from pnet.common import paths, provenance
from pnet.common.errors import DataError, MissingError
from pnet.common.files import atomic_path, read_json, sha256, write_json
from pnet.frame import Frame
from pnet.sdss import catalogue as sdss_catalogue
from pnet.sdss.files import COMMAND, Report, fetch
from pnet.sdss.manifest import Manifest
from pnet.sky import background, zero_point

TABLE, RECORD = "selected.parquet", "sdss.json"
APERTURE = 7.43  # arcsec, radius of SDSS's aperture 7, to which its PSF magnitudes are normalised
COLUMNS = ("frame", "x", "y", "mag", "flux", "kind", "counted", "reason", "clean", "objid", "psfmag_err", "ra", "dec")


@dataclass
class Selection:
    """The stars of a data set and where they come from.

    Parameters
    ----------
    table : DataFrame
        Rows of :func:`pnet.sdss.catalogue.select` for every catalogued frame, with a column ``frame``.
    record : dict
        Provenance (command, commit, date, ...), ``manifest``, ``frames``: one dict per frame.
    report : Report, optional
        What was downloaded; None for released results.
    reason : str
        Why released results stand in; empty for a live run.
    """

    table: pd.DataFrame
    record: dict
    report: Report | None = None
    reason: str = ""

    @property
    def is_live(self) -> bool:
        """Whether this machine made it."""
        return self.report is not None

    @property
    def origin(self) -> str:
        """Where it is from, "live" or "released"."""
        return "live" if self.is_live else "released"

    @property
    def frames(self) -> pd.DataFrame:
        """One row per frame, what :func:`describe` tells and split, stars, zero_point_check (mag; None if too few)."""
        return pd.DataFrame(self.record["frames"])


def make(
    manifest: Manifest | str,
    output: str | os.PathLike,
    *,
    seed: int = 0,
    mirror: str | os.PathLike | None = None,
    progress: bool = False,
) -> Selection:
    """Download what a manifest lists, read every frame, select the stars, write table and record.

    Parameters
    ----------
    manifest : Manifest or str
    output : path
        Folder of the profile, as in ``build/standard``; the files go into its ``sdss``.
    seed : int
        Only recorded: nothing here is random.
    mirror, progress
        As in :func:`pnet.sdss.files.fetch`.

    Raises
    ------
    MissingError
        If a required file cannot be had.
    DataError
        If a file is damaged or no field has a catalogue.
    """
    report = fetch(manifest, mirror=mirror, progress=progress)
    tables, frames = [], []
    splits = {entry.name: entry.split for entry in report.manifest.fields}
    for frame, table in sdss_catalogue.load_fields(report, catalogued=False):
        described = describe(frame)
        described["split"] = splits[frame.name.rsplit("-", 1)[0]]
        described["stars"] = None if table is None else int(table["counted"].sum())
        described["zero_point_check"] = None
        frames.append(described)
        if table is not None:
            if described["stars"] >= zero_point.MINIMUM:
                described["zero_point_check"] = _summary(check_zero_point(frame, table), frame)
            tables.append(table.assign(frame=frame.name)[list(COLUMNS)])
    if not tables:
        raise DataError(
            f"manifest {report.manifest.name}: no field has a photoObj catalogue, so nothing can be selected"
        )
    table = pd.concat(tables, ignore_index=True)
    folder = Path(output) / "sdss"
    (folder / RECORD).unlink(missing_ok=True)
    with atomic_path(folder / TABLE) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd")
    record = provenance.record(
        command=COMMAND,
        seed=seed,
        device="cpu",
        manifest=report.manifest.name,
        frames=frames,
        missing=[{"path": file.path, "reason": reason} for file, reason in report.missing],
        sha256=sha256(folder / TABLE),
    )
    write_json(folder / RECORD, record)  # last, with the hash of the table: without it the table is not whole
    return Selection(table, record, report)


def read(folder: str | os.PathLike) -> Selection:
    """Read a selection from a folder that holds `TABLE` and `RECORD`.

    Raises
    ------
    MissingError
        If they are not there.
    DataError
        If they do not belong together.
    """
    folder = Path(folder)
    for name in (TABLE, RECORD):
        if not (folder / name).is_file():
            raise MissingError(f"{folder / name} does not exist; `{COMMAND}` downloads SDSS files and selects stars")
    try:
        record = read_json(folder / RECORD)
        if record["sha256"] != sha256(folder / TABLE):
            raise DataError(f"{folder / TABLE} is not the table that {RECORD} describes; select again")
        return Selection(pd.read_parquet(folder / TABLE), record)
    except (KeyError, TypeError, OSError) as error:
        raise DataError(f"{folder}: damaged selection ({type(error).__name__}: {error}); select again") from error


def make_or_released(manifest: Manifest | str, output: str | os.PathLike, *, seed: int = 0) -> Selection:
    """Like :func:`make`; where the files cannot be had, the released selection of ``results/sdss``.

    Only a missing file or network leads there. A damaged file is an error: it must not hide behind old results.
    """
    try:
        return make(manifest, output, seed=seed)
    except MissingError as error:
        selection = read(paths.RESULTS / "sdss")
        lines = [line.strip() for line in str(error).splitlines()]
        selection.reason = next((line.split(": ")[1] for line in lines if line.startswith("not tried")), lines[0])
        return selection


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
    values -= np.median(values)
    limit = 3 * 1.4826 * np.median(np.abs(values))
    return float(values[np.abs(values) < limit].std() / 0.98656)  # σ of a Gaussian cut at ±3 σ


def check_zero_point(frame: Frame, table: pd.DataFrame, **options) -> zero_point.Calibration:
    """Fit Eq. 18 to the stars that count, with aperture fluxes, as a check of the frame's zero point.

    Parameters
    ----------
    frame : Frame
    table : DataFrame
        From :func:`pnet.sdss.catalogue.select`.
    options
        For :func:`pnet.sky.zero_point.fit`.

    Returns
    -------
    Calibration
        Its zero point should agree with ``frame.zero_point``, since DR17 frames are calibrated.
    """
    stars = table[table["counted"]]
    sky = background.estimate(frame)
    flux, error, _ = sep.sum_circle(
        frame.image - sky.level,
        stars["x"].to_numpy(),
        stars["y"].to_numpy(),
        APERTURE / frame.pixel_scale,
        var=frame.variance,
        mask=frame.mask,
    )
    usable = flux > 0
    return zero_point.fit(
        zero_point.instrumental_magnitude(flux[usable]),
        stars["mag"].to_numpy()[usable],
        error=1.0857 * error[usable] / flux[usable],
        **options,
    )


def _summary(fit: zero_point.Calibration, frame: Frame) -> dict:
    """Return a zero-point check as numbers for the record, in mag."""
    return {
        "offset": fit.zero_point - float(frame.zero_point),
        "error": fit.zero_point_error,
        "scatter": fit.scatter,
        "used": fit.n_used,
        "rejected": fit.n_rejected,
    }
