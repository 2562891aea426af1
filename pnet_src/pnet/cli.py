"""The command line. Every command imports what it needs when it is called, so that ``pnet --help`` is quick."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pnet import cli_networks  # noqa: F401 (it adds its commands)
from pnet.cli_options import DEFAULT_OUTPUT, Dataset, Manifest, Optional, Output, Quiet, Seed, app, progress
from pnet.common.errors import PNetError

FAILED = 2  # exit code of an error that PNet explains


class Engine(StrEnum):
    """What makes simulated frames."""

    auto = "auto"
    frames = "frames"
    skymaker = "skymaker"
    renderer = "renderer"


def main() -> None:
    """Run the command line; an error that PNet raises on purpose is printed without a traceback."""
    try:
        app()
    except PNetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        import pnet

        print(pnet.__version__)
        raise typer.Exit


@app.command()
def doctor() -> None:
    """Say what this machine has, what it lacks, and with which command each missing thing is got."""
    from pnet.book import doctor as checks

    found = checks.examine()
    checks.show(found)
    raise typer.Exit(0 if all(check.ok or not check.required for check in found) else 1)


@app.command()
def measure(
    image: Annotated[Path, typer.Argument(help="An SDSS frame, or a FITS file with an extension SCI.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Catalogue to write, .ecsv or .fits.")],
    confidence: Annotated[float, typer.Option(help="Least confidence of a detection, 0 to 1.")] = 0.3,
    detection: Annotated[
        str, typer.Option(help="Weights of the detection net: 'released', a name or a card.")
    ] = "released",
    refiner: Annotated[str, typer.Option(help="Weights of its refinement step, likewise.")] = "released",
    bpnn: Annotated[str, typer.Option(help="Weights of the Bayesian net: 'released', a name or a card.")] = "released",
    seed: Seed = 2023,
) -> None:
    """Measure every star of an image: positions, magnitudes, error bars."""
    from pnet import measure as measuring

    frame = measuring.read_image(image)
    catalogue = measuring.PNet.load(detection, refiner, bpnn).measure(frame, confidence=confidence, seed=seed)
    measuring.write_catalogue(catalogue, output)
    print(f"{len(catalogue)} stars in {output}")


@app.command()
def simulate(
    output: Output = DEFAULT_OUTPUT,
    train: Annotated[int, typer.Option(min=0, help="Frames to train on.")] = 0,
    val: Annotated[int, typer.Option(min=0, help="Frames to validate on.")] = 0,
    test: Annotated[int, typer.Option(min=0, help="Frames to report on.")] = 120,
    kind: Annotated[str, typer.Option(help="Kind of field in data_manifests/simulation.yml.")] = "paper",
    engine: Annotated[Engine, typer.Option(help="auto: $SKYMAKER_FRAMES, else sky, else the renderer.")] = Engine.auto,
    workers: Annotated[int, typer.Option(min=1, help="SkyMaker processes at a time.")] = 2,
    seed: Seed = 2023,
    quiet: Quiet = False,
) -> None:
    """Make simulated frames with their truth."""
    from pnet.common.files import read_json
    from pnet.simulation import datasets

    path = datasets.simulate(
        output,
        counts={"train": train, "val": val, "test": test},
        seed=seed,
        kind=kind,
        engine=engine.value,
        workers=workers,
        progress=progress(quiet),
    )
    record = read_json(path)
    counts = ", ".join(f"{len(files)} {split}" for split, files in record["splits"].items())
    print(f"frames: {counts} (engine: {record['engine']}); {path}")


@app.command()
def sdss_manifest(
    fields: Annotated[int, typer.Option(min=1, help="How many fields.")] = 300,
    name: Annotated[str, typer.Option(help="Name of the manifest.")] = "sdss-paper",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="By default data_manifests/<name>.yml.")] = None,
    band: Annotated[str, typer.Option(help="One of ugriz.")] = "g",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a manifest of this name.")] = False,
) -> None:
    """Choose SDSS fields by the stated rule from SkyServer and write their manifest."""
    from pnet.sdss import query as sdss_query

    manifest = sdss_query.build_manifest(fields, output=output, name=name, band=band, overwrite=overwrite)
    print(f"{len(manifest.fields)} fields in manifest {name}; `pnet sdss-download --manifest {name}` fetches them")


@app.command()
def sdss_download(
    manifest: Manifest = "sdss-standard",
    output: Output = DEFAULT_OUTPUT,
    mirror: Annotated[str | None, typer.Option(help="Folder or URL of a sas tree; $SDSS_MIRROR by default.")] = None,
    optional: Optional = False,
    quiet: Quiet = False,
) -> None:
    """Fetch the files of a manifest, checked; repeat it to resume."""
    from pnet.common import pipeline

    state = pipeline.download(output, manifest, mirror=mirror, optional=optional, progress=progress(quiet))
    print(state["report"] if state["available"] else f"SDSS files cannot be had here: {state['reason']}")


@app.command()
def evaluate(
    dataset: Annotated[Dataset, typer.Option(help="What to measure.")],
    output: Output = DEFAULT_OUTPUT,
    frames: Annotated[int, typer.Option(min=1, help="Simulated test frames.")] = 120,
    detection: Annotated[
        str, typer.Option(help="Weights of the detection net: 'released', a name or a card.")
    ] = "released",
    refiner: Annotated[str, typer.Option(help="Weights of its refinement step, likewise.")] = "released",
    bpnn: Annotated[str, typer.Option(help="Weights of the Bayesian net: 'released', a name or a card.")] = "released",
    manifest: Manifest = "sdss-standard",
    method: Annotated[list[str] | None, typer.Option(help="pnet, baselines or one of them; default: all.")] = None,
    optional: Optional = False,
    seed: Seed = 2023,
    quiet: Quiet = False,
) -> None:
    """Measure a data set with PNet and the baseline, beside truth and limit."""
    from pnet.book import steps
    from studies import coadd

    state = steps.evaluate(
        dataset.value,
        output,
        optional=optional,
        progress=progress(quiet),
        frames=frames,
        detection=detection,
        refiner=refiner,
        bpnn=bpnn,
        manifest=manifest,
        methods=tuple(method or ("pnet", "baselines")),
        seed=seed,
        source=(lambda: coadd.source(manifest, progress(quiet))) if dataset == "coadd" else None,
    )
    print(f"{dataset.value}: " + ("measured" if state["available"] else f"not measured: {state['reason']}"))


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


@app.command()
def run(
    notebook: Annotated[list[str], typer.Argument(help="Stem (05_detection), number (05) or path.")],
    profile: Annotated[str, typer.Option(help="smoke, standard, paper, or the path of a profile.")] = "standard",
    parameter: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="name=value, repeatable.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of numerical libraries.")] = 1,
) -> None:
    """Run notebooks with the parameters of a profile."""
    from pnet.book import runner
    from pnet.common.errors import ConfigError

    overrides = {}
    for item in parameter or []:
        name, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"-p {item}: must be name=value")
        overrides[name] = value
    for name in notebook:
        path = runner.run(name, profile=profile, overrides=overrides, threads=threads, progress=runner.interactive())
        print(path)


@app.command()
def book(
    output: Output = DEFAULT_OUTPUT,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse notebooks that wrote warnings.")] = False,
) -> None:
    """Put prose and executed notebooks together as a website."""
    from pnet.book import site
    from pnet.common import paths

    print(site.build(paths.ROOT / output, strict=strict))


@app.command()
def pair(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a pair is out of step.")] = False,
) -> None:
    """Write the output-free .ipynb beside each notebook's source."""
    from pnet.book import notebooks

    behind = [path.stem for path in notebooks.sources() if not notebooks.pair(path, check=check)]
    for stem in behind:
        print(f"{stem}: {'out of step; `make notebooks` mends it' if check else 'written'}")
    raise typer.Exit(1 if check and behind else 0)


