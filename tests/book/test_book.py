"""The website: what is collected, what is refused, what a reader's browser would have to fetch."""

import re
import shutil

import nbformat
import pytest
from notebook_files import own_project, write_notebook

from pnet.book import execute, notebooks, profiles, site, tables
from pnet.common import paths
from pnet.common.errors import DataError, MissingError
from pnet.common.files import write_json

ROOT = paths.ROOT


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small project with one page of prose and one notebook, run."""
    own_project(tmp_path, monkeypatch)
    (tmp_path / "book").mkdir()
    (tmp_path / "book/intro.md").write_text(
        "# Welcome\n\nEq. $x^2$ of {cite:t}`sun2023pnet`: {glue:text}`/notebooks/01_chapter.ipynb::mean:.2f`.\n\n"
        "```{include} ../generated/run_times.md\n```\n\n```{bibliography}\n```\n"
    )
    shutil.copytree(ROOT / "book/static", tmp_path / "book/static")
    for name in ("book/references.bib", "_config.yml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    parts = "[{caption: One, chapters: [{file: notebooks/01_chapter}]}]"
    (tmp_path / "_toc.yml").write_text(f"format: jb-book\nroot: book/intro\nparts: {parts}\n")
    execute.run(write_notebook(tmp_path), profile=profiles.Profile("mine"))
    return tmp_path


def test_pages_are_in_the_order_of_the_toc_which_holds_every_notebook_and_every_page(tmp_path):
    parts = "{caption: x, chapters: [{file: b, sections: [{file: c}]}, {url: 'https://example.org'}]}"
    (tmp_path / "_toc.yml").write_text(f"{{format: jb-book, root: a, parts: [{parts}, {{chapters: [{{file: d}}]}}]}}")
    assert site.pages(tmp_path / "_toc.yml") == ["a", "b", "c", "d"]
    pages = site.pages(ROOT / "_toc.yml")
    chapters = [page for page in pages if page.startswith("notebooks/")]
    assert sorted(chapters) == [f"notebooks/{path.stem}" for path in notebooks.sources()]
    assert chapters[-1] == "notebooks/08_scorecard", "it sums up what the others found, those of higher numbers too"
    prose = {f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")}
    assert {page for page in pages if page.startswith("book/")} == prose


def test_staging_keeps_the_paths_of_the_repository_and_refuses_errors_and_if_strict_warnings(project):
    path = project / "build/mine/notebooks/01_chapter.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1]["outputs"] = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]
    nbformat.write(notebook, path)
    with pytest.raises(site.BookError, match="01_chapter.*holds an error"):
        site.stage(project / "build/mine")
    path.unlink()
    with pytest.raises(MissingError, match=r"pnet run 01_chapter"):
        site.stage(project / "build/mine")
    write_notebook(project, body="```{code-cell} python\nimport sys\n\nprint('mind this', file=sys.stderr)\n```\n")
    execute.run("01", profile=profiles.Profile("mine"))
    folder = site.stage(project / "build/mine")
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"_config.yml", "_toc.yml", "book/intro.md", "notebooks/01_chapter.ipynb", "book/references.bib"} <= found
    assert {f"generated/{name}.md" for name in tables.PAGES} <= found
    with pytest.raises(site.BookError, match="mind this"):
        site.stage(project / "build/mine", strict=True)


def test_site_is_built_without_a_warning_and_needs_no_network(project):
    output = project / "build/mine"
    benchmark(output / "benchmarks/01_chapter.tsv", 2.0)
    page = site.build(output)
    assert page == output / "site/index.html" and page.is_file()
    intro = (output / "site/book/intro.html").read_text()
    assert "Sun" in intro and ">3.00<" in intro, "the number of the notebook is pasted into the prose"
    assert ">01_chapter</td>" in intro, "the table of times is included"
    assert "mathjax/tex-chtml.js" in intro and (output / "site/_static/mathjax/tex-chtml.js").is_file()
    chapter = (output / "site/notebooks/01_chapter.html").read_text()
    assert "google.colab" not in chapter, "the set-up cells are hidden"
    url = "https://colab.research.google.com/github/pnet-companion/pnet/blob/v0.1.0/notebooks/01_chapter.ipynb"
    assert url in chapter, "the button for Colab opens the notebook of the release"
    assert site.external_resources(output / "site") == []
    # a warning stops the build and leaves the old site
    page.write_text("old")
    intro = project / "book/intro.md"
    intro.write_text(intro.read_text() + "\nSee [nothing](nowhere.md).\n")
    with pytest.raises(site.BookError, match="WARNING.*nowhere"):
        site.build(output)
    assert page.read_text() == "old"
    assert not list(output.glob(".site-*"))


def test_resources_from_elsewhere_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="https://example.org/x">fine</a><link rel="canonical" href="https://example.org">'
        '<script src="https://cdn.example.org/x.js"></script><img src="//cdn.example.org/x.png">'
        '<link rel="stylesheet" href="local.css"><script src="local.js"></script>'
    )
    (tmp_path / "b.css").write_text("@import url(https://fonts.example.org/f.css); a { background: url('local.png') }")
    found = site.external_resources(tmp_path)
    assert len(found) == 3 and "x.js" in found[0] and "x.png" in found[1] and "b.css" in found[2]


def benchmark(path, seconds, memory="2048.00"):
    """Write what Snakemake's benchmark directive writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ["s", "h:m:s", "max_rss", "max_vms", "max_uss", "max_pss", "io_in", "io_out", "mean_load", "cpu_time"]
    values = [f"{seconds:.4f}", "0:00:01", memory, *"00----", "1.5"]
    path.write_text("\t".join(names) + "\n" + "\t".join(values) + "\n")


