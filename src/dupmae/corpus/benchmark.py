"""Benchmarks: passages, queries and who answers whom; BEIR folders, pairs, and splits of the queries."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dupmae.config import HoldOut
from dupmae.corpus.duplicates import with_duplicates
from dupmae.corpus.lines import COMPRESSIONS, find_file, json_objects
from dupmae.corpus.passage import Passage
from dupmae.corpus.readers import read_passages, string_field
from dupmae.corpus.trec import Qrels, check_word, read_qrels
from dupmae.errors import DupmaeError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A corpus with judged queries."""

    name: str
    """For reports."""
    split: str
    """Which judgements these are, such as `train` or `test`."""
    corpus: dict[str, Passage]
    """Every passage by its id."""
    queries: dict[str, str]
    """The text of each query that has judgements, by its id."""
    qrels: Qrels
    """Query id -> passage id -> grade."""


def read_benchmark(folder: str | Path, split: str, *, allow_unknown: bool = False) -> Benchmark:
    """Read a folder in BEIR layout with one split's judgements; see :func:`read_splits`."""
    return read_splits(folder, [split], allow_unknown=allow_unknown)[0]


def read_splits(folder: str | Path, splits: Sequence[str], *, allow_unknown: bool = False) -> list[Benchmark]:
    """Read a folder in BEIR layout: `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`, each compressed or not.

    Args:
        folder: The folder; its name becomes the benchmark's.
        splits: Which judgements to read.
        allow_unknown: Drop judgements of queries or passages that are not there (with a warning) instead of refusing.

    Returns:
        Of each split the queries with judgements in it, and the whole corpus, which is in memory once for all.

    Raises:
        DupmaeError: A file is missing or malformed, an id holds white space (no run could name it), a split does not
            exist (told with those that do), judgements name unknown queries or passages, or none is left.
    """
    folder = Path(folder)
    files = {name: find_file(folder, f"{name}.jsonl") for name in ("corpus", "queries")}
    missing = [f"{name}.jsonl" for name, file in files.items() if file is None]
    if missing:
        raise DupmaeError(f"{folder} is not a benchmark in BEIR layout: it has no {' and no '.join(missing)}.")
    qrels_files = {split: _qrels_file(folder, split) for split in splits}
    corpus = {passage.id: passage for passage in _read_named(files["corpus"] or folder, "passage id")}
    texts = {query.id: query.text for query in _read_named(files["queries"] or folder, "query id")}
    name, benchmarks = folder.resolve().name, []
    for split in splits:
        file = qrels_files[split]
        qrels = _known_qrels(file, read_qrels(file), texts, corpus, allow_unknown)
        benchmarks.append(Benchmark(name, split, corpus, {query: texts[query] for query in qrels}, qrels))
    return benchmarks


def _read_named(file: Path, what: str) -> Iterator[Passage]:
    """Read passages or queries whose ids can stand in a run."""
    for passage in read_passages(file):
        check_word(passage.id, what, file)
        yield passage


def _qrels_file(folder: Path, split: str) -> Path:
    """Find the judgements of a split."""
    names = sorted(path.name for path in (folder / "qrels").glob("*.tsv*"))
    splits = dict.fromkeys(name.split(".tsv")[0] for name in names if name.split(".tsv")[1] in ("", *COMPRESSIONS))
    file = find_file(folder / "qrels", f"{split}.tsv") if split in splits else None
    if file is None:
        raise DupmaeError(f"{folder} has no split {split!r}; its folder qrels holds {', '.join(splits) or 'none'}.")
    return file


def _known_qrels(
    file: Path, qrels: Qrels, queries: dict[str, str], corpus: dict[str, Passage], allow_unknown: bool
) -> Qrels:
    """Keep the judgements whose query and passage exist; refuse or report the others."""
    unknown = [
        f"query {query!r}" if query not in queries else f"passage {passage!r}"
        for query, grades in qrels.items()
        for passage in grades
        if query not in queries or passage not in corpus
    ]
    if not unknown:
        return qrels
    first = ", ".join(list(dict.fromkeys(unknown))[:3])
    found = f"{file}: {len(unknown)} judgements name queries or passages that are not there (first: {first})"
    if not allow_unknown:
        raise DupmaeError(f"{found}; mend the files or set allow_unknown to drop them.")
    logger.warning("%s; dropped.", found)
    kept = {
        query: {passage: grade for passage, grade in grades.items() if passage in corpus}
        for query, grades in qrels.items()
        if query in queries
    }
    kept = {query: grades for query, grades in kept.items() if grades}
    if not kept:
        raise DupmaeError(f"{file}: no judgement is left, all name queries or passages that are not there.")
    return kept


def read_pairs(path: str | Path) -> Benchmark:
    """Read query-passage pairs, JSONL of `{"query": ..., "positive": ...}`, compressed or not, as a benchmark.

    `positive` is one text or a list of texts; other fields are passed over. Equal texts become one passage and equal
    queries one query. Ids are `q1`, `q2`, ... and `p1`, `p2`, ... in the order in which texts are first met.

    Returns:
        A benchmark named after the file, split `train`, every grade 1.

    Raises:
        DupmaeError: A line is malformed, a query or a passage is empty, or there is no pair at all.
    """
    path = Path(path)
    if not path.is_file():
        raise DupmaeError(f"{path} does not exist or is not a file.")
    queries: dict[str, str] = {}  # text -> id, as the passages
    passages: dict[str, str] = {}
    qrels: Qrels = {}
    for number, record in json_objects(path):
        place = f"{path}, line {number}"
        for field in ("query", "positive"):
            if field not in record:
                raise DupmaeError(
                    f"{place}: no field {field!r}; its fields are {', '.join(map(repr, record)) or 'none'}."
                )
        query = string_field(record["query"], "query", place)
        positives = record["positive"] if isinstance(record["positive"], list) else [record["positive"]]
        texts = [string_field(text, "positive", place) for text in positives]
        if not query.strip() or not texts or not all(text.strip() for text in texts):
            raise DupmaeError(f"{place}: the query or a positive passage is empty.")
        grades = qrels.setdefault(queries.setdefault(query, f"q{len(queries) + 1}"), {})
        grades.update({passages.setdefault(text, f"p{len(passages) + 1}"): 1 for text in texts})
    if not qrels:
        raise DupmaeError(f"{path} holds no pairs.")
    corpus = {identifier: Passage(identifier, "", text) for text, identifier in passages.items()}
    name = path.name.split(".")[0]
    return Benchmark(name, "train", corpus, {identifier: text for text, identifier in queries.items()}, qrels)


