"""The losses of fine-tuning: Eq. 13-15, for the sum of both halves and for each half alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sentence_transformers.base.losses import CachedLossMixin
from sentence_transformers.util import all_gather, all_gather_with_grad, get_rank, get_world_size
from torch import nn

from dupmae.config import FinetuneConfig
from dupmae.duplex import DuplexEncoder
from dupmae.finetuning.examples import Examples
from dupmae.finetuning.word_scores import WordScores

FORBIDDEN = -1e4
"""Score of a passage that must not count; low enough to vanish in a softmax."""


class DuplexLoss(CachedLossMixin, nn.Module):  # type: ignore[misc]
    """Cross-entropy of a query's positive against all passages of a step, or of a teacher's distribution over its own.

    * Without a teacher's scores (Eq. 13 and 14): the positive against every passage of every row, those of the other
      processes included, except the query's other positives.
    * With them (Eq. 15): the softmax of the scores of the row's own passages against that of the teacher's, plus
      `contrastive_weight` times the above.

    The sum of the halves is what is searched with, but trained alone it lets the stronger half do all the work. So
    each half also answers for itself; what one learns does not come at the other's expense. Of a model with words the
    sum includes their score, so that the halves learn what words cannot find, and the scale of all three is learned.

    With a `mini_batch_size` the texts are embedded without a graph, the gradient of the losses is taken with respect to
    the embeddings, and each mini-batch is embedded once more to carry it on into the weights (GradCache). In several
    processes every query meets the passages of all; the mean of the processes' gradients, which DDP takes, is the
    gradient of one process that has all the rows.

    Inputs: columns of a query, a positive and any number of hard negatives, each with its `task`; labels (B) are the
    numbers of the rows in `examples`.

    Args:
        model: The duplex encoder.
        examples: Which texts stand in a row, what must not be a negative, and the teacher's scores.
        config: The settings.
    """

    model: Any  # the encoder, or what DDP has wrapped around it

    def __init__(self, model: DuplexEncoder, examples: Examples, config: FinetuneConfig) -> None:
        super().__init__()
        self.model = model
        self.examples = examples
        self.config = config
        self.dense_dimension = model.pooling.dense_dimension
        self.terms_of = model.pooling.terms_of  # of what DDP has wrapped, which has no attributes of its own
        self.word_scores = None if model.words is None else WordScores(model.words, examples)
        self.mini_batch_size = config.mini_batch_size
        self._parts: dict[str, torch.Tensor] = {}

    def forward(self, features: Iterable[dict[str, Any]], labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the losses, each times its weight, which the trainer sums.

        Args:
            features: Of the queries, the positives and the negatives, in the order of the columns.
            labels: Numbers of the rows, (B).

        Returns:
            `contrastive` or `distil` (both halves), and each half alone with `_cls` or `_ot` added, if it has a weight.
        """
        queries, *passages = self._with_terms(list(features))
        if not self.mini_batch_size:
            vectors = [self.model(column)["sentence_embedding"] for column in passages]
            # DDP looks for the parameters that are used in what the last forward pass returns, and queries use others
            # than passages: so that pass returns all vectors.
            last = self.model(queries | {"passages": vectors})
            return self._losses([*last["passages"], last["sentence_embedding"]], labels)
        total = super().forward_cached([*passages, queries], labels)
        first, *others = self._parts
        # One of the parts has to carry the gradient of all.
        rest = {name: self._parts[name] for name in others}
        return {first: total - torch.stack([*rest.values(), torch.zeros_like(total)]).sum()} | rest

    def _with_terms(self, columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Ask in each column for the scale of words, and for the terms that a step's queries have alone.

        The terms, those of the other processes among them, are an array of NumPy's, because whoever cuts the columns
        into mini-batches would cut a tensor as well.
        """
        if self.word_scores is not None:
            columns = [column | {"word_scale": True} for column in columns]
        occurs = self.terms_of(columns[0])
        if occurs is None:
            return columns
        if get_world_size() > 1:
            occurs = all_gather(occurs[None]).any(dim=0)
        terms = occurs.nonzero()[:, 0].cpu().numpy()  # (T,)
        return [column | {"terms": terms} for column in columns]

    def calculate_loss(
        self, reps: list[list[torch.Tensor]], labels: torch.Tensor | None = None, *, with_backward: bool = False
    ) -> torch.Tensor:
        """Sum the losses of the mini-batches' embeddings, and with `with_backward` take the gradient."""
        assert labels is not None
        parts = self._losses([torch.cat(column) for column in reps], labels)
        self._parts = {name: part.detach() for name, part in parts.items()}
        total = torch.stack(list(parts.values())).sum()
        if with_backward:
            total.backward()  # type: ignore[no-untyped-call]
        return total.detach()

    def get_config_dict(self) -> dict[str, Any]:
        """Return what the model card says of the loss."""
        return {
            "dense_loss_weight": self.config.dense_loss_weight,
            "lexical_loss_weight": self.config.lexical_loss_weight,
        }

    def _losses(self, vectors: list[torch.Tensor], labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the losses of vectors (B, V + d'), or of fewer terms than V, a tensor a column, the queries last.

        Of a model with words they have one column more, the scale of words.
        """
        *passages, query = vectors
        if self.word_scores is not None:
            query, word_scale = query[:, :-1], query[:, -1:]
            passages = [column[:, :-1] for column in passages]
        rows = labels.tolist()
        places = np.arange(len(rows))
        if get_world_size() > 1:
            passages = [all_gather_with_grad(column) for column in passages]
            places += get_rank() * len(rows)
            labels = all_gather(labels)
        numbers = self.examples.rows[labels.tolist()]  # (P, 2 + n), P = B times the processes
        columns = torch.cat(passages)  # ((1 + n) P, V + d'), or of fewer terms than V
        size = columns.shape[1] - self.dense_dimension
        with torch.autocast(query.device.type, enabled=False):  # bfloat16 would round a score of 20 to eighths
            ot = query[:, :size] @ columns[:, :size].T  # (B, (1 + n) P)
            cls = query[:, size:] @ columns[:, size:].T
        whole = cls + ot
        if self.word_scores is not None:
            found = self.word_scores(numbers[places, 0], numbers[:, 1:].T.ravel())
            whole = whole + word_scale * torch.from_numpy(found).to(whole)
        weighted = {
            "": (1.0, whole),
            "_cls": (self.config.dense_loss_weight, cls),
            "_ot": (self.config.lexical_loss_weight, ot),
        }
        scores = {half: pair for half, pair in weighted.items() if pair[0]}
        losses: dict[str, torch.Tensor] = {}
        contrastive = 1.0
        if self.examples.teacher is not None:
            contrastive = self.config.contrastive_weight
            own = torch.from_numpy(places[:, None] + len(numbers) * np.arange(len(passages))).to(cls.device)
            teacher = torch.from_numpy(self.examples.teacher[rows]).to(cls) / self.config.teacher_temperature
            for half, (weight, score) in scores.items():
                listed = score.gather(1, own).masked_fill(teacher.isneginf(), FORBIDDEN)  # (B, 1 + n)
                losses[f"distil{half}"] = weight * F.cross_entropy(listed, teacher.softmax(dim=1))
        if contrastive:
            forbidden = torch.from_numpy(self._forbidden(numbers, places)).to(cls.device)
            target = torch.from_numpy(places).to(cls.device)
            for half, (weight, score) in scores.items():
                masked = score.masked_fill(forbidden, FORBIDDEN)
                losses[f"contrastive{half}"] = contrastive * weight * F.cross_entropy(masked, target)
        return losses

    def _forbidden(self, numbers: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Mark the passages that are a positive of the query but not the row's own, (B, (1 + n) P)."""
        found = defaultdict(list)
        for place, passage in enumerate(numbers[:, 1:].T.ravel().tolist()):
            found[passage].append(place)
        forbidden = np.zeros((len(places), numbers[:, 1:].size), bool)
        for row, query in enumerate(numbers[places, 0].tolist()):
            for passage in self.examples.positives[query]:
                forbidden[row, found.get(passage, [])] = True
        forbidden[np.arange(len(places)), places] = False
        return forbidden
