"""Two epochs: reading fpC frames, pairing stars, and scores whose answers are known."""

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from sdss_files import wcs, write_fpm, write_psfield

from pnet.book.figures import style
from pnet.common.errors import ConfigError, DataError, MissingError
from pnet.evaluation.ledger import Ledger
from pnet.frame import Frame
from pnet.sdss.field import FieldId
from studies import repeat, repeat_scores, stripe82
from studies.figures import repeat as figure

SHAPE = (500, 600)
FIELD = FieldId(4192, 4, 300, "g")


def write_fpc(folder, counts, identity=FIELD, soft_bias=1000):
    header = wcs().to_header()
    header.update({"RUN": identity.run, "CAMCOL": identity.camcol, "FILTER": identity.band, "SOFTBIAS": soft_bias})
    path = folder / f"fpC-{identity.run:06d}-g{identity.camcol}-{identity.field:04d}.fit.gz"
    fits.PrimaryHDU((counts + soft_bias).astype(np.uint16), header).writeto(path)
    return path


def write_tsfield(folder, identity=FIELD, field=None):
    names = {"aa": -24.45, "kk": 0.14, "airmass": 1.19, "mjd": 52931.2}
    columns = [fits.Column(name, "5D", array=np.full((1, 5), value)) for name, value in names.items()]
    columns.append(fits.Column("field", "J", array=[field or identity.field]))
    path = folder / f"tsField-{identity.run:06d}-{identity.camcol}-40-{identity.field:04d}.fit"
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
    return [write_fpc(tmp_path, counts), psfield, write_tsfield(tmp_path), fpm]


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
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(DataError, match="is of field 301"):
        stripe82.read_fpc(files[0], files[1], write_tsfield(other, field=301))
    psfield = write_psfield(other / "psField-004192-4-0301.fit", FieldId(4192, 4, 301, "g"))
    with pytest.raises(DataError, match="belongs to"):
        stripe82.read_fpc(files[0], psfield, files[2])
    wrong = tmp_path / "image.fit"
    wrong.write_bytes(b"")
    with pytest.raises(DataError, match="not named like fpC"):
        stripe82.read_fpc(wrong, *files[1:])


def make_frame(name, shift=(0.0, 0.0)):
    sky = wcs()
    sky.wcs.crpix = np.array([250.5, 200.5]) + shift
    image = np.full(SHAPE, 380.0)
    return Frame(name, image, image, np.zeros(SHAPE, bool), 4.0, 30.0, 5.0, 0.396, seeing=1.4, wcs=sky)


def epochs(rng, n=(7, 8), sigma=0.01, bars=1.0, position=0.02):
    """Return a pair of frames and the measurements of a grid of stars, the second frame 3.5 px and 34 px away."""
    first, second = make_frame("4192-4-300-g"), make_frame("6377-4-399-g", (-3.5, 34.0))
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(n[1]) * 60.0 + 60, np.arange(n[0]) * 55.0 + 40))
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
        table["mag_err"], table["x_err"], table["y_err"] = bars * sigma, bars * position, bars * position
        tables.append(table)
    return repeat.Pair("stripe82", first, second), tables, (ra, dec, mag)


@pytest.fixture(scope="module")
def table():
    """Three fields' worth of stars in one table."""
    parts, rng = [], np.random.default_rng(1)
    for _ in range(6):
        pair, tables, _ = epochs(rng)
        found = [
            repeat.measure(f, lambda frame, t=t: t) for f, t in zip((pair.first, pair.second), tables, strict=True)
        ]
        parts.append(repeat.pair_up(pair, *found))
    return pd.concat(parts, ignore_index=True)


def test_stars_of_two_epochs_are_paired(rng):
    pair, (one, two), (ra, dec, mag) = epochs(rng)
    shuffled = two.sample(frac=1, random_state=1)
    rows = repeat.pair_up(
        pair, repeat.measure(pair.first, lambda _: one), repeat.measure(pair.second, lambda _: shuffled)
    )
    both = (rows["x_2"] > 0) & (rows["y_2"] > 0)
    assert len(rows) == both.sum() > 40
    np.testing.assert_allclose(rows["mag_2"] - rows["mag_1"], 0.01, atol=0.07)
    np.testing.assert_allclose(rows["limit_mag_1"], rows["limit_mag_2"], rtol=0.2)
    assert rows["counted"].mean() > 0.8
    # with a reference catalogue only its stars count
    catalogue = pd.DataFrame({"ra": ra, "dec": dec, "mag": mag, "mag_err": 0.01})[::2]
    with_reference = repeat.Pair("stripe82", pair.first, pair.second, catalogue.reset_index(drop=True))
    rows = repeat.pair_up(
        with_reference, *(repeat.measure(f, lambda _, t=t: t) for f, t in ((pair.first, one), (pair.second, two)))
    )
    assert 0.4 < rows["reference"].mean() < 0.6
    assert not rows["counted"][~rows["reference"]].any()
    np.testing.assert_allclose(rows["reference_mag"].dropna(), rows["mag_1"][rows["reference"]], atol=0.06)


