"""One thread that owns all searches: requests that wait together are answered together.

An index scans for several queries of a batch at once, with all cores; two searches at the same time would only take
turns. What waits while a batch is searched is the next batch, so that nobody waits for others to come.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dupmae.duplex.queries import QueryEncoder
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex, Hit, Weights
from dupmae.index.duplex_index import Group
from dupmae.index.highlights import Highlights, highlight
from dupmae.index.scoring.snapshot import Snapshot
from dupmae.index.storage.manifest import FILE_NAME, Manifest
from dupmae.index.where import Filter, fields_of
from dupmae.index.writing.changes import require_finished
from dupmae.index.writing.encoding import Encoder, word_language_of

logger = logging.getLogger(__name__)

BATCH = 64
"""Queries of a batch, at most, unless one request has more."""
BATCH_HITS = 1000
"""Hits of a batch, at most, likewise: those who come after it wait until all of them are ready to be shown."""
MOST_VALUES, LONGEST_VALUE = 30, 100
"""Values of a metadata field to choose from, and characters of one; of a field with more none are listed."""


class UnknownFieldError(DupmaeError):
    """A filter names a metadata field that no passage has."""


@dataclass(frozen=True)
class Options:
    """What queries have in common that are searched together."""

    k: int
    where: Filter | None = None
    group: Group = "document"
    weights: Weights = field(default_factory=Weights)


Found = list[list[tuple[Hit, Highlights]]]
"""The hits of each query, and what is to be shown of them."""


class ServedIndex:
    """An index that follows its folder: each batch is searched in the newest committed state.

    Args:
        name: What requests call it.
        open_folder: Opens it.

    Raises:
        DupmaeError: It cannot be opened.
    """

    def __init__(self, name: str, open_folder: Callable[[], DuplexIndex]) -> None:
        self.name, self._open, self.index = name, open_folder, open_folder()
        self._stamp = self._seen()
        self._apart: DuplexIndex | None = None
        self._described: tuple[Snapshot, dict[str, Any]] | None = None

    @property
    def encoder(self) -> Encoder:
        """The whole model, which encodes passages, too: loaded in PyTorch when first asked for.

        It is opened apart, so that queries go on being encoded by what searches were begun with.

        Raises:
            DupmaeError: As :attr:`DuplexIndex.encoder`.
            ImportError: There is no PyTorch.
        """
        fingerprint = self.index.manifest.model_fingerprint
        if self._apart is None or self._apart.manifest.model_fingerprint != fingerprint:
            self._apart = self._open()
        return self._apart.encoder

    @property
    def query_encoder(self) -> QueryEncoder:
        """What encodes queries, for others than the thread that searches: PyTorch's is not shared with it."""
        found = self.index.queries
        return self.encoder if hasattr(found, "embed_documents") else found

    def newest(self) -> DuplexIndex:
        """Move on to the folder's newest state; where that cannot be opened, with a warning, the last one stays."""
        stamp = self._seen()
        if stamp != self._stamp:
            self._stamp, former = stamp, self.index.snapshot
            try:
                self.index.refresh()
                require_finished(self.index.folder, self.index.manifest)
                if _needed_model(self.index.manifest) != _needed_model(former.manifest):
                    opened = self._open()
                    opened.search(["a first query"], 1)  # its model is there, and loaded
                    self.index = opened
            except (DupmaeError, OSError) as error:
                self.index.snapshot = former
                logger.warning("The index %s stays as it was: %s", self.name, error)
        return self.index

    def described(self) -> dict[str, Any]:
        """Describe the state that is searched: sizes, parts of the score, metadata fields with values to choose from.

        Values are listed of a field that has few, and short ones.
        """
        index = self.index
        if self._described is None or self._described[0] is not index.snapshot:
            snapshot, manifest = index.snapshot, index.manifest
            sizes = {"dense": manifest.cls_dimension, "lexical": manifest.top_k, "words": manifest.words}
            values = {name: snapshot.metadata_values(name, MOST_VALUES) for name in snapshot.metadata_fields}
            record = {
                "name": self.name,
                "documents": snapshot.documents,
                "passages": len(index),
                "metadata": list(values),
                "values": {
                    name: found
                    for name, found in values.items()
                    if found and all(len(str(value)) <= LONGEST_VALUE for value in found)
                },
                "parts": [part for part, size in sizes.items() if size],
            }
            self._described = snapshot, record
        return self._described[1]

    def _seen(self) -> tuple[int, ...] | None:
        """Tell one committed state from another."""
        try:
            found = Path(self.index.folder, FILE_NAME).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _needed_model(manifest: Manifest) -> tuple[Any, ...]:
    """Tell what an encoder has to agree with an index in."""
    return manifest.model_fingerprint, manifest.precision, manifest.words, manifest.top_k, manifest.cls_dimension


