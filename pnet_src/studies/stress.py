"""What the two parts of the uncertainty do outside the training range: a study on frames that are made to differ.

Every condition changes one thing about fields that are otherwise as in training. Stars lie at known places, alone but
for what the condition adds, and are measured there as if they had been found: this is about error bars. As in every
measurement the frame's own PSF is that of its stars, whatever the condition made of them.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from torch import nn
from tqdm import tqdm

from pnet.common import metrics, paths, provenance
from pnet.common.files import write_json
from pnet.common.seeds import derive
from pnet.evaluation.frames import simulated
from pnet.frame import Frame
from pnet.simulation import renderer
from pnet.simulation.frame_file import read_frame, write_frame
from pnet.simulation.galaxies import draw_galaxies
from pnet.simulation.recipe import Conditions, Recipe, draw_conditions
from pnet.sky import background, limits
from pnet.stars import weights
from pnet.stars.error_scale import scales_of
from pnet.stars.fitted import fitted_stars
from pnet.stars.inputs import make_inputs
from pnet.stars.predict import predict
from studies.novelty import Flag

FRAMES = 6  # of each condition, 64 stars each
CELL = 64  # px of sky for each star
JITTER = 14.0  # px that a star may lie off the middle of its cell: neighbours are 36 px away at least
MAGNITUDES = (14.0, 20.0)  # flat, so that bright and faint stars count alike
TRAIL = (9, 4.0)  # pieces and length in px of a trailed star
SHOWN = (0.05, 0.25, 0.5, 0.75, 0.95)  # quantiles kept of the novelty
COLUMNS = {
    "title": "condition",
    "n": "stars",
    "aleatoric": "mean aleatoric σ / mag",
    "epistemic": "mean epistemic σ / mag",
    "error": "mean |error| / mag",
    "aleatoric_over_limit": "aleatoric / limit (median)",
    "error_over_limit": "scatter / limit",
    "z_scatter": "std of error / σ",
    "z_scatter_robust": "robust scatter of error / σ",
    "epistemic_over_aleatoric": "epistemic / aleatoric (median)",
    "flagged": "flagged",
    "auc": "AUC",
    "flagged_sigma": "flagged by the whole σ",
    "auc_sigma": "AUC of the whole σ",
}


@dataclass(frozen=True)
class Condition:
    """One way to differ from the training range.

    Parameters
    ----------
    title : str
    change : callable, optional
        ``change(conditions, number)`` → Conditions of frame `number`.
    sources : callable, optional
        ``sources(stars, conditions, rng)`` → everything that is drawn, in place of the stars alone.
    damage : callable, optional
        ``damage(adu, stars, conditions, rng)`` → the image in ADU.
    magnitudes : (float, float)
    bound : bool
        Whether the Cramér-Rao limit of a lone star behind this atmosphere is the limit here.
    """

    title: str
    change: Callable[[Conditions, int], Conditions] = lambda conditions, _: conditions
    sources: Callable[..., pd.DataFrame] = lambda stars, *_: stars
    damage: Callable[..., np.ndarray] = lambda image, *_: image
    magnitudes: tuple[float, float] = MAGNITUDES
    bound: bool = True


def _seeing(*values: float) -> Callable[[Conditions, int], Conditions]:
    return lambda conditions, number: replace(conditions, seeing=values[number % len(values)])


def _blends(stars: pd.DataFrame, conditions: Conditions, rng: np.random.Generator) -> pd.DataFrame:
    """Give every star a companion 2 to 6 px away and up to 1.5 mag fainter, which nobody told the network of."""
    angle, distance = rng.uniform(0, 2 * np.pi, len(stars)), rng.uniform(2, 6, len(stars))
    companions = stars.assign(
        x=stars["x"] + distance * np.cos(angle),
        y=stars["y"] + distance * np.sin(angle),
        mag=stars["mag"] + rng.uniform(0, 1.5, len(stars)),
    )
    return pd.concat([stars, companions], ignore_index=True)


def _galaxies(stars: pd.DataFrame, conditions: Conditions, rng: np.random.Generator) -> pd.DataFrame:
    """Put galaxies of the stars' magnitudes in their places, with the shapes that such galaxies have."""
    recipe = replace(Recipe.load(), size=8192)  # a wide field, to have enough bright ones
    drawn = draw_galaxies(recipe, (14.0, 20.0), int(rng.integers(2**62)))
    order = np.argsort(drawn["mag"].to_numpy())
    nearest = np.searchsorted(drawn["mag"].to_numpy()[order], stars["mag"].to_numpy()).clip(0, len(drawn) - 1)
    shapes = drawn.iloc[order[nearest]].reset_index(drop=True)
    return shapes.assign(**{name: stars[name].to_numpy() for name in ("x", "y", "mag")})


