"""Patches: frames of any size cut into squares that the network takes, and their stars put together again."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

SIZE = 512  # px, as in the paper
OVERLAP = 64  # px; each star is taken from the patch in which it lies at least half of this from the border


@dataclass(frozen=True)
class Patch:
    """A square of SIZE pixels at (`top`, `left`) of an image and the half-open ranges of positions that it answers
    for."""

    top: int
    left: int
    rows: tuple[float, float]
    columns: tuple[float, float]

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return (SIZE, SIZE) pixels; beyond the image they are 0, empty sky in an image without sky."""
        piece = image[self.top : self.top + SIZE, self.left : self.left + SIZE]
        if piece.shape == (SIZE, SIZE):
            return np.ascontiguousarray(piece)
        padded = np.zeros((SIZE, SIZE), dtype=image.dtype)
        padded[: piece.shape[0], : piece.shape[1]] = piece
        return padded

    def keep(self, stars: pd.DataFrame) -> pd.DataFrame:
        """Return the stars this patch answers for, ``x`` and ``y`` counted from the image's first pixel."""
        stars = stars.assign(x=stars["x"] + self.left, y=stars["y"] + self.top)
        inside = stars["x"].between(*self.columns, inclusive="left") & stars["y"].between(*self.rows, inclusive="left")
        return stars[inside]


def _starts(length: int) -> list[tuple[int, tuple[float, float]]]:
    """Return the starts of the patches along an axis and the range that each answers for."""
    count = 1 if length <= SIZE else -(-(length - OVERLAP) // (SIZE - OVERLAP))
    starts = [0] if count == 1 else [round(i * (length - SIZE) / (count - 1)) for i in range(count)]
    borders = [-0.5] + [(a + SIZE + b) / 2 - 0.5 for a, b in zip(starts, starts[1:], strict=False)] + [length - 0.5]
    return list(zip(starts, zip(borders, borders[1:], strict=False), strict=True))


def split(shape: tuple[int, int]) -> list[Patch]:
    """Return patches that cover an image of (rows, columns); together they answer for every position once."""
    return [Patch(top, left, rows, columns) for top, rows in _starts(shape[0]) for left, columns in _starts(shape[1])]
