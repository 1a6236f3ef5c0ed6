"""Whatever fails while something is written: the old one or the new one is there, and the next call succeeds."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import Fault, every_fault

from dupmae.cli.failures import explain
from dupmae.corpus import Passage, write_benchmark, write_run


@dataclass
class Door:
    """Something that is written."""

    old: Callable[[Path], object]
    """Writes the old state into an empty folder."""
    change: Callable[[Path], object]
    """Writes the new state over it."""
    state: Callable[[Path], object]
    """Reads which state there is."""
    resumes: bool = False
    """Whether it is put in place by parts: the next call does the rest, and names of its own may stay in folders."""


@pytest.fixture(
    params=[
        "json",
        "benchmark",
        "TREC run",
        "token store",
        "packed",
        "unpacked",
        "embeddings",
        "run",
        "run again",
        "lists",
    ]
)
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Door:
    make: dict[str, Callable[[], Door]] = {
        "json": _json,
        "benchmark": _benchmark,
        "TREC run": _ranking,
        "token store": _store,
        "packed": lambda: _packed(tmp_path / "model"),
        "unpacked": lambda: _unpacked(tmp_path / "model"),
        "embeddings": _embeddings,
        "run": lambda: _run(1),
        "run again": lambda: _run(2),
        "lists": _lists,
    }
    return make[request.param]()


def test_the_old_or_the_new_is_there_whatever_fails(door: Door, tmp_path: Path) -> None:
    numbers = itertools.count()
    made = {}
    for name in ("old", "new"):
        folder = tmp_path / name / "f"
        folder.mkdir(parents=True)
        door.old(folder)
        if name == "new":
            door.change(folder)
        made[name] = door.state(folder)
    assert made["old"] != made["new"]
    names = _visible(tmp_path / "new" / "f")

    def prepare() -> Path:
        folder = tmp_path / str(next(numbers)) / "f"
        folder.mkdir(parents=True)
        door.old(folder)
        return folder

    def check(folder: Path, fault: Fault) -> None:
        if fault.error is None and not fault.lost:
            assert door.state(folder) == made["new"]
            return
        assert door.state(folder) in made.values() or (door.resumes and door.state(folder) is None)
        if fault.error is not None and not fault.lost:
            told = explain(fault.error, {"output": str(folder)}, resumable=True)
            assert told is not None, "a traceback"
            assert len(told[0]) <= 500
            assert "\n" not in told[0]
            hidden = [name for name in _visible(folder) if name.startswith(".") or "/." in name]
            assert door.resumes or not hidden or fault.operation.startswith(("unlink", "rmdir"))
        if fault.lost:
            _unlock_all_below(folder)
        door.change(folder)
        assert door.state(folder) == made["new"]
        left = [name for name in _visible(folder) if not (door.resumes and "/." in name)]
        assert left == names, "something is left behind"
        shutil.rmtree(folder.parent)

    assert every_fault(prepare, door.change, check, kinds=("EIO", "ENOSPC", "kill", "power")) > 5


def _all(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _unlock_all_below(folder: Path) -> None:
    """Close the folders that a process that died would no longer have open: their locks go with it."""
    for descriptor in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            if str(descriptor.readlink()).startswith(f"{folder}/") and descriptor.is_dir():
                os.close(int(descriptor.name))


def _visible(folder: Path) -> list[str]:
    """List what there is but for locks."""
    return [name for name in _all(folder) if "lock" not in name]


def _json() -> Door:
    from dupmae.files import write_json

    return Door(
        lambda folder: write_json(folder / "results.json", {"a": 1}),
        lambda folder: write_json(folder / "results.json", {"a": [2] * 1000}),
        lambda folder: json.loads((folder / "results.json").read_text("utf-8")),
    )


def _benchmark() -> Door:
    def write(texts: list[str]) -> Callable[[Path], object]:
        passages = [Passage(f"p{n}", "", text) for n, text in enumerate(texts)]
        return lambda folder: write_benchmark(folder / "b", passages, {"q": texts[0]}, {"test": {"q": {"p0": 1}}})

    def state(folder: Path) -> object:
        # Its files are written one by one: each is old or new.
        return (folder / "b" / "corpus.jsonl").read_text("utf-8")

    return Door(write(["lamp", "lens"]), write(["tower", "light"]), state)


def _ranking() -> Door:
    def write(score: float) -> Callable[[Path], object]:
        return lambda folder: write_run(folder / "run.trec", {"q": {"p": score}}, tag="t")

    return Door(write(1.0), write(2.0), lambda folder: (folder / "run.trec").read_text("utf-8"))


def _store() -> Door:
    from tiny_checkpoints import tokenizer
    from tokenizers import pre_tokenizers

    from dupmae import StoreConfig, build_token_store
    from dupmae.corpus import TokenStore

    words = tokenizer()
    words.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()

    def write(text: str) -> Callable[[Path], object]:
        return lambda folder: build_token_store([text] * 3, words, folder / "store", StoreConfig(min_length=3))

    return Door(
        write("w1 w2 w3"), write("w4 w5"), lambda folder: TokenStore.open(folder / "store")[0]["input_ids"].tolist()
    )


def _tiny_model(folder: Path) -> Path:
    """A folder that can be packed, of one matrix."""
    from safetensors.numpy import save_file

    folder.mkdir()
    (folder / "config.json").write_text('{"vocab_size": 4}', encoding="utf-8")
    save_file({"a": np.arange(12, dtype=np.float32).reshape(4, 3)}, folder / "model.safetensors")
    return folder


def _packed(model: Path) -> Door:
    from safetensors.numpy import load_file

    from dupmae.models.packing import pack

    _tiny_model(model)
    return Door(
        lambda folder: pack(model, folder / "p.safetensors", vocabulary_bits=8),
        lambda folder: pack(model, folder / "p.safetensors", vocabulary_bits=2),
        lambda folder: sorted((name, array.tobytes()) for name, array in load_file(folder / "p.safetensors").items()),
    )


def _unpacked(model: Path) -> Door:
    """A model is unpacked into the cache: there is none, or a whole one."""
    from unittest import mock

    from dupmae.models import resolve_model
    from dupmae.models.packing import pack

    file = model.with_name("packed.safetensors")
    pack(_tiny_model(model), file)

    def unpack(folder: Path) -> None:
        with mock.patch.dict(
            "os.environ", {"XDG_CACHE_HOME": str(folder / "cache"), "DUPMAE_CACHE": str(folder / "cache")}
        ):
            resolve_model(str(file))

    def state(folder: Path) -> object:
        found = [path for path in folder.rglob("config.json") if not any(part.startswith(".") for part in path.parts)]
        return [
            sorted((file.name, len(file.read_bytes())) for file in path.parent.iterdir() if file.is_file())
            for path in found
        ]

    return Door(lambda folder: (folder / "cache").mkdir(), unpack, state, resumes=True)


def _embeddings() -> Door:
    """What `dupmae encode` writes, without a model."""
    from types import SimpleNamespace
    from unittest import mock

    from dupmae.cli.commands import model
    from dupmae.config import FieldsConfig
    from dupmae.duplex.embeddings import DuplexEmbeddings

    def write(count: int) -> Callable[[Path], object]:
        def encode(folder: Path) -> None:
            texts = folder.parent / "texts.jsonl"
            texts.write_text('{"text": "lamp"}\n' * count, encoding="utf-8")
            found = DuplexEmbeddings(
                np.ones((count, 4), np.float32), np.ones((count, 2), np.uint16), np.ones((count, 2), np.float32)
            )
            encoder = SimpleNamespace(embed_documents=lambda *_, **__: found, chunks=lambda documents, *_: documents)
            with mock.patch("dupmae.duplex.DuplexEncoder", return_value=encoder):
                model.encode(model="m", input=str(texts), output=str(folder / "out"), fields=FieldsConfig())

        return encode

    return Door(write(2), write(3), lambda folder: len(json.loads((folder / "out/ids.json").read_text("utf-8"))))


def _run(times: int) -> Door:
    """A run of two stages, begun new or done again with another setting."""
    from rich.console import Console

    from dupmae.experiments.run_folder import RunFolder, Stage
    from dupmae.files import write_json

    def carry_out(value: int) -> Callable[[Path], object]:
        def work(folder: Path) -> None:
            run = RunFolder(folder / "run", "identity", [])
            run.console = Console(quiet=True)

            def write(name: str, text: str) -> Callable[[Path], None]:
                def write_stage(root: Path) -> None:
                    (root / name).mkdir(parents=True, exist_ok=True)
                    (root / name / "result.txt").write_text(text, encoding="utf-8")

                return write_stage

            stages = [
                Stage(name="1-first", title="First", work=write("1-first", "same"), settings={"a": 1}),
                Stage(name="2-second", title="Second", work=write("2-second", str(value)), settings={"v": value},
                      after=["1-first"]),
            ]  # fmt: skip
            run.carry_out(stages, {"v": value}, lambda: write_json(run.root / "report.md", value))

        return work

    def state(folder: Path) -> object:
        report = folder / "run/report.md"
        return report.read_text("utf-8") if report.is_file() else None

    old = carry_out(1) if times == 2 else lambda folder: None
    return Door(old, carry_out(2), state, resumes=True)


def _lists() -> Door:
    from dupmae.finetuning.candidates import CandidateList, write_lists
    from dupmae.finetuning.jsonl_blocks import write_resumably

    def write(folder: Path) -> None:
        def block(queries: Any, path: Path) -> None:
            write_lists(path, [CandidateList(query, {"p": 1.0}, {"n": 0.5}) for query in queries])

        write_resumably(folder / "out/negatives.jsonl", "mining.json", "f", {}, ["q1", "q2"], block, "mining")

    def state(folder: Path) -> object:
        file = folder / "out/negatives.jsonl"
        return file.read_text("utf-8") if file.exists() else None

    return Door(lambda folder: None, write, state, resumes=True)


def test_a_door_that_is_not_careful_is_found_out(tmp_path: Path) -> None:
    numbers = itertools.count()

    def prepare() -> Path:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        (folder / "a").write_text("old", encoding="utf-8")
        return folder

    def check(folder: Path, fault: Fault) -> None:
        assert (folder / "a").read_text("utf-8") in ("old", "new")

    with pytest.raises(AssertionError):
        every_fault(prepare, lambda folder: (folder / "a").write_text("new", encoding="utf-8"), check)
