"""Writers of small files shaped like SDSS's own, for tests: frame, psField, fpM, photoObj, and a whole field."""

import bz2
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.wcs import WCS
from scipy.special import erf

from pnet.sdss.field import BANDS, FieldId

BINNED1, BRIGHT, EDGE, PEAKCENTER, SATUR, NOTCHECKED = 1 << 28, 1 << 1, 1 << 2, 1 << 5, 1 << 18, 1 << 19
MASKS = ("INTERP", "SATUR", "NOTCHECKED", "OBJECT", "BRIGHTOBJECT", "BINOBJECT", "CATOBJECT", "SUBTRACTED")
MASKS += ("GHOST", "CR")
PIXEL = 0.396  # arcsec


def write_hdus(path: Path, hdus: list, compress: bool = False) -> Path:
    """Write HDUs, with bzip2 if asked for, and return the path."""
    stream = io.BytesIO()
    fits.HDUList(hdus).writeto(stream)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bz2.compress(stream.getvalue()) if compress else stream.getvalue())
    return path


def table(columns: dict[str, tuple]) -> fits.BinTableHDU:
    """Return a table of columns, name → format and rows, each row of which may be an array."""
    made = []
    for name, (form, rows) in columns.items():
        rows = np.asarray(rows)
        dim = str(rows.shape[:0:-1]).replace(" ", "") if rows.ndim > 2 else None
        made.append(fits.Column(name, form, dim=dim, array=rows))
    return fits.BinTableHDU.from_columns(made)


def varying(rows: list[np.ndarray]) -> np.ndarray:
    """Return rows of unequal lengths as a column of a table holds them."""
    packed = np.empty(len(rows), dtype=object)
    packed[:] = rows
    return packed


def primary(identity: FieldId, **cards) -> fits.PrimaryHDU:
    """Return the first HDU of a field's file, without an image."""
    names = {"RUN": identity.run, "CAMCOL": identity.camcol, "FIELD": identity.field}
    return fits.PrimaryHDU(header=fits.Header(names | cards))


