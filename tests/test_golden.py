"""What earlier versions left on disk still opens and gives what it gave (`golden/0.1/README.md` says what there is)."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SparseEncoder

from dupmae import DuplexConfig, DuplexEmbeddings, DuplexEncoder, DuplexIndex, read_passages
from dupmae.cli import load_recipe
from dupmae.config import Recipe
from dupmae.config.renamed import with_new_names
from dupmae.corpus import TokenStore
from dupmae.models import model_fingerprint, resolve_model
from dupmae.vocabulary import linear_max_pool

GOLDEN = Path(__file__).parent / "golden" / "0.1"
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))
QUERIES: list[str] = EXPECTED["queries"]


@pytest.fixture
def golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of 0.1, which are embedded in float32 on every machine."""
    monkeypatch.setattr("dupmae.duplex.inference.bfloat16_pays", lambda _: False)
    shutil.unpack_archive(GOLDEN / "files.tar.xz", tmp_path / "golden", filter="data")
    return tmp_path / "golden"


def scores(encoder: SparseEncoder, golden: Path) -> Any:
    """A row a query, a column a passage."""
    texts = [passage.full_text for passage in read_passages(golden / "data" / "corpus.jsonl")]
    return encoder.similarity(encoder.encode_query(QUERIES), encoder.encode_document(texts)).numpy()


def found(index: DuplexIndex) -> tuple[list[list[str]], Any]:
    """Ids of each query's five best passages, and of each passage score, dense part and vocabulary part."""
    index.encoder.to("cpu")  # type: ignore[attr-defined]
    hits = index.search(QUERIES, k=5)
    parts = [[[hit.score, hit.dense_score, hit.lexical_score] for hit in row] for row in hits]
    return [[hit.id for hit in row] for row in hits], parts


def arrays(embeddings: DuplexEmbeddings) -> dict[str, Any]:
    """Their three arrays."""
    return {"dense": embeddings.cls, "ids": embeddings.ids, "weights": embeddings.weights}


def assert_close(values: Any, expected: Any) -> None:
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


def assert_finds(index: DuplexIndex, expected: dict[str, Any]) -> None:
    """The index has as many passages and finds the same."""
    assert len(index) == expected["passages"]
    ids, parts = found(index)
    assert ids == [[hit[0] for hit in row] for row in expected["hits"]]
    assert_close(parts, [[hit[1:] for hit in row] for row in expected["hits"]])


def test_a_model_of_0_1_scores_as_it_did(golden: Path) -> None:
    encoder = DuplexEncoder(str(golden / "model"), device="cpu")
    assert_close(scores(encoder, golden), EXPECTED["model"]["scores"])


def test_a_model_of_0_1_has_the_fingerprint_that_it_had(golden: Path) -> None:
    assert model_fingerprint(str(golden / "model")) == EXPECTED["model"]["fingerprint"]


def test_plain_sentence_transformers_scores_with_a_model_of_0_1_as_it_did(golden: Path) -> None:
    plain = SparseEncoder(str(golden / "model"), trust_remote_code=True, device="cpu")
    assert type(plain) is SparseEncoder
    assert_close(scores(plain, golden), EXPECTED["model"]["scores"])


def test_the_code_in_a_model_of_0_1_takes_the_fast_kernel_of_the_package(golden: Path) -> None:
    plain = SparseEncoder(str(golden / "model"), trust_remote_code=True, device="cpu")
    code = sys.modules[type(plain[-1]).__module__]
    assert Path(str(code.__file__)).read_bytes() == (golden / "model" / "modeling_duplex.py").read_bytes()
    assert code.linear_max_pool is linear_max_pool  # and not its own loop


def test_a_packed_model_of_0_1_scores_as_it_did(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = resolve_model(str(golden / "packed.safetensors"))
    assert Path(folder).is_relative_to(tmp_path / "cache")
    assert_close(scores(DuplexEncoder(folder, device="cpu"), golden), EXPECTED["packed"]["scores"])


def test_a_checkpoint_of_0_1_is_a_start(golden: Path) -> None:
    config = DuplexConfig(dense_pooling="mean", top_k=24, words="none")
    encoder = DuplexEncoder.from_encoder(str(golden / "run" / "2-pretrain" / "model"), config)
    assert_close(scores(encoder.to("cpu"), golden), EXPECTED["checkpoint"]["scores"])


def test_an_index_of_0_1_finds_what_it_found(golden: Path) -> None:
    index = DuplexIndex.open(golden / "index")
    index.verify()
    assert_finds(index, EXPECTED["index"])


def test_an_index_of_0_1_still_knows_its_metadata(golden: Path) -> None:
    index = DuplexIndex.open(golden / "index")
    (hits,) = index.search(QUERIES[:1], k=24, where={"place": "sea", "year": 1820})
    assert sorted(hit.id for hit in hits) == ["p09", "p15", "p21"]  # p03 was deleted
    assert hits[0].metadata == {"place": "sea", "year": "1820"}


def test_an_index_of_0_1_can_still_be_changed(golden: Path) -> None:
    index = DuplexIndex.open(golden / "index")
    ids, _ = found(index)
    (best,) = [passage for passage in read_passages(golden / "data" / "corpus.jsonl") if passage.id == ids[0][0]]
    index.delete([best.id])
    assert found(index)[0][0][:4] == ids[0][1:]
    index.add([best])
    index.compact()
    assert_finds(index, EXPECTED["index"])


def test_a_token_store_of_0_1_is_read(golden: Path) -> None:
    for folder in (golden / "store", golden / "run" / "1-store" / "store"):
        store = TokenStore.open(folder)
        assert len(store) == EXPECTED["store"]["counts"]["chunks"]
        assert store.report == EXPECTED["store"]["counts"]
        assert store.fingerprint == EXPECTED["store"]["fingerprint"]
        assert store[0]["input_ids"].tolist() == EXPECTED["store"]["first_token_ids"]


def test_embeddings_of_0_1_are_read(golden: Path) -> None:
    embeddings = DuplexEmbeddings.load(golden / "embeddings")
    assert len(embeddings) == 24
    for name, values in arrays(embeddings).items():
        assert_close(values.sum(axis=0), EXPECTED["embeddings"][name])


def test_a_run_folder_of_0_1_has_its_index_its_model_and_its_report(golden: Path) -> None:
    run, expected = golden / "run", EXPECTED["run"]
    assert_finds(DuplexIndex.open(run / "index"), expected)
    assert_close(scores(DuplexEncoder(str(run / "7-distil" / "model"), device="cpu"), golden), expected["scores"])
    assert json.loads((run / "report.json").read_text(encoding="utf-8"))["systems"] == expected["systems"]


def test_a_recipe_of_0_1_says_what_its_run_folder_says(golden: Path) -> None:
    recipe = json.loads((golden / "run" / "run.json").read_text(encoding="utf-8"))["recipe"]
    recorded = with_new_names("", recipe)
    with_defaults = {  # of the settings that have come since
        name: default | recorded[name] if isinstance(default, dict) else recorded[name]
        for name, default in asdict(Recipe()).items()
    }
    assert asdict(load_recipe(GOLDEN / "recipe.yaml")) == with_defaults
