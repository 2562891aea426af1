# What depends on what. Every rule is one call of the command line; `make book` calls this file through `pnet make`.
# A rule's inputs are its data and the rooms of the library at and below its own, so that a change runs again just what
# may depend on it; its params hold the settings of the profile, with the same effect.
#
# A profile is Snakemake's own configuration: snakemake --configfile notebooks/profiles/smoke.yml
import os
import shutil
import sys
from pathlib import Path

from pnet.book import notebooks, profiles
from pnet.common import paths, rooms

if not workflow.configfiles:
    configfile: "notebooks/profiles/standard.yml"

STEMS = [source.stem for source in notebooks.sources()]
FILE = workflow.configfiles[-1]
PROFILE = profiles.of(Path(FILE).stem, config)
OUT = PROFILE.output
TIMES = f"{OUT}/benchmarks"  # what each rule took, for the page of run times
SEED = PROFILE.common.get("seed", 2023)
KINDS = ("detection", "bpnn")
PNET = f"'{sys.executable}' -m pnet"
STUDIES = f"'{sys.executable}' -m studies"
STUDIED = [f"pnet_src/studies/{name}.py" for name in ("__main__", "coadd", "repeat", "stripe82")]  # which measure frames
TRAINS = {kind: f"train-{kind}" in PROFILE.steps for kind in KINDS}
FRAMES = os.environ.get("SKYMAKER_FRAMES", "")
ENGINE = f"frames of {FRAMES}" if FRAMES else "skymaker" if shutil.which(os.environ.get("SKY", "sky")) else "renderer"
SEXTRACTOR = next(filter(None, map(shutil.which, ("source-extractor", "sex", "sextractor"))), "sep")
SEXTRACTOR += f", {shutil.which('psfex') or 'no psfex'}"  # what is installed decides what is measured
MIRROR = os.environ.get("SDSS_MIRROR", "")
MEMORY = 2500  # MB that a measuring or plotting step may take; two of them fit beside each other


def relative(files):
    return [os.path.relpath(path, paths.ROOT) for path in files]


def code(room, **options):
    """Files of a room of the library and of those that it may import from, relative to the project's root."""
    return relative(rooms.code(room, **options))


def code_of(stem):
    """Files that a notebook depends on: itself, the rooms below the book, and of book and studies what it imports."""
    source = paths.NOTEBOOKS / f"{stem}.md"
    cells = [cell.source for cell in notebooks.read(source).cells if cell.cell_type == "code"]
    used = rooms.reached("\n".join(["from pnet.book import execute", *cells]))
    style = rooms.SOURCE / "pnet/book/figures/pnet.mplstyle"
    return sorted({*code("evaluation"), *relative([source, style, *used.values()])})


def options(step):
    return " ".join(f"'{word}'" for word in PROFILE.options(step))


def weights(kind):
    """The card of the weights to measure with, a rule's input."""
    named = PROFILE.weights(kind)
    return f"weights/{kind}-compact.json" if named == "released" else named


WEIGHTS, PAPER = (
    " ".join(f"--{name.replace('_', '-')} {card}" for name, card in PROFILE.measuring().items() if name.startswith("paper_") == paper)
    for paper in (False, True)
)
CARDS = [*map(weights, KINDS), *(f"weights/{kind}-paper-narrow.json" for kind in KINDS)]


def record(kind):
    """What chapters 03 and 04 show: this profile's training run, or the released one."""
    return [PROFILE.card(kind)] if TRAINS[kind] else [f"weights/{kind}-compact.json", f"weights/{kind}-compact.csv"]


def released(folder):
    """Released results, which a chapter shows where this run has none of its own."""
    return sorted(str(path) for path in Path("results", folder).glob("*") if path.is_file())


onstart:
    PROFILE.check_machine()  # not after hours of simulation; a dry run does without

localrules: all

rule all:
    input: f"{OUT}/site/index.html"

