"""What counts as a word under tokenizers of every kind, and that such words are masked whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dupmae.config import StoreConfig
from dupmae.corpus import TokenStore, build_token_store
from dupmae.pretraining.masking import select_whole_words, step_generator

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = ["Lighthouse keepers don't sleep, naïve café!", "stillgelegte Leuchttürme", "灯台が好きです", "ประภาคาร"]
BYTES = pre_tokenizers.ByteLevel.alphabet()


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind whose terms are single characters or bytes, so that every word has many tokens."""
    common: dict[str, Any] = {"special_tokens": SPECIAL, "show_progress": False}
    if kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer(lowercase=False)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=1, **common)
    elif kind == "byte-level bpe":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(vocab_size=1, initial_alphabet=BYTES, **common)
    elif kind == "metaspace bpe":
        made = Tokenizer(models.BPE(unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=1, **common)
    else:
        made = Tokenizer(models.Unigram())
        first = pre_tokenizers.WhitespaceSplit() if kind == "xlm-roberta's" else pre_tokenizers.Punctuation()
        made.pre_tokenizer = pre_tokenizers.Sequence([first, pre_tokenizers.Metaspace()])
        trainer = trainers.UnigramTrainer(vocab_size=60, unk_token="[UNK]", **common)
    made.train_from_iterator(TEXTS, trainer)
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def words_of(kind: str, text: str, folder: Path) -> tuple[list[str], TokenStore]:
    """The text's words as its stored word borders cut it, spaces left out."""
    made = tokenizer(kind)
    store = build_token_store([text], made, folder, StoreConfig(max_length=200, min_length=1))
    offsets = made(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    starts = [offset[0] for offset, first in zip(offsets, store[0]["word_starts"][1:-1], strict=True) if first]
    ends = [*starts[1:], len(text)]
    return [text[start:end].strip() for start, end in zip(starts, ends, strict=True)], store


APART = ["Lighthouse", "keepers", "don", "'", "t", "sleep", ",", "naïve", "café", "!"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("wordpiece", APART),
        ("byte-level bpe", ["Lighthouse", "keepers", "don", "'t", "sleep", ",", "naïve", "café", "!"]),
        ("metaspace bpe", ["Lighthouse", "keepers", "don't", "sleep,", "naïve", "café!"]),
        ("xlm-roberta's", ["Lighthouse", "keepers", "don't", "sleep,", "naïve", "café!"]),
    ],
)
def test_a_word_is_what_the_pre_tokenizer_calls_one_and_its_other_tokens_start_none(
    kind: str, words: list[str], tmp_path: Path
) -> None:
    found, store = words_of(kind, TEXTS[0], tmp_path / "store")
    assert found == words
    assert len(store[0]["input_ids"]) > 2 * len(words)


def test_punctuation_that_a_sentencepiece_tokenizer_sets_apart_is_no_part_of_a_word(tmp_path: Path) -> None:
    found, _ = words_of("deberta's", "sleep, Lighthouse!", tmp_path / "store")
    assert [word for word in found if word] == ["sleep", ",", "Lighthouse", "!"]


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level bpe", "metaspace bpe", "xlm-roberta's"])
@pytest.mark.parametrize(("text", "characters"), [(TEXTS[2], 7), (TEXTS[3], 8)])
def test_a_sentence_without_spaces_is_not_one_word(kind: str, text: str, characters: int, tmp_path: Path) -> None:
    found, store = words_of(kind, text, tmp_path / "store")
    assert "".join(found) == text
    assert len(found) >= characters // 2
    assert store[0]["word_starts"].sum() <= characters  # a character of several bytes is one word at most


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level bpe", "metaspace bpe", "xlm-roberta's"])
def test_words_are_masked_whole_and_never_all_of_them(kind: str, tmp_path: Path) -> None:
    for number, text in enumerate(TEXTS):
        _, store = words_of(kind, text, tmp_path / f"{number}")
        starts = torch.from_numpy(store[0]["word_starts"])[None]
        ordinary = torch.from_numpy(store[0]["input_ids"] > 4)[None]
        word = starts.cumsum(1)
        times = 0
        for seed in range(20):
            selected = select_whole_words(starts, ordinary, 0.3, step_generator(torch.device("cpu"), seed))
            assert selected.sum() < ordinary.sum()
            times += bool(selected.any())
            for which in word[ordinary].unique():
                assert len(selected[ordinary & (word == which)].unique()) == 1
        assert times  # not every time where the words are few and long
