"""Queries encoded in ONNX Runtime, straight from a model's folder, as PyTorch encodes them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from naive_duplex import unsettle
from safetensors.numpy import load_file, save_file
from test_duplex_families import CONFIGS as FAMILIES
from test_duplex_families import WIDTHS
from transformers import AutoModelForMaskedLM, BertConfig, ModernBertConfig, XLMRobertaConfig

from dupmae.config import DuplexConfig
from dupmae.duplex import DuplexEncoder
from dupmae.duplex.queries import open_queries
from dupmae.duplex.queries.onnx import OnnxQueries
from dupmae.errors import DupmaeError
from dupmae.models import open_model

IDS = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
CONFIGS = {name: config for name, config in FAMILIES.items() if name not in ("deberta", "modernbert")} | {
    "bert": BertConfig(**WIDTHS, hidden_act="gelu_new"),
    "xlm-roberta": XLMRobertaConfig(**WIDTHS | {"pad_token_id": 0}),
    "modernbert": ModernBertConfig(**WIDTHS, **IDS),
}
REPRESENTATIONS: dict[str, dict[str, Any]] = {
    "tokens": {"query_terms": "tokens", "dense_pooling": "cls", "words": "english", "query_prompt": "ba be: "},
    "logits": {"query_terms": "logits", "dense_pooling": "mean", "words": "none"},
}


def save_model(folder: Path, config: Any, write_tokenizer: Any, **settings: Any) -> DuplexEncoder:
    """A duplex model over a random encoder, no number of it neutral, saved beside `base`."""
    base = folder.with_name("base")
    model = AutoModelForMaskedLM.from_config(deepcopy(config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(base)
    write_tokenizer(base)
    encoder = DuplexEncoder.from_encoder(str(base), DuplexConfig(**{"dense_dimension": 16, "top_k": 10} | settings))
    unsettle(encoder)
    encoder.save(str(folder))
    return DuplexEncoder(str(folder), device="cpu")


def assert_equal(found: Any, expected: Any, *, rel: float = 1e-4) -> None:
    """The same halves and words, whatever the order of the terms."""
    np.testing.assert_allclose(found.cls, expected.cls, rtol=rel, atol=1e-5)
    for row in range(len(expected)):
        both = [
            dict(zip(side.ids[row].tolist(), side.weights[row].tolist(), strict=True)) for side in (found, expected)
        ]
        mine, theirs = ({term: weight for term, weight in one.items() if weight} for one in both)
        assert mine.keys() == theirs.keys()
        assert [mine[term] for term in theirs] == pytest.approx(list(theirs.values()), rel=rel, abs=1e-6)
    assert (found.words is None) == (expected.words is None)
    if expected.words is not None:
        assert abs(found.words - expected.words).max() < 1e-6


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_every_family_encodes_queries_as_in_pytorch(kind, representation, tmp_path, write_tokenizer, texts) -> None:
    settings = REPRESENTATIONS[representation] | {"normalize": representation == "tokens"}
    encoder = save_model(tmp_path / "model", CONFIGS[kind], write_tokenizer, **settings)
    queries = [*texts, "ba [MASK] xyz", "", "ba " * 500, "unknown wörds ba"]
    found = open_queries(open_model(str(tmp_path / "model")), "onnx").embed_queries(queries, batch_size=5)
    assert_equal(found, encoder.embed_queries(queries))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, write_tokenizer) -> Path:
    """A duplex model over BERT."""
    folder: Path = tmp_path_factory.mktemp("queries") / "model"
    torch.manual_seed(0)
    save_model(folder, CONFIGS["bert"], write_tokenizer, **REPRESENTATIONS["tokens"])
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil, without its checksums."""
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    (folder / "SHA256SUMS").unlink()
    return folder


def test_weights_of_fewer_bits_count_as_what_they_are(copied, texts) -> None:
    for file in (copied / "model.safetensors", copied / "1_DuplexPooling" / "model.safetensors"):
        halved = {name: values.astype(np.float16) for name, values in load_file(file).items()}
        save_file(halved, file, metadata={"format": "pt"})
    found = OnnxQueries(open_model(str(copied))).embed_queries(texts)
    assert_equal(found, DuplexEncoder(str(copied), device="cpu").embed_queries(texts))


def test_one_query_alone_is_encoded_as_among_others(saved, texts) -> None:
    queries = OnnxQueries(open_model(str(saved)))
    together = queries.embed_queries(texts)
    for row, text in enumerate(texts):
        assert_equal(queries.embed_queries([text]), together[row : row + 1], rel=1e-5)
    assert len(queries.embed_queries([])) == 0


def test_bad_queries_are_refused(saved) -> None:
    queries = OnnxQueries(open_model(str(saved)))
    for texts, message in (("one", "texts"), (["a \ud800"], "surrogate")):
        with pytest.raises(DupmaeError, match=message):
            queries.embed_queries(texts)
    with pytest.raises(DupmaeError, match="at least one text"):
        queries.embed_queries(["a"], batch_size=0)


def spoil_config(folder: Path, **changes: Any) -> None:
    """Change settings of the encoder; None takes one out."""
    file = folder / "config.json"
    settings = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in settings.items() if value is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "deberta-v2"}, "'deberta-v2' run in PyTorch alone"),
        ({"hidden_act": "mish"}, "activation 'mish' runs in PyTorch alone"),
        ({"num_attention_heads": None}, "config.json lacks what its encoder needs"),
        ({"num_hidden_layers": 3}, "encoder.layer.2.attention.self.query.weight"),
        ({"num_attention_heads": 5}, "ONNX Runtime"),
    ],
)
def test_what_onnx_runtime_cannot_run_is_one_sentence(changes, message, copied) -> None:
    spoil_config(copied, **changes)
    with pytest.raises(DupmaeError, match=message) as caught:
        OnnxQueries(open_model(str(copied))).embed_queries(["ba be"])
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("file", "message"), [("tokenizer.json", "tokenizer"), ("1_DuplexPooling/model.safetensors", "")]
)
def test_missing_files_are_one_sentence(file, message, copied) -> None:
    (copied / file).unlink()
    if file == "tokenizer.json":
        (copied / "vocab.txt").write_text("ba\n")  # so that the folder has a tokenizer all the same
    with pytest.raises(DupmaeError, match=message):
        OnnxQueries(open_model(str(copied)))


def test_without_onnx_runtime_the_model_is_loaded_in_pytorch_with_a_warning(saved, monkeypatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    model = open_model(str(saved))
    with pytest.raises(DupmaeError, match="pip install onnxruntime"):
        open_queries(model, "onnx")
    assert isinstance(open_queries(model), DuplexEncoder)
    assert "pip install onnxruntime" in caplog.text
    assert "loaded in PyTorch" in caplog.text


SEARCH = """
import sys
from dupmae.cli import main
assert main(["search", sys.argv[1], "ba be", "--k", "1"]) == 0
heavy = {"torch", "transformers", "sentence_transformers", "huggingface_hub", "datasets", "numba", "pandas", "bm25s"}
heavy &= set(sys.modules)
print("heavy:", sorted(heavy))
"""


def test_a_search_by_command_imports_no_pytorch(saved, tmp_path) -> None:
    from dupmae.corpus import Passage
    from dupmae.index import DuplexIndex

    passages = [Passage("a", "", "ba be bi"), Passage("b", "", "bo bu")]
    DuplexIndex.build(tmp_path / "index", DuplexEncoder(str(saved), device="cpu"), passages)
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(tmp_path / "index")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "dense" in done.stdout
    assert done.stdout.endswith("heavy: []\n")
    assert done.stderr == ""
