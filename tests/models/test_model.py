"""What a model is, by its files: in folders and on the hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dupmae.errors import DupmaeError
from dupmae.files import file_sha256
from dupmae.models import Model, is_duplex, model_file, model_fingerprint, open_model

RECORD = "config_sentence_transformers.json"
DENSE = [{"type": "sentence_transformers.models.Transformer", "path": ""}]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Model]:
    """Writes a model's JSON files, which are named without their ending."""

    def make(**files: Any) -> Model:
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return Model(str(tmp_path))

    return make


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"modules": [{"type": "modeling_duplex.DuplexPooling", "path": ""}]}, "duplex"),
        ({"modules": DENSE, "config_sentence_transformers": {"model_type": "SparseEncoder"}}, "sparse"),
        ({"modules": DENSE, "config_sentence_transformers": {"model_type": "SentenceTransformer"}}, "dense"),
        ({"modules": DENSE}, "dense"),
        ({"modules": DENSE, "config": {"architectures": ["Qwen3ForCausalLM"]}}, "dense"),
        ({"modules": DENSE, "config_sentence_transformers": {"model_type": "CrossEncoder"}}, "cross-encoder"),
        ({"config": {"architectures": ["BertForSequenceClassification"]}}, "cross-encoder"),
        ({"config": {"architectures": ["Qwen3ForCausalLM"]}}, "cross-encoder"),
        ({"config": {"architectures": ["BertForMaskedLM"]}}, "encoder"),
        ({"config": {"architectures": None}}, "encoder"),
        ({}, "encoder"),
    ],
)
def test_a_models_kind_is_what_its_files_say(files: dict[str, Any], kind: str, write: Callable[..., Model]) -> None:
    assert write(**files).kind == kind


def test_models_that_libraries_have_saved_are_of_their_kind(
    bert_folder: Path, embedder_folder: Path, duplex_folder: Path
) -> None:
    kinds = [open_model(str(folder)).kind for folder in (bert_folder, embedder_folder, duplex_folder)]
    assert kinds == ["encoder", "dense", "duplex"]


def test_a_model_on_the_hub_is_of_its_kind_unless_it_is_not_there(
    embedder_folder: Path, bert_folder: Path, publish: Callable[[Path], str]
) -> None:
    assert open_model(publish(embedder_folder)).kind == "dense"
    assert open_model(publish(bert_folder)).kind == "encoder"
    assert open_model("somebody/nothing").kind == "encoder"
    assert model_file("somebody/nothing", "modules.json") is None


def test_a_duplex_model_on_the_hub_is_opened_as_a_folder_and_another_by_its_id(
    duplex_folder: Path, embedder_folder: Path, publish: Callable[[Path], str], tmp_path: Path
) -> None:
    found = open_model(publish(duplex_folder))
    assert found.kind == "duplex"
    assert Path(found.path).is_relative_to(tmp_path / "hub")
    name = publish(embedder_folder)
    assert open_model(name) == Model(name)


def test_a_folder_that_holds_no_model_is_not_opened(bert_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DupmaeError, match=r"holds no model \(no config.json\): name the folder of one"):
        open_model(str(tmp_path))
    (tmp_path / "model").mkdir()
    shutil.copytree(bert_folder, tmp_path / "model", dirs_exist_ok=True)
    with pytest.raises(DupmaeError, match=f"holds no model: is {tmp_path / 'model'} meant?"):
        open_model(str(tmp_path))
    assert open_model(str(tmp_path / "model")).path == str(tmp_path / "model")


def test_a_duplex_folder_is_told_from_other_models(write: Callable[..., Model], tmp_path: Path) -> None:
    assert not is_duplex("org/model")
    assert not is_duplex(str(tmp_path))
    write(modules=DENSE)
    assert not is_duplex(str(tmp_path))
    write(modules=[*DENSE, {"type": "dupmae_module.DuplexPooling"}])
    assert is_duplex(str(tmp_path))


# Fingerprints


