"""Getting the files of a manifest: from the SDSS server, a mirror of it, or a folder, whole or not at all."""

import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from tqdm import TqdmWarning, tqdm

from pnet.common import fits_file as fitsfile
from pnet.common import paths
from pnet.common.errors import ConfigError, DataError, MissingError, PNetError
from pnet.common.files import sha256
from pnet.sdss import source as sdss_source
from pnet.sdss.source import AGENT, Source, find_source, reachable

with warnings.catch_warnings():  # pooch wants notebook widgets for progress bars that we do not use
    warnings.simplefilter("ignore", TqdmWarning)
    import pooch

if TYPE_CHECKING:  # pnet.sdss.manifest offers fetch and reachable as its own
    from pnet.sdss.manifest import File, Manifest

COMMAND = "pnet sdss-download"
MINIMUM_SPEED = 2000.0  # bytes/s; below this for a whole timeout a connection counts as dead
CHUNK = 8192  # bytes between two looks at the speed
STALE = 86400.0  # s; partial folders older than this belong to no living download

pooch.get_logger().setLevel("WARNING")  # its "Downloading …" lines would land in notebooks, with absolute paths


@dataclass(frozen=True)
class Missing:
    """A file that could not be had, and why."""

    file: "File"
    reason: str


@dataclass
class Report:
    """What :func:`fetch` found and did.

    Parameters
    ----------
    root : Path
        Folder of the files; each lies at ``root / file.path``.
    present, downloaded : list of File
        Whole and verified; there before, and new.
    missing : list of Missing
        Optional files too, whose absence is no error.
    """

    root: Path
    manifest: "Manifest"
    source: str = ""
    present: list["File"] = field(default_factory=list)
    downloaded: list["File"] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    def path(self, name: str, role: str) -> Path | None:
        """Return where the file of a field and role lies, None where it was not had or the manifest lists none."""
        entry = self.manifest.field(name).file(role)
        have = {file.path for file in (*self.present, *self.downloaded)}
        return self.root / entry.path if entry is not None and entry.path in have else None

    @property
    def failures(self) -> list[Missing]:
        """What is missing and required."""
        return [entry for entry in self.missing if entry.file.required]

    def __str__(self) -> str:
        total = len(self.present) + len(self.downloaded) + len(self.missing)
        origin = f" from {self.source}" if self.source else ""
        lines = [
            f"{self.manifest.name}: {total} files, {len(self.present)} were there, "
            f"{len(self.downloaded)} came{origin}, {len(self.missing)} missing"
        ]
        reasons: dict[str, list[str]] = {}
        for entry in self.missing:
            text = entry.file.path + ("" if entry.file.required else " (optional)")
            reasons.setdefault(entry.reason, []).append(text)
        for reason, names in reasons.items():
            more = f" and {len(names) - 3} more" if len(names) > 4 else ""
            lines.append(f"  {reason}: {', '.join(names[: 3 if more else 4])}{more}")
        return "\n".join(lines)


def fetch(
    manifest: "Manifest",
    root: str | os.PathLike | None = None,
    *,
    mirror: str | os.PathLike | None = None,
    roles: Iterable[str] | None = None,
    fields: Iterable[str] | None = None,
    progress: bool = True,
    retries: int = 3,
    timeout: float = 30.0,
    backoff: float = 1.0,
    jobs: int = 4,
    strict: bool = True,
) -> Report:
    """Make the files of a manifest lie below `root`, downloading what is missing or damaged.

    A file is downloaded beside its place, checked (SHA-256, or, at a first download, that it is a whole FITS file),
    and only then moved there, so that an interruption leaves no half file. What is already there is verified and not
    fetched again: repeating the call resumes a partial set.

    Parameters
    ----------
    manifest : Manifest
    root : path, optional
        ``paths.data_root() / "sdss"`` by default.
    mirror : path or str, optional
        Folder or URL of a ``sas`` tree; ``SDSS_MIRROR``, else the SDSS server, by default. With a mirror nothing
        else is asked.
    roles, fields : iterable of str, optional
        Only these.
    progress : bool
        Show a bar on stderr.
    retries : int
        Further attempts after a cut connection, a timeout, wrong bytes or an error of the server; a file that the
        server does not have (403, 404, 410) is not asked for again.
    timeout : float
        Seconds without an answer, or slower than 2 kB/s, until an attempt counts as failed.
    backoff : float
        Seconds before the first retry; doubles with each.
    jobs : int
        Downloads at a time.
    strict : bool
        Raise if a required file is missing; otherwise only report it.

    Returns
    -------
    Report

    Raises
    ------
    MissingError
        If a required file cannot be had. What arrived is kept.
    """
    if retries < 0 or jobs < 1 or timeout <= 0 or backoff < 0:
        raise ConfigError(f"retries {retries}, jobs {jobs}, timeout {timeout}, backoff {backoff}: ≥ 0, ≥ 1, > 0, ≥ 0")
    root = Path(root) if root is not None else paths.data_root() / "sdss"
    report = Report(root=root, manifest=manifest)
    wanted = []
    for file in manifest.files(roles, fields):
        if _have(manifest, file, root / file.path):
            report.present.append(file)
        else:
            wanted.append(file)
    if wanted:
        source = find_source(mirror)
        report.source = str(source)
        alive = reachable(mirror, timeout=min(timeout, 10.0))
        if alive:
            _remove_stale(root)
            _download(manifest, wanted, source, report, progress, retries, timeout, backoff, jobs)
        else:
            report.missing = [Missing(file, f"not tried: {alive.detail}") for file in wanted]
    if strict and report.failures:
        raise MissingError(
            f"{report}\nWhat arrived is kept; `{COMMAND}` tries the rest again, "
            f"`SDSS_MIRROR=<folder or URL of a sas tree> {COMMAND}` takes them from a mirror."
        )
    return report