@dataclass(frozen=True)
class _Task:
    """Something for the thread to do, and who waits for it."""

    index: str
    work: Any
    """Queries, with `options`; or else a function of the index."""
    options: Options | None
    answer: asyncio.Future[Any]


class Searcher:
    """Searches indexes for an event loop, in a thread of its own.

    Args:
        indexes: By name.
        searched: Called with the index' name and the number of queries of each batch.
    """

    def __init__(self, indexes: Mapping[str, ServedIndex], searched: Callable[[str, int], None]) -> None:
        self.indexes, self._searched = indexes, searched
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="search", daemon=True)
        self._thread.start()

    async def search(self, index: str, queries: Sequence[str], options: Options) -> Found:
        """Search for queries, in a batch with those of other requests.

        Raises:
            DupmaeError: As :meth:`DuplexIndex.search`.
        """
        found: Found = await self._do(index, list(queries), options)
        return found

    async def run(self, index: str, function: Callable[[DuplexIndex], Any]) -> Any:
        """Call a function of an index between two batches."""
        return await self._do(index, function, None)

    def close(self) -> None:
        """End the thread when it has done what waits."""
        self._tasks.put(None)
        self._thread.join()

    async def _do(self, index: str, work: Any, options: Options | None) -> Any:
        """Hand a task to the thread and wait for its answer."""
        answer = asyncio.get_running_loop().create_future()
        self._tasks.put(_Task(index, work, options, answer))
        return await answer

    def _work(self) -> None:
        """Answer tasks until the end."""
        waiting, closing = list[_Task](), False
        while not closing or waiting:
            if not waiting:
                task = self._tasks.get()
                closing = task is None
                waiting += [task] if task else []
            while not self._tasks.empty():
                task = self._tasks.get()
                closing |= task is None
                waiting += [task] if task else []
            waiting = [task for task in waiting if not task.answer.cancelled()]
            if waiting:
                batch = _first_batch(waiting)
                waiting = [task for task in waiting if task not in batch]
                self._answer(batch)

    def _answer(self, batch: list[_Task]) -> None:
        """Do tasks that go together, and tell those who wait."""
        first = batch[0]
        try:
            index = self.indexes[first.index].newest()
            if first.options is None:
                answers: list[Any] = [first.work(index)]
            else:
                texts = [text for task in batch for text in task.work]
                found = iter(searched(index, texts, first.options))
                answers = [[next(found) for _ in task.work] for task in batch]
                self._searched(first.index, len(texts))
        except BaseException as error:  # whoever waits has to hear of it, whatever it is
            for task in batch:
                _tell(task, error)
            return
        for task, answer in zip(batch, answers, strict=True):
            _tell(task, answer)


def _first_batch(waiting: Sequence[_Task]) -> list[_Task]:
    """Take the first task, and those after it that are searched with the same options as far as they fit."""
    first, batch, queries = waiting[0], list[_Task](), 0
    if first.options is None:
        return [first]
    most = min(BATCH, BATCH_HITS // max(first.options.k, 1))
    for task in waiting:
        if (task.index, task.options) == (first.index, first.options) and (
            not batch or queries + len(task.work) <= most
        ):
            batch.append(task)
            queries += len(task.work)
    return batch


def searched(index: DuplexIndex, texts: list[str], options: Options) -> Found:
    """Search for queries and choose what is shown of their hits.

    Raises:
        DupmaeError: As :meth:`DuplexIndex.search`.
        UnknownFieldError: The filter asks for what the index lacks.
    """
    refuse_unknown_fields(index, options.where)
    found = index.search(texts, options.k, options.where, weights=options.weights, group=options.group)
    tokenizer, language = index.queries.tokenizer, word_language_of(index.queries)
    return [
        [(hit, highlight(hit, text, tokenizer, language)) for hit in hits]
        for text, hits in zip(texts, found, strict=True)
    ]


def refuse_unknown_fields(index: DuplexIndex, where: Filter | None) -> None:
    """Refuse a filter that asks for what no passage of the searched state has.

    Raises:
        UnknownFieldError: Which field, and those that there are.
    """
    known = index.snapshot.metadata_fields
    unknown = [] if where is None else [field for field in fields_of(where) if field not in known]
    if unknown:
        listed = ", ".join(known)[:300] or "none"
        raise UnknownFieldError(f"There is no metadata field {unknown[0][:100]!r}; the index has {listed}.")


def _tell(task: _Task, answer: Any) -> None:
    """Give an answer, or an exception, to who waits for it; nobody may any more."""

    def settle() -> None:
        if task.answer.done():
            return
        if isinstance(answer, BaseException):
            task.answer.set_exception(answer)
        else:
            task.answer.set_result(answer)

    try:
        task.answer.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:  # the loop has ended
        logger.debug("An answer came after the end.")
