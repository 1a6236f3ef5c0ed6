"""Get benchmarks: from a folder, through the package `ir_datasets`, or from the Hugging Face hub.

What is fetched is written once as a folder in BEIR layout, with `source.json`: where it came from, how much it is, and
the SHA-256 of every file, which is compared each time the folder is read. (Both libraries go on with a broken-off
download, and `ir_datasets` compares the downloads' own checksums.)
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dupmae.corpus import Benchmark, Passage, Qrels, read_benchmark, write_benchmark
from dupmae.errors import DupmaeError
from dupmae.evaluation.benchmarks import Definition, definition_of, definitions_in, known_definition
from dupmae.files import atomic_folder, file_sha256, write_json
from dupmae.runtime.bars import bar
from dupmae.runtime.json_text import parse_json

SOURCE_FILE = "source.json"
"""Where a fetched folder came from."""

Content = tuple[Iterable[Passage], dict[str, str], dict[str, Qrels]]
"""Passages, queries by id, and judgements by split."""


def find_benchmark(name: str, split: str | None, data: Path) -> tuple[Definition, Path]:
    """Find a benchmark's folder and its rules; fetch it if it is a known one that is not there yet.

    Args:
        name: A folder in BEIR layout, or the name of a known benchmark, whose folder is then looked for in `data`.
        split: Which judgements; None for those that figures are published for.
        data: Where known benchmarks are kept.

    Raises:
        DupmaeError: Neither a folder nor a known name, or the benchmark cannot be had; the sentence says why.
    """
    if Path(name).is_dir():
        return definition_of(Path(name).resolve().name, split), Path(name)
    definition = known_definition(name)
    if split not in (None, definition.split):
        definition = replace(definition, split=str(split), queries=None)
    folder = data / (definition.folder or definition.name)
    if not all((folder / part).is_dir() for part in definition.parts or ("",)):  # a fetch may have been interrupted
        fetch(definition, folder)
    return definition, folder


def read_parts(definition: Definition, folder: Path, *, allow_unknown: bool = False) -> list[Benchmark]:
    """Read a benchmark by its rules.

    Returns:
        Its parts: the sub-collections of one that has some, else a single one; without titles where the rules say so.

    Raises:
        DupmaeError: A part is missing, a fetched file is not what it was, or see :func:`dupmae.corpus.read_benchmark`.
    """
    parts = [folder / part for part in definition.parts] or [folder]
    if missing := [part.name for part in parts if not part.is_dir()]:
        raise DupmaeError(f"{folder} lacks the parts {', '.join(missing)} of {definition.name}.")
    read = []
    for part in parts:
        _verify(part)
        benchmark = read_benchmark(part, definition.split, allow_unknown=allow_unknown)
        if not definition.titles:
            benchmark = replace(
                benchmark, corpus={name: replace(passage, title="") for name, passage in benchmark.corpus.items()}
            )
        read.append(benchmark)
    return read


def differences(definition: Definition, parts: Sequence[Benchmark]) -> str:
    """Say in a sentence how far a benchmark as read is not the published one; empty if it is, or none is known."""
    found = {
        "passages": sum(len(part.corpus) for part in parts),
        "queries": sum(len(part.queries) for part in parts),
    }
    expected = {"passages": definition.passages, "queries": definition.queries}
    wrong = [
        f"{found[kind]:,} {kind} instead of {count:,}"
        for kind, count in expected.items()
        if count is not None and count != found[kind]
    ]
    return f"Not the published {definition.title or definition.name}: {' and '.join(wrong)}." if wrong else ""


def fetch(definition: Definition, folder: Path) -> None:
    """Fetch a benchmark, with all judgements over the same collection, into a new folder (one a part).

    Raises:
        DupmaeError: It cannot be had; the sentence names each source with its reason.
    """
    if definition.unavailable_because:
        raise DupmaeError(
            f"{definition.name} cannot be fetched: {definition.unavailable_because}; put it into {folder} in BEIR "
            "layout."
        )
    together = definitions_in(folder.name) or [definition]
    for part in definition.parts or ("",):
        place = folder / part
        if not place.is_dir():
            _fetch_part(together, part, place)


def _fetch_part(definitions: list[Definition], part: str, folder: Path) -> None:
    """Fetch from the first source that has it."""
    sources: list[tuple[str, Callable[[list[Definition], str], Content], str]] = [
        ("ir_datasets", _from_ir_datasets, definitions[0].ir_datasets),
        ("the hub", _from_hub, definitions[0].hub),
    ]
    reasons = []
    for source, load, identifier in sources:
        if not identifier:
            continue
        try:
            _write(folder, load(definitions, part), f"{source}: {identifier.format(part=part)}")
            return
        except Exception as error:  # both libraries, and the network below them, raise what they like
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise
            reasons.append(f"from {source} ({' '.join(str(error).split())[:300]})")
    raise DupmaeError(
        f"{definitions[0].folder or definitions[0].name} cannot be had: not {', nor '.join(reasons)}; put it into "
        f"{folder} in BEIR layout."
    )


def _from_ir_datasets(definitions: list[Definition], part: str) -> Content:
    """Load with `ir_datasets`."""
    try:
        import ir_datasets
    except ModuleNotFoundError:
        raise DupmaeError("not installed: pip install 'dupmae[benchmarks]'") from None
    loaded = [(each.split, ir_datasets.load(each.ir_datasets.format(part=part))) for each in definitions]
    queries: dict[str, str] = {}
    judgements: dict[str, Qrels] = {}
    for split, data in loaded:
        for judgement in data.qrels_iter():
            judgements.setdefault(split, {}).setdefault(judgement.query_id, {})[judgement.doc_id] = judgement.relevance
        queries |= {query.query_id: query.text for query in data.queries_iter() if query.query_id in judgements[split]}
    documents = loaded[0][1]
    passages = (
        Passage(document.doc_id, getattr(document, "title", ""), _text(document))
        for document in bar(documents.docs_iter(), "Fetch", "passages", documents.docs_count())
    )
    return passages, queries, judgements


def _text(document: Any) -> str:
    """Read what `ir_datasets` calls a document's text or, of those with a title and an address, its body."""
    text: str = document.body if hasattr(document, "body") else document.text
    return text


