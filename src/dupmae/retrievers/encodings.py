"""Keep the vectors of a whole corpus on disk: encoded once, found again by a fingerprint, resumed slab by slab."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from dupmae.corpus import Passage, Run
from dupmae.corpus.passage import corpus_fingerprint
from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder, fingerprint, write_json
from dupmae.retrievers.brute_force import as_run, search_slabs
from dupmae.retrievers.vectors import Matrix, Vectors
from dupmae.runtime.json_text import parse_json

SLAB = 8192
"""Passages that are encoded, stored and compared at a time."""
_RECORD = "slab.json"
_PARTS = ("data", "indices", "indptr")


@dataclass(frozen=True, slots=True)
class Encodings:
    """Vectors of a corpus, memory-mapped, and what they cost."""

    ids: Sequence[str]
    """The passages' ids, rising."""
    slabs: Sequence[Matrix]
    """Their vectors, some passages at a time."""
    seconds: float
    """How long encoding took, whenever it was."""
    stored: int
    """Bytes of the vectors."""

    def at(self, places: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Matrix]]:
        """Look up the vectors of passages by their places in `ids`: which of these places, and theirs, slab by slab."""
        for number, slab in enumerate(self.slabs):
            (which,) = np.nonzero(places // SLAB == number)
            if len(which):
                yield which, slab[places[which] - number * SLAB]


def encode_corpus(vectors: Vectors, corpus: Mapping[str, Passage], folder: Path) -> Encodings:
    """Encode a corpus, or find what was encoded before.

    Args:
        vectors: The model.
        corpus: Passages by id.
        folder: Where encodings are kept; these get a folder of their own in it, named by a fingerprint of model,
            lengths and texts. Each slab is whole or absent, so that an interrupted call goes on.

    Returns:
        The vectors in the order of the ids, so that the earlier of two equal scores is that of the smaller id.

    Raises:
        DupmaeError: What is stored there is damaged.
    """
    ids = sorted(corpus)
    passages = [corpus[name] for name in ids]
    kept = folder / fingerprint([vectors.fingerprint, corpus_fingerprint(passages), SLAB])
    seconds, slabs = 0.0, []
    for number, start in enumerate(range(0, len(ids), SLAB)):
        slab = kept / f"{number:05d}"
        if not slab.is_dir():
            begun = time.perf_counter()
            matrix = vectors.embed([passage.full_text for passage in passages[start : start + SLAB]], "document")
            _save(slab, matrix, time.perf_counter() - begun)
        matrix, took = _load(slab, len(passages[start : start + SLAB]))
        seconds += took
        slabs.append(matrix)
    stored = sum(file.stat().st_size for file in kept.rglob("*.npy"))
    return Encodings(ids, slabs, seconds, stored)


def search_encodings(vectors: Vectors, encodings: Encodings, queries: Mapping[str, str], k: int) -> Run:
    """Rank the k best passages of each query (id -> text) exactly, best first, equal scores by id."""
    embedded = vectors.embed(list(queries.values()), "query")
    found = search_slabs(
        embedded, len(queries), encodings.slabs, vectors.score, lambda rows, some: rows[some], k, above=vectors.above
    )
    return as_run(queries, encodings.ids, found)


def _save(slab: Path, matrix: Matrix, seconds: float) -> None:
    """Write a slab, whole or not at all."""
    with atomic_folder(slab) as folder:
        if issparse(matrix):
            for name in _PARTS:
                np.save(folder / f"{name}.npy", getattr(matrix, name))
        else:
            np.save(folder / "vectors.npy", matrix)
        write_json(folder / _RECORD, {"seconds": seconds, "shape": list(matrix.shape)})


def _load(slab: Path, rows: int) -> tuple[Matrix, float]:
    """Map a slab of so many rows; give its vectors, and the seconds that they took.

    Raises:
        DupmaeError: A file of it is missing, is not what :func:`_save` wrote, or holds other vectors than of `rows`.
    """

    def mapped(name: str) -> NDArray[np.generic]:
        file = slab / f"{name}.npy"
        if not file.is_file():
            raise ValueError(f"there is no file {file.name}")
        return np.load(file, mmap_mode="c")  # type: ignore[no-any-return]

    try:
        record = parse_json((slab / _RECORD).read_text(encoding="utf-8"))
        shape = tuple(record["shape"])
        if (slab / "vectors.npy").is_file():
            matrix: Matrix = mapped("vectors")
        else:
            matrix = csr_matrix(tuple(mapped(name) for name in _PARTS), shape=shape)
            matrix.check_format(full_check=True)
        if matrix.shape != shape or shape[0] != rows or matrix.dtype.kind != "f":
            raise ValueError("its vectors are not those of its passages")
        return matrix, float(record["seconds"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise DupmaeError(
            f"the stored vectors {slab} are damaged ({str(error)[:200]}): delete that folder, and they are made again"
        ) from None
