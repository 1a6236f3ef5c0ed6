"""The duplex representation: a reduced dense vector plus the heaviest terms of the vocabulary (Eq. 10-12)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dupmae.duplex.embeddings import DuplexEmbeddings

if TYPE_CHECKING:
    from dupmae.duplex.calibration import calibrate, calibration_sample
    from dupmae.duplex.encoder import DuplexEncoder
    from dupmae.duplex.pooling import DuplexPooling
    from dupmae.duplex.starting import continue_duplex, start_duplex

__all__ = [
    "DuplexEmbeddings",
    "DuplexEncoder",
    "DuplexPooling",
    "calibrate",
    "calibration_sample",
    "continue_duplex",
    "start_duplex",
]
_HOME_OF = {
    "DuplexEncoder": "encoder",
    "DuplexPooling": "pooling",
    "calibrate": "calibration",
    "calibration_sample": "calibration",
    "continue_duplex": "starting",
    "start_duplex": "starting",
}


def __getattr__(name: str) -> Any:
    """Load what needs PyTorch on first use, so that embeddings can be handled without it."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"dupmae.duplex.{_HOME_OF[name]}"), name)
