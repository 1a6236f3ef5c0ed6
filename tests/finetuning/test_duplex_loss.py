"""The losses of fine-tuning against double loops in double precision, and in mini-batches against the whole batch."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dupmae.config import FinetuneConfig
from dupmae.duplex import DuplexEncoder
from dupmae.duplex.pooling import DuplexPooling
from dupmae.finetuning.examples import Examples, make_examples
from dupmae.finetuning.loss import DuplexLoss
from dupmae.finetuning.trainer import row_collator

V = 5
POSITIVES = {0: frozenset({10, 11}), 1: frozenset({12}), 2: frozenset({10}), 3: frozenset({13})}
ROWS = [[3, 13, 20], [0, 10, 20], [1, 12, 11], [2, 10, 12], [0, 11, 13]]  # query, positive, hard negative
BATCH = [1, 2, 3, 4]
TEACHER = [[0.0, 0.0], [2.0, 1.5], [0.3, 0.9], [1.0, -math.inf], [-4.0, -5.0]]
HALVES = {"": slice(None), "_cls": slice(V, None), "_ot": slice(0, V)}


class Model(nn.Module):
    """Gives the vectors that it is handed."""

    pooling = SimpleNamespace(dense_dimension=3, terms_of=lambda features: None)
    words = None

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return features | {"sentence_embedding": features["vectors"]}


@pytest.fixture
def vectors() -> list[torch.Tensor]:
    """Of four queries, their positives and their hard negatives."""
    return [torch.randn(4, V + 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def losses(vectors: list[torch.Tensor], taught: bool = False, **settings: Any) -> dict[str, torch.Tensor]:
    teacher = np.array(TEACHER, np.float32) if taught else None
    examples = Examples(None, [], [], np.array(ROWS), POSITIVES, teacher)  # type: ignore[arg-type]
    loss = DuplexLoss(Model(), examples, FinetuneConfig(**settings))  # type: ignore[arg-type]
    return loss([{"vectors": each} for each in vectors], torch.tensor(BATCH))


def score(query: list[float], passage: list[float]) -> float:
    return sum(x * y for x, y in zip(query, passage, strict=True))


def naive(vectors: list[torch.Tensor], dimensions: slice) -> float:
    """Eq. 13 and 14, one query and one passage at a time."""
    queries, positives, negatives = ([row[dimensions].tolist() for row in each] for each in vectors)
    total = 0.0
    for number, query in enumerate(queries):
        exponentials = 0.0
        for column, passages in ((1, positives), (2, negatives)):
            for row, passage in enumerate(passages):
                own = column == 1 and row == number
                if ROWS[BATCH[row]][column] in POSITIVES[ROWS[BATCH[number]][0]] and not own:
                    continue  # another positive of this query: no negative
                exponentials += math.exp(score(query, passage))
                if own:
                    target = math.exp(score(query, passage))
        total -= math.log(target / exponentials)
    return total / len(queries)


def naive_distillation(vectors: list[torch.Tensor], dimensions: slice, temperature: float) -> float:
    """Eq. 15, one list at a time: minus the sum of the teacher's probability times the student's log-probability."""
    queries, *columns = ([row[dimensions].tolist() for row in each] for each in vectors)
    total = 0.0
    for number, query in enumerate(queries):
        places = [place for place, logit in enumerate(TEACHER[BATCH[number]]) if logit > -math.inf]
        teacher = [math.exp(TEACHER[BATCH[number]][place] / temperature) for place in places]
        student = [math.exp(score(query, columns[place][number])) for place in places]
        for likely, found in zip(teacher, student, strict=True):
            total -= likely / sum(teacher) * math.log(found / sum(student))
    return total / len(queries)


def test_eq_13_and_14_of_the_sum_and_of_each_half_equal_a_double_loop(vectors):
    found = losses(vectors, dense_loss_weight=0.7, lexical_loss_weight=0.2)
    weights = {"": 1.0, "_cls": 0.7, "_ot": 0.2}
    expected = {f"contrastive{half}": weight * naive(vectors, HALVES[half]) for half, weight in weights.items()}
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, rel=1e-12)


def test_eq_15_of_the_sum_and_of_each_half_equals_a_double_loop(vectors):
    found = losses(vectors, taught=True, teacher_temperature=2.5, dense_loss_weight=0.7, lexical_loss_weight=0.2)
    expected = {
        f"distil{half}": weight * naive_distillation(vectors, HALVES[half], 2.5)
        for half, weight in {"": 1.0, "_cls": 0.7, "_ot": 0.2}.items()
    }
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, rel=1e-6)


def test_distillation_adds_the_contrastive_losses_with_their_weight(vectors):
    alone = losses(vectors, dense_loss_weight=0.7, lexical_loss_weight=0)
    found = losses(vectors, taught=True, contrastive_weight=0.25, dense_loss_weight=0.7, lexical_loss_weight=0)
    assert list(found) == ["distil", "distil_cls", "contrastive", "contrastive_cls"]
    for name, value in alone.items():
        torch.testing.assert_close(found[name], 0.25 * value)


def test_words_add_their_score_to_the_sum_alone_and_their_scale_learns(monkeypatch):
    found = np.arange(4 * 8, dtype=np.float32).reshape(4, 8) % 5
    asked = []

    class Scores:
        def __init__(self, words: Any, examples: Examples) -> None:
            self.words = words

        def __call__(self, queries: Any, passages: Any) -> Any:
            asked.append((queries.tolist(), passages.tolist()))
            return found

    monkeypatch.setattr("dupmae.finetuning.loss.WordScores", Scores)
    monkeypatch.setattr(Model, "words", "words of a model")
    scale = torch.full((4, 1), 1.5, dtype=torch.float64, requires_grad=True)
    plain = [torch.randn(4, V + 3, dtype=torch.float64) for _ in range(3)]
    losses_found = losses([torch.cat([each, scale], dim=1) for each in plain])
    assert asked == [([0, 1, 2, 0], [10, 12, 10, 11, 20, 11, 12, 13])]
    # the words' score is that of one more term a passage, which a query weighs with the scale
    one_hot = [torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3]], *torch.from_numpy(found.T).double().split(4)]
    widened = [
        torch.cat([other * (1.5 if place == 0 else 1), each], 1)
        for place, (each, other) in enumerate(zip(plain, one_hot, strict=True))
    ]
    expected = naive(widened, slice(None))
    assert losses_found["contrastive"].item() == pytest.approx(expected, rel=1e-6)
    losses_found["contrastive_cls"].backward(retain_graph=True)
    assert not scale.grad.any()
    losses_found["contrastive"].backward()
    assert scale.grad.any()


def test_half_whose_weight_is_zero_has_no_loss_of_its_own(vectors):
    assert list(losses(vectors, dense_loss_weight=0, lexical_loss_weight=0)) == ["contrastive"]


@pytest.mark.parametrize("taught", [False, True])
def test_each_halfs_own_loss_reaches_no_other_half(vectors, taught):
    losses(vectors, taught)["distil_cls" if taught else "contrastive_cls"].backward()
    for each in vectors:
        assert not each.grad[:, :V].any()
        assert each.grad[:, V:].any()


def test_another_positive_of_the_query_is_not_pushed_away(vectors):
    queries, positives, _ = vectors
    losses(vectors)["contrastive"].backward(inputs=[queries])
    before = queries.grad.clone()
    with torch.no_grad():
        positives[3] += 1.0  # passage 11, which answers query 0 too
    queries.grad = None
    losses(vectors)["contrastive"].backward(inputs=[queries])
    assert torch.equal(queries.grad[0], before[0])
    assert not torch.equal(queries.grad[1], before[1])


def test_scores_are_not_rounded_under_autocast(vectors):
    vectors = [each.detach().float() for each in vectors]
    expected = losses(vectors)
    with torch.autocast("cpu", torch.bfloat16):
        found = losses(vectors)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def batch_of(encoder: DuplexEncoder, examples: Examples) -> tuple[list[dict[str, Any]], torch.Tensor]:
    """The columns and the labels of a step of six rows."""
    batch = row_collator(encoder, examples)([{"label": row} for row in range(6)])
    labels = batch.pop("label")
    columns = [
        {name.removeprefix(f"{column}_"): value for name, value in batch.items() if name.startswith(f"{column}_")}
        for column in examples.columns
    ]
    return columns, labels


@pytest.mark.parametrize("mini_batch_size", [0, 4])
def test_entries_that_no_query_has_are_not_computed_and_change_nothing(
    benchmark, config, make_encoder, monkeypatch, mini_batch_size
):
    """Against the whole vocabulary, no passage cut to its top k."""
    examples = make_examples(benchmark, replace(config, negatives=2))
    widths: list[int] = []

    def step(top_k: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        encoder = make_encoder(query_terms="tokens", document_norm="own", top_k=top_k).double()
        with torch.no_grad():
            encoder.pooling.output.bias += torch.randn_like(encoder.pooling.output.bias)
            encoder.pooling.token_log_scale += torch.randn_like(encoder.pooling.token_log_scale)
        encoder.pooling.register_forward_hook(lambda *seen: widths.append(seen[2]["sentence_embedding"].shape[1]))
        columns, labels = batch_of(encoder, examples)
        found = DuplexLoss(encoder, examples, replace(config, mini_batch_size=mini_batch_size))(columns, labels)
        torch.stack(list(found.values())).sum().backward()
        return found, {name: each.grad for name, each in encoder.named_parameters() if each.grad is not None}

    losses, gradients = step(5)
    entries, widths = widths, []
    monkeypatch.setattr(DuplexPooling, "terms_of", lambda self, features: None)
    expected, whole = step(176)  # the entries of the whole vocabulary
    assert len(set(entries)) == len(set(widths)) == 1
    assert entries[0] < widths[0] / 2
    assert losses.keys() == expected.keys()
    assert gradients.keys() == whole.keys()
    for found, known in ((losses, expected), (gradients, whole)):
        for name, value in known.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-9, msg=name)
    assert gradients["1.output.weight"].any()


@pytest.mark.parametrize("taught", [False, True])
def test_mini_batches_give_the_losses_and_the_gradient_of_the_whole_batch(benchmark, config, make_encoder, taught):
    """With dropout, whose random numbers the second pass has to draw again: one text a mini-batch on either side."""
    from dupmae.runtime.precision import prepare_for_training

    examples = make_examples(benchmark, replace(config, negatives=2))
    if taught:
        examples = replace(examples, teacher=np.random.default_rng(0).normal(size=(len(examples), 3)))
    config = replace(config, contrastive_weight=0.5)

    def step(mini_batch_size: int, parts: int) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        encoder = make_encoder().double()  # sums in another order: float32 would round some of them apart
        prepare_for_training(encoder.transformers_model, 0.0 if parts == 1 else 0.3)
        encoder.train()
        features, labels = batch_of(encoder, examples)
        torch.manual_seed(3)
        found = DuplexLoss(encoder, examples, replace(config, mini_batch_size=mini_batch_size))(features, labels)
        (3 * torch.stack(list(found.values())).sum()).backward()
        gradients = {name: each.grad for name, each in encoder.named_parameters() if each.grad is not None}
        return {name: value.item() for name, value in found.items()}, gradients

    expected, whole = step(0, 1)
    for size in (1, 4, 50):
        found, gradients = step(size, 1)
        assert found == pytest.approx(expected, rel=1e-5)
        assert gradients.keys() == whole.keys()
        for name, gradient in whole.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-6, msg=name)
    # With dropout one mini-batch a column is the whole batch with the same random numbers.
    (expected, whole), (found, gradients) = step(0, 2), step(6, 2)
    assert found == pytest.approx(expected, rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-6, msg=name)
