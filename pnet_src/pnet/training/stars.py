"""Batches of single stars for training the refinement step and the BPNN: rendered on the fly, cut from frames, or both
mixed."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pnet.common.errors import ConfigError
from pnet.frame import Frame
from pnet.simulation.recipe import Recipe
from pnet.sky import render
from pnet.sky.matching import match
from pnet.sky.psf import Aureole
from pnet.sky.stamps import gaussian_width
from pnet.stars.cutouts import INNER, frame_stamps
from pnet.stars.inputs import WIDTH_STAMP, Stamps
from pnet.training.fields import Exposures

FIELDS = 16  # rendered "frames" in a batch: stars of one frame share seeing, sky and gain
NEIGHBOURS = 0.4  # share of stars that have another one in or near their stamp
NEAR, FAR = 5.0, 26.0  # px, how near
FAINTEST = 22.0  # mag of such a neighbour
SUBTRACTED = 20.5  # mag; brighter neighbours are known to the detection net and their light is taken off
FLUX_ERROR, PLACE_ERROR = 0.01, 0.02  # of the neighbours that are taken off: relative, px
SEEING_STEP = 0.025  # arcsec
SKY_ERROR = 0.02  # of the noise of an empty pixel: what `star.frame` leaves on SkyMaker's validation frames
WIDTH_SCATTER = (-3.0, -1.6)  # log10 of its relative scatter over a frame
WIDTH_ERROR = 0.0012  # relative, of the frame's PSF width, likewise
# px, standard deviation of a position as the detection net and as its refinement give it
DETECTED, REFINED = 0.08, 0.02


@dataclass
class StampBatch:
    """Stamps, the true total flux (N,) in electrons of their stars, and the true x and y (N,) in pixels from the
    stamps' middle."""

    stamps: Stamps
    flux: Tensor
    x: Tensor
    y: Tensor

    def __getitem__(self, chosen) -> "StampBatch":
        return StampBatch(**{name: value[chosen] for name, value in vars(self).items()})

    def to(self, device: torch.device | str) -> "StampBatch":
        """Return the batch on another device."""
        return StampBatch(**{name: value.to(device) for name, value in vars(self).items()})

    @classmethod
    def join(cls, batches: "list[StampBatch]") -> "StampBatch":
        """Return all batches in one."""
        rest = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("flux", "x", "y"))
        return cls(Stamps.join([batch.stamps for batch in batches]), *rest)


