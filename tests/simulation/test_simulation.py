"""Recipe, star lists, the file format, and data sets of the renderer."""

import numpy as np
import pytest

from pnet.common import paths
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.common.files import read_json, write_json
from pnet.common.seeds import derive
from pnet.simulation import datasets, renderer
from pnet.simulation.datasets import find_engine, make_dataset
from pnet.simulation.frame_file import read_frame
from pnet.simulation.recipe import Recipe, draw_conditions, draw_stars
from pnet.sky import catalogue


@pytest.fixture(scope="module")
def recipe():
    return Recipe.load()


def test_conditions_repeat_with_their_seed_and_span_the_recipe(recipe):
    assert draw_conditions(recipe, 5) == draw_conditions(recipe, 5)
    drawn = [draw_conditions(recipe, seed) for seed in range(300)]
    assert {c.seeing for c in drawn} == set(recipe.seeing) and {c.gain for c in drawn} == set(recipe.gain)
    assert np.mean([c.sky_mag for c in drawn]) == pytest.approx(recipe.sky_mag[0], abs=0.03)
    assert np.std([c.sky_mag for c in drawn]) == pytest.approx(recipe.sky_mag[1], rel=0.15)


def test_counts_of_stars_rise_as_the_paper_says(recipe):
    mags = np.concatenate([draw_stars(recipe, "paper", seed)["mag"] for seed in range(300)])
    counts, _ = np.histogram(mags, bins=np.arange(13, 21))
    slope = np.polyfit(np.arange(7), np.log10(counts), 1)[0]
    assert slope == pytest.approx(0.2, abs=0.02) and mags.min() >= 13 and mags.max() <= 20


def test_dataset_is_written_read_and_resumed(recipe, tmp_path):
    paths = make_dataset(tmp_path, recipe, "test", 2, 7, engine="renderer", progress=False)
    frame, truth = read_frame(paths[0])
    seed = derive(7, "test", "paper", 1)
    conditions, stars = draw_conditions(recipe, seed), draw_stars(recipe, "paper", seed)
    np.testing.assert_allclose(truth["x"], stars["x"], atol=1e-9)
    np.testing.assert_allclose(truth["flux"], conditions.flux(stars["mag"]), rtol=1e-9)
    np.testing.assert_allclose(frame.magnitude(truth["flux"]), truth["mag"], atol=1e-9)
    assert frame.shape == (512, 512) and frame.seeing == conditions.seeing
    adu = 10 ** (0.4 * (conditions.mag_zero - conditions.sky_mag)) * conditions.pixel_scale**2 * conditions.exposure
    assert conditions.sky == pytest.approx(adu * conditions.gain, rel=1e-12)
    assert np.median(frame.image) == pytest.approx(conditions.sky, rel=0.05)
    image = renderer.render_field(stars, conditions, seed)  # same seed, same pixels
    np.testing.assert_allclose(frame.image, image * np.float32(frame.gain), rtol=1e-6)
    kept = paths[0].stat().st_mtime_ns
    again = make_dataset(tmp_path, recipe, "test", 3, 7, engine="renderer", progress=False)
    assert again[:2] == paths and paths[0].stat().st_mtime_ns == kept and again[2].exists()


def test_realistic_fields_have_galaxies(recipe, tmp_path):
    path = make_dataset(tmp_path, recipe, "train", 1, 7, engine="renderer", kind="realistic", progress=False)[0]
    frame, truth = read_frame(path)
    galaxies = truth[truth["kind"] == "galaxy"]
    assert len(galaxies) > 3 and galaxies["mag"].between(15, 23).all()
    assert not catalogue.mark_counted(truth, frame).loc[galaxies.index, "counted"].any()
    with pytest.raises(DataError, match="column.*kind"):
        catalogue.mark_counted(truth.drop(columns="kind"), frame)


