"""The command line: parsing, help, messages, exit statuses. Stages are stubs that record their arguments."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from dupmae.cli import entry as cli
from dupmae.cli import load_recipe
from dupmae.cli.parsing import option_types
from dupmae.config import FinetuneConfig, Recipe
from dupmae.errors import DupmaeError
from dupmae.models import packing


@dataclass
class FakeHit:
    id: str = "p1"
    score: float = 3.0
    dense_score: float = 1.0
    lexical_score: float = 2.0
    matches: tuple[tuple[str, float], ...] = (("vitamin", 1.5), ("##d", 0.5))
    title: str = "On [bold]bones"
    text: str = "Vitamin D and fractures."
    metadata: tuple[tuple[str, str], ...] = (("lang", "en"),)


class FakeIndex:
    manifest = SimpleNamespace(model_fingerprint="recorded")

    @classmethod
    def open(cls, folder: Path) -> FakeIndex:
        return cls()

    def search(self, queries: list[str], k: int) -> list[list[FakeHit]]:
        return [[FakeHit(id=f"p{rank}") for rank in range(k)] for _ in queries]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch):
    """Replace a module by one that holds the given names."""

    def replace(module: str, **names: Any) -> None:
        fake = ModuleType(module)
        vars(fake).update(names)
        monkeypatch.setitem(sys.modules, module, fake)

    return replace


@pytest.fixture(autouse=True)
def no_hushing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the process's warnings and environment as other tests expect them."""
    monkeypatch.setattr(cli, "silence", lambda: None)


@pytest.fixture
def recipes_run(stub) -> list[Recipe]:
    """The recipes that reached the pipeline."""
    seen: list[Recipe] = []

    def run_recipe(recipe: Recipe) -> Path:
        seen.append(recipe)
        return Path(recipe.output)

    stub("dupmae.experiments.run", run_recipe=run_recipe)
    return seen


def raising(error: BaseException):
    def stage(*_: Any, **__: Any) -> None:
        raise error

    return stage


def piped(content: bytes) -> io.TextIOWrapper:
    """A standard input in a locale that knows ASCII alone."""
    return io.TextIOWrapper(io.BytesIO(content), encoding="ascii", errors="surrogateescape")


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