def split_queries(
    benchmark: Benchmark, fraction: float, seed: int, hold_out: HoldOut = "passages"
) -> tuple[Benchmark, Benchmark]:
    """Hold some queries out, chosen by a hash of the seed and of ids.

    With `passages` no positive of a held-out query is a positive of another one, nor reads like one: what a model
    remembers of passages that it was trained on does not help it there. Queries that share a positive, directly or
    through other queries, stay together. With `queries` each is drawn for itself, and adding or removing queries moves
    no other one.

    The share is only about `fraction`; with `fraction` above 0 each side gets at least one query.

    Args:
        benchmark: What to split; both halves keep the whole corpus.
        fraction: Expected share of the queries held out, at least 0 and below 1.
        seed: Another seed gives another split.
        hold_out: What is kept apart.

    Returns:
        The rest, under the same split name, and the held-out part, under that name with `-held-out` added.

    Raises:
        DupmaeError: The fraction is out of its range, there is a single query to share out, or the queries share so
            many passages that not half of the share can be held out.
    """
    if not 0 <= fraction < 1:
        raise DupmaeError(f"The fraction of queries to hold out must be at least 0 and below 1, not {fraction}.")
    if fraction and len(benchmark.queries) < 2:
        raise DupmaeError(
            f"{benchmark.name} ({benchmark.split}) has too few queries to hold some out: give two or more."
        )
    held_out: set[str] = set()
    if fraction:
        held_out = (_by_passages if hold_out == "passages" else _by_queries)(benchmark, fraction, seed)
    rest = benchmark.queries.keys() - held_out
    return _part(benchmark, rest, benchmark.split), _part(benchmark, held_out, f"{benchmark.split}-held-out")


def _by_queries(benchmark: Benchmark, fraction: float, seed: int) -> set[str]:
    """The queries whose hash is below the fraction, but neither none nor all of them."""
    places = {query: _hash_fraction(f"{seed}:{query}") for query in benchmark.queries}
    held_out = {query for query, place in places.items() if place < fraction}
    if not held_out:
        held_out = {min(places, key=places.__getitem__)}
    if len(held_out) == len(places):
        held_out.remove(max(places, key=places.__getitem__))
    return held_out


def _by_passages(benchmark: Benchmark, fraction: float, seed: int) -> set[str]:
    """Groups of queries that share positives, in the order of the hash of their first id.

    A group is taken if that brings the number of queries nearer to the share.
    """
    count = len(benchmark.queries)
    wanted = min(max(round(fraction * count), 1), count - 1)
    held_out: set[str] = set()
    for group in sorted(_groups(benchmark), key=lambda group: _hash_fraction(f"{seed}:{min(group)}")):
        if len(group) < 2 * (wanted - len(held_out)) and len(held_out) + len(group) < count:
            held_out.update(group)
    if 2 * len(held_out) < wanted:
        raise DupmaeError(
            f"{benchmark.name} ({benchmark.split}): its queries share so many passages that only {len(held_out)} of "
            f"{count} can be held out with passages of their own, not {wanted}: name a split to validate on "
            "(dev_split), or hold out queries regardless of their passages (hold_out queries)."
        )
    return held_out


def _groups(benchmark: Benchmark) -> Collection[list[str]]:
    """The queries in groups that have no positive in common: the connected components of queries and positives."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    queries = list(benchmark.queries)
    positives = {
        query: [passage for passage, grade in benchmark.qrels.get(query, {}).items() if grade > 0] for query in queries
    }
    nodes: dict[str, int] = {}  # passage -> number, after those of the queries
    edges = [
        (number, nodes.setdefault(passage, len(queries) + len(nodes)))
        for number, passages in enumerate(with_duplicates(benchmark.corpus, positives).values())
        for passage in passages
    ]
    rows, columns = np.array(edges, np.int64).reshape(-1, 2).T
    size = len(queries) + len(nodes)
    _, labels = connected_components(coo_matrix((np.ones(len(edges)), (rows, columns)), (size, size)), directed=False)
    groups: dict[int, list[str]] = {}
    for query, label in zip(queries, labels.tolist(), strict=False):  # the passages' labels are not needed
        groups.setdefault(label, []).append(query)
    return groups.values()


def _hash_fraction(key: str) -> float:
    """A number in [0, 1) that depends on the key alone, spread evenly."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48


def _part(benchmark: Benchmark, keep: set[str], split: str) -> Benchmark:
    """The benchmark with some of its queries, in their order."""
    return replace(
        benchmark,
        split=split,
        queries={query: text for query, text in benchmark.queries.items() if query in keep},
        qrels={query: grades for query, grades in benchmark.qrels.items() if query in keep},
    )
