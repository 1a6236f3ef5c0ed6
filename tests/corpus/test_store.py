import json
import pickle
import weakref
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dupmae.config import StoreConfig
from dupmae.corpus import Passage, TokenStore, build_token_store, tokenising
from dupmae.errors import DupmaeError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ENDS = {"cls_token": "[CLS]", "sep_token": "[SEP]"}
TEXTS = st.lists(st.text("aab bc.A!\n大。", max_size=60), min_size=1, max_size=8)
SLOW = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def word_piece(extra: int = 0, pre_tokenizer: Any = None, **special: str) -> PreTrainedTokenizerFast:
    pieces = [*"abc.!大。", "ab", "##a", "##b", "##c", "##大", "##。", *(f"extra{i}" for i in range(extra))]
    vocabulary = {piece: number for number, piece in enumerate(SPECIAL + pieces)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=1_000))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizer or pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]", **(special or ENDS)
    )


TOKENIZER = word_piece()


def build(folder: Path, texts: Any, max_length: int = 8, min_length: int = 1, tokenizer: Any = TOKENIZER) -> TokenStore:
    return build_token_store(texts, tokenizer, folder, StoreConfig(max_length=max_length, min_length=min_length))


def pieces(stored: TokenStore) -> list[str]:
    """The ordinary tokens of each chunk, as text."""
    return [" ".join(TOKENIZER.convert_ids_to_tokens(chunk["input_ids"][1:-1].tolist())) for chunk in stored]


def reference(texts: list[str]) -> Iterator[tuple[int, bool, int]]:
    """Each token of the texts the slow way: its id, whether it starts a word, how many tokens its word has."""
    for text in texts:
        encoding = TOKENIZER(text, add_special_tokens=False)
        words = encoding.word_ids()
        starts = [
            i == 0 or words[i - 1] != word or "大" in TOKENIZER.convert_ids_to_tokens(token)
            for i, (token, word) in enumerate(zip(encoding["input_ids"], words, strict=True))
        ]
        number = list(accumulate(starts))
        for token, start, word in zip(encoding["input_ids"], starts, number, strict=True):
            yield token, start, number.count(word)


def test_short_texts_become_one_chunk_each_between_the_special_tokens(tmp_path: Path) -> None:
    stored = build(tmp_path / "s", ["abc a.", "b"])

    assert [chunk["input_ids"].tolist() for chunk in stored] == [
        TOKENIZER.convert_tokens_to_ids(["[CLS]", "ab", "##c", "a", ".", "[SEP]"]),
        TOKENIZER.convert_tokens_to_ids(["[CLS]", "b", "[SEP]"]),
    ]
    assert [chunk["word_starts"].tolist() for chunk in stored] == [
        [False, True, False, True, True, False],
        [False, True, False],
    ]
    assert (stored[0]["input_ids"].dtype, stored[0]["word_starts"].dtype) == (np.int64, np.bool_)
    assert stored.lengths.tolist() == [6, 3]


@SLOW
@given(texts=TEXTS, max_length=st.integers(3, 12))
def test_chunks_hold_every_token_in_order_and_none_is_too_long(
    tmp_path: Path, texts: list[str], max_length: int
) -> None:
    texts = ["a", *texts]  # something to store
    stored = build(tmp_path / "s", texts, max_length)
    first, last = TOKENIZER.convert_tokens_to_ids(["[CLS]", "[SEP]"])

    content: list[int] = []
    for chunk in stored:
        assert 3 <= len(chunk["input_ids"]) <= max_length
        assert (chunk["input_ids"][0], chunk["input_ids"][-1]) == (first, last)
        content += chunk["input_ids"][1:-1].tolist()
    assert content == [token for token, _, _ in reference(texts)]
    assert stored.report["tokens"] == len(content)