@app.command()
def ledger_check(
    ledger: Annotated[Path, typer.Argument(help="Regenerated ledger.")] = Path("build/standard/ledger.json"),
    reference: Annotated[Path, typer.Argument(help="Committed ledger.")] = Path("results/ledger.json"),
) -> None:
    """Compare the numbers of a run with the committed ones; fail where they contradict each other."""
    from pnet.book import steps
    from pnet.common import paths

    problems, compared = steps.check_ledger(paths.ROOT / ledger, paths.ROOT / reference)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{compared} numbers of {ledger} compared with {reference}: {len(problems)} contradict")
    if not compared:
        print("nothing was compared: this run measured nothing that the committed ledger holds", file=sys.stderr)
    raise typer.Exit(1 if problems or not compared else 0)


@app.command()
def release_results(output: Output = DEFAULT_OUTPUT) -> None:
    """Copy a whole run's measurements and ledger into results/."""
    from pnet.book import release

    for path in release.release_results(output):
        print(path)


@app.command("make", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def make(
    context: typer.Context,
    profile: Annotated[str, typer.Option(help="smoke, standard, paper, or the path of a profile.")] = "standard",
    jobs: Annotated[int, typer.Option(min=1, help="Cores to use.")] = 2,
    memory: Annotated[int, typer.Option(min=1000, help="MB that steps side by side may take.")] = 8000,
) -> None:
    """Bring everything of a profile up to date (`make book`); other arguments go to Snakemake."""
    from pnet.book import workflow

    page = workflow.run(profile, jobs=jobs, memory_mb=memory, arguments=context.args)
    if page.is_file():
        print(f"The book is at {page}")
