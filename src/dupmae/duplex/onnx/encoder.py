"""Encode passages and queries with a model in ONNX Runtime, without PyTorch: what building an index needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from dupmae.config import CHUNK_TOKENS
from dupmae.corpus import Passage
from dupmae.duplex.chunks import cut_documents
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.onnx.halves import passage_graph
from dupmae.duplex.onnx.session import Session, batches
from dupmae.duplex.queries.onnx import OnnxQueries
from dupmae.duplex.queries.reading import Task, TextReader
from dupmae.errors import DupmaeError
from dupmae.models import Model
from dupmae.runtime.bars import bar

SLAB = 4096
"""Texts whose token ids are in memory at a time."""


class OnnxEncoder:
    """Encodes as :class:`dupmae.DuplexEncoder` does, with the passages' side in a graph of ONNX.

    Args:
        model: A duplex model.
        session: Its passages' graph (:func:`dupmae.duplex.onnx.halves.passage_graph`); None takes the weights in the
            model's folder as they are.
        arithmetic: What the graph computes products in.

    Attributes:
        path: What the model is found by.
        arithmetic: Of passages; queries are always encoded in float32.
        on_batch: Called with the texts and tokens of each batch that is embedded.

    Raises:
        DupmaeError: ONNX Runtime is missing, or the model is none that it can run.
    """

    def __init__(
        self, model: Model, session: Session | None = None, arithmetic: Literal["float32", "int8"] = "float32"
    ) -> None:
        self.path: str | None = model.name
        self.prompts, self.arithmetic = model.prompts, arithmetic
        self.on_batch: Callable[[int, int], None] | None = None
        self.reader = TextReader(model, "document")
        self.pooling, self.tokenizer, self.words = self.reader.pooling, self.reader.tokenizer, self.reader.words
        self._queries = OnnxQueries(model)
        if session is None:
            session = Session(passage_graph(self.reader), model.label, prepacked=True, instead="--backend torch")
        self._session = session

    def reads(self, task: Task) -> int:
        """Tell how many tokens of a text it reads, special ones left out."""
        return self.reader.reads if task == "document" else self._queries.reader.reads

    def chunks(
        self, documents: Iterable[Passage], tokens: int = CHUNK_TOKENS, overlap: int | None = None
    ) -> Iterator[Passage]:
        """Cut documents into chunks that it reads to their end; see :meth:`dupmae.DuplexEncoder.chunks`."""
        return cut_documents(self, documents, tokens, overlap)

    def embed_queries(
        self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False
    ) -> DuplexEmbeddings:
        """Embed queries: the dense half, every term of the lexical half that has a weight, and the words' shares."""
        return self._queries.embed_queries(texts, batch_size, show_progress_bar)

    def embed_documents(
        self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False
    ) -> DuplexEmbeddings:
        """Embed documents: the dense half, the `top_k` heaviest terms of the lexical half, the words of all text.

        Raises:
            DupmaeError: A batch of no texts, one string instead of a list, a text that is not valid Unicode, or ONNX
                Runtime fails.
        """
        if batch_size < 1:
            raise DupmaeError(f"A batch holds at least one text, not {batch_size}.")
        pooling, slab = self.pooling, max(SLAB, batch_size)
        top_k = pooling.settings["top_k"]
        cls = np.zeros((len(texts), pooling.dense_dimension), np.float32)
        ids = np.zeros((len(texts), top_k), np.uint16 if pooling.vocabulary_size <= 2**16 - 1 else np.uint32)
        weights = np.zeros((len(texts), top_k), np.float32)
        with bar(None, "Encode (document)", "texts", len(texts), show=show_progress_bar) as progress:
            for start in range(0, len(texts), slab) or [0]:
                rows = self.reader.token_ids(texts[start : start + slab])
                for places in batches(rows, batch_size):
                    found = self._session.run([rows[place] for place in places])
                    into = start + np.array(places)
                    for kept, name in ((cls, "dense"), (ids, "ids"), (weights, "weights")):
                        if name in found:
                            kept[into] = found[name]
                    progress.update(len(places))
                    if self.on_batch is not None:
                        self.on_batch(len(places), sum(len(rows[place]) for place in places))
        return DuplexEmbeddings(cls, *_heaviest_first(ids, weights), self.reader.word_shares(texts))


def _heaviest_first(ids: Any, weights: Any) -> tuple[Any, Any]:
    """Order terms (n, k) by the size of their weights, and leave columns out that no text uses."""
    if (weights < 0).any():
        order = np.argsort(-np.abs(weights), axis=1, kind="stable")
        ids, weights = np.take_along_axis(ids, order, axis=1), np.take_along_axis(weights, order, axis=1)
    width = int((weights != 0).sum(axis=1).max(initial=0))
    return np.where(weights[:, :width] != 0, ids[:, :width], 0).astype(ids.dtype), weights[:, :width]
