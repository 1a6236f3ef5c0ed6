# ruff: noqa: RUF001
"""Words of many scripts: known answers are found, marks are no borders, and writing that means the same is the same."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from bm25s.stopwords import STOPWORDS_EN

from dupmae.corpus import Benchmark, Passage
from dupmae.corpus.words import STOP_WORDS, fold, join_pieces, pieces_of, reading_length, terms_of, words_of
from dupmae.retrievers import bm25_run

SETS = json.loads((Path(__file__).parent / "scripts" / "sets.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", SETS)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_bm25_puts_the_answer_first_in_every_script_however_it_is_composed(script: str, form: str) -> None:
    passages = {str(n): Passage(str(n), "", text) for n, text in enumerate(SETS[script]["passages"])}
    questions = {str(n): unicodedata.normalize(form, text) for n, text in enumerate(SETS[script]["questions"])}
    run = bm25_run(Benchmark(script, "test", passages, questions, {}))
    assert {query: next(iter(ranking), None) for query, ranking in run.items()} == {query: query for query in questions}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat's 2 x_1 hats", ["the", "cat", "s", "2", "x_1", "hats"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("বাংলা ভাষা", ["বাংলা", "ভাষা"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("كِتَابٌ جديد", ["كِتَابٌ", "جديد"]),
        ("灯塔的光", ["灯", "塔", "的", "光", "灯塔", "塔的", "的光"]),
        ("茶", ["茶"]),
        ("ประภาคาร", ["ปร", "ระ", "ะภ", "ภา", "าค", "คา", "าร"]),
        ("ດີ", ["ດີ"]),
        ("ខ្ញុំទៅ", ["ខ្ញុំទៅ"]),
        ("ကျွန်တော်", ["ကျွန်", "န်တေ", "တော်"]),
        ("배웁니다", ["배", "웁", "니", "다", "배웁", "웁니", "니다"]),
        ("GPUの学習2回", ["gpu", "の", "学", "習", "の学", "学習", "2", "回"]),
        ("I ❤️ 🚀👩🏽‍🚀 🇩🇪!", ["i", "❤", "🚀", "👩", "🚀", "🇩🇪"]),
        ("", []),
        ("?! …", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ＡＢＣ　１２", "abc 12"),
        ("ｶﾞｲﾄﾞ", "ガイド"),
        ("Straße", "STRASSE"),
        ("İSTANBUL", "istanbul"),
        ("ΟΔΟΣ", "οδος"),
        ("ﬁnding µm", "finding μm"),
        ("cafe\u0301", "CAFÉ"),
        ("hy\u00adphen", "hyphen"),
        ("می\u200cخواهم", "میخواهم"),
        ("\ud55c\uad6d", unicodedata.normalize("NFD", "한국")),
    ],
)
def test_writing_that_means_the_same_is_the_same(one: str, other: str) -> None:
    assert fold(one) == fold(other)
    assert words_of(one) == words_of(other)


def test_a_sign_of_trade_is_no_part_of_its_word() -> None:
    assert words_of("Lamp™ und Öl®") == ["lamp", "und", "öl"]


def test_terms_are_stemmed_without_stop_words_in_any_script() -> None:
    assert terms_of(["The cats naïvely sat", "灯塔"]) == [["cat", "naïv", "sat"], ["灯", "塔", "灯塔"]]


@pytest.mark.parametrize("script", SETS)
def test_pieces_are_the_text_and_never_cut_a_character(script: str) -> None:
    for text in [*SETS[script]["passages"], *SETS[script]["questions"]]:
        pieces = pieces_of(text)
        assert "".join(pieces) == text
        assert not [piece for piece in pieces if unicodedata.category(piece[0]) == "Mn"]
        assert all(reading_length(piece) <= 24 for piece in pieces)


def test_pieces_of_spaced_text_are_its_words() -> None:
    text = " Keepers  light\nthe lamps "
    assert [piece.strip() for piece in pieces_of(text.strip())] == text.split()
    assert join_pieces(pieces_of(text)) == "Keepers light the lamps"
    assert pieces_of("the灯塔的光") == ["the", "灯塔", "的光"]


def test_stop_words_are_those_that_bm25_leaves_out() -> None:
    assert frozenset(STOPWORDS_EN) == STOP_WORDS
