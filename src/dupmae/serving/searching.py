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

from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex, Hit, Weights
from dupmae.index.highlights import Highlights, highlight
from dupmae.index.storage.manifest import FILE_NAME
from dupmae.index.where import Filter
from dupmae.index.writing.encoding import word_language_of

logger = logging.getLogger(__name__)

BATCH = 64
"""Queries of a batch, at most, unless one request has more."""


@dataclass(frozen=True)
class Options:
    """What queries have in common that are searched together."""

    k: int
    where: Filter | None = None
    group: str = "document"
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

    def newest(self) -> DuplexIndex:
        """Move on to the folder's newest state; where that cannot be opened, with a warning, the last one stays."""
        stamp = self._seen()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                former = self.index.manifest.model_fingerprint
                self.index.refresh()
                if self.index.manifest.model_fingerprint != former:
                    self.index = self._open()
            except DupmaeError as error:
                logger.warning("The index %s stays as it was: %s", self.name, error)
        return self.index

    def _seen(self) -> tuple[int, ...] | None:
        """Tell one committed state from another."""
        try:
            found = Path(self.index.folder, FILE_NAME).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


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
                found = iter(_searched(index, texts, first.options))
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
    for task in waiting:
        if (task.index, task.options) == (first.index, first.options) and (
            not batch or queries + len(task.work) <= BATCH
        ):
            batch.append(task)
            queries += len(task.work)
    return batch


def _searched(index: DuplexIndex, texts: list[str], options: Options) -> Found:
    """Search for queries and choose what is shown of their hits."""
    found = index.search(texts, options.k, options.where, weights=options.weights, group=options.group)  # type: ignore[arg-type]
    tokenizer, language = index.queries.tokenizer, word_language_of(index.queries)
    return [
        [(hit, highlight(hit, text, tokenizer, language)) for hit in hits]
        for text, hits in zip(texts, found, strict=True)
    ]


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
