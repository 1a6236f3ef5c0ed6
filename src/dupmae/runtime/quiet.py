"""Silence for messages of the libraries that are of no use to a user."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from dupmae.runtime.processes import is_first_process


@contextmanager
def silenced() -> Iterator[None]:
    """Hide, within the context, transformers' bars for loading and saving and its tables of missing weights."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    if bars:
        logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def without_root_messages() -> Iterator[None]:
    """Hide, within the context, what a library says under no name of its own, for which Python would set up logging."""

    def is_named(record: logging.LogRecord) -> bool:
        return record.name != "root"

    root, nothing = logging.getLogger(), logging.NullHandler()
    root.addHandler(nothing)
    root.addFilter(is_named)
    try:
        yield
    finally:
        root.removeFilter(is_named)
        root.removeHandler(nothing)


def silence() -> None:
    """Keep warnings, load reports and loading bars of the libraries off the screen; their errors still show."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore")
    for library in ("transformers", "sentence_transformers", "datasets", "huggingface_hub", "torch", "bm25s"):
        logging.getLogger(library).setLevel(logging.ERROR)


def show_messages(level: str) -> None:
    """Show the messages of all libraries from a level on, such as `info`, with time and origin."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )


def silence_other_processes() -> None:
    """Keep what every process would print, and every progress bar, to the first one; errors still show."""
    if not is_first_process():
        hide_progress()
        sys.stdout = io.StringIO()


def hide_progress() -> None:
    """Show no progress bars."""
    os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported
