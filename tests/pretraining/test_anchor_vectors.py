"""Another model's vectors as the anchor: what they are, where they are kept, and what training makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from test_pretrain import kill_in_step, metrics, raise_interrupt, settings, weights
from transformers import AutoModelForMaskedLM, AutoTokenizer

from dupmae.config import PretrainConfig
from dupmae.errors import DupmaeError
from dupmae.pretraining import anchor_vectors, pretrain, trainer
from dupmae.pretraining.anchor_vectors import AnchorVectors, WithVectors, encode_store, open_anchor_model
from dupmae.pretraining.checkpoint import load_for_pretraining
from dupmae.pretraining.data import collator
from dupmae.pretraining.masking import step_generator
from dupmae.runtime.processes import join_processes

OFF = {"mlm_weight": 0.0, "cls_weight": 0.0, "bow_weight": 0.0}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four blocks of the store, the last of them shorter."""
    monkeypatch.setattr(anchor_vectors, "BLOCK", 8)
    join_processes()


@pytest.fixture(scope="module")
def teacher(embedder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedder twice as wide as the student, which reads a prompt before documents."""
    folder = tmp_path_factory.mktemp("teachers") / "teacher"
    model = SentenceTransformer(str(embedder_folder), prompts={"document": "ba be bi : "}, device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


def anchored(teacher: Path, **changes: Any) -> PretrainConfig:
    return settings(anchor_model=str(teacher), anchor_weight=5.0, **changes)


def encoded(store: Any, teacher: Path, folder: Path) -> AnchorVectors:
    config = anchored(teacher)
    model = open_anchor_model(config)
    assert model is not None
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    return encode_store(store, tokenizer, model, folder, config)


def blocks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.npy"))}


# The vectors


def test_they_are_what_the_model_makes_of_the_original_texts_with_its_prompt(
    store: Any, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "keeps_texts", True)
    vectors = encoded(store, teacher, tmp_path)
    embedder = SentenceTransformer(str(teacher), device="cpu")
    texts = store.texts(0, len(store))
    expected = embedder.encode([f"ba be bi : {text}" for text in texts], normalize_embeddings=True)
    found = np.stack([vectors[number] for number in range(len(store))])
    assert vectors.width == 32
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert not np.allclose(found, embedder.encode(texts, normalize_embeddings=True), atol=1e-3)


def test_without_original_texts_it_reads_what_the_tokens_are_decoded_to(
    store: Any, checkpoint: Callable[[str], Path], teacher: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint("bert"))
    config = anchored(teacher)
    vectors = encode_store(store, tokenizer, open_anchor_model(config), tmp_path, config)  # type: ignore[arg-type]
    names = [" ".join(f"w{number - 5}" for number in store[row]["input_ids"][1:-1]) for row in range(len(store))]
    expected = SentenceTransformer(str(teacher), device="cpu").encode_document(names, normalize_embeddings=True)
    np.testing.assert_allclose(np.stack([vectors[row] for row in range(len(store))]), expected, atol=1e-3)


def test_an_interrupted_call_goes_on_where_it_was(
    store: Any, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded(store, teacher, tmp_path / "whole")
    read = list[int]()
    texts_of = anchor_vectors._texts

    def noting(store: Any, tokenizer: Any, start: int, stop: int) -> list[str]:
        read.append(start)
        if len(read) == 3:
            raise KeyboardInterrupt
        return texts_of(store, tokenizer, start, stop)

    monkeypatch.setattr(anchor_vectors, "_texts", noting)
    with pytest.raises(KeyboardInterrupt):
        encoded(store, teacher, tmp_path / "cut")
    encoded(store, teacher, tmp_path / "cut")
    assert read == [0, 8, 16, 16, 24]
    assert blocks(tmp_path / "cut") == blocks(tmp_path / "whole")
    monkeypatch.setattr(anchor_vectors, "_encoder", None)  # nothing is left to do
    encoded(store, teacher, tmp_path / "cut")


@pytest.mark.parametrize(
    "harm",
    [
        lambda block: block[:3],
        lambda block: block.astype(np.float32),
        lambda block: block * np.array([[1]] * 7 + [[0]], np.float16),
        lambda block: np.where(np.arange(block.size).reshape(block.shape) == 9, np.float16(np.nan), block),
        lambda block: block[0],
        None,
    ],
)
def test_a_damaged_block_is_computed_again(
    store: Any, teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Any
) -> None:
    encoded(store, teacher, tmp_path)
    whole = blocks(tmp_path)
    file = next(tmp_path.rglob("000000008.npy"))
    if harm is None:
        file.write_bytes(file.read_bytes()[:-5])
    else:
        np.save(file, harm(np.load(file)))
    assert blocks(tmp_path) != whole
    encoded(store, teacher, tmp_path)
    assert blocks(tmp_path) == whole
    assert caplog.text.count(f"{file} are damaged") == 1


def test_another_model_and_another_store_have_vectors_of_their_own(
    store: Any, large_store: Any, teacher: Path, embedder_folder: Path, tmp_path: Path
) -> None:
    for one, model in ((store, teacher), (large_store, teacher), (store, embedder_folder), (store, teacher)):
        encoded(one, model, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


# The loss


@pytest.mark.parametrize("alone", [False, True])
def test_the_loss_is_that_of_vectors_computed_on_the_fly(
    store: Any, checkpoint: Callable[[str], Path], teacher: Path, tmp_path: Path, monkeypatch: Any, alone: bool
) -> None:
    monkeypatch.setattr(store, "keeps_texts", True)
    config = anchored(teacher, dense_pooling="mean", **(OFF if alone else {}))
    objective, _ = load_for_pretraining(str(checkpoint("bert")), config)
    objective.eval()
    vectors = encoded(store, teacher, tmp_path)
    file = tmp_path / "projection.npy"
    projection = anchor_vectors.projection_to(objective, store, vectors, 0, file)
    assert projection.shape == (16, 32)
    rows = [3, 9, 28, 12]
    items = [WithVectors(store, vectors, projection)[row] for row in rows]
    batch = collator(0, 40, 34)(items)
    generator = step_generator(torch.device("cpu"), 7)
    found = objective(**batch, generator=generator)
    states = objective.backbone.states(batch["input_ids"], batch["attention_mask"])  # of clean text
    own = objective.h_cls(states, batch["attention_mask"])
    texts = [store.texts(row, row + 1)[0] for row in rows]
    naive = SentenceTransformer(str(teacher), device="cpu").encode_document(texts, convert_to_tensor=True)
    expected = (1 - F.cosine_similarity(own, naive @ torch.from_numpy(projection).T)).mean()
    torch.testing.assert_close(found["anchor"], expected, atol=1e-4, rtol=1e-4)
    others = 0 if alone else found["mlm"] + found["cls"] + found["bow"]
    torch.testing.assert_close(found["loss"], 5 * found["anchor"] + others)
    assert set(found) == ({"anchor", "loss"} if alone else {"mlm", "cls", "bow", "anchor", "loss"})


# Training


def test_a_run_killed_in_the_vectors_and_in_training_ends_as_one_that_was_not(
    large_store: Any, checkpoint: Callable[[str], Path], teacher: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    store, base_model = large_store, str(checkpoint("bert-without-head"))
    config = anchored(teacher, eval_steps=2, save_steps=2)
    whole = pretrain(store, base_model, tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        patch.setattr(anchor_vectors, "_refuse_no_vectors", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrain(store, base_model, tmp_path / "cut", config)
    for step in (2, 3, 4):
        kill_in_step(monkeypatch, step, store, base_model, tmp_path / "cut", config)
        torch.manual_seed(999)
    resumed = pretrain(store, base_model, tmp_path / "cut", config)
    expected, actual = weights(whole), weights(resumed)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    for file in ("metrics.jsonl", "held_out.jsonl", "model/dupmae.json"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    assert blocks(tmp_path / "cut") == blocks(tmp_path / "whole")
    lines = metrics(tmp_path / "whole")
    assert ["anchor" in line for line in lines] == [False] * 3 + [True] * 6


def test_the_projection_is_thrown_away(
    store: Any, checkpoint: Callable[[str], Path], teacher: Path, tmp_path: Path
) -> None:
    plain = pretrain(store, str(checkpoint("bert")), tmp_path / "plain", settings())
    drawn = pretrain(store, str(checkpoint("bert")), tmp_path / "drawn", anchored(teacher))
    names = [{path.relative_to(folder).as_posix() for path in folder.rglob("*")} for folder in (plain, drawn)]
    assert names[0] == names[1]
    assert {name: tensor.shape for name, tensor in weights(plain).items()} == {
        name: tensor.shape for name, tensor in weights(drawn).items()
    }
    left = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert left == {"held_out.jsonl", "metrics.jsonl", "model", "pretrain.json", "vectors"}


def test_vectors_alone_come_nearer_and_leave_head_and_decoder_as_they_were(
    large_store: Any, checkpoint: Callable[[str], Path], teacher: Path, tmp_path: Path
) -> None:
    base_model = pretrain(large_store, str(checkpoint("bert")), tmp_path / "base", settings(steps=1))
    config = anchored(teacher, **OFF, steps=40, eval_steps=10, save_steps=100, learning_rate=5e-3, dense_pooling="mean")
    folder = pretrain(large_store, str(base_model), tmp_path / "run", config)
    lines = metrics(tmp_path / "run")
    assert [line["phase"] for line in lines] == ["joint"] * 40
    assert lines[0].keys() == {"phase", "step", "anchor", "loss", "learning_rate_encoder"}
    held_out = [json.loads(line) for line in (tmp_path / "run" / "held_out.jsonl").read_text().splitlines()]
    assert held_out[-1]["anchor"] < 0.5 * held_out[0]["anchor"]
    assert all(line["loss"] == pytest.approx(5 * line["anchor"]) for line in held_out)
    record = json.loads((folder / "dupmae.json").read_text(encoding="utf-8"))
    best = min(held_out[1:], key=lambda line: line["anchor"])
    assert record["kept"]["step"] == best["step"]
    assert "three losses" not in (folder / "README.md").read_text(encoding="utf-8")
    before, after = weights(base_model), weights(folder)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        untrained = name.startswith(("decoder.", "cls.")) and "word_embeddings" not in name
        tied = name == "cls.predictions.decoder.weight"
        if untrained and not tied:
            assert torch.equal(tensor, after[name]), name
    assert any(not torch.equal(before[name], after[name]) for name in before if "encoder.layer" in name)
    _, report = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]


def test_a_new_head_stays_as_it_was_solved_for(
    store: Any, checkpoint: Callable[[str], Path], teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solved: dict[str, torch.Tensor] = {}
    warm_start = trainer.warm_start_head

    def noting(objective: Any, *arguments: Any) -> None:
        warm_start(objective, *arguments)
        solved["weight"] = objective.backbone.output_weight.detach().clone()

    monkeypatch.setattr(trainer, "warm_start_head", noting)
    folder = pretrain(store, str(checkpoint("bert-without-head")), tmp_path / "run", anchored(teacher, **OFF))
    assert torch.equal(load_file(folder / "model.safetensors")["cls.predictions.decoder.weight"], solved["weight"])


def test_runs_that_share_a_folder_of_vectors_compute_them_once(
    store: Any, checkpoint: Callable[[str], Path], teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_model, shared = str(checkpoint("bert")), tmp_path / "shared"
    pretrain(store, base_model, tmp_path / "one", anchored(teacher, steps=1), vectors=shared)
    monkeypatch.setattr(anchor_vectors, "_encoder", None)
    pretrain(store, base_model, tmp_path / "two", anchored(teacher, steps=2), vectors=shared)
    assert not (tmp_path / "two" / "vectors").exists()


def test_a_finished_run_knows_its_anchor_model(
    store: Any, checkpoint: Callable[[str], Path], teacher: Path, tmp_path: Path
) -> None:
    base_model = str(checkpoint("bert"))
    folder = pretrain(store, base_model, tmp_path / "run", anchored(teacher, steps=1))
    assert pretrain(store, base_model, tmp_path / "run", anchored(teacher, steps=1)) == folder
    settings_file = teacher / "config_sentence_transformers.json"
    before = settings_file.read_text(encoding="utf-8")
    try:
        settings_file.write_text(before.replace("ba be bi", "bo bu da"), encoding="utf-8")
        (teacher / "SHA256SUMS").unlink(missing_ok=True)
        with pytest.raises(DupmaeError, match="other settings"):
            pretrain(store, base_model, tmp_path / "run", anchored(teacher, steps=1))
    finally:
        settings_file.write_text(before, encoding="utf-8")


# What is refused


def test_a_weight_of_zero_and_models_without_a_vector_are_refused_before_anything_is_written(
    store: Any, checkpoint: Callable[[str], Path], duplex_folder: Path, teacher: Path, tmp_path: Path
) -> None:
    base_model = str(checkpoint("bert"))
    cross_encoder = tmp_path / "cross-encoder"
    cross_encoder.mkdir()
    for file in Path(base_model).iterdir():
        (cross_encoder / file.name).write_bytes(file.read_bytes())
    declared = json.loads((cross_encoder / "config.json").read_text(encoding="utf-8"))
    declared["architectures"] = ["BertForSequenceClassification"]
    (cross_encoder / "config.json").write_text(json.dumps(declared), encoding="utf-8")
    refused = [
        ({"anchor_model": str(teacher)}, "anchor_weight is 0"),
        ({"anchor_model": str(cross_encoder), "anchor_weight": 1.0}, "is a cross-encoder, which scores pairs"),
        ({"anchor_model": str(duplex_folder), "anchor_weight": 1.0}, "is a duplex model"),
        ({"anchor_model": base_model, "anchor_weight": 1.0}, "do not say how a text's vector is made"),
        ({"anchor_model": str(tmp_path / "nowhere"), "anchor_weight": 1.0}, "anchor_model .*nowhere"),
        ({"anchor_model": "no-such/model-at-all", "anchor_weight": 1.0}, "anchor_model no-such/model-at-all"),
        ({**OFF, "anchor_weight": 1.0}, "an anchor_model with an anchor_weight"),
    ]
    for changes, sentence in refused:
        with pytest.raises(DupmaeError, match=sentence) as caught:
            pretrain(store, base_model, tmp_path / "run", settings(**changes))
        assert len(str(caught.value)) <= 500
        assert not (tmp_path / "run").exists()


def test_a_model_that_gives_no_direction_is_refused_and_the_folder_stays_free(
    store: Any, checkpoint: Callable[[str], Path], teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = anchor_vectors._encoder

    def silent(*arguments: Any) -> Any:
        encode = encoder(*arguments)
        return lambda texts: encode(texts) * (torch.arange(len(texts)) != 2)[:, None]

    monkeypatch.setattr(anchor_vectors, "_encoder", silent)
    with pytest.raises(DupmaeError, match="gives no vector of the token store's chunk 2 "):
        pretrain(store, str(checkpoint("bert")), tmp_path / "run", anchored(teacher))
    assert not (tmp_path / "run" / "pretrain.json").exists()


def test_a_damaged_projection_is_one_sentence(
    store: Any, checkpoint: Callable[[str], Path], teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = (store, str(checkpoint("bert")), tmp_path / "run", anchored(teacher, new_layers_steps=0))
    kill_in_step(monkeypatch, 4, *run)
    (tmp_path / "run" / "checkpoints" / "projection.npy").write_bytes(b"torn")
    with pytest.raises(DupmaeError, match=r"projection.npy is damaged .*delete the folder"):
        pretrain(*run)
