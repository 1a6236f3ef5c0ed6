"""Where the vocabulary half's logits begin to count, read off a sample of the corpus."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import torch

from dupmae.corpus import Passage
from dupmae.duplex.encoder import DuplexEncoder
from dupmae.precision import autocast

ACTIVE = 2
"""How many times `top_k` entries a passage has above the threshold, on average."""
SAMPLE = 256
"""Passages that are enough to calibrate on."""


def calibration_sample(corpus: Mapping[str, Passage], seed: int) -> list[str]:
    """Texts of `SAMPLE` passages (all of a smaller corpus), drawn by `seed`."""
    ids = sorted(corpus)
    return [corpus[name].full_text for name in random.Random(seed).sample(ids, min(len(ids), SAMPLE))]


@torch.no_grad()
def calibrate(encoder: DuplexEncoder, texts: Sequence[str], batch_size: int = 32) -> None:
    """Centre, threshold and scale the vocabulary half's logits, in place, so that the activation starts where it bends.

    Raw logits are all far from zero, and an entry such as "the" is large in every text. So each entry's mean over the
    sample is subtracted (like an inverse document frequency, it silences what tells texts apart from none), then a
    threshold that a passage's 2 `top_k` largest entries reach on average, and the rest is divided by its mean. All
    three go into the output layer's weight and bias.

    Args:
        encoder: The model; only its output layer changes.
        texts: Passages of the corpus to be searched; a few hundred are enough.
        batch_size: Texts encoded at a time.
    """
    pooling = encoder.pooling
    if pooling.top_k == 0:
        return
    encoder.eval()
    logits = []
    for start in range(0, len(texts), batch_size):
        features = encoder.preprocess(
            list(texts[start : start + batch_size]), prompt=encoder.prompts.get("document") or None, task="document"
        )
        features = {k: v.to(encoder.device) if isinstance(v, torch.Tensor) else v for k, v in features.items()}
        with autocast(encoder.device.type):
            for module in list(encoder)[:-1]:
                features = module(features)
            logits.append(pooling.logits(features).float())
    mu = torch.cat(logits)  # (N, V)
    mean = mu.mean(dim=0)
    mu = mu - mean
    active = mu.topk(min(ACTIVE * pooling.top_k, mu.shape[1]), dim=1).values  # (N, ACTIVE k)
    threshold = active[:, -1].mean()
    scale = (active.mean() - threshold).clamp(min=1e-6)
    pooling.output.weight /= scale
    pooling.output.bias.copy_((pooling.output.bias - mean - threshold) / scale)
