"""Measurements on held-out text: losses, accuracies and a retrieval probe on what is never trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from dupmae.pretraining.anchor import distances
from dupmae.pretraining.data import NOTHING, TEXT, Sequences, collator, shuffled
from dupmae.pretraining.masking import decoder_visibility, step_generator
from dupmae.pretraining.objective import TERMS, DupMAE
from dupmae.pretraining.probe import Pair, known_item_pairs, probe
from dupmae.runtime.bars import bar
from dupmae.runtime.precision import autocast

LARGEST_SHARE = 10
"""At most one text in this many is held out."""
SEED = 20_230_501
"""Draws the held-out texts and their masks. It is no setting: a run that goes on from a checkpoint, on the same store
with another seed, must not learn what it is measured on, nor be measured on what the checkpoint has learnt."""
ROWS = 256
"""Predictions whose logits exist at the same time."""


@dataclass(frozen=True, slots=True)
class Split:
    """The held-out part of a token store."""

    measured: npt.NDArray[np.int64]
    """The first chunk of each held-out text, (K,): what is measured on."""
    left_out: npt.NDArray[np.int64]
    """All chunks of these texts in rising order, (K or more,): what is never trained on."""


def split(store: Sequences, texts: int) -> Split:
    """Hold texts out, whole ones, so that no chunk of a text that is measured on is trained on.

    Args:
        store: The token store; which of its texts are held out depends on it alone.
        texts: How many, at most; never more than a tenth of all.
    """
    firsts = np.flatnonzero(store.begins)
    count = min(texts, len(firsts) // LARGEST_SHARE)
    if count == 0:
        return Split(NOTHING, NOTHING)
    numbers = np.sort(shuffled(np.arange(count), len(firsts), [SEED]))
    ends = np.append(firsts, len(store))
    left_out = [np.arange(ends[number], ends[number + 1]) for number in numbers]
    return Split(firsts[numbers], np.concatenate(left_out))


class HeldOut:
    """Held-out chunks in batches, with fixed masks, and the queries of the probe.

    Args:
        store: The token store.
        rows: Which of its chunks, (K,).
        pad_token_id: Padding.
        objective: Tells the vocabulary's size and the longest sequence.
        batch_size: Chunks at a time.
    """

    def __init__(
        self, store: Sequences, rows: npt.NDArray[np.int64], pad_token_id: int, objective: DupMAE, batch_size: int
    ) -> None:
        backbone = objective.backbone
        self.collate = collator(pad_token_id, backbone.vocab_size, backbone.max_length)
        self.batch_size = batch_size
        rows = rows[store.lengths[rows].argsort(kind="stable")]
        self.items: list[Mapping[str, Any]] = [store[int(row)] for row in rows]
        titles = [int(store.title_lengths[row]) for row in rows]
        self.pairs: list[Pair] = known_item_pairs(self.items, titles)

    def __len__(self) -> int:
        """Count the chunks."""
        return len(self.items)

    @torch.no_grad()
    def measure(self, objective: DupMAE) -> dict[str, float]:
        """Measure a model; its mode and all generators of random numbers are left as they were.

        Returns:
            `mlm`, `cls`, `bow` and `loss` as :meth:`DupMAE.forward` has them, means over all held-out chunks;
            `mlm_accuracy` and `cls_accuracy`, shares of these tokens that get the highest logit; `bow_recall`, the
            share of a text's n different tokens that are among its n highest terms of mu; `mrr_cls`, `mrr_ot` and
            `mrr_both` of :func:`dupmae.pretraining.probe.probe`. What a weight of 0 leaves untrained is left out. Where
            the chunks have vectors to be drawn to, `anchor`, too, which `loss` then holds with its weight.
        """
        device, settings = objective.special.device, objective.settings
        training = objective.training
        objective.eval()
        sums = torch.zeros(len(TERMS) + 1, 3, dtype=torch.float64, device=device)  # loss, hits, count
        starts = range(0, len(self), self.batch_size)
        with autocast(device.type, settings.precision):
            for number, start in enumerate(bar(starts, "Held-out text", "batches")):
                batch = self.collate(self.items[start : start + self.batch_size])
                sums += _sums(objective, {name: tensor.to(device) for name, tensor in batch.items()}, number)
            retrieval = probe(objective, self.pairs, self.collate, self.batch_size)
        objective.train(training)
        weights = dict(zip(TERMS, (settings.mlm_weight, settings.cls_weight, settings.bow_weight), strict=True))
        figures = {}
        for term, (loss, hits, count) in zip(TERMS, sums[:-1].tolist(), strict=True):
            if weights[term]:
                figures[term] = loss / max(count, 1)
                figures[f"{term}_recall" if term == "bow" else f"{term}_accuracy"] = hits / max(count, 1)
        distance, _, count = sums[-1].tolist()
        if count:
            figures["anchor"], weights["anchor"] = distance / count, settings.anchor_weight
        figures["loss"] = sum(weight * figures[term] for term, weight in weights.items() if term in figures)
        return figures | retrieval


def _sums(objective: DupMAE, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
    """Sum up loss, hits and count of the three losses and the anchor, (4, 3); a batch's masks depend on its number."""
    settings, input_ids, attention_mask = objective.settings, batch["input_ids"], batch["attention_mask"]
    generator = step_generator(input_ids.device, SEED, number)
    masked_ids, selected, ordinary = objective.mask(**{name: batch[name] for name in TEXT}, generator=generator)
    states = objective.backbone.states(masked_ids if settings.decodes else input_ids, attention_mask)  # (B, L, D)
    sums = torch.zeros(len(TERMS) + 1, 3, dtype=torch.float64, device=input_ids.device)
    if settings.mlm_weight:
        sums[0] = _token_sums(objective, states[selected], input_ids[selected])
    if settings.cls_weight:
        visible = decoder_visibility(attention_mask, settings.decoder_mask_rate, generator)
        rebuilt = objective.rebuild(states, input_ids, attention_mask, visible)
        sums[1] = _token_sums(objective, rebuilt[ordinary], input_ids[ordinary])
    if settings.bow_weight:
        pooled = ordinary & ~selected
        mu = objective.pool(states, pooled).float()  # (B, V)
        sums[2] = _bag_sums(mu, input_ids, objective.special, pooled.any(dim=1))
    if "anchor" in batch:
        if settings.decodes:
            states = objective.backbone.states(input_ids, attention_mask)
        moved = distances(objective.h_cls(states, attention_mask), batch["anchor"])
        sums[3] = torch.stack([moved.sum(), torch.zeros_like(moved[0]), moved.new_tensor(len(moved))])
    return sums


