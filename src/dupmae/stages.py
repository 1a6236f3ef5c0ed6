"""The stages that runs of a recipe and of `dupmae adapt` do alike: tokenise, pre-train, fine-tune further, index."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dupmae.config import DistilConfig, FinetuneConfig, HardNegativesConfig, PretrainConfig, StoreConfig
from dupmae.corpus import Benchmark, Passage, TokenStore, build_token_store

if TYPE_CHECKING:
    from dupmae.index import DuplexIndex


def tokenise(passages: Iterable[Passage], start: str, folder: Path, config: StoreConfig) -> dict[str, Any]:
    """Make the token store `folder / "store"` with a start's tokenizer; returns what was counted."""
    from dupmae.pretraining.checkpoint import load_tokenizer

    tokenizer = load_tokenizer(start)
    return build_token_store(passages, tokenizer, folder / "store", config).report


def pretrain_on(tokenised: Path, start: str, folder: Path, config: PretrainConfig) -> None:
    """Pre-train on what :func:`tokenise` left in a folder."""
    from dupmae.pretraining import pretrain

    pretrain(TokenStore.open(tokenised / "store"), start, folder, config)


def finetune_further(
    model: Path,
    train: Benchmark,
    folder: Path,
    config: FinetuneConfig,
    changes: HardNegativesConfig | DistilConfig,
    lists: Path,
    scores: Path | None = None,
    dev: Benchmark | None = None,
) -> None:
    """Fine-tune the model of an earlier stage on mined lists.

    Args:
        model: Its folder.
        train: Queries to train on.
        folder: The stage's folder.
        config: The first stage's settings ...
        changes: ... and those that this stage has instead.
        lists: Candidate lists (:mod:`dupmae.finetuning.lists`).
        scores: A teacher's scores of them, to distil.
        dev: Held-out queries, where there are any.
    """
    from dupmae.duplex import DuplexEncoder
    from dupmae.finetuning import finetune

    settings = replace(config, **vars(changes))
    finetune(DuplexEncoder(str(model)), train, folder, settings, dev=dev, lists=lists, scores=scores)


def build_index(model: Path, passages: Iterable[Passage], folder: Path) -> DuplexIndex:
    """Index passages with a duplex model's folder, which the index then names."""
    from dupmae.duplex import DuplexEncoder
    from dupmae.index import DuplexIndex

    return DuplexIndex.build(folder, DuplexEncoder(str(model)), passages, model=str(model))
