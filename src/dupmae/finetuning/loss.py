"""The contrastive loss of stage 1 (Eq. 13), for the sum of both halves and for each half alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from dupmae.duplex import DuplexEncoder

FORBIDDEN = -1e4
"""Score of a passage that must not count as a negative; low enough to vanish in a softmax."""


class DuplexContrastiveLoss(nn.Module):
    """Cross-entropy of a query's positive against every passage of the batch (Eq. 13).

    The sum of the halves is what is searched with, but trained alone it lets the stronger half do all the work. So
    each half also answers for itself; what one learns does not come at the other's expense.

    Inputs: a query column, a positive column, any number of hard-negative columns; labels (B, 1 + C) that hold a
    number for the query and for each of its C passages, so that a positive of a query is never its negative.

    Args:
        model: The duplex encoder.
        positives: For each query's number the numbers of its positive passages.
        cls_weight: Weight of the dense half's own loss.
        ot_weight: Weight of the vocabulary half's own loss.
    """

    def __init__(
        self, model: DuplexEncoder, positives: dict[int, set[int]], cls_weight: float, ot_weight: float
    ) -> None:
        super().__init__()
        self.model = model
        self.positives = positives
        self.cls_weight, self.ot_weight = cls_weight, ot_weight

    def forward(self, features: Iterable[dict[str, torch.Tensor]], labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The three losses, each times its weight, which the trainer sums.

        Args:
            features: Of the queries, the positives and the negatives, in the order of the columns.
            labels: Numbers of each row's query and passages, (B, 1 + C).

        Returns:
            `contrastive` (both halves), `contrastive_cls` and `contrastive_ot` (each half alone, if it has a weight).
        """
        queries, *passages = features
        vocabulary_size = self.model.pooling.vocabulary_size
        query = self.model(queries, task="query")["sentence_embedding"]  # (B, V + d')
        passage = torch.cat(
            [self.model(each, task="document")["sentence_embedding"] for each in passages]
        )  # (CB, V+d')
        with torch.autocast(query.device.type, enabled=False):  # bfloat16 would round a score of 20 to eighths
            ot = query[:, :vocabulary_size] @ passage[:, :vocabulary_size].T  # (B, CB)
            cls = query[:, vocabulary_size:] @ passage[:, vocabulary_size:].T  # (B, CB)
        rows = labels.tolist()
        columns = [row[1 + column] for column in range(len(passages)) for row in rows]
        forbidden = torch.tensor(
            [
                [other in self.positives[row[0]] and place != number for place, other in enumerate(columns)]
                for number, row in enumerate(rows)
            ],
            device=cls.device,
        )
        target = torch.arange(len(rows), device=cls.device)

        def loss(scores: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(scores.masked_fill(forbidden, FORBIDDEN), target)

        losses = {"contrastive": loss(cls + ot)}
        if self.cls_weight:
            losses["contrastive_cls"] = self.cls_weight * loss(cls)
        if self.ot_weight:
            losses["contrastive_ot"] = self.ot_weight * loss(ot)
        return losses

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the loss."""
        return {"cls_weight": self.cls_weight, "ot_weight": self.ot_weight}
