"""Whole simulated fields by the project's own renderer (`pnet.sky.render`)."""

import numpy as np
import pandas as pd
import torch

from pnet.common.seeds import derive
from pnet.simulation.galaxies import add_galaxies
from pnet.simulation.recipe import Conditions
from pnet.sky import render

SIMULATOR = "PNet renderer"


def expected_image(sources: pd.DataFrame, conditions: Conditions) -> torch.Tensor:
    """Return the (H, W) expected electrons of a field: sources, aureole, sky.

    `sources` has x, y (px from 0), mag, kind and, for galaxies, the shapes of `galaxies.draw_galaxies`.
    """
    image = torch.zeros(1, conditions.size, conditions.size)
    flux = conditions.flux(sources["mag"])
    stars = (sources["kind"] == "star").to_numpy()
    x, y, light = (torch.from_numpy(np.array(values)[stars]).double() for values in (sources["x"], sources["y"], flux))
    drawn = {"field": torch.zeros(len(x), dtype=torch.long), "x": x, "y": y, "flux": light.float()}
    options = {"pixel_scale": conditions.pixel_scale, "optics": conditions.optics}
    render.add_stars(image, [conditions.seeing], **drawn, **options)
    add_galaxies(image[0], sources[~stars], flux[~stars], conditions.seeing, conditions.pixel_scale)
    if conditions.aureole is not None:
        image = render.scatter(image, conditions.aureole)
    return image[0] + conditions.sky


def render_field(sources: pd.DataFrame, conditions: Conditions, seed: int) -> np.ndarray:
    """Return the (H, W) uint16 image in ADU of a field; the same seed gives the same pixels on the same device."""
    return read_out(expected_image(sources, conditions), conditions, derive(seed, "noise"))


def read_out(expected: torch.Tensor, conditions: Conditions, seed: int) -> np.ndarray:
    """Return the (H, W) uint16 image in ADU that the camera makes of (H, W) expected electrons, its noise drawn from
    `seed`; a well capacity of 0 never overflows."""
    image = render.read_out(
        expected[None],
        gain=torch.tensor([conditions.gain]),
        read_noise=torch.tensor([conditions.read_noise]),
        well_capacity=torch.tensor([float(conditions.well_capacity or np.inf)]),
        saturation=min(conditions.saturation, np.iinfo(np.uint16).max),
        generator=torch.Generator().manual_seed(seed),
    )
    return image[0].numpy().astype(np.uint16)
