"""A tokenizer that does not know the words of a text says so, at whichever door the text comes in."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dupmae.config import DuplexConfig, FinetuneConfig, StoreConfig
from dupmae.corpus import Benchmark, Passage, build_token_store
from dupmae.corpus.unknown_words import warn_of_unknown_words
from dupmae.duplex import DuplexEncoder
from dupmae.finetuning import finetune
from dupmae.index import DuplexIndex
from dupmae.models import open_model
from dupmae.retrievers.encodings import encode_corpus
from dupmae.retrievers.vectors import DenseVectors

SETS = json.loads((Path(__file__).parent / "scripts" / "sets.json").read_text(encoding="utf-8"))


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "dupmae.corpus.unknown_words")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "dupmae.corpus.unknown_words"]


def _store(model: str, corpus: list[Passage], folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    build_token_store(corpus, tokenizer, folder / "store", StoreConfig(max_length=32, min_length=3))


def _index(model: str, corpus: list[Passage], folder: Path) -> None:
    DuplexIndex.build(folder / "index", DuplexEncoder(_duplex(model, folder)), corpus)


def _encode(model: str, corpus: list[Passage], folder: Path) -> None:
    DuplexEncoder(_duplex(model, folder)).embed_documents([passage.full_text for passage in corpus])


def _evaluate(model: str, corpus: list[Passage], folder: Path) -> None:
    encode_corpus(DenseVectors(open_model(model)), {one.id: one for one in corpus}, folder / "encodings")


def _finetune(model: str, corpus: list[Passage], folder: Path) -> None:
    queries = {one.id: one.text[:9] for one in corpus}
    train = Benchmark("texts", "train", {one.id: one for one in corpus}, queries, {name: {name: 1} for name in queries})
    config = FinetuneConfig(epochs=1, batch_size=len(corpus), negatives=0, max_length=16)
    finetune(DuplexEncoder(_duplex(model, folder)), train, folder / "run", config)


def _duplex(model: str, folder: Path) -> str:
    path = str(folder / "duplex")
    DuplexEncoder.from_encoder(model, DuplexConfig(top_k=8, dense_dimension=8)).save(path)
    return path


@pytest.mark.parametrize("door", [_store, _index, _encode, _evaluate, _finetune])
def test_every_door_says_once_that_the_words_are_unknown(
    door: Callable[[str, list[Passage], Path], None],
    embedder_folder: Path,
    tmp_path: Path,
    said: Callable[[], list[str]],
) -> None:
    thai = [Passage(f"p{n}", "", text) for n, text in enumerate(SETS["thai"]["passages"])]
    door(str(embedder_folder), thai, tmp_path)
    assert len(said()) == 1
    assert "does not know 100 % of this text, such as 'ประภาคาร" in said()[0]
    assert len(said()[0]) <= 500


def test_known_words_and_a_few_unknown_ones_are_passed_over(
    embedder_folder: Path, words: list[str], said: Callable[[], list[str]]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(embedder_folder))
    warn_of_unknown_words(tokenizer, [" ".join(words[:30]), "", " ".join([*words[:38], "灯"])])
    assert said() == []
    warn_of_unknown_words(tokenizer, [*[" ".join(words[:30])] * 40, *["灯台 " * 30] * 10])
    assert len(said()) == 1


def test_a_tokenizer_of_bytes_knows_everything(said: Callable[[], list[str]]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = {name: number for number, name in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(alphabet, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    warn_of_unknown_words(PreTrainedTokenizerFast(tokenizer_object=made), SETS["thai"]["passages"])
    assert said() == []
