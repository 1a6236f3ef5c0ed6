"""Several processes at the same work, as `torchrun` starts them."""

from __future__ import annotations

import datetime
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dupmae.errors import DupmaeError

if TYPE_CHECKING:
    from transformers import TrainingArguments

logger = logging.getLogger(__name__)

LONGEST_WAIT = datetime.timedelta(days=2)
"""How long processes wait for the first one, which may be tokenising or solving for a new head."""


_NUMBERS = {"WORLD_SIZE": (1, 1 << 20), "RANK": (0, 1 << 20), "LOCAL_RANK": (-1, 1 << 20), "MASTER_PORT": (0, 65535)}
"""Variables in which `torchrun` numbers things, with the least and the most that each may be."""


def is_first_process() -> bool:
    """Tell whether this is the process that writes and speaks."""
    return _number("RANK", 0) == 0


def refuse_bad_environment() -> None:
    """Refuse an environment that no `torchrun` made, before a library takes it at its word.

    Raises:
        DupmaeError: A variable is no number or out of its range, or one is missing that several processes need.
    """
    for variable in _NUMBERS:
        _number(variable, 0)
    rank, processes = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if rank >= processes:
        raise DupmaeError(
            f"RANK is {rank}, but WORLD_SIZE {processes}: start the processes with torchrun, which sets both"
        )
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if processes > 1 and missing:
        raise DupmaeError(
            f"WORLD_SIZE is {processes}, but {' and '.join(missing)} not set: start the processes with torchrun, which "
            "sets them, or unset WORLD_SIZE"
        )


def _number(variable: str, default: int) -> int:
    """Read a number that `torchrun` puts into the environment."""
    text = os.environ.get(variable)
    if text is None:
        return default
    least, most = _NUMBERS[variable]
    if not re.fullmatch(r"-?[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise DupmaeError(
            f"The environment variable {variable} is {text[:40]!r}, not a whole number from {least} to {most}: "
            "torchrun sets it; unset it to work with one process."
        )
    return int(text)


def process_count() -> int:
    """Count the processes that `torchrun` has started, this one included."""
    return _number("WORLD_SIZE", 1)


def refuse_several_processes(what: str) -> None:
    """Refuse work that only one process can do where `torchrun` has started several.

    Args:
        what: The work, as the beginning of a sentence.

    Raises:
        DupmaeError: `torchrun` has started more than one.
    """
    if process_count() > 1:
        raise DupmaeError(
            f"{what} is the work of one process: start it without torchrun, which is for pretrain, finetune and "
            "index build"
        )


def on_one_device(arguments: TrainingArguments) -> TrainingArguments:
    """Keep a Trainer's process to one of a machine's GPUs, and say so if there are more.

    By itself it would divide every batch among them (`DataParallel`), for which nothing here is made: several GPUs take
    a process each.
    """
    found = arguments.n_gpu
    if found > 1:
        arguments._n_gpu = 1
        logger.warning(
            "Training on one of %d GPUs: pretrain and finetune take all under torchrun --nproc-per-node %d",
            found,
            found,
        )
    return arguments


def join_processes() -> Any:
    """Meet the other processes that `torchrun` has started, if any: accelerate's `PartialState`."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let the first process go through the context, then the others."""
    if process_count() == 1:
        yield
        return
    with join_processes().main_process_first():
        yield


def wait_for_others() -> None:
    """Wait until every process has come here."""
    if process_count() > 1:
        join_processes().wait_for_everyone()
