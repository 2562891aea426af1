"""Batches of fields for training: rendered on the fly, cut from frames, or both mixed."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from pnet.common.errors import DataError
from pnet.detection.targets import Batch
from pnet.frame import Frame
from pnet.simulation.galaxies import add_galaxies, draw_galaxies
from pnet.simulation.recipe import Recipe, draw_magnitudes
from pnet.sky import background, render

# mag; fainter stars are not asked for, brighter ones beyond the catalogue's 20 must not be lost at its edge.
FAINT = 20.5
FAINTEST = 23.0  # mag; stars down to here are drawn, as nobody's sky ends at the catalogue's limit
PAIRS = 0.2  # share of the stars that get a partner
PAIR_DISTANCE, PAIR_DIFFERENCE = (2.5, 11.0), 3.0  # px, mag
GALAXIES = (16.0, 22.0)  # mag
GALAXY_SIZE = 65  # px, side of their stamps
COSMIC_RAYS = 2.0  # mean number in 256 × 256 px; SDSS has about one in each field of this size before cleaning
BAD_COLUMNS = 0.15  # share of the fields that have one


@dataclass(frozen=True)
class Exposures:
    """Conditions of the rendered frames of a batch, an array (n,) each."""

    recipe: Recipe
    seeing: np.ndarray  # arcsec
    gain: np.ndarray  # electrons in an ADU
    read_noise: np.ndarray  # electrons
    sky: np.ndarray  # electrons in a pixel
    zero_point: np.ndarray  # magnitude of one electron

    @classmethod
    def draw(cls, recipe: Recipe, seeing: Sequence[float], n: int, rng: np.random.Generator) -> "Exposures":
        """Draw n of them, seeing from a grid; they span the recipe's range and a little more on every side."""
        chosen = rng.choice(seeing, n)
        gain = rng.uniform(min(recipe.gain), max(recipe.gain), n)
        read_noise = rng.uniform(*recipe.read_noise, n)
        zero_point = recipe.mag_zero + 2.5 * np.log10(recipe.exposure * gain)
        sky_mag = rng.normal(recipe.sky_mag[0], 2 * recipe.sky_mag[1], n)
        sky = recipe.pixel_scale**2 * 10 ** (0.4 * (zero_point - sky_mag))
        return cls(recipe, chosen, gain, read_noise, sky, zero_point)

    @property
    def sigma(self) -> np.ndarray:
        """Noise of an empty pixel in electrons."""
        return np.sqrt(self.sky + self.read_noise**2 + self.gain**2 / 12)

    def read_out(self, light: torch.Tensor, seed: int) -> torch.Tensor:
        """Return ADU of (N, H, W) electrons expected from everything but the sky, where every exposure has its part."""
        repeats = len(light) // len(self.gain)
        sky, gain, read_noise = (
            torch.as_tensor(np.repeat(values, repeats), dtype=torch.float32, device=light.device)
            for values in (self.sky, self.gain, self.read_noise)
        )
        return render.read_out(
            light + sky[:, None, None],
            gain=gain,
            read_noise=read_noise,
            well_capacity=torch.full_like(gain, float(self.recipe.well_capacity)),
            saturation=self.recipe.saturation,
            generator=torch.Generator(device=light.device).manual_seed(seed),
        )


