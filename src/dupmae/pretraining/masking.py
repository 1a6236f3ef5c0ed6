"""Masks of the encoder and of the [CLS] decoder: tensor code on ids and word borders, for any device.

Everything is drawn from a generator that the caller seeds, so a step's masks depend on its number alone.
"""

from __future__ import annotations

import numpy as np
import torch

ROUNDS = 4
"""How often words that fit are looked for; more would hardly find any."""


def step_generator(device: torch.device, *numbers: int) -> torch.Generator:
    """Make a generator whose stream depends on `numbers` alone, e.g. on seed, phase, step, rank and micro-batch."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]) >> 1)


def select_whole_words(
    word_starts: torch.Tensor, ordinary: torch.Tensor, rate: float, generator: torch.Generator
) -> torch.Tensor:
    """Choose words at random, on average exactly `rate` of each sequence's ordinary tokens.

    Words come in random order, and each is taken if it fits into what is left of the share; one that does not is passed
    over. What is left in the end, less than any other word, is made good by chance: the first word that was too long is
    taken as well with the probability that what is left has of its length. So the mean is the rate for texts of a few
    long words, too, where words that fit fill 9 % instead of 30 %. A text's own share may lie above the rate by less
    than a word, and a short text may keep all its words.

    Where there are two or more words, one stays: a word that would be the last to go is taken instead of all others or
    not at all, with the probability that keeps the mean. Only a rate that asks for nearly all tokens is missed then.

    Args:
        word_starts: True on the first token of each word, (B, L). An ordinary token that follows a special one starts
            a word in any case.
        ordinary: True on the tokens that may be chosen, (B, L): no special tokens, no padding.
        rate: Share of the ordinary tokens; 0 selects nothing.
        generator: Source of randomness, on the tensors' device.

    Returns:
        True on the tokens of the chosen words, (B, L).
    """
    if rate <= 0:
        return torch.zeros_like(ordinary)
    batch, length = ordinary.shape
    after_special = ~torch.nn.functional.pad(ordinary, (1, 0))[:, :-1]
    starts = ordinary & (word_starts | after_special)
    word = (starts.cumsum(dim=1) - 1).clamp(min=0)  # (B, L): the number of each token's word
    sizes = torch.zeros_like(word).scatter_add_(1, word, ordinary.long())  # (B, L): tokens in each word, 0 for no word
    keys = torch.rand((batch, length), generator=generator, device=ordinary.device)
    chance = torch.rand((batch, 1), generator=generator, device=ordinary.device)
    order = keys.masked_fill(sizes == 0, 2.0).argsort(dim=1)  # (B, L): words in random order, then no words
    size = sizes.gather(1, order)  # (B, L): their tokens
    total = ordinary.sum(dim=1, keepdim=True)
    several = starts.sum(dim=1, keepdim=True) > 1
    left = torch.minimum(rate * total.double(), total - several.double())  # (B, 1): tokens still to be chosen
    chosen = torch.zeros_like(ordinary)
    for _ in range(ROUNDS):  # as many words from the first on as fit together, of those that fit one by one
        fitting = ~chosen & (size > 0) & (size <= left)
        taken = fitting & ((size * fitting).cumsum(dim=1) <= left)
        chosen |= taken
        left = left - (size * taken).sum(dim=1, keepdim=True)
    waiting = ~chosen & (size > left)
    too_long = waiting & (waiting.cumsum(dim=1) == 1)  # (B, L): the first of them
    extra = (size * too_long).sum(dim=1, keepdim=True)  # (B, 1): its tokens, 0 if there is none
    others = (size * chosen).sum(dim=1, keepdim=True)
    last = (extra > 0) & (others > 0) & (extra + others == total)
    taken = too_long & (chance * torch.where(last, extra - others, extra) < left)
    instead = last & taken.any(dim=1, keepdim=True)
    chosen = (chosen & ~instead) | taken
    return torch.zeros_like(ordinary).scatter_(1, order, chosen).gather(1, word) & ordinary


def mask_whole_words(
    input_ids: torch.Tensor,
    word_starts: torch.Tensor,
    ordinary: torch.Tensor,
    rate: float,
    mask_token_id: int,
    random_token_ids: torch.Tensor,
    mask_token_fraction: float,
    random_token_fraction: float,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace some words by the mask or a random token (Eq. 1): the encoder's input.

    Args:
        input_ids: The clean text, (B, L).
        word_starts: True on the first token of each word, (B, L).
        ordinary: True on tokens that are neither special nor padding, (B, L).
        rate: Share of the ordinary tokens that is selected, by whole words.
        mask_token_id: What most selected tokens become.
        random_token_ids: The ids that random replacements are drawn from, (R,): no special tokens.
        mask_token_fraction: Share of the selected tokens that become the mask token.
        random_token_fraction: Share that becomes a random token; the rest stays as it is.
        generator: Source of randomness, on the tensors' device.

    Returns:
        The masked ids (B, L), and which tokens were selected (B, L): those that the encoder has to predict.
    """
    selected = select_whole_words(word_starts, ordinary, rate, generator)
    draw = torch.rand(input_ids.shape, generator=generator, device=input_ids.device)
    picks = torch.randint(len(random_token_ids), input_ids.shape, generator=generator, device=input_ids.device)
    masked = torch.where(
        selected & (draw < mask_token_fraction + random_token_fraction), random_token_ids[picks], input_ids
    )
    return masked.masked_fill(selected & (draw < mask_token_fraction), mask_token_id), selected


def decoder_visibility(attention_mask: torch.Tensor, rate: float, generator: torch.Generator) -> torch.Tensor:
    """Draw the [CLS] decoder's attention mask (Eq. 3-4): what the row of each position may look at.

    Row i sees position 0 and each other position with probability `1 - rate`, drawn anew for every row; never itself,
    never padding. Row 0 sees such a sample of the others, and at least one of them. A sequence of a single token is the
    one exception: it sees itself, because attention over nothing is not a number.

    Args:
        attention_mask: 1 or True on tokens, 0 on padding, (B, L).
        rate: Share of the other positions that stays hidden.
        generator: Source of randomness, on the mask's device.

    Returns:
        True where row i (second dimension) sees position j (third), (B, L, L).
    """
    batch, length = attention_mask.shape
    device = attention_mask.device
    others = ~torch.eye(length, dtype=torch.bool, device=device) & attention_mask.bool()[:, None, :]  # (B, L, L)
    draw = torch.rand((batch, length, length), generator=generator, device=device)
    visible = others & (draw >= rate)
    visible[:, 1:, 0] = True
    first_draw = draw[:, 0].masked_fill(~others[:, 0], -1.0)  # (B, L)
    return visible.index_put_(
        (
            torch.arange(batch, device=device),
            torch.zeros(batch, dtype=torch.long, device=device),
            first_draw.argmax(dim=1),
        ),
        torch.ones((), dtype=torch.bool, device=device),
    )
