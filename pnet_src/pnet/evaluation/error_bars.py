"""Do the error bars hold for every star? Calibration of magnitudes, of all and by magnitude.

The σ of these scores is ``mag_err`` as it is released, recalibrated. What other recalibrations would give
(`studies.recalibrations`), and calibration by seeing and crowding (`studies.conditions`), are studies. Methods that are
no networks have none of these scores.
"""

from collections.abc import Iterable
from functools import partial

import numpy as np
import pandas as pd

from pnet.common import metrics
from pnet.common.metrics import Estimate
from pnet.common.seeds import derive
from pnet.evaluation import calibration_metrics, scores
from pnet.evaluation.calibration_metrics import INVERSE_ROOT_PI, PIT_BINS
from pnet.evaluation.scores import LEVELS, Sample, Score

SMALLEST = 20  # stars of a group: below it the scatter is not even known to 16 %
TOLERATED = (0.1, 1e-3)  # bias of a magnitude bin: share of the limit, mag
NEEDED = ("truth_mag", "mag", "mag_err")
Group = tuple[str, str, np.ndarray]


def stars_of(table: pd.DataFrame, dataset: str, method: str = "pnet") -> pd.DataFrame:
    """Return a method's matched stars with a magnitude and an error bar."""
    return scores.matched(scores.select(table, dataset, method), *NEEDED)


def bins(stars: pd.DataFrame) -> list[Group]:
    """Return key (``mag.17``), label and members of every magnitude bin."""
    edges = zip(scores.BINS[:-1], scores.BINS[1:], strict=True)
    return [(f"mag.{low:g}", f"{low:g} ≤ mag < {high:g}", scores.within(stars, low, high)) for low, high in edges]


def by_group(stars: pd.DataFrame, groups: Iterable[Group], seed: int) -> dict[str, Score]:
    """Return ``<what>.<group>`` such as ``z_scatter.mag.17``, ``miscalibration_area.mag.17``, ``coverage_68.mag.17``.

    `stars` are as of `stars_of`; `groups` are key, label and members, (N,) bool: those of fewer than `SMALLEST` stars
    have no scores. Every group derives its own seed.
    """
    found, all_z = {}, metrics.standardised(*_values(stars))
    for key, label, member in groups:
        if member.sum() >= SMALLEST:
            own, z = derive(seed, key), all_z[member]
            area, floor = calibration_metrics.miscalibration(z, seed=own), calibration_metrics.perfect(z.size, seed=own)
            found[f"miscalibration_area.{key}"] = Score(area, f"miscalibration area, {label}", limit=floor.value)
            found |= _scatter_and_coverage(z, own, f".{key}", f", {label}")
    return found


def uncertainty(sample: Sample) -> dict[str, Score]:
    """Return the criteria of Table 2 and Figure 9 that need a σ."""
    if not sample.network or (stars := sample.stars(*NEEDED)).empty:
        return {}
    (truth, mean, sigma), seed = _values(stars), sample.seed
    z = metrics.standardised(truth, mean, sigma)
    e_bar, ratio = metrics.bootstrap(np.mean, sigma, seed=seed), _ratio(sigma, truth - mean, seed)
    area = partial(calibration_metrics.miscalibration, seed=seed, by_star=True)
    floor = calibration_metrics.miscalibration_floor(len(stars), seed=seed)
    absolute, relative = (np.abs(of(truth, mean)) for of in (metrics.magnitude_error, metrics.relative_error))
    found = {
        "e_bar": Score(e_bar, "Ē, mean σ", "mag", sample.mean_limit(stars, "mag")),
        "e_bar_over_mae": Score(ratio, "Ē / MAE (1.25 where calibrated)"),
        "eta_sigma": Score(metrics.share(absolute > sigma), "η, |δ_mag| > σ_mag (31.7 % expected)"),
        "eta_literal": Score(metrics.share(relative > sigma), "η, |relative error| > σ_mag"),
        "miscalibration_area": Score(area(z), "miscalibration area", limit=floor),
        **_scatter_and_coverage(z, seed),
    }
    parts, when = stars.dropna(subset=["mag_aleatoric", "mag_epistemic"]), "before recalibration"
    raw = np.hypot(parts["mag_aleatoric"], parts["mag_epistemic"]).to_numpy()
    if len(parts) and (raw > 0).all():
        truth, mean, _ = _values(parts)
        z, ratio = metrics.standardised(truth, mean, raw), _ratio(raw, truth - mean, seed)
        found["e_bar_over_mae_raw"] = Score(ratio, f"Ē / MAE {when}")
        found["miscalibration_area_raw"] = Score(area(z), f"miscalibration area {when}")
    return found


