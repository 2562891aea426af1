"""The SDSS data set of a run: made live, read back, replaced by the released one, and its figures."""

import numpy as np
import pandas as pd
import pytest
import sdss_files

from pnet.book import shown
from pnet.book.figures import frames as pictures
from pnet.common import paths
from pnet.common.errors import DataError, MissingError
from pnet.sdss import selection
from pnet.sdss.catalogue import load_field
from pnet.sdss.files import fetch
from pnet.sdss.manifest import Field, File, Manifest
from pnet.sky import patches


@pytest.fixture
def scenes(tmp_path, rng, monkeypatch):
    """Two fields in a mirror, and a manifest of them plus a frame without a catalogue."""
    mirror = tmp_path / "mirror" / "sas"
    monkeypatch.setenv("SDSS_MIRROR", str(mirror))
    monkeypatch.setenv("PNET_DATA", str(tmp_path / "data"))
    places = ((1234, 3, 60), (1300, 6, 20), (1400, 2, 5))
    written = [sdss_files.write_field(mirror, rng, run=run, camcol=camcol, stars=n) for run, camcol, n in places]
    fields = []
    for number, (scene, split) in enumerate(zip(written, ("test", "val", "train"), strict=True)):
        i, where = scene.identity, scene.identity.server_path
        files = [File("frame-g", where("frame"))]
        if number < 2:
            files += [File("photoObj", where("photoObj")), File("psField", where("psField"), required=False)]
        files.append(File("fpM-g", where("fpM") + ("" if number == 0 else ".none"), required=False))
        fields.append(Field(i.run, i.camcol, i.field, tuple(files), split=split))
    manifest = Manifest("sdss-made-up", "for tests", tuple(fields))
    manifest.save(tmp_path / "sdss-made-up.yml")
    return manifest, written


def test_live(scenes, tmp_path):
    manifest, written = scenes
    made = selection.make(manifest, tmp_path / "build", seed=7)
    assert made.report is not None
    assert made.table["frame"].unique().tolist() == ["1234-3-56-g", "1300-6-56-g"]
    assert made.table["counted"].sum() == 80, "a grid of isolated stars"
    for scene in written[:2]:
        rows = made.table[made.table["frame"] == scene.identity.name]
        truth = 22.5 - 2.5 * np.log10(scene.objects["nmgy"])
        np.testing.assert_allclose(np.sort(rows["mag"]), np.sort(truth), atol=1e-4)
    frames = made.frames.set_index("frame")
    assert frames["split"].tolist() == ["test", "val", "train"]
    np.testing.assert_allclose(frames["noise_ratio"], 1, atol=0.02)
    assert frames.loc["1234-3-56-g", "masked"] == pytest.approx(2 / 640)
    assert frames.loc["1300-6-56-g", "masked"] == 0
    check = frames.loc["1234-3-56-g", "zero_point_check"]
    assert abs(check["offset"]) < 4 * check["error"] + 0.003
    assert check["used"] + check["rejected"] == 60
    assert frames.loc["1300-6-56-g", "zero_point_check"] is None, "20 stars are too few for a fit"
    assert {entry["path"][-5:] for entry in made.record["missing"]} == {".none"}
    assert (made.record["seed"], made.record["manifest"]) == (7, "sdss-made-up")


def test_read_back_and_damage(scenes, tmp_path):
    made = selection.make(scenes[0], tmp_path / "build")
    read = selection.read(tmp_path / "build" / "sdss")
    pd.testing.assert_frame_equal(read.table, made.table)
    assert read.record == made.record and read.report is None
    table = tmp_path / "build" / "sdss" / selection.TABLE
    table.write_bytes(table.read_bytes()[:-1])
    with pytest.raises(DataError, match="not the table"):
        selection.read(tmp_path / "build" / "sdss")
    with pytest.raises(MissingError, match="pnet sdss-download"):
        selection.read(tmp_path)


def test_released_stands_in_where_nothing_can_be_had(scenes, tmp_path, monkeypatch):
    selection.make(scenes[0], tmp_path / "results")
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("SDSS_MIRROR", "http://127.0.0.1:9/sas")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PNET_DATA", str(tmp_path / "elsewhere"))
    found, notice = shown.sdss_selection(scenes[0], tmp_path / "build")
    assert found.report is None
    assert "Released result" in notice and "SDSS_MIRROR" in notice and "no connection" in notice
    assert found.record["commit"][:10] in notice and str(tmp_path) not in notice
    assert not (tmp_path / "build").exists()


def test_a_damaged_file_does_not_hide_behind_released_results(scenes, tmp_path):
    manifest, written = scenes
    photoobj = written[0].paths["photoObj"]
    frame = written[1].paths["photoObj"].read_bytes()
    photoobj.write_bytes(frame)  # a whole file, of another field
    with pytest.raises(DataError, match="has RUN 1300"):
        shown.sdss_selection(manifest, tmp_path / "build")
    assert not (tmp_path / "build" / "sdss" / selection.RECORD).exists()


def test_without_any_catalogue(scenes, tmp_path):
    manifest, _ = scenes
    bare = Manifest("bare", "", (manifest.fields[2],))
    bare.save(tmp_path / "bare.yml")
    with pytest.raises(DataError, match="no field has a photoObj"):
        selection.make(bare, tmp_path / "build")


def test_fields_one_at_a_time(scenes, tmp_path):
    report = fetch(scenes[0], progress=False)
    assert load_field(report, "1300-6-56")[1]["counted"].sum() == 20
    frame, table = load_field(report, "1400-2-56")
    assert frame.name == "1400-2-56-g" and table is None
    report.present, report.downloaded = [], []
    with pytest.raises(DataError, match="was not downloaded"):
        load_field(report, "1234-3-56")


def test_a_patch_is_drawn_with_its_objects(scenes):
    report = fetch(scenes[0], progress=False)
    frame, table = load_field(report, "1234-3-56")
    tile = patches.split(frame.shape)[-1]
    ax = pictures.patch(frame, table, tile).axes[0]
    assert ax.get_xlim() == (frame.shape[1] - 512.5, frame.shape[1] - 0.5) and ax.get_ylim() == (-0.5, 511.5)
    assert np.ma.getmaskarray(np.ma.masked_invalid(ax.images[0].get_array()))[:, 5].all()
    rows = table[table["counted"] & (table["x"] >= frame.shape[1] - 512)]
    assert 0 < len(rows) < table["counted"].sum()
    np.testing.assert_allclose(ax.collections[0].get_offsets(), rows[["x", "y"]])
