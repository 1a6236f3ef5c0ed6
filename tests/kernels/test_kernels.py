"""The fused kernels against the naive ones: values, gradients, autocast, memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from drawn_leaves import D, V, leaves
from largest_tensor import LargestTensor

from dupmae.kernels import (
    cross_entropy,
    linear_cross_entropy,
    linear_max_pool,
    max_pool,
    naive,
    weighted_linear_cross_entropy,
)


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_ROWS", 5)
    monkeypatch.setattr(cross_entropy, "BLOCK_ROWS", 2)
    monkeypatch.setattr(max_pool, "CHUNK_ROWS", 4)
    monkeypatch.setattr(max_pool, "TILE_TERMS", 8)


def gradients(value: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch.autograd.grad(value, inputs, allow_unused=True))


def pooling_mask() -> torch.Tensor:
    """Four sequences: ordinary, with gaps, empty, longer than a chunk."""
    mask = torch.zeros(4, 11, dtype=torch.bool)
    mask[0, 1:4] = True
    mask[1, [2, 5, 9]] = True
    mask[3] = True
    return mask


@pytest.mark.parametrize("rows", [1, 5, 13])
@pytest.mark.parametrize("with_bias", [True, False])
def test_cross_entropy_and_its_gradients_equal_the_naive_ones(rows: int, with_bias: bool) -> None:
    hidden, weight, bias = leaves((rows, D), (V, D), (V,))
    targets = torch.randint(V, (rows,), generator=torch.Generator().manual_seed(rows))
    inputs = [hidden, weight, bias] if with_bias else [hidden, weight]
    arguments = (hidden, weight, bias if with_bias else None, targets)
    ours, theirs = linear_cross_entropy(*arguments), naive.linear_cross_entropy(*arguments)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(gradients(3 * ours, inputs), gradients(3 * theirs, inputs), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("rows", [1, 5, 13])
def test_weighted_cross_entropies_and_their_gradients_equal_the_naive_ones(rows: int) -> None:
    hidden, weight, bias = leaves((rows, D), (V, D), (V,))
    generator = torch.Generator().manual_seed(rows)
    targets = torch.randint(V, (rows,), generator=generator)
    shares = 1e-4 * torch.rand(rows, generator=generator, dtype=torch.float64)
    shares[0] = 0
    found, wanted = (
        f(hidden, weight, bias, targets, shares)
        for f in (weighted_linear_cross_entropy, naive.weighted_linear_cross_entropy)
    )
    assert not found[1].requires_grad
    torch.testing.assert_close(found, wanted)
    inputs = [hidden, weight, bias]
    for a, b in zip(gradients(3 * found[0], inputs), gradients(3 * wanted[0], inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-15)


@pytest.mark.parametrize("works", [True, False])
def test_what_is_compiled_on_a_gpu_is_tried_and_left_if_it_is_not_the_same(
    works: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def compiled(*args: Any) -> Any:
        losses, in_all = cross_entropy._gradient_of_block(*args)
        return losses if works else losses + 1, in_all

    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled)
    for name in ("linspace", "arange", "full"):  # there is no GPU to make the trial's tensors on
        make = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *args, make=make, device: make(*args))
    chosen = cross_entropy._of_block.__wrapped__(torch.device("cuda"))
    assert chosen is (compiled if works else cross_entropy._gradient_of_block)
    assert ("is not compiled" in caplog.text) == (not works)


def test_cross_entropy_of_no_rows_is_zero_with_zero_gradients() -> None:
    hidden, weight, bias = leaves((0, D), (V, D), (V,))
    loss = linear_cross_entropy(hidden, weight, bias, torch.zeros(0, dtype=torch.long))
    assert loss.item() == 0
    assert all(gradient.eq(0).all() for gradient in gradients(loss, [hidden, weight, bias]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # in tiles; in whole rows
def test_cross_entropy_survives_logits_far_apart(dtype: torch.dtype) -> None:
    hidden, weight = (leaf.detach().mul(30).requires_grad_() for leaf in leaves((7, D), (V, D), dtype=dtype))
    targets = torch.arange(7)
    ours, theirs = (f(hidden, weight, None, targets) for f in (linear_cross_entropy, naive.linear_cross_entropy))
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(gradients(ours, [hidden, weight]), gradients(theirs, [hidden, weight]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_cross_entropy_leaves_frozen_inputs_without_gradient() -> None:
    hidden, weight, bias = leaves((7, D), (V, D), (V,))
    weight.requires_grad_(False)
    linear_cross_entropy(hidden, weight, bias, torch.arange(7)).backward()
    assert weight.grad is None
    assert hidden.grad is not None
    assert bias.grad is not None


@pytest.mark.parametrize("with_bias", [True, False])
def test_max_pool_and_its_gradients_equal_the_naive_ones(with_bias: bool) -> None:
    hidden, weight, bias = leaves((4, 11, D), (V, D), (V,))
    inputs = [hidden, weight, bias] if with_bias else [hidden, weight]
    arguments = (hidden, weight, bias if with_bias else None, pooling_mask())
    ours, theirs = linear_max_pool(*arguments), naive.linear_max_pool(*arguments)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn(4, V, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for a, b in zip(
        gradients((ours * upstream).sum(), inputs), gradients((theirs * upstream).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_a_sequence_without_pooled_tokens_gives_zeros_and_no_gradient() -> None:
    hidden, weight, bias = leaves((2, 3, D), (V, D), (V,))
    pooled = linear_max_pool(hidden, weight, bias, torch.zeros(2, 3, dtype=torch.bool))
    assert pooled.eq(0).all()
    assert all(gradient.eq(0).all() for gradient in gradients(pooled.sum(), [hidden, weight, bias]))


@pytest.mark.parametrize("learning", [True, False])
def test_a_number_that_is_none_is_not_hidden_by_the_pool(learning: bool) -> None:
    hidden, weight, bias = leaves((2, 3, D), (V, D), (V,))
    with torch.no_grad():
        weight[5] = torch.nan
    with torch.set_grad_enabled(learning):
        pooled = linear_max_pool(hidden, weight, bias, torch.ones(2, 3, dtype=torch.bool))
    assert pooled.isnan().nonzero()[:, 1].unique().tolist() == [5]


def test_tokens_outside_the_mask_cannot_change_the_pool() -> None:
    hidden, weight, bias = (leaf.detach() for leaf in leaves((4, 11, D), (V, D), (V,)))
    mask = pooling_mask()
    changed = hidden.masked_fill(~mask[:, :, None], 1e6)
    torch.testing.assert_close(
        linear_max_pool(changed, weight, bias, mask), linear_max_pool(hidden, weight, bias, mask)
    )


@pytest.mark.parametrize("kernel", ["cross_entropy", "max_pool"])
def test_autocast_computes_in_bfloat16_and_returns_float32(kernel: str) -> None:
    hidden, weight, bias = leaves((4, 11, D), (V, D), (V,), dtype=torch.float32)
    targets = torch.arange(44) % V

    def value() -> torch.Tensor:
        if kernel == "cross_entropy":
            return linear_cross_entropy(hidden.flatten(0, 1), weight, bias, targets)
        return linear_max_pool(hidden, weight, bias, pooling_mask())

    exact = value()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = value()
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.02)
    for a, b in zip(
        gradients(rounded.square().sum(), [hidden, weight, bias]),
        gradients(exact.square().sum(), [hidden, weight, bias]),
        strict=True,
    ):
        assert a.dtype == torch.float32
        assert torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99


def test_no_kernel_ever_holds_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_ROWS", 8)
    monkeypatch.setattr(max_pool, "CHUNK_ROWS", 8)
    hidden, weight, bias = leaves((4, 32, D), (512, D), (512,))
    with LargestTensor() as watch:
        linear_cross_entropy(hidden.flatten(0, 1), weight, bias, torch.zeros(128, dtype=torch.long)).backward()
        linear_max_pool(hidden, weight, bias, torch.ones(4, 32, dtype=torch.bool)).sum().backward()
    assert watch.largest == 8 * 512
