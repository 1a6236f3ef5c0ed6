"""Whole-word masking and the decoder's visibility."""

from __future__ import annotations

import pytest
import torch

from dupmae.pretraining.masking import decoder_visibility, mask_whole_words, select_whole_words, step_generator

CPU = torch.device("cpu")


def words(*sizes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One sequence [CLS] words [SEP]: (word_starts, ordinary), each (1, L)."""
    starts = [False] + [index == 0 for size in sizes for index in range(size)] + [False]
    ordinary = [False] + [True] * sum(sizes) + [False]
    return torch.tensor([starts]), torch.tensor([ordinary])


def test_words_are_selected_whole_and_never_special_tokens() -> None:
    starts, ordinary = words(3, 1, 4, 1, 5, 2, 2)
    word = starts.cumsum(1)
    for seed in range(30):
        selected = select_whole_words(starts, ordinary, 0.4, step_generator(CPU, seed))
        assert not (selected & ~ordinary).any()
        for number in range(1, 8):
            assert len(set(selected[ordinary & (word == number)].tolist())) == 1


def test_selection_stays_within_the_rate_and_comes_close_to_it() -> None:
    ordinary = torch.ones(200, 60, dtype=torch.bool)
    starts = torch.rand(200, 60, generator=step_generator(CPU, 1)) < 0.8
    share = select_whole_words(starts, ordinary, 0.3, step_generator(CPU, 2)).float().mean(1)
    assert share.max() <= 0.3 + 1e-6
    assert share.mean() > 0.28


@pytest.mark.parametrize(("sizes", "rate"), [((6, 6), 0.1), ((1, 1), 0.9), ((1, 5), 1.0), ((5, 1, 1), 0.99)])
def test_something_is_selected_and_something_stays(sizes: tuple[int, ...], rate: float) -> None:
    starts, ordinary = words(*sizes)
    for seed in range(20):
        selected = select_whole_words(starts, ordinary, rate, step_generator(CPU, seed))
        assert selected.any()
        assert (ordinary & ~selected).any()


def test_padding_rows_and_rate_zero_select_nothing() -> None:
    nothing = torch.zeros(2, 5, dtype=torch.bool)
    assert not select_whole_words(nothing, nothing, 0.5, step_generator(CPU, 0)).any()
    assert not select_whole_words(~nothing, ~nothing, 0.0, step_generator(CPU, 0)).any()


def test_every_word_is_selected_equally_often() -> None:
    starts, ordinary = words(2, 2, 2, 2, 2)
    total = sum(
        select_whole_words(starts, ordinary, 0.4, step_generator(CPU, seed))[0, 1:-1].float() for seed in range(2000)
    )
    assert torch.all((total / 2000 - 0.4).abs() < 0.05)


def test_selected_tokens_are_replaced_in_the_given_proportions_and_others_are_not() -> None:
    ids = torch.full((100, 200), 7)
    ordinary = torch.ones_like(ids, dtype=torch.bool)
    allowed = torch.tensor([20, 21, 22])
    masked, selected = mask_whole_words(ids, ordinary, ordinary, 0.5, 4, allowed, 0.6, 0.3, step_generator(CPU, 3))
    assert (masked[~selected] == 7).all()
    assert set(masked[selected].unique().tolist()) == {4, 7, 20, 21, 22}
    assert (masked[selected] == 4).float().mean() == pytest.approx(0.6, abs=0.02)
    assert (masked[selected] >= 20).float().mean() == pytest.approx(0.3, abs=0.02)


def test_masks_depend_on_the_numbers_of_the_step_alone() -> None:
    starts = ordinary = torch.ones(4, 50, dtype=torch.bool)
    draws = [
        select_whole_words(starts, ordinary, 0.3, step_generator(CPU, *n)) for n in ((1, 2), (1, 2), (1, 3), (2, 2))
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_every_row_sees_position_zero_others_at_the_rate_and_never_itself_or_padding(rate: float) -> None:
    attention_mask = torch.arange(60)[None] < torch.tensor([60, 31, 2])[:, None]
    visible = decoder_visibility(attention_mask, rate, step_generator(CPU, 0))
    assert visible[:, 1:, 0].all()
    assert not visible.diagonal(dim1=1, dim2=2).any()
    assert not (visible & ~attention_mask[:, None]).any()
    assert visible.any(dim=2).all()
    others = visible[0, 1:, 1:][~torch.eye(59, dtype=torch.bool)].float()
    assert others.mean() == pytest.approx(1 - rate, abs=0.03)
    assert visible[0, 0].sum() == pytest.approx(max(1, 59 * (1 - rate)), abs=12)


def test_rows_and_steps_draw_their_own_sample() -> None:
    attention_mask = torch.ones(1, 40, dtype=torch.bool)
    generator = step_generator(CPU, 0)
    first, second = (decoder_visibility(attention_mask, 0.5, generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert not torch.equal(first[0, 5, 10:], first[0, 6, 10:])


def test_a_single_token_sees_itself_so_that_no_row_is_empty() -> None:
    assert decoder_visibility(torch.ones(1, 1), 0.5, step_generator(CPU, 0)).all()
