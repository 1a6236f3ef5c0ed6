"""Hold the duplex embeddings of many texts, in memory and on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from dupmae.duplex.words import WORD_DIMENSIONS
from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder, refuse_foreign

FILE = "embeddings.safetensors"
"""Name of the file in a folder of saved embeddings."""
_WORDS = ("word_starts", "word_ids", "word_weights")  # how the words stand in it


@dataclass(frozen=True, slots=True, eq=False)
class DuplexEmbeddings:
    """N texts, each as a dense half, the terms of its lexical half that have a weight (Eq. 10, 11), and its words.

    The score of a query and a document (Eq. 12) is the dot product of their `cls` rows plus the sum, over the terms
    that both have, of the products of their `weights`; plus, of a model that has words, the dot product of their rows
    of `words`, each of the query's times its rarity, which an index knows of its passages.

    Examples:
        >>> import numpy as np
        >>> from dupmae import DuplexEmbeddings
        >>> texts = DuplexEmbeddings(
        ...     cls=np.array([[1.0, 0.0], [0.5, 1.0]], np.float32),
        ...     ids=np.array([[7, 3], [3, 0]], np.uint16),
        ...     weights=np.array([[0.9, 0.5], [2.0, 0.0]], np.float32),
        ... )
        >>> texts.save("embeddings")
        >>> second = DuplexEmbeddings.load("embeddings")[1:]
        >>> second.ids.tolist(), second.weights.tolist()
        ([[3, 0]], [[2.0, 0.0]])
        >>> dense, lexical = texts.cls[0] @ second.cls[0], 0.5 * 2.0  # both texts have the term 3
        >>> float(dense + lexical)
        1.5
    """

    cls: npt.NDArray[np.float32]
    """Dense half, (N, d')."""
    ids: npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
    """Terms, as token ids, (N, k), heaviest (by absolute value) first; uint16 for vocabularies of up to 65,535 terms,
    else uint32."""
    weights: npt.NDArray[np.float32]
    """Their weights, (N, k); 0 marks an unused place."""
    words: sp.csr_array | None = None
    """Whole words, float32 (N, `WORD_DIMENSIONS`), see :mod:`dupmae.duplex.words`; None of a model without words."""

    def __post_init__(self) -> None:
        if self.ids.shape != self.weights.shape or len(self.ids) != len(self.cls):
            raise ValueError(
                f"cls {self.cls.shape}, ids {self.ids.shape} and weights {self.weights.shape} do not fit together"
            )
        if self.words is not None and self.words.shape != (len(self.cls), WORD_DIMENSIONS):
            raise ValueError(f"words {self.words.shape} do not fit {len(self.cls)} texts")

    def __len__(self) -> int:
        return len(self.cls)

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> DuplexEmbeddings:
        words = None if self.words is None else self.words[rows]
        return DuplexEmbeddings(self.cls[rows], self.ids[rows], self.weights[rows], words)

    def save(self, folder: Path | str) -> None:
        """Write the arrays to `folder`, whole or not at all.

        Raises:
            DupmaeError: `folder` holds something else than embeddings.
        """
        folder = Path(folder)
        refuse_foreign(folder, FILE)
        with atomic_folder(folder) as temporary:
            arrays: dict[str, npt.NDArray[Any]] = {"cls": self.cls, "ids": self.ids, "weights": self.weights}
            if self.words is not None:
                kept = (self.words.indptr.astype(np.int64), self.words.indices.astype(np.uint32), self.words.data)
                arrays |= dict(zip(_WORDS, kept, strict=True))
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary / FILE)

    @classmethod
    def load(cls, folder: Path | str) -> DuplexEmbeddings:
        """Read what :meth:`save` wrote.

        Raises:
            DupmaeError: The folder holds no duplex embeddings, or they are damaged.
        """
        folder = Path(folder)
        try:
            arrays = load_file(folder / FILE)
            words = None
            if set(_WORDS) & set(arrays):
                starts, ids, weights = (arrays[name] for name in _WORDS)
                if ids.max(initial=0) >= WORD_DIMENSIONS or weights.dtype != np.float32:
                    raise ValueError("words that are none")
                shape = (len(arrays["cls"]), WORD_DIMENSIONS)
                words = sp.csr_array((weights, ids.astype(np.int64), starts), shape=shape)
                words.check_format()
            return cls(arrays["cls"], arrays["ids"], arrays["weights"], words)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise DupmaeError(f"{folder / FILE} does not hold duplex embeddings: encode the texts again") from error
