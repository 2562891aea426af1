"""A measurement table made of truth and noise, for tests of what comes after a measurement."""

import numpy as np
import pandas as pd

from pnet.evaluation import measurements
from pnet.evaluation.frames import Source
from pnet.frame import Frame
from pnet.sky import limits

SHAPE = (256, 256)
LIMIT = 0.01  # the bound of every star, in mag and px


def frame(name: str) -> Frame:
    image = np.full(SHAPE, 270.0)
    return Frame(name, image, image + 25, np.zeros(SHAPE, bool), 3.8, 30.0, 5.0, 0.396, seeing=1.4)


def truth(rng, n: int = 40) -> pd.DataFrame:
    """Stars on a grid of 30 px, so that all of them count but the last three."""
    places = [(x, y) for y in range(20, 240, 30) for x in range(20, 240, 30)][:n]
    table = pd.DataFrame(places, columns=["x", "y"]) + rng.uniform(-3, 3, (len(places), 2))
    table["mag"] = rng.uniform(13, 20, len(table))
    table["flux"] = 10 ** (0.4 * (30 - table["mag"]))
    table["kind"] = "star"
    table["counted"] = True
    table.loc[table.index[-3:], "counted"] = False
    table.loc[table.index[-1], "kind"] = "galaxy"
    return table


class Noisy:
    """A measurer that knows the truth and adds noise of known size.

    `scatter` is the size of errors in units of `LIMIT`, `loss` the probability of not finding a star, `false` the
    number of false detections per frame (of low confidence), `offset` is added to every magnitude and to x, and `bars`
    are error bars in units of the true scatter, 0 for none.
    """

    def __init__(self, truths, rng, *, scatter=1.0, loss=0.02, false=1, offset=0.0, bars=1.0):
        self.truths, self.rng, self.scatter, self.loss = truths, rng, scatter, loss
        self.false, self.offset, self.bars = false, offset, bars

    def __call__(self, measured: Frame) -> pd.DataFrame:
        stars = self.truths[measured.name]
        stars = stars[self.rng.random(len(stars)) >= self.loss].reset_index(drop=True)
        n, sigma = len(stars), self.scatter * LIMIT
        table = stars[["x", "y", "mag"]] + sigma * self.rng.standard_normal((3, n)).T + [self.offset, 0, self.offset]
        table["confidence"] = self.rng.uniform(0.35, 1.0, n)
        if self.bars:
            table["mag_psf"] = table["mag"] + 2 * sigma * self.rng.standard_normal(n)
            table["mag_err"] = self.bars * sigma
            table["mag_aleatoric"], table["mag_epistemic"] = 1.8 * sigma, 2.4 * sigma  # 3 sigma before recalibration
        # in the middle between the grid's stars: a false detection must not happen to lie on a star that was missed
        wrong = pd.DataFrame(35.0 + 30 * self.rng.integers(0, 6, (self.false, 2)), columns=["x", "y"])
        wrong["confidence"], wrong["mag"] = self.rng.uniform(0.05, 0.6, self.false), 19.5
        table = pd.concat([table, wrong], ignore_index=True)
        return table.assign(flux=measured.flux(table["mag"]))


def source(truths: dict[str, pd.DataFrame], psf=None) -> Source:
    """The frames of these names with their truth."""
    return Source(list(truths), lambda name: (frame(name), truths[name]), psf or psf_at)


def psf_at(*_) -> limits.EffectivePSF:
    axis = np.arange(-110, 111) / 10
    samples = np.exp(-(axis**2 + axis[:, None] ** 2) / (2 * 1.6**2))
    return limits.EffectivePSF(samples / samples[::10, ::10].sum(), 10)


def table(seed: int = 7, frames: dict[str, int] | None = None, **options) -> pd.DataFrame:
    """Measurements of PNet and SExtractor stand-ins; `frames` is the number per data set."""
    rng = np.random.default_rng(seed)
    parts = []
    for dataset, n in ({"simulation": 30, "sdss": 2} if frames is None else frames).items():
        truths = {f"{dataset}-{i}": truth(rng) for i in range(n)}
        measurers = {
            "pnet": Noisy(truths, rng, **{"scatter": 1.5, **options}),
            "sextractor": Noisy(truths, rng, scatter=3.0, loss=0.1, offset=0.08, bars=0),
        }
        parts.append(measurements.evaluate(source(truths), measurers, dataset))
    result = pd.concat(parts, ignore_index=True)
    known = result["limit_mag"].notna()
    result.loc[known, ["limit_mag", "limit_x", "limit_y"]] = LIMIT
    return result