@dataclass
class RenderedFields:
    """Endless fields rendered on the training device: stars, close pairs, galaxies, a camera's blemishes."""

    recipe: Recipe  # density and magnitudes of the stars, conditions, optics and aureole
    batch_size: int  # fields
    size: int = 256  # px, width of a field
    pairs: float = PAIRS  # share of the stars that get a partner

    def batch(self, seed: int, device: torch.device) -> Batch:
        """Return one batch; stars fainter than FAINT are `ignored`."""
        recipe, rng, n = self.recipe, np.random.default_rng(seed), self.batch_size
        grid = sorted({*recipe.seeing, *(round(s + 0.05, 3) for s in recipe.seeing), 0.9, 0.95, 1.9, 2.0})
        exposures = Exposures.draw(recipe, grid, n, rng)
        seeing, sigma = exposures.seeing, exposures.sigma
        sources = self._stars(rng)
        sources["flux"] = 10 ** (0.4 * (exposures.zero_point[sources["field"]] - sources["mag"]))
        sources["ignored"] = sources["mag"] > FAINT
        image = torch.zeros(n, self.size, self.size, device=device)
        add_stars(image, sources, seeing, recipe)
        self._add_galaxies(image, exposures.zero_point, seeing, rng)
        if recipe.aureole is not None:
            image = render.scatter(image, recipe.aureole)
        self._add_cosmic_rays(image, rng)
        adu = exposures.read_out(image, seed)
        # The sky of a real frame is an estimate: off by a few hundredths of the noise.
        level = exposures.sky + rng.normal(0, 0.03, n) * sigma
        gain, level = (torch.as_tensor(v, dtype=torch.float32, device=device) for v in (exposures.gain, level))
        electrons = adu * gain[:, None, None] - level[:, None, None]
        for index in np.flatnonzero(rng.random(n) < BAD_COLUMNS):
            column = rng.integers(self.size)
            electrons[index, :, column] += float(sigma[index] * rng.choice([-1, 1]) * 10 ** rng.uniform(0, 1.5))
        return batch_of(electrons, sigma, np.hypot(seeing, 0.2) / recipe.pixel_scale, sources)

    def _stars(self, rng: np.random.Generator) -> pd.DataFrame:
        """Return field, x, y (px) and mag of the stars of a batch."""
        n, paper = self.batch_size, self.recipe.fields["paper"]
        # Half of the fields follow the paper's steep counts, half are flat in magnitude, so that bright stars are
        # learnt too.
        area = (self.size / self.recipe.size) ** 2
        counts = rng.poisson(rng.uniform(paper.stars[0], 1.8 * paper.stars[1], n) * area)
        field = np.repeat(np.arange(n), counts)
        low = paper.magnitudes[0] - 0.3
        steep = draw_magnitudes((low, FAINT), paper.slope, len(field), rng)
        mag = np.where(rng.random(n)[field] < 0.5, steep, rng.uniform(low, FAINT, len(field)))
        # In every other field the counts go on below what is asked for.
        fainter = np.repeat(np.arange(n), rng.poisson(counts * rng.choice([0, 1.5], n)))
        field = np.concatenate([field, fainter])
        mag = np.concatenate([mag, rng.uniform(FAINT, FAINTEST, len(fainter))])
        x, y = rng.uniform(-0.5, self.size - 0.5, (2, len(field)))
        stars = pd.DataFrame({"field": field, "x": x, "y": y, "mag": mag})
        # Chance makes pairs of a few px from one star in thirty, and it is there that a star is lost or misplaced.
        twins = stars[rng.random(len(stars)) < self.pairs].copy()
        distance, angle = rng.uniform(*PAIR_DISTANCE, len(twins)), rng.uniform(0, 2 * np.pi, len(twins))
        twins["x"] += distance * np.cos(angle)
        twins["y"] += distance * np.sin(angle)
        twins["mag"] = (twins["mag"] + rng.uniform(-PAIR_DIFFERENCE, PAIR_DIFFERENCE, len(twins))).clip(low, FAINTEST)
        return pd.concat([stars, twins], ignore_index=True)

    def _add_galaxies(self, image: torch.Tensor, zero_point: np.ndarray, seeing: np.ndarray, rng) -> None:
        """Add the galaxies that the fields' area holds to images of expected electrons, in place."""
        recipe = dataclasses.replace(self.recipe, size=self.size)
        for one, zero, width in zip(image, zero_point, seeing, strict=True):
            drawn = draw_galaxies(recipe, GALAXIES, int(rng.integers(2**31)))
            flux = 10 ** (0.4 * (zero - drawn["mag"].to_numpy()))
            add_galaxies(one, drawn, flux, float(width), recipe.pixel_scale, GALAXY_SIZE)

    def _add_cosmic_rays(self, image: torch.Tensor, rng) -> None:
        """Add straight tracks of charge, which know nothing of the seeing, in place."""
        mean = COSMIC_RAYS * (self.size / 256) ** 2
        for index in range(self.batch_size):
            for _ in range(rng.poisson(mean)):
                length, angle = rng.exponential(4.0), rng.uniform(0, 2 * np.pi)
                steps = np.linspace(0, length, int(2 * length) + 2)
                x, y = rng.uniform(0, self.size, 2)
                column = np.rint(x + steps * np.cos(angle)).astype(int)
                row = np.rint(y + steps * np.sin(angle)).astype(int)
                inside = (column >= 0) & (column < self.size) & (row >= 0) & (row < self.size)
                charge = 10 ** rng.uniform(2.0, 4.3)  # electrons in each of its pixels
                image[index, row[inside], column[inside]] += charge


