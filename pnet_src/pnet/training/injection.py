"""Stars injected into real SDSS frames: real sky, galaxies and defects, with exact truth for what was added.

What is already on a frame is sorted with SEP into two kinds. Clearly extended sources are empty sky to a network that
looks for stars, and stay so; so do the halos and diffraction spikes of the brightest stars, from which a network would
else make stars. Everything else (real stars, faint or doubtful sources, masked pixels, the cores of saturated stars) is
neither star nor sky: the heat map is not trained there.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import sep
import torch
from scipy import ndimage
from scipy.spatial import cKDTree

from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.detection.targets import Batch
from pnet.frame import Frame
from pnet.sdss.files import fetch
from pnet.sdss.frame import read_frame
from pnet.sdss.manifest import Manifest
from pnet.sdss.psf import PIXEL
from pnet.simulation.recipe import FieldKind, Recipe, draw_magnitudes
from pnet.sky import background, render
from pnet.sky.stamps import cut_stamps, gaussian_moments, gaussian_width
from pnet.training.fields import FAINT, CutOut, batch_of, stars_of

DETECT = 1.5  # σ per pixel; SExtractor's default, reaches g ≈ 22 on a frame of SDSS
AREA = 5  # px, smallest source
APERTURE = 10.0  # px, radius of the fluxes that sort the sources
ALONE = 15.0  # px to the next source: a neighbour's light would make a star's half-light radius that of a galaxy
SIGNAL = 30.0  # ratio of flux to noise from which a half-light radius tells a galaxy from a star (g ≈ 20)
EXTENDED = 1.3  # times the stars' half-light radius: 90 % of the sources of 15–19 mag lie below 1.05
TOO_BRIGHT = 15.0  # mag; above it spikes, bleeding and interpolated cores make any shape doubtful
CORE_RADIUS = 8.0  # px around such a star that are always its own
CORE_SHARE = 0.1  # of its highest pixel; fainter parts of its segment are halo and diffraction spikes, not stars
FULL_WELL = 60000.0  # counts, where SDSS pixels saturate: the brightest good ones of our frames read 58,000 to 60,500
CONTAMINATION = 0.03  # an injected star is ignored if real light within a FWHM exceeds this share of its own
BLOCK = 8  # px; an ignored source clears two cells (8 px) on every side, so points this far apart clear an area
WIDTH_STAMP = 25  # px
SEEING_STEP = 0.1  # arcsec between rendered PSFs; what lies between is a mean of two
WIDTH_SCATTER = 0.01  # relative: the width of the PSF varies by a per cent or two over a frame


@dataclass
class RealSky:
    """A real frame ready to receive stars.

    Parameters
    ----------
    name : str
    image : ndarray, (H, W), float32
        Electrons, sky subtracted.
    contamination : ndarray, (H, W), float32
        Electrons of real sources within a FWHM of each pixel; infinite on masked pixels.
    ignored : ndarray, (N, 2), float32
        Positions (x, y) around which the heat map is not trained.
    sources : DataFrame
        What SEP found: x, y (px), mag, radius (half-light, px) and ``role``: 'ignored' or 'galaxy' (a negative).
    sigma, sky : float
        Noise of an empty pixel and median sky, electrons.
    seeing : float
        FWHM in arcsec of the atmosphere whose rendered PSF is as wide as the frame's stars.
    zero_point, full_well, pixel_scale : float
        Magnitude of one electron; electrons at which pixels saturate; arcsec.
    """

    name: str
    image: np.ndarray
    contamination: np.ndarray
    ignored: np.ndarray
    sources: pd.DataFrame
    sigma: float
    sky: float
    seeing: float
    zero_point: float
    full_well: float
    pixel_scale: float

    @property
    def fwhm(self) -> float:
        """FWHM of the PSF in pixels, the telescope's own blur included."""
        return float(np.hypot(self.seeing, 0.2) / self.pixel_scale)


