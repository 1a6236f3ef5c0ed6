"""What ranks: BM25, brute force over any encoder, duplex indexes, mixtures, windows, rerankers."""

from dupmae.retrievers.bm25 import bm25_run
from dupmae.retrievers.hybrid import hybrid_run
from dupmae.retrievers.systems import dense_run, duplex_run

__all__ = ["bm25_run", "dense_run", "duplex_run", "hybrid_run"]
