"""Names in files lead nowhere else: nothing outside a case's folder is read, written, moved or deleted."""

from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import Attack

NAMES = [
    "../../secret/words.txt",
    "{secret}/words.txt",
    "a/../../../secret/words.txt",
    "..",
    ".",
    "",
    "/",
    "a\x00b",
    "..\\..\\secret\\words.txt",
    "C:\\words.txt",
    "a/./../../../secret/x",
]


def repack(path: Path, change: Any) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    with safe_open(path, "numpy") as file:
        header = dict(file.metadata())
    change(tensors, header)
    save_file(tensors, path, metadata=header)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_a_packed_model_stays_in_its_folder(name: str, attack: Attack) -> None:
    attack.lay_out("models/packed.safetensors", "queries.txt")
    name = name.format(secret=attack.secret)

    def change(tensors: dict[str, Any], header: dict[str, str]) -> None:
        tensors[f"file:{name}"] = np.frombuffer(lzma.compress(b"attack"), np.uint8)

    repack(attack.case / "models/packed.safetensors", change)
    attack.run("encode", "--model", "models/packed.safetensors", "--input", "queries.txt", "--output", "out")


@pytest.mark.parametrize("name", NAMES[:8])
def test_weights_of_a_packed_model_stay_in_its_folder(name: str, attack: Attack) -> None:
    attack.lay_out("models/packed.safetensors", "queries.txt")
    name = name.format(secret=attack.secret)

    def change(tensors: dict[str, Any], header: dict[str, str]) -> None:
        records = json.loads(header["tensors"])
        for record in records:
            record["file"] = name
        header["tensors"] = json.dumps(records)

    repack(attack.case / "models/packed.safetensors", change)
    attack.refused("encode", "--model", "models/packed.safetensors", "--input", "queries.txt", "--output", "out")


@pytest.mark.parametrize("inside", ["tokenizer.json", "1_DuplexPooling/extra.txt", "private"])
def test_packing_takes_nothing_from_outside_the_folder(inside: str, attack: Attack) -> None:
    attack.lay_out("models/duplex")
    place = attack.case / "models/duplex" / inside
    if place.exists():
        shutil.move(place, attack.secret / place.name)
        place.symlink_to(attack.secret / place.name)
    else:
        place.symlink_to(attack.secret if inside == "private" else attack.secret / "words.txt")
    ended = attack.server.run(["pack", "models/duplex", "out.safetensors"])
    if ended["kind"] == "done":
        from safetensors.numpy import load_file

        names = [name for name in load_file(attack.case / "out.safetensors") if name.startswith("file:")]
        assert not any("words" in name or "extra" in name for name in names)
        assert inside != "tokenizer.json"


