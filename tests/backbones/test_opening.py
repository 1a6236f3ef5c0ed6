"""Every door opens a model that is whole, and refuses one that is not in a sentence that names it."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from dupmae import DuplexConfig, DuplexEncoder
from dupmae.backbones import load_backbone, open_tokenizer
from dupmae.backbones.declared import not_followed
from dupmae.config import PretrainConfig
from dupmae.corpus import Benchmark, Passage
from dupmae.duplex.starting import begin_duplex
from dupmae.errors import DupmaeError
from dupmae.models import open_model
from dupmae.pretraining.checkpoint import load_for_pretraining
from dupmae.pretraining.checks import tokenizer_and_length
from dupmae.retrievers.scorers import load_cross_encoder, open_scorer, start_cross_encoder
from dupmae.retrievers.vectors import load_encoder, split_kind

CORPUS = {"p": Passage("p", "", "ba be bi")}
BENCHMARK = Benchmark("b", "test", CORPUS, {"q": "ba"}, {"q": {"p": 1}})


@pytest.fixture(scope="module")
def scorer_folder(tmp_path_factory: pytest.TempPathFactory, bert_config: BertConfig, write_tokenizer: Any) -> Path:
    """A cross-encoder."""
    folder = tmp_path_factory.mktemp("models")
    BertForSequenceClassification(BertConfig(**{**bert_config.to_dict(), "num_labels": 1})).save_pretrained(
        folder / "plain"
    )
    write_tokenizer(folder / "plain")
    CrossEncoder(str(folder / "plain"), device="cpu").save_pretrained(str(folder / "scorer"))
    return folder / "scorer"


DOORS: dict[str, tuple[str, Callable[[str, Path], Any]]] = {
    "DuplexEncoder": ("duplex", lambda path, _: DuplexEncoder(path)),
    "from_encoder": ("bert", lambda path, _: DuplexEncoder.from_encoder(path, DuplexConfig(top_k=8))),
    "load_backbone": ("bert", lambda path, _: load_backbone(path)),
    "tokenizer_and_length": ("bert", lambda path, _: tokenizer_and_length(path, PretrainConfig())),
    "load_for_pretraining": ("bert", lambda path, _: load_for_pretraining(path, PretrainConfig())),
    "begin_duplex of an encoder": (
        "bert",
        lambda path, _: begin_duplex(open_model(path), None, DuplexConfig(top_k=8), CORPUS, 0),
    ),
    "begin_duplex of a duplex model": (
        "duplex",
        lambda path, _: begin_duplex(open_model(path), None, DuplexConfig(), CORPUS, 0),
    ),
    "dense vectors": ("embedder", lambda path, _: load_encoder(*split_kind(path))),
    "sparse vectors": ("duplex", lambda path, _: load_encoder(*split_kind(path))),
    "sparse: of an encoder": ("bert", lambda path, _: load_encoder(*split_kind(f"sparse:{path}"))),
    "scorer": ("scorer", lambda path, folder: open_scorer(path, BENCHMARK, ["p"], folder)),
    "scorer of an embedder": ("embedder", lambda path, folder: open_scorer(path, BENCHMARK, ["p"], folder)),
    "cross-encoder": ("scorer", lambda path, _: load_cross_encoder(path)),
    "start of a cross-encoder": ("bert", lambda path, _: start_cross_encoder(path)),
}
"""What opens a model -> of which kind, and how."""


@pytest.fixture(params=DOORS)
def door(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    bert_folder: Path,
    duplex_folder: Path,
    embedder_folder: Path,
    scorer_folder: Path,
) -> tuple[Path, Callable[[], Any]]:
    """A copy of a model, and what opens it."""
    kind, use = DOORS[request.param]
    folders = {"bert": bert_folder, "duplex": duplex_folder, "embedder": embedder_folder, "scorer": scorer_folder}
    copy = Path(shutil.copytree(folders[kind], tmp_path / "model", ignore=shutil.ignore_patterns("SHA256SUMS")))
    return copy, lambda: use(str(copy), tmp_path / "vectors")


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor], str], None]) -> str:
    """Change an encoder's weights; give the name of the layer norm that was there to be changed."""
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.1.output.LayerNorm.weight"))
    change(weights, name)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return name.removeprefix("bert.")


def change_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def assert_refused(use: Callable[[], Any], folder: Path, *words: str) -> None:
    """It says so in one sentence that names the model and the finding."""
    with pytest.raises(DupmaeError) as caught:
        use()
    sentence = str(caught.value)
    assert str(folder) in sentence
    assert len(sentence.replace(str(folder), "MODEL")) <= 400
    assert "\n" not in sentence
    for word in words:
        assert word in sentence


