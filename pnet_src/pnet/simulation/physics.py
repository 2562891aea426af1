"""Does an engine make the frames that it should? Frames with truth against the physics of their recipe.

The prediction is analytic: the recipe's PSF (`psf.psf_map`, with the aureole), the header's sky, gain and read noise,
and the truth's fluxes and positions. Each isolated star is a linear model, flux times PSF plus a constant, with the
PSF's two derivatives for a shift; each empty pixel is sky plus the far light of all stars (which is also taken off the
stamps, where it would bend the sky under a star). The same measurement on the frames of two engines compares the
engines (`compare`).
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import ndimage, signal
from scipy.interpolate import RectBivariateSpline

from pnet.common.errors import DataError
from pnet.frame import Frame
from pnet.simulation import renderer
from pnet.simulation.recipe import Conditions, Recipe
from pnet.sky.psf import FIELD, OVERSAMPLING, Aureole, Optics, psf_map

HALF = 20  # px; stamps are 41 px wide
REACH = FIELD // 2 - 4  # px; as far as the PSF map goes
ISOLATION = 30.0  # px to the next source with more than NEGLIGIBLE of the star's light
NEGLIGIBLE = 1e-4
MAGNITUDES = (13.5, 17.5)  # of the stars that are measured: bright enough for 1 % each
UNSATURATED = 0.8  # of the saturation level in the stamp's highest pixel
EMPTY_RADIUS = 15.0  # px from every source of more than FAINT electrons ...
FAINT = 300.0
EMPTY_LIGHT = 0.03  # ... where the far light of stars is below this share of the sky
FLUX_FLOOR = 1e-3  # relative; keeps the few brightest stars from being the whole mean
POSITION_FLOOR = 1e-3  # px; the same for positions
RINGS = ((0, 1), (1, 2), (2, 3), (3, 5), (5, 8), (8, 12), (12, 20))  # px, inner and outer radius of the annuli

# What two engines may differ by, and why no more.
TOLERANCES = {
    "flux": (0.002, "", "total flux over truth: 2 mmag, the size of the paper's smallest mean error"),
    "profile": (0.002, "", "light in an annulus, share of the star's total: moves a 9×9 px sum by 2 mmag at most"),
    "x": (0.001, "px", "mean offset from truth: the Cramér–Rao bound of the brightest stars is 0.0007 px"),
    "y": (0.001, "px", "as for x"),
    "x_excess": (0.002, "px", "scatter beyond photon noise: SkyMaker's resampling displaces stars by 0.0013 px rms"),
    "y_excess": (0.002, "px", "as for x_excess"),
    "sky": (0.002, "", "empty pixels over the recipe's sky: half an electron, a third of the noise of a 9×9 px sum"),
    "variance": (0.01, "", "variance of empty pixels over its prediction: 0.5 % in every error bar"),
}
SIGMAS = 3.0  # a deviation counts as one where it exceeds its tolerance by this many errors


def measure(frames: Iterable[tuple[Frame, pd.DataFrame]], recipe: Recipe) -> pd.DataFrame:
    """Compare frames with what the recipe, their headers and their truth predict.

    `frames` are as from `frame_file.read_frame`, with seeing and BACKMAG in their headers; the recipe tells optics and
    aureole.

    Returns
    -------
    DataFrame
        One row per quantity (and annulus of the profile): value, expected, deviation (value − expected), its
        standard error, n (stars or pixels), tolerance, unit, and ok: not beyond its tolerance by more
        than three errors.

    Raises
    ------
    DataError
        If a frame's header lacks what is needed, or no isolated bright star or no empty pixel is found.
    """
    stars, pixels = [], []
    for frame, truth in frames:
        light = far_light(frame, truth, recipe)
        stars += _measure_stars(frame, truth, recipe, light)
        pixels.append(_measure_sky(frame, truth, light))
    stars, pixels = pd.DataFrame(stars), pd.DataFrame(pixels)
    if stars.empty or not (n := int(pixels["n"].sum())):
        raise DataError("the check needs at least one frame with an isolated star of 13.5–17.5 mag and with empty sky")
    rows = [("flux", "", *_mean(stars["flux"], np.hypot(stars["flux_error"], FLUX_FLOOR)), 1.0)]
    for axis in ("x", "y"):
        shift, error = stars[axis], stars[f"{axis}_error"]
        rows.append((axis, "", *_mean(shift, np.hypot(error, POSITION_FLOOR)), 0.0))
        rows.append((f"{axis}_excess", "", *_excess(shift, error), 0.0))
    rows += [("profile", f"{inner}–{outer} px", *_ring(stars, inner)) for inner, outer in RINGS]
    sky, error, variance = (pixels[name] * (pixels["n"] / n) for name in ("sky", "sky_error", "variance"))
    rows.append(("sky", "", sky.sum(), np.sqrt((error**2).sum()), n, 1.0))
    rows.append(("variance", "", variance.sum(), np.sqrt(2 / n), n, 1.0))
    table = pd.DataFrame(rows, columns=["quantity", "bin", "value", "error", "n", "expected"])
    table["deviation"] = table["value"] - table["expected"]
    table["tolerance"], table["unit"] = zip(*(TOLERANCES[name][:2] for name in table["quantity"]), strict=True)
    table["ok"] = table["deviation"].abs() <= table["tolerance"] + SIGMAS * table["error"]
    return table[["quantity", "bin", "value", "expected", "deviation", "error", "n", "tolerance", "unit", "ok"]]


def compare(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Compare two results of `measure`: quantity, bin, deviation_a, deviation_b, difference (a − b), error, tolerance,
    unit, ok.

    Each was measured against the prediction for its own frames, so the two sets need not hold the same fields.
    """
    both = a.merge(b, on=["quantity", "bin", "tolerance", "unit"], suffixes=("_a", "_b"), validate="one_to_one")
    if both.empty:
        raise DataError("the two tables have no quantity in common; both must come from `measure`")
    both["difference"] = both["deviation_a"] - both["deviation_b"]
    both["error"] = np.hypot(both["error_a"], both["error_b"])
    both["ok"] = both["difference"].abs() <= both["tolerance"] + SIGMAS * both["error"]
    return both[["quantity", "bin", "deviation_a", "deviation_b", "difference", "error", "tolerance", "unit", "ok"]]


