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


def test_selection_misses_the_rate_by_less_than_a_word() -> None:
    ordinary = torch.ones(200, 60, dtype=torch.bool)
    starts = torch.rand(200, 60, generator=step_generator(CPU, 1)) < 0.8
    chosen = select_whole_words(starts, ordinary, 0.3, step_generator(CPU, 2)).sum(1)
    assert (chosen - 18).abs().max() <= 1  # words of one token are left, which fill the rest
    assert chosen.float().mean() == pytest.approx(18, abs=0.05)


@pytest.mark.parametrize("rate", [0.15, 0.3, 0.5])
@pytest.mark.parametrize(
    "sizes",
    [(1,), (7,), (1, 1), (1, 5), (3, 5), (6, 6), (5, 1, 1), (8, 8, 8), (1,) * 7, (5, 4, 3, 2, 1), (13, 11, 7, 2, 2, 9),
     (7,) * 9, (20, *(1,) * 20), (4,) * 40],
    ids=str,
)  # fmt: skip
def test_the_mean_is_the_rate_for_texts_of_few_words_and_for_words_of_many_tokens(
    sizes: tuple[int, ...], rate: float
) -> None:
    starts, ordinary = (tensor.expand(20_000, -1) for tensor in words(*sizes))
    selected = select_whole_words(starts, ordinary, rate, step_generator(CPU, 7))
    assert (selected.sum(1) / sum(sizes)).mean() == pytest.approx(rate, abs=0.01)


@pytest.mark.parametrize(("sizes", "rate"), [((1, 1), 0.9), ((1, 5), 1.0), ((5, 1, 1), 0.99), ((2, 5), 0.5)])
def test_of_two_words_or_more_one_stays(sizes: tuple[int, ...], rate: float) -> None:
    starts, ordinary = words(*sizes)
    selected = select_whole_words(
        starts.expand(500, -1), ordinary.expand(500, -1), rate, step_generator(CPU, 5)
    )  # (500, L)
    assert selected.any(dim=1).all()
    assert (ordinary & ~selected).any(dim=1).all()


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
