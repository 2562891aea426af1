"""Reading FITS files so that a damaged one is an error and never a short image."""

import bz2
import gzip
import io
import os
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from pnet.common.errors import DataError


def unpack(path: str | os.PathLike, name: str | None = None) -> bytes:
    """Return the content of a file, plain, bzip2 or gzip, as is told by its first bytes and not by its name.

    `name` is what error messages call the file, by default its path.

    Raises
    ------
    DataError
        If the file does not exist, or its compressed data is truncated or damaged.
    """
    name = name or str(path)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from error
    try:
        if content[:3] == b"BZh":
            content = bz2.decompress(content)
        elif content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{name}: the compressed data is damaged or truncated ({error})") from error
    return content


def open_fits(path: str | os.PathLike, name: str | None = None, content: bytes | None = None) -> fits.HDUList:
    """Read a whole FITS file, plain, bzip2 or gzip, into memory; nothing is held open on disk.

    `name` is what error messages call the file, by default its path, and `content` what :func:`unpack` returned of it,
    where that was called before.

    Raises
    ------
    DataError
        If the file does not exist, is empty, truncated, damaged, or no FITS at all.
    """
    name = name or str(path)
    content = unpack(path, name) if content is None else content
    if not content.startswith(b"SIMPLE  ="):
        raise DataError(f"{name}: this is not a FITS file (it has {len(content)} bytes and starts {content[:20]!r})")
    if len(content) % 2880:
        raise DataError(f"{name}: {len(content)} bytes are not whole blocks of 2880: the FITS file is truncated")
    try:
        with warnings.catch_warnings():
            # Old headers break today's rules in harmless ways; a truncated file, however, is only warned about too.
            warnings.simplefilter("ignore", AstropyWarning)
            warnings.filterwarnings("error", message=".*(truncated|corrupt).*", category=AstropyWarning)
            hdus = fits.open(io.BytesIO(content), memmap=False, lazy_load_hdus=False)
            for hdu in hdus:
                _ = hdu.data  # reads it: a short HDU fails here and not in the middle of some later use
    except Exception as error:  # flipped bits end in errors of every kind, those of the C decompressor among them
        raise DataError(f"{name}: the FITS file is damaged or truncated ({error})") from error
    return hdus


def read_columns(path: str | os.PathLike, columns: Iterable[str], kind: str) -> dict[str, np.ndarray]:
    """Read columns of the table in HDU 1 of a FITS file, each of its own type, (N,) for N rows.

    Parameters
    ----------
    path : path
    columns : iterable of str
    kind : str
        What the file should be, for error messages, as in "a photoObj file".

    Raises
    ------
    DataError
        If the file is damaged, has no table there, or lacks a column.
    """
    columns = tuple(columns)
    hdus = open_fits(path)
    table = hdus[1].data if len(hdus) > 1 else None
    if getattr(table, "names", None) is None:
        raise DataError(f"{path}: has no table in HDU 1; it is not {kind}")
    missing = [column for column in columns if column not in table.names]
    if missing:
        raise DataError(f"{path}: lacks the columns {', '.join(missing)}; it is not {kind}")
    return {column: np.asarray(table[column]) for column in columns}