def _from_hub(definitions: list[Definition], part: str) -> Content:
    """Load with `datasets`: `NAME` holds `corpus` and `queries`, and NAME-qrels the judgements; `NAME:SPLIT` is a
    repository that holds the three as subsets of several collections, one a split.
    """
    import datasets

    (definition,) = definitions
    name, _, split = definition.hub.partition(":")

    def rows(repository: str, subset: str | None, which: str | None) -> Iterator[dict[str, Any]]:
        found = datasets.load_dataset(repository, subset)
        return iter(found[which] if which else next(iter(found.values())))

    judged = rows(name, "qrels", split) if split else rows(f"{name}-qrels", None, definition.split)
    qrels: Qrels = {}
    for row in judged:
        qrels.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = int(row.get("score", 1))
    queries = {str(row["_id"]): row["text"] for row in rows(name, "queries", split)}
    passages = (
        Passage(str(row["_id"]), row.get("title") or "", row["text"])
        for row in bar(rows(name, "corpus", split), "Fetch", "passages")
    )
    return passages, {query: text for query, text in queries.items() if query in qrels}, {definition.split: qrels}


def _write(folder: Path, content: Content, source: str) -> None:
    """Write a folder in BEIR layout."""
    passages, queries, judgements = content
    with atomic_folder(folder) as temporary:
        count = write_benchmark(temporary, passages, queries, judgements)
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        sums = {path.relative_to(temporary).as_posix(): file_sha256(path) for path in files}
        write_json(temporary / SOURCE_FILE, {"source": source, "passages": count, "sha256": sums})


def _verify(folder: Path) -> None:
    """Compare a fetched folder with the checksums it was written with; a user's own folder has none."""
    record = folder / SOURCE_FILE
    if not record.is_file():
        return
    try:
        checksums = list(parse_json(record.read_text(encoding="utf-8"))["sha256"].items())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DupmaeError(f"{record} is damaged: delete {folder} to fetch it again.") from None
    for name, expected in checksums:
        if not (folder / name).is_file() or file_sha256(folder / name) != expected:
            raise DupmaeError(f"{folder / name} is not what was fetched: delete {folder} to fetch it again.")
