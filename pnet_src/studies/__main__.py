"""The command line of the studies, ``python -m studies``; it imports what it needs when it is called."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pnet.cli import DEFAULT_OUTPUT, FAILED, Manifest, Optional, Output, Quiet, Seed, progress
from pnet.common.errors import PNetError

app = typer.Typer(
    name="studies",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Comparisons beside the library: networks, stamps, speed, baselines, repeated epochs.",
)


class Study(StrEnum):
    """Comparisons that `study` makes."""

    detection = "detection"
    posterior = "posterior"
    stamps = "stamps"
    sampling = "sampling"
    stress = "stress"


@app.command()
def study(
    name: Annotated[Study, typer.Argument(help="What to compare.")],
    output: Output = DEFAULT_OUTPUT,
    frames: Annotated[Path | None, typer.Option(help="Folder with train/ and val/ in place of the profile's.")] = None,
    validation: Annotated[int | None, typer.Option(min=1, help="Validate on so many frames at most.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Batches in an epoch.")] = 100,
    seed: Seed = 2023,
    quiet: Quiet = False,
) -> None:
    """Compare networks, stamps or ways of sampling; writes results/studies/<name>.json."""
    from pnet.book import steps as running

    path = running.study(
        name.value,
        output,
        frames_folder=frames,
        validation=validation,
        epochs=epochs,
        steps=steps,
        seed=seed,
        progress=progress(quiet),
    )
    print(f"{path}")


@app.command()
def bench(
    frames: Annotated[int, typer.Option(min=1, help="Simulated frames to measure.")] = 20,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Threads of the networks; repeatable.")] = None,
    network: Annotated[bool, typer.Option(help="Time the detection net's forward pass in several ways.")] = True,
    training: Annotated[bool, typer.Option("--training", help="Time steps of training too.")] = False,
    release: Annotated[bool, typer.Option("--release", help="Copy the result into results/.")] = False,
    output: Output = Path("build/bench"),
    seed: Seed = 2023,
) -> None:
    """Time PNet and the classical baselines on the same frames."""
    from studies import bench as benchmark

    content = benchmark.run(output, frames=frames, seed=seed, threads=threads, network=network, training=training)
    for table in (benchmark.table, benchmark.forward_table, benchmark.training_table):
        text = table(content)
        if len(text):
            print(text.to_string(index=False), end="\n\n")
    if release:
        print(benchmark.release(output))


@app.command()
def tune_baseline(
    name: Annotated[str, typer.Argument(help="sextractor, psfex or photutils.")],
    frames: Annotated[
        Path | None, typer.Option(help="Folder with val/paper-*.fits and train/realistic-*.fits; $SKYMAKER_FRAMES.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Frames of each kind at most.")] = None,
    quiet: Quiet = False,
) -> None:
    """Choose a classical program's detection settings on validation frames, into data_manifests/baselines.yml."""
    from tqdm import tqdm

    from pnet.common.errors import ConfigError
    from pnet.simulation import recipe as simulation
    from studies import tuning

    folder = frames or simulation.frames_folder()
    if folder is None:
        raise ConfigError("--frames is not given and $SKYMAKER_FRAMES is not set; one of them must name a folder")
    entry = tuning.tune(
        name, folder, limit=limit, progress=lambda each: tqdm(each, desc=name, disable=not progress(quiet))
    )
    print(f"{name}: {entry['chosen']}")


@app.command()
def repeat(
    output: Output = DEFAULT_OUTPUT,
    detection: Annotated[
        str, typer.Option(help="Weights of the detection net: 'released', a name or a card.")
    ] = "released",
    refiner: Annotated[str, typer.Option(help="Weights of its refinement step, likewise.")] = "released",
    bpnn: Annotated[str, typer.Option(help="Weights of the Bayesian net: 'released', a name or a card.")] = "released",
    manifest: Manifest = "sdss-standard",
    optional: Optional = False,
    seed: Seed = 2023,
) -> None:
    """Measure the same stars at two epochs: do the error bars explain what differs?"""
    from studies import repeat as epochs

    weights = {"detection": detection, "refiner": refiner, "bpnn": bpnn}
    state = epochs.step(output, optional=optional, seed=seed, manifest=manifest, **weights)
    print("repeat: " + ("measured" if state["available"] else f"not measured: {state['reason']}"))


def main() -> None:
    """Run the command line; an error that PNet raises on purpose is printed without a traceback."""
    try:
        app()
    except PNetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