def test_fingerprint_follows_the_contents_and_not_the_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "1_Pooling").mkdir(parents=True)
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "b" / "README.md").write_text("a model card does not count", encoding="utf-8")
    first = model_fingerprint(str(tmp_path / "a"))
    assert model_fingerprint(str(tmp_path / "b")) == first
    (tmp_path / "b" / "1_Pooling" / "config.json").write_text('{"mean": true}', encoding="utf-8")
    assert model_fingerprint(str(tmp_path / "b")) != first
    (tmp_path / "a" / "pytorch_model.bin").write_bytes(b"weights in the older format")
    assert model_fingerprint(str(tmp_path / "a")) != first
    assert model_fingerprint("org/one") != model_fingerprint("org/two")


def test_all_weights_are_read_once_for_a_models_fingerprint(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def count(path: Path) -> str:
        read.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr("dupmae.runtime.checksums.file_sha256", count)
    folder = Path(shutil.copytree(bert_folder, tmp_path / "model"))
    model = open_model(str(folder))
    assert read == []
    assert model.fingerprint == model.fingerprint == model_fingerprint(str(folder))
    assert read.count("model.safetensors") == 1
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert model_fingerprint(str(folder)) == model.fingerprint
    assert read.count("model.safetensors") == 2  # for it may have changed


def test_a_new_version_of_a_model_on_the_hub_has_another_fingerprint(
    publish: Callable[[Path], str], embedder_folder: Path, tmp_path: Path
) -> None:
    name = publish(embedder_folder)
    before = model_fingerprint(name)
    assert before == model_fingerprint(name)
    place = tmp_path / "hub" / f"models--somebody--{embedder_folder.name}"
    (place / "snapshots" / "abc123").rename(place / "snapshots" / "def456")
    (place / "refs" / "main").write_text("def456", encoding="utf-8")
    assert model_fingerprint(name) != before


# What it was trained for


def test_the_pooling_of_a_model_is_what_its_files_say(
    publish: Callable[[Path], str], embedder_folder: Path, bert_folder: Path, duplex_folder: Path
) -> None:
    assert Model(str(embedder_folder)).pooling == Model(publish(embedder_folder)).pooling == "mean"
    assert Model(publish(bert_folder)).pooling is None
    assert Model(str(duplex_folder)).pooling == "cls"


def test_the_pooling_of_a_checkpoint_is_what_its_record_says(write: Callable[..., Model]) -> None:
    assert write(config={}, dupmae={"dense_pooling": "mean"}).pooling == "mean"


def test_a_pooling_that_is_none_of_ours_is_none(embedder_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(embedder_folder, tmp_path / "model"))
    (file,) = folder.glob("*Pooling/config.json")
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(settings | {"pooling_mode": "max"}), encoding="utf-8")
    assert Model(str(folder)).pooling is None


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_prompts_are_those_of_the_files_whatever_the_documents_is_called(
    name: str, write: Callable[..., Model]
) -> None:
    model = write(config_sentence_transformers={"prompts": {"query": "search: ", name: "text: "}})
    assert model.prompts == {"query": "search: ", "document": "text: "}


def test_the_prompts_of_a_checkpoint_are_what_its_record_says(write: Callable[..., Model]) -> None:
    model = write(dupmae={"prompts": {"query": "q: "}}, config_sentence_transformers={"prompts": {"query": "other: "}})
    assert model.prompts == {"query": "q: ", "document": ""}


def test_a_model_without_prompts_has_empty_ones(write: Callable[..., Model]) -> None:
    assert write(config_sentence_transformers={"prompts": None}).prompts == {"query": "", "document": ""}


def test_a_damaged_part_of_a_duplex_model_is_named_by_its_place(duplex_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(duplex_folder, tmp_path / "model"))
    part = folder / "1_DuplexPooling" / "model.safetensors"
    part.write_bytes(part.read_bytes()[:-8])
    with pytest.raises(DupmaeError, match=r"model: 1_DuplexPooling/model\.safetensors holds [\d,]+ of [\d,]+ bytes"):
        open_model(str(folder))


def test_an_encoder_may_lie_beside_prompts_of_its_own_and_an_embedder_not_without_its_modules(
    bert_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bert_folder, tmp_path / "model"))
    declaration = folder / "config_sentence_transformers.json"
    declaration.write_text('{"prompts": {"query": "q: "}}', encoding="utf-8")
    assert open_model(str(folder)).prompts["query"] == "q: "
    declaration.write_text('{"model_type": "SentenceTransformer"}', encoding="utf-8")
    with pytest.raises(DupmaeError, match=r"config_sentence_transformers\.json, but no modules\.json"):
        open_model(str(folder))