def prepare(frame: Frame, recipe: Recipe) -> RealSky:
    """Subtract a frame's sky, sort its sources and measure its PSF.

    Raises
    ------
    DataError
        If the frame has too few bright stars to measure its PSF.
    """
    image, sigma = background.subtracted(frame)
    mask = frame.mask if frame.interpolated is None else frame.mask & ~frame.interpolated
    objects, segments = _extract(image, sigma, mask)
    counts, error, _ = sep.sum_circle(image, objects["x"], objects["y"], APERTURE, err=sigma)
    radius, bad = sep.flux_radius(
        image, objects["x"], objects["y"], np.full(len(objects), APERTURE), 0.5, normflux=counts, subpix=5
    )
    lone = np.ones(len(objects), bool)
    if len(objects) > 1:
        positions = np.column_stack([objects["x"], objects["y"]])
        lone = cKDTree(positions).query(positions, k=2)[0][:, 1] >= ALONE
    sources = pd.DataFrame(
        {
            "x": objects["x"],
            "y": objects["y"],
            "flux": counts,
            "mag": frame.magnitude(counts),
            "radius": radius,
            "peak": objects["peak"],
            "signal": counts / error,
            "alone": (objects["flag"] == 0) & (bad == 0) & lone,
        }
    )
    sky = float(np.median(frame.image[~frame.mask]))
    full_well = float(min(FULL_WELL * frame.gain, frame.saturation))
    bright = sources["alone"] & (sources["signal"] > 3 * SIGNAL) & (sources["peak"] + sky < 0.8 * full_well)
    if bright.sum() < 5:
        raise DataError(
            f"frame {frame.name}: {bright.sum()} bright lone sources; at least 5 are needed to know its PSF"
        )
    stellar = _half_sample_mode(sources["radius"][bright].to_numpy())
    stars = sources[bright & ((sources["radius"] / stellar - 1).abs() < 0.05)]
    width = _median_width(image, stars, start=stellar / 1.18)
    galaxy = (
        sources["alone"]
        & (sources["signal"] > SIGNAL)
        & (sources["radius"] > EXTENDED * stellar)
        & (sources["mag"] > TOO_BRIGHT)
    ).to_numpy()
    sources["role"] = np.where(galaxy, "galaxy", "ignored")
    seeing = seeing_of_width(width, frame.pixel_scale, recipe)
    fwhm = float(np.hypot(seeing, 0.2) / frame.pixel_scale)
    too_bright = (sources["mag"] < TOO_BRIGHT).to_numpy()
    doubtful = np.append(False, ~galaxy & ~too_bright)[segments]
    for index in np.flatnonzero(too_bright):
        _add_core(doubtful, image, segments, index + 1, objects[index])
    points = np.concatenate([_blocks(doubtful | mask), sources.loc[~galaxy, ["x", "y"]].to_numpy(np.float32)])
    return RealSky(
        name=frame.name,
        image=image,
        contamination=_contamination(image, segments > 0, mask, fwhm),
        ignored=points.astype(np.float32),
        sources=sources,
        sigma=sigma,
        sky=sky,
        seeing=seeing,
        zero_point=frame.zero_point,
        full_well=full_well,
        pixel_scale=frame.pixel_scale,
    )