def write_frame(
    path: Path,
    nanomaggies: np.ndarray,
    calibration: np.ndarray,
    sky: np.ndarray,
    identity: FieldId,
    *,
    xinterp: np.ndarray | None = None,
    compress: bool = True,
) -> Path:
    """Write a corrected frame of airmass 1.2; `sky` is the coarse sky in counts, interpolated over the image by
    default."""
    height, width = nanomaggies.shape
    xinterp = np.linspace(-0.4, sky.shape[1] - 0.6, width) if xinterp is None else xinterp
    yinterp = np.linspace(-0.4, sky.shape[0] - 0.6, height)
    cards = {"ORIGIN": "SDSS", "FILTER": identity.band, "DATE-OBS": "19/09/98", "RADECSYS": "ICRS"}
    cards |= {"FRAME": identity.field + 8, "EXPTIME": "53.907456"}  # in real g frames: not the field; a string
    cards |= {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg"}
    cards |= {"CRPIX1": width / 2 + 1.0, "CRPIX2": height / 2 + 1.0, "CRVAL1": 150.0, "CRVAL2": 2.0}
    cards |= {"CD1_1": 0.0, "CD1_2": PIXEL / 3600, "CD2_1": PIXEL / 3600, "CD2_2": 0.0}
    image = fits.PrimaryHDU(np.asarray(nanomaggies, ">f4"), primary(identity, **cards).header)
    del image.header["FIELD"]
    coarse = {"ALLSKY": (f"{sky.size}E", [sky]), "XINTERP": (f"{len(xinterp)}E", [xinterp])}
    coarse["YINTERP"] = f"{len(yinterp)}E", [yinterp]
    astrans = {"RUN": ("J", [identity.run]), "RERUN": ("3A", ["301"]), "CAMCOL": ("J", [identity.camcol])}
    astrans |= {"FILTER": ("1A", [identity.band]), "FIELD": ("J", [identity.field]), "AIRMASS": ("D", [1.2])}
    hdus = [image, fits.ImageHDU(np.asarray(calibration, ">f4")), table(coarse), table(astrans)]
    return write_hdus(path, hdus, compress)


def spread(size: int, centre: float, sigma: float) -> np.ndarray:
    """Return a pixel-integrated Gaussian of sum 1 along one axis."""
    return np.diff(erf((np.arange(size + 1) - 0.5 - centre) / (np.sqrt(2) * sigma))) / 2


def gaussian_psf(sigma: float, size: int = 51) -> np.ndarray:
    """Return a pixel-integrated Gaussian of sum 1, centred."""
    line = spread(size, size // 2, sigma)
    return np.outer(line, line) / line.sum() ** 2


def write_psfield(
    path: Path,
    identity: FieldId,
    *,
    images: np.ndarray | None = None,
    coefficients: np.ndarray | None = None,
    gain: float = 4.0,
    dark_variance: float = 1.5,
    sigma: float = 1.5,
) -> Path:
    """Write a psField; `images` (K, 51, 51), `coefficients` (K, R, C) of every band."""
    images = gaussian_psf(sigma)[None] if images is None else images
    count, *sides = images.shape
    coefficients = np.ones((count, 1, 1)) if coefficients is None else coefficients
    rows, columns = coefficients.shape[1:]
    full = np.full((count, 5, 5), 7.7)  # outside its corner a real file holds whatever was in memory
    full[:, :rows, :columns] = coefficients
    numbers = {"nrow_b": rows, "ncol_b": columns, "RNROW": sides[0], "RNCOL": sides[1]}
    eigen = {name: ("1J", [number] * count) for name, number in numbers.items()} | {"c": ("25E", full)}
    eigen["RROWS"] = "PE()", varying([image.ravel().astype(">f4") for image in images])
    summary = {"gain": ("5E", [np.full(5, gain)]), "dark_variance": ("5E", [np.full(5, dark_variance)])}
    return write_hdus(path, [primary(identity), *(table(eigen) for _ in BANDS), table(summary)])


def write_fpm(path: Path, identity: FieldId, shape: tuple[int, int], spans: dict[str, list]) -> Path:
    """Write an fpM; `spans` maps a mask type to a list of objects, each a list of (row, first, last)."""
    hdus = [primary(identity, MASKROWS=shape[0], MASKCOLS=shape[1])]
    for kind in MASKS:
        objects = spans.get(kind, [])
        packed = varying([np.array(runs, dtype=">u2").view(np.uint8).ravel() for runs in objects])
        hdus.append(table({"nspan": ("1J", [len(runs) for runs in objects]), "s": ("PB()", packed)}))
    names = [f"S_MASK_{kind}" for kind in MASKS] + ["S_NMASK_TYPES"]
    listed = {"defName": ("31A", ["S_MASKTYPE"] * len(names)), "attributeName": ("31A", names)}
    return write_hdus(path, [*hdus, table(listed | {"Value": ("1J", range(len(names)))})])


def write_photoobj(path: Path, identity: FieldId, objects: pd.DataFrame) -> Path:
    """Write a photoObj file.

    `objects` has x, y (px from 0, in the band of `identity`) and nmgy; optional columns with their defaults: type 6,
    flags BINNED1, objc_flags 0, nchild 0, mode 1, clean 1, cmodel (= nmgy), ra 150, dec 2.
    """
    n = len(objects)

    def get(name: str, default: float) -> np.ndarray:
        return np.asarray(objects[name]) if name in objects else np.full(n, default)

    def five(values: np.ndarray, elsewhere: float, dtype: str = ">f4") -> np.ndarray:
        result = np.full((n, 5), elsewhere, dtype=dtype)
        result[:, BANDS.index(identity.band)] = values
        return result

    nmgy = get("nmgy", 1.0)
    columns = {"OBJID": ("19A", [f"12376{identity.run:06d}{identity.field:04d}{k:04d}" for k in range(n)])}
    own = {"RUN": ("I", identity.run), "CAMCOL": ("B", identity.camcol), "FIELD": ("I", identity.field)}
    columns |= {name: (form, np.full(n, value)) for name, (form, value) in own.items()}
    columns |= {"MODE": ("B", get("mode", 1)), "CLEAN": ("B", get("clean", 1)), "NCHILD": ("I", get("nchild", 0))}
    columns |= {"OBJC_TYPE": ("J", get("type", 6)), "OBJC_FLAGS": ("J", get("objc_flags", 0))}
    columns |= {"FLAGS": ("5J", five(get("flags", BINNED1), 0, ">i4"))}
    # other bands hold other positions: taking those of r must fail a test
    columns |= {"ROWC": ("5E", five(get("y", 0.0) + 0.5, -77.0)), "COLC": ("5E", five(get("x", 0.0) + 0.5, -77.0))}
    columns |= {"PSFFLUX": ("5E", five(nmgy, 1e5)), "CMODELFLUX": ("5E", five(objects.get("cmodel", nmgy), 1e5))}
    columns |= {"PSFMAGERR": ("5E", five(0.02, 9.0)), "RA": ("D", get("ra", 150.0)), "DEC": ("D", get("dec", 2.0))}
    return write_hdus(path, [fits.PrimaryHDU(), table(columns)])


def write_field(
    root: Path, rng: np.random.Generator, *, run: int = 1234, camcol: int = 3, field: int = 56, stars: int = 30
) -> SimpleNamespace:
    """Write a whole field into a ``sas`` tree below `root`, Gaussian stars on a grid, so that all are isolated; return
    its identity, paths (frame, photoObj, psField, fpM) and objects (x, y, nmgy, type)."""
    identity, shape = FieldId(run, camcol, field, "g"), (512, 640)
    gain, dark, sky, sigma = 3.845, 1.3225, 90.0, 1.6
    height, width = shape
    calibration = 0.0037 * (1 + 0.01 * np.sin(np.arange(width) / 40.0))
    grid = np.array([(x, y) for y in range(40, height - 20, 45) for x in range(40, width - 20, 45)], float)
    x, y = (rng.permutation(grid)[:stars] + rng.uniform(-0.5, 0.5, (stars, 2))).T
    nmgy = 10 ** (0.4 * (22.5 - rng.uniform(15.0, 20.0, stars)))
    light = [np.outer(spread(height, py, sigma), spread(width, px, sigma)) for px, py in zip(x, y, strict=True)]
    counts = np.tensordot(nmgy, light, 1) / calibration + sky
    counts = rng.poisson(counts * gain) / gain + rng.normal(0, np.sqrt(dark), shape)
    where = {role: root / identity.server_path(role) for role in ("frame", "photoObj", "psField", "fpM")}
    write_frame(where["frame"], (counts - sky) * calibration, calibration, np.full((12, 16), sky), identity)
    write_psfield(where["psField"], identity, gain=gain, dark_variance=dark, sigma=sigma)
    write_fpm(where["fpM"], identity, shape, {"INTERP": [[(r, 5, 6) for r in range(height)]]})
    objects = pd.DataFrame({"x": x, "y": y, "nmgy": nmgy, "type": 6})
    write_photoobj(where["photoObj"], identity, objects)
    return SimpleNamespace(identity=identity, paths=where, objects=objects)


def wcs() -> WCS:
    result = WCS(naxis=2)
    result.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    result.wcs.crval, result.wcs.crpix = [336.6, -0.9], [250.5, 200.5]
    result.wcs.cd = np.array([[0, 1.1e-4], [1.1e-4, 0]])
    return result


def real(shared: Path) -> dict[str, Path]:
    """Return the files of field 94-1-12 by role."""
    identity = FieldId(94, 1, 12, "g")
    return {role: shared / "sdss/sas" / identity.server_path(role) for role in ("frame", "psField", "fpM", "photoObj")}
