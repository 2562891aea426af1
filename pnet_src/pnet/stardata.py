"""Batches of single stars for training the BPNN: rendered on the fly, cut from frames, or both mixed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pnet import render
from pnet.bpnn.inputs import WIDTH_STAMP, Stamps
from pnet.bpnn.predict import frame_stamps
from pnet.errors import ConfigError
from pnet.frame import Frame
from pnet.matching import match
from pnet.psf import Aureole
from pnet.simulation import Recipe
from pnet.stamps import gaussian_width

FIELDS = 16  # rendered "frames" in a batch: stars of one frame share seeing, sky and gain


@dataclass
class StampBatch:
    """Stamps and the true total flux (N,) in electrons of their stars."""

    stamps: Stamps
    flux: Tensor

    def to(self, device: torch.device | str) -> "StampBatch":
        """Return the batch on another device."""
        return StampBatch(
            Stamps(**{name: value.to(device) for name, value in vars(self.stamps).items()}), self.flux.to(device)
        )


@dataclass
class RenderedStamps:
    """Endless isolated stars rendered on the training device.

    Parameters
    ----------
    recipe : Recipe
    batch_size : int
        Stars in a batch; a multiple of FIELDS.
    stamp : int
        Odd width in pixels.
    position_error : float
        Standard deviation in pixels of the detection's position in x and in y.
    """

    recipe: Recipe
    batch_size: int
    stamp: int = 9
    position_error: float = 0.08

    def __post_init__(self):
        if self.batch_size % FIELDS:
            raise ConfigError(f"batch_size is {self.batch_size}, it must be a multiple of {FIELDS}")
        if self.stamp > WIDTH_STAMP:
            raise ConfigError(f"stamp is {self.stamp} px, allowed are odd widths up to {WIDTH_STAMP}")
        self._seeing = [
            round(s, 3) for s in np.arange(min(self.recipe.seeing) - 0.1, max(self.recipe.seeing) + 0.2, 0.025)
        ]

    def batch(self, seed: int, device: torch.device) -> StampBatch:
        """Return one batch; conditions span the recipe's range and a little more on every side."""
        recipe, rng = self.recipe, np.random.default_rng(seed)
        each = self.batch_size // FIELDS
        seeing = rng.choice(self._seeing, FIELDS)
        gain = rng.uniform(min(recipe.gain), max(recipe.gain), FIELDS)
        read_noise = rng.uniform(*recipe.read_noise, FIELDS)
        zero_point = recipe.mag_zero + 2.5 * np.log10(recipe.exposure * gain)
        sky_mag = rng.normal(recipe.sky_mag[0], 2 * recipe.sky_mag[1], FIELDS)
        sky = recipe.pixel_scale**2 * 10 ** (0.4 * (zero_point - sky_mag))
        sigma = np.sqrt(sky + read_noise**2 + gain**2 / 12)
        low, high = recipe.fields["paper"].magnitudes
        mag = rng.uniform(low - 0.3, high + 0.7, (FIELDS, each))
        flux = 10 ** (0.4 * (zero_point[:, None] - mag))

        def tensor(values) -> Tensor:
            return torch.as_tensor(np.asarray(values).reshape(-1), dtype=torch.float32, device=device)

        dx, dy = (tensor(rng.uniform(-0.5, 0.5, (FIELDS, each))) for _ in range(2))
        true_x, true_y = (d + tensor(rng.normal(0, self.position_error, (FIELDS, each))) for d in (dx, dy))
        shapes, widths = [], []
        zero = torch.zeros(1, device=device)
        for index, fwhm in enumerate(seeing):
            # The aureole is part of these stamps; of the star's own light only, since the stars are alone.
            table = render.psf_table(
                float(fwhm), recipe.pixel_scale, recipe.optics, recipe.aureole or Aureole(), str(device), WIDTH_STAMP
            )
            part = slice(index * each, (index + 1) * each)
            shapes.append(render.sample_psf(table, true_x[part], true_y[part], WIDTH_STAMP))
            widths.append(float(gaussian_width(render.sample_psf(table, zero, zero, WIDTH_STAMP), zero, zero)))
        expected = torch.cat(shapes) * tensor(flux)[:, None, None]
        repeated = {
            name: tensor(np.repeat(value, each))
            for name, value in {"gain": gain, "read_noise": read_noise, "sky": sky, "sigma": sigma}.items()
        }
        generator = torch.Generator(device=device).manual_seed(seed)
        adu = render.read_out(
            expected + repeated["sky"][:, None, None],
            gain=repeated["gain"],
            read_noise=repeated["read_noise"],
            well_capacity=torch.full((self.batch_size,), float(recipe.well_capacity), device=device),
            saturation=recipe.saturation,
            generator=generator,
        )
        margin = (WIDTH_STAMP - self.stamp) // 2
        adu = adu[:, margin : WIDTH_STAMP - margin, margin : WIDTH_STAMP - margin]
        # Sky and PSF width of a real frame are estimates.
        level = sky + rng.normal(0, 0.015, FIELDS) * sigma
        measured = np.array(widths) * (1 + rng.normal(0, 0.003, FIELDS))
        return StampBatch(
            Stamps(
                pixels=adu * repeated["gain"][:, None, None] - tensor(np.repeat(level, each))[:, None, None],
                dx=dx,
                dy=dy,
                sigma=repeated["sigma"],
                psf_width=tensor(np.repeat(measured, each)),
                saturated=adu.amax(dim=(1, 2)) >= recipe.saturation,
            ),
            tensor(flux),
        )


