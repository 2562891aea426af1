"""What a user and the header of an image say of it, under the names that cameras and programs use."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from pnet.common.errors import ConfigError, DataError

# In order of preference: cameras with a CMOS sensor write their setting as GAIN and electrons per ADU as EGAIN.
KEYWORDS = {
    "gain": ("EGAIN", "CCDGAIN", "ESO DET OUT1 CONAD", "GAIN"),
    "read_noise": ("RDNOISE", "READNOIS", "ENOISE", "RON", "ESO DET OUT1 RON"),
    "saturation": ("SATURATE", "SATLEVEL", "DATAMAX"),
    "zero_point": ("MAGZERO", "MAGZP", "MAGZPT", "ZEROPNT", "PHOTZP", "ZP"),
    "pixel_scale": ("PIXSCALE", "SECPIX", "PIXSCAL1", "SECPIX1"),
    "exposure": ("EXPTIME", "EXPOSURE", "ITIME"),
    "pedestal": ("PEDESTAL", "SOFTBIAS"),
    "seeing": ("SEEING", "PSF_FWHM", "FWHM", "PFWHM"),
    "exposures": ("NCOMBINE", "STACKCNT", "NSTACK"),
}
RANGES = {"zero_point": (1e-9, 60), "read_noise": (0, math.inf)}  # of header cards; the others are positive
PER_SECOND = re.compile(r"(/ ?s(ec)?(ond)?s?|[ .*]s(\^|\*\*)?-1|\bper (s|sec|second)|^cps)\b", re.IGNORECASE)
PIXINSIGHT = re.compile(r"ImageIntegration\.numberOfImages: (\d+)")  # its count of exposures, in HISTORY cards
UNITS = {"e": "electron", "el": "electron", "nanomaggies": "nanomaggy", "nmgy": "nanomaggy"}
UNITS |= dict.fromkeys(("adu", "adus", "count", "counts", "ct", "cts", "cps", "dn", "dns"), "adu")


def _option(help: str) -> Any:
    return field(default=None, metadata={"help": help})


@dataclass(frozen=True)
class Given:
    """What a user says of an image: it comes before the header and before any estimate; a ConfigError if it cannot
    be."""

    gain: float | None = _option("Electrons per ADU.")
    read_noise: float | None = _option("Electrons rms.")
    saturation: float | None = _option("Pixel value, in the image's own unit, from which on a pixel is saturated.")
    zero_point: float | None = _option("AB magnitude of one unit of the image.")
    pixel_scale: float | None = _option("Arcseconds per pixel.")
    mask: Path | None = _option("FITS file of the image's shape, not 0 where a pixel is bad.")

    def __post_init__(self):
        for name in (each.name for each in fields(self) if each.name != "mask"):
            value, low = getattr(self, name), {"zero_point": -math.inf, "read_noise": 0}.get(name, 1e-300)
            if value is not None and not (math.isfinite(value) and value >= low):
                allowed = {"zero_point": "finite", "read_noise": "0 or positive"}.get(name, "positive")
                raise ConfigError(f"--{name.replace('_', '-')} is {value}, it must be {allowed}")


class Value(NamedTuple):
    """A number, where it is from and what its card says of it; None where nothing tells."""

    number: float | None
    source: str = ""
    comment: str = ""

    @property
    def per_second(self) -> bool:
        """Whether the card speaks of a second, as ``MAGZP = 24.2 / mag of 1 ADU/s`` does."""
        return PER_SECOND.search(self.comment) is not None


@dataclass
class Told:
    """What is told of an image by `given` and by its `headers`, its own first and then the file's.

    `values` gathers what was taken for true: name → number, unit and source.
    """

    headers: Sequence[Any]
    given: Given
    values: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> Value:
        """Return a value of `KEYWORDS`. Cards out of range are passed over: programs fill in what they do not know."""
        if getattr(self.given, name, None) is not None:
            return Value(getattr(self.given, name), f"option --{name.replace('_', '-')}")
        low, high = RANGES.get(name, (1e-300, math.inf))
        for header in self.headers:
            for keyword in (each for each in KEYWORDS[name] if each in header):
                try:
                    number = float(header[keyword])
                except (TypeError, ValueError):
                    continue
                number = abs(number) if name == "pedestal" else number  # as added, or as what must be added
                if low <= number <= high and math.isfinite(number):
                    return Value(number, f"header {keyword}", header.comments[keyword])
        counts = (
            PIXINSIGHT.findall(" ".join(map(str, self.headers[0].get("HISTORY", ())))) if name == "exposures" else ()
        )
        return Value(float(counts[-1]), "header HISTORY") if counts else Value(None)

    def take(self, name: str, value: Value, unit: str = "") -> float:
        """Write a value down in `values` and return its number."""
        self.values[name] = f"{value.number:.6g}{unit and ' '}{unit} ({value.source})"
        return value.number

    def unit(self) -> tuple[str, bool]:
        """Return what pixels count, 'adu', 'electron', 'nanomaggy' or 'other', and whether per second; from BUNIT.

        A DataError if they hold magnitudes.
        """
        texts = (str(header.get(key, "")).strip() for header in self.headers for key in ("BUNIT", "BUNITS"))
        text = next(filter(None, texts), "")
        base = PER_SECOND.sub("", text).strip(" -.*()").lower() or "adu"
        if base.startswith("mag"):
            raise DataError(f"holds magnitudes (BUNIT {text!r}); an image that is linear in the light is needed")
        kind = UNITS.get(base, "electron" if base.startswith(("elec", "photoelec")) else base)
        kind = kind if kind in UNITS.values() else "other"
        rate = PER_SECOND.search(text) is not None
        self.values["unit"] = f"{kind}{'/s' * rate} ({f'header BUNIT {text!r}' if text else 'default'})"
        return kind, rate
