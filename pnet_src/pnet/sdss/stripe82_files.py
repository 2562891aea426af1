"""The files of Stripe 82 that are not on the Science Archive Server in this form, from a folder or a public copy."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pooch
import requests
import yaml

from pnet.common import paths
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import sha256
from pnet.sdss.source import AGENT, reason

VARIABLE = "STRIPE82_MIRROR"
TIMEOUT = 30.0  # s without an answer


@dataclass(frozen=True)
class File:
    """One file: its role, its path below a mirror, its bytes, and the URL of a public copy at a fixed commit."""

    role: str
    path: str
    bytes: int
    sha256: str
    url: str

    def __post_init__(self):
        parts = PurePosixPath(self.path)
        if parts.is_absolute() or ".." in parts.parts:
            raise ConfigError(f"path of {self.role} is {self.path!r}; it must be relative, without '..'")


def load(path: str | os.PathLike | None = None) -> dict[str, File]:
    """Return the files of ``data_manifests/stripe82.yml`` by role.

    Raises
    ------
    ConfigError
        If the manifest is not as the released one.
    """
    path = paths.MANIFESTS / "stripe82.yml" if path is None else Path(path)
    try:
        files = [File(**entry) for entry in yaml.safe_load(path.read_text())["files"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is no list of Stripe 82 files ({error})") from error
    return {file.role: file for file in files}


def folders() -> list[Path]:
    """Return where files may lie already: the folder of downloads, ``STRIPE82_MIRROR``, and beside a ``sas`` tree.

    A mirror named by ``SDSS_MIRROR`` ends in ``sas``; what does not belong to the server lies beside that.

    Raises
    ------
    ConfigError
        If ``STRIPE82_MIRROR`` names no folder.
    """
    found = [paths.data_root() / "stripe82"]
    named = os.environ.get(VARIABLE)
    if named:
        folder = _resolved(named)
        if folder is None:
            raise ConfigError(f"{VARIABLE} is {named!r}, and there is no such folder")
        found.append(folder)
    mirror = os.environ.get("SDSS_MIRROR", "")
    if mirror and "://" not in mirror:
        folder = _resolved(mirror)
        if folder is not None:
            found.append(folder.resolve().parent)
    return found


def _resolved(text: str) -> Path | None:
    """Return a folder named relative to the working folder or, failing that, to the project's root."""
    folder = Path(text).expanduser()
    candidates = [folder] if folder.is_absolute() else [folder, paths.ROOT / folder]
    return next((candidate for candidate in candidates if candidate.is_dir()), None)


def fetch(roles: Iterable[str]) -> dict[str, Path]:
    """Return where the files of these roles lie, whole and verified; those that are nowhere here are downloaded.

    Parameters
    ----------
    roles : iterable of str
        Of ``data_manifests/stripe82.yml``, as in ``coadd``.

    Returns
    -------
    dict of str to Path

    Raises
    ------
    ConfigError
        If a role is unknown.
    MissingError
        If a file can be had neither here nor from its public copy.
    """
    known, found = load(), {}
    for role in roles:
        if role not in known:
            raise ConfigError(f"role is {role!r}; the manifest of Stripe 82 has {', '.join(known)}")
        found[role] = _find(known[role]) or _download(known[role])
    return found


def _find(file: File) -> Path | None:
    """Return the file where it lies here with the right bytes."""
    for folder in folders():
        path = folder / file.path
        if path.is_file() and path.stat().st_size == file.bytes and sha256(path) == file.sha256:
            return path
    return None


def _download(file: File) -> Path:
    """Download one file into the folder of downloads; pooch moves it there only when its hash is right."""
    target = paths.data_root() / "stripe82" / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        pooch.retrieve(
            file.url,
            known_hash=f"sha256:{file.sha256}",
            fname=target.name,
            path=target.parent,
            downloader=pooch.HTTPDownloader(timeout=TIMEOUT, headers={"User-Agent": AGENT}),
        )
    except (requests.RequestException, ValueError, OSError) as error:
        why = "other bytes came than the manifest tells" if isinstance(error, ValueError) else reason(error)
        raise MissingError(
            f"{file.path} of Stripe 82 is not here and did not come from {file.url} ({why}); "
            f"`{VARIABLE}=<folder that holds {file.path}>` takes it from a folder"
        ) from error
    if target.stat().st_size != file.bytes:
        raise DataError(f"{target}: has {target.stat().st_size} bytes, the manifest tells {file.bytes}")
    return target
