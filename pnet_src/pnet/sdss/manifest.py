"""Manifests of SDSS data: which fields, which files, with which bytes.

A manifest is a YAML file in ``data_manifests/``::

    name: sdss-standard
    release: dr17
    rerun: 301
    rule: how the fields were chosen, in words
    fields:
    - run: 94
      camcol: 1
      field: 12
      split: test        # train, val or test; fields of one group are on one side
      group: run-94
      files:
      - {role: frame-g, path: dr17/…/frame-g-000094-1-0012.fits.bz2, bytes: 3412659, sha256: 3d75…}

A file whose ``sha256`` is not known yet gets it at its first download: it is written into the manifest.
`pnet.sdss.files` gets them.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pnet.common import paths
from pnet.common.errors import ConfigError, MissingError
from pnet.common.files import atomic_path, read_manifest, sha256

SPLITS = ("train", "val", "test")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class File:
    """One file of a field."""

    role: str  # frame-g, photoObj, psField, fpM-g or photoField
    path: str  # below sas/ of the Science Archive Server
    bytes: int | None = None
    sha256: str | None = None  # None until it was downloaded once
    required: bool = True  # but for psField and fpM, whose paths on the server are inferred: the project can do without
    url: str | None = None  # of a public copy of what the server does not hold in this form

    def __post_init__(self):
        parts = PurePosixPath(self.path)
        if not self.path or parts.is_absolute() or ".." in parts.parts or "\\" in self.path:
            wanted = "it must be a relative path below sas/ without '..'"
            raise ConfigError(f"path of {self.role} is {self.path!r}; {wanted}")
        if self.sha256 is not None and not _HASH.fullmatch(str(self.sha256)):
            raise ConfigError(f"{self.path}: sha256 is {self.sha256!r}; it must be 64 hexadecimal digits")


@dataclass(frozen=True)
class Field:
    """One field and its files; without a photoObj it serves as a real sky to inject stars into."""

    run: int
    camcol: int
    field: int
    files: tuple[File, ...]
    split: str = "test"  # train, val or test
    group: str = ""  # fields of a group show the same sky or share a calibration; they stay on one side of any split
    note: str = ""

    def __post_init__(self):
        for key in ("run", "camcol", "field"):
            if not isinstance(value := getattr(self, key), int) or value < 1:
                raise ConfigError(f"field {self.name}: {key} is {value!r}; it must be a positive integer")
        if self.split not in SPLITS:
            raise ConfigError(f"field {self.name}: split is {self.split!r}; allowed: {', '.join(SPLITS)}")

    @property
    def name(self) -> str:
        """As in ``94-1-12``."""
        return f"{self.run}-{self.camcol}-{self.field}"

    def file(self, role: str) -> File | None:
        """Return the file of a role, None where the manifest lists none."""
        return next((file for file in self.files if file.role == role), None)


def _given(item: File | Field) -> dict[str, Any]:
    """Return what of a file or a field is not the default, but for the split, which a reader wants to see."""
    return {
        entry.name: getattr(item, entry.name)
        for entry in dataclass_fields(item)
        if entry.name != "files" and (entry.name == "split" or getattr(item, entry.name) != entry.default)
    }


@dataclass
class Manifest:
    """A list of fields with the rule that chose them."""

    name: str
    rule: str
    fields: tuple[Field, ...]
    release: str = "dr17"
    rerun: int = 301
    query: str = ""
    source: Path | None = None  # the file it came from

    def __post_init__(self):
        names = Counter(entry.name for entry in self.fields)
        sides = Counter(group for group, _ in {(entry.group, entry.split) for entry in self.fields if entry.group})
        for what, counts in (("listed twice", names), ("groups on both sides of a split", sides)):
            wrong = sorted(name for name, count in counts.items() if count > 1)
            if wrong:
                raise ConfigError(f"manifest {self.name}: {what}: {', '.join(wrong)}")

    @classmethod
    def load(cls, name: str | os.PathLike = "sdss-standard") -> "Manifest":
        """Load a manifest by name (from ``data_manifests/``) or by path.

        A MissingError, which lists those there are, if there is no such manifest; a DataError or ConfigError if it is
        not YAML or holds something that is not allowed.
        """
        path = Path(name)
        if path.suffix not in (".yml", ".yaml"):
            path = paths.MANIFESTS / f"{name}.yml"
        if not path.is_file():
            known = ", ".join(sorted(entry.stem for entry in paths.MANIFESTS.glob("sdss*.yml"))) or "none"
            raise MissingError(
                f"manifest {path} does not exist; known: {known}. `pnet sdss-manifest` builds one of 300 fields"
            )
        content = read_manifest(path)
        if not isinstance(content, dict) or not isinstance(content.get("fields"), list):
            raise ConfigError(f"manifest {path}: needs keys name, rule and a list named fields")
        try:
            files = [tuple(File(**file) for file in entry.get("files", ())) for entry in content["fields"]]
            fields = tuple(Field(**entry | {"files": own}) for entry, own in zip(content["fields"], files, strict=True))
            return cls(**{"name": path.stem, "rule": "", **content, "fields": fields}, source=path)
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"manifest {path}: {error}") from error

    def save(self, path: str | os.PathLike) -> Path:
        """Write the manifest as YAML, atomically; return the path."""
        path = Path(path)
        content = {"name": self.name, "release": self.release, "rerun": self.rerun, "rule": self.rule}
        content |= {"query": self.query} if self.query else {}
        content["fields"] = [_given(entry) | {"files": [_given(file) for file in entry.files]} for entry in self.fields]
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000, default_flow_style=None)
        with atomic_path(path) as temporary:
            temporary.write_text(text)
        self.source = path
        return path

    def lock(self, files: Iterable[File], root: Path) -> None:
        """Write the bytes of files of unknown hash, which lie whole below `root`, into the manifest."""
        known = {
            file.path: replace(file, bytes=(root / file.path).stat().st_size, sha256=sha256(root / file.path))
            for file in files
        }
        if known and self.source is not None:
            own = [tuple(known.get(file.path, file) for file in entry.files) for entry in self.fields]
            self.fields = tuple(replace(entry, files=files) for entry, files in zip(self.fields, own, strict=True))
            self.save(self.source)

    def files(self, fields: Iterable[str] | None = None) -> list[File]:
        """Return the files, each once, of the fields asked for, all where None; a ConfigError if one is not there."""
        entries = self.fields if fields is None else [self.field(name) for name in fields]
        # a photoField serves every field of its run
        return list({file.path: file for entry in entries for file in entry.files}.values())

    def field(self, name: str) -> Field:
        """Return the field named like ``94-1-12``."""
        known = {entry.name: entry for entry in self.fields}
        if name not in known:
            raise ConfigError(f"manifest {self.name} has no field {name!r}; it has {', '.join(known)}")
        return known[name]
