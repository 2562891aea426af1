"""Classical measurements of the same frames: SExtractor, SEP where it is not installed, SExtractor + PSFEx, photutils.

All are measurers: they take a `Frame` and return a table of detections. Their confidence is the
integrated signal-to-noise ratio r squeezed into (0, 1) as r / (r + 5): rising with significance,
0.5 for a 5 sigma detection. It only orders detections for precision-recall curves; at their working
point all of their detections count, since the detection threshold was their decision.
"""

from collections.abc import Iterable

from pnet.evaluation.baselines.common import PER_FRAME, confidence_of, remove_offset
from pnet.evaluation.baselines.photutils_psf import Photutils
from pnet.evaluation.baselines.psfex import PSFEx, find_psfex
from pnet.evaluation.baselines.sep import Sep
from pnet.evaluation.baselines.sextractor import PROGRAMS, SExtractor, find_sextractor
from studies.tuning import tuned

__all__ = [
    "PER_FRAME",
    "PROGRAMS",
    "PSFEx",
    "Photutils",
    "SExtractor",
    "Sep",
    "available",
    "baseline",
    "chosen",
    "confidence_of",
    "find_psfex",
    "find_sextractor",
    "named",
    "remove_offset",
    "tuned",
]


def baseline() -> SExtractor | Sep:
    """Return SExtractor where it is installed, else SEP, with the settings chosen for it; `.name` tells which."""
    return tuned("sextractor" if find_sextractor() else "sep")


def available() -> tuple[str, ...]:
    """Return the names of the baselines that this machine can run; SEP only where SExtractor is missing."""
    if not find_sextractor():
        return ("sep", "photutils")
    return ("sextractor", "sextractor_default", *(("psfex",) if find_psfex() else ()), "photutils")


def named(name: str) -> SExtractor | Sep | PSFEx | Photutils:
    """Return a baseline with the settings chosen for it, or SExtractor with its own ('sextractor_default')."""
    return SExtractor(name=name) if name == "sextractor_default" else tuned(name)


def chosen(names: Iterable[str]) -> dict[str, SExtractor | Sep | PSFEx | Photutils]:
    """Return baselines by name.

    Parameters
    ----------
    names : iterable of str
        Of methods; "baseline" is that of `baseline`, "baselines" are all that are `available`; 'pnet' is passed over.
    """
    wanted: dict[str, None] = {}
    for name in names:
        one = {"baseline": available()[:1], "baselines": available(), "pnet": ()}.get(name, (name,))
        wanted |= dict.fromkeys(one)
    return {name: named(name) for name in wanted}
