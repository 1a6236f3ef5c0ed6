"""JSON Lines files written in blocks of queries, so that a killed run goes on at the next block."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dupmae.files import atomic_write
from dupmae.runtime.bars import bar
from dupmae.runtime.processes import refuse_several_processes
from dupmae.runtime.resuming import recorded_run

BLOCK = 256
"""Queries in a block: what is in memory at a time, and what a kill loses at most."""


def write_resumably(
    target: Path,
    record_name: str,
    own_fingerprint: str,
    settings: Any,
    queries: Sequence[str],
    write: Callable[[Sequence[str], Path], None],
    kind: str,
) -> Path:
    """Write a JSON Lines file a block of queries at a time.

    A file that is finished stays as it is, whoever has edited it since.

    Args:
        target: The file.
        record_name: Name of the record beside it, which says what it was made from.
        own_fingerprint: Of all that the file depends on.
        settings: What the record says of it.
        queries: Ids in the order of the file's lines.
        write: Takes some of the ids and a path, and writes their lines there, atomically.
        kind: What to call such work, on the progress bar and in an error.

    Returns:
        `target`.

    Raises:
        DupmaeError: The folder holds the same file made from something else, or without a record, another process is at
            work in it, or this is one of several that `torchrun` started.
    """
    refuse_several_processes(kind.capitalize())
    folder = target.with_name(f"{target.stem}-blocks")
    with recorded_run(
        target.with_name(record_name),
        {"fingerprint": own_fingerprint, "settings": settings},
        kind,
        result=target,
        traces=[target.name, folder.name],
        leftovers=[folder.name],
    ) as run:
        if run.finished:
            return target
        blocks: list[Path] = []
        with bar(None, kind, "queries", len(queries), delay=0) as progress:
            for start in range(0, len(queries), BLOCK):
                block = queries[start : start + BLOCK]
                path = folder / f"{start}-{start + len(block)}.jsonl"
                if not path.is_file():
                    write(block, path)
                blocks.append(path)
                progress.update(len(block))
        with atomic_write(target, "wb") as file:
            for path in blocks:
                with path.open("rb") as part:
                    shutil.copyfileobj(part, file)
    return target
