"""Choosing fields for the paper-scale manifest, with made-up answers of the database."""

import sys
from collections import Counter
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.sdss import query as sdss_query
from pnet.sdss.manifest import Manifest


@pytest.fixture
def answer(rng) -> pd.DataFrame:
    """Fields of 30 runs, a strip of sky each, in all camera columns; some at low galactic latitude."""
    rows = []
    for number in range(30):
        run = 100 + 37 * number
        for camcol in range(1, 7):
            for step in range(8):
                ra = 120 + 15 * step + rng.uniform(0, 5)
                rows.append((run, camcol, 15 + 10 * step, ra, -10 + 2.2 * number + 0.21 * camcol))
    return pd.DataFrame(rows, columns=list(sdss_query.COLUMNS))


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A function that builds a manifest of n fields from an answer."""

    def build(answer, n, **options):
        monkeypatch.setattr(sdss_query, "skyserver", lambda sql: answer)
        return sdss_query.build_manifest(n, output=tmp_path / "m.yml", **options)

    return build


def test_manifest(tmp_path, build, answer):
    manifest = build(answer, 60)
    assert len(manifest.fields) == 60
    again = Manifest.load(tmp_path / "m.yml")
    assert again.fields == manifest.fields and "galactic latitude" in again.rule
    for word in ("rerun = 301", "quality = 3", "calibStatus_g", "imageStatus_g", "primaryArea"):
        assert word in again.query, "the query is on record"
    assert all(file.sha256 is None for file in again.files()), "nobody has seen these files yet"
    first = manifest.fields[0]
    assert [file.role for file in first.files] == ["frame-g", "photoObj", "psField", "fpM-g"]
    assert [file.required for file in first.files] == [True, True, False, False]
    assert first.file("frame-g").path == (
        f"dr17/eboss/photoObj/frames/301/{first.run}/{first.camcol}/"
        f"frame-g-{first.run:06d}-{first.camcol}-{first.field:04d}.fits.bz2"
    )


def test_spread_over_runs_columns_and_sky(build, answer):
    manifest = build(answer, 60)
    assert set(Counter(entry.camcol for entry in manifest.fields).values()) == {10}
    runs = Counter(entry.run for entry in manifest.fields)
    assert len(runs) >= 28 and max(runs.values()) <= 3
    where = answer.set_index(["run", "camcol", "field"])
    chosen = where.loc[[(entry.run, entry.camcol, entry.field) for entry in manifest.fields]]
    all_, sky = (SkyCoord(rows["ra"].to_numpy(), rows["dec"].to_numpy(), unit="deg") for rows in (answer, chosen))
    assert (np.abs(sky.galactic.b.deg) >= 30).all() and (np.abs(all_.galactic.b.deg) < 30).any()
    _, nearest, _ = sky.match_to_catalog_sky(sky, nthneighbor=2)
    assert nearest.min().deg >= 0.3
    sides = {(entry.run, entry.split) for entry in manifest.fields}
    assert len(sides) == len(runs) and {"train", "test"} <= {split for _, split in sides}, "splits are by run"
    assert all(entry.group == f"run-{entry.run}" for entry in manifest.fields)


def test_order_and_number_change_nothing(build, answer):
    first = build(answer, 40)
    shuffled = pd.concat([answer, answer.head(50)]).sample(frac=1, random_state=3)
    assert build(shuffled, 40, overwrite=True).fields == first.fields
    more = {entry.name for entry in build(answer, 60, overwrite=True).fields}
    assert {entry.name for entry in first.fields} < more
    with pytest.raises(ConfigError, match="exists"):
        build(answer, 6)


def test_more_than_there_are(tmp_path, build, answer):
    for n, known, given in ((5000, answer, ""), (1, answer.head(0), "0")):
        with pytest.raises(ConfigError, match=f"the rule gives only {given}"):
            build(known, n)
    assert not (tmp_path / "m.yml").exists()


def test_strange_answers(build, answer):
    with pytest.raises(DataError, match="answer: .*camcol missing"):
        build(answer.drop(columns="camcol"), 5)
    with pytest.raises(DataError, match="not numbers"):
        build(answer.astype({"ra": object}).replace({"ra": {answer["ra"][0]: "–"}}), 5)
    with pytest.raises(DataError, match="columns are 1 to 6"):
        build(answer.assign(camcol=7), 5)


def test_skyserver_goes_through_astroquery(monkeypatch):
    """The real call, with astroquery's function replaced: what is asked, and what happens when it fails."""
    row = Table({"run": [94], "camcol": [1], "field": [15], "ra": [10.0], "dec": [0.0]})
    query = mock.Mock(side_effect=[row, None, ConnectionError("no route")])
    module = mock.Mock(SDSS=mock.Mock(query_sql=query))
    monkeypatch.setitem(sys.modules, "astroquery.sdss", module)
    assert sdss_query.skyserver("SELECT 1")["run"].tolist() == [94]
    assert query.call_args.args == ("SELECT 1",) and query.call_args.kwargs["data_release"] == 17
    assert len(sdss_query.skyserver("SELECT 1")) == 0
    with pytest.raises(MissingError, match="SkyServer did not answer .*no route.*pnet sdss-manifest"):
        sdss_query.skyserver("SELECT 1")
