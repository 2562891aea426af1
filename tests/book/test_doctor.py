"""The doctor: what is there, what is missing, and one command for each lack."""

from types import SimpleNamespace

import pytest

from pnet.book import doctor
from pnet.common import paths
from pnet.common.files import sha256, write_json
from pnet.stars import weights


def named(name):
    return next(check for title, check in doctor.examine().items() if name in title)


def program(folder, name, says):
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_everything_is_looked_at_and_every_lack_has_one_command(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no program at all
    found = doctor.examine()
    names = " ".join(found)
    assert all(name in names for name in ("Python", "torch", "sky", "SExtractor", "PSFEx", "SDSS", "disk", "weights"))
    for name, check in found.items():
        if not check.ok and not name.startswith("Stuff"):  # of which there is no package
            assert check.fix and "\n" not in check.fix, check


@pytest.mark.parametrize(
    ("check", "command", "says", "ok"),
    [
        ("SkyMaker", "sky", "SkyMaker version 3.10.5 (2014-03-19)", True),
        ("SkyMaker", "sky", "Sky terminal 1.2.3", False),  # another program of that name
        ("SExtractor", "sex", "SExtractor version 2.28.0 (2023-06-12)", True),
        ("SExtractor", "source-extractor", "Source Extractor version 2.25.0 (2018-02-08)", True),  # Debian's
        ("PSFEx", "psfex", "PSFEx version 3.24.1 (2023-01-01)", True),
    ],
)
def test_programs_on_the_path_are_known_by_what_they_say(monkeypatch, tmp_path, check, command, says, ok):
    program(tmp_path, command, says)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = named(check)
    assert found.ok == ok
    told = f"{says.split()[-2]} ({tmp_path / command})" if ok else "this is not SkyMaker"
    assert told in found.detail


@pytest.mark.parametrize("variable", ["SKY", "SKYMAKER_FRAMES"])
def test_a_variable_that_names_nothing_is_an_error_to_unset(monkeypatch, tmp_path, variable):
    monkeypatch.setenv("SKYMAKER_FRAMES", str(tmp_path))
    assert named("SkyMaker").ok
    monkeypatch.delenv("SKYMAKER_FRAMES")
    monkeypatch.setenv(variable, str(tmp_path / "none"))
    check = named("SkyMaker")
    assert not check.ok and check.required and check.fix == f"unset {variable}"
    monkeypatch.setenv("PNET_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SDSS_MIRROR", str(tmp_path / "none"))
    check = named("SDSS")
    assert not check.ok and check.fix == "unset SDSS_MIRROR" and not check.required
    (tmp_path / "none" / "dr17").mkdir(parents=True)
    check = named("SDSS")
    assert check.ok and "the others are at" in check.detail


def test_package_manager_decides_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert named("SExtractor").fix.startswith("conda install -c conda-forge astromatic-source-extractor")
    program(tmp_path, "apt-get", "")
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    assert named("SExtractor").fix == "sudo apt-get install source-extractor"
    monkeypatch.setenv("CONDA_PREFIX", "/opt/conda")
    assert named("PSFEx").fix.startswith("conda install")


def test_weights_missing_and_damaged(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path)
    check = named("weights")
    assert not check.ok and check.required and check.fix == "git checkout -- weights"
    for kind, name in weights.RELEASED.items():
        tensors = tmp_path / f"{name}.safetensors"
        tensors.write_bytes(kind.encode())
        card = {"file": tensors.name, "sha256": sha256(tensors), "kind": kind, "config": {}}
        write_json(tmp_path / f"{name}.json", card)
    assert named("weights").ok
    (tmp_path / f"{weights.RELEASED['bpnn']}.safetensors").write_bytes(b"torn")
    check = named("weights")
    assert not check.ok and "SHA-256" in check.detail


def test_little_disk_packages_of_the_wrong_version_and_what_fails_unforeseen(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9))
    check = named("disk")
    assert not check.ok and check.fix == "make clean" and "1 GB free" in check.detail
    text = '[project]\ndependencies = ["numpy>=99", "no-such-thing"]\noptional-dependencies = {book = []}\n'
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    check = named("packages")
    assert not check.ok and "numpy is" in check.detail and "no-such-thing is missing" in check.detail
    monkeypatch.setattr(doctor, "CHECKS", {"thing": lambda: 1 / 0})
    (check,) = doctor.examine().values()
    assert not check.ok and "division by zero" in check.detail and check.fix


@pytest.mark.parametrize("good", [True, False])
def test_the_table_shows_marks_and_commands(capsys, good):
    doctor.show({"thing": doctor.Check(good, "here [or] not", "make thing [now]")})
    text = capsys.readouterr().out
    assert "here [or] not" in text and ("make thing [now]" in text) == (not good)
