"""Choose how scores are computed: in loops that numba compiles, or in NumPy while numba is not worth its loading."""

from __future__ import annotations

import importlib
import sys
from typing import Any

FEW_PASSAGES = 200_000
"""Passages that a process passes over in NumPy, for all queries together, until it takes the compiled loops."""


class _Work:
    """What was done in NumPy."""

    passages = 0
    """Passages that were passed over."""


def loops_for(passages: int) -> Any:
    """Take the compiled loops for work on so many passages, or those of NumPy if that and all before was little.

    Returns:
        A module with the functions of :mod:`dupmae.index.scoring.plain`.
    """
    _Work.passages += passages
    loaded = "dupmae.index.scoring.loops" in sys.modules
    few = _Work.passages <= FEW_PASSAGES and not loaded
    return importlib.import_module(f"dupmae.index.scoring.{'plain' if few else 'loops'}")
