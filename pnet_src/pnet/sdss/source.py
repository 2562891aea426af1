"""Where SDSS files come from: the Science Archive Server, a mirror of it, or a folder; and whether it answers."""

import os
from dataclasses import dataclass
from pathlib import Path

import requests

from pnet.common import paths
from pnet.common.errors import ConfigError

SERVER = "https://data.sdss.org/sas"
AGENT = "pnet-companion"  # names us to the server


@dataclass(frozen=True)
class Source:
    """Where files come from.

    Parameters
    ----------
    location : str or Path
        A URL without trailing slash, or a folder laid out like ``sas/``.
    mirror : bool
        Whether the user named it (``SDSS_MIRROR``).
    """

    location: str | Path
    mirror: bool

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of this machine."""
        return isinstance(self.location, Path)

    def __str__(self) -> str:
        return f"{'the mirror ' if self.mirror else ''}{self.location}"


def find_source(mirror: str | os.PathLike | None = None) -> Source:
    """Return the mirror (argument, else ``SDSS_MIRROR``), else the SDSS server.

    A relative folder counts from the working folder and, failing that, from the project's root.

    Raises
    ------
    ConfigError
        If the mirror is a folder that does not exist or is no ``sas`` tree.
    """
    text = os.fspath(mirror) if mirror is not None else os.environ.get("SDSS_MIRROR", "")
    if not text:
        return Source(SERVER, mirror=False)
    if "://" in text:
        if not text.startswith(("http://", "https://")):
            raise ConfigError(f"SDSS_MIRROR is {text!r}; a URL must start with http:// or https://")
        return Source(text.rstrip("/"), mirror=True)
    candidates = [Path(text).expanduser()]
    if not candidates[0].is_absolute():
        candidates.append(paths.ROOT / text)
    for folder in candidates:
        if folder.is_dir():
            if not any(folder.glob("dr[0-9]*")):
                inside = "; it holds a folder named sas, take that" if (folder / "sas").is_dir() else ""
                raise ConfigError(f"SDSS_MIRROR is {text!r}, which has no folder like dr17: it is no sas tree{inside}")
            return Source(folder, mirror=True)
    raise ConfigError(f"SDSS_MIRROR is {text!r}, and there is no such folder; give a folder or URL of a sas tree")


@dataclass(frozen=True)
class Reach:
    """Answer of :func:`reachable`; true where files can be had."""

    ok: bool
    source: str
    detail: str

    def __bool__(self) -> bool:
        return self.ok


def reachable(mirror: str | os.PathLike | None = None, timeout: float = 5.0) -> Reach:
    """Tell, within `timeout` seconds, whether SDSS files can be had here, from where, and if not why not."""
    try:
        source = find_source(mirror)
    except ConfigError as error:
        return Reach(False, "SDSS_MIRROR", str(error))
    if source.is_folder:
        return Reach(True, str(source), "a folder of this machine")
    try:
        answer = requests.head(f"{source.location}/", timeout=timeout, headers={"User-Agent": AGENT})
    except requests.RequestException as error:
        return Reach(False, str(source), f"no connection ({reason(error)})")
    # A server that forbids listing its folders is alive; one that cannot serve (5xx) is not.
    if answer.status_code >= 500:
        return Reach(False, str(source), f"the server answers {answer.status_code}")
    return Reach(True, str(source), f"answers {answer.status_code}")


def reason(error: Exception) -> str:
    """Return one line on an exception of requests, which likes to nest several."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut"
    text = str(error)
    if isinstance(error, requests.ConnectionError):
        for sign, words in (
            ("Read timed out", "no answer in time"),
            ("IncompleteRead", "the connection was cut"),
            ("Connection aborted", "the connection was cut"),
            ("RemoteDisconnected", "the connection was cut"),
            ("NameResolutionError", "the name of the server cannot be resolved"),
            ("Connection refused", "connection refused"),
            ("ProxyError", "the proxy refuses"),
        ):
            if sign in text:
                return words
    return text.splitlines()[0][:200] if text else type(error).__name__
