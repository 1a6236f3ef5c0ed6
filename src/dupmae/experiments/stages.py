"""The stages that runs of a recipe and of `dupmae adapt` do alike: tokenise, pre-train, fine-tune further, index."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dupmae.config import FinetuneConfig, FurtherStageConfig, MiningConfig, PretrainConfig, StoreConfig
from dupmae.corpus import Benchmark, Passage, TokenStore, build_token_store
from dupmae.models import model_fingerprint, resolve_model

if TYPE_CHECKING:
    from dupmae.index import DuplexIndex
    from dupmae.index.scoring.exact import Part


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
    changes: FurtherStageConfig,
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
        lists: Candidate lists (:mod:`dupmae.finetuning.candidates`).
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


def parts_of(index: DuplexIndex) -> dict[str, Part]:
    """What is measured of a duplex model, by how its row in a report ends: the sum, and of two halves each alone."""
    both = index.encoder.pooling.dense_dimension and index.encoder.pooling.top_k
    return {"": "both", "-dense": "dense", "-lexical": "lexical"} if both else {"": "both"}


def mining_inputs(config: MiningConfig) -> list[Any]:
    """What mined lists depend on beside model and data: the settings, and what the teacher is that they name."""
    teacher = None if config.teacher is None else model_fingerprint(resolve_model(config.teacher))
    return [asdict(config), teacher]
