"""Damaged FITS files end in an error with words, whatever is wrong with them."""

import bz2
import contextlib
import gzip
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import assume, given
from hypothesis import strategies as st

from pnet.common.errors import DataError
from pnet.common.fits_file import open_fits


def content(compression=None):
    """The bytes of a FITS file with an image; RICE like simulated frames, plain otherwise."""
    image = np.random.default_rng(1).poisson(100, (64, 64)).astype(np.int16)
    hdu = fits.CompImageHDU(image, compression_type="RICE_1") if compression == "rice" else fits.ImageHDU(image)
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(stream)
    return compression(stream.getvalue()) if callable(compression) else stream.getvalue()


def read(content, name):
    """Read the bytes of a file that is called so."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        return open_fits(file.name, name)


FILES = {"plain": content(), "rice": content("rice"), "gzip": content(gzip.compress), "bzip2": content(bz2.compress)}


@pytest.mark.parametrize("kind", FILES)
def test_whole_files_are_read(kind):
    image = read(FILES[kind], kind)[1].data
    assert image.shape == (64, 64) and image.mean() == pytest.approx(100, rel=0.05)


@given(
    st.sampled_from(list(FILES)), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1)
)
def test_flipped_bits_are_an_error_or_unseen(kind, flips):
    """A flipped bit of a pixel cannot be told from light; where the file can no longer be read, the error says so."""
    damaged = bytearray(FILES[kind])
    for place, bit in flips:
        damaged[int(place * len(damaged))] ^= 1 << bit
    with contextlib.suppress(DataError):
        read(bytes(damaged), kind)


def test_flipped_bits_in_compressed_pixels_are_named(tmp_path):
    damaged = bytearray(FILES["rice"])
    start = damaged.rindex(b"END" + b" " * 77) // 2880 * 2880 + 2880  # the first row of the table of pixels
    damaged[start + 600 : start + 2400] = b"\xff" * 1800
    (tmp_path / "night.fits").write_bytes(damaged)
    with pytest.raises(DataError, match="night.fits: the FITS file is damaged or truncated"):
        open_fits(tmp_path / "night.fits")


@given(st.sampled_from(list(FILES)), st.floats(0, 0.999))
def test_cut_files_and_others_are_an_error(kind, share):
    whole = FILES[kind]
    end = int(share * len(whole))
    assume(end != 2880)  # a header of its own is a whole file
    with pytest.raises(DataError, match="cut"):
        read(whole[:end], "cut")
    with pytest.raises(DataError, match="page: this is not a FITS file"):
        read(b"<html>Not found</html>", "page")
