"""Commands that make and judge networks: training, studies, calibration, release, speed."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pnet.cli_options import DEFAULT_OUTPUT, Dataset, Manifest, Output, Quiet, Seed, app, progress, train_app


class StarNetwork(StrEnum):
    """Networks of single stars."""

    refiner = "refiner"
    bpnn = "bpnn"


class Study(StrEnum):
    """Comparisons that `pnet study` makes."""

    detection = "detection"
    posterior = "posterior"
    stamps = "stamps"
    sampling = "sampling"
    stress = "stress"


@train_app.command("detection")
def train_detection(
    output: Output = DEFAULT_OUTPUT,
    config: Annotated[str, typer.Option(help="compact or paper.")] = "compact",
    dataset: Annotated[Dataset, typer.Option(help="Whose frames are mixed in.")] = Dataset.simulation,
    manifest: Manifest = "sdss-standard",
    epochs: Annotated[int, typer.Option(min=1)] = 60,
    steps: Annotated[int, typer.Option(min=1, help="Batches in an epoch.")] = 200,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    field_size: Annotated[int, typer.Option(min=64, help="Width of a training field in pixels.")] = 256,
    learning_rate: Annotated[float, typer.Option()] = 2e-3,
    injected: Annotated[str | None, typer.Option(help="SDSS manifest with frames to add stars to.")] = None,
    freeze_epochs: Annotated[int, typer.Option(min=0, help="Epochs with hourglasses and flux head held.")] = 0,
    start: Annotated[str | None, typer.Option(help="Pre-trained weights to begin with.")] = None,
    precision: Annotated[str, typer.Option(help="32-true or bf16-mixed.")] = "32-true",
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[str, typer.Option(help="How many, or auto.")] = "auto",
    simulated: Annotated[bool, typer.Option(help="Mix in the profile's simulated frames.")] = True,
    frames: Annotated[Path | None, typer.Option(help="Folder with train/ and val/ in place of the profile's.")] = None,
    validation: Annotated[int | None, typer.Option(min=1, help="Validate on so many frames at most.")] = None,
    seed: Seed = 2023,
    quiet: Quiet = False,
) -> None:
    """Train the Photometry-Detection Net; an interrupted run goes on where it stopped."""
    _train("detection", output, simulated, seed, quiet, locals())


@train_app.command("refiner")
def train_refiner(
    output: Output = DEFAULT_OUTPUT,
    config: Annotated[str, typer.Option(help="compact or paper.")] = "compact",
    dataset: Annotated[Dataset, typer.Option(help="Whose frames are mixed in.")] = Dataset.simulation,
    manifest: Manifest = "sdss-standard",
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    steps: Annotated[int, typer.Option(min=1, help="Batches in an epoch.")] = 100,
    batch_size: Annotated[int, typer.Option(min=1)] = 2048,
    learning_rate: Annotated[float, typer.Option()] = 2e-3,
    detection: Annotated[str, typer.Option(help="Weights of the net that finds the stars.")] = "released",
    freeze_epochs: Annotated[int, typer.Option(min=0, help="Epochs with the feature extraction held.")] = 0,
    start: Annotated[str | None, typer.Option(help="Pre-trained weights to begin with.")] = None,
    precision: Annotated[str, typer.Option(help="32-true or bf16-mixed.")] = "32-true",
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[str, typer.Option(help="How many, or auto.")] = "auto",
    simulated: Annotated[bool, typer.Option(help="Mix in the profile's simulated frames.")] = True,
    frames: Annotated[Path | None, typer.Option(help="Folder with train/ and val/ in place of the profile's.")] = None,
    validation: Annotated[int | None, typer.Option(min=1, help="Validate on so many frames at most.")] = None,
    seed: Seed = 2023,
    quiet: Quiet = False,
) -> None:
    """Train the refinement step of the detection net; an interrupted run goes on where it stopped."""
    _train("refiner", output, simulated, seed, quiet, locals())


@train_app.command("bpnn")
def train_bpnn(
    output: Output = DEFAULT_OUTPUT,
    config: Annotated[str, typer.Option(help="compact or paper.")] = "compact",
    dataset: Annotated[Dataset, typer.Option(help="Whose frames are mixed in.")] = Dataset.simulation,
    manifest: Manifest = "sdss-standard",
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    steps: Annotated[int, typer.Option(min=1, help="Batches in an epoch.")] = 100,
    batch_size: Annotated[int, typer.Option(min=1)] = 2048,
    learning_rate: Annotated[float, typer.Option()] = 2e-3,
    temperature: Annotated[float, typer.Option(help="Weight of the KL term; 1 is Eq. 12.")] = 1.0,
    detection: Annotated[str, typer.Option(help="Weights of the net that finds the stars.")] = "released",
    refiner: Annotated[str, typer.Option(help="Weights of its refinement step; none for none.")] = "released",
    freeze_epochs: Annotated[int, typer.Option(min=0, help="Epochs with the feature extraction held.")] = 0,
    start: Annotated[str | None, typer.Option(help="Pre-trained weights to begin with.")] = None,
    precision: Annotated[str, typer.Option(help="32-true or bf16-mixed.")] = "32-true",
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[str, typer.Option(help="How many, or auto.")] = "auto",
    simulated: Annotated[bool, typer.Option(help="Mix in the profile's simulated frames.")] = True,
    frames: Annotated[Path | None, typer.Option(help="Folder with train/ and val/ in place of the profile's.")] = None,
    validation: Annotated[int | None, typer.Option(min=1, help="Validate on so many frames at most.")] = None,
    seed: Seed = 2023,
    quiet: Quiet = False,
) -> None:
    """Train the Bayesian net; an interrupted run goes on where it stopped."""
    _train("bpnn", output, simulated, seed, quiet, locals())


def _train(kind: str, output: Path, simulated: bool, seed: int, quiet: bool, given: dict) -> None:
    """Hand the options of a training command on and say where the card is."""
    from pnet.book import steps

    own = ("output", "simulated", "frames", "validation", "seed", "quiet")
    settings = {name: value for name, value in given.items() if name not in own}
    settings["dataset"] = settings["dataset"].value
    if settings["devices"].isdigit():
        settings["devices"] = int(settings["devices"])
    card = steps.train(
        kind,
        output,
        settings=settings,
        seed=seed,
        simulated=simulated,
        frames_folder=given["frames"],
        validation=given["validation"],
        progress=progress(quiet),
    )
    print(f"weights and card: {card}")


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
def recalibrate(
    network: Annotated[StarNetwork, typer.Argument(help="Whose errors.")],
    frames: Annotated[Path, typer.Option(help="Folder with val/ of simulated frames.")],
    card: Annotated[str, typer.Option(help="Card of the network, or 'released'.")] = "released",
    seed: Seed = 2023,
) -> None:
    """Fit the scale of a network's errors to validation frames anew and keep it on its card."""
    from pnet.book import steps
    from pnet.training import star_run as star_training

    val = steps.frames_in(frames)["val"]
    print(star_training.recalibrate(network.value, card, val, seed=seed))


