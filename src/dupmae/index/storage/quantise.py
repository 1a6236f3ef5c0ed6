"""From floating-point embeddings to the 16-bit numbers an index stores, and back without rounding.

Both halves of a passage become whole numbers times a unit of the passage's own. A unit is a power of two, so
multiplying back is exact, and passages with equal embeddings get equal scores. Words are multiples of 1/256 already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.words import STEPS

LARGEST_DENSE = 127 * 256
"""Largest dense number: its high byte, rounded, still fits eight bits with a sign."""
LARGEST_WEIGHT = 32_767
LARGEST_INPUT = 65_504.0
"""Embeddings beyond this (float16's largest number) are refused: their products would leave single precision."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The vectors of n passages as they are stored."""

    high: NDArray[np.int8]
    """High bytes of the dense halves (n, d'); alone they are the int8 approximation that is scanned."""
    low: NDArray[np.int8]
    """What the high bytes leave (n, d'): the number is 256 high + low."""
    dense_units: NDArray[np.float32]
    """What the dense numbers are multiplied by (n,)."""
    lexical: Any
    """Lexical halves: scipy CSR array, int16 (n, V), columns sorted."""
    lexical_units: NDArray[np.float32]
    """What the weights are multiplied by (n,)."""
    words: Any = None
    """Saturated frequencies of words, in steps of 1/256: scipy CSR array, uint8 (n, `WORD_DIMENSIONS`), columns sorted;
    None in an index without words."""

    def __len__(self) -> int:
        return len(self.high)

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """Pick the given rows in the given order."""
        return Rows(
            self.high[rows],
            self.low[rows],
            self.dense_units[rows],
            self.lexical[rows],
            self.lexical_units[rows],
            None if self.words is None else self.words[rows],
        )


def quantise(embeddings: DuplexEmbeddings, vocabulary_size: int) -> Rows:
    """Turn document embeddings into stored numbers.

    A dense number is off by at most 1/32,512 of the passage's largest one, and a weight by at most 1/32,767 of its
    heaviest; weights that become 0 are dropped. Words are kept as they are.

    Args:
        embeddings: n passages, every number finite and at most `LARGEST_INPUT`; words as :func:`are_words` wants them.
        vocabulary_size: V.
    """
    dense_units = _units(np.abs(embeddings.cls).max(axis=1, initial=0), LARGEST_DENSE)
    dense = np.rint(embeddings.cls / dense_units[:, None]).astype(np.int32)  # (n, d')
    high = (dense + 128) >> 8
    lexical_units = _units(np.abs(embeddings.weights).max(axis=1, initial=0), LARGEST_WEIGHT)
    weights = np.rint(embeddings.weights / lexical_units[:, None]).astype(np.int16)  # (n, k)
    used = weights != 0
    starts = np.concatenate(([0], np.cumsum(used.sum(axis=1)))).astype(np.int32)
    lexical = sp.csr_array(
        (weights[used], embeddings.ids[used].astype(np.int32), starts), shape=(len(weights), vocabulary_size)
    )
    lexical.sort_indices()
    low = (dense - 256 * high).astype(np.int8)
    return Rows(high.astype(np.int8), low, dense_units, lexical, lexical_units, _steps(embeddings.words))


def are_words(words: Any) -> bool:
    """Tell whether passages' words, a float32 CSR array, can be stored: each once, as 1 to 255 steps of 1/256."""
    steps = np.asarray(words.data, np.float64) * STEPS
    return bool(((steps >= 1) & (steps < STEPS) & (steps == np.floor(steps))).all() and words.has_canonical_format)


def _steps(words: Any) -> Any:
    """Write saturated frequencies (n, `WORD_DIMENSIONS`) in a byte each."""
    if words is None:
        return None
    steps = (words.data * STEPS).astype(np.uint8)
    return sp.csr_array((steps, words.indices.astype(np.int32), words.indptr), shape=words.shape)


def restore_dense(high: NDArray[np.int8], low: NDArray[np.int8], units: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn stored numbers back into dense halves (n, d'), without rounding."""
    numbers = 256 * high.astype(np.float32) + low.astype(np.float32)
    return numbers * units[:, None]


def concatenate_rows(parts: Sequence[Rows]) -> Rows:
    """Stack stored vectors along n."""
    return Rows(
        np.concatenate([part.high for part in parts]),
        np.concatenate([part.low for part in parts]),
        np.concatenate([part.dense_units for part in parts]),
        sp.csr_array(sp.vstack([part.lexical for part in parts], format="csr")),
        np.concatenate([part.lexical_units for part in parts]),
        None
        if any(part.words is None for part in parts)
        else sp.csr_array(sp.vstack([part.words for part in parts], format="csr")),
    )


def dense_slack(rows: Rows) -> NDArray[np.float32]:
    """Bound how far the scanned dense score may be from the exact one, for a query of length 1.

    With x = unit (256 high + low), Cauchy and Schwarz bound what the low bytes add: |<q, unit low>| <= |q| unit |low|.
    The scan sums d' products in single precision in any order, which is off by at most d' 2^-24 |q| |x|; twice that is
    allowed for, and the result is rounded up.

    Returns:
        (n,)
    """
    units = rows.dense_units.astype(np.float64)
    low = np.sqrt(np.einsum("nd,nd->n", rows.low, rows.low, dtype=np.float64))
    high = np.sqrt(np.einsum("nd,nd->n", rows.high, rows.high, dtype=np.float64))
    rounding = (rows.high.shape[1] + 8) * 2.0**-23 * 256 * high
    slack: NDArray[np.float32] = (units * (low + rounding) * (1 + 1e-6)).astype(np.float32)
    return np.asarray(np.nextafter(slack, np.float32(np.inf)))


def _units(largest: NDArray[np.float32], limit: int) -> NDArray[np.float32]:
    """Find the smallest powers of two with which `largest` (n,) becomes at most `limit`."""
    with np.errstate(divide="ignore"):
        exponents = np.ceil(np.log2(largest.astype(np.float64) / limit))
    # 1 for rows of zeros, and never below single precision's normal range
    return np.exp2(np.maximum(np.where(largest > 0, exponents, 0.0), -126.0)).astype(np.float32)
