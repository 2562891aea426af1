"""Stars injected into real SDSS frames: real sky, galaxies and defects, with exact truth for what was added."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from pnet.common.errors import MissingError
from pnet.detection.targets import Batch
from pnet.sdss.catalogue import load_field
from pnet.sdss.files import fetch
from pnet.sdss.manifest import Manifest
from pnet.sdss.psf import PIXEL
from pnet.simulation.recipe import Recipe, draw_magnitudes
from pnet.sky import background, render
from pnet.training.fields import FAINT, add_stars, batch_of, cut_out
from pnet.training.real_sky import BLOCK, SEEING_STEP, RealSky, prepare

CONTAMINATION = 0.03  # an injected star is ignored if real light within a FWHM exceeds this share of its own
WIDTH_SCATTER = 0.01  # relative: the width of the PSF varies by a per cent or two over a frame


@dataclass
class InjectedFields:
    """Random cut-outs of real frames, flipped at random, with stars added.

    A star is rendered with the width of the frame's own PSF (the mean of two neighbouring seeings of the renderer,
    plus a scatter of a per cent), gets the Poisson noise of its own light, and is added to the frame, whose noise is
    already there. Charge above the full well bleeds along the columns; in half of the cut-outs saturated pixels then
    take the median around them, as they do in a frame that comes with a mask (`background.subtracted`), in the others
    they stay full.
    """

    skies: Sequence[RealSky]
    recipe: Recipe  # density and magnitudes of the stars, optics and aureole
    batch_size: int
    size: int = 256  # px, width of a cut-out

    def batch(self, seed: int, device: torch.device) -> Batch:
        """Return one batch of cut-outs with stars."""
        rng = np.random.default_rng(seed)
        skies = [self.skies[rng.integers(len(self.skies))] for _ in range(self.batch_size)]
        cuts = [cut_out([sky.image, sky.contamination], sky.ignored, self.size, rng) for sky in skies]
        image, contamination = (np.stack([parts[which] for parts, _ in cuts]) for which in (0, 1))
        stars = pd.concat([self._stars(index, sky, rng) for index, sky in enumerate(skies)], ignore_index=True)
        column, row = np.rint(stars[["x", "y"]].to_numpy()).clip(0, self.size - 1).astype(int).T
        # Noise alone is no contamination: three times that of the aperture is allowed in any case.
        noise = np.array([3 * sky.sigma * np.sqrt(np.pi) * sky.fwhm for sky in skies])[stars["field"]]
        stars["ignored"] = contamination[stars["field"], row, column] > np.maximum(CONTAMINATION * stars["flux"], noise)
        light = self._light(stars, skies, rng, device)
        image = self._expose(torch.from_numpy(image).to(device), light, skies, rng, seed)
        sigma = np.array([sky.sigma for sky in skies])
        # Stars leave their wings in the estimate of the sky, as in `RenderedFields`.
        level = torch.as_tensor(rng.normal(0, 0.03, len(skies)) * sigma, dtype=torch.float32, device=device)
        real = [self._ignored(index, points) for index, (_, points) in enumerate(cuts)]
        sources = pd.concat([stars, *real], ignore_index=True)
        return batch_of(image - level[:, None, None], sigma, [sky.fwhm for sky in skies], sources)

    def _ignored(self, index: int, points: np.ndarray) -> pd.DataFrame:
        """Return the ignored positions of a cut-out; a block whose centre is cut off still covers pixels at the
        border."""
        last = self.size - 1
        points = points[((points > -BLOCK / 2) & (points < last + BLOCK / 2)).all(axis=1)].clip(0, last)
        return pd.DataFrame({"field": index, "x": points[:, 0], "y": points[:, 1], "flux": 1.0, "ignored": True})

    def _stars(self, index: int, sky: RealSky, rng: np.random.Generator) -> pd.DataFrame:
        """Draw the stars of one cut-out; densities and magnitudes as in `RenderedFields`, down to FAINT."""
        paper = self.recipe.fields["paper"]
        area = (self.size / self.recipe.size) ** 2
        n = rng.poisson(rng.uniform(paper.stars[0], 1.5 * paper.stars[1]) * area)
        low = paper.magnitudes[0] - 0.3
        steep = draw_magnitudes((low, FAINT), paper.slope, n, rng)
        mag = np.where(rng.random(n) < 0.5, steep, rng.uniform(low, FAINT, n))
        x, y = rng.uniform(-0.5, self.size - 0.5, (2, n))
        return pd.DataFrame({"field": index, "x": x, "y": y, "flux": 10 ** (0.4 * (sky.zero_point - mag))})

    def _light(self, stars: pd.DataFrame, skies: list[RealSky], rng: np.random.Generator, device) -> torch.Tensor:
        """Return the expected electrons of the added stars, (B, S, S)."""
        seeing = np.array([sky.seeing for sky in skies]) * (1 + rng.normal(0, WIDTH_SCATTER, len(skies)))
        below = np.floor(seeing / SEEING_STEP + 1e-9)
        share = seeing / SEEING_STEP - below  # of the wider one of the two PSFs
        light = torch.zeros(len(skies), self.size, self.size, device=device)
        for node, weight in ((below, 1 - share), (below + 1, share)):
            added = stars.assign(flux=stars["flux"] * weight[stars["field"]])
            add_stars(light, added, (node * SEEING_STEP).round(2), self.recipe)
        return light if self.recipe.aureole is None else render.scatter(light, self.recipe.aureole)

    def _expose(
        self, image: torch.Tensor, light: torch.Tensor, skies: list[RealSky], rng: np.random.Generator, seed: int
    ) -> torch.Tensor:
        """Add the stars' light with its photon noise; saturate what is too bright."""
        device = image.device
        level, well = torch.tensor([(sky.sky, sky.full_well) for sky in skies], device=device).T
        before = image + level[:, None, None]
        generator = torch.Generator(device=device).manual_seed(seed)
        total = before + torch.poisson(light.clamp(min=0), generator=generator)
        # Real pixels above the full well are interpolated ones: they have nothing to spill.
        spilling = torch.maximum(well, before.amax(dim=(1, 2)))
        total = render.bleed(total, spilling)
        for index in np.flatnonzero(rng.random(len(skies)) < 0.5):
            full = (total[index] >= 0.999 * spilling[index]) & (before[index] < 0.999 * spilling[index])
            if bool(full.any()):
                # a pixel wider, as masked ones are
                wider = ndimage.binary_dilation(full.cpu().numpy(), np.ones((3, 3)))
                filled = background.filled(total[index].cpu().numpy(), wider, wider)
                total[index] = torch.from_numpy(filled).to(device)
        return total - level[:, None, None]


def fields(manifest: str | os.PathLike, batch_size: int, size: int = 256, split: str = "train") -> InjectedFields:
    """Return injected fields made from those frames of a split of a manifest that have no catalogue.

    Frames take 24 MB of memory and a second or two to prepare, each.

    `manifest` is as for `Manifest.load`, `batch_size` and `size` as for `fields.FrameFields`.

    Raises
    ------
    MissingError
        If the manifest has no such frame, or one cannot be had.
    """
    loaded = Manifest.load(manifest)
    names = [field.name for field in loaded.fields if field.split == split and field.file("photoObj") is None]
    if not names:
        raise MissingError(
            f"manifest {manifest}: no field of {split} without catalogue, so no real sky to inject stars into; "
            "`pnet sdss-download --manifest sdss-standard` gets the manifest that has some"
        )
    report = fetch(loaded, fields=names, progress=False)
    recipe, skies = Recipe.load(), []
    for name in names:
        frame, _ = load_field(report, name)
        # One renderer serves a batch: frames differ from SDSS's nominal pixel by less than 0.1 %.
        frame.pixel_scale = PIXEL
        skies.append(prepare(frame, recipe))
    return InjectedFields(skies, recipe, batch_size, size)
