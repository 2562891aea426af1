"""Two epochs: reading fpC frames, pairing stars, and scores whose answers are known."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from sdss_files import wcs, write_fpm, write_psfield

from pnet.book.figures import style
from pnet.common.errors import DataError, MissingError
from pnet.evaluation import measurements
from pnet.evaluation.ledger import Ledger
from pnet.frame import Frame
from pnet.sdss.field import FieldId
from studies import repeat, repeat_scores, stripe82
from studies.figures import repeat as figure

SHAPE = (500, 600)
FIELD = FieldId(4192, 4, 300, "g")


def write_tsfield(folder, field=FIELD.field):
    names = {"aa": -24.45, "kk": 0.14, "airmass": 1.19, "mjd": 52931.2}
    columns = [fits.Column(name, "5D", array=np.full((1, 5), value)) for name, value in names.items()]
    columns.append(fits.Column("field", "J", array=[field]))
    path = folder / "tsField-004192-4-40-0300.fit"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(path)
    return path


@pytest.fixture
def files(tmp_path):
    counts = np.full(SHAPE, 95)
    counts[100, 200] = 5000
    psfield = write_psfield(tmp_path / "psField-004192-4-0300.fit", FIELD, gain=4.0, dark_variance=2.0)
    # SDSS's boxes may begin a pixel before the image
    fpm = tmp_path / "fpM-004192-g4-0300.fit"
    write_fpm(fpm, FIELD, SHAPE, {"SATUR": [[(10, 20, 25)]], "INTERP": [[(10, 20, 25), (30, 65535, 4)]]})
    header = wcs().to_header()
    header.update({"RUN": FIELD.run, "CAMCOL": FIELD.camcol, "FILTER": FIELD.band, "SOFTBIAS": 1000})
    image = tmp_path / "fpC-004192-g4-0300.fit.gz"
    fits.PrimaryHDU((counts + 1000).astype(np.uint16), header).writeto(image)
    return [image, psfield, write_tsfield(tmp_path), fpm]


def test_fpc_frames_become_electrons(files):
    frame = stripe82.read_fpc(*files)
    assert frame.name == "4192-4-300-g"
    assert frame.image[0, 0] == 4 * 95 and frame.image[100, 200] == 4 * 5000
    assert frame.variance[0, 0] == pytest.approx(16 * (95 / 4 + 2 + 1 / 12))
    # 20 mag give 10^(0.4 (zero point − 20)) electrons: f/f0 = counts/53.9 s · 10^(0.4 (aa + kk·airmass))
    counts = 53.907456 * 10 ** (-0.4 * (20 - 24.45 + 0.14 * 1.19))
    assert frame.flux(20.0) == pytest.approx(4 * counts)
    assert frame.mask[10, 22] and frame.mask[30, 2] and not frame.mask[31, 2]
    assert frame.interpolated[30, 2] and not frame.interpolated[31, 2]
    assert frame.seeing == pytest.approx(0.396 * 2.355 * 1.53, rel=0.02)  # the pixel widens σ = 1.5 px to 1.53
    assert frame.meta["psf"] is not None and frame.meta["mjd"] == pytest.approx(52931.2)


def test_fpc_files_of_another_field_are_refused(files, tmp_path):
    image, psfield, tsfield, fpm = files
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(DataError, match="is of field 301"):
        stripe82.read_fpc(image, psfield, write_tsfield(other, field=301), fpm)
    wrong = write_psfield(other / "psField-004192-4-0301.fit", FieldId(4192, 4, 301, "g"))
    with pytest.raises(DataError, match="belongs to"):
        stripe82.read_fpc(image, wrong, tsfield, fpm)
    with pytest.raises(DataError, match="not named like fpC"):
        stripe82.read_fpc(tmp_path / "image.fit", psfield, tsfield, fpm)


def test_reference_catalogue_without_its_columns_is_named(tmp_path):
    columns = [fits.Column(name, "D", array=[1.0]) for name in ("ra", "g")]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "stars.fits")
    with pytest.raises(DataError, match="lacks the columns dec, starnotgal"):
        stripe82.read_reference(tmp_path / "stars.fits")


def make_frame(name, shift=(0.0, 0.0)):
    sky = wcs()
    sky.wcs.crpix = np.array([250.5, 200.5]) + shift
    image = np.full(SHAPE, 380.0)
    return Frame(name, image, image, np.zeros(SHAPE, bool), 4.0, 30.0, 5.0, 0.396, seeing=1.4, wcs=sky)


def epochs(rng, sigma=0.01, position=0.02):
    """Return a pair of frames and the measurements of a grid of stars, the second frame 3.5 px and 34 px away."""
    first, second = make_frame("4192-4-300-g"), make_frame("6377-4-399-g", (-3.5, 34.0))
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(8) * 60.0 + 60, np.arange(7) * 55.0 + 40))
    x, y = x + rng.uniform(-5, 5, x.size), y + rng.uniform(-5, 5, x.size)
    mag = rng.uniform(14, 20, x.size)
    ra, dec = first.wcs.all_pix2world(x, y, 0)
    tables = []
    for frame, zero in ((first, 0.0), (second, 0.01)):
        u, v = frame.wcs.all_world2pix(ra, dec, 0)
        noise = rng.standard_normal((3, x.size))
        table = pd.DataFrame({"x": u + position * noise[0], "y": v + position * noise[1], "confidence": 0.9})
        if zero:  # another orientation of the camera and a zero point that varies over the field
            table["x"] += 0.4 + 0.001 * (u - 300)
            zero = zero + 2e-5 * (u - 300)
        table["mag"] = mag + zero + sigma * noise[2]
        table["flux"] = frame.flux(mag)
        table["mag_err"], table["x_err"], table["y_err"] = sigma, position, position
        tables.append(table)
    return repeat.Pair("stripe82", first, second), tables, pd.DataFrame({"ra": ra, "dec": dec})


def paired(pair, one, two):
    """Measure both frames with the given tables and put the stars side by side."""
    return repeat.pair_up(
        pair, *(repeat.measure(f, lambda _, t=t: t) for f, t in ((pair.first, one), (pair.second, two)))
    )


@pytest.fixture(scope="module")
def table():
    """Six fields' worth of stars in one table."""
    rng = np.random.default_rng(1)
    fields = [epochs(rng) for _ in range(6)]
    return pd.concat([paired(pair, *tables) for pair, tables, _ in fields], ignore_index=True)


