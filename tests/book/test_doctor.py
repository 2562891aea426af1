"""The doctor: what is there, what is missing, and one command for each lack."""

import pytest

from pnet.book import doctor
from pnet.common import paths


def named(name):
    return next(check for check in doctor.examine() if check.name.startswith(name))


def program(folder, name, says):
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_everything_is_looked_at_and_every_lack_has_one_command(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no program at all
    found = doctor.examine()
    names = " ".join(check.name for check in found)
    for wanted in ("Python", "torch", "sky", "SExtractor", "PSFEx", "SDSS", "disk", "weights"):
        assert wanted in names
    for check in found:
        if not check.ok and not check.name.startswith("Stuff"):  # of which there is no package
            assert check.fix and "\n" not in check.fix, check


def test_programs_on_the_path_are_found_with_their_versions(monkeypatch, tmp_path):
    program(tmp_path, "sky", "SkyMaker version 3.10.5 (2014-03-19)")
    program(tmp_path, "sex", "SExtractor version 2.28.0 (2023-06-12)")
    program(tmp_path, "psfex", "PSFEx version 3.24.1 (2023-01-01)")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, version in (("SkyMaker", "3.10.5"), ("SExtractor", "2.28.0"), ("PSFEx", "3.24.1")):
        check = named(name)
        assert check.ok and version in check.detail and str(tmp_path) in check.detail


def test_debians_sextractor_is_one(monkeypatch, tmp_path):
    program(tmp_path, "source-extractor", "Source Extractor version 2.25.0 (2018-02-08)")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert named("SExtractor").ok


def test_another_program_of_that_name_is_not_taken_for_it(monkeypatch, tmp_path):
    program(tmp_path, "sky", "Sky terminal 1.2.3")
    monkeypatch.setenv("PATH", str(tmp_path))
    check = named("SkyMaker")
    assert not check.ok and "this is not SkyMaker" in check.detail


def test_a_variable_that_names_nothing_is_an_error_to_unset(monkeypatch):
    monkeypatch.setenv("SKY", "/no/such/sky")
    check = named("SkyMaker")
    assert not check.ok and check.required and check.fix == "unset SKY"


def test_package_manager_decides_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert named("SExtractor").fix.startswith("conda install -c conda-forge astromatic-source-extractor")
    program(tmp_path, "apt-get", "")
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    assert named("SExtractor").fix == "sudo apt-get install source-extractor"
    monkeypatch.setenv("CONDA_PREFIX", "/opt/conda")
    assert named("PSFEx").fix.startswith("conda install")


def test_folder_of_skymaker_frames(monkeypatch, tmp_path):
    monkeypatch.setenv("SKYMAKER_FRAMES", str(tmp_path))
    assert named("SkyMaker").ok
    monkeypatch.setenv("SKYMAKER_FRAMES", str(tmp_path / "none"))
    check = named("SkyMaker")
    assert not check.ok and check.required and check.fix == "unset SKYMAKER_FRAMES"


def test_sdss_mirror(monkeypatch, tmp_path):
    monkeypatch.setenv("PNET_DATA", str(tmp_path / "data"))
    (tmp_path / "dr17").mkdir()
    monkeypatch.setenv("SDSS_MIRROR", str(tmp_path))
    check = named("SDSS")
    assert check.ok and "the others are at" in check.detail
    monkeypatch.setenv("SDSS_MIRROR", str(tmp_path / "none"))
    check = named("SDSS")
    assert not check.ok and check.fix == "unset SDSS_MIRROR" and not check.required


def test_weights_missing_and_damaged(monkeypatch, tmp_path):
    from pnet.common.files import sha256, write_json
    from pnet.stars import weights

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


def test_little_disk(monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9))
    check = named("disk")
    assert not check.ok and check.fix == "make clean" and "1 GB free" in check.detail


def test_packages_of_the_wrong_version(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["numpy>=99", "no-such-thing"]\noptional-dependencies = {book = []}\n'
    )
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    check = named("packages")
    assert not check.ok and "numpy is" in check.detail and "no-such-thing is missing" in check.detail


def test_a_check_that_fails_unforeseen_says_so(monkeypatch):
    def _broken():
        raise ZeroDivisionError("what now")

    monkeypatch.setattr(doctor, "CHECKS", {"thing": _broken})
    (check,) = doctor.examine()
    assert not check.ok and "what now" in check.detail and check.fix


@pytest.mark.parametrize("good", [True, False])
def test_the_table_shows_marks_and_commands(capsys, good):
    doctor.show([doctor.Check(good, "here [or] not", "make thing [now]", name="thing")])
    text = capsys.readouterr().out
    assert "here [or] not" in text
    assert ("make thing [now]" in text) == (not good)
