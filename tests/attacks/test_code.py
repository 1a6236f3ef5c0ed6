"""Nothing that a file holds is run: pickles, custom code, classes that are named, tags, templates."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import COMMANDS, Attack

Door = tuple[list[str], Path]


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.mark), "w")


def pickled(mark: Path) -> bytes:
    return pickle.dumps(Payload(mark))


def as_torch(mark: Path) -> bytes:
    """A file of torch.save, whose pickle is the payload."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("archive/data.pkl", pickled(mark))
        file.writestr("archive/version", "3\n")
    return content.getvalue()


def as_numpy(mark: Path) -> bytes:
    content = io.BytesIO()
    np.save(content, np.array([Payload(mark)], object), allow_pickle=True)
    return content.getvalue()


def code(mark: Path, *classes: str) -> str:
    made = "".join(f"\nclass {name}:\n    pass\n" for name in classes)
    return f"open({str(mark)!r}, 'w').close()\n{made}"


def test_the_payloads_would_run(tmp_path: Path) -> None:
    import torch

    for number, read in enumerate((pickle.loads, lambda data: torch.load(io.BytesIO(data), weights_only=False))):
        mark = tmp_path / f"ran-{number}"
        read((pickled, as_torch)[number](mark))
        assert mark.exists()
    np.load(io.BytesIO(as_numpy(tmp_path / "ran")), allow_pickle=True)
    assert (tmp_path / "ran").exists()
    exec(code(tmp_path / "executed"))
    assert (tmp_path / "executed").exists()


def test_weights_that_are_pickles_are_not_unpickled(door: Door, attack: Attack) -> None:
    words, model = door
    for weights in list(model.rglob("*.safetensors")):
        weights.unlink()
        weights.with_name("pytorch_model.bin").write_bytes(as_torch(attack.ran))
        weights.with_name("model.pt").write_bytes(pickled(attack.ran))
    attack.refused(*words)


def test_a_pickle_under_the_name_of_safetensors_is_refused(door: Door, attack: Attack) -> None:
    words, model = door
    for weights in model.rglob("*.safetensors"):
        weights.write_bytes(pickled(attack.ran))
    attack.refused(*words)


@pytest.mark.parametrize("make", [pickled, as_torch])
def test_the_state_of_an_interrupted_run_is_not_unpickled(make: Any, attack: Attack) -> None:
    import fuzz_world

    attack.lay_out("models/encoder", "pairs.jsonl", "interrupted")
    for state in attack.case.glob("interrupted/**/*"):
        if state.suffix in (".pt", ".pth", ".bin"):
            state.write_bytes(make(attack.ran))
    attack.run("finetune", "--output", "interrupted", *fuzz_world.RESUMED)


def test_stored_vectors_that_are_pickles_are_not_unpickled(attack: Attack) -> None:
    words = ["evaluate", "--model", "models/embedder", "--benchmark", "benchmark", "--k", "20", "--output", "out"]
    attack.lay_out("models/embedder", "benchmark")
    attack.run(*words)
    arrays = list(attack.case.rglob("out/encodings/**/*.npy"))
    assert arrays
    for array in arrays:
        array.write_bytes(as_numpy(attack.ran))
    shutil.rmtree(attack.case / "out/runs")
    attack.run(*words)


@pytest.mark.parametrize("part", ["corpus.parquet", "dataset", "texts", "corpus.jsonl", "corpus.jsonl.gz"])
def test_a_corpus_that_is_a_pickle_is_not_unpickled(part: str, attack: Attack) -> None:
    attack.lay_out("models/duplex", part)
    place = attack.case / part
    for path in [place] if place.is_file() else list(place.rglob("*")):
        if path.is_file():
            path.write_bytes(pickled(attack.ran))
    attack.run("encode", "--model", "models/duplex", "--input", part, "--output", "out")


@pytest.mark.parametrize("kind", ["os.system", "evil.Pooling"])
def test_classes_that_modules_json_names_are_not_imported(kind: str, door: Door, attack: Attack) -> None:
    name_class(kind, *door, attack)


@pytest.mark.parametrize(
    "kind", ["builtins.exec", "subprocess.Popen", "modeling_evil.Pooling", "..evil.Pooling", "", "os"]
)
def test_other_classes_that_modules_json_names_are_not_imported(kind: str, attack: Attack) -> None:
    words, parts = COMMANDS["encode duplex"]
    attack.lay_out(*parts)
    name_class(kind, words, attack.case / "models/duplex", attack)


