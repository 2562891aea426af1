"""Simulated frames: the recipe, what is drawn from it, the file format, and data sets made by any engine."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from astropy.io import fits

from pnet.common import fits_file as fitsfile
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import atomic_path
from pnet.common.paths import MANIFESTS
from pnet.common.seeds import derive
from pnet.frame import Frame
from pnet.sky.psf import Aureole, Optics

SPLITS = ("train", "val", "test")
ENGINES = ("frames", "skymaker", "renderer")


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
        """Read a recipe.

        Raises
        ------
        MissingError, ConfigError
            If the file is not there, is not YAML, or lacks or misspells a key.
        """
        if not Path(path).is_file():
            raise MissingError(f"recipe {path} does not exist; the released one is data_manifests/simulation.yml")
        try:
            raw = yaml.safe_load(Path(path).read_text())
            conditions = raw.pop("conditions")
            fields = {
                name: FieldKind(
                    tuple(kind["stars"]),
                    tuple(kind["magnitudes"]),
                    float(kind["slope"]),
                    tuple(kind["galaxies"]) if kind["galaxies"] else None,
                )
                for name, kind in raw.pop("fields").items()
            }
            optics = Optics(**raw.pop("optics"))
            aureole = raw.pop("aureole")
            return cls(
                **raw,
                **{key: tuple(value) for key, value in conditions.items()},
                fields=fields,
                optics=optics,
                aureole=Aureole(**aureole) if aureole else None,
            )
        except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"recipe {path} is not as data_manifests/simulation.yml: {error!r}") from error


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
    return Conditions(
        seeing=float(rng.choice(recipe.seeing)),
        sky_mag=float(np.round(rng.normal(*recipe.sky_mag), 4)),
        gain=float(rng.choice(recipe.gain)),
        read_noise=float(np.round(rng.uniform(*recipe.read_noise), 3)),
        size=recipe.size,
        pixel_scale=recipe.pixel_scale,
        exposure=recipe.exposure,
        mag_zero=recipe.mag_zero,
        saturation=recipe.saturation,
        well_capacity=recipe.well_capacity,
        optics=recipe.optics,
        aureole=recipe.aureole,
    )


def draw_magnitudes(kind: FieldKind, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw magnitudes whose counts rise as 10^(slope·m) between the limits of `kind`."""
    low, high = kind.magnitudes
    share = rng.random(n)
    if kind.slope == 0:
        return low + share * (high - low)
    growth = 10 ** (kind.slope * (high - low)) - 1
    return low + np.log10(1 + share * growth) / kind.slope


def draw_stars(recipe: Recipe, kind: str, seed: int) -> pd.DataFrame:
    """Draw the stars of one frame: columns ``x``, ``y`` (px from 0), ``mag``, ``kind``.

    Raises
    ------
    ConfigError
        If the recipe has no such kind of field.
    """
    if kind not in recipe.fields:
        raise ConfigError(f"field kind {kind!r} is not in the recipe; it has {sorted(recipe.fields)}")
    population = recipe.fields[kind]
    rng = np.random.default_rng(derive(seed, "stars"))
    n = int(rng.integers(population.stars[0], population.stars[1], endpoint=True))
    x, y = rng.uniform(-0.5, recipe.size - 0.5, size=(2, n))
    return pd.DataFrame({"x": x, "y": y, "mag": draw_magnitudes(population, n, rng), "kind": "star"})


