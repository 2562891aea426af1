"""The command line. Every command imports what it needs when it is called, so that ``pnet --help`` is quick."""

import contextlib
import gc
import inspect
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from pnet.common.errors import ConfigError, PNetError
from pnet.sky.header import Given
from pnet.training.config import TrainConfig

FAILED = 2  # exit code of an error that PNet explains
app = typer.Typer(
    name="pnet",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Photometry and astrometry of stars with error bars, after Sun, Jia et al. (2023).",
)

Output = Annotated[Path, typer.Option("--output", "-O", help="Folder of the profile, relative to the project.")]
Seed = Annotated[int, typer.Option(help="All random numbers follow from it.")]
Manifest = Annotated[str, typer.Option(help="Name of a manifest in data_manifests/, or the path of one.")]
Optional = Annotated[bool, typer.Option("--optional", help="Where data is missing, say so and go on.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
Weights = Annotated[str, typer.Option(help="Weights of this network: a set, a name or a card.")]
Profile = Annotated[str, typer.Option(help="smoke, standard, paper, or the path of a profile.")]
Dataset = Literal["simulation", "realistic", "validation", "sdss"]
Engine = Literal["auto", "frames", "skymaker", "renderer"]
DEFAULT_OUTPUT = Path("build/standard")


def progress(quiet: bool) -> bool:
    """Bars are for people: none where nobody watches."""
    return not quiet and sys.stderr.isatty()


def option(name: str, kind: Any, default: Any) -> inspect.Parameter:
    """Return an option that several commands may share, for `with_options`."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def with_options(*options: inspect.Parameter) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these options beside its own; it gets them as keyword arguments."""

    def give(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters.values()
        function.__signature__ = inspect.Signature([*(each for each in own if each.kind != each.VAR_KEYWORD), *options])
        return function

    return give


def _settings(settings: type) -> list[inspect.Parameter]:
    """Return an option for every field of a dataclass that has a help text."""
    types = get_type_hints(settings)
    helps = {each: typer.Option(help=each.metadata["help"]) for each in fields(settings) if each.metadata}
    return [option(each.name, Annotated[types[each.name], text], each.default) for each, text in helps.items()]


MEASURING = (
    option("output", Output, DEFAULT_OUTPUT),
    *(option(kind, Weights, "released") for kind in ("detection", "bpnn")),
    option("manifest", Manifest, "sdss-standard"),
    option("optional", Optional, False),
    option("seed", Seed, 2023),
)
Methods = Annotated[list[str], typer.Option("--method", help="pnet, pnet_paper, baselines or one of them; repeatable.")]
METHODS = (
    option("methods", Methods, ["pnet", "pnet_paper", "baselines"]),
    *(option(f"paper_{kind}", Weights, "paper") for kind in ("detection", "bpnn")),
)


def tell(name: str, record: dict[str, Any]) -> None:
    """Say whether something was measured, or why not."""
    print(f"{name}: " + (f"not measured: {record['reason']}" if "reason" in record else "measured"))


@contextlib.contextmanager
def imports_kept() -> Iterator[None]:
    """Search nothing that is imported inside for garbage: again and again, it takes a third of a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def reporting(failures: list[PNetError]) -> Iterator[None]:
    """Print an error that PNet raises on purpose without a traceback, and remember it."""
    try:
        yield
    except PNetError as error:
        print(f"error: {error}", file=sys.stderr)
        failures.append(error)


def main(commands: typer.Typer = app) -> None:
    """Run the command line; an error that PNet raises on purpose is printed without a traceback."""
    failures = []
    with reporting(failures):
        commands()
    if failures:
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
    raise typer.Exit(0 if all(check.ok or not check.required for check in found.values()) else 1)


@app.command()
@with_options(*_settings(Given))
def measure(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="FITS files, compressed or not.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Catalogue, .ecsv or .fits, or a folder for several.")],
    confidence: Annotated[float, typer.Option(help="Least confidence of a detection, 0 to 1.")] = 0.3,
    weights: Annotated[str, typer.Option(help="released, or paper: the paper's own networks.")] = "released",
    detection: Weights | None = None,
    bpnn: Weights | None = None,
    check: Annotated[bool, typer.Option("--check", help="Try error bars on copies of the image's stars.")] = False,
    seed: Seed = 2023,
    **given: Any,
) -> None:
    """Measure every star of images: positions, magnitudes, error bars."""
    known, written, failures = Given(**given), set(), []
    with ThreadPoolExecutor(1) as pool, imports_kept():
        from pnet.common.fits_file import unpack

        first = pool.submit(unpack, images[0])  # beside the import of torch, which takes longer
        from pnet import measure as measuring
        from pnet.sky.image import complete

        networks = measuring.PNet.load(weights, detection=detection, bpnn=bpnn)
    for path in images:
        found = {}
        with reporting(failures):
            found = measuring.open_images(path, known, first.result() if path == images[0] else None)
        for name, read in found.items():
            with reporting(failures):
                target = measuring.catalogue_path(output, name, alone=len(images) == len(found) == 1)
                if target in written:
                    raise ConfigError(f"{path}: {target} was just written for another image of this name")
                frame = read()
                catalogue = networks.measure(frame, confidence, seed)
                complete(catalogue, frame)
                if check:
                    from pnet.book.figures import twins as pictures
                    from pnet.evaluation import twins

                    with reporting(failures):  # its catalogue is written all the same
                        pictures.save(*twins.of_catalogue(networks, frame, catalogue), target)
                measuring.write_catalogue(catalogue, target)
                written.add(target)
                print(f"{name}: {len(catalogue)} stars in {target}")
                empty = (f"{column} is empty: {reason}" for column, reason in catalogue.meta["empty"].items())
                for line in (*catalogue.meta["values"], *empty, *catalogue.meta.get("check", ())):
                    print(f"  {line}")
    if failures:
        raise typer.Exit(FAILED)


@app.command()
def simulate(
    output: Output = DEFAULT_OUTPUT,
    train: Annotated[int, typer.Option(min=0, help="Frames to train on.")] = 0,
    val: Annotated[int, typer.Option(min=0, help="Frames to validate on.")] = 0,
    test: Annotated[int, typer.Option(min=0, help="Frames to report on.")] = 120,
    kind: Annotated[str, typer.Option(help="Kind of field in data_manifests/simulation.yml.")] = "paper",
    engine: Annotated[Engine, typer.Option(help="auto: $SKYMAKER_FRAMES, else sky, else the renderer.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="SkyMaker processes at a time.")] = 2,
    seed: Seed = 2023,
    quiet: Quiet = False,
) -> None:
    """Make simulated frames with their truth."""
    from pnet.common.files import read_json
    from pnet.simulation import datasets

    counts = {"train": train, "val": val, "test": test}
    options = {"seed": seed, "kind": kind, "engine": engine, "workers": workers}
    path = datasets.simulate(output, counts=counts, progress=progress(quiet), **options)
    record = read_json(path)
    made = ", ".join(f"{len(files)} {split}" for split, files in record["splits"].items())
    print(f"frames: {made} (engine: {record['engine']}); {path}")


@app.command()
def sdss_manifest(
    fields: Annotated[int, typer.Option(min=1, help="How many fields.")] = 300,
    name: Annotated[str, typer.Option(help="Name of the manifest.")] = "sdss-paper",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="By default data_manifests/<name>.yml.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a manifest of this name.")] = False,
) -> None:
    """Choose SDSS fields by the stated rule from SkyServer and write their manifest."""
    from pnet.sdss import query as sdss_query

    manifest = sdss_query.build_manifest(fields, output=output, name=name, overwrite=overwrite)
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
    from pnet.sdss import files

    state = files.download(output, manifest, mirror=mirror, optional=optional, progress=progress(quiet))
    print(state["report"] if state["available"] else f"SDSS files cannot be had here: {state['reason']}")


@app.command()
@with_options(*_settings(TrainConfig))
def train(
    kind: Annotated[str, typer.Argument(help="detection or bpnn.")],
    output: Output = DEFAULT_OUTPUT,
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Train a network; an interrupted run goes on where it stopped."""
    from pnet.training import runs

    print(runs.train(TrainConfig(kind, **settings), output, progress=progress(quiet)))


@app.command()
def recalibrate(
    frames: Annotated[Path, typer.Option(help="Folder with val/ of simulated frames.")],
    card: Annotated[str, typer.Option(help="Card of the network, or 'released'.")] = "released",
    seed: Seed = 2023,
) -> None:
    """Fit the scale of the BPNN's errors to validation frames anew and keep it on its card."""
    from pnet.training import runs

    print(runs.recalibrate(card, frames, seed=seed))


@app.command()
def calibrate_confidence(
    card: Annotated[str, typer.Argument(help="Card of a detection net, or 'released'.")],
    frames: Annotated[Path, typer.Option(help="Folder with val/ (and train/) of simulated frames.")],
    seed: Seed = 2023,
    quiet: Quiet = False,
) -> None:
    """Fit the probability of a star to the confidence on validation frames and keep it on the card."""
    from pnet.evaluation import confidence

    result, before, after = confidence.calibrate_card(card, frames, seed=seed, progress=progress(quiet))
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
@with_options(*MEASURING, *METHODS)
def evaluate(
    dataset: Annotated[Dataset, typer.Option(help="What to measure.")],
    frames: Annotated[int, typer.Option(min=1, help="Simulated test frames.")] = 120,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Measure a data set with PNet and the baseline, beside truth and limit."""
    from pnet.evaluation import measurements

    tell(dataset, measurements.run(dataset, frames=frames, progress=progress(quiet), **options))


@app.command()
def run(
    notebook: Annotated[list[str], typer.Argument(help="Stem (05_detection), number (05) or path.")],
    profile: Profile = "standard",
    parameter: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="name=value, repeatable.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of numerical libraries.")] = 1,
) -> None:
    """Run notebooks with the parameters of a profile."""
    from pnet.book import execute
    from pnet.common.errors import ConfigError

    overrides = {}
    for item in parameter or []:
        name, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"-p {item}: must be name=value")
        overrides[name] = value
    for name in notebook:
        path = execute.run(name, profile=profile, overrides=overrides, threads=threads, progress=sys.stderr.isatty())
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
    from pnet.book import release
    from pnet.common import paths

    problems, compared = release.check(paths.ROOT / ledger, paths.ROOT / reference)
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
    profile: Profile = "standard",
    jobs: Annotated[int, typer.Option(min=1, help="Cores to use.")] = 2,
    memory: Annotated[int, typer.Option(min=1000, help="MB that steps side by side may take.")] = 8000,
) -> None:
    """Bring everything of a profile up to date (`make book`); other arguments go to Snakemake."""
    from pnet.book import execute

    page = execute.workflow(profile, jobs=jobs, memory_mb=memory, arguments=context.args)
    if page.is_file():
        print(f"The book is at {page}")
