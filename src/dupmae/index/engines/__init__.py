"""Search engines that hold an index's passages, for those who outgrow one machine."""

from dupmae.index.engines.engine import Document, Engine, SparseVector
from dupmae.index.engines.opening import NAMES, open_engine, read_api_key

__all__ = ["NAMES", "Document", "Engine", "SparseVector", "open_engine", "read_api_key"]
