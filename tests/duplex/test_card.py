"""A model's card says what is known of it, in the metadata of hubs too, and nothing of its base model's card."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard

from dupmae.duplex import DuplexEncoder
from dupmae.duplex.card import Figure


def test_a_card_inherits_nothing(duplex_folder: Path, tmp_path: Path) -> None:
    encoder = DuplexEncoder(str(duplex_folder), device="cpu")
    encoder.model_card_data.license = "cc-by-nc-4.0"  # of its base model
    encoder.model_card_data.language = ["xx"]
    encoder.history = "Fine-tuned on pairs."
    encoder.save(str(tmp_path / "model"))
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.license is None
    assert card.data.language == "en"  # of its words
    assert card.data.base_model is None  # a folder of this machine
    assert card.data.library_name == "sentence-transformers"
    assert "model-index" not in card.content
    assert "Fine-tuned on pairs." in card.text
    for words in ("trust_remote_code=True", "encode_query", "encode_document", "DuplexEncoder"):
        assert words in card.text
    assert str(tmp_path) not in card.content.replace(str(tmp_path / "model"), "")


def test_figures_stand_where_hubs_read_them(duplex_folder: Path, tmp_path: Path) -> None:
    encoder = DuplexEncoder(str(duplex_folder), device="cpu")
    encoder.history = "Fine-tuned."
    encoder.figures = [Figure("pairs.jsonl", "held-out queries", "ndcg@10", 0.81239)]
    encoder.save(str(tmp_path / "tuned"))
    (result,) = ModelCard.load(tmp_path / "tuned" / "README.md").data.eval_results
    assert (result.dataset_name, result.dataset_split, result.metric_type) == (
        "pairs.jsonl",
        "held-out queries",
        "ndcg_at_10",
    )
    assert result.metric_value == 0.8124