def _trailed(stars: pd.DataFrame, conditions: Conditions, rng: np.random.Generator) -> pd.DataFrame:
    """Draw each star as a line of fainter ones: a telescope that does not follow the sky."""
    pieces, length = TRAIL
    angle = rng.uniform(0, np.pi)
    along = np.linspace(-0.5, 0.5, pieces) * length
    parts = [stars.assign(x=stars["x"] + step * np.cos(angle), y=stars["y"] + step * np.sin(angle)) for step in along]
    return pd.concat(parts, ignore_index=True).assign(mag=lambda table: table["mag"] + 2.5 * np.log10(pieces))


def _cosmic_rays(
    image: np.ndarray, stars: pd.DataFrame, conditions: Conditions, rng: np.random.Generator
) -> np.ndarray:
    """Let a particle leave 1,000 to 5,000 electrons in three pixels next to each star."""
    image = image.copy()
    for x, y in stars[["x", "y"]].to_numpy():
        column, row = int(np.rint(x)) + int(rng.integers(-3, 2)), int(np.rint(y)) + int(rng.integers(-3, 4))
        added = image[row, column : column + 3] + rng.uniform(1000, 5000, 3) / conditions.gain
        image[row, column : column + 3] = np.minimum(added, conditions.saturation)
    return image


CONDITIONS = {
    "in_range": Condition("as in training"),
    "seeing_wide": Condition("seeing 2.5 to 3.0″ (trained on 0.9 to 2.0″)", _seeing(2.5, 2.75, 3.0)),
    "seeing_sharp": Condition("seeing 0.5 to 0.6″", _seeing(0.5, 0.55, 0.6)),
    "sky_bright": Condition("sky brighter by 2 mag", lambda usual, _: replace(usual, sky_mag=usual.sky_mag - 2)),
    "read_noise": Condition("read noise × 5", lambda usual, _: replace(usual, read_noise=5 * usual.read_noise)),
    "saturated": Condition("saturated: 10.5 to 12.5 mag", magnitudes=(10.5, 12.5)),
    "blends": Condition("unseen companion at 2 to 6 px", sources=_blends, bound=False),
    "galaxies": Condition("galaxies in place of stars", sources=_galaxies, bound=False),
    "trailed": Condition("stars trailed by 4 px", sources=_trailed, bound=False),
    "cosmic_rays": Condition("cosmic ray beside the star", damage=_cosmic_rays, bound=False),
}


def measure(
    model: nn.Module, card: dict[str, Any], frame: Frame, stars: pd.DataFrame, *, seed: int, bound: bool = True
) -> pd.DataFrame:
    """Measure stars of a frame at their true positions.

    Parameters
    ----------
    model, card
        BPNN and card, from `pnet.stars.weights.load`.
    stars : DataFrame
        ``x``, ``y`` (px), ``mag``, ``flux`` (electrons): the truth.
    bound : bool
        Compute the Cramér-Rao limit; NaN otherwise.

    Returns
    -------
    DataFrame
        error (truth − mean), sigma (recalibrated), aleatoric, epistemic, ratio (of these two), limit, mean; in
        magnitudes. Its index is the number of the star: of stars too close for two the brighter.
    """
    stars = stars.assign(confidence=1.0, fwhm=frame.seeing / frame.pixel_scale, star=range(len(stars)))
    stars = stars.sort_values("mag", kind="stable")
    stars, fits, _ = fitted_stars(frame, stars, background.subtracted(frame))
    found = predict(model, make_inputs(fits), seed=seed)["mag"]
    mean, parts = frame.zero_point + found.mean, {"aleatoric": found.aleatoric, "epistemic": found.epistemic}
    sigma = scales_of(card)["mag"].ratio * found.sigma
    table = pd.DataFrame({"error": stars["mag"].to_numpy(float) - mean, "sigma": sigma, **parts, "mean": mean})
    limit = limits.frame_limits(frame, stars)["limit_mag"] if bound else np.nan
    return table.assign(ratio=table["epistemic"] / table["aleatoric"], limit=limit).set_index(stars["star"])


def make_frame(condition: Condition, number: int, seed: int) -> tuple[Frame, pd.DataFrame]:
    """Render one frame of a condition and return it with the truth of its stars; the same seed gives the same pixels.

    The frame goes through the file format of all simulated frames, so that nothing sees it differently.
    """
    seed = derive(seed, "stress", condition.title, number)
    rng = np.random.default_rng(seed)
    conditions = condition.change(draw_conditions(Recipe.load(), seed), number)
    middles = np.arange(CELL / 2, conditions.size, CELL)
    x, y = (grid.ravel() + rng.uniform(-JITTER, JITTER, len(middles) ** 2) for grid in np.meshgrid(middles, middles))
    stars = pd.DataFrame({"x": x, "y": y, "mag": rng.uniform(*condition.magnitudes, len(x)), "kind": "star"})
    image = renderer.render_field(condition.sources(stars, conditions, rng), conditions, seed)
    image = condition.damage(image.astype(float), stars, conditions, rng)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"stress-{number}.fits"
        write_frame(path, image, stars, conditions, simulator=renderer.SIMULATOR, kind="stress", seed=seed % 2**31)
        return read_frame(path)


