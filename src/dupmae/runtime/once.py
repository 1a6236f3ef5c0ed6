"""Warn once a process: a command that needs a corpus several times reads it as often."""

from __future__ import annotations

import logging
from functools import lru_cache


@lru_cache(1024)
def warn_once(logger: logging.Logger, sentence: str) -> None:
    """Log a warning, unless the same was logged before."""
    logger.warning("%s", sentence)
