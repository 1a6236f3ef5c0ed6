"""Search long documents by their chunks: a document scores what its best chunk scores (MaxP)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dupmae.corpus import Passage, Run
from dupmae.corpus.chunks import chunk_documents

Search = Callable[[Mapping[str, str], int], Run]
"""From queries (id -> text) and a depth to their rankings."""


def cut_corpus(corpus: Mapping[str, Passage], tokens: int, overlap: int | None) -> dict[str, Passage]:
    """Cut documents by id into chunks by id, the same for every system that ranks them.

    Args:
        corpus: The documents.
        tokens: Tokens of a chunk, counted by the tokenizer of dupmae-small, as BM25 has none and others differ.
        overlap: See :func:`dupmae.corpus.chunks.chunk_documents`.
    """
    return {chunk.id: chunk for chunk in chunk_documents(corpus.values(), _counting_tokenizer(), tokens, overlap)}


def _counting_tokenizer() -> Any:
    """Open the tokenizer that chunks are measured with."""
    from dupmae.backbones.opening import open_tokenizer
    from dupmae.models import SMALL, open_model

    return open_tokenizer(open_model(SMALL))


def by_best_chunk(search: Search, documents: Mapping[str, str]) -> Search:
    """Turn a search for chunks into one for documents.

    Chunks are asked for in doubled numbers until the k best documents are certain: they are, as soon as the chunks
    found hold k documents, for a chunk that was not found scores no more than any that was.

    Args:
        search: Ranks chunks, or documents already.
        documents: Id of a chunk -> its document's.
    """

    def search_documents(queries: Mapping[str, str], k: int) -> Run:
        run: Run = {}
        waiting, depth = dict(queries), 2 * k
        while waiting:
            found = search(waiting, depth)
            for query in list(waiting):
                best: dict[str, float] = {}
                for chunk, score in found[query].items():
                    document = documents.get(chunk, chunk)
                    best[document] = max(score, best.get(document, score))
                if len(best) >= k or len(found[query]) < depth:
                    ranked = sorted(best, key=lambda document: (-best[document], document))[:k]
                    run[query] = {document: best[document] for document in ranked}
                    del waiting[query]
            depth *= 2
        return {query: run[query] for query in queries}

    return search_documents