rule simulate:
    input: code("simulation"), "data_manifests/simulation.yml"
    output: f"{OUT}/simulation/simulation.json"
    benchmark: f"{TIMES}/simulate.tsv"
    params: options=options("simulate"), seed=SEED, engine=ENGINE
    threads: workflow.cores
    resources: mem_mb=4000
    shell: "{PNET} simulate --output {OUT} --seed {params.seed} --workers {threads} {params.options}"

rule sdss_download:
    input: code("sdss", without=("sky", "simulation")), "data_manifests/sdss-standard.yml"
    output: f"{OUT}/sdss/download.json"
    benchmark: f"{TIMES}/sdss_download.tsv"
    params: mirror=MIRROR
    resources: mem_mb=500
    shell: "{PNET} sdss-download --output {OUT} --optional"

rule train_detection:
    input: f"{OUT}/simulation/simulation.json", code("training")
    output: PROFILE.card("detection") if TRAINS["detection"] else f"{OUT}/detection/none.json"
    benchmark: f"{TIMES}/train_detection.tsv"
    params: options=options("train-detection"), seed=SEED
    threads: workflow.cores
    resources: mem_mb=6000
    shell: "OMP_NUM_THREADS={threads} {PNET} train detection --output {OUT} --seed {params.seed} {params.options}"

rule train_bpnn:
    input: f"{OUT}/simulation/simulation.json", code("training"), weights("detection")
    output: PROFILE.card("bpnn") if TRAINS["bpnn"] else f"{OUT}/bpnn/none.json"
    benchmark: f"{TIMES}/train_bpnn.tsv"
    params: options=options("train-bpnn"), seed=SEED, detection=PROFILE.weights("detection")
    threads: workflow.cores
    resources: mem_mb=6000
    shell: "OMP_NUM_THREADS={threads} {PNET} train bpnn --output {OUT} --seed {params.seed} --detection {params.detection} {params.options}"

rule trained:
    input: [PROFILE.card(kind) for kind in KINDS if TRAINS[kind]]

rule measure_simulation:
    input: f"{OUT}/simulation/simulation.json", code("evaluation", without=("training",)), *CARDS
    output: f"{OUT}/measurements/simulation.json"
    benchmark: f"{TIMES}/measure_simulation.tsv"
    params: frames=PROFILE.steps.get("simulate", {}).get("test", 120), seed=SEED, baseline=SEXTRACTOR,
        weights=f"{WEIGHTS} {PAPER}"
    resources: mem_mb=MEMORY
    shell: "{PNET} evaluate --dataset simulation --output {OUT} --seed {params.seed} --frames {params.frames} {params.weights}"

rule simulate_realistic:
    input: code("simulation"), "data_manifests/simulation.yml"
    output: f"{OUT}/realistic/simulation.json"
    benchmark: f"{TIMES}/simulate_realistic.tsv"
    params: options=options("simulate-realistic"), seed=SEED, engine=ENGINE
    threads: workflow.cores
    resources: mem_mb=4000
    shell: "{PNET} simulate --kind realistic --output {OUT} --seed {params.seed} --workers {threads} {params.options}"

rule measure_realistic:
    input: f"{OUT}/realistic/simulation.json", code("evaluation", without=("training",)), *CARDS
    output: f"{OUT}/measurements/realistic.json"
    benchmark: f"{TIMES}/measure_realistic.tsv"
    params: frames=PROFILE.steps.get("simulate-realistic", {}).get("test", 120), seed=SEED, baseline=SEXTRACTOR,
        weights=f"{WEIGHTS} {PAPER}"
    resources: mem_mb=MEMORY
    shell: "{PNET} evaluate --dataset realistic --output {OUT} --seed {params.seed} --frames {params.frames} {params.weights}"

rule measure_validation:
    input: f"{OUT}/simulation/simulation.json", code("evaluation", without=("training",)), *CARDS
    output: f"{OUT}/measurements/validation.json"
    benchmark: f"{TIMES}/measure_validation.tsv"
    params: frames=PROFILE.steps.get("simulate", {}).get("val", 120), seed=SEED, weights=f"{WEIGHTS} {PAPER}"
    resources: mem_mb=MEMORY
    shell: "{PNET} evaluate --dataset validation --output {OUT} --seed {params.seed} --frames {params.frames} --method pnet {params.weights}"

