"""What a simulated survey looks like, and what is drawn from it: conditions and stars of a frame."""

import os
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pnet.common.errors import ConfigError
from pnet.common.files import read_manifest
from pnet.common.paths import MANIFESTS
from pnet.common.seeds import derive
from pnet.sky.psf import Aureole, Optics


@dataclass(frozen=True)
class FieldKind:
    """Population of a field: number of stars (range), magnitudes (range), slope of log10 counts, galaxies' range."""

    stars: tuple[int, int]
    magnitudes: tuple[float, float]
    slope: float
    galaxies: tuple[float, float] | None


@dataclass(frozen=True)
class Recipe:
    """What a simulated survey looks like; units as in ``data_manifests/simulation.yml``."""

    size: int
    pixel_scale: float
    exposure: float
    mag_zero: float
    saturation: float
    well_capacity: float
    seeing: tuple[float, ...]
    sky_mag: tuple[float, float]
    gain: tuple[float, ...]
    read_noise: tuple[float, float]
    fields: dict[str, FieldKind] = field(hash=False)
    optics: Optics = Optics()
    aureole: Aureole | None = Aureole()

    @classmethod
    def load(cls, path: str | os.PathLike = MANIFESTS / "simulation.yml") -> "Recipe":
        """Read a recipe; a MissingError if the file is not there, a DataError if it is not YAML, a ConfigError if it
        lacks or misspells a key."""
        raw = read_manifest(path)
        try:
            conditions = raw.pop("conditions")
            fields = {name: FieldKind(**_tuples(kind)) for name, kind in raw.pop("fields").items()}
            optics, aureole = Optics(**raw.pop("optics")), raw.pop("aureole")
            aureole = Aureole(**aureole) if aureole else None
            return cls(**raw, **_tuples(conditions), fields=fields, optics=optics, aureole=aureole)
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"recipe {path} is not as data_manifests/simulation.yml: {error!r}") from error


def _tuples(values: dict) -> dict:
    """Return a part of the recipe with its lists as tuples, which can be hashed."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


@dataclass(frozen=True)
class Conditions:
    """One frame's conditions: everything an engine needs but the sources.

    `seeing` in arcsec FWHM of the atmosphere, `sky_mag` in mag/arcsec², `gain` in e-/ADU, `read_noise` in electrons,
    the rest as in `Recipe`.
    """

    seeing: float
    sky_mag: float
    gain: float
    read_noise: float
    size: int = 512
    pixel_scale: float = 0.396
    exposure: float = 53.9
    mag_zero: float = 24.2
    saturation: float = 65535
    well_capacity: float = 300000
    optics: Optics = Optics()
    aureole: Aureole | None = Aureole()

    @property
    def zero_point(self) -> float:
        """AB magnitude of one electron in the exposure."""
        return self.mag_zero + 2.5 * np.log10(self.exposure * self.gain)

    @property
    def sky(self) -> float:
        """Sky in electrons per pixel."""
        return self.pixel_scale**2 * 10 ** (0.4 * (self.zero_point - self.sky_mag))

    def flux(self, mag: np.ndarray) -> np.ndarray:
        """Total electrons of sources of these magnitudes."""
        return 10 ** (0.4 * (self.zero_point - np.asarray(mag, dtype=float)))


def draw_conditions(recipe: Recipe, seed: int) -> Conditions:
    """Draw one frame's conditions; the same seed gives the same conditions."""
    rng = np.random.default_rng(derive(seed, "conditions"))
    same = ("size", "pixel_scale", "exposure", "mag_zero", "saturation", "well_capacity", "optics", "aureole")
    return Conditions(
        seeing=float(rng.choice(recipe.seeing)),
        sky_mag=float(np.round(rng.normal(*recipe.sky_mag), 4)),
        gain=float(rng.choice(recipe.gain)),
        read_noise=float(np.round(rng.uniform(*recipe.read_noise), 3)),
        **{name: getattr(recipe, name) for name in same},
    )


def draw_magnitudes(limits: tuple[float, float], slope: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw magnitudes whose counts rise as 10^(slope·m) between two limits."""
    low, high = limits
    share = rng.random(n)
    if slope == 0:
        return low + share * (high - low)
    return low + np.log10(1 + share * (10 ** (slope * (high - low)) - 1)) / slope


def draw_stars(recipe: Recipe, kind: str, seed: int) -> pd.DataFrame:
    """Draw the stars of one frame: columns ``x``, ``y`` (px from 0), ``mag``, ``kind``; a ConfigError if the recipe has
    no such kind of field."""
    if kind not in recipe.fields:
        raise ConfigError(f"field kind {kind!r} is not in the recipe; it has {sorted(recipe.fields)}")
    population = recipe.fields[kind]
    rng = np.random.default_rng(derive(seed, "stars"))
    n = int(rng.integers(population.stars[0], population.stars[1], endpoint=True))
    x, y = rng.uniform(-0.5, recipe.size - 0.5, size=(2, n))
    return pd.DataFrame(
        {"x": x, "y": y, "mag": draw_magnitudes(population.magnitudes, population.slope, n, rng), "kind": "star"}
    )
