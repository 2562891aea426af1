"""Recalibrated uncertainties through uncertainty-toolbox (Chung et al. 2021; section 4.2 of the paper), and beyond.

Four ways, all fitted on validation data and never on the data that are reported on:

- "ratio": one factor for all σ, the one with the smallest miscalibration area;
- "ratios": one factor for each bin of magnitude, as far as the bins really differ (`recalibration_bins.Ratios`);
- "isotonic": a rising map between nominal and observed proportion (Kuleshov et al. 2018), which
  corrects the shape of the distribution too. It has no single σ; the half-width of its 68.3 %
  interval stands for it;
- "conformal": the largest |truth − mean| / σ that validation stars of the same magnitude reach bounds the interval
  (split conformal prediction: Papadopoulos et al. 2002, Lei et al. 2018; by group: Vovk 2012). Whatever the errors'
  distribution, a new star of a bin with n validation stars lies inside with a probability of at least the level, and
  of at most the level + 1 / (n + 1), as long as new stars are drawn as the validation stars were.
"""

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import read_json, write_json
from pnet.common.metrics import flat, toolbox
from pnet.stars.recalibration_bins import EDGES, MIN_BIN, Conformal, Ratios, best_ratio, check_level, predictions

METHODS = ("ratio", "ratios", "isotonic", "conformal")
ONE_SIGMA = float(stats.norm.cdf(1) - stats.norm.cdf(-1))  # 0.6827
MIN_STARS = 20  # below it a fitted ratio is noise: its relative error is 1 / sqrt(2 n)


