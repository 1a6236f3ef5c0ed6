"""Linear layer and maximum over the tokens of each sequence in bfloat16, in tiles and loops made for a processor.

A bfloat16 number is the upper half of a float32, so its 16 bits order as the numbers do once those of negative ones are
flipped. With the token's place in the lower half of an integer, one integer maximum finds both the largest logit and
the first token that has it. (torch's maximum with indices took 4 to 7 times as long, its maximum without them 4 times.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

from dupmae.kernels.shapes import pad_rows

CHUNK_ROWS = 1024
"""Tokens of a tile; a longer sequence gets tiles of its own."""
TILE_TERMS = 2048
"""Terms in a tile."""
CACHED_TERMS = 256
"""Terms whose rows of the output matrix stay in a core's cache while all sequences look at them."""
LONGEST = 2**15
"""No sequence has this many tokens."""


def segments_pay(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether these are the numbers and the machine that this module is for."""
    return device.type == "cpu" and dtype == torch.bfloat16


def pooled_in_tiles(
    states: torch.Tensor, counts: list[int], table: torch.Tensor, with_winners: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Find each sequence's largest logit of each term, from tiles that stay in the processor's caches.

    Args:
        states: States of the pooled tokens, sequence after sequence, (R, D), bfloat16.
        counts: How many rows each of the B sequences has.
        table: Output matrix, (V, D), bfloat16.
        with_winners: Whether to say which rows the maxima come from.

    Returns:
        The maxima (B, V), float32, 0 for a sequence without rows, and the numbers of the first rows that have them
        (B, V), int32, or None.
    """
    best = torch.empty(len(counts), len(table))
    winner = torch.empty(len(counts), len(table), dtype=torch.int32) if with_winners else None
    ends = np.cumsum([0, *counts])
    first = 0
    while first < len(counts):
        last = max(first + 1, int(np.searchsorted(ends, ends[first] + CHUNK_ROWS, side="right")) - 1)
        columns, starts = pad_rows(states[ends[first] : ends[last]]).T, ends[first : last + 1] - ends[first]
        for start in range(0, len(table), TILE_TERMS):
            tile, terms = table[start : start + TILE_TERMS] @ columns, slice(start, start + TILE_TERMS)
            if winner is None:
                _spread(_maxima, tile, starts, best[first:last, terms])
            else:
                _spread(_winners, tile, starts, best[first:last, terms], winner[first:last, terms])
        if winner is not None:
            winner[first:last] += torch.from_numpy(ends[first:last, None]).to(torch.int32)
        first = last
    if winner is not None:
        winner[torch.tensor(counts) == 0] = 0
    return best, winner


def gradient_of_rows(grad: torch.Tensor, winner: torch.Tensor, weight: torch.Tensor, rows: int) -> torch.Tensor:
    """Turn a gradient of the maxima into that of the states: each row's sum of `grad * weight` over the terms it won.

    Args:
        grad: (B, V), float32.
        winner: The rows that won, (B, V), int32; no two sequences have a row in common, but where `grad` is 0.
        weight: Output matrix, (V, D), float32.
        rows: How many rows R there are.

    Returns:
        (R, D), float32.
    """
    sums = torch.zeros(rows, weight.shape[1])
    grads, winners, table, out = (each.numpy() for each in (grad, winner, weight, sums))
    _in_parts(len(grads), lambda part: _add_up(grads[part], winners[part], table, out))
    return sums


def _spread(
    loop: Callable[..., None], tile: torch.Tensor, starts: npt.NDArray[np.int64], *outputs: torch.Tensor
) -> None:
    """Run a loop over the terms of a tile, (v, n), on as many threads as torch uses.

    Args:
        loop: One of those below.
        tile: Logits, bfloat16, without gaps.
        starts: First column of each segment and the end of the last, (s + 1,); columns after it are not looked at.
        outputs: What the loop writes, (s, v) each; rows may lie apart.
    """
    bits = tile.view(torch.int16).numpy()
    arrays = [output.numpy() for output in outputs]
    _in_parts(len(bits), lambda part: loop(bits[part], starts, *(array[:, part] for array in arrays)))


def _in_parts(count: int, run: Callable[[slice], None]) -> None:
    """Share out `count` items, in slices that follow each other, over as many threads as torch uses."""
    threads = torch.get_num_threads()
    share = -(-count // threads)
    parts = [slice(start, start + share) for start in range(0, count, share)]
    if len(parts) == 1:
        run(parts[0])
    else:
        list(_pool(threads).map(run, parts))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Start the threads once."""
    return ThreadPoolExecutor(threads, "segments")


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _ordered(bits: Any) -> Any:
    """Turn a bfloat16's 16 bits into an int32 that is larger for larger numbers; the function is its own inverse."""
    wide = np.int32(bits)
    return np.int32(wide ^ ((wide >> np.int32(31)) & np.int32(0x7FFF)))


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _number(bits: Any) -> Any:
    """Turn a bfloat16's 16 bits into the float32."""
    return np.int32(np.int32(bits) << np.int32(16)).view(np.float32)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _maxima(bits: Any, starts: Any, best: Any) -> None:
    """Find each segment's largest number of each row of `bits`."""
    for term in range(bits.shape[0]):
        for segment in range(len(starts) - 1):
            tokens = bits[term, starts[segment] : starts[segment + 1]]
            high, low = np.int16(-(2**15)), np.int16(2**15 - 1)
            for token in range(len(tokens)):
                high, low = max(high, tokens[token]), min(low, tokens[token])
            # as integers, negative numbers come first, those of small size before large ones
            best[segment, term] = _number(high if high >= 0 else low) if len(tokens) else np.float32(0)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _winners(bits: Any, starts: Any, best: Any, winner: Any) -> None:
    """Find these numbers, and for each the place in the segment where it comes first."""
    for term in range(bits.shape[0]):
        for segment in range(len(starts) - 1):
            tokens = bits[term, starts[segment] : starts[segment + 1]]
            top = np.int32(-(2**31))
            for token in range(len(tokens)):
                top = max(
                    top, np.int32((_ordered(tokens[token]) << np.int32(16)) + np.int32(LONGEST) - np.int32(token))
                )
            best[segment, term] = _number(_ordered(top >> np.int32(16))) if len(tokens) else np.float32(0)
            winner[segment, term] = np.int32(LONGEST) - (top & np.int32(0xFFFF)) if len(tokens) else np.int32(0)


@numba.njit(nogil=True, cache=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def _add_up(grads: Any, winners: Any, table: Any, sums: Any) -> None:
    """Add to each winner's row of `sums` what :func:`gradient_of_rows` says, a cache full of the table at a time."""
    for start in range(0, len(table), CACHED_TERMS):
        for sequence in range(len(grads)):
            for term in range(start, min(start + CACHED_TERMS, len(table))):
                grad = grads[sequence, term]
                if grad != 0:
                    row, weights = sums[winners[sequence, term]], table[term]
                    for column in range(len(weights)):
                        row[column] += grad * weights[column]
