"""`dupmae sync`: bring an index in step with a folder."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dupmae.cli.commands.inputs import open_index, say
from dupmae.config import BackendName, FieldsConfig
from dupmae.config.ranges import Positive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dupmae.corpus import Passage
    from dupmae.index import DuplexIndex


def sync(
    index: str,
    corpus: str,
    /,
    *,
    dry_run: bool = False,
    watch: Positive | None = None,
    batch_size: Positive = 32,
    model: str | None = None,
    backend: BackendName | None = None,
    strict: bool = False,
    fields: FieldsConfig,
) -> None:
    """Bring an index in step with the folder that it was built of: adds, replaces and deletes what changed there.

    Example:
      dupmae sync index documents
      dupmae sync index documents --dry-run
      dupmae sync index documents --watch 60

    Writes to the folder INDEX. Texts are compared, not times: what stayed is not touched, and what only moved or was
    renamed is not encoded again. A file that cannot be read keeps what the index holds of it. Searches that run
    meanwhile see each document as it was or as it is. Give the same command after an interruption and it goes on.

    Args:
        index: Folder of the index.
        corpus: The whole corpus, a folder or a file, in any format that `dupmae index build --corpus` takes.
        dry_run: Say what would be done, and do nothing.
        watch: Do it again and again, with so many seconds between, until Ctrl-C.
        batch_size: Passages encoded at a time.
        model: Folder of the duplex model, where it is no longer where it was when the index was built.
        backend: What computes the passages, as for `dupmae index build`; what fits the index, if not given.
        strict: Refuse a corpus of which a file or a record cannot be read, instead of naming it and going on.
        fields: The names of the corpus's fields.
    """
    opened = open_index(Path(index), model)
    opened.backend = backend
    while True:
        _sync_once(opened, Path(corpus), dry_run, batch_size, strict, fields)
        if watch is None:
            return
        time.sleep(watch)
        opened.refresh()


def _sync_once(
    opened: DuplexIndex, corpus: Path, dry_run: bool, batch_size: int, strict: bool, fields: FieldsConfig
) -> None:
    """Bring an index in step, and say what that was."""
    from dupmae.corpus.folders import Unread
    from dupmae.corpus.readers import PATH_FIELD, read_passages

    metadata = [name for name in opened.info()["metadata"] if name != PATH_FIELD]
    unread = Unread()

    def read() -> Iterator[Passage]:
        nonlocal unread
        unread = Unread(strict=strict)
        return read_passages(corpus, metadata_fields=metadata, unread=unread, **asdict(fields))

    def is_unread(passage: Passage) -> bool:
        path = corpus / str(passage.metadata.get(PATH_FIELD, ""))
        return path in unread.refused or not unread.refused.keys().isdisjoint(path.parents)

    synced = opened.sync(read, batch_size, kept=is_unread, dry_run=dry_run)
    difference = synced.difference
    if dry_run:
        for word, ids in (("new", difference.new), ("changed", difference.changed), ("gone", difference.gone)):
            for identifier in ids:
                say(f"{word}: {identifier}")
        say(f"Dry run of {opened.folder}: {difference}")
    else:
        say(f"In step: {opened.folder}: {difference}; passages encoded: {synced.encoded:,}")