@SLOW
@given(texts=TEXTS, max_length=st.integers(3, 12))
def test_word_starts_are_the_tokenizers_or_a_script_without_spaces_and_no_word_that_fits_is_cut(
    tmp_path: Path, texts: list[str], max_length: int
) -> None:
    texts = ["a", *texts]
    stored = build(tmp_path / "s", texts, max_length)

    tokens = reference(texts)
    for chunk in stored:
        assert not chunk["word_starts"][[0, -1]].any()
        for place, starts_word in enumerate(chunk["word_starts"][1:-1]):
            _, expected, word_length = next(tokens)
            if place == 0 and not expected:  # the rest of a word that was cut
                assert word_length > max_length - 2
                assert starts_word
            else:
                assert starts_word == expected
    assert next(tokens, None) is None


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ("a b c a. A b c b a c", ["a b c a .", "a b c b a c"]),  # after the last sentence that fits
        ("a b! A b. C a b c a b", ["a b ! a b .", "c a b c a b"]),
        ("a b c a. b c a b c", ["a b c a . b", "c a b c"]),  # no sentence ends before a lower-case letter
        ("a. B c a b c a b c", ["a . b c a b", "c a b c"]),  # the sentence would leave the chunk less than half full
        ("a b c a abaa c", ["a b c a", "ab ##a ##a c"]),  # between words
        ("a b.a.b.c.a.b", ["a b . a . b", ". c . a . b"]),  # between words where white space is too far
        ("a b c.a b.a", ["a b c . a", "b . a"]),  # at white space rather than between words
        ("abaaaaaaaaa c", ["ab ##a ##a ##a ##a ##a", "##a ##a ##a ##a c"]),  # inside a word that no chunk holds
        ("a b c\n\nb c a b c", ["a b c", "b c a b c"]),  # at a blank line
        ("a b c\nb c a b c", ["a b c b c a", "b c"]),  # not at a mere line break
        ("大大大大。大大大", ["大 ##大 ##大 ##大 。", "大 ##大 ##大"]),
    ],
)
def test_a_long_text_is_cut_where_it_hurts_least(tmp_path: Path, text: str, chunks: list[str]) -> None:
    stored = build(tmp_path / "s", [text])

    assert pieces(stored) == chunks
    assert stored.report["texts_cut"] == 1


def test_a_store_knows_where_texts_begin_and_how_long_their_titles_are(tmp_path: Path) -> None:
    passages = [
        Passage("1", "ab. c", "a b c a b c a b"),
        Passage("2", "a", ""),  # dropped
        Passage("3", "", "a b c"),
        Passage("4", "a b c a b c a b", "c"),  # a title of more than a chunk
    ]
    stored = build(tmp_path / "s", passages, min_length=4)

    assert stored.begins.tolist() == [True, False, True, True, False]
    assert stored.title_lengths.tolist() == [3, 0, 0, 6, 0]
    assert pieces(stored)[0].startswith("ab . c")


def test_a_text_whose_first_chunk_is_dropped_begins_with_its_second(tmp_path: Path) -> None:
    stored = build(tmp_path / "s", ["a b c a b", "a b. A b c a b"], max_length=7, min_length=6)

    assert pieces(stored) == ["a b c a b", "a b c a b"]
    assert stored.report["chunks_dropped"] == 1
    assert stored.begins.tolist() == [True, True]


def test_a_store_of_the_same_files_is_used_again(tmp_path: Path) -> None:
    source, folder = tmp_path / "corpus" / "a.txt", tmp_path / "s"
    source.parent.mkdir()
    source.write_text("a b c", encoding="utf-8")

    def never() -> Iterator[str]:
        raise AssertionError("a text was read")
        yield ""

    def again(texts: Any, **settings: Any) -> TokenStore:
        config = StoreConfig(**{"max_length": 8, "min_length": 1} | settings)
        return build_token_store(texts, TOKENIZER, folder, config, [source.parent])

    first = again(["a b c"])
    assert again(never()).fingerprint == first.fingerprint
    with pytest.raises(AssertionError, match="a text was read"):
        again(never(), max_length=7)
    with pytest.raises(AssertionError, match="a text was read"):
        build_token_store(never(), TOKENIZER, folder, StoreConfig(max_length=8, min_length=1))
    config = StoreConfig(max_length=8, min_length=1)
    with pytest.raises(AssertionError, match="a text was read"):
        build_token_store(never(), TOKENIZER, folder, config, [source.parent], read_as={"text_field": "body"})
    source.write_text("a b c d", encoding="utf-8")
    with pytest.raises(AssertionError, match="a text was read"):
        again(never())
    assert pieces(again(["a b"])) == ["a b"]


def test_the_report_counts_what_was_cut_dropped_and_empty(tmp_path: Path) -> None:
    stored = build(tmp_path / "s", ["", "a b c a b. A", "a", " \n", "a b c"], min_length=4)

    assert pieces(stored) == ["a b c a b .", "a b c"]
    assert stored.report == {
        "texts": 5,
        "chunks": 2,
        "tokens": 9,
        "texts_cut": 1,
        "chunks_dropped": 2,
        "texts_empty": 2,
    }


