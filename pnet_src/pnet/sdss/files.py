"""Getting the files of a manifest: from the SDSS server, a mirror of it, or a folder, whole or not at all.

pooch downloads, retries, checks the hash and moves a file to its place only when it is right.
"""

import os
import shutil
import time
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from tqdm import TqdmWarning, tqdm

from pnet.common import fits_file, paths
from pnet.common.errors import ConfigError, DataError, MissingError, PNetError
from pnet.common.files import read_json, sha256, write_json
from pnet.sdss.manifest import File, Manifest

with warnings.catch_warnings():  # pooch wants notebook widgets for progress bars that we do not use
    warnings.simplefilter("ignore", TqdmWarning)
    import pooch

SERVER = "https://data.sdss.org/sas"
COMMAND = "pnet sdss-download"
RECORD = "sdss/download.json"  # of `download`, in the folder of a profile
RETRIES = 3  # after a cut connection, a timeout, wrong bytes or an error of the server
TIMEOUT = 30.0  # s without a byte, until an attempt counts as failed
SLOWEST = 2000.0  # bytes/s; below this on the average of TIMEOUT or more a connection counts as dead
CHUNK = 8192  # bytes between two looks at the speed
PATIENCE = 10.0  # s, for a server to say that it is there
JOBS = 4  # downloads at a time
ABSENT = (403, 404, 410)  # what a server answers for a file that it does not have: asking again is in vain
AGENT = {"User-Agent": "pnet-companion"}  # names us to the server

pooch.get_logger().setLevel("ERROR")  # its "Downloading …" lines would land in notebooks, with absolute paths


@dataclass
class Report:
    """What :func:`fetch` found and did."""

    root: Path  # folder of the files; each lies at root / file.path
    manifest: Manifest
    source: str = ""  # the server, or "the mirror ..."; empty where nothing had to be fetched
    present: list[File] = field(default_factory=list)  # whole and verified, there before
    downloaded: list[File] = field(default_factory=list)  # the same, new
    missing: list[tuple[File, str]] = field(default_factory=list)  # what could not be had, optional ones too, and why

    def path(self, name: str, role: str) -> Path | None:
        """Return where the file of a field and role lies, None where it was not had or the manifest lists none."""
        wanted = self.manifest.field(name).file(role)
        have = {file.path for file in (*self.present, *self.downloaded)}
        return self.root / wanted.path if wanted is not None and wanted.path in have else None

    def __str__(self) -> str:
        there, new, missing = len(self.present), len(self.downloaded), len(self.missing)
        text = f"{self.manifest.name}: {there + new + missing} files, {there} were there, {new} came"
        text += f"{f' from {self.source}' if self.source else ''}, {missing} missing"
        by_reason: dict[str, list[str]] = {}
        for file, reason in self.missing:
            by_reason.setdefault(reason, []).append(file.path + ("" if file.required else " (optional)"))
        for reason, names in by_reason.items():
            more = f" and {len(names) - 3} more" if len(names) > 4 else ""
            text += f"\n  {reason}: {', '.join(names[: 3 if more else 4])}{more}"
        return text


def find_source(mirror: str | os.PathLike | None = None) -> str | Path:
    """Return where files come from, a URL without trailing slash or a folder laid out like ``sas/``: the mirror
    (argument, else ``SDSS_MIRROR``), else the SDSS server; a ConfigError if the mirror is a folder that does not exist
    or is no ``sas`` tree."""
    text = os.environ.get("SDSS_MIRROR", "") if mirror is None else os.fspath(mirror)
    if not text or text.startswith(("http://", "https://")):
        return text.rstrip("/") or SERVER
    if "://" in text:
        raise ConfigError(f"SDSS_MIRROR is {text!r}; a URL must start with http:// or https://")
    folder = find_folder(text, "SDSS_MIRROR")
    if not any(folder.glob("dr[0-9]*")):
        inside = "; it holds a folder named sas, take that" if (folder / "sas").is_dir() else ""
        raise ConfigError(f"SDSS_MIRROR is {text!r}, which has no folder like dr17: it is no sas tree{inside}")
    return folder


