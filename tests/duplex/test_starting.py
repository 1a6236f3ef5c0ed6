"""What a duplex model is made of for fine-tuning: an encoder or a duplex model, in a folder or on the hub."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import set_seed

from dupmae.config import DuplexConfig
from dupmae.corpus import Passage
from dupmae.duplex import DuplexEncoder
from dupmae.duplex.starting import begin_duplex
from dupmae.errors import DupmaeError
from dupmae.models import Model, open_model

CORPUS = {f"p{number}": Passage(f"p{number}", "", f"ba be bi {number}") for number in range(30)}


@pytest.fixture
def duplex_folder(embedder_folder: Path, tmp_path: Path) -> Path:
    """A duplex model made of the embedder."""
    encoder = DuplexEncoder.from_encoder(str(embedder_folder), DuplexConfig(dense_pooling="mean", top_k=24))
    with torch.no_grad():
        encoder.pooling.entry_log_scale.normal_()
    encoder.save(str(tmp_path / "duplex"))
    return tmp_path / "duplex"


def test_a_duplex_model_on_the_hub_goes_on_as_one_in_a_folder_does(
    publish: Callable[[Path], str], duplex_folder: Path
) -> None:
    found = open_model(publish(duplex_folder))
    assert found.kind == "duplex"
    models = (found, Model(str(duplex_folder)))
    there, here = (begin_duplex(model, None, DuplexConfig(), CORPUS, 0) for model in models)
    assert there.pooling.dense_pooling == "mean"
    for one, other in zip(there.parameters(), here.parameters(), strict=True):
        assert torch.equal(one, other)


def test_settings_that_a_duplex_model_does_not_follow_are_told_of(
    duplex_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        begin_duplex(Model(str(duplex_folder)), None, DuplexConfig(dense_pooling="mean", query_max_length=9), CORPUS, 0)
        assert not caplog.text
        begin_duplex(Model(str(duplex_folder)), None, DuplexConfig(top_k=12, query_terms="logits"), CORPUS, 0)
    assert "top_k stays 24, not 12, query_terms stays tokens, not logits" in caplog.text


@pytest.mark.parametrize(("pooling", "told"), [("mean", False), ("cls", True)])
def test_an_encoder_that_is_read_off_another_vector_than_it_was_trained_for_is_told_of(
    pooling: str, told: bool, embedder_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        begin_duplex(Model(str(embedder_folder)), None, DuplexConfig(dense_pooling=pooling, top_k=24), CORPUS, 0)  # type: ignore[arg-type]
    assert ("was trained with the pooling mean, and dense_pooling is cls" in caplog.text) == told


def test_a_duplex_model_on_the_hub_is_opened_in_the_version_that_is_asked_for(
    publish: Callable[[Path], str], duplex_folder: Path, tmp_path: Path
) -> None:
    name = publish(duplex_folder)
    place = tmp_path / "hub" / "models--somebody--duplex"
    other = DuplexEncoder(str(duplex_folder))
    with torch.no_grad():
        other.pooling.cls_log_scale.fill_(1.5)
    other.save(str(place / "snapshots" / "def456"))
    (place / "refs" / "v2").write_text("def456", encoding="utf-8")
    assert DuplexEncoder(name, revision="v2").pooling.cls_log_scale == 1.5
    assert DuplexEncoder(name).pooling.cls_log_scale != 1.5


def test_an_encoder_on_the_hub_is_no_duplex_model(publish: Callable[[Path], str], embedder_folder: Path) -> None:
    with pytest.raises(DupmaeError, match="somebody/tiny-embedder does not hold a duplex model"):
        DuplexEncoder(publish(embedder_folder))


def test_an_encoders_own_prompts_are_read_unless_others_are_given(embedder_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(embedder_folder, tmp_path / "prompted"))
    file = folder / "config_sentence_transformers.json"
    prompts = {"query": "search: ", "passage": "text: "}
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"prompts": prompts}), encoding="utf-8")

    def begun(**settings: str) -> dict[str, str]:
        config = DuplexConfig(dense_pooling="mean", top_k=24, **settings)
        found: dict[str, str] = DuplexEncoder.from_encoder(str(folder), config).prompts
        return found

    assert begun() == {"query": "search: ", "document": "text: "}
    assert begun(query_prompt="") == {"query": "", "document": "text: "}
    assert begun(document_prompt="be ") == {"query": "search: ", "document": "be "}


def test_a_duplex_model_reads_what_it_did_unless_other_lengths_are_given(make_encoder, tmp_path):
    base = tmp_path / "base"
    make_encoder(query_max_length=6, document_max_length=9).save(str(base))
    for asked, query, document in (({}, 6, 9), ({"document_max_length": 20}, 6, 20), ({"query_max_length": 99}, 64, 9)):
        begun = begin_duplex(Model(str(base)), None, DuplexConfig(**asked), {}, seed=1)
        begun.save(str(tmp_path / "begun"))
        read = DuplexEncoder(str(tmp_path / "begun"))
        assert (read[0].query_length, read[0].document_length, read.max_seq_length) == (query, document, document)


@pytest.mark.parametrize("calibrated", [True, False])
def test_calibration_is_left_out_where_it_is_not_asked_for(
    calibrated: bool, embedder_folder: Path, words: list[str]
) -> None:
    corpus = {f"p{n}": Passage(f"p{n}", "", " ".join(words[n : n + 5])) for n in range(30)}
    config = DuplexConfig(dense_pooling="mean", top_k=24, dense_dimension=8, calibrate=calibrated)
    started = begin_duplex(Model(str(embedder_folder)), None, config, corpus, 3)
    set_seed(3)
    plain = DuplexEncoder.from_encoder(str(embedder_folder), config)
    moved = {
        name
        for (name, one), other in zip(started.pooling.named_parameters(), plain.pooling.parameters(), strict=True)
        if not torch.equal(one, other)
    }
    expected = {"cls_projection.weight", "output.weight", "output.bias", "entry_log_scale", "token_log_scale"}
    assert moved == (expected if calibrated else set())
