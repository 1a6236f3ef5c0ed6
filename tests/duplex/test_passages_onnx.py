"""Passages encoded in ONNX Runtime, as PyTorch encodes them; and models exported, with products of bytes as well."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from test_queries_onnx import CONFIGS, REPRESENTATIONS, assert_equal, save_model

from dupmae.corpus import Passage
from dupmae.duplex import DuplexEncoder
from dupmae.duplex.backends import open_encoder
from dupmae.duplex.onnx import exported, halves
from dupmae.duplex.onnx.encoder import OnnxEncoder
from dupmae.errors import DupmaeError
from dupmae.experiments.export import export
from dupmae.index import DuplexIndex
from dupmae.models import open_model

SETTINGS = {
    "own norm": REPRESENTATIONS["tokens"] | {"document_norm": "own", "document_prompt": "be: "},
    "unit norm": REPRESENTATIONS["logits"] | {"document_norm": "unit", "lexical_activation": "none"},
    "all terms": REPRESENTATIONS["logits"] | {"normalize": False, "top_k": 30},
}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [*((kind, "own norm") for kind in CONFIGS), ("bert", "unit norm"), ("modernbert", "all terms")],
)
def test_every_family_encodes_passages_as_in_pytorch(
    kind, settings, tmp_path, write_tokenizer, texts, monkeypatch
) -> None:
    monkeypatch.setattr(halves, "TILE", 16)
    if kind == "modernbert":
        CONFIGS[kind].local_attention = 8  # so that passages are longer than what its local layers look at
    encoder = save_model(tmp_path / "model", CONFIGS[kind], write_tokenizer, **SETTINGS[settings])
    passages = [*texts, "ba [MASK] xyz", "", "ba be bi " * 500, "unknown wörds ba"]
    found = OnnxEncoder(open_model(str(tmp_path / "model"))).embed_documents(passages, batch_size=3)
    assert_equal(found, encoder.embed_documents(passages))
    weights = np.abs(found.weights)
    assert (np.diff(weights, axis=1) <= 1e-6).all()


@pytest.fixture(scope="module")
def saved(tmp_path_factory, write_tokenizer) -> Path:
    """A duplex model over BERT."""
    folder: Path = tmp_path_factory.mktemp("passages") / "model"
    torch.manual_seed(0)
    save_model(folder, CONFIGS["bert"], write_tokenizer, **SETTINGS["own norm"])
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A copy of it to export."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.fixture
def corpus(words) -> list[Passage]:
    """Passages of a few words."""
    draw = np.random.default_rng(0)
    texts = [". ".join(" ".join(draw.choice(words, 9)) for _ in range(4)) for _ in range(120)]
    return [Passage(str(number), "", f"{text}.") for number, text in enumerate(texts)]


def test_both_encoders_cut_documents_alike(saved, texts) -> None:
    long = [Passage("a", "Title", "ba be bi. " * 400), *(Passage(str(n), "", text) for n, text in enumerate(texts))]
    theirs = DuplexEncoder(str(saved), device="cpu")
    ours = OnnxEncoder(open_model(str(saved)))
    assert list(ours.chunks(long, 30)) == list(theirs.chunks(long, 30))
    assert ours.reads("document") == theirs.reads("document")
    assert ours.reads("query") == theirs.reads("query")


def test_an_index_is_the_same_and_goes_on_in_either(saved, corpus, tmp_path) -> None:
    torch_encoder, onnx_encoder = (open_encoder(open_model(str(saved)), name) for name in ("torch", "onnx"))
    assert isinstance(torch_encoder, DuplexEncoder)
    torch_encoder.precision = "float32"
    theirs = DuplexIndex.build(tmp_path / "torch", torch_encoder, corpus[:60])
    ours = DuplexIndex.build(tmp_path / "onnx", onnx_encoder, corpus[:60])
    assert ours.manifest.precision == "float32"
    ours.add(corpus[60:])
    theirs.encoder = onnx_encoder
    theirs.add(corpus[60:])
    queries = [corpus[70].text[:30], corpus[3].text[:20]]
    for mine, other in zip(ours.search(queries, 5), theirs.search(queries, 5), strict=True):
        assert [hit.id for hit in mine] == [hit.id for hit in other]
        assert [hit.score for hit in mine] == pytest.approx([hit.score for hit in other], rel=1e-3)


def test_an_exported_graph_gives_what_the_encoder_gives(copied, texts) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = open_model(str(copied))
    before = model.fingerprint
    made = export(model, None, most_loss=0.005, seed=1)
    assert made.probed is None
    assert open_model(str(copied)).fingerprint == before
    session = onnxruntime.InferenceSession(copied / "onnx" / "passages.onnx")
    assert session.get_modelmeta().custom_metadata_map["model"] == before
    encoder = OnnxEncoder(model)
    (ids,) = encoder.reader.token_ids(texts[:1])
    given = {"input_ids": ids[None], "attention_mask": np.ones_like(ids)[None]}
    dense, terms, weights = session.run(["dense", "ids", "weights"], given)
    expected = encoder.embed_documents(texts[:1])
    np.testing.assert_allclose(dense, expected.cls, rtol=1e-5)
    used = weights[0] != 0
    assert terms[0][used].tolist() == expected.ids[0].tolist()


def test_int8_is_measured_and_refused_where_it_loses_too_much(copied, corpus, tmp_path) -> None:
    pytest.importorskip("onnx")
    model = open_model(str(copied))
    with pytest.raises(DupmaeError, match="make it with `dupmae export"):
        open_encoder(model, "onnx-int8")
    made = export(model, corpus, most_loss=1.0, seed=1)
    assert made.probed is not None
    assert 0 < made.probed.float32 <= 1
    encoder = open_encoder(model, "onnx-int8")
    found, exact = (one.embed_documents([corpus[0].text]) for one in (encoder, OnnxEncoder(model)))
    assert not np.array_equal(found.cls, exact.cls)
    assert float(found.cls[0] @ exact.cls[0]) > 0.98

    index = DuplexIndex.build(tmp_path / "index", encoder, corpus[:50])
    assert index.manifest.precision == "int8"
    opened = DuplexIndex.open(tmp_path / "index")
    opened.add(corpus[50:60])  # takes what the index was built with
    assert len(opened) == 60
    opened = DuplexIndex.open(tmp_path / "index")
    opened.backend = "torch"
    with pytest.raises(DupmaeError, match="encoded in int8, not in float32: take --backend onnx-int8"):
        opened.add(corpus[60:])
    assert opened.search([corpus[3].text[:20]], 3)

    exported.note(copied / "onnx" / exported.INT8_FILE, model, exported.Probed(10, 20, 0.9, 0.8, 0.005))
    with pytest.raises(DupmaeError, match="is damaged"):
        open_encoder(model, "onnx-int8")
    exported.finish(copied / "onnx")
    with pytest.raises(DupmaeError, match=r"loses 0\.1000 of NDCG@10 .* more than the 0\.005"):
        open_encoder(model, "onnx-int8")


def test_an_export_of_another_state_of_the_model_is_refused(copied, corpus) -> None:
    pytest.importorskip("onnx")
    export(open_model(str(copied)), corpus, most_loss=1.0, seed=1)
    (copied / "SHA256SUMS").unlink()
    settings = json.loads((copied / "config.json").read_text()) | {"changed": 1}
    (copied / "config.json").write_text(json.dumps(settings))
    with pytest.raises(DupmaeError, match="another state of the model"):
        open_encoder(open_model(str(copied)), "onnx-int8")


def test_too_few_texts_write_nothing(copied, corpus) -> None:
    pytest.importorskip("onnx")
    with pytest.raises(DupmaeError, match="too small"):
        export(open_model(str(copied)), corpus[:3], most_loss=1.0, seed=1)
    assert not (copied / "onnx").exists()


def test_bfloat16_is_of_pytorch_alone(saved) -> None:
    with pytest.raises(DupmaeError, match="does not compute in bfloat16"):
        open_encoder(open_model(str(saved)), "onnx", "bfloat16")
