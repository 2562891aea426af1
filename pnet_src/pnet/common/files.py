"""Reading files, and writing them so that an interrupted run never leaves half of one behind."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pnet.common.errors import DataError, MissingError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there on success, delete it on failure.

    The temporary name keeps the suffixes of `path`, since writers choose their format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-", suffix="".join(path.suffixes))
    os.close(handle)
    temporary = Path(name)
    temporary.unlink()  # some writers refuse an existing file
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write `content` as indented JSON with sorted keys, atomically; NaN is refused."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text())


def read_manifest(path: str | os.PathLike) -> Any:
    """Read a YAML file that comes with the checkout.

    Raises
    ------
    MissingError
        If it is not there; the message ends with the command that brings it back.
    DataError
        If it is not YAML.
    """
    try:
        return yaml.safe_load(Path(path).read_text())
    except FileNotFoundError as error:
        raise MissingError(f"{path} is missing; `git checkout -- {Path(path).name}` brings it back") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not YAML: {error}") from error
