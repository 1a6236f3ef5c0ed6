"""A folder of ours in plain sentence-transformers: loaded, trained, saved, measured; unpacked; sent to the hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator
from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss

from dupmae import DuplexEncoder
from dupmae.cli import main


def test_it_trains_and_is_saved_and_loaded_there(duplex_folder, texts, tmp_path) -> None:
    model = SparseEncoder(str(duplex_folder), trust_remote_code=True, device="cpu")
    before = model.encode_document(texts[:2]).to_dense().numpy()
    ranking = SparseMultipleNegativesRankingLoss(model, scale=1.0)  # which there always stands in another
    trainer = SparseEncoderTrainer(
        model=model,
        args=SparseEncoderTrainingArguments(
            output_dir=str(tmp_path / "trainer"),
            max_steps=2,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"anchor": texts[:8], "positive": texts[4:12]}),
        loss=SpladeLoss(model, ranking, document_regularizer_weight=1e-3),
    )
    trainer.train()
    after = model.encode_document(texts[:2]).to_dense().numpy()
    assert np.abs(after - before).max() > 1e-4
    model.save(str(tmp_path / "trained"))
    again = SparseEncoder(str(tmp_path / "trained"), trust_remote_code=True, device="cpu")
    np.testing.assert_allclose(again.encode_document(texts[:2]).to_dense().numpy(), after, rtol=1e-5)
    ours = DuplexEncoder(str(tmp_path / "trained"), device="cpu")
    assert ours.words is not None  # which plain sentence-transformers has carried along
    np.testing.assert_allclose(
        ours.encode_document(texts[:2]).to_dense().numpy()[:, : after.shape[1]], after, rtol=1e-5
    )


def test_its_evaluator_measures_it(duplex_folder, texts) -> None:
    model = SparseEncoder(str(duplex_folder), trust_remote_code=True, device="cpu")
    corpus = {str(number): text for number, text in enumerate(texts)}
    queries, relevant = {"q": texts[3]}, {"q": {"3"}}
    evaluator = SparseInformationRetrievalEvaluator(queries, corpus, relevant, ndcg_at_k=[10], name="tiny")
    found = evaluator(model)
    theirs = next(float(value) for name, value in found.items() if name.endswith("dot_ndcg@10"))
    encoder = DuplexEncoder(str(duplex_folder), device="cpu")
    scores = encoder.similarity(encoder.encode_query([texts[3]]), encoder.encode_document(list(corpus.values())))[0]
    rank = int((scores > scores[3]).sum())
    assert theirs == pytest.approx(1 / np.log2(rank + 2) if rank < 10 else 0.0)


def test_decode_names_every_dimension() -> None:
    encoder = DuplexEncoder("dupmae-small", device="cpu")
    vectors = encoder.encode_query(["ships at night", "bread"])
    decoded: list[Any] = encoder.decode(vectors, top_k=500)
    first, second = decoded
    assert {"ships", "dense 0", "dense 383"} <= {name for name, _ in first}
    assert any(name.startswith("word ") for name, _ in second)
    assert [weight for _, weight in first] == sorted((weight for _, weight in first), reverse=True)
    assert encoder.decode(vectors[1], top_k=3) == second[:3]
    assert encoder.decode(vectors.to_dense()[1], top_k=3) == second[:3]
    assert sum(weight**2 for _, weight in first) == pytest.approx(float((vectors[0].to_dense() ** 2).sum()), rel=1e-5)
    with pytest.raises(ValueError, match="ask for one"):
        encoder.decode(vectors, top_k=0)


def test_unpack_writes_a_folder(tmp_path, capsys) -> None:
    assert main(["unpack", "dupmae-small", str(tmp_path / "small")]) == 0
    encoder = DuplexEncoder(str(tmp_path / "small"), device="cpu")
    assert encoder.words is not None
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    assert main(["unpack", "dupmae-small", str(tmp_path / "other")]) == 2
    (tmp_path / "other" / "config.json").write_text("{}")  # as programs of all kinds have
    assert main(["unpack", "dupmae-small", str(tmp_path / "other")]) == 2
    assert (tmp_path / "other" / "letter.txt").read_text() == "dear"
    assert main(["unpack", "dupmae-small", str(tmp_path / "small")]) == 0
    capsys.readouterr()
    assert main(["unpack", str(tmp_path / "small"), str(tmp_path / "small" / "copy")]) == 2
    assert "lies in the model itself" in capsys.readouterr().err
    assert not list((tmp_path / "small").glob("*copy*"))


def test_what_is_sent_to_the_hub_is_the_model(duplex_folder, texts, tmp_path, monkeypatch) -> None:
    """To the last step before the network."""
    sent = tmp_path / "sent"

    class Api:
        def __init__(self, **_) -> None: ...

        def create_repo(self, repo_id, **_):
            return type("Url", (), {"repo_id": repo_id})()

        def upload_folder(self, *, folder_path, **_):
            shutil.copytree(folder_path, sent)
            return type("Commit", (), {"commit_url": "https://hub/commit"})()

    monkeypatch.setattr("sentence_transformers.base.model.HfApi", Api)
    encoder = DuplexEncoder(str(duplex_folder), device="cpu")
    encoder.push_to_hub("somebody/model")
    assert (sent / "modeling_duplex.py").is_file()
    card = (sent / "README.md").read_text(encoding="utf-8")
    assert "DuplexEncoder" in card
    again = DuplexEncoder(str(sent), device="cpu")
    np.testing.assert_array_equal(again.embed_documents(texts).cls, encoder.embed_documents(texts).cls)
    assert not list(Path(sent).rglob("*.bin"))
