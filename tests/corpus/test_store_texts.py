"""The chunks of a token store as they stood in their texts, for a model with another tokenizer to read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from dupmae.config import StoreConfig
from dupmae.corpus import Passage, TokenStore, build_token_store
from dupmae.errors import DupmaeError


def test_a_chunk_is_kept_as_it_stood_in_its_text(bert_folder: Path, words: list[str], tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert_folder)
    long = "  " + " ".join(word.title() for word in words[:30]) + ".\n\n" + " ".join(words[30:60]) + ".  "
    passages = [Passage("a", "Title Of It", long), Passage("b", "", words[0]), Passage("c", "", "B,  c.\tD " * 2)]
    config = StoreConfig(max_length=20, min_length=4)
    plain = build_token_store(passages, tokenizer, tmp_path / "plain", config)
    store = build_token_store(passages, tokenizer, tmp_path / "kept", config, keep_texts=True)
    assert (plain.keeps_texts, store.keeps_texts) == (False, True)
    assert plain.fingerprint == store.fingerprint
    texts = store.texts(0, len(store))
    assert len(texts) == len(store)
    whole = [passage.full_text for passage in passages]
    assert "".join(texts[:-1]).replace(" ", "") == "".join(whole[0].split())
    assert texts[-1] == whole[2].strip()  # the second one is too short
    assert store.texts(1, 3) == texts[1:3]
    for chunk, text in zip(store, texts, strict=True):
        assert tokenizer(text)["input_ids"] == chunk["input_ids"].tolist()


def test_a_store_without_texts_is_made_anew_where_they_are_wanted(bert_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "texts.txt"
    source.write_text("ba be bi bo bu da de di do du", encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(bert_folder)

    def build(keep_texts: bool) -> TokenStore:
        text = [source.read_text(encoding="utf-8")]
        return build_token_store(text, tokenizer, tmp_path / "store", StoreConfig(), [source], keep_texts=keep_texts)

    assert [build(keep).keeps_texts for keep in (False, True, False)] == [False, True, True]


@pytest.mark.parametrize("harm", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * len(data)])
def test_damaged_texts_are_one_sentence(bert_folder: Path, tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert_folder)
    text = ["ba be bi bo bu da de di do du"]
    store = build_token_store(text, tokenizer, tmp_path / "store", StoreConfig(), keep_texts=True)
    file = tmp_path / "store" / "texts.arrow"
    file.write_bytes(harm(file.read_bytes()))
    with pytest.raises(DupmaeError, match=r"damaged.*build it anew"):
        store.texts(0, 1)