def batch_of(image: torch.Tensor, sigma: Sequence[float], fwhm: Sequence[float], sources: pd.DataFrame) -> Batch:
    """Return images, the noise and PSF width of each, and a table of sources (field, x, y, flux, ignored) as a batch on
    the images' device."""
    types = {"field": torch.long, "x": torch.float32, "y": torch.float32, "flux": torch.float32, "ignored": torch.bool}
    sigma, fwhm = (torch.as_tensor(np.array(v), dtype=torch.float32, device=image.device) for v in (sigma, fwhm))
    return Batch(image, sigma, fwhm, **_tensors(sources, types, image.device))


def add_stars(image: torch.Tensor, stars: pd.DataFrame, seeing: Sequence[float], recipe: Recipe) -> None:
    """Add the stars of a table (field, x, y, flux) to (B, H, W) images in place, without their aureole."""
    types = {"field": torch.long, "x": torch.float64, "y": torch.float64, "flux": torch.float32}
    added = _tensors(stars, types, "cpu")
    render.add_stars(image, seeing, **added, pixel_scale=recipe.pixel_scale, optics=recipe.optics)


def _tensors(table: pd.DataFrame, types: dict[str, torch.dtype], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(np.array(table[name]), dtype=kind, device=device) for name, kind in types.items()}


def cut_out(
    images: Sequence[np.ndarray], points: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray]:
    """Cut a random square window of `size` px from (H, W) arrays of one frame, mirrored at random along x and y.

    Bleeding runs along columns, so a transposed image would be one that no camera makes: it is mirrored only.
    A DataError if the frame is smaller than the window.

    Returns
    -------
    list of ndarray, (size, size)
    ndarray, (N, 2)
        Positions (x, y) of the frame as they are in the window; they may lie outside.
    """
    if min(images[0].shape) < size:
        raise DataError(f"a frame of {images[0].shape} pixels is smaller than a cut-out of {size}")
    top, left = (int(rng.integers(side - size + 1)) for side in images[0].shape)
    mirrored = (rng.random() < 0.5, rng.random() < 0.5)
    axes = [1 - axis for axis in (0, 1) if mirrored[axis]]
    parts = [np.flip(image[top : top + size, left : left + size], axes) for image in images]
    moved = points - np.array([left, top], points.dtype)
    return parts, np.where(mirrored, np.array(size - 1, points.dtype) - moved, moved)


class PreparedFrame(NamedTuple):
    """A frame ready to be cut: (H, W) electrons without sky, noise of an empty pixel, PSF width in pixels, sources."""

    image: np.ndarray
    sigma: float
    fwhm: float
    sources: pd.DataFrame


def prepare(frame: Frame, sources: pd.DataFrame) -> PreparedFrame:
    """Subtract the sky of a frame; `sources` may have a boolean column ``ignored`` (default: stars fainter than
    FAINT)."""
    image, rms, _ = background.subtracted(frame)
    star = sources["kind"] == "star"
    if "ignored" not in sources:
        sources = sources.assign(ignored=star & (sources["mag"] > FAINT))
    # Galaxies are empty sky to a network that looks for point sources.
    sources = sources[star | sources["ignored"]].reset_index(drop=True)
    return PreparedFrame(image, rms, (frame.seeing or 1.4) / frame.pixel_scale, sources)


@dataclass
class FrameFields:
    """Random cut-outs of frames, mirrored at random."""

    frames: Sequence[PreparedFrame]
    batch_size: int
    size: int = 256  # px, width of a cut-out

    def batch(self, seed: int, device: torch.device) -> Batch:
        """Return one batch of cut-outs."""
        rng = np.random.default_rng(seed)
        images, parts, chosen = [], [], []
        for index in range(self.batch_size):
            frame = self.frames[rng.integers(len(self.frames))]
            (image,), points = cut_out([frame.image], frame.sources[["x", "y"]].to_numpy(float), self.size, rng)
            inside = ((points > -0.5) & (points < self.size - 0.5)).all(axis=1)
            rest = frame.sources.loc[inside, ["flux", "ignored"]]
            parts.append(rest.assign(field=index, x=points[inside, 0], y=points[inside, 1]))
            images.append(image)
            chosen.append(frame)
        image = torch.from_numpy(np.stack(images)).to(device)
        return batch_of(image, [f.sigma for f in chosen], [f.fwhm for f in chosen], pd.concat(parts))


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Join batches of equal field size into one."""
    joined = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in vars(batches[0])}
    before = np.cumsum([0, *(len(batch.image) for batch in batches[:-1])])
    joined["field"] = torch.cat([batch.field + int(n) for batch, n in zip(batches, before, strict=True)])
    return Batch(**joined)