rule measure_sdss:
    input: f"{OUT}/sdss/download.json", code("evaluation", without=("training",)), *CARDS
    output: f"{OUT}/measurements/sdss.json"
    benchmark: f"{TIMES}/measure_sdss.tsv"
    params: seed=SEED, baseline=SEXTRACTOR, weights=f"{WEIGHTS} {PAPER}"
    resources: mem_mb=MEMORY
    shell: "{PNET} evaluate --dataset sdss --output {OUT} --seed {params.seed} --optional {params.weights}"

rule measure_coadd:
    input: f"{OUT}/sdss/download.json", "data_manifests/stripe82.yml", code("evaluation", without=("training",)), *STUDIED, *CARDS
    output: f"{OUT}/measurements/coadd.json"
    benchmark: f"{TIMES}/measure_coadd.tsv"
    params: seed=SEED, baseline=SEXTRACTOR, weights=f"{WEIGHTS} {PAPER}"
    resources: mem_mb=MEMORY
    shell: "{STUDIES} coadd --output {OUT} --seed {params.seed} --optional {params.weights}"

rule repeat:
    input: f"{OUT}/sdss/download.json", "data_manifests/stripe82.yml", code("evaluation", without=("training",)), *STUDIED, *CARDS
    output: f"{OUT}/measurements/repeat.json"
    benchmark: f"{TIMES}/repeat.tsv"
    params: seed=SEED, weights=WEIGHTS
    resources: mem_mb=MEMORY
    shell: "{STUDIES} repeat --output {OUT} --seed {params.seed} --optional {params.weights}"

# What a notebook reads besides its own code.
BEYOND = [f"{OUT}/measurements/{name}.json" for name in ("realistic", "coadd", "repeat")] + released("studies")
MEASURED = [f"{OUT}/measurements/{name}.json" for name in ("simulation", "sdss")] + released("measurements")
READS = {
    "01_skymaker_simulation": [f"{OUT}/simulation/simulation.json", *released("simulation")],
    "02_sdss_selection": [f"{OUT}/sdss/download.json", *released("sdss")],
    "03_train_detection": record("detection") + released("studies"),
    "04_train_bpnn": record("bpnn") + released("studies"),
    "05_detection": MEASURED,
    "06_photometry_astrometry": MEASURED,
    "07_uncertainty": MEASURED,
    "09_beyond_detection": [
        *MEASURED, *BEYOND, *sorted(str(path) for path in Path("results").glob("bench.json")),
    ],
    "10_beyond_uncertainty": [*MEASURED, *BEYOND, f"{OUT}/measurements/validation.json"],
    **{
        last: [f"{OUT}/notebooks/{stem}.ipynb" for stem in STEMS if stem not in ("08_scorecard", "12_verdicts")]
        for last in ("08_scorecard", "12_verdicts")  # of the numbers of all others
    },
}

for stem in STEMS:

    rule:
        name: f"notebook_{stem}"
        input: READS.get(stem, []), code_of(stem)
        output: f"{OUT}/notebooks/{stem}.ipynb"
        benchmark: f"{TIMES}/{stem}.tsv"
        params: values=PROFILE.parameters(stem), stem=stem, profile=FILE
        resources: mem_mb=MEMORY
        shell: "{PNET} run {params.stem} --profile '{params.profile}' --threads {threads}"

rule site:
    input:
        expand(f"{OUT}/notebooks/{{stem}}.ipynb", stem=STEMS),
        "_config.yml", "_toc.yml",
        sorted(str(path.relative_to(paths.ROOT)) for path in (paths.ROOT / "book").rglob("*") if path.is_file()),
        relative(rooms.reached("from pnet.book import site, sphinx_pages").values()),
    output: f"{OUT}/site/index.html"
    params: strict="--strict" if os.environ.get("CI") else ""
    resources: mem_mb=MEMORY
    shell: "{PNET} book --output {OUT} {params.strict}"
