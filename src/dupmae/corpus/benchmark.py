"""Read and write benchmarks: passages, queries, and judgements of which passages answer them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dupmae.corpus.formats.records import NESTED_FIELD
from dupmae.corpus.lines import COMPRESSIONS, find_file
from dupmae.corpus.passage import Passage
from dupmae.corpus.readers import read_passages
from dupmae.corpus.trec import Qrels, check_word, read_qrels
from dupmae.errors import DupmaeError
from dupmae.files import atomic_write
from dupmae.runtime.bars import bar

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A corpus with judged queries.

    Examples:
        >>> from dupmae import Benchmark, Passage
        >>> corpus = {"lens": Passage("lens", "", "It bends light.")}
        >>> Benchmark("optics", "test", corpus, {"q1": "what bends light"}, {"q1": {"lens": 1}}).queries
        {'q1': 'what bends light'}
    """

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
    """Read a folder in BEIR layout with one split's judgements.

    Args:
        folder: As for :func:`read_splits`.
        split: Which judgements to read, such as `test`.
        allow_unknown: As for :func:`read_splits`.

    Raises:
        DupmaeError: As :func:`read_splits`.

    Examples:
        >>> from dupmae import read_benchmark
        >>> from dupmae.corpus import Passage, write_benchmark
        >>> passages = [Passage("lamp", "Lamps", "They burn oil."), Passage("lens", "", "It bends light.")]
        >>> _ = write_benchmark("data", passages, {"q1": "what bends light"}, {"test": {"q1": {"lens": 1}}})
        >>> benchmark = read_benchmark("data", "test")
        >>> benchmark.qrels, benchmark.corpus["lamp"].full_text
        ({'q1': {'lens': 1}}, 'Lamps They burn oil.')
    """
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


def write_benchmark(
    folder: str | Path, passages: Iterable[Passage], queries: Mapping[str, str], qrels: Mapping[str, Qrels]
) -> int:
    """Write a folder in BEIR layout, which :func:`read_splits` reads; the judgements come last.

    Args:
        folder: Where to; each file is replaced if it is there.
        passages: The corpus, which need not be in memory.
        queries: Query id -> text.
        qrels: Split -> query id -> passage id -> grade.

    Returns:
        The number of passages.
    """
    folder, written = Path(folder), 0
    with atomic_write(folder / "corpus.jsonl") as file:
        for passage in passages:
            record: dict[str, object] = {"_id": passage.id, "title": passage.title, "text": passage.text}
            if passage.metadata:
                record[NESTED_FIELD] = dict(passage.metadata)
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            written += 1
    with atomic_write(folder / "queries.jsonl") as file:
        for query, text in queries.items():
            file.write(json.dumps({"_id": query, "text": text}, ensure_ascii=False) + "\n")
    for split, judged in qrels.items():
        with atomic_write(folder / "qrels" / f"{split}.tsv") as file:
            file.write("query-id\tcorpus-id\tscore\n")
            for query, grades in judged.items():
                file.writelines(f"{query}\t{passage}\t{grade}\n" for passage, grade in grades.items())
    return written


def _read_named(file: Path, what: str) -> Iterator[Passage]:
    """Read passages or queries whose ids can stand in a run."""
    for passage in bar(read_passages(file), f"Read {file.name}", "records"):
        check_word(passage.id, what, file)
        yield passage


def _qrels_file(folder: Path, split: str) -> Path:
    """Find the file with the judgements of a split."""
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