@pytest.mark.parametrize("path", ["../../../secret", "{secret}", "1_DuplexPooling/../../../../secret"])
def test_modules_of_a_model_lie_in_its_folder(path: str, attack: Attack) -> None:
    attack.lay_out("models/duplex", "queries.txt")
    model = attack.case / "models/duplex"
    for file in (model / "1_DuplexPooling").iterdir():
        shutil.copy(file, attack.secret)
    modules = json.loads((model / "modules.json").read_text("utf-8"))
    modules[1]["path"] = path.format(secret=attack.secret)
    (model / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    attack.refused("encode", "--model", "models/duplex", "--input", "queries.txt", "--output", "out")


def seal(index: Path, change: Any) -> None:
    """Change what a manifest says and give it the fingerprint of that."""
    from dupmae.files import fingerprint

    path = index / "manifest.json"
    values = json.loads(path.read_text("utf-8"))
    head = {name: values.pop(name) for name in ("format", "format_version", "check")}
    change(values)
    path.write_text(json.dumps(head | {"check": fingerprint(values)} | values), encoding="utf-8")


@pytest.mark.parametrize("name", ["../../secret/segment", "{secret}/segment", "segment-000001/../../../secret/segment"])
@pytest.mark.parametrize(
    "words",
    [
        ["search", "index", "kanad"],
        ["index", "compact", "index"],
        ["index", "verify", "index"],
        ["index", "delete", "index", "--ids", "p1"],
    ],
)
def test_segments_of_an_index_lie_in_its_folder(words: list[str], name: str, attack: Attack) -> None:
    attack.lay_out("models/duplex", "index")
    shutil.copytree(attack.case / "index/segment-000001", attack.secret / "segment")

    def change(values: dict[str, Any]) -> None:
        values["segments"][0]["name"] = name.format(secret=attack.secret)

    seal(attack.case / "index", change)
    attack.refused(*words)


@pytest.mark.parametrize("kind", ["deleted", "clusters"])
def test_further_files_of_an_index_lie_in_its_folder(kind: str, attack: Attack) -> None:
    attack.lay_out("models/duplex", "clustered")
    index = attack.case / "clustered"
    file = json.loads((index / "manifest.json").read_text("utf-8"))[kind]["name"]
    shutil.copy(index / file, attack.secret / file)

    def change(values: dict[str, Any]) -> None:
        values[kind]["name"] = f"../../secret/{file}"

    seal(index, change)
    attack.refused("search", "clustered", "kanad", "--terms", "4", "--probes", "1")


def test_a_run_that_is_put_in_place_moves_nothing_outside(attack: Attack) -> None:
    from dupmae.experiments.run_folder import NEXT_FOLDER, REPLACED_FILE

    attack.lay_out("models/encoder", "benchmark", "recipe.yaml", "run")
    for place in ("victim", "run/victim"):
        (attack.case / place).mkdir()
        (attack.case / place / "dear.txt").write_text(place, encoding="utf-8")
    (attack.case / "run" / NEXT_FOLDER).mkdir()
    record = json.dumps(["../victim", "../../case/victim", str(attack.case / "victim")])
    (attack.case / "run" / NEXT_FOLDER / REPLACED_FILE).write_text(record, encoding="utf-8")
    attack.run("run", "recipe.yaml")
    assert (attack.case / "victim/dear.txt").read_text("utf-8") == "victim"


def test_a_saved_data_set_reads_its_own_files(attack: Attack) -> None:
    import datasets

    attack.lay_out("models/duplex", "dataset")
    datasets.Dataset.from_list([{"_id": "s", "text": "kanad secretword"}]).save_to_disk(str(attack.case / "other"))
    shutil.move(attack.case / "other" / "data-00000-of-00001.arrow", attack.secret / "data.arrow")
    state = attack.case / "dataset/state.json"
    values = json.loads(state.read_text("utf-8"))
    values["_data_files"] = [{"filename": "../../secret/data.arrow"}]
    state.write_text(json.dumps(values), encoding="utf-8")
    attack.refused("encode", "--model", "models/duplex", "--input", "dataset", "--output", "out")


@pytest.mark.parametrize(
    "words",
    [
        ["encode", "--model", "models/duplex", "--input", "queries.txt", "--output", "out"],
        ["index", "build", "--model", "models/duplex", "--corpus", "corpus.jsonl", "--output", "out"],
        ["mine", "--source", "bm25", "--pairs", "pairs.jsonl", "--output", "out"],
        ["pack", "models/duplex", "out/packed.safetensors"],
        ["evaluate", "--run", "run.trec", "--qrels", "benchmark/qrels/test.tsv", "--json", "out/results.json"],
    ],
)
def test_links_that_lie_in_wait_under_guessed_names_are_not_followed(words: list[str], attack: Attack) -> None:
    attack.lay_out("models/duplex", "queries.txt", "corpus.jsonl", "pairs.jsonl", "benchmark", "run.trec")
    (attack.case / "out").mkdir()
    names = ["out", "results.json", "packed.safetensors", "negatives.jsonl", "mining.json", "manifest.json", "ids.json"]
    first = int(Path("/proc/self").readlink().name)
    for number in range(first, first + 400):  # the numbers that the next processes will get
        for name in names:
            for folder in (attack.case, attack.case / "out"):
                (folder / f".{name}.{number}.tmp").symlink_to(attack.secret / "words.txt")
    attack.server.run(words)
    assert (attack.secret / "words.txt").read_text("utf-8") == "kanad secretword lonat\n"
