"""Text and judgements: passages, pairs, benchmarks and runs in files, and the token store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dupmae.corpus.benchmark import Benchmark, read_benchmark, read_splits, write_benchmark
from dupmae.corpus.pairs import read_pairs
from dupmae.corpus.passage import Chunk, Document, Heading, Passage
from dupmae.corpus.readers import read_passages
from dupmae.corpus.splits import split_queries
from dupmae.corpus.trec import Qrels, Run, read_qrels, read_run, write_run

if TYPE_CHECKING:
    from dupmae.corpus.store import TokenStore, build_token_store

__all__ = [
    "Benchmark",
    "Chunk",
    "Document",
    "Heading",
    "Passage",
    "Qrels",
    "Run",
    "TokenStore",
    "build_token_store",
    "read_benchmark",
    "read_pairs",
    "read_passages",
    "read_qrels",
    "read_run",
    "read_splits",
    "split_queries",
    "write_benchmark",
    "write_run",
]


def __getattr__(name: str) -> Any:
    """Load the token store on first use: it brings in Arrow and numpy."""
    if name in ("TokenStore", "build_token_store"):
        from dupmae.corpus import store

        return getattr(store, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