def test_a_pair_without_common_stars_says_so(rng):
    pair, (one, two), _ = epochs(rng)
    empty = repeat.measure(pair.second, lambda _: two.iloc[:0])
    with pytest.raises(DataError, match="0 common stars"):
        repeat.pair_up(pair, repeat.measure(pair.first, lambda _: one), empty)
    pair.second.wcs = None
    with pytest.raises(DataError, match="6377-4-399-g: has no celestial WCS"):
        repeat.pair_up(pair, empty, empty)


def test_smooth_residual_leaves_each_star_out(rng):
    x, y = rng.uniform(0, 2000, (2, 40))
    values = 0.02 * (x / 1000) - 0.01 * (y / 1000) + 0.01 * rng.standard_normal(40)
    residual = repeat_scores.smooth_residual(values, x, y, degree=1, clip=np.inf)
    design = np.column_stack([np.ones(40), x, y])
    for star in range(40):
        others = np.arange(40) != star
        solution = np.linalg.lstsq(design[others], values[others], rcond=None)[0]
        assert residual[star] == pytest.approx(values[star] - design[star] @ solution, abs=1e-9)
    values[3] += 1.0  # a variable star shapes nothing and keeps its difference
    assert repeat_scores.smooth_residual(values, x, y)[3] == pytest.approx(1.0, abs=0.05)
    with pytest.raises(ConfigError, match="fewer than twice"):
        repeat_scores.smooth_residual(values[:5], x[:5], y[:5])


def test_repeatability_is_the_noise_of_one_measurement(table):
    found = {key: score.estimate for key, score in repeat_scores.compute(table, seed=1).items()}

    def pooled(what):
        return found[f"stripe82.{what}.14-20"].value

    assert found["stripe82.mag_repeatability.14-20"].n > 200
    assert pooled("mag_repeatability") == pytest.approx(0.01, rel=0.15)
    assert pooled("mag_predicted") == pytest.approx(0.01)
    assert pooled("mag_z_std") == pytest.approx(1.0, abs=0.12)
    assert pooled("mag_coverage68") == pytest.approx(0.683, abs=0.08)
    for axis in "xy":
        assert pooled(f"{axis}_repeatability") == pytest.approx(0.02, rel=0.15)
        assert pooled(f"{axis}_z") == pytest.approx(1.0, abs=0.15)


def test_scores_and_entries(table):
    found = repeat_scores.compute(table, seed=1)
    held = found["stripe82.mag_coverage68.14-20"]
    assert held.estimate.low < held.limit < held.estimate.high
    assert found["stripe82.mag_z.14-20"].estimate.value == pytest.approx(1, abs=0.15)
    assert found["stripe82.zero_point"].estimate.value == pytest.approx(0.01, abs=0.003)
    assert not any("mag_net" in key or "reference" in key for key in found)
    entries = repeat_scores.entries(table, {"seed": 1, "command": "python -m studies repeat"}, "live")
    assert all(entry.key.startswith("repeat.pnet.stripe82.") for entry in entries)
    with pytest.raises(ConfigError, match="quantity is 'flux'"):
        repeat_scores.differences(table, "stripe82", "flux")


def test_the_figure_is_drawn_with_and_without_errors(table, tmp_path):
    for name, rows in (("all", table), ("bare", table.assign(x_err_1=np.nan)), ("none", table.iloc[:0])):
        ledger = Ledger(repeat_scores.entries(rows, {}, "live"))
        path = style.save(figure.repeatability(rows, ledger), tmp_path / f"{name}.png")
        assert path.stat().st_size > 10_000


def test_run_writes_a_table_that_read_believes(rng, tmp_path, monkeypatch):
    pair, (one, two), _ = epochs(rng)
    tables = {pair.first.name: one, pair.second.name: two}

    def missing(manifest):
        raise MissingError("2989-5-22: not there\nmore")

    monkeypatch.setattr(repeat, "stripe82_pair", lambda: pair)
    monkeypatch.setattr(repeat, "overlap_pair", missing)
    written = repeat.run(tmp_path, measurer=lambda frame: tables[frame.name], seed=5)
    path = tmp_path / "measurements" / "repeat.parquet"
    table, record = repeat.read(path)
    assert record == written
    assert list(table.columns) == list(repeat.COLUMNS)
    assert record["left_out"] == "overlap not measured: 2989-5-22: not there"
    assert record["seed"] == 5 and record["frames"] == ["4192-4-300-g + 6377-4-399-g"]
    assert repeat.load(tmp_path)[2] == "live"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DataError, match="SHA-256 differs"):
        repeat.read(path)
    with pytest.raises(MissingError, match="python -m studies repeat"):
        repeat.read(tmp_path / "nowhere" / "repeat.parquet")


def test_an_optional_step_records_what_is_missing(tmp_path, monkeypatch):
    def missing():
        raise MissingError("no frames of Stripe 82")

    monkeypatch.setattr(repeat, "stripe82_pair", missing)
    state = repeat.run(tmp_path, optional=True)
    assert state == {"available": False, "reason": "no frames of Stripe 82"}
    with pytest.raises(MissingError):
        repeat.run(tmp_path)


def test_reference_catalogue_without_its_columns_is_named(tmp_path):
    columns = [fits.Column(name, "D", array=[1.0]) for name in ("ra", "dec", "g")]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "stars.fits")
    with pytest.raises(DataError, match="lacks the columns g_err, starnotgal"):
        stripe82.read_reference(tmp_path / "stars.fits")