def calibration(sample: Sample) -> dict[str, Score]:
    """Return ``crps``, ``sharpness``, ``pit_chi2``, the scores of `by_group` and ``bias_over_allowed.mag.17``.

    Limits: the CRPS and the sharpness of perfect measurements, and the area that perfect error bars have for as many
    stars.
    """
    if not sample.network or len(stars := sample.stars(*NEEDED)) < SMALLEST:
        return {}
    (truth, mean, sigma), n, seed = _values(stars), len(stars), sample.seed
    z = metrics.standardised(truth, mean, sigma)
    # a catalogue is measured itself: the bound of one measurement does not hold for a difference, see `scores`
    limit = stars["limit_mag"].to_numpy(dtype=float) if sample.simulated else np.array([np.nan])
    values, best = calibration_metrics.crps(z, sigma), INVERSE_ROOT_PI * limit
    crps, sharpness = metrics.bootstrap(np.mean, values, seed=seed), calibration_metrics.sharpness
    sharp, sharpest = metrics.bootstrap(sharpness, sigma, seed=seed), float(sharpness(limit))
    found = by_group(stars, bins(stars), seed)
    found["crps"] = Score(crps, "CRPS, mean", "mag", float(np.mean(best)))
    found["sharpness"] = Score(sharp, "sharpness, root of the mean σ²", "mag", sharpest)
    if np.isfinite(best).all():
        found["crps_over_limit"] = Score(_ratio(values, best, seed), "CRPS over that of a perfect measurement", "", 1.0)
    if n >= 5 * PIT_BINS:
        chi2 = Estimate(calibration_metrics.uniformity(z)[0], n=n)
        found["pit_chi2"] = Score(chi2, f"PIT in {PIT_BINS} bins: χ² per degree of freedom", "", 1.0)
    for key, label, member in bins(stars) if sample.simulated else ():
        if member.sum() >= SMALLEST:
            # harmless is a tenth of the median limit, or 1 mmag where that is more
            allowed = max(TOLERATED[0] * float(np.median(limit[member])), TOLERATED[1])
            title = f"median error over what is allowed ({1000 * allowed:.2g} mmag), {label}"
            bias = metrics.bias((truth - mean)[member] / allowed, seed=derive(seed, key))
            found[f"bias_over_allowed.{key}"] = Score(bias, title, "", 0.0)
    return found


def fitted(sample: Sample) -> dict[str, Score]:
    """Return the calibration of the magnitude of the fit alone, ``psf_mag_pull.<bin>``."""
    stars = sample.stars("truth_mag", "mag_psf", "mag_psf_err")
    stars = stars[stars["mag_psf_err"] > 0] if len(stars) else stars
    truth, mean, sigma = (stars[name].to_numpy() for name in ("truth_mag", "mag_psf", "mag_psf_err"))
    return sample.pulls(stars, truth - mean, sigma, "psf_mag_pull", "magnitude of the fit alone")


def _values(stars: pd.DataFrame) -> list[np.ndarray]:
    """Return truth, measurement and its error, (N,) each, mag."""
    return [stars[name].to_numpy(dtype=float) for name in NEEDED]


def _scatter_and_coverage(z: np.ndarray, seed: int, suffix: str = "", label: str = "") -> dict[str, Score]:
    """Scatter of (truth − mean) / σ, plain and robust, and shares inside the intervals of `LEVELS`."""
    what = f"of (truth − mean) / σ{label}"
    plain, robust = (metrics.bootstrap(how, z, seed=seed) for how in (metrics.plain_scatter, metrics.robust_scatter))
    found = {f"z_scatter{suffix}": Score(plain, f"standard deviation {what}", limit=1.0)}
    found[f"z_scatter_robust{suffix}"] = Score(robust, f"robust scatter {what}", limit=1.0)
    for level in LEVELS:
        title = f"share inside the {100 * level:.0f} % interval{label}"
        found[f"coverage_{100 * level:.0f}{suffix}"] = Score(metrics.coverage(z, level), title, limit=level)
    return found


def _ratio(values: np.ndarray, to: np.ndarray, seed: int) -> Estimate:
    """Mean of `values` over mean of the absolute values of `to`."""
    return metrics.bootstrap(
        lambda a, b, axis=-1: np.mean(a, axis=axis) / np.mean(np.abs(b), axis=axis), values, to, seed=seed
    )
