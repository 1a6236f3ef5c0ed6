"""Systems that rank a corpus, by name: BM25, dense, sparse and duplex models, and what they cost."""

from __future__ import annotations

import contextlib
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
from dupmae.retrievers.best_chunk import Search
from dupmae.retrievers.bm25 import bm25_searcher
from dupmae.retrievers.lengths import Lengths
from dupmae.runtime.bars import bar
from dupmae.runtime.json_text import parse_json

if TYPE_CHECKING:
    from dupmae.index import DuplexIndex
    from dupmae.index.scoring.query import Part
    from dupmae.models import Model

BM25_SYSTEMS = {"bm25": False, "bm25-fields": True}
"""Names of BM25, and whether title and text are indexed apart."""
HALVES: tuple[Literal["dense", "lexical"], ...] = ("dense", "lexical")
"""The halves of a duplex model."""
QUERIES_AT_A_TIME = 1024
"""Queries that an index is searched for together: what is in memory beside their rankings."""


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

    Examples:
        A model that counts three words stands in for a trained one:

        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from dupmae import dense_run
        >>> from dupmae.corpus import Benchmark, Passage
        >>> SentenceTransformer(modules=[BoW(["cat", "dog", "bird"])]).save("counts", create_model_card=False)
        >>> corpus = {"a": Passage("a", "", "cat and dog"), "b": Passage("b", "", "a bird")}
        >>> run = dense_run("counts", Benchmark("pets", "test", corpus, {"q": "which dog?"}, {"q": {"a": 1}}))
        >>> [(passage, round(score, 3)) for passage, score in run["q"].items()]
        [('a', 0.707), ('b', 0.0)]
    """
    from dupmae.models import open_model
    from dupmae.retrievers.encodings import encode_corpus, search_encodings
    from dupmae.retrievers.vectors import DenseVectors

    vectors = DenseVectors(open_model(model), Lengths(document=max_length))
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as kept:
        encodings = encode_corpus(vectors, benchmark.corpus, Path(kept))
        return search_encodings(vectors, encodings, benchmark.queries, k)


def duplex_run(index: DuplexIndex, benchmark: Benchmark, k: int = 100, part: Part = "all") -> Run:
    """Rank by Eq. 12, or by one of its two halves.

    Args:
        index: Of the benchmark's corpus.
        benchmark: Gives the queries.
        k: Passages kept of each query.
        part: `"all"`, or `"dense"` / `"lexical"` / `"words"` for one part alone.

    Returns:
        Scores of the best passages, best first.

    Examples:
        >>> from dupmae import DuplexEncoder, DuplexIndex, duplex_run
        >>> from dupmae.corpus import Benchmark, Passage
        >>> corpus = {"a": Passage("a", "", "Keepers light the lamps."), "b": Passage("b", "", "Bakers bake bread.")}
        >>> encoder = DuplexEncoder("dupmae-small")
        >>> index = DuplexIndex.build("index", encoder, corpus.values())
        >>> benchmark = Benchmark("jobs", "test", corpus, {"q": "who makes bread?"}, {"q": {"b": 1}})
        >>> list(duplex_run(index, benchmark)["q"])
        ['b', 'a']
    """
    return search_index(index, benchmark.queries, k, part)


def search_index(index: DuplexIndex, queries: Mapping[str, str], k: int, part: Part = "all") -> Run:
    """Rank the k best passages of queries (id -> text) with an index; see :func:`duplex_run`."""
    names, run = list(queries), dict[str, dict[str, float]]()
    for start in bar(range(0, len(names), QUERIES_AT_A_TIME), "Search", f"times {QUERIES_AT_A_TIME:,} queries"):
        block = names[start : start + QUERIES_AT_A_TIME]
        ids, scores = index.search_embeddings(index.encoder.embed_queries([queries[query] for query in block]), k, part)
        run |= {query: dict(zip(*found, strict=True)) for query, *found in zip(block, ids, scores, strict=True)}
    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class Retriever:
    """A corpus made ready for searching by one system."""

    name: str
    """As it stands in tables."""
    search: Search
    """Ranks the k best passages of queries (id -> text)."""
    seconds: float | None = None
    """How long it took to encode and index the corpus, whenever it was; None where that is not known."""
    stored: int | None = None
    """Bytes that are needed to score: vectors or inverted lists, not ids and texts."""


def open_retrievers(
    model: str, benchmark: Benchmark, lengths: Lengths, encodings: Path, *, halves: bool = False
) -> list[Retriever]:
    """Make a benchmark's corpus ready for searching with a system.

    Args:
        model: One of :data:`BM25_SYSTEMS`, or a model as :func:`dupmae.retrievers.vectors.split_kind` takes it.
        benchmark: The corpus.
        lengths: The benchmark's rules on lengths.
        encodings: Folder in which encoded corpora are kept and found again.
        halves: Whether a duplex model is followed by each of its halves, and its words, alone (:func:`name_of_half`).

    Raises:
        DupmaeError: No such model, or one that cannot search.
    """
    if model in BM25_SYSTEMS:
        begun = time.perf_counter()
        bm25 = bm25_searcher(benchmark.corpus, fields=BM25_SYSTEMS[model])
        return [Retriever(name=model, search=bm25, seconds=time.perf_counter() - begun, stored=bm25.stored)]
    from dupmae.retrievers.encodings import encode_corpus, search_encodings
    from dupmae.retrievers.vectors import load_encoder, split_kind

    kind, found = split_kind(model)
    if kind == "duplex":
        return _open_duplex(model, found, benchmark, lengths, encodings, halves)
    vectors = load_encoder(kind, found, lengths)
    encoded = encode_corpus(vectors, benchmark.corpus, encodings)
    return [
        Retriever(
            name=model,
            search=lambda queries, k: search_encodings(vectors, encoded, queries, k),
            seconds=encoded.seconds,
            stored=encoded.stored,
        )
    ]


def name_of_half(model: str, half: Literal["dense", "lexical", "words"]) -> str:
    """Name one part of a duplex model's score as tables do."""
    return f"{model} {half}"


