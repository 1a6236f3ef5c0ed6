"""Compare several systems on one benchmark: rankings by its rules, metrics, and cost beside them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from dupmae.corpus import Benchmark, Run, read_qrels, read_run, write_run
from dupmae.errors import DupmaeError
from dupmae.evaluation.benchmarks import Definition
from dupmae.evaluation.metrics import ALL_METRICS, HEADINGS, Ties, depth, values_per_query
from dupmae.evaluation.sources import differences
from dupmae.retrievers.bm25 import warn_of_unmatched
from dupmae.retrievers.several import Systems
from dupmae.retrievers.systems import BM25_SYSTEMS, Retriever

TIMED_QUERIES = 32
"""Queries that are searched one at a time to measure latency."""

Rerank = Callable[[Benchmark, Run], Run]
"""Gives a ranking of the benchmark's queries a new order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A system's results on a benchmark."""

    name: str
    """As it stands in tables."""
    values: Mapping[str, Mapping[str, float]]
    """Metric -> query -> value; queries of a benchmark with parts are called `PART/QUERY`."""
    metrics: Mapping[str, float]
    """Metric -> mean over the queries; of a benchmark with parts the mean of the parts' means."""
    runs: Mapping[str, Run]
    """Part (empty where there are none) -> ranking."""
    passages_per_second: float | None = None
    """Encoding and indexing together."""
    bytes_per_passage: float | None = None
    """What scoring needs, without ids and texts."""
    query_ms: float | None = None
    """Median time of a query searched alone, from text to ranking, in milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What several systems did on one benchmark."""

    definition: Definition
    """The benchmark's rules."""
    parts: Sequence[Benchmark]
    """The benchmark, or its sub-collections."""
    note: str
    """How far it is not the published one, and which runs lack queries of it; empty if there is nothing to say."""
    systems: Sequence[Measured]
    """The systems in order."""

    @property
    def queries(self) -> int:
        """How many there are."""
        return sum(len(part.queries) for part in self.parts)


@dataclass(slots=True)
class _Tally:
    """A system's results while the parts are gone through."""

    runs: dict[str, Run] = field(default_factory=dict)
    seconds: list[float | None] = field(default_factory=list)
    stored: list[int | None] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


def compare(
    definition: Definition,
    parts: Sequence[Benchmark],
    models: Sequence[str],
    runs: Sequence[Path],
    encodings: Path,
    *,
    k: int = 1000,
    halves: bool = False,
    chunks: tuple[int, int | None] | None = None,
    rerank: tuple[str, Rerank] | None = None,
    ties: Ties = "id",
) -> Comparison:
    """Measure systems on a benchmark.

    Args:
        definition: Its rules.
        parts: It, or its sub-collections.
        models: Systems, as :class:`dupmae.retrievers.several.Systems` takes them.
        runs: TREC or MS MARCO runs that others made; for a benchmark with parts, folders of `PART.trec`.
        encodings: Where encoded corpora are kept.
        k: Passages ranked of each query; metrics that look deeper are left out.
        halves: Whether duplex models are followed by each half alone.
        chunks: Cut documents into chunks of so many tokens with so much overlap; a document scores what its best one
            scores.
        rerank: Name of a reranker and what it does; every system is followed by itself with its best passages
            reranked.
        ties: How equal scores are ordered.

    Raises:
        DupmaeError: A system cannot be opened, or a run is malformed, misses a part or has none of its judged queries.
    """
    tallies: dict[str, _Tally] = {}
    missing: list[str] = []
    names = ["" if len(parts) == 1 else part.name for part in parts]
    for name, part in zip(names, parts, strict=True):
        systems = Systems(
            part,
            models,
            definition.lengths,
            encodings,
            halves=halves,
            chunks=chunks,
            drop_self=definition.drop_self,
        )
        for model in models:
            for retriever in systems.open(model):
                tally = tallies.setdefault(retriever.name, _Tally())
                tally.latencies += _latencies(retriever, part, k)
                found = systems.rank(retriever, k + definition.drop_self)
                if model in BM25_SYSTEMS:
                    warn_of_unmatched(found, f"{part.name} ({part.split})")
                tally.runs[name] = apply_protocol(found, definition, k)
                tally.seconds.append(retriever.seconds)
                tally.stored.append(retriever.stored)
        for path in runs:
            tally = tallies.setdefault(str(path), _Tally())
            tally.runs[name] = apply_protocol(_read(path, name), definition, k)
            missing.append(_unranked(path / f"{name}.trec" if name else path, tally.runs[name], part))
        if rerank is not None:
            for title, tally in [row for row in tallies.items() if not row[0].endswith(f" > {rerank[0]}")]:
                reranked = tallies.setdefault(f"{title} > {rerank[0]}", _Tally())
                reranked.runs[name] = rerank[1](part, tally.runs[name])
    by_name = dict(zip(names, parts, strict=True))
    metrics = [metric for metric in ALL_METRICS if depth(metric) <= k]
    measured = [_measure(title, tally, by_name, definition, metrics, ties) for title, tally in tallies.items()]
    note = " ".join(filter(None, [differences(definition, parts), *missing]))
    return Comparison(definition=definition, parts=parts, note=note, systems=measured)


