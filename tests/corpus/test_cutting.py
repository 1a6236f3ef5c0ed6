"""What is cut from a long text before it is tokenised never changes the tokens that are kept."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dupmae.corpus import cutting
from dupmae.corpus.cutting import cut_texts

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LIMIT = 12
PIECES = [
    *("lamp", "light-house", "isn't", "3.1415", "1234567890" * 30, "x" * 150, "a" * 3000, "naïve", "e\u0301" * 40),
    *(
        "\u0301\u0302",
        "灯塔在海边发光" * 9,
        "ประภาคารส่องแสง" * 6,
        "東京タワー",
        "が" * 50,
        "か\u3099" * 50,
        "مرحبا",
        "👩‍👩‍👧",
    ),
    *("[MASK]", "</s>", "...!!!???", "\u1112\u1161\u11ab" * 20, "ﬁ", "Ⅷ", "\u200b", "a\u00a0b", "https://x.org/a?b=c"),
]
GAPS = [" ", "  ", "\n", "\t", " " * 700, "\n\n", "\r\n", "\u3000", "", "\x1c", "\u2028"]


def texts_of(seed: int, count: int = 30) -> list[str]:
    """Texts of pieces and gaps, of up to some ten thousand characters."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        pieces, gaps = draw.sample(PIECES, 5), draw.sample(GAPS, 3)
        made.append("".join(draw.choice(pieces) + draw.choice(gaps) for _ in range(draw.choice((30, 200, 900)))))
    return made


def make(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind, trained on such texts."""
    options: dict[str, Any] = {"vocab_size": 320, "special_tokens": SPECIAL, "show_progress": False}
    if kind == "wordpiece":
        backend, trainer = Tokenizer(models.WordPiece(unk_token="[UNK]")), trainers.WordPieceTrainer(**options)
        backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    elif kind == "byte-level":
        backend = Tokenizer(models.BPE())
        backend.normalizer, backend.pre_tokenizer = normalizers.NFC(), pre_tokenizers.ByteLevel(add_prefix_space=True)
        trainer = trainers.BpeTrainer(**options, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    elif kind == "unigram":
        backend, trainer = Tokenizer(models.Unigram()), trainers.UnigramTrainer(**options, unk_token="[UNK]")
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
        )
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    else:  # one word whatever stands in it
        backend, trainer = Tokenizer(models.BPE(unk_token="[UNK]")), trainers.BpeTrainer(**options)
    backend.train_from_iterator([text[:2000] for text in texts_of(0, 20)], trainer)
    names = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("kind", ["wordpiece", "byte-level", "unigram", "one word"])
def test_the_first_tokens_of_a_cut_text_are_those_of_the_whole(
    kind: str, as_text: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "LONG", 2)
    tokenizer = make(kind)
    tokenizer.split_special_tokens = as_text
    texts = texts_of(1)
    cut = cut_texts(texts, tokenizer, LIMIT)

    def first(some: list[str]) -> Any:
        return tokenizer(some, truncation=True, max_length=LIMIT)["input_ids"]

    assert first(cut) == first(texts)
    shorter = sum(len(one) < len(other) for one, other in zip(cut, texts, strict=True))
    assert shorter > 10 or kind == "one word"


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level", "unigram"])
@pytest.mark.parametrize("text", ["the lamp is lit ", "灯塔在海边发光。", "lamp\n"])
def test_millions_of_characters_take_no_longer_than_thousands(kind: str, text: str) -> None:
    if kind == "unigram" and " " not in text:
        pytest.skip("without a space it is one word, which decides all its tokens together")
    begun = time.perf_counter()
    (cut,) = cut_texts([text * (4_000_000 // len(text))], make(kind), 64)
    assert len(cut) < 100_000
    assert time.perf_counter() - begun < 3


def test_what_reads_the_end_of_a_text_is_given_the_whole() -> None:
    tokenizer, text = make("wordpiece"), "lamp " * 10_000
    assert cut_texts([text], tokenizer, None) == [text]
    tokenizer.truncation_side = "left"
    assert cut_texts([text], tokenizer, LIMIT) == [text]