def write_frame(
    path: str | os.PathLike,
    image: np.ndarray,
    truth: pd.DataFrame,
    conditions: Conditions,
    *,
    simulator: str,
    kind: str,
    seed: int,
) -> None:
    """Write one frame with its truth: SCI (uint16 ADU, RICE) and TRUTH (1-based x, y), atomically."""
    header = fits.Header()
    header["SIMULATR"] = (simulator, "image simulator")
    header["FIELDKIN"] = (kind, "field kind")
    header["SEED"] = (seed, "seed of the star list")
    header["PIXSCALE"] = (conditions.pixel_scale, "arcsec/pixel")
    header["GAIN"] = (conditions.gain, "e-/ADU")
    header["RDNOISE"] = (conditions.read_noise, "e- rms")
    header["EXPTIME"] = (conditions.exposure, "s")
    header["MAGZP"] = (conditions.mag_zero, "mag of 1 ADU/s")
    header["SEEING"] = (conditions.seeing, "FWHM arcsec (long exposure)")
    header["BACKMAG"] = (conditions.sky_mag, "sky, mag/arcsec2")
    header["SATURATE"] = (conditions.saturation, "ADU")
    header["WELLCAP"] = (conditions.well_capacity, "e-")
    header["TELM1"] = (conditions.optics.m1, "m")
    header["TELM2"] = (conditions.optics.m2, "m")
    header["WAVELEN"] = (conditions.optics.wavelength, "micron")
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("x", "D", "pix", array=truth["x"].to_numpy(float) + 1),
            fits.Column("y", "D", "pix", array=truth["y"].to_numpy(float) + 1),
            fits.Column("mag", "D", "mag", array=truth["mag"].to_numpy(float)),
            fits.Column("flux_adu", "D", "adu", array=conditions.flux(truth["mag"]) / conditions.gain),
            fits.Column("kind", "6A", array=truth["kind"].to_numpy(str)),
        ],
        name="TRUTH",
    )
    science = fits.CompImageHDU(image.astype(np.uint16), header, name="SCI", compression_type="RICE_1")
    with atomic_path(path) as temporary:
        fits.HDUList([fits.PrimaryHDU(), science, table]).writeto(temporary)


def read_frame(path: str | os.PathLike) -> tuple[Frame, pd.DataFrame]:
    """Read a simulated frame.

    Returns
    -------
    frame : Frame
        In electrons; zero point and variance from the header, seeing in arcsec.
    truth : DataFrame
        ``x``, ``y`` (px from 0), ``mag``, ``flux`` (electrons), ``kind``; empty where the file has no TRUTH.

    Raises
    ------
    MissingError, DataError
        If the file is not there, is truncated or damaged, or lacks a header card.
    """
    path = Path(path)
    with fitsfile.open_fits(path) as hdus:
        if "SCI" not in hdus:
            raise DataError(f"{path} has no SCI extension: it is not a simulated frame of PNet")
        header = hdus["SCI"].header
        data = np.asarray(hdus["SCI"].data, dtype=np.float32)
        try:
            gain, read_noise = float(header["GAIN"]), float(header["RDNOISE"])
            zero_point = header["MAGZP"] + 2.5 * np.log10(header["EXPTIME"] * gain)
            image = data * np.float32(gain)
            frame = Frame(
                name=path.name.removesuffix(".fits"),
                image=image,
                # Photon noise from the pixel's own value, read noise, and the rounding to whole ADU.
                variance=np.maximum(image, 0) + read_noise**2 + gain**2 / 12,
                mask=np.zeros(data.shape, dtype=bool),
                gain=gain,
                zero_point=float(zero_point),
                read_noise=read_noise,
                pixel_scale=float(header["PIXSCALE"]),
                saturation=float(header["SATURATE"]) * gain,
                seeing=float(header["SEEING"]),
                meta={
                    key: header[key] for key in ("SIMULATR", "FIELDKIN", "SEED", "BACKMAG", "WELLCAP") if key in header
                },
            )
        except KeyError as error:
            raise DataError(f"{path}: the SCI header lacks {error}") from error
        if "TRUTH" not in hdus:
            return frame, pd.DataFrame(
                {name: pd.Series(dtype=float) for name in ("x", "y", "mag", "flux")} | {"kind": []}
            )
        table = hdus["TRUTH"].data
        truth = pd.DataFrame(
            {
                "x": np.asarray(table["x"], dtype=float) - 1,
                "y": np.asarray(table["y"], dtype=float) - 1,
                "mag": np.asarray(table["mag"], dtype=float),
                "flux": np.asarray(table["flux_adu"], dtype=float) * gain,
                # Some writers cut 'galaxy' to the column's width.
                "kind": ["star" if str(kind).strip() == "star" else "galaxy" for kind in table["kind"]],
            }
        )
    return frame, truth


