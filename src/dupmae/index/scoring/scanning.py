"""The scan of the dense halves' high bytes, for one query or many: compiled loops, like those of `loops`.

Its sums are taken in single precision in any order; `quantise.dense_slack` says how far off that is.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
def _scan_for_one(query: Any, high: Any, out: Any) -> None:
    """Multiply high bytes (n, d') with a query (d',): float32 (n,).

    Four passages at a time, from four quarters of the block: a processor fetches ahead along each of them.
    """
    quarter = high.shape[0] // 4
    for row in range(quarter):
        a = b = c = d = np.float32(0.0)
        for column in range(high.shape[1]):
            weight = query[column]
            a += weight * np.float32(high[row, column])
            b += weight * np.float32(high[row + quarter, column])
            c += weight * np.float32(high[row + 2 * quarter, column])
            d += weight * np.float32(high[row + 3 * quarter, column])
        out[row], out[row + quarter], out[row + 2 * quarter], out[row + 3 * quarter] = a, b, c, d
    for row in range(4 * quarter, high.shape[0]):
        total = np.float32(0.0)
        for column in range(high.shape[1]):
            total += query[column] * np.float32(high[row, column])
        out[row] = total


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]
def _scan_for_four(queries: Any, high: Any, out: Any) -> None:
    """Multiply high bytes (n, d') with four queries (4, d'): float32 (4, n).

    Two passages at a time, whose eight sums stay in registers: every byte is made a float once for four products.
    """
    for row in range(0, high.shape[0] - 1, 2):
        a = b = c = d = e = f = g = h = np.float32(0.0)
        for column in range(high.shape[1]):
            left, right = np.float32(high[row, column]), np.float32(high[row + 1, column])
            a += queries[0, column] * left
            b += queries[1, column] * left
            c += queries[2, column] * left
            d += queries[3, column] * left
            e += queries[0, column] * right
            f += queries[1, column] * right
            g += queries[2, column] * right
            h += queries[3, column] * right
        out[0, row], out[1, row], out[2, row], out[3, row] = a, b, c, d
        out[0, row + 1], out[1, row + 1], out[2, row + 1], out[3, row + 1] = e, f, g, h
    if high.shape[0] % 2:
        last = high.shape[0] - 1
        for place in range(4):
            total = np.float32(0.0)
            for column in range(high.shape[1]):
                total += queries[place, column] * np.float32(high[last, column])
            out[place, last] = total


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def scan_dense(queries: Any, high: Any, units: Any) -> Any:
    """Compute the first term of Eq. 12 from high bytes (n, d') alone, for queries (Q, d'): float32 (Q, n)."""
    out = np.empty((queries.shape[0], high.shape[0]), np.float32)
    fours = queries.shape[0] // 4 * 4
    for first in range(0, fours, 4):
        _scan_for_four(queries[first : first + 4], high, out[first : first + 4])
    for place in range(fours, queries.shape[0]):
        _scan_for_one(queries[place], high, out[place])
    for place in range(queries.shape[0]):
        for row in range(high.shape[0]):
            out[place, row] *= np.float32(256.0) * units[row]
    return out