def reuse_index(index: Path, benchmark: Benchmark, lengths: Lengths, encodings: Path) -> None:
    """Let :func:`open_retrievers` find an index that is there, instead of encoding the same corpus again.

    Args:
        index: A finished index; one of other passages, of chunks, or read to another length, is left alone.
        benchmark: The corpus.
        lengths: The benchmark's rules on lengths.
        encodings: Folder in which encoded corpora are kept; the index is copied there.

    Raises:
        DupmaeError: No index, or its model cannot be used.
    """
    from dupmae.index import DuplexIndex
    from dupmae.index.writing.joining import recognise

    found = DuplexIndex.open(index)
    if found.manifest.chunks is not None:
        return
    read_to = found.encoder[0].document_length  # type: ignore[index]
    copy = encodings / _index_fingerprint(found.manifest.model_fingerprint, found.encoder, lengths, benchmark)
    if copy.exists() or found.encoder[0].document_length != read_to:  # type: ignore[index]
        return
    try:
        recognise(index, found.manifest, benchmark.corpus.values())
    except DupmaeError:
        return
    with atomic_folder(copy) as folder:
        shutil.copytree(index, folder, dirs_exist_ok=True)


def _index_fingerprint(model_fingerprint: str, encoder: Any, lengths: Lengths, benchmark: Benchmark) -> str:
    """Name a duplex model's index of a corpus, which the encoder reads to the rules' lengths from here on."""
    from dupmae.retrievers.vectors import limit_lengths

    _, limit = limit_lengths(encoder, lengths)
    return fingerprint(["duplex", model_fingerprint, limit, corpus_fingerprint(benchmark.corpus.values())])


def _open_duplex(
    name: str, model: Model, benchmark: Benchmark, lengths: Lengths, encodings: Path, halves: bool
) -> list[Retriever]:
    """Make a corpus ready for searching with a duplex model, through an index of its own."""
    from dupmae.duplex import DuplexEncoder
    from dupmae.index import DuplexIndex

    encoder = DuplexEncoder(model)
    folder = encodings / _index_fingerprint(model.fingerprint, encoder, lengths, benchmark)
    record = folder.with_name(f"{folder.name}.json")
    untouched, begun = not folder.exists(), time.perf_counter()
    index = DuplexIndex.build(folder, encoder, benchmark.corpus.values(), model=model.name, chunk_tokens=0)
    if untouched:  # else part of the time was spent by a call that was interrupted
        write_json(record, {"seconds": time.perf_counter() - begun})
    seconds: float | None = None  # unknown where the record is gone or damaged
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        seconds = float(parse_json(record.read_text(encoding="utf-8"))["seconds"])
    whole = Retriever(
        name=name,
        search=lambda queries, k: search_index(index, queries, k),
        seconds=seconds,
        stored=index.info()["bytes_of_vectors"],
    )
    alone: list[Literal["dense", "lexical", "words"]] = ["dense"] if index.manifest.cls_dimension else []
    alone += ["lexical"] if index.manifest.top_k else []
    alone += ["words"] if index.manifest.words is not None else []
    if not halves or len(alone) < 2:
        return [whole]
    return [
        whole,
        *(
            Retriever(
                name=name_of_half(name, half),
                search=lambda queries, k, half=half: search_index(index, queries, k, half),  # type: ignore[misc]
            )
            for half in alone
        ),
    ]
