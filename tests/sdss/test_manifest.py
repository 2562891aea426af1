"""Manifests of SDSS data: what they hold, and what they refuse."""

import csv
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pnet.common import paths
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import read_manifest
from pnet.sdss.manifest import Field, File, Manifest


@given(st.data())
def test_any_manifest_survives_a_round_trip(data):
    file = st.builds(
        File,
        st.sampled_from(["frame-g", "photoObj"]),
        st.from_regex(r"[a-z0-9]{1,9}/[a-z0-9]{1,9}\.fits", fullmatch=True),
        st.none() | st.integers(1, 10**9),
        st.none() | st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        st.booleans(),
    )
    number, text = st.integers(1, 9999), st.text(st.characters(categories=("L", "N", "P", "S")))
    field = st.builds(Field, number, st.integers(1, 6), number, st.lists(file, max_size=3).map(tuple), note=text)
    fields = data.draw(st.lists(field, max_size=3, unique_by=lambda entry: entry.name).map(tuple))
    with tempfile.TemporaryDirectory() as folder:
        manifest = Manifest("m", data.draw(text), fields)
        again = Manifest.load(manifest.save(Path(folder) / "m.yml"))
    assert again == replace(manifest, source=again.source)


def test_unknown_name_lists_those_there_are():
    with pytest.raises(MissingError, match="known: .*sdss-standard"):
        Manifest.load("sdss-nothing")


FIELD = {"run": 1, "camcol": 1, "field": 1, "files": []}


def of_file(path, **more):
    return {"fields": [FIELD | {"files": [{"role": "frame-g", "path": path, **more}]}]}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"fields": None}, "a list named fields"),
        ({"colour": "red"}, "argument 'colour'"),
        ({"fields": [FIELD | {"camera": 3}]}, "camera"),
        ({"fields": [FIELD | {"run": 0}]}, "run is 0"),
        ({"fields": [FIELD | {"split": "exam"}]}, "split is 'exam'"),
        ({"fields": [FIELD] * 2}, "listed twice: 1-1-1"),
        ({"fields": [FIELD | {"group": "sky"}, FIELD | {"run": 2, "group": "sky", "split": "val"}]}, "a split: sky"),
        *((of_file(path), "relative path") for path in ("/etc/passwd", "../x.fits", "a/../../x", "")),
        (of_file("a", bytes=3, sha256="abc"), "64 hexadecimal"),
    ],
)
def test_what_is_not_allowed(tmp_path, change, words):
    path = tmp_path / "m.yml"
    path.write_text(yaml.safe_dump({"name": "m", "rule": "for tests", "fields": [FIELD], **change}))
    with pytest.raises(ConfigError, match=words):
        Manifest.load(path)


@pytest.mark.parametrize("content", [b"fields: [", b"\xff\xfe"])
def test_no_yaml(tmp_path, content):
    path = tmp_path / "m.yml"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not YAML"):
        Manifest.load(path)


def test_standard_is_complete():
    manifest = Manifest.load("sdss-standard")
    assert len(manifest.fields) == 17
    assert all(entry.file("frame-g") is not None for entry in manifest.fields)
    roles = [file.role for file in manifest.field("94-1-12").files]
    assert roles == ["frame-g", "photoObj", "psField", "fpM-g", "photoField"]
    assert all(file.sha256 and file.bytes for file in manifest.files()), "only fields whose bytes somebody has seen"
    pair = {manifest.field(name).group for name in ("2989-5-22", "6752-5-48")}
    assert len(pair) == 1, "they overlap"


def test_the_bulge_series_is_split_by_night_and_its_bytes_are_those_beside_the_project(shared):
    nights = read_manifest(paths.MANIFESTS / "bulge-series.yml")["nights"]
    dates, splits = zip(*((night["night"], night["split"]) for night in nights), strict=True)
    assert sorted(set(dates)) == list(dates) and list(splits) == ["val"] * 6 + ["test"] * 13
    rows = csv.DictReader((shared / "other" / "MANIFEST.tsv").read_text().splitlines(), delimiter="\t")
    truth = {row["path"].removeprefix("other/"): (int(row["bytes"]), row["sha256"]) for row in rows}
    listed = {file["path"]: (file["bytes"], file["sha256"]) for night in nights for file in night["files"]}
    assert listed == {path: entry for path, entry in truth.items() if path.startswith("bulge_series/")}