def _measure_stars(frame: Frame, truth: pd.DataFrame, recipe: Recipe, light: np.ndarray) -> list[dict[str, float]]:
    """Fit every isolated bright star of a frame at its true position; `light` is the frame's `far_light`.

    The keys are seeing; flux (over truth), x and y (offset from truth, px) with ``_error``; for each of `RINGS` by
    its inner radius share_r (light above the fitted background, over the true flux), model_r and noise_r.
    """
    spline, _, own = _star(_header(frame, "SEEING"), frame.pixel_scale, recipe.optics, recipe.aureole)
    offset = np.arange(-HALF, HALF + 1)
    rows = []
    for star in truth[_isolated(frame, truth)].itertuples():
        column, row = int(np.floor(star.x + 0.5)), int(np.floor(star.y + 0.5))
        cut = (slice(row - HALF, row + HALF + 1), slice(column - HALF, column + HALF + 1))
        if frame.mask[cut].any() or frame.image[cut].max() > UNSATURATED * frame.saturation:
            continue
        at = offset - (star.y - row), offset - (star.x - column)
        profile, slope_y, slope_x = spline(*at), spline(*at, dx=1), spline(*at, dy=1)
        data = frame.image[cut] - (light[cut] - star.flux * own)
        # the expected variance: the observed one would tie weights to noise and bias the flux low
        variance = star.flux * profile + np.median(data) + frame.read_noise**2 + frame.gain**2 / 12
        # a star that moves by δ changes by −δ times the slope
        terms = np.stack([profile, -star.flux * slope_x, -star.flux * slope_y, np.ones_like(data)]).reshape(4, -1)
        covariance = np.linalg.inv(terms / variance.ravel() @ terms.T)
        flux, dx, dy, background = covariance @ (terms / variance.ravel()) @ data.ravel()
        error = np.sqrt(np.diag(covariance))
        measured = {"seeing": frame.seeing, "flux": flux / star.flux, "flux_error": error[0] / star.flux}
        measured |= {"x": dx, "x_error": error[1], "y": dy, "y_error": error[2]}
        radius = np.hypot(offset + column - star.x, (offset + row - star.y)[:, None])
        for inner, outer in RINGS:
            ring = (radius >= inner) & (radius < outer)
            measured[f"share_{inner}"] = (data[ring] - background).sum() / star.flux
            measured[f"model_{inner}"] = profile[ring].sum()
            measured[f"noise_{inner}"] = np.hypot(np.sqrt(variance[ring].sum()), ring.sum() * error[3]) / star.flux
        rows.append(measured)
    return rows


