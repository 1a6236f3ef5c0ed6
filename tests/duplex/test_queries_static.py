"""Static queries: a table that is fitted to a model, stored beside it, and refused where it does not belong."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from test_queries_onnx import CONFIGS, save_model

from dupmae.cli import entry as cli
from dupmae.corpus import Passage
from dupmae.duplex import DuplexEncoder
from dupmae.duplex.distilling import distil_queries, fit
from dupmae.duplex.queries import open_queries
from dupmae.duplex.queries.onnx import OnnxQueries
from dupmae.duplex.queries.static import StaticTable
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex
from dupmae.models import model_fingerprint, open_model
from dupmae.models.files import STATIC_FILE as FILE
from dupmae.models.packing import pack, unpack

SETTINGS: dict[str, Any] = {
    "query_terms": "tokens", "dense_pooling": "mean", "words": "english", "query_prompt": "ba be: ",
}  # fmt: skip


@pytest.fixture(scope="module")
def passages(words: list[str]) -> list[Passage]:
    """Sixty passages of three sentences, of words that are one token each."""
    draw = random.Random(2)
    sentences = [" ".join(draw.choices(words, k=8)).capitalize() + "." for _ in range(180)]
    return [Passage(str(n), "", " ".join(sentences[3 * n : 3 * n + 3])) for n in range(60)]


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory, write_tokenizer: Any, passages: list[Passage]) -> Path:
    """A duplex model with a table beside it."""
    folder: Path = tmp_path_factory.mktemp("static") / "model"
    torch.manual_seed(0)
    save_model(folder, CONFIGS["bert"], write_tokenizer, **SETTINGS)
    before = model_fingerprint(str(folder))
    made = distil_queries(open_model(str(folder)), passages, ["bi bo", "bo bu ba"], texts=300, seed=1)
    assert made.file == folder / FILE
    assert made.texts > 150
    assert model_fingerprint(str(folder)) == before  # an index that the model built is searched with it as before
    return folder


@pytest.fixture
def copied(distilled: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(distilled, tmp_path / "copy"))


def test_the_fit_finds_a_table_that_there_is() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(30, 6)).astype(np.float32)
    rows = [rng.integers(0, 30, rng.integers(2, 9)) for _ in range(600)]
    tokens = [np.array([token]) for token in range(30)]
    wanted = np.stack([table[ids].sum(axis=0) / np.sqrt(len(ids)) for ids in rows])
    assert np.abs(fit(rows, wanted, tokens, table) - table).max() < 1e-3
    far = fit(rows, wanted, tokens, np.zeros_like(table))  # tokens alone that say something else count, too
    assert 0.01 < np.abs(far - table).max() < 1


def test_tokens_that_no_text_has_keep_what_the_model_makes_of_them() -> None:
    rng = np.random.default_rng(0)
    alone = rng.normal(size=(5, 3)).astype(np.float32)
    rows = [np.array([1, 2]), np.array([2, 3])] * 20
    found = fit(
        rows, np.stack([alone[ids].sum(axis=0) / np.sqrt(2) for ids in rows]), [np.array([n]) for n in range(5)], alone
    )
    np.testing.assert_allclose(found, alone, atol=1e-4)


def test_rounding_to_bytes_hardly_turns_a_sum() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    table = StaticTable.of(np.vstack([vectors, np.zeros((1, 384), np.float32)]))
    exact, rounded = vectors[[3, 7, 7]].sum(axis=0), table.sum(np.array([3, 7, 7, 50]))
    assert exact @ rounded / np.linalg.norm(exact) / np.linalg.norm(rounded) > 0.9999


def test_terms_and_words_are_the_models_own_and_the_dense_half_is_near_it(
    distilled: Path, passages: list[Passage]
) -> None:
    model = open_model(str(distilled))
    texts = [passage.text.split(".")[0] for passage in passages[:20]] + ["", "ba"]
    found, exact = (open_queries(model, name).embed_queries(texts) for name in ("static", "onnx"))
    np.testing.assert_array_equal(found.ids, exact.ids)
    np.testing.assert_allclose(found.weights, exact.weights, rtol=1e-5)
    assert found.words is not None
    assert abs(found.words - exact.words).max() < 1e-6
    cosines = (
        (found.cls * exact.cls).sum(axis=1) / np.linalg.norm(found.cls, axis=1) / np.linalg.norm(exact.cls, axis=1)
    )
    shuffled = (found.cls[::-1] * exact.cls).sum(axis=1) / np.linalg.norm(exact.cls, axis=1) ** 2
    assert cosines.mean() > 0.8
    assert cosines.mean() > shuffled.mean() + 0.05
    # it counts as much as it can be relied on
    lengths = np.linalg.norm(found.cls, axis=1) / np.linalg.norm(exact.cls, axis=1)
    assert 0.5 < lengths.min() < lengths.max() < 1


def test_an_index_is_searched_with_the_table(
    distilled: Path, passages: list[Passage], tmp_path: Path, capsys: Any
) -> None:
    DuplexIndex.build(tmp_path / "index", DuplexEncoder(str(distilled), device="cpu"), passages)
    index = DuplexIndex.open(tmp_path / "index", query_encoder="static")
    hits = index.search([passages[7].text.split(".")[0]])[0]
    assert hits[0].id == "7"
    assert index._encoder is None
    assert cli.main(["search", str(tmp_path / "index"), passages[7].text, "--query_encoder", "static", "--k", "1"]) == 0
    assert " 7\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, header: tensors["tokens"].__setitem__((9, 3), tensors["tokens"][9, 3] ^ 1), "is damaged"),
        (lambda tensors, header: tensors.pop("scales"), "is damaged"),
        (lambda tensors, header: header.update(version="2"), "later version"),
        (lambda tensors, header: header.update(model="0" * 16), "another state of the model"),
        (lambda tensors, header: header.update(format="pt"), "no table"),
        (lambda tensors, header: header.update(cosine="nan"), "is damaged"),
    ],
)
def test_a_table_that_is_spoilt_or_of_another_model_is_refused(change: Any, message: str, copied: Path) -> None:
    from safetensors import safe_open

    file = copied / FILE
    with safe_open(file, "numpy") as opened:
        header = opened.metadata()
    tensors = {name: values.copy() for name, values in load_file(file).items()}
    change(tensors, header)
    save_file(tensors, file, metadata=header)
    with pytest.raises(DupmaeError, match=message):
        open_queries(open_model(str(copied)), "static")


def test_a_cut_table_and_none_at_all_are_refused(copied: Path, capsys: Any) -> None:
    file = copied / FILE
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DupmaeError, match="bytes"):
        open_queries(open_model(str(copied)), "static")
    file.unlink()
    with pytest.raises(DupmaeError, match="has no table for static queries"):
        open_queries(open_model(str(copied)), "static")


@pytest.mark.parametrize(
    ("settings", "message"), [({"query_terms": "logits"}, "output matrix"), ({"normalize": False}, "directions alone")]
)
def test_a_model_that_no_table_can_stand_in_for_is_refused(
    settings, message, tmp_path, write_tokenizer, passages
) -> None:
    save_model(tmp_path / "model", CONFIGS["bert"], write_tokenizer, **SETTINGS | settings)
    with pytest.raises(DupmaeError, match=message):
        distil_queries(open_model(str(tmp_path / "model")), passages, texts=100, seed=1)
    assert not (tmp_path / "model" / FILE).exists()


def test_too_little_text_is_refused_by_the_command(copied: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "few.txt").write_text("ba be bi.\n", encoding="utf-8")
    (copied / FILE).unlink()
    assert cli.main(["distil-queries", str(copied), "--corpus", str(tmp_path / "few.txt")]) == 2
    assert "give more text" in capsys.readouterr().err
    assert not (copied / FILE).exists()


def test_a_query_of_one_token_stands_between_what_surrounds_every_query(distilled: Path) -> None:
    reader = OnnxQueries(open_model(str(distilled))).reader
    token = int(reader.tokenizer("ba")["input_ids"][0])
    np.testing.assert_array_equal(reader.around(token), reader.token_ids(["ba"])[0])


def test_a_packed_model_leaves_the_table_behind(distilled: Path, tmp_path: Path) -> None:
    pack(distilled, tmp_path / "packed.safetensors")
    unpack(tmp_path / "packed.safetensors", tmp_path / "unpacked")
    assert not (tmp_path / "unpacked" / FILE).exists()
