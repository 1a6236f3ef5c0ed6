"""Take over vectors that an index holds already, so that a text that only got another name is not encoded again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index.scoring.snapshot import Snapshot
from dupmae.index.storage.passages import checks_of
from dupmae.index.storage.quantise import Rows, concatenate_rows
from dupmae.index.writing.encoding import Encoder, encode_window


def encode_unknown(
    snapshot: Snapshot,
    spool: Path,
    encoder: Encoder,
    window: Sequence[Passage],
    batch_size: int,
    bar: tqdm[Any],
) -> tuple[Rows, int]:
    """Encode those passages of a window whose title and text no passage of the index has.

    Args:
        snapshot: The index; passages that are deleted but not yet compacted away serve as well.
        spool: As :func:`dupmae.index.writing.encoding.encode_window`, and so the others.
        encoder: Embeds the passages.
        window: Passages.
        batch_size: Passages in a forward pass.
        bar: Progress, one step a passage.

    Returns:
        The stored numbers of all passages in the window's order, and how many passages were encoded.

    Raises:
        DupmaeError: Embeddings of other widths than the index holds, or a damaged file.
    """
    manifest = snapshot.manifest
    known = find_texts(snapshot, window)
    parts: list[Rows] = []
    order: list[int] = []
    by_segment = defaultdict[int, list[int]](list)
    for number, (segment, _) in known.items():
        by_segment[segment].append(number)
    for segment, numbers in by_segment.items():
        parts.append(snapshot.segments[segment].rows().take(np.array([known[number][1] for number in numbers])))
        order += numbers
        bar.update(len(numbers))
    others = [number for number in range(len(window)) if number not in known]
    if others:
        words = manifest.words is not None
        rows, _ = encode_window(spool, encoder, [window[number] for number in others], batch_size, bar, words=words)
        if rows.high.shape[1] != manifest.cls_dimension or rows.lexical.shape[1] != manifest.vocabulary_size:
            raise DupmaeError("The embeddings do not fit the index: embed with the model that built it.")
        parts.append(rows)
        order += others
    return concatenate_rows(parts).take(np.argsort(np.array(order, np.int64))), len(others)


def find_texts(snapshot: Snapshot, passages: Sequence[Passage]) -> dict[int, tuple[int, int]]:
    """Find stored passages, deleted ones included, of the same title and text.

    Returns:
        The number of each of `passages` that has one -> number of the segment and row.
    """
    found: dict[int, tuple[int, int]] = {}
    checks = checks_of(passages)
    for segment, opened in enumerate(snapshot.segments):
        waiting = [number for number in range(len(passages)) if number not in found]
        for number, row in opened.passages.rows_of_texts([passages[number] for number in waiting], checks[waiting]):
            found[waiting[number]] = (segment, row)
    return found