@app.command()
def calibrate_confidence(
    card: Annotated[str, typer.Argument(help="Card of a detection net, or 'released'.")],
    frames: Annotated[Path, typer.Option(help="Folder with val/ (and train/) of simulated frames.")],
    refiner: Annotated[str, typer.Option(help="Weights of the refinement step: 'released', name, card.")] = "released",
    method: Annotated[str, typer.Option(help="platt or isotonic.")] = "platt",
    seed: Seed = 2023,
    quiet: Quiet = False,
) -> None:
    """Fit the probability of a star to the confidence on validation frames and keep it on the card."""
    from tqdm import tqdm

    from pnet.evaluation import confidence

    def bar(files):
        return tqdm(files, desc="calibrate the confidence", disable=not progress(quiet))

    result, before, after = confidence.calibrate_card(
        card, frames, refiner=refiner, method=method, seed=seed, progress=bar
    )
    print(f"{result.n} detections, {result.n_stars} of them stars, in {result.data}")
    print(f"expected calibration error {before.error.value:.4f}, calibrated (cross-validated) {after.error.value:.4f}")
    print(f"threshold for fields with galaxies: {result.threshold}")


@app.command()
def release_weights(
    card: Annotated[Path, typer.Argument(help="Card of a training run, <output>/<network>/<network>-….json.")],
) -> None:
    """Copy a run's weights, card and history into weights/."""
    from pnet.training import record as training_record

    print(training_record.release(card))


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