def test_a_whole_model_is_opened(door: tuple[Path, Callable[[], Any]]) -> None:
    assert door[1]() is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights, name: weights.pop(name), ["lacks", "drawn at random"]),
        (lambda weights, name: weights[name].fill_(float("nan")), ["not a number"]),
        (lambda weights, name: weights.update({name: torch.ones(3)}), ["another shape"]),
        (lambda weights, name: weights.update({name: torch.ones(32, dtype=torch.int32)}), ["whole numbers"]),
        (
            lambda weights, name: weights.update({name.replace("layer.1", "layer.2"): torch.ones(32)}),
            ["more than its config.json says"],
        ),
    ],
    ids=["missing", "NaN", "shape", "integers", "another layer"],
)
def test_weights_that_are_not_whole_are_refused_at_every_door(
    change: Any, words: list[str], door: tuple[Path, Callable[[], Any]]
) -> None:
    folder, use = door
    name = change_weights(folder, change)
    assert_refused(use, folder, *words, name.replace("layer.1", "layer.2") if "more" in words[0] else name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n", ["Git LFS pointer", "git lfs pull"]),
        (b"<!DOCTYPE html><html></html>" * 9, ["page of the web"]),
        (b"", ["empty"]),
        (None, ["missing"]),
    ],
    ids=["pointer", "page", "empty", "missing"],
)
def test_what_stands_in_the_weights_place_is_named_at_every_door(
    content: bytes | None, words: list[str], door: tuple[Path, Callable[[], Any]]
) -> None:
    folder, use = door
    file = folder / "model.safetensors"
    file.unlink() if content is None else file.write_bytes(content)
    assert_refused(use, folder, *words, "model.safetensors")


def test_a_pipe_among_the_files_is_refused_at_every_door(door: tuple[Path, Callable[[], Any]]) -> None:
    folder, use = door
    (folder / "README.md").unlink(missing_ok=True)
    os.mkfifo(folder / "README.md")
    assert_refused(use, folder, "README.md is a pipe")


def test_half_a_download_is_refused_at_every_door(door: tuple[Path, Callable[[], Any]]) -> None:
    folder, use = door
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert_refused(use, folder, "model.safetensors holds", "of", "bytes")


def test_a_model_without_a_tokenizer_is_refused_at_every_door(door: tuple[Path, Callable[[], Any]]) -> None:
    folder, use = door
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert_refused(use, folder, "no tokenizer", "tokenizer.json")


@pytest.mark.parametrize(
    "words", [["special tokens alone"], ["has no padding token"], ["beyond the"], ["names it nowhere"]], ids=str
)
def test_a_tokenizer_that_cannot_be_the_encoders_is_refused_at_every_door(
    words: list[str], door: tuple[Path, Callable[[], Any]], request: pytest.FixtureRequest
) -> None:
    if "load_backbone" in request.node.callspec.id:
        pytest.skip("a backbone has no tokenizer")
    folder, use = door
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    if words == ["special tokens alone"]:
        tokenizer["model"]["vocab"] = {name: number for name, number in vocabulary.items() if name.startswith("[")}
    elif words == ["beyond the"]:
        vocabulary["unheard"] = 10_000
    elif words == ["names it nowhere"]:
        change_json(folder / "tokenizer_config.json", cls_token=None)
    else:
        change_json(folder / "tokenizer_config.json", pad_token=None)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert_refused(use, folder, *words)


def test_a_sentence_names_the_option_that_a_model_was_given_as(bert_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert_folder, tmp_path / "model"))
    change_weights(folder, lambda weights, name: weights.pop(name))
    with pytest.raises(DupmaeError, match=rf"^--teacher {folder} lacks encoder weights"):
        start_cross_encoder(open_model(str(folder), option="--teacher"))
    (folder / "config.json").unlink()
    with pytest.raises(DupmaeError, match=rf"^--teacher {folder} holds no model"):
        open_model(str(folder), option="--teacher")
    with pytest.raises(DupmaeError, match=r"there is no model folder --reranker \./nowhere"):
        open_model("./nowhere", option="--reranker")


