"""Running notebooks with papermill (parameters checked, outputs deterministic, nothing half-done published), and the
whole workflow with Snakemake."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from pnet.book import notebooks, profiles
from pnet.common import paths
from pnet.common.errors import PNetError
from pnet.common.files import atomic_path

if TYPE_CHECKING:
    from nbformat import NotebookNode

_ADDRESS = re.compile(r"(?<= at )0x[0-9a-fA-F]{6,}")


class NotebookError(PNetError, RuntimeError):
    """A notebook stopped with an error."""


def run(
    name: str | os.PathLike,
    *,
    profile: str | Path | profiles.Profile = "standard",
    overrides: dict[str, Any] | None = None,
    threads: int = 1,
    progress: bool = False,
) -> Path:
    """Run a notebook with the parameters of a profile and return the executed copy.

    It is written to ``<output>/notebooks/NN_name.ipynb`` when every cell has run; before that, and after a
    failure, nothing stands there. The copy of a failed run goes to ``<output>/failed/``.

    Parameters
    ----------
    name : str or path
        See `notebooks.find`.
    overrides : dict, optional
        Parameters that take the place of the profile's, see `notebooks.parameters`.
    threads : int
        Of numerical libraries in the notebook's kernel.
    progress : bool
        Show a bar of cells on the terminal.

    Raises
    ------
    ConfigError
        For an unknown or mistyped parameter, profile or section.
    NotebookError
        If a cell fails or the kernel dies; the message tells the cell and the error.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from rich.text import Text
    from traitlets.config import Config

    source = notebooks.find(name)
    stem = source.stem
    if not isinstance(profile, profiles.Profile):
        profile = profiles.load(profile)
    notebook = notebooks.read(source)
    values = notebooks.parameters(notebook, {**profile.parameters(stem), **(overrides or {})}, stem)
    output = paths.ROOT / values.get("output", profile.output)
    target, failed = (output / folder / f"{stem}.ipynb" for folder in ("notebooks", "failed"))
    target.unlink(missing_ok=True)  # an old copy must not pass for this run's, should this run fail
    options = {
        "kernel_name": "python3",
        "cwd": paths.ROOT,
        "progress_bar": {"desc": stem, "leave": False} if progress else False,
        "coalesce_streams": True,  # how often a stream is flushed must not show
        "extra_arguments": ["--IPKernelApp.log_level=50"],  # it calls the interrupt of its own shutdown an error
    }
    error = ""
    # socket paths must stay below about 100 characters, which a temporary folder on macOS may exceed
    short = "/tmp" if os.access("/tmp", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="pnet-", dir=short, ignore_cleanup_errors=True) as folder,
        mock.patch.dict(os.environ, _environment(folder, threads)),
    ):
        # socket files: two kernels that start at once cannot be given the same TCP port
        sockets = Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})
        copy = f"{folder}/{stem}.ipynb"  # saved after every cell; of a run that failed, that is what is left
        try:
            papermill.execute_notebook(notebook, copy, values, config=sockets, **options)
        except PapermillExecutionError as failure:
            error = f"cell {failure.exec_count}:\n" + Text.from_ansi("\n".join(failure.traceback)).plain.rstrip()
        except DeadKernelError:
            error = "the kernel died without a word; most often the machine ran out of memory"
        executed = nbformat.read(copy, as_version=4)
    clean(executed)
    with atomic_path(failed if error else target) as temporary:
        nbformat.write(executed, temporary)
    if error:
        raise NotebookError(f"notebook {stem} failed; see {os.path.relpath(failed, paths.ROOT)}\n{error}")
    failed.unlink(missing_ok=True)
    return target


def _environment(folder: str, threads: int) -> dict[str, str]:
    """Return what a kernel inherits: quiet bars, fixed hashing, inline figures, places of its own in a folder."""
    return {
        "IPYTHONDIR": f"{folder}/ipython",  # no start-up files or history of the user's
        "JUPYTER_RUNTIME_DIR": f"{folder}/runtime",
        "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one that the user installed by that name
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        **{f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")},
        "PNET_ROOT": str(paths.ROOT),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONHASHSEED": "0",
        # tqdm says so where a library loads its bars for notebooks, which are switched off below
        "PYTHONWARNINGS": "ignore:IProgress not found",
        "TQDM_DISABLE": "1",  # bars would end up in the pages
    }


def clean(notebook: "NotebookNode") -> None:
    """Take out of an executed notebook what differs between two equal runs, and hide the injected parameters."""
    notebook.metadata.get("language_info", {}).pop("version", None)
    root = str(paths.ROOT) + os.sep
    for holder in (notebook, *notebook.cells):
        for key in ("papermill", "widgets", "execution"):
            holder.metadata.pop(key, None)
    for cell in notebook.cells:
        if "injected-parameters" in (tags := cell.metadata.get("tags", [])):
            cell.metadata["tags"] = [*tags, "remove-input"]
        for output in cell.get("outputs", []):
            texts = output if output.output_type == "stream" else output.get("data", {})
            for kind, text in texts.items():
                if (kind == "text" or kind.startswith("text/")) and isinstance(text, str):
                    texts[kind] = _ADDRESS.sub("0x…", text).replace(root, "")
    notebooks.set_ids(notebook)


def workflow(profile: str, *, jobs: int, memory_mb: int, arguments: list[str]) -> Path:
    """Bring everything of a profile up to date and return the first page of its site: the profile is checked, then
    Snakemake runs what is not up to date.

    Parameters
    ----------
    profile : str
        Name, or path of a file.
    jobs : int
        Cores to use.
    memory_mb : int
        Memory that the steps running side by side may take together, as they declare it.
    arguments : list of str
        More arguments for Snakemake; targets among them take the place of the site.

    Raises
    ------
    ConfigError
        If the profile asks for something that does not exist.
    PNetError
        If a step fails; what it said stands above.
    """
    from pnet.sdss import files  # slow to import

    output = paths.ROOT / profiles.load(profile).check().output
    files.forget_unavailable(output)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.ROOT / "Snakefile")]
    command += ["--directory", str(paths.ROOT), "--configfile", str(profiles.find(profile))]
    command += ["--quiet", "rules", "host", "--resources", f"mem_mb={memory_mb}"]
    command += ["--rerun-incomplete", "--keep-going", "--cores", str(jobs), *arguments]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        raise PNetError("a step failed, see above; the same command goes on from there")
    return output / "site" / "index.html"