def _measure_sky(frame: Frame, truth: pd.DataFrame, light: np.ndarray) -> dict[str, float]:
    """Return the number n of empty pixels, and their sky with its error and their variance over the prediction."""
    sky = float(frame.flux(_header(frame, "BACKMAG"))) * frame.pixel_scale**2  # electrons per pixel
    empty = ~frame.mask & (light < EMPTY_LIGHT * sky)
    # a saturated star bleeds along its columns
    columns = ndimage.binary_dilation((frame.image >= UNSATURATED * frame.saturation).any(axis=0), iterations=3)
    empty[:, columns] = False
    rows, across = np.indices(frame.shape)
    for source in truth[truth["flux"] > FAINT].itertuples():
        empty &= (across - source.x) ** 2 + (rows - source.y) ** 2 > EMPTY_RADIUS**2
    n = int(empty.sum())
    if not n:
        return {"n": 0, "sky": np.nan, "sky_error": np.nan, "variance": np.nan}
    expected = sky + light[empty]
    residual = frame.image[empty].astype(float) - expected
    predicted = float((expected + frame.read_noise**2 + frame.gain**2 / 12).mean())
    level, error = 1 + float(residual.mean()) / sky, float(np.sqrt(predicted / n)) / sky
    return {"n": n, "sky": level, "sky_error": error, "variance": float(residual.var()) / predicted}


def rendered(frame: Frame, truth: pd.DataFrame, recipe: Recipe, seed: int) -> Frame:
    """Return the renderer's frame of the same sources under the same conditions, with noise of its own.

    `frame` and `truth` are as from `frame_file.read_frame`; the recipe tells optics, aureole and exposure, the frame
    the rest. A DataError if the truth has galaxies, whose shapes it does not hold, or the frame's header lacks what is
    needed.
    """
    if (truth["kind"] != "star").any():
        raise DataError(f"frame {frame.name} has galaxies, whose shapes its truth does not hold; take 'paper' frames")
    conditions = Conditions(
        *(_header(frame, "SEEING"), _header(frame, "BACKMAG"), frame.gain, frame.read_noise),
        size=len(frame.image),
        pixel_scale=frame.pixel_scale,
        exposure=recipe.exposure,
        mag_zero=frame.zero_point - 2.5 * np.log10(recipe.exposure * frame.gain),
        saturation=frame.saturation / frame.gain,
        well_capacity=_header(frame, "WELLCAP"),
        optics=recipe.optics,
        aureole=recipe.aureole,
    )
    image = renderer.render_field(truth, conditions, seed) * np.float32(frame.gain)
    variance = np.maximum(image, 0) + frame.read_noise**2 + frame.gain**2 / 12
    return replace(frame, image=image, variance=variance, meta={**frame.meta, "SIMULATR": renderer.SIMULATOR})


def radial_profile(frames: Iterable[tuple[Frame, pd.DataFrame]], recipe: Recipe) -> pd.DataFrame:
    """Return the stacked radial profile of isolated stars for each seeing: seeing (arcsec), radius (px, middle of the
    annulus), area (px), value, error, expected (light per pixel over the star's total), n (stars)."""
    stars, rows = [], []
    for frame, truth in frames:
        stars += _measure_stars(frame, truth, recipe, far_light(frame, truth, recipe))
    if not stars:
        raise DataError("the frames hold no isolated unsaturated star of 13.5–17.5 mag")
    for seeing, group in pd.DataFrame(stars).groupby("seeing"):
        for inner, outer in RINGS:
            area = np.pi * (outer**2 - inner**2)
            value, error, n, model = _ring(group, inner)
            rows.append((seeing, (inner + outer) / 2, area, value / area, error / area, model / area, n))
    return pd.DataFrame(rows, columns=["seeing", "radius", "area", "value", "error", "expected", "n"])


def _ring(stars: pd.DataFrame, inner: int) -> tuple[float, float, int, float]:
    """Return the mean share of light in one of `RINGS`, its error, the number of stars and the expected share: where
    the pixel grid cuts an annulus differs from star to star, but the same way in the model."""
    excess = stars[f"share_{inner}"] - stars[f"model_{inner}"]
    mean, error, n = _mean(excess, np.hypot(stars[f"noise_{inner}"], FLUX_FLOOR))
    model = float(stars[f"model_{inner}"].mean())
    return model + mean, error, n, model


