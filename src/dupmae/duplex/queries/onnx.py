"""Encode queries with a model's encoder in ONNX Runtime, straight from the weights in its folder.

The graph is written when the model is opened (:mod:`dupmae.duplex.onnx`), in some milliseconds, and the weights are
mapped from the model's own files: nothing is exported, so nothing can be of another model than it says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.onnx.halves import query_graph
from dupmae.duplex.onnx.session import Session, batches
from dupmae.duplex.queries.reading import NO_TERMS, Terms, TextReader, as_rows
from dupmae.errors import DupmaeError
from dupmae.models import Model


class OnnxQueries:
    """Encodes queries as :meth:`dupmae.DuplexEncoder.embed_queries` does, in float32, without PyTorch.

    Args:
        model: A duplex model.

    Raises:
        DupmaeError: ONNX Runtime is missing, or the model is none that it can run: why is said.
    """

    def __init__(self, model: Model) -> None:
        self.reader = TextReader(model, "query")
        self.pooling, self.tokenizer, self.words = self.reader.pooling, self.reader.tokenizer, self.reader.words
        self._session: Session | None = None
        if self.pooling.dense_dimension or (self.pooling.has_terms and not self.pooling.own_tokens):
            graph, instead = query_graph(self.reader), "--query_encoder torch"
            # Packed anew, weights would take their size once more, in each process, to save a millisecond a query.
            self._session = Session(graph, model.label, prepacked=False, instead=instead)

    def embed_queries(
        self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False
    ) -> DuplexEmbeddings:
        """Embed queries: the dense half, every term of the lexical half that has a weight, and the words' shares.

        Args:
            texts: Queries.
            batch_size: Queries in a forward pass, at most.
            show_progress_bar: Taken for likeness with :meth:`dupmae.DuplexEncoder.embed_queries`; queries take no time.

        Raises:
            DupmaeError: A batch of no texts, one string instead of a list, a text that is not valid Unicode, or ONNX
                Runtime fails.
        """
        if batch_size < 1:
            raise DupmaeError(f"A batch holds at least one text, not {batch_size}.")
        rows = self.reader.token_ids(texts)
        dense, terms = self.computed(rows, batch_size)
        if self.pooling.own_tokens:
            terms = self.reader.looked_up_terms(rows)
        names, weights = as_rows(terms, self.pooling.vocabulary_size)
        return DuplexEmbeddings(dense, names, weights, self.reader.word_shares(texts))

    def computed(
        self, rows: Sequence[NDArray[np.int64]], batch_size: int = 32
    ) -> tuple[NDArray[np.float32], list[Terms]]:
        """Run the network over n queries that are given as token ids: (n, d'), and the terms of each.

        There are no terms where queries have their own tokens alone, which are looked up.
        """
        dense = np.zeros((len(rows), self.pooling.dense_dimension), np.float32)
        terms: list[Terms] = [NO_TERMS] * len(rows)
        for places in batches(rows, batch_size) if self._session is not None else ():
            assert self._session is not None
            found = self._session.run([rows[place] for place in places])
            if "dense" in found:
                dense[places] = found["dense"]
            for place, weights in zip(places, found.get("lexical", ()), strict=False):
                ids = np.flatnonzero(weights)
                terms[place] = ids, weights[ids]
        return dense, terms
