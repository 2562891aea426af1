"""Batches of fields for training: rendered on the fly, cut from frames, or both mixed."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from pnet.common.errors import ConfigError, DataError
from pnet.detection.targets import Batch
from pnet.frame import Frame
from pnet.simulation.galaxies import draw_galaxies, galaxy_stamp
from pnet.simulation.recipe import FieldKind, Recipe, draw_magnitudes
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
    """Conditions of the rendered frames of a batch, an array (n,) each.

    Parameters
    ----------
    recipe : Recipe
    seeing : ndarray
        Arcsec.
    gain, read_noise, sky : ndarray
        Electrons in an ADU, and in a pixel.
    zero_point : ndarray
        Magnitude of one electron.
    """

    recipe: Recipe
    seeing: np.ndarray
    gain: np.ndarray
    read_noise: np.ndarray
    sky: np.ndarray
    zero_point: np.ndarray

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

        def of_each(values: np.ndarray) -> torch.Tensor:
            repeated = np.repeat(values, len(light) // len(values))
            return torch.as_tensor(repeated, dtype=torch.float32, device=light.device)

        return render.read_out(
            light + of_each(self.sky)[:, None, None],
            gain=of_each(self.gain),
            read_noise=of_each(self.read_noise),
            well_capacity=torch.full((len(light),), float(self.recipe.well_capacity), device=light.device),
            saturation=self.recipe.saturation,
            generator=torch.Generator(device=light.device).manual_seed(seed),
        )


@dataclass
class RenderedFields:
    """Endless fields rendered on the training device: stars, some in close pairs, galaxies, and a camera's blemishes.

    Parameters
    ----------
    recipe : Recipe
    batch_size : int
        Fields in a batch.
    size : int
        Width of a field in pixels.
    faint : float
        Stars down to this magnitude are drawn; those fainter than FAINT are `ignored`.
    pairs : float
        Share of the stars that get a partner.
    """

    recipe: Recipe
    batch_size: int
    size: int = 256
    faint: float = FAINTEST
    pairs: float = PAIRS

    def batch(self, seed: int, device: torch.device) -> Batch:
        """Return one batch."""
        recipe, rng = self.recipe, np.random.default_rng(seed)
        n = self.batch_size
        grid = sorted({*recipe.seeing, *(round(s + 0.05, 3) for s in recipe.seeing), 0.9, 0.95, 1.9, 2.0})
        exposures = Exposures.draw(recipe, grid, n, rng)
        seeing, sigma = exposures.seeing, exposures.sigma
        sources = self._stars(rng)
        sources["flux"] = 10 ** (0.4 * (exposures.zero_point[sources["field"]] - sources["mag"]))
        sources["ignored"] = sources["mag"] > FAINT
        image = torch.zeros(n, self.size, self.size, device=device)
        stars = stars_of(sources, device)
        render.add_stars(image, stars, list(seeing), pixel_scale=recipe.pixel_scale, optics=recipe.optics)
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
        high = min(FAINT, self.faint)
        steep = draw_magnitudes(FieldKind(paper.stars, (low, high), paper.slope, None), len(field), rng)
        mag = np.where(rng.random(n)[field] < 0.5, steep, rng.uniform(low, high, len(field)))
        # In every other field the counts go on below what is asked for.
        fainter = np.repeat(np.arange(n), rng.poisson(counts * rng.choice([0, 1.5], n)))
        field = np.concatenate([field, fainter])
        mag = np.concatenate([mag, rng.uniform(high, self.faint, len(fainter))])
        x, y = rng.uniform(-0.5, self.size - 0.5, (2, len(field)))
        # Chance makes pairs of a few px from one star in thirty, and it is there that a star is lost or misplaced.
        twin = np.flatnonzero(rng.random(len(field)) < self.pairs)
        distance, angle = rng.uniform(*PAIR_DISTANCE, len(twin)), rng.uniform(0, 2 * np.pi, len(twin))
        other = mag[twin] + rng.uniform(-PAIR_DIFFERENCE, PAIR_DIFFERENCE, len(twin))
        x = np.concatenate([x, x[twin] + distance * np.cos(angle)])
        y = np.concatenate([y, y[twin] + distance * np.sin(angle)])
        mag = np.concatenate([mag, np.clip(other, low, self.faint)])
        return pd.DataFrame({"field": np.concatenate([field, field[twin]]), "x": x, "y": y, "mag": mag})

    def _add_galaxies(self, image: torch.Tensor, zero_point: np.ndarray, seeing: np.ndarray, rng) -> None:
        """Add the galaxies that the fields' area holds to images of expected electrons, in place."""
        recipe = dataclasses.replace(self.recipe, size=self.size)
        for index in range(self.batch_size):
            for _, galaxy in draw_galaxies(recipe, GALAXIES, int(rng.integers(2**31))).iterrows():
                column, row = int(np.floor(galaxy["x"] + 0.5)), int(np.floor(galaxy["y"] + 0.5))
                flux = 10 ** (0.4 * (zero_point[index] - galaxy["mag"]))
                shift = (galaxy["x"] - column, galaxy["y"] - row)
                stamp = galaxy_stamp(galaxy, flux, *shift, float(seeing[index]), recipe.pixel_scale, GALAXY_SIZE)
                where = [torch.tensor([value], device=image.device) for value in (index, column, row)]
                render.add_stamps(image, torch.from_numpy(stamp).to(image.device)[None], *where)

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

    def tensor(values, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.as_tensor(np.array(values), dtype=dtype, device=image.device)

    return Batch(
        image=image,
        sigma=tensor(sigma),
        fwhm=tensor(fwhm),
        field=tensor(sources["field"], torch.long),
        ignored=tensor(sources["ignored"].astype(bool), torch.bool),
        **{name: tensor(sources[name]) for name in ("x", "y", "flux")},
    )


def stars_of(sources: pd.DataFrame, device: torch.device) -> render.Stars:
    """Return the columns field, x, y and flux of a table as the renderer takes them."""
    types = {"field": torch.long, "x": torch.float64, "y": torch.float64, "flux": torch.float32}
    columns = (torch.as_tensor(np.array(sources[name]), dtype=kind, device=device) for name, kind in types.items())
    return render.Stars(*columns)


@dataclass(frozen=True)
class CutOut:
    """A square window of a frame, mirrored at random.

    Bleeding runs along columns, so a transposed image would be one that no camera makes: it is mirrored only.

    Parameters
    ----------
    left, top, size : int
        In pixels.
    mirrored : tuple of bool
        Along x and along y.
    """

    left: int
    top: int
    size: int
    mirrored: tuple[bool, bool]

    @classmethod
    def draw(cls, shape: tuple[int, int], size: int, rng: np.random.Generator) -> "CutOut":
        """Draw one from a frame of this shape."""
        top, left = (int(rng.integers(side - size + 1)) for side in shape)
        return cls(left, top, size, (rng.random() < 0.5, rng.random() < 0.5))

    def image(self, frame: np.ndarray) -> np.ndarray:
        """Cut an (H, W) array."""
        part = frame[self.top : self.top + self.size, self.left : self.left + self.size]
        return np.ascontiguousarray(np.flip(part, [1 - axis for axis in (0, 1) if self.mirrored[axis]]))

    def positions(self, points: np.ndarray) -> np.ndarray:
        """Return (N, 2) positions (x, y) of the frame as they are in the cut-out; they may lie outside."""
        moved = points - np.array([self.left, self.top], points.dtype)
        return np.where(self.mirrored, np.array(self.size - 1, points.dtype) - moved, moved)


@dataclass
class PreparedFrame:
    """A frame ready to be cut: electrons without sky, its noise, PSF width in pixels, and its sources."""

    image: np.ndarray
    sigma: float
    fwhm: float
    sources: pd.DataFrame


def prepare(frame: Frame, sources: pd.DataFrame) -> PreparedFrame:
    """Subtract the sky of a frame; `sources` may have a boolean column ``ignored`` (default: stars fainter than
    FAINT)."""
    image, rms = background.subtracted(frame)
    sources = sources.copy()
    if "ignored" not in sources:
        sources["ignored"] = (sources["kind"] == "star") & (sources["mag"] > FAINT)
    # Galaxies are empty sky to a network that looks for point sources.
    sources = sources[(sources["kind"] == "star") | sources["ignored"]]
    fwhm = (frame.seeing if frame.seeing else 1.4) / frame.pixel_scale
    return PreparedFrame(image, rms, fwhm, sources.reset_index(drop=True))


class FrameFields:
    """Random cut-outs of frames flipped at random.

    Parameters
    ----------
    frames : sequence of PreparedFrame
    batch_size : int
    size : int
        Width of a cut-out in pixels.

    Raises
    ------
    ConfigError, DataError
        If there is no frame, or one is smaller than a cut-out.
    """

    def __init__(self, frames: Sequence[PreparedFrame], batch_size: int, size: int = 256):
        if not frames:
            raise ConfigError("frames is empty: there is nothing to train on")
        for frame in frames:
            if min(frame.image.shape) < size:
                raise DataError(f"a frame of {frame.image.shape} pixels is smaller than a cut-out of {size}")
        self.frames, self.batch_size, self.size = list(frames), batch_size, size

    def batch(self, seed: int, device: torch.device) -> Batch:
        """Return one batch of cut-outs."""
        rng = np.random.default_rng(seed)
        images, parts, chosen = [], [], []
        for index in range(self.batch_size):
            frame = self.frames[rng.integers(len(self.frames))]
            cut = CutOut.draw(frame.image.shape, self.size, rng)
            points = cut.positions(frame.sources[["x", "y"]].to_numpy(float))
            inside = ((points > -0.5) & (points < self.size - 0.5)).all(axis=1)
            rest = frame.sources.loc[inside, ["flux", "ignored"]]
            parts.append(rest.assign(field=index, x=points[inside, 0], y=points[inside, 1]))
            images.append(cut.image(frame.image))
            chosen.append(frame)
        image = torch.from_numpy(np.stack(images)).to(device)
        return batch_of(image, [f.sigma for f in chosen], [f.fwhm for f in chosen], pd.concat(parts))


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Join batches of equal field size into one."""
    shift = np.cumsum([0] + [len(batch.image) for batch in batches])
    joined = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in ("image", "sigma", "fwhm", "x", "y", "flux", "ignored")
    }
    return Batch(field=torch.cat([b.field + int(s) for b, s in zip(batches, shift, strict=False)]), **joined)