def name_class(kind: str, words: list[str], model: Path, attack: Attack) -> None:
    for name in ("evil.py", "modeling_evil.py"):
        (model / name).write_text(code(attack.ran, "Pooling"), encoding="utf-8")
        (attack.case / name).write_text(code(attack.ran, "Pooling"), encoding="utf-8")
    file = model / "modules.json"
    modules = json.loads(file.read_text("utf-8")) if file.exists() else []
    first = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    modules = [*(modules[:1] or [first]), {"idx": 1, "name": "1", "path": "1_DuplexPooling", "type": kind}]
    file.write_text(json.dumps(modules), encoding="utf-8")
    attack.run(*words)


def test_code_beside_a_model_is_not_run(door: Door, attack: Attack, change_json: Any) -> None:
    words, model = door
    (model / "modeling_evil.py").write_text(code(attack.ran, "Model", "Config", "Tokenizer"), encoding="utf-8")
    for folder in (model, model / "1_DuplexPooling"):
        if (folder / "config.json").exists():
            change_json(
                folder / "config.json",
                model_type="evil",
                auto_map={
                    "AutoConfig": "modeling_evil.Config",
                    "AutoModel": "modeling_evil.Model",
                    "AutoModelForMaskedLM": "modeling_evil.Model",
                    "AutoModelForSequenceClassification": "modeling_evil.Model",
                },
            )
    assert attack.run(*words)["kind"] == "refused" or words[0] == "pack"


def test_a_tokenizer_in_code_is_not_run(door: Door, attack: Attack, change_json: Any) -> None:
    words, model = door
    (model / "tokenization_evil.py").write_text(code(attack.ran, "Tokenizer"), encoding="utf-8")
    (model / "tokenizer.json").unlink()
    change_json(
        model / "tokenizer_config.json",
        tokenizer_class="Tokenizer",
        auto_map={"AutoTokenizer": ["tokenization_evil.Tokenizer", "tokenization_evil.Tokenizer"]},
    )
    assert attack.run(*words)["kind"] == "refused" or words[0] == "pack"


@pytest.mark.parametrize(
    "words",
    [
        ["encode", "--model", "models/duplex", "--input", "queries.txt", "--output", "out"],
        ["evaluate", "--model", "models/duplex", "--benchmark", "benchmark", "--k", "20"],
        ["search", "index", "kanad"],
        ["index", "add", "index", "--corpus", "more.jsonl"],
        ["pack", "models/duplex", "out.safetensors"],
    ],
)
def test_the_copy_of_our_own_module_in_a_model_is_not_run(words: list[str], attack: Attack) -> None:
    attack.lay_out("models/duplex", "queries.txt", "benchmark", "index", "more.jsonl")
    model = attack.case / "models/duplex"
    for place in (model / "modeling_duplex.py", model / "1_DuplexPooling/modeling_duplex.py", model / "__init__.py"):
        place.write_text(code(attack.ran, "DuplexPooling"), encoding="utf-8")
    attack.run(*words)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['{}']", "!!python/name:os.system", "!!python/module:os"]
)
@pytest.mark.parametrize("words", [["run", "recipe.yaml", "--dry_run"], ["evaluate", "--config", "recipe.yaml"]])
def test_tags_of_settings_are_not_constructed(words: list[str], tag: str, attack: Attack) -> None:
    attack.lay_out("models/encoder", "benchmark")
    text = f"{'name' if words[0] == 'run' else 'qrels'}: {tag.format(f'touch {attack.ran}')}\n"
    (attack.case / "recipe.yaml").write_text(text, encoding="utf-8")
    attack.run(*words)


def test_templates_are_not_rendered(door: Door, attack: Attack, change_json: Any) -> None:
    words, model = door
    template = (
        "{{ cycler.__init__.__globals__.os.popen('touch " + str(attack.ran) + "').read() }}"
        "{% for a in range(10**9) %}{{ a }}{% endfor %}"
    )
    change_json(model / "tokenizer_config.json", chat_template=template)
    for name in ("chat_template.jinja", "README.md"):
        (model / name).write_text(template, encoding="utf-8")
    attack.run(*words)