def _extract(image: np.ndarray, sigma: float, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return SEP's sources and its map of segments, with room for crowded fields."""
    stack, limit = sep.get_extract_pixstack(), sep.get_sub_object_limit()
    sep.set_extract_pixstack(max(stack, image.size))
    sep.set_sub_object_limit(max(limit, 4096))
    try:
        return sep.extract(image, DETECT, err=sigma, mask=mask, minarea=AREA, segmentation_map=True)
    finally:
        sep.set_extract_pixstack(stack)
        sep.set_sub_object_limit(limit)


def _half_sample_mode(values: np.ndarray) -> float:
    """Return the mode by repeatedly taking the densest half (Robertson & Cryer 1974)."""
    values = np.sort(values)
    while len(values) > 3:
        half = (len(values) + 1) // 2
        first = int(np.argmin(values[half - 1 :] - values[: len(values) - half + 1]))
        values = values[first : first + half]
    return float(values.mean())


def _median_width(image: np.ndarray, stars: pd.DataFrame, start: float) -> float:
    """Return the median Gaussian width of stars in pixels."""
    x, y = (torch.from_numpy(stars[name].to_numpy(np.float64, copy=True)) for name in ("x", "y"))
    column, row = torch.floor(x + 0.5).long(), torch.floor(y + 0.5).long()
    stamps = cut_stamps(torch.from_numpy(image)[None], torch.zeros_like(column), column, row, WIDTH_STAMP)
    dx, dy = (x - column).float(), (y - row).float()
    dx, dy = gaussian_moments(stamps, dx, dy, torch.full_like(dx, start))
    return float(gaussian_width(stamps, dx, dy, start).median())


def rendered_width(seeing: float, pixel_scale: float, recipe: Recipe) -> float:
    """Return the Gaussian width in pixels of a rendered star, measured like those of a frame."""
    table = render.psf_table(seeing, pixel_scale, recipe.optics, None, "cpu")
    centre = torch.zeros(1)
    return float(gaussian_width(render.sample_psf(table, centre, centre, WIDTH_STAMP), centre, centre))


def seeing_of_width(width: float, pixel_scale: float, recipe: Recipe) -> float:
    """Return the atmosphere's FWHM in arcsec for which a rendered star has this Gaussian width in pixels."""
    # A Gaussian of this width is a little wider than the atmosphere alone: walk down from there.
    upper = max(0.6, round(2.4 * width * pixel_scale / SEEING_STEP) * SEEING_STEP)
    high, low = rendered_width(round(upper, 2), pixel_scale, recipe), np.inf
    while upper > 0.6:
        low = rendered_width(round(upper - SEEING_STEP, 2), pixel_scale, recipe)
        if low <= width:
            break
        upper, high = upper - SEEING_STEP, low
    return float(upper - SEEING_STEP * (high - width) / (high - low))


def _add_core(area: np.ndarray, image: np.ndarray, segments: np.ndarray, label: int, star: np.void) -> None:
    """Add the pixels that belong to a bright star itself to `area`; its spikes and its halo are empty sky."""
    reach = int(np.ceil(CORE_RADIUS))
    rows = slice(max(0, min(star["ymin"], int(star["y"]) - reach)), max(star["ymax"], int(star["y"]) + reach) + 1)
    columns = slice(max(0, min(star["xmin"], int(star["x"]) - reach)), max(star["xmax"], int(star["x"]) + reach) + 1)
    row, column = np.ogrid[rows, columns]
    light, segment = image[rows, columns], segments[rows, columns] == label
    row, column = row[: light.shape[0]], column[:, : light.shape[1]]
    disc = (column - star["x"]) ** 2 + (row - star["y"]) ** 2 <= CORE_RADIUS**2
    area[rows, columns] |= disc | (segment & (light > CORE_SHARE * star["peak"]))


def _contamination(image: np.ndarray, sources: np.ndarray, mask: np.ndarray, fwhm: float) -> np.ndarray:
    """Return the light of real sources within a FWHM of each pixel."""
    reach = int(np.ceil(fwhm))
    near = ndimage.binary_dilation(sources, iterations=reach)
    axis = np.arange(-reach, reach + 1)
    disc = (axis**2 + axis[:, None] ** 2 <= fwhm**2).astype(np.float32)
    light = ndimage.convolve(np.where(near, image, 0), disc, mode="nearest")
    light[ndimage.binary_dilation(mask, iterations=2)] = np.inf
    return light.astype(np.float32)


def _blocks(area: np.ndarray) -> np.ndarray:
    """Return (N, 2) centres of the blocks that hold a pixel of the area."""
    height, width = area.shape
    padded = np.pad(area, ((0, -height % BLOCK), (0, -width % BLOCK)))
    held = padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK).any(axis=(1, 3))
    row, column = np.nonzero(held)
    return np.column_stack([column, row]) * np.float32(BLOCK) + np.float32((BLOCK - 1) / 2)


