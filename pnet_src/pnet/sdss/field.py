"""The identity of an SDSS field: its names, its files on the Science Archive Server, its band."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from astropy.io import fits

from pnet.common.errors import DataError
from pnet.common.fits_file import open_fits

BANDS = "ugriz"  # order of every five-element array in SDSS files

_FRAME_NAME = re.compile(r"frame-(?P<band>[ugriz])-(?P<run>\d{6})-(?P<camcol>[1-6])-(?P<field>\d{4})\.fits?(\.\w+)?$")


@dataclass(frozen=True)
class FieldId:
    """The identity of one SDSS image."""

    run: int
    camcol: int
    field: int
    band: str

    @property
    def name(self) -> str:
        """As in ``94-1-12-g``."""
        return f"{self.run}-{self.camcol}-{self.field}-{self.band}"

    def server_path(self, role: str) -> str:
        """Return where a file of this field lies below ``sas/`` of the Science Archive Server (DR17, rerun 301).

        `role` is 'frame', 'photoObj', 'psField' or 'fpM'. The sub-paths of the last two are inferred from
        earlier releases, since DR17's own documents do not show them.
        """
        run, camcol, field, band = self.run, self.camcol, self.field, self.band
        photo, redux = "dr17/eboss/photoObj", f"dr17/eboss/photo/redux/301/{run}/objcs/{camcol}"
        return {
            "frame": f"{photo}/frames/301/{run}/{camcol}/frame-{band}-{run:06d}-{camcol}-{field:04d}.fits.bz2",
            "photoObj": f"{photo}/301/{run}/{camcol}/photoObj-{run:06d}-{camcol}-{field:04d}.fits",
            "psField": f"{redux}/psField-{run:06d}-{camcol}-{field:04d}.fit",
            "fpM": f"{redux}/fpM-{run:06d}-{band}{camcol}-{field:04d}.fit",
        }[role]


def identify(path: str | os.PathLike, hdus: fits.HDUList | None = None) -> FieldId:
    """Tell which field and band a frame is.

    The file name decides; where it is not SDSS's own, the asTrans table (HDU 3) does; where neither tells, it is a
    DataError. The header's ``FRAME`` never does: it counts rows of the camera, so in g it is the field + 8.
    """
    match = _FRAME_NAME.search(Path(path).name)
    if match:
        return FieldId(int(match["run"]), int(match["camcol"]), int(match["field"]), match["band"])
    hdus = open_fits(path) if hdus is None else hdus
    try:
        row = hdus[3].data[0]
        return FieldId(int(row["RUN"]), int(row["CAMCOL"]), int(row["FIELD"]), str(row["FILTER"]).strip())
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: cannot tell run, camera column and field; name it like frame-g-000094-1-0012.fits.bz2 "
            "or keep the asTrans table in HDU 3"
        ) from error


def check_same_field(header: fits.Header, path: object, identity: FieldId) -> None:
    """Raise DataError if the header of a companion file names another run, camera column or field."""
    found = tuple(header.get(key) for key in ("RUN", "CAMCOL", "FIELD"))
    if found != (identity.run, identity.camcol, identity.field):
        raise DataError(f"{path}: belongs to {'-'.join(map(str, found))}, the frame is {identity.name}")
