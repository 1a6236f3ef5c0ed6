"""The max-pool's backward pass where few gradients are not 0, and the pool without gradients."""

from __future__ import annotations

import torch

from dupmae.kernels import linear_max_pool
from dupmae.kernels.naive import linear_max_pool as naive_max_pool


def test_a_gradient_of_few_terms_equals_the_naive_one() -> None:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, 7, 5, generator=generator, dtype=torch.float64)
    weight = torch.randn(50, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 7, generator=generator) < 0.7
    few = torch.zeros(3, 50, dtype=torch.float64)
    few[0, 4], few[1, 49], few[2, 0], few[2, 4] = 1.0, -2.0, 0.5, 3.0  # 4 of 150: below the share that counts as few
    gradients = []
    for pool in (linear_max_pool, naive_max_pool):
        inputs = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        (pool(*inputs, None, mask) * few).sum().backward()
        gradients.append([each.grad for each in inputs])
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted)


def test_without_gradients_the_pool_is_the_same() -> None:
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(4, 300, 5, generator=generator, dtype=torch.float64)  # longer than a chunk
    weight = torch.randn(50, 5, generator=generator, dtype=torch.float64)
    bias = torch.randn(50, generator=generator, dtype=torch.float64)
    mask = torch.rand(4, 300, generator=generator) < 0.9
    mask[2] = False
    with torch.no_grad():
        torch.testing.assert_close(
            linear_max_pool(hidden, weight, bias, mask), naive_max_pool(hidden, weight, bias, mask)
        )
