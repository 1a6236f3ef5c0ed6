"""Several processes at the same work, as `torchrun` starts them."""

from __future__ import annotations

import datetime
import io
import os
import sys
from typing import Any

LONGEST_WAIT = datetime.timedelta(days=2)
"""How long processes wait for the first one, which may be tokenising or solving for a new head."""


def is_first_process() -> bool:
    """Whether this is the process that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def hush_other_processes() -> None:
    """Keep what every process would print, and every progress bar, to the first one; errors still show."""
    if not is_first_process():
        os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported
        sys.stdout = io.StringIO()


def join_processes() -> Any:
    """Meet the other processes that `torchrun` has started, if any: accelerate's `PartialState`."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)