def test_a_pooler_that_no_one_reads_may_be_missing_but_not_a_scorers(scorer_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scorer_folder, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    save_file({n: w for n, w in weights.items() if "pooler" not in n}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DupmaeError, match=r"lacks encoder weights \(2, the first of them bert\.pooler"):
        load_cross_encoder(str(folder))
    save_file(
        {n: w for n, w in weights.items() if "classifier" not in n}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(DupmaeError, match=r"lacks weights \(2, the first of them classifier\.bias"):
        load_cross_encoder(str(folder))


# Tokenizers


def test_rows_that_no_entry_has_are_padding_wherever_they_are(bert_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert_folder, tmp_path / "model"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    hole, double = vocabulary["b"], vocabulary["c"]
    vocabulary["b"] = double
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    encoder = DuplexEncoder.from_encoder(str(folder), DuplexConfig(top_k=8))
    assert set(encoder.pooling.special_ids) == {0, 1, 2, 3, 4, hole}


def test_special_tokens_are_put_around_texts_where_the_tokenizer_does_not(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("bert")  # whose tokenizer has no post-processor
    assert AutoTokenizer.from_pretrained(folder)("w1")["input_ids"] == [6]
    encoder = DuplexEncoder.from_encoder(str(folder), DuplexConfig(top_k=8))
    assert encoder.preprocess(["w1"], task="query")["input_ids"].tolist() == [[2, 6, 3]]


@pytest.mark.parametrize("name", ["[MASK]", "[SEP]", "[CLS] be [PAD]"])
def test_a_special_tokens_name_within_a_text_is_text_as_in_the_token_store(
    name: str, bert_folder: Path, tmp_path: Path
) -> None:
    from dupmae import StoreConfig, build_token_store

    text = f"ba {name} bo"
    store = build_token_store([text], open_tokenizer(str(bert_folder)), tmp_path / "store", StoreConfig(min_length=3))
    encoder = DuplexEncoder.from_encoder(str(bert_folder), DuplexConfig(top_k=8))
    encoder.save(str(tmp_path / "model"))
    plain = SparseEncoder(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
    for model in (encoder, DuplexEncoder(str(tmp_path / "model")), plain):
        read = model.preprocess([text], task="document")["input_ids"][0].tolist()
        assert read == store[0]["input_ids"].tolist()
        assert not {0, 2, 3, 4} & set(read[1:-1])


# What is declared


def test_a_model_of_half_precision_is_opened_in_float32_and_gives_what_its_weights_say(
    duplex_folder: Path, tmp_path: Path
) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        half = DuplexEncoder(str(duplex_folder), device="cpu").to(dtype)
        half.save(str(tmp_path / str(dtype)))
        opened = DuplexEncoder(str(tmp_path / str(dtype)), device="cpu")
        assert {parameter.dtype for parameter in opened.parameters()} == {torch.float32}
        assert {
            p.dtype
            for p in begin_duplex(open_model(str(tmp_path / str(dtype))), None, DuplexConfig(), CORPUS, 0).parameters()
        } == {torch.float32}
        whole = DuplexEncoder(str(duplex_folder), device="cpu").embed_documents(["ba be"])
        np.testing.assert_allclose(opened.embed_documents(["ba be"]).cls, whole.cls, atol=0.02)


def test_what_an_embedder_declares_and_a_start_does_not_follow_is_said(
    embedder_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Transformer(str(embedder_folder))
    modules = [encoder, Pooling(32, pooling_mode="max"), Dense(32, 8), Normalize()]
    model = SentenceTransformer(modules=modules, prompts={"clustering": "group: "}, device="cpu")
    model.save(str(tmp_path / "model"), create_model_card=False)
    found = open_model(str(tmp_path / "model"))
    assert not_followed(found) == ["the module Dense (2_Dense)", "the pooling max", "the prompts clustering"]
    assert not_followed(open_model(str(embedder_folder))) == []
    with caplog.at_level(logging.WARNING, logger="dupmae"):
        begin_duplex(found, None, DuplexConfig(top_k=8), CORPUS, 0)
    assert "declares the module Dense (2_Dense), the pooling max" in caplog.text
    vectors = load_encoder(*split_kind(str(tmp_path / "model")))
    assert vectors.embed(["ba"], "document").shape == (1, 8)


def test_the_old_layout_with_the_encoder_in_a_folder_of_its_own_is_opened_at_every_door(
    embedder_folder: Path, tmp_path: Path
) -> None:
    old, inner = tmp_path / "old", tmp_path / "old" / "0_Transformer"
    inner.mkdir(parents=True)
    for file in embedder_folder.iterdir():
        place = old if file.name.startswith(("modules", "config_")) or file.is_dir() else inner
        (shutil.copytree if file.is_dir() else shutil.copy)(file, place / file.name)
    listed = json.loads((old / "modules.json").read_text(encoding="utf-8"))
    listed[0]["path"] = "0_Transformer"
    (old / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    texts = ["ba be bi", "bo"]
    one, other = (load_encoder(*split_kind(str(path))).embed(texts, "document") for path in (embedder_folder, old))
    np.testing.assert_allclose(one, other, rtol=1e-6)
    torch.testing.assert_close(
        load_backbone(str(old)).encoder.state_dict(), load_backbone(str(embedder_folder)).encoder.state_dict()
    )
    assert DuplexEncoder.from_encoder(str(old), DuplexConfig(top_k=8)) is not None


def test_no_text_is_read_beyond_the_positions_whatever_the_files_say(duplex_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(duplex_folder, tmp_path / "model", ignore=shutil.ignore_patterns("SHA256SUMS")))
    change_json(folder / "sentence_bert_config.json", document_length=10**9, query_length=70)
    encoder = DuplexEncoder(str(folder))
    assert (encoder[0].query_length, encoder[0].document_length) == (64, 64)
    assert encoder.embed_documents(["ba be " * 100]).cls.shape[0] == 1
    change_json(folder / "sentence_bert_config.json", query_length="many")
    with pytest.raises(DupmaeError, match="its query_length is 'many'"):
        DuplexEncoder(str(folder))


# Folders of sentence-transformers


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"path": "../elsewhere"}, "outside of the folder: do not use this model"),
        ({"path": "/etc"}, "outside of the folder"),
        ({"type": "modeling_evil.Module"}, "whose code would have to be run"),
        ({"type": "os.system"}, "whose code would have to be run"),
        ({"type": 3}, "without its path or type"),
    ],
)
def test_modules_that_lie_elsewhere_or_are_foreign_are_refused(
    changes: dict[str, Any], sentence: str, embedder_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(embedder_folder, tmp_path / "model"))
    listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    listed[1] |= changes
    (folder / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    with pytest.raises(DupmaeError, match=sentence):
        split_kind(str(folder))


@pytest.mark.parametrize(
    "name",
    [
        *("modules.json", "config.json", "config_sentence_transformers.json", "sentence_bert_config.json"),
        *("model.safetensors", "1_DuplexPooling/config.json", "1_DuplexPooling/model.safetensors"),
    ],
)
@pytest.mark.parametrize("content", [None, b"", b"[1, 2]", b"{", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_duplex_model_with_a_part_missing_or_unreadable_is_refused(
    name: str, content: bytes | None, duplex_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(duplex_folder, tmp_path / "model", ignore=shutil.ignore_patterns("SHA256SUMS")))
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(DupmaeError, match=name.rpartition("/")[2]):
        DuplexEncoder(str(folder))


@pytest.mark.parametrize("name", ["dense_pooling", "normalize", "query_terms", "special_ids", "top_k"])
def test_a_duplex_model_without_a_setting_takes_no_default_for_it(
    name: str, duplex_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(duplex_folder, tmp_path / "model", ignore=shutil.ignore_patterns("SHA256SUMS")))
    file = folder / "1_DuplexPooling" / "config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    for changed, sentence in (({}, f"lacks {name}"), ({name: "else"}, f"has the {name} 'else'")):
        file.write_text(json.dumps({k: v for k, v in settings.items() if k != name} | changed), encoding="utf-8")
        with pytest.raises(DupmaeError, match=sentence):
            DuplexEncoder(str(folder))


def test_the_folders_own_code_is_not_run(duplex_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(duplex_folder, tmp_path / "model"))
    (folder / "modeling_duplex.py").write_text("raise SystemExit('the folder has run its code')", encoding="utf-8")
    assert DuplexEncoder(str(folder)).embed_documents(["ba"]).cls.shape == (1, 32)


# Checksums


def test_a_saved_model_whose_files_have_changed_is_refused(duplex_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(duplex_folder, tmp_path / "model"))
    file = folder / "1_DuplexPooling" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DupmaeError, match=r"model\.safetensors is not as it was saved .*delete SHA256SUMS"):
        DuplexEncoder(str(folder))
    (folder / "SHA256SUMS").unlink()
    assert DuplexEncoder(str(folder)) is not None


def test_the_card_says_how_plain_sentence_transformers_loads_and_encodes(duplex_folder: Path) -> None:
    card = (duplex_folder / "README.md").read_text(encoding="utf-8")
    for words in ("trust_remote_code=True", "encode_query", "encode_document", "DuplexEncoder", "- dupmae\n"):
        assert words in card
    assert "model.encode(" not in card


def test_weights_too_large_to_compute_with_are_refused_when_an_encoder_is_opened(
    bert_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bert_folder, tmp_path / "model"))
    change_weights(folder, lambda weights, name: weights[name].fill_(1e38))
    with pytest.raises(DupmaeError, match=r"model gives what is not a number .* for a text"):
        DuplexEncoder.from_encoder(str(folder), DuplexConfig(top_k=8))