def test_a_chunk_of_exactly_the_shortest_length_is_kept(tmp_path: Path) -> None:
    assert pieces(build(tmp_path / "s", ["a b", "a"], min_length=4)) == ["a b"]


def test_special_tokens_written_in_a_text_are_ordinary_text(tmp_path: Path) -> None:
    ids = build(tmp_path / "s", ["a [SEP] b"], max_length=20)[0]["input_ids"]

    assert (ids == TOKENIZER.sep_token_id).sum() == 1
    assert len(ids) == 2 + 5


def test_begin_and_end_of_sequence_tokens_serve_where_there_is_no_cls_and_sep(tmp_path: Path) -> None:
    tokenizer = word_piece(bos_token="[CLS]", eos_token="[SEP]")

    assert pieces(build(tmp_path / "s", ["a b"], tokenizer=tokenizer)) == ["a b"]


@pytest.mark.parametrize(("extra", "kind"), [(0, "uint16"), (65_536, "uint32")])
def test_ids_take_two_bytes_unless_the_vocabulary_is_too_large(tmp_path: Path, extra: int, kind: str) -> None:
    last = f"extra{extra - 1}" if extra else "a"
    tokenizer = word_piece(extra, pre_tokenizers.WhitespaceSplit())
    stored = build(tmp_path / "s", [last], tokenizer=tokenizer)

    assert stored[0]["input_ids"][1] == tokenizer.convert_tokens_to_ids(last)
    assert [array.dtype.name for array in stored._ids] == [kind]


def test_a_store_opened_again_equals_the_one_built(tmp_path: Path) -> None:
    built = build(tmp_path / "s", ["a b c. A b", "abc", "c " * 30])

    for other in (TokenStore.open(tmp_path / "s"), pickle.loads(pickle.dumps(built))):
        assert len(other) == len(built) == 7
        assert (other.report, other.fingerprint) == (built.report, built.fingerprint)
        for ours, theirs in zip(built, other, strict=True):
            np.testing.assert_array_equal(ours["input_ids"], theirs["input_ids"])
            np.testing.assert_array_equal(ours["word_starts"], theirs["word_starts"])


def test_batches_leave_no_trace_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a b", "", "abc. " * 9, "c", "", "b a", "ab"]
    whole = build(tmp_path / "whole", texts)
    monkeypatch.setattr(tokenising, "BATCH_TEXTS", 2)
    by_number = build(tmp_path / "number", texts)
    monkeypatch.setattr(tokenising, "BATCH_CHARACTERS", 1)
    by_characters = build(tmp_path / "characters", texts)

    for other in (by_number, by_characters):
        assert pieces(other) == pieces(whole)
        assert (other.report, other.fingerprint) == (whole.report, whole.fingerprint)
        assert [other[i]["input_ids"].tolist() for i in (-1, 3)] == [whole[i]["input_ids"].tolist() for i in (-1, 3)]


def test_an_index_out_of_range_is_an_index_error(tmp_path: Path) -> None:
    stored = build(tmp_path / "s", ["a", "b"])

    for index in (2, -3):
        with pytest.raises(IndexError):
            stored[index]


def test_texts_are_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Text(str):
        __slots__ = ("__weakref__",)

    alive: set[int] = set()
    most = 0

    def texts() -> Iterator[str]:
        nonlocal most
        for number in range(40):
            text = Text("a b c")
            alive.add(number)
            weakref.finalize(text, alive.discard, number)
            most = max(most, len(alive))
            yield text

    monkeypatch.setattr(tokenising, "BATCH_TEXTS", 4)
    build(tmp_path / "s", texts())

    assert most <= 10


def test_the_fingerprint_depends_on_texts_settings_and_tokenizer_alone(tmp_path: Path) -> None:
    def fingerprint_of(texts: list[str], **options: Any) -> str:
        return build(tmp_path / "s", texts, **options).fingerprint

    padded = word_piece()
    padded("a", truncation=True, padding="max_length", max_length=4)
    same = {fingerprint_of(["a", "b"]), fingerprint_of(["a", "b"]), fingerprint_of(["a", "b"], tokenizer=padded)}
    others = [
        fingerprint_of(["a", "c"]),
        fingerprint_of(["b", "a"]),
        fingerprint_of(["ab"]),
        fingerprint_of(["a", "b", ""]),
        fingerprint_of(["a", "b"], max_length=9),
        fingerprint_of(["a", "b"], min_length=2),
        fingerprint_of(["a", "b"], tokenizer=word_piece(extra=1)),
        fingerprint_of(["a", "b"], tokenizer=word_piece(cls_token="[SEP]", sep_token="[CLS]")),
    ]

    assert len(same) == 1
    assert len({*same, *others}) == 1 + len(others)


