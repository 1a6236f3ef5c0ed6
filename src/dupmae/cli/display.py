"""Show results on the command line: ranked passages and tables."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from dupmae.runtime.terminal import printable, unguarded

if TYPE_CHECKING:
    from dupmae.evaluation.comparison import Comparison
    from dupmae.index import Hit
    from dupmae.index.explanation import Explanation, Term
    from dupmae.index.highlights import Highlights
    from dupmae.index.tune import Trial

ENDLESS = 1_000_000
"""Columns of what is no terminal."""
SHOWN_TERMS = 10
"""Terms named of a hit, or of a query; of the others the number is told."""
_WHITE_SPACE = re.compile(r"\s+")
SHOWN_METRICS = ("ndcg@10", "mrr@10", "recall@100", "judged@10")
"""Columns of a comparison, beside the metric that its benchmark is ranked by."""


class PlainConsole(Console):
    """A console that takes every string for text: no markup, no emoji's names, no character that acts on a terminal.

    Lines are broken at a terminal's width, and nowhere else.
    """

    def __init__(self) -> None:
        file = unguarded(sys.stdout)
        width = None if file.isatty() else ENDLESS
        super().__init__(file=file, width=width, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of what is printed; rich adds its own colours to them later."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def show_hits(console: Console, query: str, hits: Sequence[Hit], shown: Sequence[Highlights]) -> None:
    """Print one query's ranked documents: score, its parts, the place, what matched, and the best stretch of each."""
    console.print(Text(query, style="bold"))
    if not hits:
        console.print(_indented(Text("no passage found", style="dim")))
    for rank, (hit, highlights) in enumerate(zip(hits, shown, strict=True), start=1):
        heading = Text.assemble(
            (f"{rank:3d} ", "bold cyan"),
            (f"{hit.score:.3f}", "bold"),
            (f" = {_parts(hit)}  ", "dim"),
            (hit.title or hit.document, "bold"),
            (f"  {hit.document}" if hit.title else "", "dim"),
        )
        console.print(heading)
        if hit.headings or hit.id != hit.document:
            console.print(_indented(_place(hit)))
        if highlights.matches:
            console.print(_indented(_contributions("terms", "green", highlights.matches)))
        if hit.words:
            console.print(_indented(_contributions("words", "green", hit.words)))
        console.print(_indented(_snippet(hit, highlights)))
        console.print()


def _indented(text: Text) -> Padding:
    """Set a line in, without spaces behind it."""
    return Padding(text, (0, 0, 0, 4), expand=False)


def _place(hit: Hit) -> Text:
    """Say where a chunk stands in its document."""
    path = " > ".join(hit.headings)
    return Text(f"{path}{', ' if path else ''}characters {hit.start:,} to {hit.end:,}", style="dim")


def _snippet(hit: Hit, highlights: Highlights) -> Text:
    """Put a snippet on one line, the words that matched marked."""
    start, end = highlights.snippet
    inside = [place for first, last in highlights.words if start <= first and last <= end for place in (first, last)]
    line = Text("... " if start > hit.start else "")
    for number, (first, last) in enumerate(pairwise([start, *inside, end])):  # every second piece is a word
        piece = _WHITE_SPACE.sub(" ", hit.text[first - hit.start : last - hit.start])
        line.append(piece, style="bold yellow" if number % 2 else None)
    return line.append(" ..." if end < hit.start + len(hit.text) else "")


