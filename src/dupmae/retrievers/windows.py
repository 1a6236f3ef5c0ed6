"""Search long documents by their windows: a document scores what its best window scores (MaxP)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from dupmae.corpus import Passage, Run
from dupmae.corpus.words import join_pieces, pieces_of
from dupmae.errors import DupmaeError

Search = Callable[[Mapping[str, str], int], Run]
"""From queries (id -> text) and a depth to their rankings."""

_SEPARATOR = "#"


def cut_windows(corpus: Mapping[str, Passage], words: int) -> dict[str, Passage]:
    """Cut every document into windows, each with the document's title.

    Args:
        corpus: Documents by id.
        words: Words of a window (two characters where a script has no spaces); the next one begins half a window later.
            A document of no more words stays whole.

    Returns:
        Windows under the document's id, `#` and their number.

    Raises:
        DupmaeError: Fewer than 2 words.
    """
    if words < 2:
        raise DupmaeError(f"A window has at least 2 words, not {words}.")
    return {window.id: window for document in corpus.values() for window in _cut(document, words, max(1, words // 2))}


def _cut(document: Passage, size: int, stride: int) -> Iterator[Passage]:
    """Cut one document into windows."""
    words = pieces_of(document.text.strip())
    for number, start in enumerate(range(0, max(len(words) - size + stride, 1), stride)):
        text = join_pieces(words[start : start + size])
        yield Passage(f"{document.id}{_SEPARATOR}{number}", document.title, text)


def by_best_window(search: Search) -> Search:
    """Turn a search for windows into one for documents.

    Windows are asked for in doubled numbers until the k best documents are certain: they are, as soon as the windows
    found hold k documents, for a window that was not found scores no more than any that was.
    """

    def search_documents(queries: Mapping[str, str], k: int) -> Run:
        run: Run = {}
        waiting, depth = dict(queries), 2 * k
        while waiting:
            found = search(waiting, depth)
            for query in list(waiting):
                best: dict[str, float] = {}
                for window, score in found[query].items():
                    document = window.rpartition(_SEPARATOR)[0]
                    best[document] = max(score, best.get(document, score))
                if len(best) >= k or len(found[query]) < depth:
                    ranked = sorted(best, key=lambda document: (-best[document], document))[:k]
                    run[query] = {document: best[document] for document in ranked}
                    del waiting[query]
            depth *= 2
        return {query: run[query] for query in queries}

    return search_documents
