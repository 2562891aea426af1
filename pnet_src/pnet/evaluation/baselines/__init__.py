"""Classical measurements of the same frames: SExtractor, SEP where it is not installed, SExtractor + PSFEx, photutils.

All are measurers: they take a `Frame` and return a table of detections. Their confidence is the
integrated signal-to-noise ratio r squeezed into (0, 1) as r / (r + 5): rising with significance,
0.5 for a 5 sigma detection. It only orders detections for precision-recall curves; at their working
point all of their detections count, since the detection threshold was their decision.

Their settings were chosen on frames that nothing is reported on (`studies.tuning`) and lie in
``data_manifests/baselines.yml``.
"""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from pnet.common import paths
from pnet.common.errors import ConfigError, DataError
from pnet.common.files import read_manifest
from pnet.evaluation.baselines.common import PSFEX, SEXTRACTOR, Baseline
from pnet.evaluation.baselines.photutils_psf import Photutils
from pnet.evaluation.baselines.sextractor import PSFEx, Sep, SExtractor

CLASSES = {"sextractor": SExtractor, "sep": Sep, "psfex": PSFEx, "photutils": Photutils}
SETTINGS = paths.MANIFESTS / "baselines.yml"


@lru_cache(maxsize=8)
def settings(name: str, path: Path = SETTINGS) -> dict[str, float]:
    """Return the settings chosen for a method.

    A ConfigError for a method without settings; MissingError or DataError if the file is missing, or is not what
    `studies.tuning` writes.
    """
    if name not in CLASSES:
        raise ConfigError(f"method is {name!r}, allowed are {', '.join(CLASSES)}")
    try:
        return {key: float(value) for key, value in dict(read_manifest(path)[name]["chosen"]).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: no settings of {name} in it; `python -m studies tune-baseline {name}`") from error


def available() -> tuple[str, ...]:
    """Return the names of the baselines that this machine can run; SEP only where SExtractor is missing."""
    if not SEXTRACTOR.find():
        return ("sep", "photutils")
    return ("sextractor", "sextractor_default", *(("psfex",) if PSFEX.find() else ()), "photutils")


def named(name: str) -> Baseline:
    """Return a baseline with the settings chosen for it, or SExtractor with its own ('sextractor_default').

    SEP, which has SExtractor's algorithms, takes its threshold.
    """
    if name == "sextractor_default":
        return SExtractor(name=name)
    if name == "sep":
        return Sep(threshold=settings("sextractor")["threshold"])
    chosen = settings(name)
    return CLASSES[name](**chosen)


def chosen(names: Iterable[str]) -> dict[str, Baseline]:
    """Return baselines by name.

    "baseline" is SExtractor where it is installed, else SEP, "baselines" are all that are `available`.
    """
    groups = {"baseline": available()[:1], "baselines": available()}
    return {method: named(method) for name in names for method in groups.get(name, (name,))}
