"""Recalibrated uncertainties through uncertainty-toolbox (Chung et al. 2021), as in section 4.2 of the paper.

Two ways, both fitted on validation data and never on the data that are reported on:

- "ratio": one factor for all σ, the one with the smallest miscalibration area;
- "isotonic": a rising map between nominal and observed proportion (Kuleshov et al. 2018), which
  corrects the shape of the distribution too. It has no single σ; the half-width of its 68.3 %
  interval stands for it.
"""

import contextlib
import io
import os
from dataclasses import dataclass, field

import numpy as np
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from pnet.errors import ConfigError, DataError, MissingError
from pnet.files import read_json, write_json
from pnet.metrics import flat, toolbox

METHODS = ("ratio", "isotonic")
ONE_SIGMA = float(stats.norm.cdf(1) - stats.norm.cdf(-1))  # 0.6827
MIN_STARS = 20  # below it a fitted ratio is noise: its relative error is 1 / sqrt(2 n)
BOUNDS = (1e-2, 1e2)  # range of ratios searched, uncertainty-toolbox's own


@dataclass(frozen=True)
class Recalibration:
    """A fitted recalibration; make it with `fit` or `load`.

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
        if self.method not in METHODS:
            raise ConfigError(f"method is {self.method!r}, allowed are {', '.join(METHODS)}")
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
        mean, sigma = _predictions(mean, sigma)
        if not 0 < level < 1:
            raise ConfigError(f"level is {level}, it must lie between 0 and 1")
        if self.method == "ratio":
            sigma = self.apply(sigma)
        bounds = toolbox().get_prediction_interval(mean, sigma, np.array([float(level)]), recal_model=self.model)
        return bounds.lower, bounds.upper

    def proportions(self, mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return expected and observed proportions of the recalibrated predictions, for a calibration curve."""
        mean, sigma = _predictions(mean, sigma)
        (truth,) = flat(truth=truth)
        if self.method == "ratio":
            sigma = self.apply(sigma)
        return toolbox().get_proportion_lists_vectorized(mean, sigma, truth, recal_model=self.model)

    def save(self, path: str | os.PathLike) -> None:
        """Write as JSON, atomically."""
        names = ("method", "n", "ratio", "nominal", "observed", "data")
        write_json(path, {name: getattr(self, name) for name in names})


def _predictions(mean: np.ndarray, sigma: np.ndarray) -> list[np.ndarray]:
    mean, sigma = flat(mean=mean, sigma=sigma)
    if (sigma <= 0).any():
        raise DataError(f"sigma: {int((sigma <= 0).sum())} values are not positive")
    return [mean, sigma]


def fit(
    mean: np.ndarray, sigma: np.ndarray, truth: np.ndarray, method: str = "ratio", *, data: str = "validation"
) -> Recalibration:
    """Fit a recalibration to validation predictions.

    Parameters
    ----------
    mean, sigma, truth : ndarray, (N,)
        Predicted mean and standard deviation and the true value, in one unit.
    method : {"ratio", "isotonic"}
    data : str
        Name of the validation data, kept with the result.

    Raises
    ------
    ConfigError
        If the method is unknown.
    DataError
        If there are fewer than 20 stars, a σ is not positive, or the best ratio lies outside 0.01 to 100.
    """
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}, allowed are {', '.join(METHODS)}")
    mean, sigma = _predictions(mean, sigma)
    mean, truth = flat(mean=mean, truth=truth)
    if mean.size < MIN_STARS:
        raise DataError(f"recalibration needs at least {MIN_STARS} validation stars, got {mean.size}")
    if method == "ratio":
        # The search is local: start it from σ scaled to the observed spread, so that a factor of 50 is no obstacle.
        start = float(np.median(np.abs(truth - mean) / sigma) / stats.norm.ppf(0.75))
        if not start > 0:
            raise DataError("half of the predictions equal the truth exactly: no ratio of σ can be fitted")
        ratio = start * toolbox().optimize_recalibration_ratio(
            mean, start * sigma, truth, criterion="miscal", optimizer_bounds=(0.2, 5.0)
        )
        if not BOUNDS[0] < ratio < BOUNDS[1]:
            raise DataError(f"the best ratio is {ratio:.3g}, outside {BOUNDS[0]} to {BOUNDS[1]}: check the units of σ")
        return Recalibration("ratio", mean.size, float(ratio), data=data)
    expected, observed = toolbox().get_proportion_lists_vectorized(mean, sigma, truth)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a remark where the proportions do not reach 0 and 1
        model = toolbox().iso_recal(expected, observed)
    nominal, knots = model.y_thresholds_, model.X_thresholds_
    one_sigma = float(stats.norm.ppf(0.5 + min(float(model.predict([ONE_SIGMA])[0]), 1 - 1e-9) / 2))
    return Recalibration("isotonic", mean.size, one_sigma, tuple(nominal.tolist()), tuple(knots.tolist()), data)


def load(path: str | os.PathLike) -> Recalibration:
    """Read what `Recalibration.save` wrote.

    Raises
    ------
    MissingError, DataError
        If the file is not there, or does not hold a recalibration.
    """
    try:
        content = read_json(path)
        return Recalibration(
            content["method"],
            int(content["n"]),
            float(content["ratio"]),
            tuple(content["nominal"]),
            tuple(content["observed"]),
            str(content["data"]),
        )
    except FileNotFoundError as error:
        raise MissingError(f"{path}: no recalibration here; it is written by `python -m pnet train bpnn`") from error
    except (KeyError, TypeError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path}: not a recalibration: {error}") from error
