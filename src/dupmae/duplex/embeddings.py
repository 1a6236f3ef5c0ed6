"""Hold the duplex embeddings of many texts, in memory and on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder, refuse_foreign

FILE = "embeddings.safetensors"
"""Name of the file in a folder of saved embeddings."""


@dataclass(frozen=True, slots=True, eq=False)
class DuplexEmbeddings:
    """N texts, each as a dense half and the terms of its lexical half that have a weight (Eq. 10, 11).

    The score of a query and a document (Eq. 12) is the dot product of their `cls` rows plus the sum, over the terms
    that both have, of the products of their `weights`.

    Example:
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

    def __post_init__(self) -> None:
        if self.ids.shape != self.weights.shape or len(self.ids) != len(self.cls):
            raise ValueError(
                f"cls {self.cls.shape}, ids {self.ids.shape} and weights {self.weights.shape} do not fit together"
            )

    def __len__(self) -> int:
        return len(self.cls)

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> DuplexEmbeddings:
        return DuplexEmbeddings(self.cls[rows], self.ids[rows], self.weights[rows])

    def save(self, folder: Path | str) -> None:
        """Write the three arrays to `folder`, whole or not at all.

        Raises:
            DupmaeError: `folder` holds something else than embeddings.
        """
        folder = Path(folder)
        refuse_foreign(folder, FILE)
        with atomic_folder(folder) as temporary:
            arrays = {"cls": self.cls, "ids": self.ids, "weights": self.weights}
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
            return cls(arrays["cls"], arrays["ids"], arrays["weights"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise DupmaeError(f"{folder / FILE} does not hold duplex embeddings: encode the texts again") from error
