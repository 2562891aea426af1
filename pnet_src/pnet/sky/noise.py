"""What the pixels of an image tell of the camera: noise and level of the empty sky, saturation, places without data."""

from typing import NamedTuple

import numpy as np

BLOCK = 16  # px, side of the blocks whose noise is looked at
MOST_BLOCKS = 4096  # enough for 0.2 % of the noise
DARK = 0.25  # share of the blocks, the darkest, that count as sky: in a crowded field hardly any block is empty
FILL = 8  # px, side of a square of one single value that is no data
# A share of the brightest value within which saturated pixels pile up, and their least number there.
PILES = ((0.1, 12), (0.03, 8), (0.0, 4))
TOP = 5000  # brightest pixels that are looked at


class SkyNoise(NamedTuple):
    """The empty sky of an image, in its own unit.

    `level` is the median of the darkest blocks; `sigma` the noise of a pixel as the light of a star meets it, `pixel`
    the scatter of the pixels themselves, smaller where resampling has spread noise over neighbours; `step` the smallest
    difference of two values, 1 in an image of whole ADU.
    """

    level: float
    sigma: float
    pixel: float
    step: float


def blank(image: np.ndarray) -> np.ndarray:
    """Return where an image (H, W) holds no data, (H, W) bool: not a number, or a fill value far below the sky.

    A fill value is one that covers a whole square of 8×8 pixels, as at the edges of registered images.
    """
    nothing = ~np.isfinite(image)
    tiles = _tiles(image, FILL)
    constant = np.unique(tiles[np.ptp(tiles, axis=(1, 2)) == 0][:, 0, 0])
    usable = image[~nothing]
    if len(constant) and len(usable):
        usable = usable[~np.isin(usable, constant)]
        if len(usable):  # 1 % lie 2.3 sigma below the middle
            low, middle = np.quantile(usable, (0.01, 0.5))
            fill = constant[constant < middle - 3 * (middle - low)] if low < middle else []
            nothing |= np.isin(image, fill)
    return nothing


def sky_noise(image: np.ndarray, mask: np.ndarray) -> SkyNoise | None:
    """Estimate noise and level of the sky of an image (H, W) from its darkest blocks of 16×16 pixels.

    Second differences along both axes, 1, −2, 1 each, see no gradient and little of the light of stars, even where
    none of the sky is empty (Immerkær 1996, doi:10.1006/cviu.1996.0060). Over neighbouring pixels they underestimate
    noise that resampling has smoothed: where those over every third and every fourth pixel agree with each other and
    not with these, the noise of means of 4×4 pixels, times 4, is the one that a star's light meets. Where they keep
    growing, it is light of stars and no noise.

    Returns None where the image is smaller than a block or without noise.
    """
    if min(image.shape) < BLOCK:
        return None
    tiles = _tiles(np.where(mask, np.nan, image), BLOCK)
    tiles = tiles[:: -(-len(tiles) // MOST_BLOCKS)]
    ordered = np.sort(tiles.reshape(len(tiles), -1), axis=1)  # values that are not a number come last
    usable = np.isfinite(ordered).sum(axis=1)
    tiles, ordered, usable = (each[usable >= BLOCK**2 // 2] for each in (tiles, ordered, usable))
    if not len(tiles):
        return None
    level = ordered[np.arange(len(ordered)), usable // 2]
    dark = level <= np.quantile(level, min(1.0, max(DARK, 64 / len(level))))
    tiles, values = tiles[dark], np.unique(ordered[dark])
    steps = np.diff(values[np.isfinite(values)])
    if not len(steps):
        return None
    step = float(steps.min())
    tiles = tiles + np.random.default_rng(0).uniform(-step / 2, step / 2, tiles.shape)  # or the median jumps by steps
    near, third, fourth = (_curvature(tiles, spacing) for spacing in (1, 3, 4))
    sigma = near
    if near < 0.9 * third and fourth < 1.1 * third:
        means = tiles.reshape(len(tiles), 4, 4, 4, 4).mean(axis=(2, 4)) * 4
        sigma = max(near, _scatter(np.diff(means, axis=2)) / np.sqrt(2))
    return SkyNoise(float(np.median(level[dark])), sigma, near, step) if sigma > 0 else None


def saturation(image: np.ndarray, mask: np.ndarray, sky: SkyNoise) -> tuple[float, int]:
    """Return the value from which on pixels pile up at the top of an image and their number; infinite and 0 if none do.

    The light of an unsaturated star falls off its peak so that equal shares of brightness hold equal numbers of
    pixels. A pile is a share near the top that holds four times as many as the next one below.
    """
    values = image[~mask]
    height = np.sort(np.partition(values, -min(TOP, len(values)))[-TOP:]) - sky.level
    top = height[-min(3, len(height))]  # a cosmic ray may stand out above the pile
    for share, least in PILES if top > 30 * sky.sigma else ():
        pile = height >= (1 - share) * top
        below = ((height >= (1 - 2 * share) * top) & ~pile).sum()
        if pile.sum() >= max(least, 4 * below + 1):
            return float(height[pile].min() + sky.level), int(pile.sum())
    return np.inf, 0


def _tiles(image: np.ndarray, size: int) -> np.ndarray:
    """Return an image cut into squares, (N, size, size)."""
    height, width = (side // size for side in image.shape)
    return (
        image[: height * size, : width * size].reshape(height, size, width, size).swapaxes(1, 2).reshape(-1, size, size)
    )


def _curvature(tiles: np.ndarray, spacing: int) -> float:
    """Return the noise that second differences over every `spacing`-th pixel see, along both axes."""
    first, last = slice(None, -2 * spacing), slice(2 * spacing, None)
    middle = slice(spacing, -spacing)
    tiles = tiles[:, first] - 2 * tiles[:, middle] + tiles[:, last]
    tiles = tiles[:, :, first] - 2 * tiles[:, :, middle] + tiles[:, :, last]
    return _scatter(tiles) / 6  # the root of the sum of the squared weights


def _scatter(values: np.ndarray) -> float:
    """Return the robust standard deviation around 0 of those values that are numbers."""
    values = values[np.isfinite(values)]
    return 1.4826 * float(np.median(np.abs(values))) if len(values) else 0.0