def _have(manifest: "Manifest", file: "File", path: Path) -> bool:
    """Tell whether the file lies there whole; a file of unknown hash is locked when it does."""
    if not path.is_file():
        return False
    if file.sha256 is not None:
        return (file.bytes is None or path.stat().st_size == file.bytes) and sha256(path) == file.sha256
    try:
        fitsfile.open_fits(path)
    except DataError:
        return False
    manifest.lock(file, path.stat().st_size, sha256(path))
    return True


def _download(manifest, wanted, source, report, progress, retries, timeout, backoff, jobs) -> None:
    """Fetch `wanted` in parallel and fill the report; stop asking once the source is gone."""
    gone: list[str] = []  # why nobody should ask on: the source vanished, or the user interrupted

    def one(file: "File") -> str | None:
        if gone:
            return f"not tried: {gone[0]}"
        reason, is_final = _attempts(manifest, file, source, report.root, retries, timeout, backoff, gone)
        if reason and not is_final:
            alive = reachable(source.location if source.mirror else None, timeout=min(timeout, 10.0))
            if not alive:
                gone.append(alive.detail)
        return reason

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = {pool.submit(one, file): file for file in wanted}
        try:
            bar = tqdm(as_completed(futures), total=len(wanted), unit="file", desc="SDSS", disable=not progress)
            for future in bar:
                file, reason = futures[future], future.result()
                if reason is None:
                    report.downloaded.append(file)
                else:
                    report.missing.append(Missing(file, reason))
        except BaseException:  # an interruption or a full disk: what has not begun need not begin
            gone.append("interrupted")
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    order = {file.path: n for n, file in enumerate(wanted)}
    report.downloaded.sort(key=lambda file: order[file.path])
    report.missing.sort(key=lambda entry: order[entry.file.path])


def _attempts(manifest, file, source, root, retries, timeout, backoff, gone) -> tuple[str | None, bool]:
    """Try to get one file; return why it failed (None on success) and whether the source was sure about that."""
    reason = "never tried"
    for attempt in range(retries + 1):
        if attempt:
            time.sleep(backoff * 2 ** (attempt - 1))
        if gone:
            return f"given up after {attempt} attempts: {gone[0]}", True
        try:
            _get(manifest, file, source, root, timeout)
            return None, True
        except requests.HTTPError as error:
            status = error.response.status_code
            if status in (403, 404, 410):
                return f"not there (answer {status})", True
            reason = f"the server answers {status}"
        except FileNotFoundError:
            return "not there", True
        except (requests.RequestException, DataError, _TooSlow) as error:
            reason = sdss_source.reason(error)
        if source.is_folder:  # a folder gives the same bytes every time
            return reason, True
    return f"{reason} ({retries + 1} attempt{'s' if retries else ''})", False


def _get(manifest: "Manifest", file: "File", source: Source, root: Path, timeout: float) -> None:
    """Get one file once: into a folder of its own, checked, then moved to its place."""
    target = root / file.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".partial-") as folder:
            arrived = Path(folder) / target.name
            if source.is_folder:
                original = source.location / file.path
                if not original.is_file():
                    raise FileNotFoundError(original)
                shutil.copyfile(original, arrived)
            else:
                pooch.retrieve(
                    f"{source.location}/{file.path}",
                    known_hash=None,  # checked below, where a mismatch can say what was found
                    fname=arrived.name,
                    path=folder,
                    downloader=pooch.HTTPDownloader(
                        progressbar=_Watch(timeout), chunk_size=CHUNK, timeout=timeout, headers={"User-Agent": AGENT}
                    ),
                )
            size, digest = arrived.stat().st_size, sha256(arrived)
            if file.sha256 is None:
                fitsfile.open_fits(arrived)  # an error page or half a file must not be locked as the truth
            elif digest != file.sha256:
                raise DataError(
                    f"wrong bytes: {size} with SHA-256 {digest[:12]}…, expected {file.bytes} with {file.sha256[:12]}…"
                )
            os.replace(arrived, target)
    except requests.RequestException:  # is an OSError, too
        raise
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PNetError(f"{target}: cannot be written ({error.strerror or error})") from error
    if file.sha256 is None:
        manifest.lock(file, size, digest)


class _TooSlow(Exception):
    """A connection that trickles: it would outlast every patience without ever timing out."""


class _Watch:
    """Stands in for pooch's progress bar and ends a download that is slower than MINIMUM_SPEED."""

    def __init__(self, timeout: float):
        self.timeout, self.start, self.received, self.total = timeout, time.monotonic(), 0, 0

    def update(self, size: int) -> None:
        self.received += size
        seconds = time.monotonic() - self.start
        if seconds > self.timeout and self.received < MINIMUM_SPEED * seconds:
            raise _TooSlow(f"slower than {MINIMUM_SPEED / 1000:.0f} kB/s for {self.timeout:.0f} s")

    def reset(self) -> None:
        self.start, self.received = time.monotonic(), 0

    def close(self) -> None:
        pass


def _remove_stale(root: Path) -> None:
    """Remove what a killed download left; a living one is younger."""
    for folder in root.glob(".partial-*") if root.is_dir() else ():
        if time.time() - folder.stat().st_mtime > STALE:
            shutil.rmtree(folder, ignore_errors=True)