def find_folder(text: str, name: str) -> Path:
    """Return a folder named relative to the working folder or, failing that, to the project's root; a ConfigError if
    there is none, with `name`, the parameter that names it."""
    folder = Path(text).expanduser()
    if not folder.is_dir() and not (folder := paths.ROOT / folder).is_dir():
        raise ConfigError(f"{name} is {text!r}, and there is no such folder")
    return folder


def obstacle(mirror: str | os.PathLike | None = None, timeout: float = PATIENCE) -> str:
    """Return why no SDSS file can be had here, found out within `timeout` seconds; "" where they can."""
    try:
        source = find_source(mirror)
    except ConfigError as error:
        return str(error)
    if isinstance(source, Path):
        return ""
    try:
        status = requests.head(f"{source}/", timeout=timeout, headers=AGENT).status_code
    except requests.RequestException as error:
        return f"{source}: {explain(error)}"
    # A server that forbids listing its folders is alive; one that cannot serve (5xx) is not.
    return f"{source} answers {status}" if status >= 500 else ""


def explain(error: Exception) -> str:
    """Return one line on an exception of a download, naming what lies at the bottom of requests' nested ones."""
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "no answer in time, or too slow a one"
    if isinstance(error, requests.HTTPError):
        return f"the server answers {error.response.status_code}"
    if isinstance(error, requests.RequestException):
        cause: BaseException = error
        while cause.__context__ is not None:
            cause = cause.__context__
        return f"no connection ({str(cause) or type(cause).__name__})"
    if isinstance(error, FileNotFoundError):
        return "not there"
    if isinstance(error, ValueError) and not isinstance(error, PNetError):  # pooch's; it names a temporary file
        return "wrong bytes came: their SHA-256 is not the one in the manifest"
    return str(error)


def fetch(
    manifest: Manifest | str,
    root: str | os.PathLike | None = None,
    *,
    mirror: str | os.PathLike | None = None,
    fields: Iterable[str] | None = None,
    progress: bool = True,
) -> Report:
    """Make the files of a manifest lie below `root`, downloading what is missing or damaged.

    A file takes its place only when its SHA-256 is right or, at a first download, when it is a whole FITS file; so an
    interruption leaves no half file. What is already there is verified and not fetched again: repeating the call
    resumes a partial set. A MissingError if a required file cannot be had; what arrived is kept.

    Parameters
    ----------
    manifest : Manifest or str
        Or the name or path of one.
    root : path, optional
        ``paths.data_root() / "sdss"`` by default.
    mirror : path or str, optional
        See `find_source`; with a mirror nothing else is asked.
    fields : iterable of str, optional
        Only these.
    progress : bool
        Show a bar on stderr.
    """
    manifest = manifest if isinstance(manifest, Manifest) else Manifest.load(manifest)
    report = Report(Path(root) if root is not None else paths.data_root() / "sdss", manifest)
    files = manifest.files(fields)
    report.present = [file for file in files if _whole(file, report.root / file.path)]
    try:
        if wanted := [file for file in files if file not in report.present]:
            _download(wanted, mirror, report, progress)
    finally:
        manifest.lock((file for file in (*report.present, *report.downloaded) if file.sha256 is None), report.root)
    if any(file.required for file, _ in report.missing):
        raise MissingError(
            f"{report}\nWhat arrived is kept; `{COMMAND}` tries the rest again, "
            f"`SDSS_MIRROR=<folder or URL of a sas tree> {COMMAND}` takes them from a mirror."
        )
    return report


def _whole(file: File, path: Path) -> bool:
    """Tell whether the file lies there whole."""
    if not path.is_file() or file.sha256 is not None:
        return path.is_file() and sha256(path) == file.sha256
    try:
        fits_file.open_fits(path)
    except DataError:
        path.unlink()  # pooch takes any file of unknown hash for right
        return False
    return True


