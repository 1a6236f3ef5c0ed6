"""The duplex index: a folder of immutable segments, searched exactly by Eq. 12 and whole words."""

from dupmae.index.duplex_index import DuplexIndex
from dupmae.index.hits import Hit
from dupmae.index.scoring.approximate import Approximate
from dupmae.index.scoring.query import Weights

__all__ = ["Approximate", "DuplexIndex", "Hit", "Weights"]
