"""What is shown of a hit: marked words, the best stretch, whole words instead of pieces."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import PreTrainedTokenizerFast

from dupmae.index import Hit
from dupmae.index.highlights import SNIPPET_LENGTH, highlight


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Knows light, ##house, ##s, keep, ##er and lamp."""
    entries = ["[UNK]", "light", "##house", "##s", "keep", "##er", "lamp", "sea"]
    made = Tokenizer(WordPiece({entry: number for number, entry in enumerate(entries)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = Lowercase(), BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")


def hit(text: str, matches: list[tuple[str, float]] = [], words: list[tuple[str, float]] = [], start: int = 0) -> Hit:  # noqa: B006
    return Hit("d::2", 1.0, 1.0, 0.0, 0.0, matches, words, "", text, {}, "d", (), start, start + len(text))


def shown(found: Hit, query: str, tokenizer: Any, language: str = "english") -> tuple[list[str], str]:
    """The marked words and the snippet."""
    result = highlight(found, query, tokenizer, language)
    cut = [found.text[start - found.start : end - found.start] for start, end in [*result.words, result.snippet]]
    return cut[:-1], cut[-1]


def test_words_of_the_query_are_marked_whole_by_their_stems_in_characters_of_the_document(tokenizer: Any) -> None:
    found = hit("The Keepers kept lamps; a keeper's LAMP.", start=1000)
    marked, snippet = shown(found, "which keeper has the lamp?", tokenizer)
    assert marked == ["Keepers", "lamps", "keeper", "LAMP"]
    assert snippet == found.text
    assert highlight(found, "lamp", tokenizer, "english").words[0] == (1017, 1022)


def test_words_in_scripts_without_spaces_are_marked(tokenizer: Any) -> None:
    assert shown(hit("守夜人修剪灯塔的灯芯"), "灯塔", tokenizer)[0] == ["灯塔", "灯"]


def test_the_snippet_is_the_stretch_whose_words_add_most_from_the_beginning_of_its_sentence(tokenizer: Any) -> None:
    filler = "Nothing of interest stands in this sentence about gardens. " * 20
    text = f"The sea is wide. {filler}Here a lamp and a lighthouse guide ships. {filler}"
    found = hit(text, words=[("lighthouse", 2.0), ("lamp", 1.0), ("sea", 1.5)])
    _, snippet = shown(found, "lighthouse lamp sea", tokenizer)
    assert snippet.startswith("Here a lamp and a lighthouse guide ships.")
    assert SNIPPET_LENGTH - 15 <= len(snippet) <= SNIPPET_LENGTH
    assert not text[text.index(snippet) + len(snippet)].isalpha()


def test_without_a_matched_word_the_snippet_is_the_beginning(tokenizer: Any) -> None:
    assert shown(hit("  Bread. " + "flour " * 100), "nothing", tokenizer) == ([], "Bread. " + ("flour " * 49)[:-1])


def test_a_matched_word_longer_than_a_snippet_is_shown(tokenizer: Any) -> None:
    marked, snippet = shown(hit("a " * 100 + "x" * 500), "x" * 500, tokenizer)
    assert marked == ["x" * 500]
    assert snippet.endswith("x" * 500)


def test_pieces_become_the_words_of_the_passage_that_they_stand_in(tokenizer: Any) -> None:
    matches = [("light", 1.0), ("##house", 0.5), ("##s", 0.25), ("sea", 0.2), ("##er", 0.1)]
    found = hit("Lamps and two Lighthouses.", matches)
    # "##s" stands in "Lamps", too, of which no other piece matched; "sea" and "##er" stand in no word
    assert highlight(found, "", tokenizer, "english").matches == [
        ("Lighthouses", pytest.approx(1.75)),
        ("sea", 0.2),
        ("-er", 0.1),
    ]
    assert sum(weight for _, weight in highlight(found, "", tokenizer, "english").matches) == pytest.approx(2.05)


def test_near_the_end_of_the_text_a_snippet_begins_earlier(tokenizer: Any) -> None:
    text = "Flour and water. " * 40 + "The lamp."
    _, snippet = shown(hit(text, words=[("lamp", 1.0)]), "lamp", tokenizer)
    assert snippet.startswith("Flour")
    assert snippet.endswith("The lamp.")
    assert SNIPPET_LENGTH - 20 <= len(snippet) <= SNIPPET_LENGTH