def row(
    name: str, title: str, stars: pd.DataFrame, validation: pd.DataFrame, rules: Mapping[str, Flag]
) -> dict[str, Any]:
    """Return one row of the study: what the error bars of a condition are worth, and whether its stars are noticed.

    The AUC is the probability that a star of the condition has a larger novelty than a validation star (Mann & Whitney
    1947): 0.5 cannot tell them apart. `rules` judge by the columns of `measure` that they are named after: ``ratio``
    and ``sigma``, the whole uncertainty in place of the epistemic share.
    """
    z, bounded = stars["error"] / stars["sigma"], stars[np.isfinite(stars["limit"])]
    numbers = {
        "aleatoric": stars["aleatoric"].mean(),
        "epistemic": stars["epistemic"].mean(),
        "error": stars["error"].abs().mean(),
        "z_scatter": metrics.plain_scatter(z.to_numpy()),
        "z_scatter_robust": metrics.robust_scatter(z.to_numpy()),
        "epistemic_over_aleatoric": stars["ratio"].median(),
    }
    if len(bounded):
        numbers["aleatoric_over_limit"] = (bounded["aleatoric"] / bounded["limit"]).median()
        numbers["error_over_limit"] = metrics.robust_scatter((bounded["error"] / bounded["limit"]).to_numpy())
    found = {"name": name, "title": title, "n": len(stars)}
    for (quantity, rule), suffix in zip(rules.items(), ("", "_sigma"), strict=True):
        novelty, usual = (rule.novelty(each["mean"], each[quantity]) for each in (stars, validation))
        flagged = metrics.share(novelty > rule.threshold)
        numbers[f"flagged{suffix}"] = flagged.value
        numbers[f"auc{suffix}"] = stats.mannwhitneyu(novelty, usual).statistic / (len(novelty) * len(usual))
        if quantity == "ratio":
            numbers |= {"flagged_low": flagged.low, "flagged_high": flagged.high}
            found["quantiles"] = np.quantile(novelty, SHOWN).tolist()
    return dict.fromkeys(COLUMNS) | found | {key: float(value) for key, value in numbers.items()}


def run(output: str | os.PathLike, *, validation: int | None, seed: int, command: str, progress: bool = True) -> Path:
    """Measure every condition, fix the flag's threshold on validation frames, write ``results/studies/stress.json``.

    Parameters
    ----------
    output : path
        Folder of a run, for its validation frames.
    validation : int, optional
        Validation frames, at most.
    command : str
        Recorded in the provenance.

    Returns
    -------
    Path
        The JSON: provenance, ``columns``, ``rows``, and the rule of the flag.

    Raises
    ------
    MissingError, DataError
        If the weights or the validation frames are missing, or there are too few.
    """
    model, card = weights.load("bpnn")
    source = simulated("validation", output, validation, seed)
    known = []
    for item in tqdm(source.items, desc="validation", disable=not progress):
        frame, truth = source.reader(item)
        # neighbours' light is taken out with all stars of the frame at hand, as in a measurement
        found = measure(model, card, frame, truth, seed=derive(seed, "validation", frame.name), bound=False)
        known.append(found[truth["counted"].to_numpy(bool)[found.index]])
    usual = pd.concat(known, ignore_index=True)
    rules = {quantity: Flag.fit(usual["mean"], usual[quantity]) for quantity in ("ratio", "sigma")}
    rows = [row("validation", "validation frames", usual, usual, rules)]
    for name, condition in tqdm(CONDITIONS.items(), desc="conditions", disable=not progress):
        parts = []
        for number in range(FRAMES):
            frame, stars = make_frame(condition, number, seed)
            parts.append(measure(model, card, frame, stars, seed=derive(seed, name, number), bound=condition.bound))
        rows.append(row(name, condition.title, pd.concat(parts, ignore_index=True), usual, rules))
    details = {"engine": source.details["engine"], "weights": {"bpnn": card["sha256"]}}
    details |= {"frames_per_condition": FRAMES, "validation_frames": len(source.items)}
    record = provenance.record(command, seed, "cpu", **details)
    path = paths.RESULTS / "studies" / "stress.json"
    write_json(path, {"provenance": record, "columns": COLUMNS, "rows": rows, "flag": asdict(rules["ratio"])})
    return path
