"""Downloads, against a local server that misbehaves and against folders."""

import bz2
import contextlib
import csv
import hashlib
import http.server
import io
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pnet.common import paths
from pnet.common.errors import ConfigError, MissingError, PNetError
from pnet.sdss import files
from pnet.sdss.files import fetch
from pnet.sdss.manifest import Field, File, Manifest

FRAME = "dr17/eboss/photoObj/frames/301/{run}/1/frame-g-{run:06d}-1-0011.fits.bz2"
PSFIELD = "dr17/eboss/photo/redux/301/{run}/objcs/1/psField-{run:06d}-1-0011.fit"


def content(seed: int, compress: bool = True) -> bytes:
    """Bytes of a small FITS file."""
    stream = io.BytesIO()
    fits.PrimaryHDU(np.random.default_rng(seed).normal(size=(40, 40))).writeto(stream)
    return bz2.compress(stream.getvalue()) if compress else stream.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.answer(b"")

    def answer(self, body, size=None):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path, owner = self.path.lstrip("/"), self.server
        owner.requests[path] += 1
        plan, body = owner.plan.get(path, []), owner.files.get(path)
        trick = plan.pop(0) if plan and plan[0] != "always" else plan[1] if plan else "good"
        if trick.isdigit() or body is None:
            self.send_error(int(trick) if trick.isdigit() else 404)
        elif trick == "slow":
            owner.release.wait(10)
        elif trick == "trickle":
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client gives up, as it should
                self.answer(body[:50], len(body))
                while not owner.release.wait(0.1):
                    self.wfile.write(bytes(50))
        elif trick != "drop":  # which closes without a word
            sent = {"wrong": body[:-7] + bytes(7), "page": b"<html>moved</html>", "cut": body[: len(body) // 2]}
            self.answer(sent.get(trick, body), len(body) if trick == "cut" else None)


class Server(http.server.ThreadingHTTPServer):
    """Serves a dict of bytes on 127.0.0.1; `plan[path]` lists what goes wrong at each request of a path."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.plan, self.requests, self.release = {}, {}, Counter(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/sas"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self):
        self.release.set()
        self.shutdown()
        self.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("SDSS_MIRROR", raising=False)
    for name, value in {"RETRIES": 2, "TIMEOUT": 0.5, "CHUNK": 64}.items():
        monkeypatch.setattr(files, name, value)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # pooch's, before it tries again
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def manifest(tmp_path, server) -> Manifest:
    """Three fields with a frame and an optional psField each, served whole, with known hashes."""
    fields = []
    for run in (1, 2, 3):
        listed = []
        for role, pattern in (("frame-g", FRAME), ("psField", PSFIELD)):
            path, body = pattern.format(run=run), content(run, compress=role == "frame-g")
            server.files[f"sas/{path}"] = body
            listed.append(File(role, path, len(body), hashlib.sha256(body).hexdigest(), required=role == "frame-g"))
        fields.append(Field(run=run, camcol=1, field=11, files=tuple(listed)))
    return saved(tmp_path / "manifests" / "sdss-test.yml", fields)


@pytest.fixture
def unlocked(tmp_path, manifest) -> Manifest:
    """The same without hashes."""
    bare = [[replace(file, sha256=None, bytes=None) for file in entry.files] for entry in manifest.fields]
    fields = [replace(entry, files=tuple(own)) for entry, own in zip(manifest.fields, bare, strict=True)]
    return saved(tmp_path / "manifests" / "sdss-new.yml", fields)


def saved(path, fields) -> Manifest:
    manifest = Manifest(path.stem, "for tests", tuple(fields))
    manifest.save(path)
    return manifest


def get(manifest, root, server, **options):
    return fetch(manifest, root, **{"progress": False, "mirror": server.url, **options})


def whole(root, server) -> bool:
    """Whether everything below root is one of the served files, byte for byte: nothing half-written may stay."""
    found = [path for path in Path(root).rglob("*") if path.is_file()]
    return all(path.read_bytes() == server.files[f"sas/{path.relative_to(root).as_posix()}"] for path in found)


def path_of(manifest, n, role="frame-g"):
    return "sas/" + manifest.fields[n].file(role).path


class TestDownload:
    def test_all_of_it_once(self, manifest, server, tmp_path):
        report = get(manifest, tmp_path / "d", server)
        assert (len(report.downloaded), len(report.present), report.missing) == (6, 0, [])
        assert whole(tmp_path / "d", server)
        assert report.path("2-1-11", "psField") == tmp_path / "d" / PSFIELD.format(run=2)
        assert report.path("2-1-11", "photoObj") is None
        assert "6 files, 0 were there, 6 came from the mirror http" in str(report)
        server.requests.clear()
        assert len(get(manifest, tmp_path / "d", server).present) == 6 and not server.requests
        server.stop()
        assert len(get(manifest, tmp_path / "d", server).present) == 6, "nor does it need the server"

    @pytest.mark.parametrize("trick", ["cut", "wrong", "503", "drop", "page"])
    def test_what_goes_wrong_once_is_tried_again(self, manifest, server, tmp_path, trick):
        server.plan[path_of(manifest, 0)] = [trick, trick]
        assert len(get(manifest, tmp_path / "d", server).downloaded) == 6
        assert server.requests[path_of(manifest, 0)] == 3
        assert whole(tmp_path / "d", server)

    @pytest.mark.parametrize(
        "trick, words",
        [
            ("cut", "no connection .*IncompleteRead"),
            ("drop", "no connection .*Remote end closed"),
            ("slow", "no answer in time"),
            ("trickle", "too slow"),
            ("wrong", "wrong bytes came"),
            ("503", "the server answers 503"),
            ("404", "not there"),
            ("403", "not there"),
        ],
    )
    def test_what_keeps_going_wrong_is_said_and_the_rest_is_kept(self, manifest, server, tmp_path, trick, words):
        server.plan[path_of(manifest, 0)] = ["always", trick]
        with pytest.raises(MissingError, match=words) as caught:
            get(manifest, tmp_path / "d", server)
        message = str(caught.value)
        assert "frame-g-000001-1-0011" in message and "pnet sdss-download" in message and "SDSS_MIRROR" in message
        assert server.requests[path_of(manifest, 0)] == (1 if trick in ("403", "404") else 3)
        assert whole(tmp_path / "d", server)
        server.plan.clear()
        server.requests.clear()
        server.release.set()
        report = get(manifest, tmp_path / "d", server)
        assert (len(report.present), len(report.downloaded)) == (5, 1)
        assert list(server.requests) == [path_of(manifest, 0)]

    def test_optional_files_may_be_missing(self, manifest, server, tmp_path):
        del server.files[path_of(manifest, 2, "psField")]
        report = get(manifest, tmp_path / "d", server)
        assert [(file.role, reason) for file, reason in report.missing] == [("psField", "not there")]
        assert report.path("3-1-11", "psField") is None and "(optional)" in str(report)

    def test_a_damaged_file_is_fetched_again(self, manifest, server, tmp_path):
        get(manifest, tmp_path / "d", server)
        cut, zeros = (tmp_path / "d" / FRAME.format(run=run) for run in (1, 2))
        cut.write_bytes(cut.read_bytes()[:-1])
        zeros.write_bytes(bytes(zeros.stat().st_size))
        report = get(manifest, tmp_path / "d", server)
        assert (len(report.downloaded), len(report.present)) == (2, 4)
        assert whole(tmp_path / "d", server)

    def test_only_some_fields(self, manifest, server, tmp_path):
        report = get(manifest, tmp_path / "d", server, fields=["1-1-11", "3-1-11"])
        assert {file.path for file in report.downloaded} == {p.format(run=n) for p in (FRAME, PSFIELD) for n in (1, 3)}
        with pytest.raises(ConfigError, match="no field '9-9-9'"):
            get(manifest, tmp_path / "d", server, fields=["9-9-9"])

    def test_interruption_leaves_nothing_half_and_can_be_resumed(self, manifest, server, tmp_path, monkeypatch):
        original, seen = files._get, []

        def interrupted(url, output_file, store):
            seen.append(url)
            if len(seen) == 3:
                Path(output_file).write_bytes(b"SIMPLE")
                raise KeyboardInterrupt
            original(url, output_file, store)

        monkeypatch.setattr(files, "_get", interrupted)
        monkeypatch.setattr(files, "JOBS", 1)
        with pytest.raises(KeyboardInterrupt):
            get(manifest, tmp_path / "d", server)
        assert whole(tmp_path / "d", server)
        monkeypatch.setattr(files, "_get", original)
        report = get(manifest, tmp_path / "d", server)
        assert len(report.present) >= 2 and len(report.present) + len(report.downloaded) == 6

    def test_no_server_is_told_at_once(self, manifest, server, tmp_path):
        server.stop()
        with pytest.raises(MissingError, match=r"not tried: http.*: no connection \(.*Connection refused"):
            get(manifest, tmp_path / "d", server)

    def test_a_server_that_goes_away(self, manifest, server, tmp_path, monkeypatch):
        """After the first file fails and the server is gone, the rest is not waited for."""
        answers = iter([""])
        monkeypatch.setattr(files, "obstacle", lambda *_: next(answers, "gone"))
        monkeypatch.setattr(files, "JOBS", 1)
        for n in range(3):
            server.plan[path_of(manifest, n)] = ["always", "drop"]
        with pytest.raises(MissingError) as caught:
            get(manifest, tmp_path / "d", server)
        assert str(caught.value).count("no connection") == 1 and "not tried: gone" in str(caught.value)

    def test_a_folder_that_cannot_be_written(self, manifest, server, tmp_path):
        (tmp_path / "d").write_text("a file where the folder should be")
        with pytest.raises(PNetError, match="cannot be written"):
            get(manifest, tmp_path / "d", server)


class TestLock:
    def test_first_download_locks(self, unlocked, manifest, server, tmp_path):
        assert len(get(unlocked, tmp_path / "d", server).downloaded) == 6
        again = Manifest.load(unlocked.source)
        known = {file.path: file.sha256 for file in again.files()}
        assert known == {file.path: file.sha256 for file in manifest.files()}
        assert len(get(again, tmp_path / "d", server).present) == 6
        server.files[path_of(unlocked, 0)] = content(99)
        with pytest.raises(MissingError, match="wrong bytes"):
            get(again, tmp_path / "elsewhere", server)

    @pytest.mark.parametrize("trick", ["page", "wrong", "cut"])
    def test_what_is_not_whole_is_not_locked(self, unlocked, server, tmp_path, trick):
        server.plan[path_of(unlocked, 0)] = ["always", trick]
        with pytest.raises(MissingError):
            get(unlocked, tmp_path / "d", server)
        known = {file.path: file.sha256 for file in Manifest.load(unlocked.source).files()}
        assert known[FRAME.format(run=1)] is None and known[FRAME.format(run=2)] is not None
        assert whole(tmp_path / "d", server)

    def test_a_file_put_there_by_hand(self, unlocked, server, tmp_path):
        target = tmp_path / "d" / FRAME.format(run=1)
        target.parent.mkdir(parents=True)
        target.write_bytes(server.files[path_of(unlocked, 0)][:-9])
        assert len(get(unlocked, tmp_path / "d", server).downloaded) == 6, "a truncated one is not believed"
        assert all(file.sha256 for file in Manifest.load(unlocked.source).files())


class TestMirror:
    @pytest.fixture
    def folder(self, manifest, server, tmp_path):
        for path, body in server.files.items():
            target = tmp_path / "mirror" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(body)
        return tmp_path / "mirror" / "sas"

    def test_by_argument_environment_and_relative(self, manifest, folder, tmp_path, monkeypatch):
        assert len(fetch(manifest, tmp_path / "a", mirror=folder, progress=False).downloaded) == 6
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SDSS_MIRROR", "mirror/sas")
        assert len(fetch(manifest.source, tmp_path / "b", progress=False).downloaded) == 6
        monkeypatch.chdir("/")
        monkeypatch.setattr(paths, "ROOT", tmp_path)
        assert len(fetch(manifest, tmp_path / "c", progress=False).downloaded) == 6

    def test_missing_and_wrong_files(self, manifest, folder, tmp_path):
        (folder / FRAME.format(run=1)).unlink()
        (folder / FRAME.format(run=2)).write_bytes(b"other")
        with pytest.raises(MissingError, match="not there: dr17") as caught:
            fetch(manifest, tmp_path / "d", mirror=folder, progress=False)
        assert "wrong bytes came" in str(caught.value)
        assert len([path for path in (tmp_path / "d").rglob("*") if path.is_file()]) == 4

    def test_obstacles(self, folder, server, monkeypatch):
        assert files.obstacle(folder) == files.obstacle(server.url) == ""
        assert "no such folder" in files.obstacle(folder / "nowhere")
        monkeypatch.setenv("SDSS_MIRROR", server.url)
        server.stop()
        assert "no connection" in files.obstacle(timeout=1.0)

    def test_sources(self, folder, monkeypatch):
        monkeypatch.setenv("SDSS_MIRROR", "")
        assert files.find_source() == "https://data.sdss.org/sas"
        assert files.find_source("https://mirror.example/sas/") == "https://mirror.example/sas"
        assert files.find_source(folder) == folder
        for wrong, words in (
            ("ftp://mirror.example/sas", "must start with http"),
            ("/does/not/exist", "no such folder"),
            (folder.parent, "holds a folder named sas"),
        ):
            with pytest.raises(ConfigError, match=words):
                files.find_source(wrong)

    def test_the_step_leaves_a_record(self, manifest, folder, tmp_path, monkeypatch):
        monkeypatch.setenv("PNET_DATA", str(tmp_path / "data"))
        output, options = tmp_path / "build", {"mirror": folder, "progress": False}
        record = output / files.RECORD
        (folder / FRAME.format(run=1)).rename(folder / "away")
        with pytest.raises(MissingError):
            files.download(output, str(manifest.source), **options)
        told = files.download(output, str(manifest.source), optional=True, **options)
        assert told["available"] is False and "not there" in told["reason"]
        monkeypatch.setenv("SDSS_MIRROR", "/does/not/exist")
        files.forget_unavailable(output)
        assert record.exists()
        monkeypatch.setenv("SDSS_MIRROR", str(folder))
        files.forget_unavailable(output)
        assert not record.exists()
        (folder / "away").rename(folder / FRAME.format(run=1))
        assert files.download(output, str(manifest.source), **options)["available"]
        files.forget_unavailable(output)
        assert record.exists()

    def test_standard_is_in_the_mirror(self, shared, tmp_path):
        rows = csv.DictReader((shared / "sdss" / "MANIFEST.tsv").read_text().splitlines(), delimiter="\t")
        truth = {row["path"].removeprefix("sas/"): (int(row["bytes"]), row["sha256"]) for row in rows}
        manifest = Manifest.load("sdss-standard")
        assert all(truth[file.path] == (file.bytes, file.sha256) for file in manifest.files())
        report = fetch(manifest, tmp_path, mirror=shared / "sdss" / "sas", progress=False)
        assert len(report.downloaded) == len(list(manifest.files()))