def _token_sums(objective: DupMAE, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum up cross-entropy, correct predictions and number of rows over states (N, D) and their tokens (N,): (3,)."""
    backbone = objective.backbone
    total = torch.zeros(3, dtype=torch.float64, device=states.device)
    for rows, ids in zip(torch.split(states, ROWS), torch.split(targets, ROWS), strict=True):
        logits = F.linear(backbone.transform(rows), backbone.output_weight, backbone.output_bias).float()  # (n, V)
        loss = F.cross_entropy(logits, ids, reduction="sum")
        total += torch.stack([loss.double(), (logits.argmax(dim=1) == ids).sum().double(), total.new_tensor(len(ids))])
    return total


def _bag_sums(mu: torch.Tensor, input_ids: torch.Tensor, special: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Sum up loss (Eq. 8), recall and number of texts over the counted (B,) texts, from mu (B, V): (3,)."""
    unique = torch.zeros_like(mu, dtype=torch.bool).scatter_(1, input_ids, True) & ~special  # (B, V)
    size = unique.sum(dim=1).clamp(min=1)  # (B,)
    losses = -(mu.log_softmax(dim=1) * unique).sum(dim=1) / size
    ranked = mu.masked_fill(special, -torch.inf).sort(dim=1, descending=True).values
    least = ranked.gather(1, size[:, None] - 1)  # (B, 1): the smallest of the `size` highest terms
    recalls = (unique & (mu >= least)).sum(dim=1) / size
    return torch.stack([losses * counted, recalls * counted, counted]).double().sum(dim=1)
