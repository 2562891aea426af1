"""Batches of single stars for training networks that correct a fit, or see bare pixels: rendered on the fly, measured
on frames, or both mixed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pnet.common.errors import ConfigError
from pnet.frame import Frame
from pnet.simulation.recipe import Recipe
from pnet.sky import background, psf_fit
from pnet.sky.frame_psf import FramePSF
from pnet.sky.matching import match
from pnet.stars import fitted, inputs
from pnet.stars.inputs import Inputs, Rows
from pnet.training import psfs
from pnet.training.fields import Exposures

FIELDS = 16  # rendered "frames" in a batch: stars of one frame share PSF, sky and gain
PSFS, ESTIMATES = 160, 3  # true ones, and how often each is estimated
NEIGHBOURS = 0.4  # share of stars that have another one in or near their stamp
NEAR, FAR = 5.0, 26.0  # px, how near
UNKNOWN = 0.05  # share of stars with another one that the detection net does not know, also nearer than NEAR
HIDDEN = (2.5, 2.5, 6.0)  # px within which it may be brighter, by so many magnitudes fainter than the star
FAINTEST = 23.0  # mag of such a neighbour
KNOWN = 20.5  # mag; brighter neighbours are known to the detection net and their light is taken off
FLUX_ERROR, PLACE_ERROR = 0.01, 0.02  # of the neighbours that are taken off: relative, px
SKY_ERROR, RMS_ERROR = 0.02, 0.01  # of sky and noise, in units of the noise of an empty pixel
OTHER_SKY = 0.5  # share of the frames whose sky is not the recipe's:
BRIGHTER = (-1.0, 2.0)  # ln of the noise of their empty pixels in units of its own
LOST = 0.06  # share of the stars with pixels that cannot be used, a column or a cosmic ray's
DETECTED = 0.08  # px, standard deviation of a position as the detection net gives it


def psfs_for(batches: int) -> int:
    """Return how many PSFs `RenderedStars` needs for a run of so many batches: a short one no hundreds."""
    return int(np.clip(batches // 20, 4, PSFS))


@dataclass
class StarBatch(Rows):
    """Inputs, the true total flux (N,) in electrons of their stars, and the true x and y (N,) in pixels from the
    stamps' middle."""

    inputs: Inputs
    flux: Tensor
    x: Tensor
    y: Tensor

    def mirrored(self, axis: str) -> "StarBatch":
        """Return the same stars in a sky that is mirrored along 'x' or 'y'."""
        return replace(self, inputs=self.inputs.mirrored(axis), **{axis: -getattr(self, axis)})


