"""Choosing SDSS fields for the paper-scale manifest, by a stated rule, from the survey's own database."""

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from astropy import units
from astropy.coordinates import SkyCoord

from pnet.common import paths
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.sdss.field import FieldId
from pnet.sdss.manifest import Field, File, Manifest
from pnet.sky.catalogue import require

RELEASE = 17
COLUMNS = ("run", "camcol", "field", "ra", "dec")
SEPARATION = 0.3  # degrees; a field is 0.23° × 0.16°, so fields this far apart share no sky
LATITUDE = 30.0  # degrees; below it the Galaxy crowds the frames and few stars are isolated by 10 px

# One field of every ten keeps the answer below SkyServer's limits and never takes two neighbours. `quality` 3 is GOOD,
# `score` > 0.6 the survey's own limit of a good field, calibStatus bit 0 photometric, imageStatus 1 clear sky and no
# fault, and a large primary area means that photoObj's MODE and CLEAN hold for nearly every object.
SQL = """SELECT f.run, f.camcol, f.field, f.ra, f.dec
FROM Field AS f
WHERE f.rerun = 301
  AND f.quality = 3
  AND f.score > 0.6
  AND (f.calibStatus_g & 1) = 1
  AND f.imageStatus_g = 1
  AND f.primaryArea > 0.02
  AND f.field % 10 = 5
ORDER BY f.run, f.camcol, f.field"""

RULE = """Clean photometric primary fields of SDSS DR17, rerun 301: the query below, then galactic
latitude |b| >= {latitude:g} degrees. The six camera columns take turns; each turn takes, among the fields of
that column at least {separation:g} degrees from every field already taken, one of the runs taken least often
so far, and of those the field whose SHA-256 of 'run-camcol-field' is smallest. Splits are by run: the
SHA-256 of 'split-run' modulo 10 is 0 or 1 for test, 2 for val, else train."""


def skyserver(sql: str) -> pd.DataFrame:
    """Ask SkyServer (through astroquery) and return its answer; a MissingError if it does not give one."""
    from astroquery.sdss import SDSS  # slow to import, and only this needs it

    try:
        answer = SDSS.query_sql(sql, data_release=RELEASE, timeout=300, cache=False)
    except Exception as error:  # astroquery passes on whatever requests, astropy or the server came up with
        raise MissingError(
            f"SkyServer did not answer ({type(error).__name__}: {str(error)[:200]}); try `pnet sdss-manifest` again "
            "later, or work with the standard manifest: `pnet sdss-download`"
        ) from error
    return pd.DataFrame(columns=COLUMNS) if answer is None else answer.to_pandas()


def build_manifest(
    n_fields: int = 300,
    *,
    output: str | os.PathLike | None = None,
    name: str = "sdss-paper",
    overwrite: bool = False,
) -> Manifest:
    """Choose fields and write their manifest; hashes are locked when the files are downloaded first.

    The rule is in `SQL` and `RULE` of this module and goes into the manifest word for word. It depends on nothing but
    the database's answer: the same answer, in any order of rows, gives the same manifest. The paper does not say how
    many fields it used. 94-1-12 holds 66 stars that count, so 300 fields hold about 20,000.

    `output` is ``data_manifests/<name>.yml`` by default; only with `overwrite` an existing one is replaced.

    Raises
    ------
    ConfigError, DataError, MissingError
        If `n_fields` is more than the rule can give, or the output exists; if the answer of the database is not as
        expected; if there is none.
    """
    output = Path(output) if output is not None else paths.MANIFESTS / f"{name}.yml"
    if output.exists() and not overwrite:
        raise ConfigError(f"{output} exists, and may have locked hashes; give another name or say overwrite")
    chosen = choose(_checked(skyserver(SQL)), n_fields)
    rule = RULE.format(latitude=LATITUDE, separation=SEPARATION).replace("\n", " ")
    fields = (_field(*row) for row in chosen[["run", "camcol", "field"]].to_numpy().tolist())
    manifest = Manifest(name, rule, tuple(fields), query=SQL)
    manifest.save(output)
    return manifest


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    """Return the candidates sorted, without repetitions; raise DataError if the table is not as expected."""
    require(table, COLUMNS, "the database's answer")
    table = table[list(COLUMNS)].apply(pd.to_numeric, errors="coerce")
    if not np.isfinite(table.to_numpy(dtype=float)).all():
        raise DataError("the database's answer holds values that are not numbers")
    if not (table["camcol"].between(1, 6).all() and (table[["run", "field"]] > 0).all(axis=None)):
        raise DataError("the database's answer: camera columns are 1 to 6, runs and fields positive; it holds others")
    key = ["run", "camcol", "field"]
    return table.astype(dict.fromkeys(key, int)).drop_duplicates(key).sort_values(key, ignore_index=True)


def choose(candidates: pd.DataFrame, n_fields: int) -> pd.DataFrame:
    """Choose `n_fields` of the candidates (columns run, camcol, field, ra, dec in degrees) by `RULE`; the chosen rows
    are in the order of run, camcol, field. A ConfigError if there are not enough."""
    sky = SkyCoord(candidates["ra"].to_numpy(float) * units.deg, candidates["dec"].to_numpy(float) * units.deg)
    high = np.abs(sky.galactic.b.deg) >= LATITUDE
    candidates, vectors = candidates[high].reset_index(drop=True), sky[high].cartesian.xyz.value.T
    keys = np.array([_digest(f"{run}-{c}-{f}") for run, c, f in candidates[["run", "camcol", "field"]].to_numpy()])
    runs, camcols = candidates["run"].to_numpy(), candidates["camcol"].to_numpy()
    free = {camcol: [n for n in np.argsort(keys) if camcols[n] == camcol] for camcol in range(1, 7)}
    often: Counter[int] = Counter()
    chosen: list[int] = []
    while len(chosen) < n_fields and any(free.values()):
        for camcol in range(1, 7):
            if len(chosen) == n_fields or not free[camcol]:
                continue
            pick = min(free[camcol], key=lambda n: (often[runs[n]], keys[n]))
            chosen.append(pick)
            often[runs[pick]] += 1
            near = vectors @ vectors[pick] > np.cos(np.deg2rad(SEPARATION))  # itself among them
            free = {column: [n for n in rest if not near[n]] for column, rest in free.items()}
    if len(chosen) < n_fields:
        raise ConfigError(f"n_fields is {n_fields}, but the rule gives only {len(chosen)} fields")
    return candidates.iloc[sorted(chosen)].reset_index(drop=True)


def _field(run: int, camcol: int, field: int) -> Field:
    """Return a field with its files, none of whose hashes is known yet."""
    where, last = FieldId(run, camcol, field, "g").server_path, int(_digest(f"split-{run}"), 16) % 10
    files = (
        *(File("frame-g", where("frame")), File("photoObj", where("photoObj"))),
        *(File("psField", where("psField"), required=False), File("fpM-g", where("fpM"), required=False)),
    )
    split = "test" if last < 2 else "val" if last == 2 else "train"
    return Field(run, camcol, field, files, split=split, group=f"run-{run}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
