"""SExtractor's algorithms as a library, SEP (Barbary 2016): what stands in where the program is not installed."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import sep

from pnet.evaluation.baselines.common import Baseline, assemble
from pnet.evaluation.baselines.sextractor import PYRAMID
from pnet.frame import Frame
from pnet.sky import background

MIN_AREA = 5  # px; SExtractor's default
SEP_PIXELS = 1_000_000  # size of SEP's pixel stack: a 2048 x 1489 frame with a bright star fills the default


@dataclass(frozen=True)
class Sep(Baseline):
    """SExtractor's algorithms as a library (Barbary 2016), with the same settings as `SExtractor`.

    Kron fluxes stand for FLUX_AUTO and Gaussian-windowed centroids for XWIN, YWIN.
    """

    threshold: float = 1.5
    name: str = "sep"

    def __call__(self, frame: Frame) -> pd.DataFrame:
        """Measure a frame: x, y (px), confidence, flux (electrons), mag, mag_err."""
        sky = background.estimate(frame)
        image = np.ascontiguousarray(frame.image - sky.level)
        mask = frame.mask if frame.mask.any() else None
        sep.set_extract_pixstack(max(sep.get_extract_pixstack(), SEP_PIXELS))
        settings = {"err": sky.rms, "mask": mask, "minarea": MIN_AREA, "filter_kernel": PYRAMID, "gain": 1.0}
        found, segments = sep.extract(image, self.threshold, segmentation_map=True, **settings)
        shape = {"a": found["a"], "b": found["b"], "theta": np.clip(found["theta"], -np.pi / 2, np.pi / 2)}
        x, y = found["x"], found["y"]
        # the neighbours' pixels are left out, as MASK_TYPE does in SExtractor
        alone = {"mask": mask, "segmap": segments, "seg_id": np.arange(1, len(x) + 1, dtype=np.int32)}
        noise = {"err": sky.rms, "gain": 1.0, "subpix": 1}
        # FLUX_AUTO: an ellipse of 2.5 Kron radii, at least a circle of 3.5 px (PHOT_AUTOPARAMS 2.5, 3.5)
        kron, _ = sep.kron_radius(image, x, y, **shape, r=6.0, **alone)
        mean_axis = np.sqrt(shape["a"] * shape["b"])
        small = ~(2.5 * kron * mean_axis >= 3.5)
        radius = np.where(small, 3.5 / mean_axis, 2.5 * kron)
        flux, flux_err, _ = sep.sum_ellipse(image, x, y, **shape, r=radius, **noise, **alone)
        circle, circle_err, _ = sep.sum_circle(image, x, y, np.full(len(x), 3.5), **noise, **alone)
        flux, flux_err = np.where(small, circle, flux), np.where(small, circle_err, flux_err)
        # windowed centroid: the window's sigma follows from the half-light radius (SExtractor's manual, 2 r_50 / 2.35)
        half_light, _ = sep.flux_radius(image, x, y, 6.0 * found["a"], 0.5, normflux=flux, subpix=5, **alone)
        sigma = np.where(np.isfinite(half_light) & (half_light > 0), 2 / 2.35 * half_light, 1.0)
        x_win, y_win, _ = sep.winpos(image, x, y, sigma, mask=mask)
        good = np.isfinite(x_win) & np.isfinite(y_win) & (np.hypot(x_win - x, y_win - y) < 2)
        x, y = np.where(good, x_win, x), np.where(good, y_win, y)
        return assemble(frame, x=x, y=y, flux=flux, flux_err=flux_err)

    def version(self) -> str:
        """Return the library's name and version."""
        return f"SEP {sep.__version__}"
