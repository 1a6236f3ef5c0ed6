"""Systems that search a corpus, opened by name: BM25, duplex, dense and sparse models, and what they cost."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dupmae.corpus import Benchmark, Run
from dupmae.corpus.passage import corpus_fingerprint
from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder, fingerprint, write_json
from dupmae.retrievers.bm25 import bm25_searcher
from dupmae.retrievers.lengths import Lengths
from dupmae.retrievers.windows import Search

if TYPE_CHECKING:
    from dupmae.index import DuplexIndex
    from dupmae.index.scoring.query import Part


BM25 = {"bm25": False, "bm25-fields": True}
"""Names of BM25, and whether title and text are apart."""
QUERIES_AT_A_TIME = 1024
"""Queries that an index is searched for together: what is in memory beside their rankings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retriever:
    """A corpus made ready for searching by one system."""

    name: str
    """As it stands in tables."""
    search: Search
    """The k best passages of queries (id -> text), best first."""
    seconds: float | None = None
    """How long it took to encode and index the corpus, whenever it was; None where that is not known."""
    stored: int | None = None
    """Bytes that are needed to score: vectors or inverted lists, not ids and texts."""


def open_retrievers(
    model: str, benchmark: Benchmark, wanted: Lengths, encodings: Path, *, halves: bool = False
) -> list[Retriever]:
    """Make a benchmark's corpus ready for searching with a system.

    Args:
        model: One of :data:`BM25`, or a model as :func:`dupmae.retrievers.vectors.split_kind` takes it.
        benchmark: The corpus.
        wanted: The benchmark's rules on lengths.
        encodings: Folder in which encoded corpora are kept and found again.
        halves: Whether a duplex model is followed by each of its halves alone.

    Raises:
        DupmaeError: No such model, or one that cannot search.
    """
    if model in BM25:
        begun = time.perf_counter()
        bm25 = bm25_searcher(benchmark.corpus, fields=BM25[model])
        return [Retriever(name=model, search=bm25, seconds=time.perf_counter() - begun, stored=bm25.stored)]
    from dupmae.retrievers.encodings import encode_corpus, search_encodings
    from dupmae.retrievers.vectors import load_encoder, split_kind

    kind, path = split_kind(model)
    if kind == "duplex":
        return _duplex(model, path, benchmark, wanted, encodings, halves)
    vectors = load_encoder(kind, path, wanted)
    encoded = encode_corpus(vectors, benchmark.corpus, encodings)
    return [
        Retriever(
            name=model,
            search=lambda queries, k: search_encodings(vectors, encoded, queries, k),
            seconds=encoded.seconds,
            stored=encoded.stored,
        )
    ]


def share_index(index: Path, benchmark: Benchmark, wanted: Lengths, encodings: Path) -> None:
    """Let :func:`open_retrievers` find an index that is there, instead of encoding the same corpus again.

    Args:
        index: A finished index; one of other passages, or read to another length, is left alone.
        benchmark: The corpus.
        wanted: The benchmark's rules on lengths.
        encodings: Folder in which encoded corpora are kept; the index is copied there.

    Raises:
        DupmaeError: No index, or its model cannot be used.
    """
    from dupmae.index import DuplexIndex
    from dupmae.index.writing.joining import recognise

    found = DuplexIndex.open(index)
    read_to = found.encoder[0].document_length  # type: ignore[index]
    place = encodings / _mark(found.manifest.model_path(index), found.encoder, wanted, benchmark)
    if place.exists() or found.encoder[0].document_length != read_to:  # type: ignore[index]
        return
    try:
        recognise(index, found.manifest, benchmark.corpus.values())
    except DupmaeError:
        return
    with atomic_folder(place) as folder:
        shutil.copytree(index, folder, dirs_exist_ok=True)


