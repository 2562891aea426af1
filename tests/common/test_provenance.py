"""Provenance: commit, dirty trees, and what a record holds."""

import json
import subprocess

from pnet.common import provenance


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_a_changed_file_marks_the_commit_a_new_file_does_not(tmp_path, tmp_path_factory, monkeypatch):
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-qm", "first")
    clean = provenance.commit(tmp_path)
    assert len(clean) == 40 and int(clean, 16) >= 0
    (tmp_path / "result.json").write_text("{}")
    assert provenance.commit(tmp_path) == clean
    (tmp_path / "code.py").write_text("2\n")
    assert provenance.commit(tmp_path) == clean + "+"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(elsewhere.parent))
    assert provenance.commit(elsewhere) == "unknown"
    monkeypatch.setenv("PATH", "")
    assert provenance.commit(tmp_path) == "unknown"


def test_a_record_is_json_and_holds_what_was_given():
    record = provenance.record("python -m pnet evaluate", 7, "cpu", engine="renderer", frames=["a"])
    assert json.loads(json.dumps(record)) == record
    assert (record["seed"], record["engine"], record["frames"]) == (7, "renderer", ["a"])
    assert {"commit", "date", "versions", "machine"} <= set(record)
    assert record["versions"]["python"] and record["versions"]["numpy"]
    assert record["machine"]["cores"] >= 1 and record["machine"]["cpu"]
    assert record["date"].endswith("+00:00")