class FrameStars:
    """Stars of frames at the positions where the detection net finds them.

    Parameters
    ----------
    frames : iterable of (Frame, truth, detections)
        The truth with the column ``counted``; only counted stars that were found are used.
    batch_size : int
    stamp : int
        Odd width in pixels.

    Raises
    ------
    ConfigError
        If no star is left.
    """

    def __init__(self, frames: Iterable[tuple[Frame, pd.DataFrame, pd.DataFrame]], batch_size: int, stamp: int = 9):
        parts, flux = [], []
        for frame, truth, detections in frames:
            stamps = frame_stamps(frame, detections, stamp)
            columns = (truth["x"], truth["y"], detections["x"], detections["y"], detections["confidence"])
            source = match(*(column.to_numpy(float) for column in columns))
            counted = truth["counted"].to_numpy(bool)
            used = (source >= 0) & (counted[source] if len(truth) else False)
            chosen = torch.from_numpy(np.flatnonzero(used))
            parts.append(Stamps(**{name: value[chosen] for name, value in vars(stamps).items()}))
            flux.append(torch.from_numpy(truth["flux"].to_numpy(float)[source[used]]))
        if not parts or not sum(len(part.dx) for part in parts):
            raise ConfigError("frames hold no counted star that was detected: there is nothing to train on")
        self.stamps = Stamps(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})
        self.flux = torch.cat(flux).float()
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.flux)

    def batch(self, seed: int, device: torch.device) -> StampBatch:
        """Return a random draw of the stars, mirrored at random."""
        rng = np.random.default_rng(seed)
        chosen = torch.from_numpy(rng.integers(len(self), size=self.batch_size))
        stamps = Stamps(**{name: value[chosen].clone() for name, value in vars(self.stamps).items()})
        for dimension, offset in ((2, stamps.dx), (1, stamps.dy)):
            mirrored = torch.from_numpy(rng.random(self.batch_size) < 0.5)
            stamps.pixels[mirrored] = stamps.pixels[mirrored].flip(dimension)
            offset[mirrored] *= -1
        return StampBatch(stamps, self.flux[chosen]).to(device)


@dataclass
class MixedStars:
    """Batches that join one batch of each source."""

    sources: Sequence

    def batch(self, seed: int, device: torch.device) -> StampBatch:
        """Return one joined batch."""
        batches = [source.batch(seed + index, device) for index, source in enumerate(self.sources)]
        names = vars(batches[0].stamps)
        stamps = Stamps(**{name: torch.cat([getattr(batch.stamps, name) for batch in batches]) for name in names})
        return StampBatch(stamps, torch.cat([batch.flux for batch in batches]))
