"""Work on queries in blocks, each kept on disk as soon as it is done, so that a killed run goes on at the next one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from dupmae.files import atomic_write, write_json
from dupmae.runtime.processes import refuse_several_processes
from dupmae.runtime.resuming import read_record, sole_run

BLOCK = 256
"""Queries in a block: what is in memory at a time, and what a kill loses at most."""


def write_resumably(
    target: Path,
    record_name: str,
    mark: str,
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
        mark: Fingerprint of all that the file depends on.
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
    output = target.parent
    with sole_run(output):
        record = read_record(output, record_name, mark, kind, results=[target.name])
        if record and record["finished"] and target.is_file():
            return target
        write_json(output / record_name, {"fingerprint": mark, "settings": settings, "finished": False})
        folder = output / f"{target.stem}-blocks"
        blocks: list[Path] = []
        bar = tqdm(total=len(queries), desc=kind, unit=" queries", dynamic_ncols=True)
        with _unless_begun(output / record_name, folder), bar:
            for start in range(0, len(queries), BLOCK):
                block = queries[start : start + BLOCK]
                path = folder / f"{start}-{start + len(block)}.jsonl"
                if not path.is_file():
                    write(block, path)
                blocks.append(path)
                bar.update(len(block))
        with atomic_write(target, "wb") as file:
            for path in blocks:
                with path.open("rb") as part:
                    shutil.copyfileobj(part, file)
        write_json(output / record_name, {"fingerprint": mark, "settings": settings, "finished": True})
        shutil.rmtree(folder)
    return target


@contextmanager
def _unless_begun(record_file: Path, folder: Path) -> Iterator[None]:
    """Take the record back where work fails before its first block is there: the folder is still anybody's."""
    try:
        yield
    except Exception:
        if not folder.is_dir():
            record_file.unlink()
        raise