@dataclass
class RenderedStars:
    """Endless stars of many PSFs, many of them with a neighbour. They are made on the CPU."""

    recipe: Recipe
    batch_size: int  # stars
    seed: int = 2023  # of the PSFs
    # px; the bare pixels of stamps of this size instead of a fit, as in `BPNNConfig`, under the recipe's sky alone
    bare: int | None = None
    count: int = PSFS

    def _exposures(self, rng: np.random.Generator, n: int) -> Exposures:
        exposures = Exposures.draw(self.recipe, [1.0], n, rng)
        other = rng.random(n) < (0 if self.bare else OTHER_SKY)
        factor = np.where(other, np.exp(2 * rng.uniform(*BRIGHTER, n)), 1.0)
        return replace(exposures, sky=exposures.sky * factor)

    def batch(self, seed: int, device: torch.device) -> StarBatch:
        """Return one batch."""
        rng, recipe = np.random.default_rng(seed), self.recipe
        seeing = np.array(recipe.seeing)[[0, -1]] / recipe.pixel_scale if self.bare else psfs.SEEING
        known = psfs.many(self.seed, self.count, tuple(seeing), 0 if self.bare else ESTIMATES)
        exposures = self._exposures(rng, FIELDS)
        typical = float(np.sqrt(np.mean(Exposures.draw(self.recipe, [1.0], 32, np.random.default_rng(0)).sigma ** 2)))
        each, parts = -(-self.batch_size // FIELDS), []  # what is over is cut off at the end
        for index in range(FIELDS):
            true, estimates = known[rng.integers(len(known))]
            psf = estimates[rng.integers(len(estimates))] if estimates else None
            # stars as bright against their sky, and as full, as in the recipe
            factor = float(exposures.sigma[index]) / typical * max(true.width / 1.7, 1)
            brighter = 0 if self.bare else 2.5 * np.log10(factor)
            most = {name: getattr(recipe, name) * max(factor, 1) for name in ("saturation", "well_capacity")}
            values = (values[index : index + 1] for values in list(vars(exposures).values())[1:])
            one = Exposures(recipe if self.bare else replace(recipe, **most), *values)
            parts.append(self._frame(true, psf, one, each, brighter, rng))
        return StarBatch.join(parts)[: self.batch_size].to(device)

    def _frame(
        self,
        true: psfs.SkyPSF,
        psf: FramePSF | None,
        exposure: Exposures,
        n: int,
        brighter: float,
        rng: np.random.Generator,
    ) -> StarBatch:
        """Return stars of a frame, seen with a true PSF and fitted with an estimate; `brighter` by magnitudes than the
        recipe's."""
        size = self.bare or psf_fit.side(psf.basis.width)
        u, v = torch.from_numpy(rng.uniform(-1, 1, (2, n)))
        low, high = self.recipe.fields["paper"].magnitudes
        zero_point, sigma = float(exposure.zero_point[0]), float(exposure.sigma[0])
        mag = rng.uniform(low - 0.3, high + 0.7, n)
        flux = torch.from_numpy(10 ** (0.4 * (zero_point - mag + brighter)))
        dx, dy = torch.from_numpy(rng.uniform(-0.5, 0.5, (2, n)))
        light = true.stamps(u, v, dx, dy, size).double() * flux[:, None, None]
        others = torch.zeros_like(light)
        place = psfs.places(u, v)
        for stars, other in self._neighbours(mag, rng):
            at, total = torch.from_numpy(other[["x", "y"]].to_numpy().T.copy()), other["mag"].to_numpy()
            total = torch.from_numpy(10 ** (0.4 * (zero_point - total + brighter)))[:, None, None]
            light[stars] += true.stamps(u[stars], v[stars], *at, size) * total
            if psf is None:
                continue
            seen = torch.from_numpy(np.where(other["known"], 1 + rng.normal(0, FLUX_ERROR, len(other)), 0))
            moved = at + torch.from_numpy(rng.normal(0, PLACE_ERROR, at.shape))
            drawn = psf.drawn(*(value[stars] for value in place), size, at=tuple(moved))[0]
            others[stars] += drawn * total * seen[:, None, None]
        adu = exposure.read_out(light.float(), int(rng.integers(2**31))).double()
        electrons = adu * float(exposure.gain[0])
        level = float(exposure.sky[0]) + torch.from_numpy(rng.normal(0, SKY_ERROR, n)) * sigma
        pixels = electrons - level[:, None, None]
        if self.bare:
            made = inputs.bare_inputs(pixels)
            return StarBatch(made, *(value.float() for value in (flux, dx, dy)))
        full = min(exposure.recipe.saturation * float(exposure.gain[0]), exposure.recipe.well_capacity)
        saturated = fitted.grown((electrons >= 0.999 * full).numpy())
        usable = torch.from_numpy(~saturated & ~self._lost(n, size, rng))
        start = [value + torch.from_numpy(rng.normal(0, DETECTED, n)) for value in (dx, dy)]
        guess = flux * torch.from_numpy(np.exp(rng.normal(0, 0.05, n)))
        rms = sigma * (1 + rng.normal(0, RMS_ERROR))
        fit = psf_fit.fit(psf, pixels - others, *place, (guess, *start), rms**2, usable=usable)
        error = psf_fit.psf_errors(psf, *place, fit)
        made = inputs.make_inputs(psf_fit.FittedStars(psf, fit, *place, error, others, rms))
        return StarBatch(made, *(value.float() for value in (flux, dx, dy)))

    def _neighbours(self, mag: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, pd.DataFrame]]:
        """Yield indices of stars and a neighbour of each: x, y (px from the stamp's middle), mag, known."""
        for share, near, far in ((NEIGHBOURS, NEAR, FAR), (0 if self.bare else UNKNOWN, 0.5, 2 * NEAR)):
            has = np.flatnonzero(rng.random(len(mag)) < share)
            distance = np.sqrt(rng.uniform(near**2, far**2, len(has)))
            angle = rng.uniform(0, 2 * np.pi, len(has))
            brightest = self.recipe.fields["paper"].magnitudes[0]
            other = rng.uniform(brightest if near == NEAR else KNOWN, FAINTEST, len(has))
            if near < NEAR:  # what hides within the core of a bright star need not be faint
                inside = distance < HIDDEN[0]
                other = np.where(inside, mag[has] + rng.uniform(*HIDDEN[1:], len(has)), np.maximum(other, mag[has] + 1))
            known = (other < KNOWN) & (near == NEAR)
            columns = {"x": distance * np.cos(angle), "y": distance * np.sin(angle), "mag": other, "known": known}
            if len(has):
                yield has, pd.DataFrame(columns)

    @staticmethod
    def _lost(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
        """Return (n, size, size) pixels that cannot be used: of some stars a column, or a patch."""
        lost = np.zeros((n, size, size), bool)
        for index in np.flatnonzero(rng.random(n) < LOST):
            row, column = (
                rng.integers(0, size, 2) if rng.random() < 0.5 else rng.integers(size // 2 - 3, size // 2 + 4, 2)
            )
            if rng.random() < 0.5:
                lost[index, :, column : column + rng.integers(1, 3)] = True
            else:
                lost[index, row : row + rng.integers(1, 4), column : column + rng.integers(1, 4)] = True
        return lost


class FrameStars:
    """Stars of frames at the positions where the detection net finds them.

    Parameters
    ----------
    frames : iterable of (Frame, truth, detections)
        The truth with the column ``counted``; only counted stars that were found are used. Their rows of the truth
        stay at hand as `sources`.
    batch_size : int
    bare : int, optional
        As in `RenderedStars`.

    Raises
    ------
    ConfigError
        If no star is left.
    """

    def __init__(
        self,
        frames: Iterable[tuple[Frame, pd.DataFrame, pd.DataFrame]],
        batch_size: int,
        *,
        bare: int | None = None,
    ):
        batches, rows = [], []
        for frame, truth, found in frames:
            subtracted = background.subtracted(frame)
            if bare:
                made = inputs.bare_inputs(fitted.bare_stamps(subtracted, found, bare))
                middle = np.floor(found[["x", "y"]].to_numpy(float) + 0.5)
            else:
                found, fits, _ = fitted.fitted_stars(frame, found, subtracted)
                made, middle = inputs.make_inputs(fits), fits.middle.numpy()
            columns = (truth["x"], truth["y"], found["x"], found["y"], found["confidence"])
            source = match(*(column.to_numpy(float) for column in columns))
            counted = truth["counted"].to_numpy(bool)
            used = (source >= 0) & (counted[source] if len(truth) else False)
            rows.append(truth.iloc[source[used]])
            values = (rows[-1]["flux"].to_numpy(float), *(rows[-1][["x", "y"]].to_numpy(float) - middle[used]).T)
            values = (torch.tensor(value, dtype=torch.float32) for value in values)
            batches.append(StarBatch(made[torch.from_numpy(np.flatnonzero(used))], *values))
        if not sum(len(batch.flux) for batch in batches):
            raise ConfigError("frames hold no counted star that was detected: there is nothing to train on")
        self.stars = StarBatch.join(batches)
        self.sources = pd.concat(rows, ignore_index=True)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.stars.flux)

    def truth(self, target: str) -> np.ndarray:
        """Return the (N,) true instrumental magnitudes (−2.5 log10 of electrons), or x or y from the stamps' middle."""
        if target == "mag":
            return -2.5 * np.log10(self.stars.flux.numpy().astype(float))
        return getattr(self.stars, target).numpy().astype(float)

    def batch(self, seed: int, device: torch.device) -> StarBatch:
        """Return a random draw of the stars, mirrored at random."""
        rng = np.random.default_rng(seed)
        parts = []
        for index, chosen in enumerate(np.array_split(rng.integers(len(self), size=self.batch_size), 4)):
            part = self.stars[torch.from_numpy(chosen)]
            part = part.mirrored("x") if index % 2 else part
            parts.append(part.mirrored("y") if index // 2 else part)
        return StarBatch.join(parts).to(device)
