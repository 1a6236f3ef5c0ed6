"""Several processes at the same work, as `torchrun` starts them."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dupmae.errors import DupmaeError

if TYPE_CHECKING:
    from transformers import TrainingArguments

logger = logging.getLogger(__name__)

LONGEST_WAIT = datetime.timedelta(days=2)
"""How long processes wait for the first one, which may be tokenising or solving for a new head."""


def is_first_process() -> bool:
    """Tell whether this is the process that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def process_count() -> int:
    """Count the processes that `torchrun` has started, this one included."""
    return int(os.environ.get("WORLD_SIZE", "1"))


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
