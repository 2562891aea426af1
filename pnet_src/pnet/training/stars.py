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
from pnet.stars.inputs import WIDTH_STAMP, Rows, Stamps
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
class StampBatch(Rows):
    """Stamps, the true total flux (N,) in electrons of their stars, and the true x and y (N,) in pixels from the
    stamps' middle."""

    stamps: Stamps
    flux: Tensor
    x: Tensor
    y: Tensor


@dataclass
class RenderedStamps:
    """Endless stars rendered on the training device, many of them with a neighbour."""

    recipe: Recipe
    batch_size: int  # stars
    position_error: float = DETECTED  # px, standard deviation of the first guess of the position in x and in y
    bare: bool = False  # the light of known neighbours stays, as in `BPNNConfig`

    def batch(self, seed: int, device: torch.device) -> StampBatch:
        """Return one batch."""
        recipe, rng = self.recipe, np.random.default_rng(seed)
        each = -(-self.batch_size // FIELDS)  # what is over is cut off at the end
        grid = np.arange(min(recipe.seeing) - 0.1, max(recipe.seeing) + 0.2, SEEING_STEP)
        exposures = Exposures.draw(recipe, [round(seeing, 3) for seeing in grid], FIELDS, rng)
        low, high = recipe.fields["paper"].magnitudes
        mag = rng.uniform(low - 0.3, high + 0.7, (FIELDS, each))

        def tensor(values) -> Tensor:
            return torch.as_tensor(np.asarray(values).reshape(-1), dtype=torch.float32, device=device)

        flux = tensor(10 ** (0.4 * (exposures.zero_point[:, None] - mag)))
        # The stamp is cut around the pixel that the detection points at.
        dx, dy = (tensor(rng.uniform(-0.5, 0.5, (FIELDS, each))) for _ in range(2))
        x, y = (d + tensor(rng.normal(0, self.position_error, (FIELDS, each))) for d in (dx, dy))
        expected, widths, known = [], [], []
        zero = torch.zeros(1, device=device)
        stars = (values.reshape(FIELDS, each) for values in (x, y, flux))
        for fwhm, zero_point, *star, total in zip(exposures.seeing, exposures.zero_point, *stars, strict=True):
            table = self._table(fwhm, device)
            other, taken_off = self._neighbours(rng, each, zero_point, fwhm, device)
            expected.append(render.sample_psf(table, *star, WIDTH_STAMP) * total[:, None, None] + other)
            known.append(taken_off)
            widths.append(gaussian_width(render.sample_psf(table, zero, zero, WIDTH_STAMP), zero, zero))
        adu = exposures.read_out(torch.cat(expected), seed)
        gain, sky, sigma = (tensor(np.repeat(v, each)) for v in (exposures.gain, exposures.sky, exposures.sigma))
        # Sky and PSF width of a real frame are estimates.
        level = sky + tensor(rng.normal(0, SKY_ERROR, (FIELDS, each))) * sigma
        # In half of the frames the PSF varies from place to place, as it does in a drift scan, and the frame knows by
        # how much.
        scatter = np.where(rng.random(FIELDS) < 0.5, 0.0, 10 ** rng.uniform(*WIDTH_SCATTER, FIELDS))
        widths = torch.cat(widths).double().cpu().numpy()  # at once: a GPU waits for each number that is asked for
        measured = widths * (1 + rng.normal(0, np.hypot(WIDTH_ERROR, scatter / 5)))
        own = measured[:, None] * (1 + scatter[:, None] * rng.normal(0, 1, (FIELDS, each)))
        # The estimate from a handful of stars: none in every other uniform frame, up to 0.7 % in the rest.
        mistaken = np.where(rng.random(FIELDS) < 0.5, 0.0, rng.normal(0, 0.003, FIELDS))
        noticed = np.hypot(scatter * (1 + rng.normal(0, 0.15, FIELDS)), mistaken)
        electrons = adu * gain[:, None, None] - level[:, None, None]
        rim = (WIDTH_STAMP - INNER) // 2
        stamps = Stamps(
            pixels=electrons if self.bare else electrons - torch.cat(known),
            dx=dx,
            dy=dy,
            sigma=sigma,
            psf_width=tensor(own),
            psf_scatter=tensor(np.repeat(noticed, each)),
            saturated=adu[:, rim:-rim, rim:-rim].amax(dim=(1, 2)) >= recipe.saturation,
        )
        return StampBatch(stamps, flux, x, y)[: self.batch_size]

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
        flux = 10 ** (0.4 * (zero_point - mag))
        found = flux * (1 + rng.normal(0, FLUX_ERROR, len(has))) * (mag < SUBTRACTED)
        for images, width, amount, error in ((light, seeing, flux, 0.0), (taken_off, wrong, found, PLACE_ERROR)):
            x, y, amount = (
                torch.as_tensor(values, dtype=torch.float32, device=device)
                for values in (
                    distance * np.cos(angle) + rng.normal(0, 1, len(has)) * error,
                    distance * np.sin(angle) + rng.normal(0, 1, len(has)) * error,
                    amount,
                )
            )
            stars = render.sample_psf(self._table(width, device), x, y, WIDTH_STAMP) * amount[:, None, None]
            images[torch.from_numpy(has).to(device)] = stars
        return light, taken_off


class FrameStars:
    """Stars of frames at the positions where the detection net finds them.

    Parameters
    ----------
    frames : iterable of (Frame, truth, detections)
        The truth with the column ``counted``; only counted stars that were found are used. Their rows of the truth
        stay at hand as `sources`.
    batch_size : int
    bare : bool
        As in `frame_stamps`.

    Raises
    ------
    ConfigError
        If no star is left.
    """

    def __init__(
        self, frames: Iterable[tuple[Frame, pd.DataFrame, pd.DataFrame]], batch_size: int, *, bare: bool = False
    ):
        batches, rows = [], []
        for frame, truth, detections in frames:
            columns = (truth["x"], truth["y"], detections["x"], detections["y"], detections["confidence"])
            source = match(*(column.to_numpy(float) for column in columns))
            counted = truth["counted"].to_numpy(bool)
            used = (source >= 0) & (counted[source] if len(truth) else False)
            stamps = frame_stamps(frame, detections, bare=bare)[torch.from_numpy(np.flatnonzero(used))]
            chosen, middle = truth.iloc[source[used]], np.floor(detections.loc[used, ["x", "y"]].to_numpy(float) + 0.5)
            rows.append(chosen)
            values = (chosen["flux"].to_numpy(float), *(chosen[["x", "y"]].to_numpy(float) - middle).T)
            batches.append(StampBatch(stamps, *(torch.tensor(value, dtype=torch.float32) for value in values)))
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