def test_the_users_tokenizer_is_not_changed(tmp_path: Path) -> None:
    tokenizer = word_piece()
    tokenizer("a", truncation=True, padding="max_length", max_length=4)
    before = tokenizer.backend_tokenizer.to_str()
    build(tmp_path / "s", ["a b c a b c a b"], tokenizer=tokenizer)

    assert tokenizer.backend_tokenizer.to_str() == before
    assert tokenizer("[SEP]", add_special_tokens=False)["input_ids"] == [tokenizer.sep_token_id]


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (SimpleNamespace(is_fast=False, name_or_path="old"), "The tokenizer old is a slow one"),
        (word_piece(cls_token="[CLS]"), "lacks a special token for the start (cls, bos) or the end (sep, eos)"),
        (
            word_piece(pre_tokenizer=pre_tokenizers.Split(Regex("never"), "isolated")),
            "does not split a text into words",
        ),
    ],
)
def test_a_tokenizer_that_cannot_serve_is_refused(tmp_path: Path, tokenizer: Any, message: str) -> None:
    with pytest.raises(DupmaeError) as caught:
        build(tmp_path / "s", ["a"], tokenizer=tokenizer)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_lengths_that_leave_no_room_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DupmaeError, match="9 tokens at least and 8 at most: lower min_length"):
        build(tmp_path / "s", ["a"], max_length=8, min_length=9)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "of 0 texts 0 tokenise to nothing"),
        (["", " "], "of 2 texts 2 tokenise to nothing"),
        (["", "a b"], "of 2 texts 1 tokenise to nothing, the others have fewer than 5 tokens"),
        (["a b c a", "\ud800"], "Text 2 holds half of a surrogate pair"),
    ],
)
def test_texts_that_leave_nothing_to_store_are_refused(tmp_path: Path, texts: list[str], message: str) -> None:
    with pytest.raises(DupmaeError) as caught:
        build(tmp_path / "s", texts, min_length=5)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_error_among_the_texts_leaves_the_old_store_whole(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield "c"
        raise DupmaeError("corpus.jsonl, line 2: broken")

    build(tmp_path / "s", ["a"])
    with pytest.raises(DupmaeError, match="line 2"):
        build(tmp_path / "s", broken())

    assert pieces(TokenStore.open(tmp_path / "s")) == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_store_is_replaced_but_a_foreign_folder_is_not(tmp_path: Path) -> None:
    build(tmp_path / "s", ["a"])
    assert pieces(build(tmp_path / "s", ["b"])) == ["b"]

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("dear", encoding="utf-8")
    for taken in (tmp_path / "home", tmp_path / "home" / "thesis.txt"):
        with pytest.raises(DupmaeError, match="exists and is not a token store"):
            build(taken, ["a"])
    assert (tmp_path / "home" / "thesis.txt").read_text(encoding="utf-8") == "dear"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": "another"}'])
def test_a_folder_that_is_no_store_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "store.json").write_text(content, encoding="utf-8")

    with pytest.raises(DupmaeError, match="is not a token store that this version can read"):
        TokenStore.open(tmp_path)


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "s", ["a b", "c a"])
    tokens, record = tmp_path / "s" / "tokens.arrow", tmp_path / "s" / "store.json"
    whole, told = tokens.read_bytes(), json.loads(record.read_text(encoding="utf-8"))

    def check() -> None:
        with pytest.raises(DupmaeError, match="is damaged"):
            TokenStore.open(tmp_path / "s")

    for content in (whole[: len(whole) // 2], b"", whole[:-8]):
        tokens.write_bytes(content)
        check()
    tokens.unlink()
    check()
    tokens.write_bytes(whole)
    for change in ({"counts": {**told["counts"], "chunks": 3}}, {"counts": {}}, {"counts": None}):
        record.write_text(json.dumps({**told, **change}), encoding="utf-8")
        check()
    record.write_text(json.dumps(told), encoding="utf-8")
    assert len(TokenStore.open(tmp_path / "s")) == 2
