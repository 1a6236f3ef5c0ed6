"""Pre-train, fine-tune and search with duplex (dense + lexical) retrievers: RetroMAE-2 / DupMAE.

The public names below are loaded on first use, so that `import dupmae` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dupmae.runtime.places import settle_caches

if TYPE_CHECKING:
    from dupmae.config import AdaptConfig as AdaptConfig
    from dupmae.config import DataConfig as DataConfig
    from dupmae.config import DuplexConfig as DuplexConfig
    from dupmae.config import FinetuneConfig as FinetuneConfig
    from dupmae.config import PretrainConfig as PretrainConfig
    from dupmae.config import Recipe as Recipe
    from dupmae.config import StoreConfig as StoreConfig
    from dupmae.corpus import Benchmark as Benchmark
    from dupmae.corpus import Document as Document
    from dupmae.corpus import Passage as Passage
    from dupmae.corpus import build_token_store as build_token_store
    from dupmae.corpus import read_benchmark as read_benchmark
    from dupmae.corpus import read_passages as read_passages
    from dupmae.duplex import DuplexEmbeddings as DuplexEmbeddings
    from dupmae.duplex import DuplexEncoder as DuplexEncoder
    from dupmae.errors import DupmaeError as DupmaeError
    from dupmae.evaluation import evaluate_run as evaluate_run
    from dupmae.experiments.adapt import adapt as adapt
    from dupmae.experiments.run import run_recipe as run_recipe
    from dupmae.finetuning import finetune as finetune
    from dupmae.index import DuplexIndex as DuplexIndex
    from dupmae.index import Hit as Hit
    from dupmae.pretraining import pretrain as pretrain
    from dupmae.retrievers import bm25_run as bm25_run
    from dupmae.retrievers import dense_run as dense_run
    from dupmae.retrievers import duplex_run as duplex_run
    from dupmae.runtime.bars import show_bars as show_bars

settle_caches()  # before numba and the libraries of models look for their own

_HOMES = {
    "dupmae.config": (
        "AdaptConfig",
        "DataConfig",
        "DuplexConfig",
        "FinetuneConfig",
        "PretrainConfig",
        "Recipe",
        "StoreConfig",
    ),
    "dupmae.corpus": ("Benchmark", "Document", "Passage", "build_token_store", "read_benchmark", "read_passages"),
    "dupmae.duplex": ("DuplexEmbeddings", "DuplexEncoder"),
    "dupmae.errors": ("DupmaeError",),
    "dupmae.evaluation": ("evaluate_run",),
    "dupmae.experiments.adapt": ("adapt",),
    "dupmae.experiments.run": ("run_recipe",),
    "dupmae.finetuning": ("finetune",),
    "dupmae.index": ("DuplexIndex", "Hit"),
    "dupmae.pretraining": ("pretrain",),
    "dupmae.retrievers": ("bm25_run", "dense_run", "duplex_run"),
    "dupmae.runtime.bars": ("show_bars",),
}
"""Module -> the public names that it holds."""
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Import a public name from its room on first use, and read the version that is installed."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("dupmae")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    except ModuleNotFoundError as error:
        from dupmae.errors import DupmaeError, missing_package

        if (missing := missing_package(error)) is None:
            raise
        raise DupmaeError(f"dupmae.{name}: {missing}") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF, "__version__"})
