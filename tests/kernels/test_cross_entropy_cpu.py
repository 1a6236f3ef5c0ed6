"""The kernels for bfloat16 on processors: in tiles, yet equal to the naive ones."""

from __future__ import annotations

import pytest
import torch
from drawn_leaves import D, V, leaves
from largest_tensor import LargestTensor

from dupmae.kernels import cross_entropy_cpu as tiles
from dupmae.kernels import linear_cross_entropy, linear_max_pool_packed, naive, shapes
from dupmae.kernels import max_pool_cpu as segments
from dupmae.kernels.cross_entropy_cpu import Predictions, tiled_cross_entropy
from dupmae.kernels.max_pool_cpu import pooled_in_tiles


@pytest.fixture(autouse=True)
def several_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "CHUNK_ROWS", 5)
    monkeypatch.setattr(tiles, "TILE_TERMS", 8)
    monkeypatch.setattr(segments, "CHUNK_ROWS", 20)
    monkeypatch.setattr(segments, "TILE_TERMS", 8)


def same_as_naive(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    targets = torch.randint(V, (len(hidden),), generator=torch.Generator().manual_seed(1))
    shares = torch.rand(len(hidden), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    given = Predictions(hidden, weight, bias, targets, shares, torch.float64, need_hidden=True, need_table=True)
    losses, *gradients = tiled_cross_entropy(given)
    expected, each = naive.weighted_linear_cross_entropy(hidden, weight, bias, targets, shares)
    torch.testing.assert_close(losses, each)
    inputs = [hidden, weight] if bias is None else [hidden, weight, bias]
    for found, wanted in zip(gradients, torch.autograd.grad(expected, inputs), strict=False):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("rows", [1, 5, 13])
@pytest.mark.parametrize("with_bias", [True, False])
def test_tiled_cross_entropy_and_its_gradients_equal_the_naive_ones(rows: int, with_bias: bool) -> None:
    hidden, weight, bias = leaves((rows, D), (V, D), (V,))
    same_as_naive(hidden, weight, bias if with_bias else None)


def test_tiled_cross_entropy_survives_logits_far_above_the_targets() -> None:
    hidden, weight = (leaf.detach().mul(30).requires_grad_() for leaf in leaves((7, D), (V, D)))
    assert (hidden @ weight.T).amax() > 1000  # their exponentials are no numbers
    same_as_naive(hidden, weight, None)


def test_gradients_survive_where_only_their_sums_would_overflow() -> None:
    hidden, weight = torch.zeros(2, D), torch.zeros(V, D)
    hidden[:, 0], weight[7, 0], weight[7, 1] = 1.0, 87.0, 100.0  # e^87 is a float32, a hundred times it is not
    targets = torch.tensor([3, 3])
    found, wanted = [], []
    for leaves_of, function in ((found, linear_cross_entropy), (wanted, naive.linear_cross_entropy)):
        states, matrix = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        leaves_of += torch.autograd.grad(function(states, matrix, None, targets), [states, matrix])
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_bias_is_not_rounded_to_bfloat16() -> None:
    hidden, weight = torch.zeros(3, D), torch.zeros(V, D)
    bias = torch.full((V,), 100.0)
    bias[4] += 0.125  # a bfloat16 near 100 is a multiple of a half
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, bias, torch.full((3,), 4))
    torch.testing.assert_close(
        loss, naive.linear_cross_entropy(hidden, weight, bias, torch.full((3,), 4)), rtol=2e-3, atol=0
    )
    assert abs(loss - torch.tensor(V).log()) > 0.1


def test_gradients_are_taken_only_where_they_are_wanted() -> None:
    hidden, weight, bias = leaves((7, D), (V, D), (V,), dtype=torch.float32)
    targets = torch.arange(7)
    given = Predictions(
        hidden, weight, bias, targets, torch.ones(7), torch.float32, need_hidden=False, need_table=False
    )
    assert tiled_cross_entropy(given)[1:] == (None, None, None)
    weight.requires_grad_(False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        linear_cross_entropy(hidden, weight, bias, targets).backward()
    assert weight.grad is None
    assert hidden.grad is not None
    assert bias.grad is not None


COUNTS = [0, 3, 30, 1, 0, 7, 6, 9, 0]
"""Rows of each sequence: none, some that share a chunk, more than one chunk holds."""


def bfloat16_rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers, so that many tie; logits of both signs, and of one sign alone for some entries."""
    generator = torch.Generator().manual_seed(2)
    states = torch.randint(-2, 3, (sum(COUNTS), D), generator=generator).to(torch.bfloat16)
    table = torch.randint(-2, 3, (V, D), generator=generator).to(torch.bfloat16)
    states[:, 0] = 2
    table[:9, 0] = -20
    table[9:18, 0] = 20
    return states, table


@pytest.mark.parametrize("threads", [1, 3])
def test_tiled_pool_and_its_winners_equal_torchs_own(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    states, table = bfloat16_rows()
    best, winner = pooled_in_tiles(states, COUNTS, table, with_winners=True)
    assert winner is not None
    alone, none = pooled_in_tiles(states, COUNTS, table, with_winners=False)
    assert none is None
    assert torch.equal(alone, best)
    start = 0
    for row, count in enumerate(COUNTS):
        if count:
            logits = table.float() @ states[start : start + count].float().T  # (V, n)
            assert torch.equal(best[row], logits.amax(dim=1))
            assert torch.equal(winner[row].long(), start + (logits == best[row][:, None]).int().argmax(dim=1))
        else:
            assert not best[row].any()
            assert not winner[row].any()
        start += count
    assert (best < 0).any()
    assert (best > 0).any()


def test_bfloat16_pool_and_its_gradients_equal_the_naive_ones() -> None:
    rows, table = (each.float() for each in bfloat16_rows())
    rows += 0.25 * torch.randint(-3, 4, rows.shape, generator=torch.Generator().manual_seed(3))  # fewer ties
    counts, bias = torch.tensor(COUNTS), torch.randn(V, generator=torch.Generator().manual_seed(4))
    upstream = torch.randn(len(COUNTS), V, generator=torch.Generator().manual_seed(5)).bfloat16().float()
    found, wanted = [], []
    for results, tiled in ((found, True), (wanted, False)):
        inputs = rows.clone().requires_grad_(), table.clone().requires_grad_()
        if tiled:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                pooled = linear_max_pool_packed(inputs[0], counts, inputs[1], bias)
        else:
            pooled = linear_max_pool_packed(inputs[0].double(), counts, inputs[1].double(), bias.double()).float()
        results += [pooled, *torch.autograd.grad((pooled * upstream).sum(), inputs)]
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-2, atol=0.25)
    for a, b in zip(found[1:], wanted[1:], strict=True):
        assert torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99


def test_no_tensor_is_larger_than_a_matrix_or_a_tile() -> None:
    hidden, weight, bias = leaves((4, 256, D), (512, D), (512,), dtype=torch.float32)
    with LargestTensor() as watch, torch.autocast("cpu", dtype=torch.bfloat16):
        linear_cross_entropy(hidden.flatten(0, 1), weight, bias, torch.zeros(1024, dtype=torch.long)).backward()
        linear_max_pool_packed(hidden.flatten(0, 1), torch.full((4,), 256), weight, bias).sum().backward()
    assert watch.largest == shapes.ROWS_MULTIPLE * 512  # of 1024 * 512 logits


def test_going_backward_twice_is_refused_and_not_wrong() -> None:
    hidden, weight = leaves((3, D), (V, D))
    loss = linear_cross_entropy(hidden, weight, None, torch.arange(3))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        loss.backward()
