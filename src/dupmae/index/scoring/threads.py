"""Work shared among all cores by threads that live as long as the process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

Task = TypeVar("Task")


def in_parallel(work: Callable[[Task], Any], tasks: Iterable[Task]) -> list[Any]:
    """Apply `work` to every task on all cores and return the results, in no order."""
    tasks = list(tasks)
    queue = iter(tasks)

    def drain() -> list[Any]:
        return [work(task) for task in queue]  # taking the next one of a list's iterator is atomic

    helpers = min(cores(), len(tasks)) - 1
    waiting = [_threads().submit(drain) for _ in range(helpers)]
    results = drain()
    for helper in waiting:
        results += helper.result()
    return results


@cache
def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _threads() -> ThreadPoolExecutor:
    """Start the threads once: that costs more than a small search."""
    return ThreadPoolExecutor(max_workers=cores(), thread_name_prefix="dupmae-index")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has none of its parent's threads
