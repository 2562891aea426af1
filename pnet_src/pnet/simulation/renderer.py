"""Whole simulated fields by the renderer: conditions and sources from the recipe, pixels from `render`."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from pnet.common.seeds import derive
from pnet.simulation.frame_file import write_frame
from pnet.simulation.galaxies import draw_galaxies, galaxy_stamp
from pnet.simulation.recipe import Conditions, Recipe, draw_conditions, draw_stars
from pnet.sky import render

SIMULATOR = "PNet renderer"


def draw_sources(recipe: Recipe, kind: str, seed: int) -> pd.DataFrame:
    """Draw stars and, where the kind of field has them, galaxies: ``x``, ``y``, ``mag``, ``kind`` and shapes."""
    stars, limits = draw_stars(recipe, kind, seed), recipe.fields[kind].galaxies
    return stars if limits is None else pd.concat([stars, draw_galaxies(recipe, limits, seed)], ignore_index=True)


def expected_image(sources: pd.DataFrame, conditions: Conditions) -> torch.Tensor:
    """Return the (H, W) expected electrons of a field: sources, aureole, sky."""
    image = torch.zeros(1, conditions.size, conditions.size)
    flux = conditions.flux(sources["mag"])
    stars = (sources["kind"] == "star").to_numpy()
    x, y, light = (torch.from_numpy(np.array(values)[stars]).double() for values in (sources["x"], sources["y"], flux))
    drawn = render.Stars(torch.zeros(len(x), dtype=torch.long), x, y, light.float())
    options = {"pixel_scale": conditions.pixel_scale, "optics": conditions.optics}
    render.add_stars(image, drawn, [conditions.seeing], **options)
    for index in np.flatnonzero(~stars):
        source = sources.iloc[index]
        column, row = int(np.floor(source["x"] + 0.5)), int(np.floor(source["y"] + 0.5))
        shift = (source["x"] - column, source["y"] - row)
        stamp = galaxy_stamp(source, flux[index], *shift, conditions.seeing, conditions.pixel_scale)
        where = [torch.tensor([value]) for value in (0, column, row)]
        render.add_stamps(image, torch.from_numpy(stamp)[None], *where)
    if conditions.aureole is not None:
        image = render.scatter(image, conditions.aureole)
    return image[0] + conditions.sky


def render_field(sources: pd.DataFrame, conditions: Conditions, seed: int) -> np.ndarray:
    """Return the (H, W) uint16 image in ADU of a field; the same seed gives the same pixels on the same device."""
    return read_out(expected_image(sources, conditions)[None], conditions, derive(seed, "noise"))


def read_out(expected: torch.Tensor, conditions: Conditions, seed: int) -> np.ndarray:
    """Return the (H, W) uint16 image in ADU that the camera makes of (1, H, W) expected electrons, its noise drawn from
    `seed`; a well capacity of 0 never overflows."""
    image = render.read_out(
        expected,
        gain=torch.tensor([conditions.gain]),
        read_noise=torch.tensor([conditions.read_noise]),
        well_capacity=torch.tensor([float(conditions.well_capacity or np.inf)]),
        saturation=min(conditions.saturation, np.iinfo(np.uint16).max),
        generator=torch.Generator().manual_seed(seed),
    )
    return image[0].numpy().astype(np.uint16)


def make_frames(jobs: list[tuple[Path, int]], recipe: Recipe, kind: str, *, progress: bool = True) -> None:
    """Render and write the frames of `jobs`, pairs of path and seed."""
    for path, seed in tqdm(jobs, desc="rendering frames", unit="frame", disable=not progress or not jobs):
        conditions = draw_conditions(recipe, seed)
        sources = draw_sources(recipe, kind, seed)
        image = render_field(sources, conditions, seed)
        write_frame(path, image, sources, conditions, simulator=SIMULATOR, kind=kind, seed=seed % 2**31)