def _mark(path: str, encoder: Any, wanted: Lengths, benchmark: Benchmark) -> str:
    """Name of a duplex model's index of a corpus, which it reads to the length that the rules say from here on."""
    from dupmae.models import model_fingerprint
    from dupmae.retrievers.vectors import limit_lengths

    lengths = limit_lengths(encoder, wanted)
    return fingerprint(["duplex", model_fingerprint(path), lengths[1], corpus_fingerprint(benchmark.corpus.values())])


def _duplex(
    name: str, path: str, benchmark: Benchmark, wanted: Lengths, encodings: Path, halves: bool
) -> list[Retriever]:
    """A duplex model, through an index of its own."""
    from dupmae.duplex import DuplexEncoder
    from dupmae.index import DuplexIndex

    encoder = DuplexEncoder(path)
    mark = _mark(path, encoder, wanted, benchmark)
    record = encodings / f"{mark}.json"
    untouched, begun = not (encodings / mark).exists(), time.perf_counter()
    index = DuplexIndex.build(encodings / mark, encoder, benchmark.corpus.values(), model=path)
    if untouched:  # else part of the time was spent by a call that was interrupted
        write_json(record, {"seconds": time.perf_counter() - begun})
    seconds = json.loads(record.read_text(encoding="utf-8"))["seconds"] if record.is_file() else None
    parts: dict[str, Literal["both", "dense", "lexical"]] = {name: "both"}
    if halves and index.manifest.cls_dimension and index.manifest.top_k:
        parts |= {f"{name} dense": "dense", f"{name} lexical": "lexical"}
    return [
        Retriever(
            name=title,
            search=lambda queries, k, part=part: search_index(index, queries, k, part),  # type: ignore[misc]
            seconds=seconds if part == "both" else None,
            stored=index.info()["bytes_of_vectors"] if part == "both" else None,
        )
        for title, part in parts.items()
    ]


def dense_run(
    model: str, benchmark: Benchmark, k: int = 100, max_length: int | None = None, folder: Path | None = None
) -> Run:
    """Rank by the similarity of one dense vector per text, exactly.

    Args:
        model: Any sentence-transformers model: a folder, a Hugging Face id or the name of a model package.
        benchmark: Corpus and queries.
        k: Passages kept of each query.
        max_length: Tokens of a passage; longer ones are cut. None keeps the model's own limit.
        folder: Where the vectors are kept, so that a call that was killed goes on; None keeps them while it lasts.

    Returns:
        Scores of the best passages by the model's own similarity (cosine unless it says otherwise), equal ones by id.
    """
    from dupmae.models import resolve_model
    from dupmae.retrievers.encodings import encode_corpus, search_encodings
    from dupmae.retrievers.vectors import DenseVectors

    vectors = DenseVectors(resolve_model(model), Lengths(document=max_length))
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        encodings = encode_corpus(vectors, benchmark.corpus, Path(place))
        return search_encodings(vectors, encodings, benchmark.queries, k)


def duplex_run(index: DuplexIndex, benchmark: Benchmark, k: int = 100, part: Part = "both") -> Run:
    """Rank by Eq. 12, or by one of its two terms.

    Args:
        index: Of the benchmark's corpus.
        benchmark: Gives the queries.
        k: Passages kept of each query.
        part: `"both"`, or `"dense"` / `"lexical"` for one half alone.
    """
    return search_index(index, benchmark.queries, k, part)


def search_index(index: DuplexIndex, queries: Mapping[str, str], k: int, part: Part = "both") -> Run:
    """The k best passages of queries (id -> text); see :func:`duplex_run`."""
    names, run = list(queries), dict[str, dict[str, float]]()
    for start in range(0, len(names), QUERIES_AT_A_TIME):
        block = names[start : start + QUERIES_AT_A_TIME]
        ids, scores = index.search_embeddings(index.encoder.embed_queries([queries[query] for query in block]), k, part)
        run |= {query: dict(zip(*found, strict=True)) for query, *found in zip(block, ids, scores, strict=True)}
    return run
