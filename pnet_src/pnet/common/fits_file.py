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


def open_fits(path: str | os.PathLike, name: str | None = None) -> fits.HDUList:
    """Read a whole FITS file, plain, bzip2 or gzip, into memory.

    The compression is told by the first bytes, not by the name; nothing is held open on disk. `name` is what error
    messages call the file, by default its path.

    Raises
    ------
    DataError
        If the file does not exist, is empty, truncated, damaged, or no FITS at all.
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


def primary_header(path: str | os.PathLike) -> fits.Header:
    """Read the first header of a FITS file, plain, bzip2 or gzip, and no more of it.

    Raises
    ------
    DataError
        If the file does not exist, or does not begin with a header.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(3)
        opener = bz2.open if start == b"BZh" else gzip.open if start[:2] == b"\x1f\x8b" else open
        with opener(path, "rb") as stream:
            return fits.Header.fromfile(stream)
    except FileNotFoundError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # as in `open_fits`
        raise DataError(f"{path}: this is not a FITS file, or it is damaged or truncated ({error})") from error


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
