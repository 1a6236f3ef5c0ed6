"""Documents cut into chunks: exact ranges, borders, overlaps, headings, and never more than an encoder reads."""

from __future__ import annotations

import logging
import random
from itertools import pairwise
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dupmae.corpus import chunks as cutting
from dupmae.corpus import unread
from dupmae.corpus.chunks import chunk_document, chunk_documents
from dupmae.corpus.passage import Chunk, Document, Heading, Passage
from dupmae.corpus.unread import whole_documents
from dupmae.errors import DupmaeError


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Makes a token of every word, every sign and every Chinese character."""
    made = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(clean_text=False, strip_accents=False, lowercase=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")


def document(*parts: str, title: str = "T") -> Document:
    """Join parts; those that begin with `#` are headings, as deep as they have signs."""
    text, headings = "", []
    for part in parts:
        if part.startswith("#"):
            level = len(part) - len(part.lstrip("#"))
            headings.append(Heading(len(text), level, part.lstrip("# ").strip()))
        text += part
    return Document("d", title, text, {"year": 2020}, None, tuple(headings))


def words(count: int, name: str = "w") -> str:
    """So many words and a full stop: a sentence of one token more."""
    return " ".join([name.capitalize(), *([name] * (count - 1))]) + ". "


def length(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def test_chunks_are_exact_ranges_that_cover_all_text_and_fit(tokenizer: Any) -> None:
    draw = random.Random(1)
    for _ in range(60):
        parts = []
        for _ in range(draw.randint(1, 40)):
            kind = draw.random()
            if kind < 0.2:
                parts.append("\n\n" + "#" * draw.randint(1, 3) + " Heading\n\n")
                parts[-1] = parts[-1].lstrip("\n")
            else:
                parts.append(
                    words(draw.randint(1, 30)) if kind < 0.9 else draw.choice(["灯塔的光。", "x" * 300, " \n "])
                )
        whole, tokens = document(*parts), draw.randint(2, 40)
        limit = tokens + draw.randint(2, 30)
        found = chunk_document(whole, tokenizer, tokens, draw.randint(0, tokens // 2), limit=limit)
        if len(found) == 1:
            assert found == [whole]
            continue
        covered = set[int]()
        for number, passage in enumerate(found, 1):
            assert passage.chunk is not None
            start, end = passage.chunk.start, passage.chunk.end
            assert passage.text == whole.text[start:end] == passage.text.strip() != ""
            assert (passage.id, passage.document, passage.title) == (f"d::{number}", "d", "T")
            assert passage.metadata == {"year": 2020}
            assert length(tokenizer, passage.text) <= tokens + tokens // 4
            assert length(tokenizer, passage.full_text) <= limit
            covered |= set(range(start, end))
        assert not "".join(one for place, one in enumerate(whole.text) if place not in covered).strip()
        ranges = [(one.chunk.start, one.chunk.end) for one in found if one.chunk is not None]
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(ranges))


def test_a_document_that_fits_stays_itself_and_one_with_a_little_more_too(tokenizer: Any) -> None:
    for count, pieces in ((9, 1), (11, 1), (12, 2)):  # and the full stop
        found = chunk_document(Passage("a", "", words(count)), tokenizer, 10, 0)
        assert len(found) == pieces
        assert (found[0].id == "a") == (pieces == 1)
    empty = Passage("e", "T", "  ")
    assert chunk_document(empty, tokenizer, 10) == [empty]
    chunk = Passage("a::1", "", words(50), {}, Chunk("a", (), 5, 300))
    assert chunk_document(chunk, tokenizer, 10, limit=20) == [chunk]


def test_chunks_end_between_sentences_and_repeat_whole_ones(tokenizer: Any) -> None:
    text = words(5, "one") + words(5, "two") + words(4, "three") + words(9, "four") + words(8, "five")
    found = [one.text for one in chunk_document(Passage("a", "", text), tokenizer, 18, 9)]
    assert found == [
        (words(5, "one") + words(5, "two") + words(4, "three")).strip(),
        (words(4, "three") + words(9, "four")).strip(),  # two sentences would be 11 tokens
        words(8, "five").strip(),  # the one before it is too long to be repeated
    ]


def test_a_chunk_does_not_run_over_a_heading_of_its_level_or_above_unless_it_is_tiny(tokenizer: Any) -> None:
    whole = document(
        "# Top ",
        words(8, "intro"),
        "## First ",
        words(9, "a"),
        "### Below ",
        words(4, "b"),
        "## Second ",
        "## Third ",
        words(7, "c"),
        "# Last ",
        words(20, "d"),
    )
    found = chunk_document(whole, tokenizer, 20, 5)
    assert [(one.text.split(".")[0][:10], one.chunk and one.chunk.headings) for one in found] == [
        ("# Top Intr", ("Top",)),
        ("## First A", ("Top", "First")),  # with what is below it
        ("## Second ", ("Top", "Second")),  # tiny, so the third is with it
        ("# Last D d", ("Last",)),
    ]
    assert "### Below" in found[1].text
    assert found[2].text.startswith("## Second ## Third C")


def test_later_chunks_of_a_section_know_its_headings(tokenizer: Any) -> None:
    found = chunk_document(document("# Top ", "## Long ", words(30), words(30)), tokenizer, 20, 0)
    assert len(found) > 3
    assert {one.chunk.headings for one in found[1:] if one.chunk is not None} == {("Top", "Long")}


def test_words_are_the_borders_where_there_are_no_spaces_and_long_words_are_cut_last(tokenizer: Any) -> None:
    text = "灯塔的光来自透镜它把光弯成一束。" * 6
    found = [one.text for one in chunk_document(Passage("a", "", text), tokenizer, 20, 0)]
    assert "".join(found) == text
    assert all(one.endswith("。") for one in found)
    run = [one.text for one in chunk_document(Passage("a", "", "灯塔光" * 30), tokenizer, 20, 4)]
    assert {len(one) for one in run[:-1]} == {20}


def test_title_prompt_and_text_never_exceed_what_is_read(tokenizer: Any, caplog: Any) -> None:
    text = words(60)
    for title, prompt in (("one two three", ""), ("", "passage: "), ("one two three", "search the passage : ")):
        for one in chunk_document(Passage("a", title, text), tokenizer, 200, 0, limit=20, prompt=prompt):
            assert length(tokenizer, prompt + one.full_text) <= 20
            assert one.title == title
    with caplog.at_level(logging.WARNING):
        long = chunk_document(Passage("a", "long " * 30, text), tokenizer, 200, 0, limit=20)
    assert {one.title for one in long} == {"long " * 9 + "long"}
    assert max(length(tokenizer, one.full_text) for one in long) == 20
    assert "The titles of 1 documents were cut" in caplog.text


def test_a_chunk_that_has_more_tokens_alone_than_in_its_text_is_halved() -> None:
    entries = ["[UNK]", "abcd", "##efgh", "e", "##f", "##g", "##h"]  # "efgh" is one token only behind something
    made = Tokenizer(models.WordPiece({entry: number for number, entry in enumerate(entries)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")
    text = "abcd" + "efgh" * 20
    assert length(tokenizer, text) == 21
    found = [one.text for one in chunk_document(Passage("a", "", text), tokenizer, 10, 0, limit=10)]
    assert "".join(found) == text
    assert max(length(tokenizer, one) for one in found) <= 10


def test_long_texts_are_tokenised_in_pieces_to_the_same_chunks(tokenizer: Any, monkeypatch: Any) -> None:
    whole = document(*(part for n in range(20) for part in (f"## H{n}\n", words(13), "灯塔的光。", "\n\n", words(3))))
    before = chunk_document(whole, tokenizer, 20, 5)
    monkeypatch.setattr(cutting, "PIECE", 50)
    assert chunk_document(whole, tokenizer, 20, 5) == before


def test_documents_are_cut_one_batch_after_the_other(tokenizer: Any, monkeypatch: Any) -> None:
    many = [Passage(f"d{n}", "", words(5 * n + 1)) for n in range(9)]
    before = [one for each in many for one in chunk_document(each, tokenizer, 10)]
    monkeypatch.setattr("dupmae.corpus.tokenising.BATCH_TEXTS", 2)
    taken = []
    stream = chunk_documents((taken.append(one) or one for one in many), tokenizer, 10)
    assert next(stream).id == "d0"
    assert len(taken) == 2
    assert [before[0], *stream] == before


def test_a_text_that_is_repeated_is_tokenised_once(tokenizer: Any, monkeypatch: Any) -> None:
    long, read = words(50), []
    monkeypatch.setattr("dupmae.corpus.tokenising.BATCH_TEXTS", 2)
    token_starts = cutting._token_starts
    monkeypatch.setattr(cutting, "_token_starts", lambda texts, *rest: read.extend(texts) or token_starts(texts, *rest))
    many = [Passage(f"d{n}", "", long) for n in range(9)]
    found = list(chunk_documents(many, tokenizer, 10, 0))
    assert read == [long]
    assert [one.text for one in found] == 9 * [one.text for one in chunk_document(many[0], tokenizer, 10, 0)]


@pytest.mark.parametrize(("tokens", "overlap"), [(0, 0), (-1, None), (10, 6), (10, -1)])
def test_impossible_sizes_are_refused_at_the_call(tokens: int, overlap: int | None, tokenizer: Any) -> None:
    with pytest.raises(DupmaeError, match=r"chunk_tokens is|repeats at most half of them, 5\."):
        chunk_documents([], tokenizer, tokens, overlap)


def test_of_documents_left_whole_one_warning_says_what_is_not_read(tokenizer: Any, caplog: Any) -> None:
    unread.warn_once.cache_clear()
    many = [Passage("a", "", words(9)), Passage("b", "T", words(28)), Passage("c", "", words(29))]
    with caplog.at_level(logging.WARNING):
        assert list(whole_documents(many, tokenizer, limit=20)) == many
        assert list(whole_documents(many[:1], tokenizer, limit=20)) == many[:1]
        assert list(whole_documents(many, tokenizer, limit=20)) == many
    (record,) = caplog.records
    assert record.getMessage() == (
        "2 of 3 passages have more than the 20 tokens that the model reads of one: the rest of them, 28.6% of all "
        "tokens, does not count: cut them into chunks (chunk_tokens)."
    )
    caplog.clear()
    assert list(whole_documents(many, tokenizer, limit=20, words=True)) == many
    assert "counts by its whole words alone" in caplog.text
