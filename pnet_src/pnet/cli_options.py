"""The command line's root and the options that several commands share."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="pnet",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Photometry and astrometry of stars with error bars, after Sun, Jia et al. (2023).",
)
train_app = typer.Typer(no_args_is_help=True, help="Train a network on simulated fields.")
app.add_typer(train_app, name="train")

Output = Annotated[Path, typer.Option("--output", "-O", help="Folder of the profile, relative to the project.")]
Seed = Annotated[int, typer.Option(help="All random numbers follow from it.")]
Manifest = Annotated[str, typer.Option(help="Name of a manifest in data_manifests/, or the path of one.")]
Optional = Annotated[bool, typer.Option("--optional", help="Where data is missing, say so and go on.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
DEFAULT_OUTPUT = Path("build/standard")


class Dataset(StrEnum):
    """Data sets that can be measured."""

    simulation = "simulation"
    realistic = "realistic"
    validation = "validation"
    sdss = "sdss"
    coadd = "coadd"


def progress(quiet: bool) -> bool:
    """Bars are for people: none where nobody watches."""
    return not quiet and sys.stderr.isatty()
