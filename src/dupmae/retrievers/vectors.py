"""Any sentence-transformers model as a function from texts to vectors, dense or sparse, and its similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer

from dupmae.backbones import open_modules
from dupmae.backbones.embedder import encoding_options, open_embedder
from dupmae.corpus.cutting import cut_texts
from dupmae.corpus.unknown_words import warn_of_unknown_words
from dupmae.duplex import DuplexEncoder
from dupmae.errors import DupmaeError
from dupmae.files import fingerprint
from dupmae.models import Kind, Model, open_model
from dupmae.retrievers.lengths import UNCHANGED, Lengths
from dupmae.runtime.bars import shown
from dupmae.runtime.precision import autocast, bfloat16_pays

FEW_TEXTS = 64
"""Texts that are encoded without a bar."""

Task = Literal["query", "document"]
Matrix = Any
"""Vectors of n texts: a NumPy array (n, D), or a SciPy CSR matrix (n, V)."""


class Vectors(Protocol):
    """What a search needs of a model."""

    fingerprint: str
    """Of all that the vectors of passages depend on."""
    above: float
    """What scores no more than this is not found."""

    def embed(self, texts: Sequence[str], task: Task) -> Matrix:
        """Embed texts, in order."""

    def score(self, queries: Matrix, passages: Matrix) -> NDArray[np.float32]:
        """Compare every query with every passage, (q, n)."""


def split_kind(model: str, option: str = "") -> tuple[Kind, Model]:
    """Open a model and tell what kind of retriever it is; what its files do not say is dense.

    Args:
        model: A folder, a wheel's name or a Hugging Face id; `dense:` or `sparse:` before it says how to read it, where
            its files do not (a masked-language model without sentence-transformers' own files is sparse if you say so).
        option: What it was given as, such as `--model`, for sentences about it.

    Raises:
        DupmaeError: A cross-encoder, no such model, or a folder that holds none.
    """
    prefix, _, name = model.rpartition(":")
    if prefix in ("dense", "sparse"):
        return ("dense" if prefix == "dense" else "sparse"), open_model(name, option=option)
    found = open_model(model, option=option)
    if found.saved_as == "CrossEncoder":
        raise DupmaeError(f"{model} is a cross-encoder, which cannot search: give it as --reranker.")
    return (found.kind if found.kind in ("duplex", "sparse") else "dense"), found


def load_encoder(kind: Kind, model: Model, lengths: Lengths = UNCHANGED) -> DenseVectors | SparseVectors:
    """Load what :func:`split_kind` returned; a duplex model's vectors are sparse, its dense dimensions among them."""
    return DenseVectors(model, lengths) if kind == "dense" else SparseVectors(model, lengths)


def limit_lengths(model: Any, lengths: Lengths) -> list[int | None]:
    """Make a sentence-transformers model read what a benchmark's rules say.

    A shorter limit for passages is set; a limit that a model has for queries alone is raised, as far as its positions
    reach.

    Returns:
        The limits for queries and for passages that are now in force; None where there is none.
    """
    transformer = model[0]
    if not isinstance(transformer, Transformer):
        return [None, None]
    own = transformer.max_seq_length
    documents = transformer.document_length or own
    if lengths.document is not None and (documents is None or documents > lengths.document):
        documents = transformer.document_length = lengths.document
    queries = transformer.query_length
    if lengths.query is not None and queries is not None and queries < lengths.query:
        positions = getattr(transformer.config, "max_position_embeddings", lengths.query)
        queries = transformer.query_length = min(lengths.query, positions)
    return [queries or own, documents]


def _needs_bar(texts: Sequence[str]) -> bool:
    """Tell whether encoding may take more than two seconds."""
    return len(texts) > FEW_TEXTS and shown()


class DenseVectors:
    """One vector a text, with the model's own similarity (cosine unless it says otherwise).

    Where that pays the encoder computes in bfloat16; what follows it (pooling, normalisation) computes in float32.
    """

    def __init__(self, model: Model, lengths: Lengths = UNCHANGED) -> None:
        self.model = open_embedder(model)
        limits = limit_lengths(self.model, lengths)
        self.options, self.limits = encoding_options(self.model, limits), limits
        self.fingerprint = fingerprint(["dense", model.fingerprint, limits[1], bfloat16_pays("auto")])
        self.above = -np.inf

    def embed(self, texts: Sequence[str], task: Task) -> Matrix:
        """Embed texts as float32 vectors (n, D)."""
        encode = self.model.encode_query if task == "query" else self.model.encode_document
        if task == "document":
            warn_of_unknown_words(self.model.tokenizer, texts)
        texts = cut_texts(texts, self.model.tokenizer, self.limits[task == "document"])
        vectors = encode(texts, convert_to_tensor=True, show_progress_bar=_needs_bar(texts), **self.options)
        return vectors.float().cpu().numpy()

    def score(self, queries: Matrix, passages: Matrix) -> NDArray[np.float32]:
        """Compare every query with every passage by the model's own similarity, (q, n)."""
        scores: NDArray[np.float32] = self.model.similarity(queries, np.asarray(passages)).numpy()
        return scores


class SparseVectors:
    """A weight for each term of a text, compared by dot product or cosine; a passage without a term of the query is not
    found.

    Args:
        model: What `SparseEncoder` loads, or a duplex model, whose dense dimensions then count as terms, too.
        lengths: A benchmark's rules on lengths.

    Raises:
        DupmaeError: The model compares in another way.
    """

    def __init__(self, model: Model, lengths: Lengths = UNCHANGED) -> None:
        self.model = DuplexEncoder(model) if model.kind == "duplex" else open_modules(SparseEncoder, model)
        if self.model.similarity_fn_name not in ("dot", "cosine"):
            raise DupmaeError(
                f"{model.label} compares by {self.model.similarity_fn_name}; only dot and cosine are known here."
            )
        limits = limit_lengths(self.model, lengths)
        self.options, self.limits = encoding_options(self.model, limits), limits
        self.fingerprint = fingerprint(["sparse", model.fingerprint, limits[1], bfloat16_pays("auto")])
        self.above = 0.0

    def embed(self, texts: Sequence[str], task: Task) -> Matrix:
        """Embed texts as float32 CSR vectors (n, V); of unit length where they are compared by cosine."""
        encode = self.model.encode_query if task == "query" else self.model.encode_document
        if task == "document":
            warn_of_unknown_words(self.model.tokenizer, texts)
        texts = cut_texts(texts, self.model.tokenizer, self.limits[task == "document"])
        with autocast(self.model.device.type):
            vectors = encode(texts, show_progress_bar=_needs_bar(texts), **self.options)
        found = vectors.cpu().coalesce()
        matrix = csr_matrix((found.values().float().numpy(), found.indices().numpy()), shape=tuple(found.shape))
        if self.model.similarity_fn_name == "cosine":
            norms = np.sqrt(matrix.multiply(matrix).sum(axis=1))
            matrix = csr_matrix(matrix.multiply(1 / np.maximum(norms, 1e-12)), dtype=np.float32)
        return matrix

    def score(self, queries: Matrix, passages: Matrix) -> NDArray[np.float32]:
        """Multiply every query with every passage, (q, n)."""
        scores: NDArray[np.float32] = (queries @ passages.T).toarray()
        return scores