def test_table_of_times(tmp_path):
    assert [tables.duration(value) for value in (3.2, 210, 7560)] == ["3 s", "3.5 min", "2.1 h"]
    assert "No step" in tables.run_times(tmp_path)
    benchmark(tmp_path / "benchmarks/simulate.tsv", 30)
    benchmark(tmp_path / "benchmarks/train.tsv", 600, memory="NA")  # a step that ended before it was looked at
    text = tables.run_times(tmp_path)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", text)
    assert cells[:8] == ["simulate", "30 s", "2 s", "2.0 GiB", "train", "10.0 min", "2 s", "–"]
    assert cells[8:10] == ["all, one after the other", "10.5 min"] and "\nMachine: " in text
    (tmp_path / "benchmarks/torn.tsv").write_text("{")
    with pytest.raises(DataError, match="torn.tsv"):
        tables.run_times(tmp_path)


def test_table_of_released_files(tmp_path, monkeypatch):
    own_project(tmp_path, monkeypatch)
    assert "Nothing is released" in tables.released(tmp_path)
    card = {"command": "pnet train", "seconds": 7200, "device": "cpu", "date": "2026-01-02T03:04:05"}
    card["commit"] = "abcdef0123456"
    write_json(tmp_path / "weights/net.json", card)
    write_json(tmp_path / "results/measurements/sdss.json", {**card, "seconds": 90.0})
    text = tables.released(tmp_path)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", text)
    assert cells[:5] == ["weights/net", "2.0 h", "cpu", "2026-01-02", "abcdef0123"]
    assert cells[5:7] == ["results/measurements/sdss", "1.5 min"]
    assert "# weights/net\npnet train\n" in text


def test_table_of_the_limit_has_the_known_bounds():
    """Those of a seeing of 1.4 arcsec, computed for the design by other code; `tests/sky/test_limits.py` has more."""
    cells = re.findall(r"<td[^>]*>(.*?)</td>", tables.limit(paths.BUILD))
    rows = {row[0]: [float(number) for number in row[2:4]] for row in zip(*[iter(cells)] * 5, strict=True)}
    assert list(rows) == [str(magnitude) for magnitude in range(13, 21)]
    known = {14: (0.0007, 0.0012), 16: (0.0018, 0.0031), 18: (0.0051, 0.0092), 20: (0.0175, 0.034)}
    for magnitude, bounds in known.items():  # mag, px
        assert rows[str(magnitude)] == pytest.approx(bounds, rel=0.06, abs=2e-4)