def frames_folder() -> Path | None:
    """Return the folder named by $SKYMAKER_FRAMES, None where it is not set.

    Raises
    ------
    MissingError
        If the variable names no folder.
    """
    name = os.environ.get("SKYMAKER_FRAMES")
    if not name:
        return None
    if not Path(name).is_dir():
        raise MissingError(
            f"SKYMAKER_FRAMES={name} is no folder; name a folder with train/, val/ and test/ or unset it"
        )
    return Path(name)


def find_engine(kind: str | None = None) -> str:
    """Return what makes simulated frames here: 'frames' ($SKYMAKER_FRAMES), 'skymaker' (`sky` found) or 'renderer'.

    With a `kind` of field, $SKYMAKER_FRAMES is passed over where its ``test`` holds no frame of that kind.
    """
    folder = frames_folder()
    if folder is not None and (kind is None or list_frames(folder / "test", kind)):
        return "frames"
    return "skymaker" if os.environ.get("SKY") or shutil.which("sky") else "renderer"


def list_frames(folder: str | os.PathLike, kind: str = "paper") -> list[Path]:
    """Return the frames of a folder of one kind of field in order of name."""
    return sorted(Path(folder).glob(f"{kind}-*.fits"))


def make_dataset(
    folder: str | os.PathLike,
    recipe: Recipe,
    split: str,
    n: int,
    seed: int,
    *,
    engine: str = "auto",
    kind: str = "paper",
    workers: int = 2,
    progress: bool = True,
) -> list[Path]:
    """Provide `n` frames of a split and return their paths.

    Frames that are already in `folder` are kept, so an interrupted run goes on where it stopped. With the engine
    'frames' nothing is copied: the paths point into $SKYMAKER_FRAMES.

    Parameters
    ----------
    folder : path
        Frames are written to ``folder/split``.
    recipe : Recipe
    split : {'train', 'val', 'test'}
    n : int
        Number of frames.
    seed : int
        Seed of the run; each split and frame derives its own.
    engine : {'auto', 'frames', 'skymaker', 'renderer'}
    kind : str
        Kind of field in the recipe.
    workers : int
        Frames that SkyMaker makes at the same time.
    progress : bool
        Show a progress bar.

    Raises
    ------
    ConfigError, MissingError
        If a parameter is not allowed, or the engine or its frames are missing.
    """
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}, allowed are {SPLITS}")
    if engine not in ("auto", *ENGINES):
        raise ConfigError(f"engine is {engine!r}, allowed are {('auto', *ENGINES)}")
    engine = find_engine() if engine == "auto" else engine
    if engine == "frames":
        source = frames_folder()
        if source is None:
            raise MissingError("engine 'frames' needs a folder of SkyMaker frames: set SKYMAKER_FRAMES=<folder>")
        found = list_frames(source / split, kind)[:n]
        if not found:
            raise MissingError(
                f"{source / split} holds no {kind}-*.fits; SKYMAKER_FRAMES must name a folder with {split}/"
            )
        return found
    folder = Path(folder) / split
    base = {"train": 100000, "val": 300000, "test": 200000}[split]
    jobs = []
    for index in range(1, n + 1):
        name = f"{kind}-{base + index}"
        jobs.append((folder / f"{name}.fits", derive(seed, split, kind, index)))
    todo = [job for job in jobs if not job[0].exists()]
    if engine == "skymaker":
        from pnet.simulation import skymaker

        skymaker.make_frames(todo, recipe, kind, workers=workers, progress=progress)
    else:
        from pnet.simulation import renderer as fields

        fields.make_frames(todo, recipe, kind, progress=progress)
    return [path for path, _ in jobs]
