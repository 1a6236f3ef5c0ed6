"""The duplex index: a folder of immutable segments, searched exactly by Eq. 12."""

from dupmae.index.duplex_index import DuplexIndex
from dupmae.index.hits import Hit
from dupmae.index.scoring.approximate import Approximate

__all__ = ["Approximate", "DuplexIndex", "Hit"]
