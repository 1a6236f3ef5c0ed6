"""Encode queries without any network: their dense half is a sum of vectors of their tokens, and of pairs of these.

The vectors are fitted to what the model makes of many texts (:mod:`dupmae.duplex.distilling`). Learned terms, where
queries have their own tokens alone, and whole words are look-ups anyway.

| tensor of `queries.static`, a safetensors file | what |
|---|---|
| `tokens`, (V, d') int8; `token_scales`, (V,) float16 | the vectors of tokens, special ones included |
| `pairs`, (P,) int64 | pairs of tokens that follow each other, first V + second, rising |
| `pair_vectors`, (P, d') int8; `pair_scales`, (P,) float16 | what such a pair adds |

Its header holds the fingerprint of the model and the checksum of all numbers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.queries.reading import QueryReader, as_rows
from dupmae.errors import DupmaeError
from dupmae.files import atomic_path
from dupmae.models import Model
from dupmae.models.mapped import map_tensors

FILE = "queries.static"
"""Name of the file in a model's folder; what ends so does not count for the model's fingerprint."""
FORMAT = "dupmae-static-queries"
"""What its header's `format` says."""
VERSION = 1
"""Of the layout."""
TENSORS = {"tokens": "I8", "token_scales": "F16", "pairs": "I64", "pair_vectors": "I8", "pair_scales": "F16"}
"""What it holds, and the data types."""


@dataclass(frozen=True, slots=True, eq=False)
class StaticTable:
    """Vectors of V tokens and P pairs of tokens, whose sum over a query points where its dense half does."""

    tokens: NDArray[np.int8]
    """(V, d')."""
    token_scales: NDArray[np.float16]
    """What each row is multiplied by, (V,)."""
    pairs: NDArray[np.int64]
    """First token times V plus second token, rising, (P,)."""
    pair_vectors: NDArray[np.int8]
    """(P, d')."""
    pair_scales: NDArray[np.float16]
    """What each row is multiplied by, (P,)."""

    def sum(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Add up the vectors of a text's tokens and pairs, (d',)."""
        total = self.token_scales[ids].astype(np.float32) @ self.tokens[ids].astype(np.float32)
        places = self.places(ids)
        pairs = self.pair_scales[places].astype(np.float32) @ self.pair_vectors[places].astype(np.float32)
        return np.asarray(total + pairs, np.float32)

    def places(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find the rows of those pairs of a text that the table has."""
        keys = ids[:-1] * len(self.tokens) + ids[1:]
        found = np.searchsorted(self.pairs, keys)
        known = found < len(self.pairs)
        known[known] = self.pairs[found[known]] == keys[known]
        return found[known]

    def save(self, file: Path, fingerprint: str) -> None:
        """Write the table of the model of a fingerprint, whole or not at all."""
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in TENSORS}
        header = {"format": FORMAT, "version": str(VERSION), "model": fingerprint, "checksum": _checksum(tensors)}
        with atomic_path(file) as temporary:
            save_file(tensors, temporary, metadata=header)

    @classmethod
    def load(cls, file: Path, model: Model) -> StaticTable:
        """Map the table of a model.

        Raises:
            DupmaeError: There is none, or one of another model, of a later version, or a damaged one.
        """
        again = "make it again with `dupmae distil-queries`."
        if not file.is_file():
            raise DupmaeError(
                f"{model.label} has no table for static queries ({file.name}): make one with `dupmae distil-queries`."
            )
        tensors = map_tensors(file, model.label, file.parent)
        header = _metadata(file)
        if header.get("format") != FORMAT or not header.get("version", "").isdigit():
            raise DupmaeError(f"{file} is no table for static queries: {again}")
        if int(header["version"]) > VERSION:
            raise DupmaeError(f"{file} was written by a later version of dupmae: install that, or {again}")
        if header.get("model") != model.fingerprint:
            raise DupmaeError(f"{file} was made for another state of the model: {again}")
        kinds = {name: kind for name, (kind, _, _) in tensors.items()}
        arrays = {name: array for name, (_, _, array) in tensors.items()}
        if kinds != TENSORS or _checksum(arrays) != header.get("checksum"):
            raise DupmaeError(f"{file} is damaged: {again}")
        return cls(**arrays)


class StaticQueries:
    """Encodes queries by look-ups alone.

    Args:
        model: A duplex model whose queries have their own tokens as terms, beside which there is a table.

    Raises:
        DupmaeError: There is no table, one that does not fit, or the model's queries need its output matrix.
    """

    def __init__(self, model: Model) -> None:
        self.reader = QueryReader(model)
        self.pooling, self.tokenizer, self.words = self.reader.pooling, self.reader.tokenizer, self.reader.words
        refuse_output_matrix(self.reader)
        self.table = StaticTable.load(table_of(model), model)
        if self.table.tokens.shape != (self.pooling.vocabulary_size, self.pooling.dense_dimension):
            raise DupmaeError(f"{table_of(model)} does not fit the model: make it again with `dupmae distil-queries`.")

    def embed_queries(
        self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False
    ) -> DuplexEmbeddings:
        """Embed queries: the dense half, every term of the lexical half that has a weight, and the words' shares.

        Args:
            texts: Queries.
            batch_size: Taken, as the next one, for likeness with :meth:`dupmae.DuplexEncoder.embed_queries`.
            show_progress_bar: Queries take no time.

        Raises:
            DupmaeError: One string instead of a list, or a text that is not valid Unicode.
        """
        rows = self.reader.token_ids(texts)
        sums = np.zeros((len(rows), self.pooling.dense_dimension), np.float32)
        for row, ids in enumerate(rows):
            sums[row] = self.table.sum(ids)
        terms = [(np.zeros(0, np.int64), np.zeros(0, np.float32))] * len(rows)
        if self.pooling.has_terms:
            terms = self.reader.looked_up_terms(rows)
        names, weights = as_rows(terms, self.pooling.vocabulary_size)
        return DuplexEmbeddings(self.reader.scaled(sums, "cls"), names, weights, self.reader.word_shares(texts))


def table_of(model: Model) -> Path:
    """Name the file of a model's table, whether it is there or not."""
    return Path(model.path) / FILE


def refuse_output_matrix(reader: QueryReader) -> None:
    """Refuse a model whose queries' terms cannot be looked up.

    Raises:
        DupmaeError: It is one.
    """
    if reader.pooling.has_terms and not reader.pooling.own_tokens:
        raise DupmaeError(
            f"{reader.label} reads the terms of a query off its output matrix (query_terms logits), which no table can "
            "stand in for: take --query_encoder onnx or torch."
        )


def _metadata(file: Path) -> dict[str, str]:
    """Read what the header of a safetensors file, known to be whole, says beside its tensors."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        found = json.loads(opened.read(length)).get("__metadata__")
    return found if isinstance(found, dict) else {}


def _checksum(tensors: dict[str, NDArray[Any]]) -> str:
    """Compute the checksum of all numbers."""
    hasher = xxhash.xxh3_128()
    for name in sorted(tensors):
        hasher.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        hasher.update(np.ascontiguousarray(tensors[name]).data)
    return str(hasher.hexdigest())
