"""Retrieve, re-score and encode in PyTerrier's pipelines; needs `python-terrier` (extra `pyterrier`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyterrier as pt

from dupmae.duplex import DuplexEncoder
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex


class DuplexRetriever(pt.Transformer):  # type: ignore[misc]
    """Finds the best documents of queries, or, where documents (`docno`) are given with them, scores those.

    Args:
        index: An index, or its folder.
        num_results: Documents of a query.
        where: A filter on metadata, as of `dupmae search --where`; not for documents that are given.
        with_text: Whether title and text of a document, or of its best chunk, come along.
    """

    def __init__(
        self,
        index: DuplexIndex | str | Path,
        num_results: int = 1000,
        where: str | None = None,
        with_text: bool = False,
    ) -> None:
        super().__init__()
        self.index = index if isinstance(index, DuplexIndex) else DuplexIndex.open(Path(index))
        self.num_results, self.where, self.with_text = num_results, where, with_text

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Rank documents (`docno`, `score`, `rank`) for rows of `qid` and `query`."""
        rows: list[dict[str, Any]] = []
        if "docno" in inp.columns:
            if self.where is not None:
                raise DupmaeError("`where` chooses among all documents, and here some are given: filter those.")
            for _, group in inp.groupby("qid", sort=False):
                hits = self.index.explain(group["query"].iloc[0], list(group["docno"]))
                rows += [row | {"score": hit.score} for row, hit in zip(group.to_dict("records"), hits, strict=True)]
            return pt.model.add_ranks(pd.DataFrame(rows, columns=[*dict.fromkeys([*inp.columns, "score"])]))
        texts, columns = list(inp["query"]), ["docno", "score", *(["title", "text"] if self.with_text else [])]
        inp = inp.drop(columns=[*columns, "rank"], errors="ignore")  # those of an earlier ranking
        found: list[list[tuple[Any, ...]]] = []
        if self.with_text:
            for hits in self.index.search(texts, self.num_results, where=self.where):
                found.append([(hit.document, hit.score, hit.title, hit.text) for hit in hits])
        else:
            queries = self.index.queries.embed_queries(texts)
            ranked = self.index.search_embeddings(queries, self.num_results, where=self.where)
            found += [list(zip(*both, strict=True)) for both in zip(*ranked, strict=True)]
        for row, hits_of in zip(inp.to_dict("records"), found, strict=True):
            rows += [row | dict(zip(columns, hit, strict=True)) for hit in hits_of]
        return pt.model.add_ranks(pd.DataFrame(rows, columns=[*inp.columns, *columns]))


class DuplexVectors(pt.Transformer):  # type: ignore[misc]
    """Encodes queries (`query` to `query_vec` and `query_toks`) or documents (`text` to `doc_vec` and `toks`)."""

    def __init__(self, encoder: DuplexEncoder, task: Literal["query", "document"]) -> None:
        super().__init__()
        self.encoder, self.task = encoder, task

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Add the dense half, float32 (d',), and the learned terms with their weights."""
        embed = self.encoder.embed_queries if self.task == "query" else self.encoder.embed_documents
        vectors = embed(list(inp["query" if self.task == "query" else "text"]))
        name = self.encoder.tokenizer.convert_ids_to_tokens
        terms = [
            {name(int(term)): float(weight) for term, weight in zip(*row, strict=True) if weight}
            for row in zip(vectors.ids, vectors.weights, strict=True)
        ]
        dense, lexical = ("query_vec", "query_toks") if self.task == "query" else ("doc_vec", "toks")
        return inp.assign(**{dense: list(np.asarray(vectors.cls)), lexical: terms})