def _download(wanted: list[File], mirror: str | os.PathLike | None, report: Report, progress: bool) -> None:
    """Fetch `wanted`, several at a time, and fill the report; stop asking once the source is gone."""
    source = find_source(mirror)
    report.source = f"{'' if source == SERVER else 'the mirror '}{source}"
    store = pooch.create(
        path=report.root,
        base_url=f"{source}/",
        registry={file.path: file.sha256 and f"sha256:{file.sha256}" for file in wanted},
        retry_if_failed=0 if isinstance(source, Path) else RETRIES,  # a folder gives the same bytes every time
    )
    gone = obstacle(mirror)  # why nobody should ask on

    def one(file: File) -> str:
        """Get one file; return why it could not be had, "" where it was."""
        nonlocal gone
        if gone:
            return f"not tried: {gone}"
        try:
            (report.root / file.path).parent.mkdir(parents=True, exist_ok=True)  # two threads of pooch would collide
            store.fetch(file.path, downloader=_get)
        except (requests.RequestException, FileNotFoundError, ValueError) as error:
            if isinstance(error, requests.ConnectionError | requests.Timeout):
                gone = gone or obstacle(mirror)
            return explain(error)
        except OSError as error:
            raise PNetError(f"{report.root / file.path}: cannot be written ({error.strerror or error})") from error
        return ""

    with ThreadPoolExecutor(max_workers=JOBS) as pool:
        # an interruption or a full disk ends the map: what has not begun is not begun
        reasons = tqdm(pool.map(one, wanted), total=len(wanted), unit="file", desc="SDSS", disable=not progress)
        for file, reason in zip(wanted, reasons, strict=True):
            if reason:
                report.missing.append((file, reason))
            else:
                report.downloaded.append(file)


def _get(url: str, output_file: str, store: pooch.Pooch | None) -> None:
    """Download or copy for pooch; what is not there, and what is no FITS file, is told apart from a failure."""
    if "://" not in url:
        shutil.copyfile(url, output_file)
    else:
        start = time.monotonic()
        with requests.get(url, stream=True, timeout=TIMEOUT, headers=AGENT) as answer, open(output_file, "wb") as file:
            if answer.status_code in ABSENT:
                raise FileNotFoundError(url)
            answer.raise_for_status()
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                seconds = time.monotonic() - start
                if seconds > TIMEOUT and file.tell() < SLOWEST * seconds:
                    raise requests.Timeout  # what trickles would never time out
    if store and store.registry[url.removeprefix(store.base_url)] is None:  # of unknown hash: it may be an error page
        fits_file.open_fits(output_file, Path(url).name)


def retrieve(url: str, target: Path, digest: str) -> None:
    """Download one file from an address of its own to `target`, if its SHA-256 is `digest`; raise as pooch does."""
    target.parent.mkdir(parents=True, exist_ok=True)
    pooch.retrieve(url, f"sha256:{digest}", target.name, target.parent, downloader=_get)


def download(
    output: str | os.PathLike,
    manifest: str = "sdss-standard",
    *,
    mirror: str | os.PathLike | None = None,
    optional: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Fetch the files of a manifest (see `fetch`); write `RECORD` into `output`, the folder of a profile, and return
    what it tells: ``available``, ``manifest``, ``reason`` (why not) and, where available, ``report``.

    With `optional` files that cannot be had are recorded instead of raised: pages then show released results.
    """
    record: dict[str, Any] = {"available": True, "manifest": manifest, "reason": ""}
    try:
        record["report"] = str(fetch(manifest, mirror=mirror, progress=progress))
    except MissingError as error:
        if not optional:
            raise
        record |= {"available": False, "reason": str(error)}
    write_json(paths.folder_of(output) / RECORD, record)
    return record


def forget_unavailable(output: str | os.PathLike) -> None:
    """Delete the record that SDSS files could not be had if they can be had now, so that Snakemake runs the step."""
    path = paths.folder_of(output) / RECORD
    if path.is_file() and not read_json(path).get("available") and not obstacle(timeout=3.0):
        path.unlink()