def _isolated(frame: Frame, truth: pd.DataFrame) -> np.ndarray:
    """Return which sources of `truth` are stars that `_measure_stars` takes."""
    x, y, flux = (truth[name].to_numpy(dtype=float) for name in ("x", "y", "flux"))
    (height, width), margin = frame.shape, HALF + 1
    chosen = (truth["kind"] == "star").to_numpy() & truth["mag"].between(*MAGNITUDES).to_numpy()
    chosen &= (x > margin) & (x < width - 1 - margin) & (y > margin) & (y < height - 1 - margin)
    near = np.hypot(x - x[:, None], y - y[:, None]) < ISOLATION
    near &= flux > NEGLIGIBLE * flux[:, None]
    np.fill_diagonal(near, False)
    return chosen & ~near.any(axis=1)


def _mean(values, errors) -> tuple[float, float, int]:
    """Return weighted mean, standard error (what the errors say or what the scatter says, the larger) and number."""
    values, weights = np.asarray(values, dtype=float), 1 / np.asarray(errors, dtype=float) ** 2
    mean = float((weights * values).sum() / weights.sum())
    stated = float(1 / np.sqrt(weights.sum()))
    seen = float(np.sqrt((weights**2 * (values - mean) ** 2).sum()) / weights.sum())
    return mean, max(stated, seen) if len(values) > 1 else stated, len(values)


def _excess(shifts: pd.Series, errors: pd.Series) -> tuple[float, float, int]:
    """Return the scatter that the errors do not explain, its standard error and the number of values.

    The mean of shift² − error², weighted by what a single value tells (2 error⁴, with a floor), is a variance; its
    root is given (0 where it is negative).
    """
    spread = np.sqrt(2) * (errors**2 + POSITION_FLOOR**2)
    variance, error, n = _mean(shifts**2 - errors**2, spread)
    root = np.sqrt(max(variance, 0.0))
    # d√v = dv / 2√v, and √dv where v is not significant
    return float(root), float(np.sqrt(error) if variance < error else error / (2 * root)), n


def far_light(frame: Frame, truth: pd.DataFrame, recipe: Recipe) -> np.ndarray:
    """Return (H, W) electrons that all sources of a frame (see `measure`) send to each pixel, right far from them, as
    their positions are rounded to pixels."""
    height, width = (side + 2 * REACH for side in frame.shape)
    image = np.zeros((height, width))
    row, column = (np.floor(truth[axis].to_numpy(float) + 0.5).astype(int) + REACH for axis in ("y", "x"))
    near = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    np.add.at(image, (row[near], column[near]), truth["flux"].to_numpy(float)[near])
    _, whole, _ = _star(_header(frame, "SEEING"), frame.pixel_scale, recipe.optics, recipe.aureole)
    image = signal.fftconvolve(image, whole, mode="same")
    if recipe.aureole is not None:
        image = signal.fftconvolve(image, recipe.aureole.kernel(), mode="same")
    return image[REACH:-REACH, REACH:-REACH]


def _header(frame: Frame, card: str) -> float:
    """Return a number of the frame's header, or raise DataError with the name of the card."""
    value = frame.seeing if card == "SEEING" else frame.meta.get(card)
    if value is None:
        raise DataError(f"frame {frame.name}: its header has no {card}, which its check needs")
    return float(value)


@lru_cache(maxsize=32)
def _star(
    seeing: float, pixel_scale: float, optics: Optics, aureole: Aureole | None
) -> tuple[RectBivariateSpline, np.ndarray, np.ndarray]:
    """Return a star's PSF as a function of (row, column) offset in px, the whole of it at pixel sampling without its
    aureole, and what `far_light` gives to the (41, 41) stamp around a source of one electron."""
    table = psf_map(seeing, pixel_scale, optics, aureole)
    middle, reach = table.shape[0] // 2, (HALF + 2) * OVERSAMPLING
    near, axis = slice(middle - reach, middle + reach + 1), np.arange(-reach, reach + 1) / OVERSAMPLING
    reach = REACH * OVERSAMPLING
    far = slice(middle - reach, middle + reach + 1, OVERSAMPLING)
    whole = psf_map(seeing, pixel_scale, optics)[far, far]
    own = whole if aureole is None else signal.fftconvolve(whole, aureole.kernel(), mode="same")
    stamp = slice(REACH - HALF, REACH + HALF + 1)
    return RectBivariateSpline(axis, axis, table[near, near]), whole, own[stamp, stamp]