class InjectedFields:
    """Random cut-outs of real frames, flipped at random, with stars added.

    A star is rendered with the width of the frame's own PSF (the mean of two neighbouring seeings of the renderer,
    plus a scatter of a per cent), gets the Poisson noise of its own light, and is added to the frame, whose noise is
    already there. Charge above the full well bleeds along the columns; in half of the cut-outs saturated pixels then
    take the median around them, as they do in a frame that comes with a mask (`background.subtracted`), in the others
    they stay full.

    Parameters
    ----------
    skies : sequence of RealSky
    recipe : Recipe
        Density and magnitudes of the stars, optics and aureole.
    batch_size : int
    size : int
        Width of a cut-out in pixels.
    faint : float
        Stars down to this magnitude are added; those fainter than `fields.FAINT` are ignored.

    Raises
    ------
    ConfigError, DataError
        If there is no frame, or one is smaller than a cut-out.
    """

    def __init__(
        self, skies: Sequence[RealSky], recipe: Recipe, batch_size: int, size: int = 256, faint: float = FAINT
    ):
        if not skies:
            raise ConfigError("skies is empty: there is no frame to inject stars into")
        for sky in skies:
            if min(sky.image.shape) < size:
                raise DataError(f"frame {sky.name}: {sky.image.shape} pixels are fewer than a cut-out of {size}")
        self.skies, self.recipe, self.batch_size, self.size, self.faint = list(skies), recipe, batch_size, size, faint

    def batch(self, seed: int, device: torch.device) -> Batch:
        """Return one batch of cut-outs with stars."""
        rng = np.random.default_rng(seed)
        skies = [self.skies[rng.integers(len(self.skies))] for _ in range(self.batch_size)]
        cuts = [CutOut.draw(sky.image.shape, self.size, rng) for sky in skies]
        stars = pd.concat([self._stars(index, sky, rng) for index, sky in enumerate(skies)], ignore_index=True)
        column, row = (np.clip(np.rint(stars[name].to_numpy()), 0, self.size - 1).astype(int) for name in ("x", "y"))
        contamination = np.stack([cut.image(sky.contamination) for cut, sky in zip(cuts, skies, strict=True)])
        spoilt_by = contamination[stars["field"], row, column]
        # Noise alone is no contamination: three times that of the aperture is allowed in any case.
        noise = np.array([3 * sky.sigma * np.sqrt(np.pi) * sky.fwhm for sky in skies])[stars["field"]]
        stars["ignored"] = (stars["mag"] > FAINT) | (spoilt_by > np.maximum(CONTAMINATION * stars["flux"], noise))
        real = [self._ignored(index, cut, sky) for index, (cut, sky) in enumerate(zip(cuts, skies, strict=True))]
        image = np.stack([cut.image(sky.image) for cut, sky in zip(cuts, skies, strict=True)])
        light = self._light(stars, skies, rng, device)
        image = self._expose(torch.from_numpy(image).to(device), light, skies, rng, seed)
        sigma = np.array([sky.sigma for sky in skies])
        # Stars leave their wings in the estimate of the sky, as in `RenderedFields`.
        level = torch.as_tensor(rng.normal(0, 0.03, len(skies)) * sigma, dtype=torch.float32, device=device)
        sources = pd.concat([stars, *real], ignore_index=True)
        return batch_of(image - level[:, None, None], sigma, [sky.fwhm for sky in skies], sources)

    def _ignored(self, index: int, cut: CutOut, sky: RealSky) -> pd.DataFrame:
        """Return the ignored positions of a cut-out."""
        points, last = cut.positions(sky.ignored), self.size - 1
        # A block whose centre is cut off still covers pixels at the border.
        points = points[((points > -BLOCK / 2) & (points < last + BLOCK / 2)).all(axis=1)].clip(0, last)
        return pd.DataFrame({"field": index, "x": points[:, 0], "y": points[:, 1], "flux": 1.0, "ignored": True})

    def _stars(self, index: int, sky: RealSky, rng: np.random.Generator) -> pd.DataFrame:
        """Draw the stars of one cut-out; densities and magnitudes as in `RenderedFields`."""
        paper = self.recipe.fields["paper"]
        area = (self.size / self.recipe.size) ** 2
        n = rng.poisson(rng.uniform(paper.stars[0], 1.5 * paper.stars[1]) * area)
        low = paper.magnitudes[0] - 0.3
        steep = draw_magnitudes(FieldKind(paper.stars, (low, self.faint), paper.slope, None), n, rng)
        mag = np.where(rng.random(n) < 0.5, steep, rng.uniform(low, self.faint, n))
        x, y = rng.uniform(-0.5, self.size - 0.5, (2, n))
        flux = 10 ** (0.4 * (sky.zero_point - mag))
        return pd.DataFrame({"field": index, "x": x, "y": y, "mag": mag, "flux": flux})

    def _light(self, stars: pd.DataFrame, skies: list[RealSky], rng: np.random.Generator, device) -> torch.Tensor:
        """Return the expected electrons of the added stars, (B, S, S)."""
        seeing = np.array([sky.seeing for sky in skies]) * (1 + rng.normal(0, WIDTH_SCATTER, len(skies)))
        below = np.floor(seeing / SEEING_STEP + 1e-9)
        share = seeing / SEEING_STEP - below  # of the wider one of the two PSFs
        light = torch.zeros(len(skies), self.size, self.size, device=device)
        for node, weight in ((below, 1 - share), (below + 1, share)):
            added = stars_of(stars.assign(flux=stars["flux"] * weight[stars["field"]]), device)
            grid = [round(float(value), 2) for value in node * SEEING_STEP]
            render.add_stars(light, added, grid, pixel_scale=skies[0].pixel_scale, optics=self.recipe.optics)
        return light if self.recipe.aureole is None else render.scatter(light, self.recipe.aureole)

    def _expose(
        self, image: torch.Tensor, light: torch.Tensor, skies: list[RealSky], rng: np.random.Generator, seed: int
    ) -> torch.Tensor:
        """Add the stars' light with its photon noise; saturate what is too bright."""
        device = image.device
        generator = torch.Generator(device=device).manual_seed(seed)
        level = torch.tensor([sky.sky for sky in skies], dtype=torch.float32, device=device)[:, None, None]
        well = torch.tensor([sky.full_well for sky in skies], dtype=torch.float32, device=device)
        before = image + level
        total = before + torch.poisson(light.clamp(min=0), generator=generator)
        # Real pixels above the full well are interpolated ones: they have nothing to spill.
        spilling = torch.maximum(well, before.amax(dim=(1, 2)))
        total = render.bleed(total, spilling)
        filled = rng.random(len(skies)) < 0.5
        for index in np.flatnonzero(filled):
            full = (total[index] >= 0.999 * spilling[index]) & (before[index] < 0.999 * spilling[index])
            if bool(full.any()):
                total[index] = torch.from_numpy(_filled(total[index], full)).to(device)
        return total - level