def from_qrels(qrels_file: Path, runs: Sequence[Path], *, k: int = 1000, ties: Ties = "id") -> Comparison:
    """Measure runs against judgements alone.

    Raises:
        DupmaeError: A file is missing or malformed, or a run has none of the judged queries.
    """
    qrels = read_qrels(qrels_file)
    judged = Benchmark(str(qrels_file), "", {}, dict.fromkeys(qrels, ""), qrels)
    return compare(Definition(name=str(qrels_file), split=""), [judged], [], runs, Path(), k=k, ties=ties)


def _measure(
    title: str,
    tally: _Tally,
    parts: Mapping[str, Benchmark],
    definition: Definition,
    metrics: Sequence[str],
    ties: Ties,
) -> Measured:
    """Compute a system's figures over all parts."""
    passages = sum(len(part.corpus) for part in parts.values())
    found = {
        name: values_per_query(tally.runs[name], part.qrels, metrics, relevant_from=definition.relevant_from, ties=ties)
        for name, part in parts.items()
    }
    values: dict[str, dict[str, float]] = {}
    means: dict[str, float] = {}
    for metric in metrics:
        means[metric] = statistics.fmean(statistics.fmean(of_part[metric].values()) for of_part in found.values())
        values[metric] = {
            f"{name}/{query}" if name else query: value
            for name, of_part in found.items()
            for query, value in of_part[metric].items()
        }
    seconds, stored = _sum(tally.seconds), _sum(tally.stored)
    return Measured(
        name=title,
        values=values,
        metrics=means,
        runs=tally.runs,
        passages_per_second=passages / seconds if seconds else None,
        bytes_per_passage=stored / passages if stored else None,
        query_ms=statistics.median(tally.latencies) if tally.latencies else None,
    )


def as_record(comparison: Comparison) -> dict[str, Any]:
    """Turn a comparison into JSON: the benchmark, then of each system its metrics and its cost, null if not known."""
    definition = comparison.definition
    return {
        "benchmark": definition.name,
        "split": definition.split,
        "passages": sum(len(part.corpus) for part in comparison.parts),
        "queries": comparison.queries,
        "relevant_from": definition.relevant_from,
        "note": comparison.note,
        "systems": [
            {
                "name": system.name,
                **system.metrics,
                "passages_per_second": system.passages_per_second,
                "bytes_per_passage": system.bytes_per_passage,
                "query_ms": system.query_ms,
            }
            for system in comparison.systems
        ],
    }


def overview(comparisons: Sequence[Comparison], names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """List a row a benchmark, a cell a system, in the metric that it is ranked by, then the mean where all agree."""
    rows = []
    for comparison in comparisons:
        metric = comparison.definition.metric
        found = {system.name: system.metrics[metric] for system in comparison.systems}
        rows.append([found[name] for name in names])
        heading = f"{comparison.definition.title or comparison.definition.name} ({HEADINGS[metric]})"
        yield heading, [f"{value:.4f}" for value in rows[-1]]
    if len({comparison.definition.metric for comparison in comparisons}) == 1:
        yield "mean", [f"{sum(column) / len(rows):.4f}" for column in zip(*rows, strict=True)]


def whole(value: float | None) -> str:
    """Format a figure without decimals, with one below 10; empty where it is not known."""
    return "" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def write_runs(folder: Path, measured: Sequence[Measured]) -> None:
    """Write every system's rankings as TREC runs: `NUMBER-NAME.trec`, or a folder of `PART.trec`."""
    for number, system in enumerate(measured, 1):
        name = "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in system.name).strip("._")
        for part, run in system.runs.items():
            place = f"{number:02d}-{name[-60:]}"
            write_run(folder / (f"{place}/{part}.trec" if part else f"{place}.trec"), run, tag=place)


def _latencies(retriever: Retriever, part: Benchmark, k: int) -> Iterator[float]:
    """Time single queries, in milliseconds; the first search, which opens files, is not counted."""
    timed = list(islice(part.queries.items(), TIMED_QUERIES))
    for number, (query, text) in enumerate([*timed[:1], *timed]):
        begun = time.perf_counter()
        retriever.search({query: text}, k)
        if number:
            yield 1000 * (time.perf_counter() - begun)


def apply_protocol(run: Run, definition: Definition, k: int) -> Run:
    """Keep the k best passages of each query, without the query itself where the rules say so."""
    kept: Run = {}
    for query, scores in run.items():
        ranked = sorted(scores.items(), key=lambda result: (-result[1], result[0]))
        kept[query] = dict([row for row in ranked if not (definition.drop_self and row[0] == query)][:k])
    return kept


def _read(path: Path, part: str) -> Run:
    """Read a run that others made."""
    if not part:
        return read_run(path)
    if not path.is_dir():
        raise DupmaeError(f"{path} must be a folder with a run for each part, such as {part}.trec.")
    return read_run(path / f"{part}.trec")


def _unranked(path: Path, run: Run, part: Benchmark) -> str:
    """Say in a sentence how many judged queries a run lacks; empty of one that has all.

    Raises:
        DupmaeError: It has none of them.
    """
    judged, ranked = len(part.qrels), len(part.qrels.keys() & run.keys())
    if judged and not ranked:
        raise DupmaeError(
            f"{path} ranks passages for none of the {judged:,} queries that {part.name} judges: are both of the same "
            "benchmark?"
        )
    return "" if ranked == judged else f"{path} has {ranked:,} of the {judged:,} judged queries; the others count 0."


def _sum(values: Sequence[float | None] | Sequence[int | None]) -> float | None:
    """Add up; None if a value is not known or there is none."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