def show_metrics(console: Console, title: str, systems: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    """Print the effectiveness of systems, given by name and the same metrics, as a table of a row each."""
    table = Table(title=title, title_justify="left")
    table.add_column("system")
    for metric in systems[0][1]:
        table.add_column(metric, justify="right")
    for name, metrics in systems:
        table.add_row(Text(name), *(f"{value:.4f}" for value in metrics.values()))
    console.print(table)


def show_comparisons(console: Console, comparisons: Sequence[Comparison]) -> None:
    """Print a table of each benchmark, and of several one more with the metric that each is ranked by."""
    from dupmae.evaluation.comparison import overview, whole
    from dupmae.evaluation.metrics import HEADINGS

    for comparison in comparisons:
        definition = comparison.definition
        title = f"{definition.title or definition.name} {definition.split}: {comparison.queries:,} queries"
        table = Table(title=title, title_justify="left", caption=comparison.note or None, caption_justify="left")
        table.add_column("system", overflow="fold")
        shown = dict.fromkeys([*SHOWN_METRICS, definition.metric])
        metrics = [metric for metric in shown if metric in comparison.systems[0].metrics]
        for heading in (*(HEADINGS[metric] for metric in metrics), "psg/s", "B/psg", "ms"):
            table.add_column(heading, justify="right", no_wrap=True)
        for system in comparison.systems:
            table.add_row(
                Text(system.name),
                *(f"{system.metrics[metric]:.4f}" for metric in metrics),
                *map(whole, (system.passages_per_second, system.bytes_per_passage)),
                "" if system.query_ms is None else f"{system.query_ms:.1f}",
            )
        console.print(table)
        for line in _significance(comparison):
            console.print(Text(line))
    if len(comparisons) > 1:
        table = Table(title="All benchmarks", title_justify="left")
        names = list(dict.fromkeys(system.name for comparison in comparisons for system in comparison.systems))
        table.add_column("benchmark")
        for name in names:
            table.add_column(Text(name), justify="right", overflow="fold")
        for heading, cells in overview(comparisons, names):
            table.add_row(heading, *cells)
        console.print(table)


def _significance(comparison: Comparison) -> Iterator[str]:
    """Say of each system how far it is from the first, and whether that may be chance."""
    from dupmae.evaluation.metrics import HEADINGS
    from dupmae.evaluation.significance import compare_with_baseline

    metric, (baseline, *rest) = comparison.definition.metric, comparison.systems
    values = {system.name: system.values[metric] for system in rest}
    for row in compare_with_baseline(baseline.values[metric], values):
        yield (
            f"{HEADINGS[metric]} of {row.system}: {row.mean:+.4f} against {baseline.name}, better in {row.wins} and "
            f"worse in {row.losses} queries, p = {row.p:.4f}"
            + (f" ({row.corrected:.4f} corrected for {len(rest)} comparisons)" if len(rest) > 1 else "")
        )


def show_explanation(console: Console, explanation: Explanation, shown: Sequence[Highlights]) -> None:
    """Print a query's terms and words, and passages with their ranks, the parts of their scores, terms and words."""
    console.print(Text(explanation.query, style="bold"))
    for name, style, terms in (
        ("its words", "green", [term for term in explanation.terms if term.in_query]),
        ("added", "yellow", [term for term in explanation.terms if not term.in_query]),
    ):
        console.print(_indented(_terms(name, style, terms)))
    if explanation.words:
        words = [(f"{word.word} (in {word.passages:,})", word.weight) for word in explanation.words]
        console.print(_indented(_contributions("whole words", "green", words)))
    for explained, highlights in zip(explanation.hits, shown, strict=True):
        hit = explained.hit
        ranks = ["-" if rank is None else str(rank) for rank in explained.ranks]
        by_parts = f"rank {ranks[0]}, by the dense half {ranks[1]}, by the lexical half {ranks[2]}"
        by_parts += f", by words {ranks[3]}" if explanation.words else ""
        console.print()
        console.print(
            Text.assemble(
                (hit.title or hit.document, "bold"),
                (f"  {hit.document}  " if hit.title else "  ", "dim"),
                (by_parts, "bold cyan"),
            )
        )
        lines = [
            *([_place(hit)] if hit.headings or hit.id != hit.document else []),
            Text(f"{hit.score:.3f} = {_parts(hit)}"),
            _terms("in both", "green", explained.matched),
            _terms("meant", "yellow", explained.expanded),
            *([_contributions("words", "green", hit.words)] if hit.words else []),
            _snippet(hit, highlights),
        ]
        for line in lines:
            console.print(_indented(line))


def _parts(hit: Hit) -> str:
    """Write the parts of a hit's score; words only where they add something."""
    words = f" + {hit.word_score:.3f} words" if hit.word_score else ""
    return f"{hit.dense_score:.3f} dense + {hit.lexical_score:.3f} lexical{words}"


def _terms(name: str, style: str, terms: Sequence[Term]) -> Text:
    """Put terms on one line, and the sum of those that there is no room for."""
    return _contributions(name, style, [(term.token, term.weight) for term in terms])


def _contributions(name: str, style: str, parts: Sequence[tuple[str, float]]) -> Text:
    """Put named numbers on one line, and the sum of those that there is no room for."""
    shown = "  ".join(f"{part} {weight:.3f}" for part, weight in parts[:SHOWN_TERMS])
    rest = parts[SHOWN_TERMS:]
    more = f"  and {len(rest)} more, {sum(weight for _, weight in rest):.3f}" if rest else ""
    return Text.assemble((f"{name}: ", "dim"), (shown or "none", style), (more, "dim"))


def show_trials(console: Console, trials: Sequence[Trial], proposed: Trial, k: int, queries: int) -> None:
    """Print what approximate search gains and loses, and the options of the proposed setting."""
    table = Table(title=f"Recall of the exact top {k} and latency, {queries} queries", title_justify="left")
    for head in ("terms", "candidates", "probes", "recall", "p50, ms", "p95, ms", ""):
        table.add_column(head, justify="right")
    for trial in trials:
        settings = trial.settings
        first = ("all", "", "") if settings is None else (settings.terms, settings.candidates, settings.probes)
        figures = (f"{trial.recall:.4f}", f"{trial.p50_ms:.2f}", f"{trial.p95_ms:.2f}")
        table.add_row(*map(str, first), *figures, "<" if trial is proposed else "")
    console.print(table)
    settings = proposed.settings
    if settings is None:
        console.print("Proposed: exact search; no faster setting finds enough.")
    else:
        options = f"--terms {settings.terms} --candidates {settings.candidates} --probes {settings.probes}"
        console.print(f"Proposed: dupmae search INDEX QUERY {options}")


def trials_as_json(trials: Sequence[Trial], proposed: Trial) -> str:
    """Write one JSON document: `{"trials": [{"settings", "recall", "p50_ms", "p95_ms"}], "proposed": one of them}`."""
    return json.dumps({"trials": [asdict(trial) for trial in trials], "proposed": asdict(proposed)}, indent=2)