def test_stars_of_two_epochs_are_paired(rng):
    pair, (one, two), places = epochs(rng)
    rows = paired(pair, one, two.sample(frac=1, random_state=1))
    assert len(rows) == ((rows["x_2"] > 0) & (rows["y_2"] > 0)).sum() > 40
    np.testing.assert_allclose(rows["mag_2"] - rows["mag_1"], 0.01, atol=0.07)
    np.testing.assert_allclose(rows["limit_mag_1"], rows["limit_mag_2"], rtol=0.2)
    assert rows["counted"].mean() > 0.8
    # with a reference catalogue only its stars count
    some = paired(dataclasses.replace(pair, reference=places[::2].reset_index(drop=True)), one, two)
    assert 0.4 < some["counted"].sum() / rows["counted"].sum() < 0.6
    with pytest.raises(DataError, match="0 common stars"):
        paired(pair, one, two.iloc[:0])
    pair.second.wcs = None
    with pytest.raises(DataError, match="6377-4-399-g: has no celestial WCS"):
        paired(pair, one, two)


def test_smooth_residual_leaves_each_star_out(rng, monkeypatch):
    x, y = rng.uniform(0, 2000, (2, 40))
    values = 0.02 * (x / 1000) - 0.01 * (y / 1000) + 0.01 * rng.standard_normal(40)
    design = np.column_stack([np.ones(40), x, y])
    with monkeypatch.context() as patched:
        patched.setattr(repeat_scores, "CLIP", np.inf)
        residual = repeat_scores.smooth_residual(values, x, y)
    for star in range(40):
        others = np.arange(40) != star
        solution = np.linalg.lstsq(design[others], values[others], rcond=None)[0]
        assert residual[star] == pytest.approx(values[star] - design[star] @ solution, abs=1e-9)
    values[3] += 1.0  # a variable star shapes nothing and keeps its difference
    assert repeat_scores.smooth_residual(values, x, y)[3] == pytest.approx(1.0, abs=0.05)


def test_repeatability_is_the_noise_of_one_measurement(table):
    found = {entry.key: entry for entry in repeat_scores.entries(table, {"seed": 1}, "live")}
    assert all(key.startswith("repeat.pnet.stripe82.") for key in found)
    pooled = {key.split(".")[3]: entry for key, entry in found.items() if key.endswith(".14-20")}
    assert pooled["mag_repeatability"].n > 200
    for key, value, error in (
        ("mag_repeatability", 0.01, 0.0015),
        ("mag_predicted", 0.01, 1e-8),
        ("mag_z", 1.0, 0.15),
        ("mag_coverage68", 0.683, 0.08),
        *((f"{axis}_repeatability", 0.02, 0.003) for axis in "xy"),
        *((f"{axis}_z", 1.0, 0.15) for axis in "xy"),
    ):
        assert pooled[key].value == pytest.approx(value, abs=error), key
    held = pooled["mag_coverage68"]
    assert held.low < held.limit < held.high


def test_the_figure_is_drawn_with_and_without_errors(table, tmp_path):
    for name, rows in (("all", table), ("bare", table.assign(x_err_1=np.nan)), ("none", table.iloc[:0])):
        ledger = Ledger(repeat_scores.entries(rows, {}, "live"))
        path = style.save(figure.repeatability(rows, ledger), tmp_path / f"{name}.png")
        assert path.stat().st_size > 10_000


def missing(*_):
    raise MissingError("2989-5-22: not there\nmore")


def test_a_run_writes_a_table_and_returns_at_once_where_it_did(rng, tmp_path, monkeypatch):
    pair, tables, _ = epochs(rng)
    tables = dict(zip((pair.first.name, pair.second.name), tables, strict=True))
    calls = []

    def measurer(**options):
        def measure(frame):
            calls.append(frame.name)
            return tables[frame.name]

        measure.provenance = {"device": "cpu"}
        return measure

    monkeypatch.setattr(repeat, "stripe82_pair", lambda: pair)
    monkeypatch.setattr(repeat, "overlap_pair", missing)
    monkeypatch.setattr(measurements, "pnet_measurer", measurer)
    written = repeat.run(tmp_path, seed=5)
    assert repeat.run(tmp_path, seed=5) == written and len(calls) == 2, "measured once"
    table, record, origin = repeat.load(tmp_path)
    assert (record, origin, list(table.columns)) == (written, "live", list(repeat.COLUMNS))
    assert record["left_out"] == "overlap not measured: 2989-5-22: not there"
    assert record["seed"] == 5 and record["frames"] == ["4192-4-300-g + 6377-4-399-g"]
    repeat.run(tmp_path, seed=6)
    assert len(calls) == 4
    with pytest.raises(MissingError, match="python -m studies repeat"):
        measurements.read(tmp_path / "nowhere" / "repeat.parquet", repeat.COLUMNS)


def test_an_optional_step_records_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(repeat, "stripe82_pair", missing)
    assert repeat.run(tmp_path, optional=True) == {"available": False, "reason": "2989-5-22: not there\nmore"}
    with pytest.raises(MissingError):
        repeat.run(tmp_path)
