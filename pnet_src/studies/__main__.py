"""The command line of the studies: ``python -m studies <command>``. Each imports what it needs when it is called."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from pnet.cli import DEFAULT_OUTPUT, MEASURING, METHODS, Output, Quiet, Seed, main, progress, tell, with_options
from pnet.common import paths
from pnet.common.errors import ConfigError
from pnet.common.files import write_json
from pnet.simulation.datasets import frames_folder

app = typer.Typer(
    name="studies",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="What compares and times PNet; tables of chapters 9 and 10.",
)
Validation = Annotated[int | None, typer.Option(min=1, help="Validate on so many frames at most.")]


def _command(name: str, **options: Any) -> str:
    """Return the command to record: paths as everybody has them, options that are None left out."""
    given = {key: paths.shown(value) if isinstance(value, Path) else value for key, value in options.items()}
    words = [f"--{key} {value}" for key, value in given.items() if value is not None]
    return " ".join(["python -m studies", name, *words])


def _comparison(name: str, learning_rate: float, words: str) -> None:
    """Add the command that trains and compares the variants of a study; an interrupted one goes on where it stopped."""

    @app.command(name, help=words)
    def command(
        output: Output = DEFAULT_OUTPUT,
        frames: Annotated[Path | None, typer.Option(help="Folder with train/ and val/, not the profile's.")] = None,
        validation: Validation = None,
        epochs: Annotated[int, typer.Option(min=1)] = 4,
        steps: Annotated[int, typer.Option(min=1, help="Batches in an epoch.")] = 100,
        seed: Seed = 2023,
        quiet: Quiet = False,
    ) -> None:
        from pnet.training import sets
        from pnet.training.config import FitConfig
        from studies import clipping, detection, stars

        given = {"validation": validation, "epochs": epochs, "steps": steps, "seed": seed}
        options = {"command": _command(name, output=output, frames=frames, **given), "progress": progress(quiet)}
        chosen = sets.simulated(output, frames, validation)
        budget = FitConfig(epochs, steps, learning_rate, seed=seed)
        run = {"detection": detection.run, "clipping": clipping.run}.get(name, partial(stars.run, name))
        print(run(output, chosen, budget, **options))


_comparison("detection", 2e-3, "Train the paper's detection net as written, with each change to ours, and with all.")
_comparison("clipping", 1e-3, "Train the paper's BPNN with clipped and with free gradients.")
_comparison("posterior", 3e-3, "Compare flipout, dropout, an ensemble and a plain network.")
_comparison("stamps", 3e-3, "Compare sizes of the stamp, and what the network is told beside it.")


@app.command()
def freezing(
    output: Output = DEFAULT_OUTPUT,
    epochs: Annotated[int, typer.Option(min=2)] = 24,
    steps: Annotated[int, typer.Option(min=1, help="Batches in an epoch.")] = 25,
    seed: Seed = 2023,
    quiet: Quiet = False,
) -> None:
    """Tune the paper's detection net on real frames, first with its hourglasses frozen, and free throughout."""
    from pnet.training.config import FitConfig
    from studies import freezing as tuned

    command = _command("freezing", output=output, epochs=epochs, steps=steps, seed=seed)
    budget = FitConfig(epochs, steps, 5e-4, seed=seed)
    print(tuned.run(output, budget, command=command, progress=progress(quiet)))


@app.command()
def sampling(seed: Seed = 2023) -> None:
    """Time the Monte Carlo samples of the Bayesian net."""
    from studies import stars

    print(stars.sampling(seed=seed, command=_command("sampling", seed=seed)))


@app.command()
def stress(
    output: Output = DEFAULT_OUTPUT, validation: Validation = 30, seed: Seed = 2023, quiet: Quiet = False
) -> None:
    """Measure stars unlike those of training: do the error bars know?"""
    from studies import stress as strange

    command = _command("stress", output=output, seed=seed)
    print(strange.run(output, validation=validation, seed=seed, command=command, progress=progress(quiet)))


@app.command()
def bench(
    frames: Annotated[int, typer.Option(min=1, help="Simulated frames to measure.")] = 20,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Threads of the networks; repeatable.")] = None,
    training: Annotated[bool, typer.Option("--training", help="Time steps of training too.")] = False,
    release: Annotated[bool, typer.Option("--release", help="Copy the result into results/.")] = False,
    output: Output = Path("build/bench"),
    seed: Seed = 2023,
) -> None:
    """Time PNet and the classical baselines on the same frames."""
    from studies import bench as benchmark

    content = benchmark.run(output, frames=frames, seed=seed, threads=threads, training=training)
    for part in benchmark.COLUMNS:
        text = benchmark.table(content, part)
        if len(text):
            print(text.to_string(index=False), end="\n\n")
    if release:
        write_json(paths.RESULTS / benchmark.FILE, content)
        print(paths.RESULTS / benchmark.FILE)


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
    from studies import tuning

    folder = frames or frames_folder()
    if folder is None:
        raise ConfigError("--frames is not given and $SKYMAKER_FRAMES is not set; one of them must name a folder")
    entry = tuning.tune(name, folder, limit=limit, progress=progress(quiet))
    print(f"{name}: {entry['chosen']}")


@app.command()
@with_options(*MEASURING, *METHODS)
def coadd(quiet: Quiet = False, **options: Any) -> None:
    """Measure the SDSS field that the co-add of Stripe 82 covers, with the co-add as truth."""
    from pnet.evaluation import measurements
    from studies import coadd as deeper

    frames = partial(deeper.source, options["manifest"], progress(quiet))
    tell("coadd", measurements.run(deeper.DATASET, source=frames, progress=progress(quiet), **options))


@app.command()
@with_options(*MEASURING)
def repeat(**options: Any) -> None:
    """Measure the same stars at two epochs: do the error bars explain what differs?"""
    from studies import repeat as epochs

    tell("repeat", epochs.run(**options))


if __name__ == "__main__":
    main(app)