@dataclass(frozen=True)
class Recalibration:
    """A fitted recalibration by one ratio or one map; make it with `fit` or `load`.

    Parameters
    ----------
    method : {"ratio", "isotonic"}
    n : int
        Validation stars it was fitted on.
    ratio : float
        Factor on σ; for "isotonic" the one of the 68.3 % interval.
    nominal, observed : tuple of float
        Knots of the isotonic map from wanted to nominal proportion (empty for "ratio").
    data : str
        What it was fitted on.
    """

    method: str
    n: int
    ratio: float
    nominal: tuple[float, ...] = ()
    observed: tuple[float, ...] = ()
    data: str = ""
    model: IsotonicRegression | None = field(default=None, compare=False, repr=False)

    def __post_init__(self):
        if self.method not in ("ratio", "isotonic"):
            raise ConfigError(f"method is {self.method!r}, allowed are ratio and isotonic")
        if not (np.isfinite(self.ratio) and self.ratio > 0):
            raise DataError(f"ratio is {self.ratio}, it must be positive")
        if self.method == "isotonic":
            if len(self.nominal) < 2 or len(self.nominal) != len(self.observed):
                raise DataError("an isotonic recalibration needs the same number (2 or more) of nominal and observed")
            model = IsotonicRegression(increasing=True, out_of_bounds="clip")
            # a rising map fitted to its own knots is that map again
            object.__setattr__(self, "model", model.fit(np.array(self.observed), np.array(self.nominal)))

    def apply(self, sigma: np.ndarray) -> np.ndarray:
        """Return the recalibrated standard deviations."""
        return self.ratio * np.asarray(sigma, dtype=float)

    def interval(self, mean: np.ndarray, sigma: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper bound of the recalibrated central interval of probability `level`."""
        mean, sigma = predictions(mean, sigma)
        check_level(level)
        if self.method == "ratio":
            sigma = self.apply(sigma)
        bounds = toolbox().get_prediction_interval(mean, sigma, np.array([float(level)]), recal_model=self.model)
        return bounds.lower, bounds.upper

    def proportions(self, mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return expected and observed proportions of the recalibrated predictions, for a calibration curve."""
        mean, sigma = predictions(mean, sigma)
        (truth,) = flat(truth=truth)
        if self.method == "ratio":
            sigma = self.apply(sigma)
        return toolbox().get_proportion_lists_vectorized(mean, sigma, truth, recal_model=self.model)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a card or a file."""
        names = ("method", "n", "ratio", "nominal", "observed", "data")
        return {name: getattr(self, name) for name in names}

    def save(self, path: str | os.PathLike) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.as_dict())


def fit(
    mean: np.ndarray,
    sigma: np.ndarray,
    truth: np.ndarray,
    method: str = "ratio",
    *,
    data: str = "validation",
    edges: Sequence[float] = EDGES,
    smallest: int = MIN_BIN,
) -> Recalibration | Ratios | Conformal:
    """Fit a recalibration to validation predictions.

    Parameters
    ----------
    mean, sigma, truth : ndarray, (N,)
        Predicted mean and standard deviation and the true value, in one unit.
    method : {"ratio", "ratios", "isotonic", "conformal"}
    data : str
        Name of the validation data, kept with the result.
    edges : sequence of float
        Of the bins of predicted magnitude wanted for "ratios" and "conformal"; what lies beyond the outer ones joins
        their bins.
    smallest : int
        Bins with fewer stars are joined with the smaller of their neighbours.

    Raises
    ------
    ConfigError
        If the method is unknown.
    DataError
        If there are fewer than 20 stars, a σ is not positive, or the best ratio lies outside 0.01 to 100.
    """
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}, allowed are {', '.join(METHODS)}")
    mean, sigma = predictions(mean, sigma)
    mean, truth = flat(mean=mean, truth=truth)
    if mean.size < MIN_STARS:
        raise DataError(f"recalibration needs at least {MIN_STARS} validation stars, got {mean.size}")
    if method in ("ratios", "conformal"):
        how = Ratios if method == "ratios" else Conformal
        return how.fit(mean, sigma, truth, edges, smallest, data)
    if method == "ratio":
        return Recalibration("ratio", mean.size, best_ratio(mean, sigma, truth), data=data)
    expected, observed = toolbox().get_proportion_lists_vectorized(mean, sigma, truth)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a remark where the proportions do not reach 0 and 1
        model = toolbox().iso_recal(expected, observed)
    nominal, knots = model.y_thresholds_, model.X_thresholds_
    one_sigma = float(stats.norm.ppf(0.5 + min(float(model.predict([ONE_SIGMA])[0]), 1 - 1e-9) / 2))
    return Recalibration("isotonic", mean.size, one_sigma, tuple(nominal.tolist()), tuple(knots.tolist()), data)


def from_dict(content: Mapping[str, Any]) -> Recalibration | Ratios | Conformal:
    """Return the recalibration of a dict that `as_dict` gave, such as a card of weights holds.

    Raises
    ------
    DataError
        If it is none.
    """
    try:
        method, data = content["method"], str(content["data"])
        if method == "conformal":
            scores = tuple(tuple(map(float, values)) for values in content["scores"])
            edges, notes = tuple(map(float, content["edges"])), tuple(map(str, content["notes"]))
            return Conformal(edges, scores, notes, data)
        if method == "ratios":
            edges, ratios = (tuple(map(float, content[name])) for name in ("edges", "ratios"))
            notes = tuple(map(str, content["notes"]))
            return Ratios(edges, ratios, float(content["spread"]), int(content["n"]), notes, data)
        knots = (tuple(content.get(name, ())) for name in ("nominal", "observed"))
        return Recalibration(method, int(content["n"]), float(content["ratio"]), *knots, data)
    except DataError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"not a recalibration: {error!r}") from error


def load(path: str | os.PathLike) -> Recalibration | Ratios | Conformal:
    """Read what `save` of any of them wrote.

    Raises
    ------
    MissingError, DataError
        If the file is not there, or does not hold a recalibration.
    """
    try:
        return from_dict(read_json(path))
    except FileNotFoundError as error:
        raise MissingError(f"{path}: no recalibration here; it is written by `python -m pnet train bpnn`") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
