"""Encode queries without any network: their dense half is a sum of vectors of their tokens.

The vectors are fitted to what the model makes of many texts (:mod:`dupmae.duplex.distilling`). Learned terms, where
queries have their own tokens alone, and whole words are look-ups anyway. The sum is scaled to the length that the
model's dense half has, times the cosine of the two on texts that were held out: of a direction that is off by so much,
that is the part to be relied on.

| tensor of `queries.static`, a safetensors file | what |
|---|---|
| `tokens`, (V, d') int8 | the vectors of tokens, special ones included |
| `scales`, (V,) float16 | what each row is multiplied by |

Its header holds the fingerprint of the model, the cosine, and the checksum of all numbers.
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
from dupmae.duplex.queries.reading import TextReader, as_rows
from dupmae.errors import DupmaeError
from dupmae.files import atomic_path
from dupmae.models import Model
from dupmae.models.files import STATIC_FILE
from dupmae.models.mapped import map_tensors
from dupmae.models.names import shipped_table

FORMAT = "dupmae-static-queries"
"""What its header's `format` says."""
VERSION = 1
"""Of the layout."""
TENSORS = {"tokens": "I8", "scales": "F16"}
"""What it holds, and the data types."""
AGAIN = "make it again with `dupmae distil-queries`."
"""What to do about one that is of no use."""


@dataclass(frozen=True, slots=True, eq=False)
class StaticTable:
    """Vectors of V tokens, whose sum over a query points about where its dense half does."""

    tokens: NDArray[np.int8]
    """(V, d')."""
    scales: NDArray[np.float16]
    """What each row is multiplied by, (V,)."""

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> StaticTable:
        """Round vectors (V, d') to a byte a number."""
        scales = (np.abs(vectors).max(axis=1, initial=0) / 127).astype(np.float16)
        steps = np.maximum(scales.astype(np.float32), np.finfo(np.float16).tiny)[:, None]
        return cls(np.clip(np.rint(vectors / steps), -127, 127).astype(np.int8), scales)

    def sum(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Add up the vectors of a text's tokens, (d',)."""
        return np.asarray(self.scales[ids].astype(np.float32) @ self.tokens[ids].astype(np.float32), np.float32)

    def save(self, file: Path, fingerprint: str, cosine: float) -> None:
        """Write the table, whole or not at all.

        Args:
            file: Where to.
            fingerprint: Of the model.
            cosine: Of its sums and the model's dense halves.
        """
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in TENSORS}
        header = {"format": FORMAT, "version": str(VERSION), "model": fingerprint, "cosine": f"{cosine:.4f}"}
        with atomic_path(file) as temporary:
            save_file(tensors, temporary, metadata=header | {"checksum": _checksum(tensors)})


class StaticQueries:
    """Encodes queries by look-ups alone.

    Args:
        model: A duplex model whose queries have their own tokens as terms, beside which there is a table; or the newest
            edition of `dupmae-small`, whose table comes with the package.

    Raises:
        DupmaeError: There is no table, or one of another model, of a later version, or a damaged one; or the model's
            queries need its output matrix.
    """

    def __init__(self, model: Model) -> None:
        self.reader = TextReader(model, "query")
        self.pooling, self.tokenizer, self.words = self.reader.pooling, self.reader.tokenizer, self.reader.words
        refuse_output_matrix(self.reader)
        file = table_of(model)
        self.table, self.cosine = _load(file, model)
        if self.table.tokens.shape != (self.pooling.vocabulary_size, self.pooling.dense_dimension):
            raise DupmaeError(f"{file} does not fit the model: {AGAIN}")

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
        dense = unit_rows(sums) * (self.reader.scale("cls") * np.float32(self.cosine))
        names, weights = as_rows(self.reader.looked_up_terms(rows), self.pooling.vocabulary_size)
        return DuplexEmbeddings(dense, names, weights, self.reader.word_shares(texts))


def table_of(model: Model) -> Path:
    """Find a model's table: beside it, or what the package has for it.

    Raises:
        DupmaeError: There is none.
    """
    own = Path(model.path) / STATIC_FILE
    found = own if own.is_file() else shipped_table(model.fingerprint)
    if found is None:
        raise DupmaeError(
            f"{model.label} has no table for static queries ({STATIC_FILE}): make one with `dupmae "
            "distil-queries`, or take --query_encoder onnx."
        )
    return found


def refuse_output_matrix(reader: TextReader) -> None:
    """Refuse a model whose queries' terms, or the length of whose dense half, cannot be looked up.

    Raises:
        DupmaeError: It is one.
    """
    if reader.pooling.has_terms and not reader.pooling.own_tokens:
        raise DupmaeError(
            f"{reader.label} reads the terms of a query off its output matrix (query_terms logits), which no table can "
            "stand in for: take --query_encoder onnx or torch."
        )
    if not reader.pooling.normalize:
        raise DupmaeError(
            f"{reader.label} does not scale the halves of a query to unit length (normalize false), and a table knows "
            "directions alone: take --query_encoder onnx or torch."
        )


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows (n, d) to unit length; of zeros they stay."""
    lengths = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), np.float32)


def _load(file: Path, model: Model) -> tuple[StaticTable, float]:
    """Map a table, and read its cosine."""
    tensors, header = map_tensors(file, model.label, file.parent), _metadata(file)
    if header.get("format") != FORMAT or not header.get("version", "").isdigit():
        raise DupmaeError(f"{file} is no table for static queries: {AGAIN}")
    if int(header["version"]) > VERSION:
        raise DupmaeError(f"{file} was written by a later version of dupmae: install that, or {AGAIN}")
    if header.get("model") != model.fingerprint:
        raise DupmaeError(f"{file} was made for another state of the model: {AGAIN}")
    kinds = {name: kind for name, (kind, _, _) in tensors.items()}
    arrays = {name: array for name, (_, _, array) in tensors.items()}
    try:
        cosine = float(header["cosine"])
    except (KeyError, ValueError):
        cosine = 0.0
    if kinds != TENSORS or _checksum(arrays) != header.get("checksum") or not 0 < cosine <= 1:
        raise DupmaeError(f"{file} is damaged: {AGAIN}")
    return StaticTable(**arrays), cosine


def _metadata(file: Path) -> dict[str, str]:
    """Read what the header of a safetensors file, known to be whole, says beside its tensors."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        found = json.loads(opened.read(length)).get("__metadata__")
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def _checksum(tensors: dict[str, NDArray[Any]]) -> str:
    """Compute the checksum of all numbers."""
    hasher = xxhash.xxh3_128()
    for name in sorted(tensors):
        hasher.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        hasher.update(np.ascontiguousarray(tensors[name]).data)
    return str(hasher.hexdigest())
