"""The max-pool in bytes, and of chosen terms in full."""

from __future__ import annotations

import pytest
import torch

from dupmae.kernels import linear_max_pool_packed, screening
from dupmae.kernels.screening import in_bytes, max_pool_of_terms, rough_max_pool

COUNTS = torch.tensor([3, 0, 300, 1, 40])  # one without rows, one longer than a chunk


def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    rows, weight, bias = (
        torch.randn(*shape, generator=generator) for shape in ((int(COUNTS.sum()), 64), (1500, 64), (1500,))
    )
    rows[:3] *= 50  # each sequence has a scale of its own
    weight[7] = 0.0  # a row that nothing can be divided by
    return rows, weight, bias


def test_the_pool_in_bytes_is_close_to_that_of_all_numbers() -> None:
    rows, weight, _ = drawn()
    exact, rough = linear_max_pool_packed(rows, COUNTS, weight, None), rough_max_pool(rows, COUNTS, in_bytes(weight))
    for place, states in enumerate(rows.split(COUNTS.tolist())):
        if len(states):
            assert (rough[place] - exact[place]).abs().max() < 0.1 * (states @ weight.T).std()


def test_bytes_reach_their_largest_number_and_none_above() -> None:
    numbers, scales = in_bytes(drawn()[1])
    assert numbers.abs().amax(dim=1).unique().tolist() == [0, screening.LARGEST]
    assert torch.isfinite(scales).all()


def test_chosen_terms_have_the_numbers_of_the_whole_pool() -> None:
    rows, weight, bias = drawn()
    terms = torch.stack([torch.randperm(1500, generator=torch.Generator().manual_seed(row))[:9] for row in range(5)])
    exact = linear_max_pool_packed(rows, COUNTS, weight, bias)
    torch.testing.assert_close(max_pool_of_terms(rows, COUNTS, weight, bias, terms), exact.gather(1, terms))


@pytest.mark.parametrize(
    ("dtype", "fast", "expected"),
    [(torch.float32, True, True), (torch.float32, False, False), (torch.bfloat16, True, False)],
)
def test_bytes_pay_for_float32_on_a_processor_that_has_them(
    dtype: torch.dtype, fast: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: fast)
    assert screening.screening_pays(torch.zeros(2, 2, dtype=dtype)) is expected