@dataclass
class RenderedStamps:
    """Endless stars rendered on the training device, many of them with a neighbour.

    Parameters
    ----------
    recipe : Recipe
    batch_size : int
        Stars in a batch.
    position_error : float
        Standard deviation in pixels of the first guess of the position in x and in y.
    """

    recipe: Recipe
    batch_size: int
    position_error: float = DETECTED

    def __post_init__(self):
        low, high = min(self.recipe.seeing) - 0.1, max(self.recipe.seeing) + 0.2
        self._seeing = [round(s, 3) for s in np.arange(low, high, SEEING_STEP)]

    def batch(self, seed: int, device: torch.device) -> StampBatch:
        """Return one batch."""
        recipe, rng = self.recipe, np.random.default_rng(seed)
        each = -(-self.batch_size // FIELDS)  # what is over is cut off at the end
        exposures = Exposures.draw(recipe, self._seeing, FIELDS, rng)
        zero_point = exposures.zero_point
        low, high = recipe.fields["paper"].magnitudes
        mag = rng.uniform(low - 0.3, high + 0.7, (FIELDS, each))
        flux = 10 ** (0.4 * (zero_point[:, None] - mag))

        def tensor(values) -> Tensor:
            return torch.as_tensor(np.asarray(values).reshape(-1), dtype=torch.float32, device=device)

        # The stamp is cut around the pixel that the detection points at.
        dx, dy = (tensor(rng.uniform(-0.5, 0.5, (FIELDS, each))) for _ in range(2))
        x, y = (d + tensor(rng.normal(0, self.position_error, (FIELDS, each))) for d in (dx, dy))
        expected, widths, known = [], [], []
        zero = torch.zeros(1, device=device)
        for index, fwhm in enumerate(exposures.seeing):
            part = slice(index * each, (index + 1) * each)
            table = self._table(fwhm, device)
            light = render.sample_psf(table, x[part], y[part], WIDTH_STAMP) * tensor(flux)[part, None, None]
            other, taken_off = self._neighbours(rng, each, float(zero_point[index]), fwhm, device)
            expected.append(light + other)
            known.append(taken_off)
            widths.append(float(gaussian_width(render.sample_psf(table, zero, zero, WIDTH_STAMP), zero, zero)))
        adu = exposures.read_out(torch.cat(expected), seed)
        gain, sky, sigma = (tensor(np.repeat(v, each)) for v in (exposures.gain, exposures.sky, exposures.sigma))
        # Sky and PSF width of a real frame are estimates.
        level = sky + tensor(rng.normal(0, SKY_ERROR, (FIELDS, each))) * sigma
        # In half of the frames the PSF varies from place to place, as it does in a drift scan, and the frame knows by
        # how much.
        scatter = np.where(rng.random(FIELDS) < 0.5, 0.0, 10 ** rng.uniform(*WIDTH_SCATTER, FIELDS))
        measured = np.array(widths) * (1 + rng.normal(0, np.hypot(WIDTH_ERROR, scatter / 5)))
        own = np.repeat(measured, each) * (1 + np.repeat(scatter, each) * rng.normal(0, 1, FIELDS * each))
        # The estimate from a handful of stars: none in every other uniform frame, up to 0.7 % in the rest.
        mistaken = np.where(rng.random(FIELDS) < 0.5, 0.0, rng.normal(0, 0.003, FIELDS))
        noticed = np.hypot(scatter * (1 + rng.normal(0, 0.15, FIELDS)), mistaken)
        electrons = adu * gain[:, None, None] - level[:, None, None]
        batch = StampBatch(
            Stamps(
                pixels=electrons - torch.cat(known),
                dx=dx,
                dy=dy,
                sigma=sigma,
                psf_width=tensor(own),
                psf_scatter=tensor(np.repeat(noticed, each)),
                saturated=_inner(adu).amax(dim=(1, 2)) >= recipe.saturation,
            ),
            tensor(flux),
            x,
            y,
        )
        return batch[: self.batch_size]

    def _table(self, seeing: float, device: torch.device) -> Tensor:
        """Return the PSF with its aureole, wide enough for neighbours at the distance FAR."""
        recipe, size = self.recipe, 2 * (WIDTH_STAMP // 2 + int(FAR)) + 1
        aureole = recipe.aureole or Aureole()
        return render.psf_table(round(float(seeing), 3), recipe.pixel_scale, recipe.optics, aureole, str(device), size)

    def _neighbours(self, rng, count: int, zero_point: float, seeing: float, device) -> tuple[Tensor, Tensor]:
        """Return (count, S, S) electrons of other stars, and what a frame's measurement would take off again."""
        light, taken_off = torch.zeros(2, count, WIDTH_STAMP, WIDTH_STAMP, device=device)
        has = np.flatnonzero(rng.random(count) < NEIGHBOURS)
        distance = np.sqrt(rng.uniform(NEAR**2, FAR**2, len(has)))
        angle = rng.uniform(0, 2 * np.pi, len(has))
        mag = rng.uniform(self.recipe.fields["paper"].magnitudes[0], FAINTEST, len(has))
        # The wings of the model are those of the nearest seeing in its table.
        wrong = seeing + rng.choice([-SEEING_STEP, 0, SEEING_STEP])

        def stamps(table: Tensor, flux: np.ndarray, error: float) -> Tensor:
            at = [
                torch.as_tensor(distance * part + rng.normal(0, 1, len(has)) * error, dtype=torch.float32).to(device)
                for part in (np.cos(angle), np.sin(angle))
            ]
            amount = torch.as_tensor(flux, dtype=torch.float32, device=device)
            return render.sample_psf(table, *at, WIDTH_STAMP) * amount[:, None, None]

        flux = 10 ** (0.4 * (zero_point - mag))
        found = flux * (1 + rng.normal(0, FLUX_ERROR, len(has))) * (mag < SUBTRACTED)
        chosen = torch.from_numpy(has).to(device)
        light[chosen] = stamps(self._table(seeing, device), flux, 0.0)
        taken_off[chosen] = stamps(self._table(wrong, device), found, PLACE_ERROR)
        return light, taken_off


def _inner(pixels: Tensor) -> Tensor:
    margin = (pixels.shape[-1] - INNER) // 2
    return pixels[:, margin : margin + INNER, margin : margin + INNER]


class FrameStars:
    """Stars of frames at the positions where the detection net finds them.

    Parameters
    ----------
    frames : iterable of (Frame, truth, detections)
        The truth with the column ``counted``; only counted stars that were found are used. Their rows of the truth
        stay at hand as `sources`.
    batch_size : int

    Raises
    ------
    ConfigError
        If no star is left.
    """

    def __init__(self, frames: Iterable[tuple[Frame, pd.DataFrame, pd.DataFrame]], batch_size: int):
        batches, rows = [], []
        for frame, truth, detections in frames:
            columns = (truth["x"], truth["y"], detections["x"], detections["y"], detections["confidence"])
            source = match(*(column.to_numpy(float) for column in columns))
            counted = truth["counted"].to_numpy(bool)
            used = (source >= 0) & (counted[source] if len(truth) else False)
            stamps = frame_stamps(frame, detections)[torch.from_numpy(np.flatnonzero(used))]
            chosen, found = truth.iloc[source[used]], detections[used]
            rows.append(chosen)
            values = [chosen["flux"].to_numpy(float, copy=True)]
            values += [(chosen[axis].to_numpy(float) - np.floor(found[axis].to_numpy(float) + 0.5)) for axis in "xy"]
            batches.append(StampBatch(stamps, *(torch.from_numpy(value).float() for value in values)))
        if not sum(len(batch.flux) for batch in batches):
            raise ConfigError("frames hold no counted star that was detected: there is nothing to train on")
        self.stars = StampBatch.join(batches)
        self.sources = pd.concat(rows, ignore_index=True)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.stars.flux)

    def truth(self, target: str) -> np.ndarray:
        """Return the (N,) true instrumental magnitudes (−2.5 log10 of electrons), or x or y from the stamps' middle."""
        if target == "mag":
            return -2.5 * np.log10(self.stars.flux.numpy().astype(float))
        return getattr(self.stars, target).numpy().astype(float)

    def batch(self, seed: int, device: torch.device) -> StampBatch:
        """Return a random draw of the stars, mirrored at random."""
        rng = np.random.default_rng(seed)
        batch = self.stars[torch.from_numpy(rng.integers(len(self), size=self.batch_size))]
        for dimension, offset, truth in ((2, batch.stamps.dx, batch.x), (1, batch.stamps.dy, batch.y)):
            mirrored = torch.from_numpy(rng.random(self.batch_size) < 0.5)
            batch.stamps.pixels[mirrored] = batch.stamps.pixels[mirrored].flip(dimension)
            offset[mirrored] *= -1
            truth[mirrored] *= -1
        return batch.to(device)
