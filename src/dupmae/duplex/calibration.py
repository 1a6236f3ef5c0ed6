"""Calibrate a new duplex model on a sample of the corpus: which directions matter, where logits begin to count."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from dupmae.corpus import Passage
from dupmae.duplex.encoder import DuplexEncoder
from dupmae.runtime.bars import bar
from dupmae.runtime.precision import autocast

ACTIVE = 2
"""How many times `top_k` terms a passage has above the threshold, on average."""
SAMPLE = 256
"""Passages that are enough to calibrate on."""
SAMPLE_PER_DIMENSION = 4
"""Passages for each dimension of the encoder that are enough to find its principal directions."""
SAMPLE_OF_TOKENS = 20_000
"""Passages that are enough to tell rare tokens from frequent ones; they are tokenised, not encoded."""


def calibration_sample(corpus: Mapping[str, Passage], seed: int, count: int = SAMPLE) -> list[str]:
    """Draw the texts of `count` passages (all of a smaller corpus) by `seed`."""
    ids = sorted(corpus)
    return [corpus[name].full_text for name in random.Random(seed).sample(ids, min(len(ids), count))]


@torch.no_grad()
def project_on_principal_directions(encoder: DuplexEncoder, texts: Sequence[str], batch_size: int = 32) -> None:
    """Set the dense half's projection (Eq. 10) to the directions that lose least, in place.

    Its d' directions are the eigenvectors with the largest eigenvalues of the sum of h h^T over the texts' vectors h:
    by no other d' directions do inner products change less.

    Args:
        encoder: The model; only its projection changes.
        texts: Passages of the corpus to be searched; some for each of the encoder's dimensions.
        batch_size: Texts encoded at a time.
    """
    pooling = encoder.pooling
    square = torch.zeros(pooling.hidden_size, pooling.hidden_size, dtype=torch.float64, device=encoder.device)
    for features in _token_states(encoder, texts, batch_size):
        states = pooling.text_states(features).double()
        square += states.T @ states
    directions = torch.linalg.eigh(square).eigenvectors  # (D, D), eigenvalues rising
    pooling.cls_projection.weight.copy_(directions[:, -pooling.dense_dimension :].T)


@torch.no_grad()
def calibrate(encoder: DuplexEncoder, texts: Sequence[str], batch_size: int = 32) -> None:
    """Centre, threshold and scale the lexical half's logits, in place, so that the activation starts where it bends.

    Raw logits are all far from zero, and a term such as "the" is large in every text. So each term's mean over the
    sample is subtracted (like an inverse document frequency, it silences what tells texts apart from none), then a
    threshold that a passage's 2 `top_k` largest terms reach on average, and the rest is divided by its mean. All
    three go into the output layer's weight and bias.

    Args:
        encoder: The model; only its output layer changes, and where documents keep a norm of their own, the weights
            of the terms, so that it is 1 on average.
        texts: Passages of the corpus to be searched; a few hundred are enough.
        batch_size: Texts encoded at a time.
    """
    pooling = encoder.pooling
    if pooling.top_k == 0:
        return
    mu = torch.cat(
        [pooling.logits(features).float() for features in _token_states(encoder, texts, batch_size)]
    )  # (N, V)
    mean = mu.mean(dim=0)
    mu = mu - mean
    active = mu.topk(min(ACTIVE * pooling.top_k, mu.shape[1]), dim=1).values  # (N, ACTIVE k)
    threshold = active[:, -1].mean()
    scale = (active.mean() - threshold).clamp(min=1e-6)
    pooling.output.weight /= scale
    pooling.output.bias.copy_((pooling.output.bias - mean - threshold) / scale)
    if pooling.normalize and pooling.document_norm == "own":
        weights = pooling.activation((mu - threshold) / scale).masked_fill(pooling.special, 0.0)
        norms = weights.topk(pooling.top_k, dim=1).values.norm(dim=1)
        pooling.entry_log_scale.sub_(norms.mean().clamp(min=1e-6).log())


@torch.no_grad()
def weigh_tokens(encoder: DuplexEncoder, texts: Sequence[str], batch_size: int = 128) -> None:
    """Weight the tokens of queries by their inverse document frequency (IDF), in place.

    That is ln(1 + (N - n + 0.5) / (n + 0.5)), BM25's, where n of the N texts have the token.

    Args:
        encoder: A model whose `query_terms` are `tokens`; only those weights change.
        texts: Passages of the corpus to be searched.
        batch_size: Texts tokenised at a time.
    """
    pooling = encoder.pooling
    frequencies = torch.zeros(pooling.vocabulary_size, dtype=torch.float64, device=encoder.device)
    for features in _tokens(encoder, texts, batch_size):
        frequencies += pooling.own_tokens(features).sum(dim=0)
    idf = torch.log1p((len(texts) - frequencies + 0.5) / (frequencies + 0.5))
    pooling.token_log_scale.copy_(idf.log())


def _token_states(encoder: DuplexEncoder, texts: Sequence[str], batch_size: int) -> Iterator[dict[str, Any]]:
    """Yield what the pooling module gets of each batch of documents, in the arithmetic of encoding."""
    encoder.eval()
    for features in _tokens(encoder, texts, batch_size):
        with autocast(encoder.device.type):
            for module in list(encoder)[:-1]:
                features = module(features)
            yield features


def _tokens(encoder: DuplexEncoder, texts: Sequence[str], batch_size: int) -> Iterator[dict[str, Any]]:
    """Yield what the encoder gets of each batch of documents, on its device."""
    for start in bar(range(0, len(texts), batch_size), "Calibrate", "batches"):
        features = encoder.preprocess(
            list(texts[start : start + batch_size]), prompt=encoder.prompts.get("document") or None, task="document"
        )
        yield {k: v.to(encoder.device) if isinstance(v, torch.Tensor) else v for k, v in features.items()}