def _filled(image: torch.Tensor, full: torch.Tensor) -> np.ndarray:
    """Return an image whose saturated pixels, a pixel wider, are filled as masked ones are."""
    wider = ndimage.binary_dilation(full.cpu().numpy(), np.ones((3, 3)))
    return background.filled(image.cpu().numpy(), wider, wider)


def fields(manifest: str | os.PathLike, batch_size: int, size: int = 256) -> InjectedFields:
    """Return injected fields made from the training frames of a manifest that have no catalogue.

    Frames take 24 MB of memory and a second or two to prepare, each.

    Parameters
    ----------
    manifest : str or path
        As for `Manifest.load`.
    batch_size, size : int
        See `InjectedFields`.

    Raises
    ------
    MissingError
        If the manifest has no such frame, or one cannot be had.
    """
    loaded = Manifest.load(manifest)
    names = [field.name for field in loaded.fields if field.split == "train" and field.file("photoObj") is None]
    if not names:
        raise MissingError(
            f"manifest {manifest}: no field of train without catalogue, so no real sky to inject stars into; "
            "`pnet sdss-download --manifest sdss-standard` gets the manifest that has some"
        )
    report = fetch(loaded, fields=names, roles=("frame-g", "psField", "fpM-g"), progress=False)
    recipe, skies = Recipe.load(), []
    for name in names:
        files = {role: report.path(name, role) for role in ("frame-g", "psField", "fpM-g")}
        frame = read_frame(files["frame-g"], psfield=files["psField"], fpm=files["fpM-g"])
        # One renderer serves a batch: frames differ from SDSS's nominal pixel by less than 0.1 %.
        frame.pixel_scale = PIXEL
        skies.append(prepare(frame, recipe))
    return InjectedFields(skies, recipe, batch_size, size)