def test_existing_frames_stand_in(recipe, tmp_path, monkeypatch):
    made = make_dataset(tmp_path / "made", recipe, "test", 2, 1, engine="renderer", progress=False)
    monkeypatch.setenv("SKYMAKER_FRAMES", str(tmp_path / "made"))
    assert find_engine() == "frames"
    assert make_dataset(tmp_path / "other", recipe, "test", 5, 1) == made
    with pytest.raises(MissingError, match="must name a folder with val/"):
        make_dataset(tmp_path / "other", recipe, "val", 1, 1)
    monkeypatch.setenv("SKYMAKER_FRAMES", str(tmp_path / "nowhere"))
    with pytest.raises(MissingError, match="is no folder"):
        find_engine()


@pytest.mark.parametrize("bad", [{"split": "exam"}, {"engine": "magic"}, {"kind": "dense"}])
def test_bad_parameters_are_named(recipe, tmp_path, bad):
    options = {"split": "test", "engine": "renderer", "kind": "paper"} | bad
    with pytest.raises(ConfigError, match=next(iter(bad.values()))):
        make_dataset(tmp_path, recipe, n=1, seed=1, progress=False, **options)


def test_bad_recipes_are_refused(tmp_path):
    with pytest.raises(MissingError):
        Recipe.load(tmp_path / "none.yml")
    text = (paths.MANIFESTS / "simulation.yml").read_text()
    for wrong in (text.replace("size:", "sise:"), text.replace("optics: {m1", "optics: {m7"), "size: [", "just text"):
        (tmp_path / "bad.yml").write_text(wrong)
        with pytest.raises(DataError if wrong == "size: [" else ConfigError, match="bad.yml"):
            Recipe.load(tmp_path / "bad.yml")


@pytest.fixture
def simulate(tmp_path, monkeypatch):
    """Return a function that makes a run's data set in ``build/x`` of a project of its own."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)

    def make(seed=1, **counts):
        return datasets.simulate("build/x", counts=counts, seed=seed, engine="renderer", progress=False)

    return make


def test_a_data_set_is_made_once(simulate):
    record = simulate(val=1, test=1)
    written = record.stat().st_mtime_ns
    (path,) = datasets.frames_of("build/x", "test")
    assert {split: len(files) for split, files in read_json(record)["splits"].items()} == {"val": 1, "test": 1}
    path.write_bytes(b"mine")  # what a second run finds, it keeps
    assert simulate(val=1, test=1, train=0) == record and record.stat().st_mtime_ns == written
    simulate(seed=2, val=1, test=1)
    assert path.read_bytes() != b"mine"
    path.write_bytes(b"of other code")
    record.unlink()  # as Snakemake does before it runs the rule again
    simulate(seed=2, test=1)
    assert path.read_bytes() != b"of other code" and datasets.frames_of("build/x", "val") == []


def test_an_interrupted_run_keeps_its_frames_and_what_is_not_there_is_named(simulate):
    record = simulate(test=1)
    (path,) = datasets.frames_of("build/x", "test")
    made = path.stat().st_mtime_ns
    write_json(record, {name: read_json(record)[name] for name in ("engine", "kind", "seed")})
    with pytest.raises(MissingError, match="pnet simulate --output build/x"):
        datasets.frames_of("build/x", "test")
    simulate(test=2)
    assert path.stat().st_mtime_ns == made and len(datasets.frames_of("build/x", "test")) == 2
    path.unlink()
    with pytest.raises(MissingError, match=f"{path.name}.* is gone; .*pnet simulate --output build/x"):
        datasets.frames_of("build/x", "test")
    assert simulate(test=2) == record and path.is_file()


@pytest.mark.parametrize("counts", [{"train": 0, "val": 0}, {"train": 3, "val": -1}, {"exam": 1}])
def test_counts_that_are_refused(simulate, counts):
    with pytest.raises(ConfigError, match="none may be negative and one must be positive|exam"):
        simulate(**counts)


def test_another_folder_of_frames_is_another_data_set(simulate, tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name / "test").mkdir(parents=True)
        (tmp_path / name / "test" / "paper-1.fits").touch()
        monkeypatch.setenv("SKYMAKER_FRAMES", str(tmp_path / name))
        datasets.simulate("build/x", counts={"test": 1}, seed=1, progress=False)
        assert datasets.frames_of("build/x", "test") == [tmp_path / name / "test" / "paper-1.fits"]
