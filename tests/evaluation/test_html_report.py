"""The HTML report: whole, self-contained, and true."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dupmae.corpus import Benchmark, Passage, write_benchmark, write_run
from dupmae.evaluation.benchmarks import Definition
from dupmae.evaluation.comparison import Comparison, compare
from dupmae.evaluation.html_report import write_html

VOID = {"meta", "link", "img", "br"}


class Checker(HTMLParser):
    """Notes what is not closed in order, and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture
def comparisons(tmp_path: Path) -> list[Comparison]:
    """Two benchmarks of BM25, a model and its halves, with names and texts that HTML must not take for its own."""
    found = []
    for name in ("one", "two"):
        passages = {f"d{n}": Passage(f"d{n}", "", f"passage <b>{n}</b> & more" + " words" * 100) for n in range(6)}
        queries = {f"q{n}": f"query <script>{n}</script>" for n in range(6)}
        data = Benchmark(name, "test", passages, queries, {f"q{n}": {f"d{n}": 1} for n in range(6)})
        runs = []
        for number, system in enumerate(("bm25", "m", "m dense", "m lexical")):
            run = {f"q{n}": {f"d{n}": 1.0, f"d{5 - n}": float((n + number) % 3)} for n in range(6)}
            runs.append(tmp_path / system)
            write_run(runs[-1], run, "t")
        compared = compare(Definition(name=name, title=f"Set <{name}>", passages=9), [data], [], runs, tmp_path)
        found.append(compared)
    return found


def test_the_report_is_well_formed_needs_no_network_and_no_script(
    comparisons: list[Comparison], tmp_path: Path
) -> None:
    write_html(tmp_path / "report.html", "A <title>", comparisons)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    assert (checker.open, checker.wrong) == ([], [])
    assert "script" not in checker.tags
    assert checker.addresses
    assert all(address.startswith("data:") for address in checker.addresses)
    assert "@import" not in text
    assert "url(" not in text


def test_the_report_holds_figures_significance_groups_and_cases(comparisons: list[Comparison], tmp_path: Path) -> None:
    write_html(tmp_path / "report.html", "Title", comparisons)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for part in (
        "All benchmarks",
        "Set &lt;one&gt; test",
        "Not the published Set &lt;one&gt;: 6 passages instead of 9.",
        "p, corrected",
        "By length of the query",
        "By how many of the query&#39;s words its answer has",
        "passage &lt;b&gt;0&lt;/b&gt; &amp; more",
        "query &lt;script&gt;",
        "put d",
    ):
        assert part in text, part
    assert text.count("data:image/svg+xml;base64,") == 8
    assert f"Where {tmp_path / 'm dense'} is ahead of {tmp_path / 'm lexical'}" in text
    assert f"Where {tmp_path / 'm lexical'} is ahead of {tmp_path / 'm dense'}" in text


def test_long_passages_are_cut_at_a_space(comparisons: list[Comparison], tmp_path: Path) -> None:
    write_html(tmp_path / "report.html", "Title", comparisons)
    shown = (tmp_path / "report.html").read_text(encoding="utf-8").split("passage &lt;b&gt;0")[1].split("</p>")[0]
    assert 250 < len(shown) <= 320
    assert shown.endswith(" words...")


def test_the_same_comparison_gives_the_same_bytes(comparisons: list[Comparison], tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_html(tmp_path / name, "Title", comparisons)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_single_system_and_judgements_alone_make_a_report(tmp_path: Path) -> None:
    from dupmae.cli import entry as cli

    (tmp_path / "q.tsv").write_text("q1 0 d1 1\n", encoding="utf-8")
    write_run(tmp_path / "r.trec", {"q1": {"d1": 1.0}}, "t")
    words = ["--run", str(tmp_path / "r.trec"), "--qrels", str(tmp_path / "q.tsv"), "--output", str(tmp_path / "out")]
    assert cli.main(["evaluate", *words]) == 0
    assert "1 queries." in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_queries_that_fall_into_no_group_make_a_report(tmp_path: Path) -> None:
    from dupmae.cli import entry as cli

    folder = tmp_path / "data"
    no_word_that_bm25_counts = {"q": "the"}
    write_benchmark(folder, [Passage("d", "", "a lamp")], no_word_that_bm25_counts, {"test": {"q": {"d": 1}}})
    words = ["--benchmark", str(folder), "--model", "bm25", "bm25-fields", "--output", str(tmp_path / "out")]
    assert cli.main(["evaluate", *words]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "By length of the query" in page
    assert "By how many of the query" not in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_opens_the_report_without_an_error(comparisons: list[Comparison], tmp_path: Path) -> None:
    write_html(tmp_path / "report.html", "Title", comparisons)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'shot.png'}"]
    done = subprocess.run(
        [*command, "--window-size=1200,1600", (tmp_path / "report.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    assert (tmp_path / "shot.png").stat().st_size > 10_000