# Help


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_each_command_teaches_with_an_example_and_every_option(name, capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main([*name.split(), "--help"])
    text = capsys.readouterr().out
    assert exit_info.value.code == 0
    assert f"Example:\n  dupmae {name} " in text
    assert "Write" in text or "Print" in text
    for option in option_types(cli.COMMANDS[name]):
        assert f"--{option}" in text


def test_help_of_a_setting_is_its_attribute_docstring_with_type_and_default(capsys):
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "Share of the ordinary tokens that the encoder sees masked, chosen by whole words. (type: float" in words


def test_top_level_help_lists_every_command_with_its_first_sentence(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, function in cli.COMMANDS.items():
        assert any(
            line.split(None, len(name.split()))[: len(name.split())] == name.split() for line in text.splitlines()
        )
        assert (function.__doc__ or "").splitlines()[0] in text


def test_no_command_prints_the_help_and_fails(capsys):
    assert cli.main([]) == 2
    assert "usage: dupmae" in capsys.readouterr().out


def test_version_is_the_installed_one(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dupmae 0.")


# Settings: defaults < file < command line


def test_recipe_file_wins_over_defaults_and_command_line_over_both(tmp_path, recipes_run):
    file = write(tmp_path / "r.yaml", "output: here\nseed: 7\npretrain: {steps: 5, learning_rate: 1e-4}\n")
    assert cli.main(["run", "--pretrain.steps", "10", file, "--data.benchmark", "b"]) == 0
    (recipe,) = recipes_run
    assert (recipe.pretrain.steps, recipe.pretrain.learning_rate, recipe.seed) == (10, 1e-4, 7)
    assert (recipe.output, recipe.data.benchmark) == ("here", "b")
    assert recipe.finetune == FinetuneConfig()


def test_recipe_null_means_none_only_where_none_is_allowed(tmp_path, capsys):
    recipe = load_recipe(write(tmp_path / "a.yaml", "duplex:\n  dense_dimension: null\n"))
    assert recipe.duplex.dense_dimension is None
    with pytest.raises(DupmaeError, match=r"b.yaml, line 2: output has no value"):
        load_recipe(write(tmp_path / "b.yaml", "name: x\noutput:\n"))


def test_recipe_booleans_may_be_spelled_as_yaml_does(tmp_path):
    assert load_recipe(write(tmp_path / "r.yaml", "data: {allow_unknown: yes}\n")).data.allow_unknown is True


def test_a_wrong_value_in_the_file_does_no_harm_when_the_command_line_overrides_it(tmp_path):
    file = write(tmp_path / "r.yaml", "seed: many\n")
    assert load_recipe(file, ["--seed=3"]).seed == 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed: 1\npretrain:\n  stesp: 3\n", "line 3: unknown key 'pretrain.stesp'; did you mean pretrain.steps?"),
        ("steps: 3\n", "line 1: unknown key 'steps'; did you mean pretrain.steps?"),
        ("pretrain: 3\n", "line 1: unknown key 'pretrain'; it is a section"),
        ("seed: 1\nseed: 2\n", "line 2: 'seed' already stands in line 1"),
        ("seed: [1, 2]\n", "line 1: seed takes a whole number, not"),
        (
            "\nduplex:\n  dense_dimension: wide\n",
            "line 3: duplex.dense_dimension takes a whole number or null, not 'wide'",
        ),
        (
            "pretrain:\n  precision: half\n",
            "line 2: pretrain.precision takes one of auto, float32, bfloat16, not 'half'",
        ),
        ("pretrain:\n  steps: 1\n  dropout: 1\n", "line 3: pretrain.dropout must be at least 0 and below 1, not 1.0\n"),
        ("seed: -1\n", "line 1: seed must be at least 0 and at most 4294967295, not -1\n"),
        ("seed: [1\n", "not valid YAML"),
        ("- a\n", "a settings file is a mapping"),
    ],
)
def test_a_bad_recipe_gets_one_sentence_with_file_and_line(text, sentence, tmp_path, capsys):
    file = write(tmp_path / "recipe.yaml", text)
    assert cli.main(["run", file]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dupmae: error: {file}")
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["serach", "x"], "unknown command 'serach'; did you mean search?"),
        (["pretrain"], "dupmae pretrain needs --corpus, --output"),
        (["index"], "dupmae index is followed by one of build, add, delete, compact,"),
        (["index", "biuld"], "dupmae index is followed by one of build, add, delete, compact,"),
        (["index", "delete", "i"], "takes either --ids or --file"),
        (["index", "push", "solr", "i", "http://h/c"], "knows the engines qdrant and pgvector, not solr"),
        (["index", "push", "pgvector", "i", "http://h/c"], "http://h/c is no URL of pgvector"),
        (["search", "i", "q", "--where", "year"], "--where takes FIELD=VALUE, not 'year'"),
        (["search", "i", "q", "--engine", "http://h/c", "--model", "m"], "and neither INDEX nor --terms"),
        (["search", "q", "--engine", "http://h/c"], "takes --model and QUERY"),
        (["search"], "dupmae search needs INDEX"),
        (["search", "a", "b", "c"], "does not know what to do with the argument 'c'"),
        (["run", "r.yaml", "--pretrain.step", "3"], "unknown option --pretrain.step; did you mean --pretrain.steps?"),
        (["pretrain", "--steps", "ten"], "--steps takes a whole number, not 'ten' (see dupmae pretrain --help)"),
        (
            ["pretrain", "--corpus", "c", "--output", "o", "--batch_size", "0"],
            "--batch_size must be at least 1, not 0 (see dupmae pretrain --help)",
        ),
        (["encode", "--task", "both"], "--task takes one of query, document, not 'both'"),
        (["run", "missing.yaml"], "missing.yaml: no such settings file"),
        (["search", "i", "--k", "0"], "--k counts the passages to show, at least 1, not 0"),
        (["explain", "i", "q", "--k", "-147"], "--k counts the passages to explain, at least 1, not -147"),
        (["finetune", "--model", "m", "--output", "o"], "either --benchmark FOLDER or --pairs FILE"),
        (
            ["finetune", "--model", "m", "--output", "o", "--pairs", "p", "--dev_split", "dev"],
            "--dev_split names judgements of --benchmark",
        ),
        (["evaluate", "--model", "m"], "takes --benchmark with --model or --run or both, or --run and --qrels"),
        (["evaluate", "--benchmark", "b"], "takes --benchmark with --model or --run or both"),
        (["evaluate", "--model", "m", "--benchmark", "b", "--run", "r", "--qrels", "q"], "takes --benchmark with"),
        (["evaluate", "--model", "m", "--benchmark", "b", "--k", "0"], "--k counts the passages to rank"),
    ],
)
def test_a_bad_command_line_gets_one_sentence_and_exit_2(words, sentence, capsys, stub):
    for module in ("duplex", "finetuning", "evaluation", "index"):
        stub(f"dupmae.{module}", DuplexEncoder=None, DuplexIndex=FakeIndex, finetune=None, evaluate_run=None)
    stub("dupmae.index.engines", NAMES={"qdrant": ("http",), "pgvector": ("postgresql",)}, open_engine=None)
    stub("dupmae.index.engines.exchange", push=None)
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("dupmae: error: ")
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["encode", "--model", "m", "--input", "i", "--output", "a.jsonl/y"], "a.jsonl/y cannot be written (a.jsonl:"),
        (["pack", "m", "a.jsonl/y"], "a.jsonl/y cannot be written (a.jsonl: file exists): name another place."),
        (["pack", "m", "folder"], "folder is a folder: name a file."),
        (["rerank", "--model", "m", "--run", "r", "--benchmark", "b", "--output", "folder"], "folder is a folder:"),
        (["evaluate", "--model", "m", "--benchmark", "b", "--json", "folder"], "folder is a folder: name a file."),
        (["evaluate", "--model", "m", "--benchmark", "b", "--output", "a.jsonl"], "a.jsonl/results.json cannot be"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work_for_it(
    words, sentence, stub, tmp_path, monkeypatch, capsys
):
    stub("dupmae.duplex", DuplexEncoder=raising(AssertionError("the work began")))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", "")
    (tmp_path / "folder").mkdir()
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


# Stages


@pytest.fixture
def pretraining_call(stub) -> dict[str, Any]:
    call: dict[str, Any] = {}

    def build_token_store(texts, tokenizer, folder, config, sources):
        read = [passage.full_text for passage in texts]
        call.update(texts=read, tokenizer=tokenizer, folder=folder, store=config, sources=sources)
        return SimpleNamespace(report={"chunks": 2})

    def pretrain(store, model, output, config):
        call.update(model=model, output=output, settings=config)
        return output / "model"

    passages = {"a": ["one"], "b": ["two", "three"]}
    stub(
        "dupmae.corpus",
        build_token_store=build_token_store,
        read_passages=lambda path, **_: [SimpleNamespace(full_text=text) for text in passages[str(path)]],
    )
    stub("dupmae.pretraining", pretrain=pretrain)
    alone = SimpleNamespace(main_process_first=contextlib.nullcontext)
    stub("dupmae.runtime.processes", join_processes=lambda: alone)
    stub("dupmae.pretraining.checkpoint", load_tokenizer=lambda name: f"tokenizer of {name}")
    return call


def test_pretrain_reads_every_corpus_and_hands_on_flat_settings(pretraining_call, capsys):
    words = ["pretrain", "--corpus", "a", "b", "--model", "org/model", "--output", "out", "--steps", "5"]
    assert cli.main([*words, "--max_length", "99"]) == 0
    assert pretraining_call["texts"] == ["one", "two", "three"]
    assert pretraining_call["sources"] == ["a", "b"]
    assert pretraining_call["tokenizer"] == "tokenizer of org/model"
    assert pretraining_call["folder"] == Path("out/store")
    assert (pretraining_call["store"].max_length, pretraining_call["settings"].steps) == (99, 5)
    assert "chunks 2" in capsys.readouterr().out


@pytest.mark.parametrize("corpus", ["a", "[a]"])
def test_config_file_may_give_required_options_and_lists(corpus, pretraining_call, tmp_path):
    file = write(tmp_path / "p.yaml", f"corpus: {corpus}\nmodel: m\noutput: o\nsteps: 7\nmax_length: 50\n")
    assert cli.main(["pretrain", "--config", file, "--steps", "8"]) == 0
    assert pretraining_call["texts"] == ["one"]
    assert (pretraining_call["settings"].steps, pretraining_call["store"].max_length) == (8, 50)
    assert cli.main(["pretrain", "--steps", "9", f"--config={file}", "--corpus", "b"]) == 0
    assert pretraining_call["texts"] == ["two", "three"]
    assert pretraining_call["settings"].steps == 9


def test_finetune_trains_on_the_whole_split_a_model_whose_new_layers_the_seed_decides(stub):
    call: dict[str, Any] = {}
    stub(
        "dupmae.corpus",
        read_benchmark=None,
        read_pairs=lambda path: SimpleNamespace(corpus=f"passages of {path}"),
        split_queries=None,
    )
    stub(
        "dupmae.duplex.starting",
        begin_duplex=lambda model, checkpoint, config, corpus, seed: (model.path, config.top_k, corpus, seed),
    )
    stub("dupmae.finetuning", finetune=lambda *args, **named: call.update(args=args, named=named))
    words = ["finetune", "--model", "m", "--pairs", "f", "--output", "o", "--top_k", "9", "--epochs", "2"]
    assert cli.main([*words, "--seed", "5"]) == 0
    encoder, train, output, settings = call["args"]
    assert encoder == ("m", 9, "passages of f", 5)
    assert (train.corpus, output) == ("passages of f", Path("o"))
    assert (settings.epochs, settings.seed) == (2.0, 5)
    assert call["named"] == {"dev": None, "lists": None, "scores": None}


def test_finetune_takes_held_out_queries_lists_and_scores(stub, tmp_path):
    class Split(str):  # what a benchmark is to this test: its name
        corpus: ClassVar = {}

    call: dict[str, Any] = {}
    stub(
        "dupmae.corpus",
        read_benchmark=lambda folder, split, **_: Split(f"{folder} {split}"),
        read_pairs=None,
        split_queries=lambda train, fraction, seed, hold_out: (
            Split(f"{1 - fraction} of {train}"),
            Split(f"{fraction} of {train}, {hold_out} apart"),
        ),
    )
    stub("dupmae.duplex.starting", begin_duplex=lambda model, *_: model.path)
    stub("dupmae.finetuning", finetune=lambda *args, **named: call.update(args=args, named=named))
    model = tmp_path / "model"
    model.mkdir()
    # a duplex model goes on with its own representation
    (model / "modules.json").write_text('[{"type": "modeling_duplex.DuplexPooling", "path": ""}]')
    (model / "config.json").write_text("{}")
    words = ["finetune", "--model", str(model), "--benchmark", "b", "--output", "o"]
    assert cli.main([*words, "--dev_split", "dev", "--lists", "n.jsonl", "--scores", "t.jsonl"]) == 0
    assert call["args"][:2] == (str(model), "b train")
    assert call["named"] == {"dev": "b dev", "lists": Path("n.jsonl"), "scores": Path("t.jsonl")}
    assert cli.main([*words, "--dev_fraction", "0.25"]) == 0
    assert (call["args"][1], call["named"]["dev"]) == ("0.75 of b train", "0.25 of b train, passages apart")
    assert cli.main([*words, "--dev_fraction", "0.25", "--hold_out", "queries"]) == 0
    assert call["named"]["dev"] == "0.25 of b train, queries apart"


@pytest.fixture
def encoder(stub) -> None:
    class Embeddings(list):
        def save(self, folder: Path) -> None:
            (folder / "rows").write_text(" ".join(self))

    class Encoder:
        def __init__(self, path: str) -> None:
            self.path = path

        def embed_queries(self, texts, **_):
            return Embeddings(f"q:{text}" for text in texts)

        def embed_documents(self, texts, **_):
            return Embeddings(f"d:{text}" for text in texts)

    stub("dupmae.duplex", DuplexEncoder=Encoder)
    passages = [SimpleNamespace(id=name, full_text=name.upper()) for name in ("x", "y")]
    stub("dupmae.corpus", read_passages=lambda path, **_: passages)


@pytest.mark.parametrize(("task", "rows"), [("query", "q:X q:Y"), ("document", "d:X d:Y")])
def test_encode_writes_embeddings_of_the_task_and_ids_in_order(task, rows, encoder, tmp_path):
    words = ["encode", "--model", "m", "--input", "i", "--output", str(tmp_path / "e"), "--task", task]
    assert cli.main(words) == 0
    assert cli.main(words) == 0  # an earlier result is replaced
    assert (tmp_path / "e" / "rows").read_text() == rows
    assert json.loads((tmp_path / "e" / "ids.json").read_text()) == ["x", "y"]


def test_of_a_text_file_every_line_is_a_query_and_every_paragraph_a_document(stub, tmp_path, capsys):
    class Encoder:
        def __init__(self, path: str) -> None: ...

        def embed_documents(self, texts, **_):
            read.append(texts)
            return SimpleNamespace(save=lambda folder: None)

        embed_queries = embed_documents

    read: list[list[str]] = []
    stub("dupmae.duplex", DuplexEncoder=Encoder)
    file = write(tmp_path / "my q.txt", "first\n  second \n\n third\n")
    words = ["encode", "--model", "m", "--input", file, "--output", str(tmp_path / "e"), "--task"]
    assert cli.main([*words, "document"]) == 0
    assert cli.main([*words, "query"]) == 0
    assert [len(texts) for texts in read] == [2, 3]
    assert read[1] == ["first", "second", "third"]
    assert json.loads((tmp_path / "e" / "ids.json").read_text()) == ["my_q.txt#1", "my_q.txt#2", "my_q.txt#4"]
    write(tmp_path / "my q.txt", "\n \n")
    assert cli.main([*words, "query"]) == 2
    assert "my q.txt is empty: no query was found in it." in capsys.readouterr().err


def test_encode_never_replaces_a_folder_that_holds_something_else(encoder, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert cli.main(["encode", "--model", "m", "--input", "i", "--output", str(tmp_path)]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_pack_writes_one_file_and_says_what_it_cost(bert_folder, tmp_path, capsys):
    words = ["pack", str(bert_folder), str(tmp_path / "small.safetensors"), "--vocabulary_bits", "5"]
    assert cli.main(words) == 0
    assert packing.is_packed(tmp_path / "small.safetensors")
    assert re.fullmatch(
        r"Written: .*small\.safetensors \(\d\.\d MB, .* by more than \d+\.\d%\)\n", capsys.readouterr().out
    )
    assert cli.main([*words, "--bits", "1"]) == 2
    assert "bits is 1: a weight takes 2 to 8 bits" in capsys.readouterr().err


def test_index_build_streams_the_passages_of_every_corpus(encoder, stub, tmp_path):
    call: dict[str, Any] = {}

    def build(folder, encoder, passages, **options):
        call.update(options, folder=folder, ids=[passage.id for passage in passages])

    stub("dupmae.index", DuplexIndex=None)
    stub("dupmae.index.writing.build", build_segments=build)
    stub("dupmae.index.writing.encoding", passages_within=lambda mb: 10 * mb)
    stub("dupmae.index.writing.joining", process_of=lambda _: (0, 1))
    stub("dupmae.index.storage.passages", refuse_reserved=lambda fields: None)
    words = ["index", "build", "--model", str(tmp_path), "--corpus", "a", "b", "--output", "o", "--batch_size", "4"]
    assert cli.main([*words, "--memory_mb", "7"]) == 0
    assert (call["folder"], call["ids"]) == (Path("o"), ["x", "y", "x", "y"])
    assert (call["model"], call["batch_size"], call["segment_passages"]) == (str(tmp_path), 4, 70)


# Search


def test_search_shows_both_halves_of_the_score_and_the_matched_entries(stub, capsys):
    stub("dupmae.index", DuplexIndex=FakeIndex)
    assert cli.main(["search", "folder", "bones", "--k", "2"]) == 0
    text = capsys.readouterr().out
    assert "3.000 = 1.000 [CLS] + 2.000 OT" in text
    assert "vitamin 1.500  ##d 0.500" in text
    assert "On [bold]bones  p1" in text
    assert "Vitamin D and fractures." in text


def test_search_json_is_one_document_and_nothing_else(stub, capsys):
    stub("dupmae.index", DuplexIndex=FakeIndex)
    assert cli.main(["search", "folder", "null", "--json", "--k", "1"]) == 0
    captured = capsys.readouterr()
    (result,) = json.loads(captured.out)["results"]
    assert result["query"] == "null"
    assert result["hits"][0]["matches"] == [
        {"entry": "vitamin", "contribution": 1.5},
        {"entry": "##d", "contribution": 0.5},
    ]
    assert captured.err == ""


def test_search_json_of_no_query_at_all_is_still_a_document(stub, capsys, monkeypatch):
    stub("dupmae.index", DuplexIndex=FakeIndex)
    monkeypatch.setattr(sys, "stdin", piped(b""))
    assert cli.main(["search", "folder", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"results": []}


def test_search_takes_a_query_a_line_from_a_pipe(stub, capsys, monkeypatch):
    stub("dupmae.index", DuplexIndex=FakeIndex)
    monkeypatch.setattr(sys, "stdin", piped("\ufefffirst\r\n\n  z\u00fcrich \n".encode()))
    assert cli.main(["search", "folder", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [result["query"] for result in results] == ["first", "z\u00fcrich"]


def test_search_refuses_queries_from_a_pipe_that_are_not_utf8(stub, capsys, monkeypatch):
    stub("dupmae.index", DuplexIndex=FakeIndex)
    monkeypatch.setattr(sys, "stdin", piped(b"first\nz\xfcrich\n"))
    assert cli.main(["search", "folder", "--json"]) == 2
    assert "standard input, line 2: byte 2 is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["", EOFError()])
def test_search_prompts_at_a_terminal_until_an_empty_line_or_the_end(ending, stub, capsys, monkeypatch):
    stub("dupmae.index", DuplexIndex=FakeIndex)
    answers = iter(["first", "second", ending, "never asked"])

    def ask(prompt: str) -> str:
        answer = next(answers)
        if isinstance(answer, EOFError):
            raise answer
        return answer

    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert cli.main(["search", "folder", "--k", "1"]) == 0
    shown = capsys.readouterr().out
    assert "first" in shown
    assert "second" in shown
    assert next(answers) == "never asked"


def test_search_refuses_a_model_that_did_not_build_the_index(stub, capsys, tmp_path):
    stub("dupmae.index", DuplexIndex=FakeIndex)
    stub("dupmae.duplex", DuplexEncoder=None)
    assert cli.main(["search", "folder", "q", "--model", str(tmp_path)]) == 2
    assert "is not the one that built the index" in capsys.readouterr().err


# Failures


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (DupmaeError("corpus.jsonl, line 3: no text"), 2, "corpus.jsonl, line 3: no text"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on where it stopped"),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), 1, "no space left on the disk of out/x"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "no space left on the disk of out; nothing half-written"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "no space left on the disk of out;"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"), 1, "no space left on"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 1, "not enough memory: take smaller"),
        (MemoryError(), 1, "not enough memory"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "data/b"),
            2,
            "data/b: no such file or directory",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "data/b/corpus.jsonl"),
            2,
            "corpus.jsonl: permission denied",
        ),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "data"), 2, "data (on the way to data/b): not a dir"),
        (OSError(errno.EACCES, "Permission denied", ".out.17.tmp", None, "out"), 2, "out: permission denied"),
        (PermissionError(errno.EACCES, "Permission denied", ".out.17.tmp"), 2, "out: permission denied"),
        (OSError("org/model is not a valid model identifier\nlisted anywhere"), 2, "org/model is not a valid model"),
        (
            OSError("We couldn't connect to 'https://huggingface.co'."),
            2,
            "the model org/model cannot be loaded: We could",
        ),
    ],
)
def test_each_foreseen_failure_gets_one_sentence_and_its_exit_status(error, status, sentence, stub, tmp_path, capsys):
    stub("dupmae.experiments.run", run_recipe=raising(error))
    file = write(tmp_path / "r.yaml", "output: out\nstart: org/model\ndata: {benchmark: data/b}\n")
    assert cli.main(["run", file]) == status
    message = capsys.readouterr().err
    assert message.startswith("dupmae: error: ")
    assert sentence in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        KeyError("missing"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "somewhere/else"),
        OSError("something odd"),
    ],
)
def test_a_defect_of_ours_shows_its_traceback(error, stub, tmp_path):
    stub("dupmae.experiments.run", run_recipe=raising(error))
    with pytest.raises(type(error)):
        cli.main(["run", write(tmp_path / "r.yaml", "output: out\n")])


def test_interrupting_a_command_that_cannot_go_on_does_not_promise_it(stub, capsys):
    stub("dupmae.index", DuplexIndex=SimpleNamespace(open=raising(KeyboardInterrupt())))
    assert cli.main(["search", "folder", "q"]) == 130
    assert "goes on" not in capsys.readouterr().err


def test_a_reader_that_went_away_is_not_worth_a_word():
    code = (
        "import sys, dupmae.cli.entry as cli; cli._overview = lambda: 'x' * 10_000_000; sys.exit(cli.main(['--help']))"
    )
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.run([sys.executable, "-c", code], stdout=write_end, stderr=subprocess.PIPE, check=False)
    os.close(write_end)
    assert (process.returncode, process.stderr) == (141, b"")


def test_library_noise_is_hushed_unless_asked_for(recipes_run, tmp_path, monkeypatch):
    silenced: list[bool] = []
    monkeypatch.setattr(cli, "silence", lambda: silenced.append(True))
    file = write(tmp_path / "r.yaml", "output: out\n")
    assert cli.main(["run", file, "--verbose"]) == 0
    assert silenced == []
    assert cli.main(["run", file]) == 0
    assert silenced == [True]
