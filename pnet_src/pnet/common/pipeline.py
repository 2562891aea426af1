"""Fetch SDSS files as a step of a run."""

import os
from typing import Any

from pnet.common import paths
from pnet.common.errors import MissingError
from pnet.common.files import read_json, write_json

STATE = "download.json"


def download(
    output: str | os.PathLike,
    manifest: str,
    *,
    mirror: str | None = None,
    optional: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Fetch the files of a manifest; write and return what ``<output>/sdss/download.json`` tells.

    Parameters
    ----------
    optional : bool
        Where files cannot be had, record why instead of raising: pages then show released results.
    """
    from pnet.sdss.manifest import Manifest, fetch

    try:
        report = fetch(Manifest.load(manifest), mirror=mirror, progress=progress)
        state = {"available": True, "manifest": manifest, "reason": "", "report": str(report)}
    except MissingError as error:
        if not optional:
            raise
        state = {"available": False, "manifest": manifest, "reason": str(error)}
    write_json(paths.folder_of(output) / "sdss" / STATE, state)
    return state


def forget_unavailable(output: str | os.PathLike, manifest: str) -> None:
    """Delete the note that SDSS files could not be had if they can be had now, so that the step runs again."""
    path = paths.folder_of(output) / "sdss" / STATE
    if not path.is_file():
        return
    from pnet.sdss.manifest import Manifest, reachable

    try:
        known = read_json(path)
    except ValueError:
        known = {"available": False}
    if not known.get("available"):
        root = paths.data_root() / "sdss"
        complete = all((root / file.path).is_file() for file in Manifest.load(manifest).files() if file.required)
        if complete or reachable(timeout=3.0):
            path.unlink()
