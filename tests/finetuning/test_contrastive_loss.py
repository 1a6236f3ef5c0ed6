"""The contrastive loss against a double loop."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dupmae.finetuning.loss import DuplexContrastiveLoss

V = 5
POSITIVES = {0: {10, 11}, 1: {12}, 2: {10}, 3: {13}}
LABELS = [[0, 10, 20], [1, 12, 11], [2, 10, 12], [0, 11, 13]]  # query, positive, hard negative


class Model(nn.Module):
    """Gives the vectors that it is handed, and insists on being told what they are."""

    pooling = SimpleNamespace(vocabulary_size=V)

    def forward(self, features: dict[str, Any], task: str) -> dict[str, Any]:
        assert task == features["expected"]
        return {"sentence_embedding": features["vectors"]}


@pytest.fixture
def vectors() -> list[torch.Tensor]:
    """Of four queries, their positives and their hard negatives."""
    return [torch.randn(4, V + 3, requires_grad=True) for _ in range(3)]


def losses(vectors: list[torch.Tensor], cls_weight: float, ot_weight: float) -> dict[str, torch.Tensor]:
    loss = DuplexContrastiveLoss(Model(), POSITIVES, cls_weight, ot_weight)
    kinds = ["query", "document", "document"]
    features = [{"vectors": each, "expected": kind} for each, kind in zip(vectors, kinds, strict=True)]
    return loss(features, torch.tensor(LABELS))


def naive(vectors: list[torch.Tensor], dimensions: slice) -> float:
    """Eq. 13, one query and one passage at a time."""
    queries, positives, negatives = ([row[dimensions].tolist() for row in each] for each in vectors)
    total = 0.0
    for number, query in enumerate(queries):
        exponentials = 0.0
        for column, passages in ((1, positives), (2, negatives)):
            for row, passage in enumerate(passages):
                own = column == 1 and row == number
                if LABELS[row][column] in POSITIVES[LABELS[number][0]] and not own:
                    continue  # another positive of this query: no negative
                score = math.exp(sum(x * y for x, y in zip(query, passage, strict=True)))
                exponentials += score
                if own:
                    target = score
        total -= math.log(target / exponentials)
    return total / len(queries)


def test_loss_of_the_sum_and_of_each_half_equal_a_double_loop(vectors):
    found = losses(vectors, cls_weight=0.7, ot_weight=0.2)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {
            "contrastive": naive(vectors, slice(None)),
            "contrastive_cls": 0.7 * naive(vectors, slice(V, None)),
            "contrastive_ot": 0.2 * naive(vectors, slice(0, V)),
        },
        rel=1e-5,
    )


def test_half_whose_weight_is_zero_has_no_loss_of_its_own(vectors):
    assert list(losses(vectors, cls_weight=0, ot_weight=0)) == ["contrastive"]


def test_each_halfs_own_loss_reaches_no_other_half(vectors):
    losses(vectors, cls_weight=1, ot_weight=1)["contrastive_cls"].backward()
    for each in vectors:
        assert not each.grad[:, :V].any()
        assert each.grad[:, V:].any()


def test_another_positive_of_the_query_is_not_pushed_away(vectors):
    queries, positives, _ = vectors
    losses(vectors, cls_weight=1, ot_weight=1)["contrastive"].backward(inputs=[queries])
    before = queries.grad.clone()
    with torch.no_grad():
        positives[3] += 1.0  # passage 11, which answers query 0 too
    queries.grad = None
    losses(vectors, cls_weight=1, ot_weight=1)["contrastive"].backward(inputs=[queries])
    assert torch.equal(queries.grad[0], before[0])
    assert not torch.equal(queries.grad[1], before[1])


def test_scores_are_not_rounded_under_autocast(vectors):
    expected = losses(vectors, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = losses(vectors, 1, 1)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
