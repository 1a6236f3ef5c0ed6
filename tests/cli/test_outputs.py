"""Paths of all commands: what they are, where `~` leads, and outputs that are refused before anything is done.

The cases are made from the table of commands, so that a new command, or a new option of one, is tried as well.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from dupmae.cli import entry as cli
from dupmae.cli.parsing import option_types, parse_command
from dupmae.cli.places import OTHER_ROLES, ROLES, role_of

CHOICES = {"table": "table1", "engine": "qdrant"}


def texts_of(name: str) -> Iterator[tuple[str, bool, bool]]:
    """Yield the arguments of a command that take text: name, whether it is positional, whether it is needed."""
    function = cli.COMMANDS[name]
    hints = get_type_hints(function)
    for key, parameter in inspect.signature(function).parameters.items():
        positional = parameter.kind is parameter.POSITIONAL_ONLY
        if is_dataclass(hints[key]):
            for option, hint in option_types(function).items():
                if option not in hints and takes_text(hint):
                    yield option, False, False
        elif takes_text(hints[key]) or get_origin(hints[key]) is Literal:
            yield key, positional, parameter.default is parameter.empty


def takes_text(hint: Any) -> bool:
    parts = (hint, *get_args(hint), *(one for part in get_args(hint) for one in get_args(part)))
    return get_origin(hint) is not Literal and str in parts


OUTPUTS = [
    (name, key)
    for name in cli.COMMANDS
    for key, _, _ in texts_of(name)
    if role_of(name, key) in ("folder", "replaced", "file")
]
PATHS = [(name, key) for name in cli.COMMANDS for key, _, _ in texts_of(name) if role_of(name, key) != "text"]


@pytest.fixture
def words_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], list[str]]:
    """Writes a command line in which one argument is given, and all others are what the command needs at least."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inputs").mkdir(exist_ok=True)

    def write(name: str, key: str, value: str) -> list[str]:
        words = name.split()
        for argument, positional, needed in texts_of(name):
            if argument == key:
                words += [value] if positional else [f"--{argument}={value}"]
            elif needed:
                file = tmp_path / "inputs" / f"{argument}.jsonl"
                file.write_text("", encoding="utf-8")
                given = CHOICES.get(argument, "somewhere/new" if (name, argument) in OUTPUTS else str(file))
                words += [given] if positional else [f"--{argument}", given]
        return words

    return write


def tree(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.is_dir() or path.stat().st_size
        for path in sorted(folder.rglob("*"))
    }


def test_every_argument_that_takes_text_is_known_to_be_a_path_or_not():
    unknown = {
        (name, key)
        for name in cli.COMMANDS
        for key, hint in [*option_types(cli.COMMANDS[name]).items(), *get_type_hints(cli.COMMANDS[name]).items()]
        if takes_text(hint) and key.rpartition(".")[2] not in ROLES and (name, key) not in OTHER_ROLES
    }
    assert not unknown
    assert {name for name, _ in OTHER_ROLES} <= set(cli.COMMANDS)
    assert len(OUTPUTS) >= 12


def taking_turns(*values: str) -> list[tuple[str, str, str]]:
    """Give each path one of several values, so that all are tried, though not all of them at each."""
    return [(name, key, values[number % len(values)]) for number, (name, key) in enumerate(PATHS)]


@pytest.mark.parametrize(("name", "key", "spelling"), taking_turns("~/x y", "$HOME/x y", "${HOME}/x y"))
def test_the_home_is_meant_alike_wherever_a_path_is_given(name, key, spelling, words_with, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if key == "recipe":
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "x y").write_text("output: o\n", encoding="utf-8")
    words = words_with(name, key, spelling)[len(name.split()) :]
    positional, keyword, _ = parse_command(name, cli.COMMANDS[name], words)
    found: Any = dict(inspect.signature(cli.COMMANDS[name]).bind(*positional, **keyword).arguments)
    settings = {argument: value for argument, value in found.items() if is_dataclass(value)}
    for part in key.split("."):
        holder = next((one for one in settings.values() if hasattr(one, part)), None) if part not in found else None
        value = getattr(holder, part) if holder is not None else found[part]
        found, settings = (vars(value) if is_dataclass(value) else {}), {"": value}
    assert value in (str(tmp_path / "home" / "x y"), [str(tmp_path / "home" / "x y")])


@pytest.mark.parametrize(("name", "key", "value"), taking_turns("~nobody-at-all/x", "$NOT_SET_AT_ALL/x", ""))
def test_a_path_that_cannot_be_expanded_or_is_empty_is_refused(name, key, value, words_with, tmp_path, capsys):
    if not value and key not in inspect.signature(cli.COMMANDS[name]).parameters:
        value = "~nobody-at-all"  # a setting may be empty, which is its default
    words = words_with(name, key, value)
    before = tree(tmp_path)
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert len(error) < 500
    assert tree(tmp_path) == before


WRONG = ("a file's child", "not allowed", "too long", "a loop", "a dangling loop's child", "-")


@pytest.mark.parametrize(("name", "key"), OUTPUTS)
@pytest.mark.parametrize("wrong", [*WRONG, "the other kind"])
def test_an_output_that_cannot_be_is_refused_before_anything_is_done(
    name, key, wrong, words_with, tmp_path, monkeypatch, capsys
):
    role = role_of(name, key)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "not allowed").mkdir()
    value = {
        "a file's child": "file/x",
        "not allowed": "not allowed/x",
        "too long": "x" * 300,
        "a loop": "loop",
        "a dangling loop's child": "loop/x",
        "-": "-",
        "the other kind": "folder" if role == "file" else "file",
    }[wrong]
    if wrong == "-" and role == "file":
        pytest.skip("the standard output is a place for a file")
    mkdir = Path.mkdir

    def refuse_mkdir(path: Path, *arguments: Any, **options: Any) -> None:
        if "not allowed" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))  # root is allowed everything
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse_mkdir)
    words = words_with(name, key, value)
    before = tree(tmp_path)
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("dupmae: error: ")
    assert error.count("\n") == 1
    assert value[:30] in error
    assert len(error) <= 500 or wrong == "too long"
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, key in PATHS if role_of(name, key) == "read"])
def test_a_device_is_not_read(name, key, words_with, tmp_path, capsys):
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    assert cli.main(words_with(name, key, "zero.jsonl")) == 2
    assert "zero.jsonl is a device" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["adapt", "pretrain", "index build", "encode"])
def test_an_output_within_the_text_that_is_read_is_refused(name, words_with, tmp_path, capsys):
    key = next(key for key, _, _ in texts_of(name) if key in ("corpus", "input"))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a", encoding="utf-8")
    words = words_with(name, key, "texts")
    words[words.index("somewhere/new")] = "texts/out"
    before = tree(tmp_path)
    assert cli.main(words) == 2
    assert "name a place outside" in capsys.readouterr().err
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "overwritten"),
    [
        (["rerank", "--model", "m", "--run", "r", "--benchmark", "b", "--output", "./r"], "output and run"),
        (["evaluate", "--run", "r", "--qrels", "q", "--json", "q"], "json and qrels"),
        (["encode", "--model", "m", "--input", "out/r", "--output", "out"], "input"),
    ],
)
def test_an_input_is_not_overwritten(words, overwritten, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    for name in ("r", "q", "out/r", "out/ids.json"):
        (tmp_path / name).write_text("precious", encoding="utf-8")
    assert cli.main(words) == 2
    assert overwritten in capsys.readouterr().err
    assert all((tmp_path / name).read_text(encoding="utf-8") == "precious" for name in ("r", "q", "out/r"))


QRELS, RUN = "query-id\tcorpus-id\tscore\nq\tp\t1\n", "q Q0 p 1 1.0 x\n"


@pytest.mark.parametrize("place", ["-", "/dev/stdout", "link", "dangling", "pipe", "null", "plain"])
def test_a_file_that_a_command_writes_goes_to_every_kind_of_place(place, tmp_path, monkeypatch, capsys):
    import threading

    monkeypatch.chdir(tmp_path)
    Path("qrels.tsv").write_text(QRELS, encoding="utf-8")
    Path("run.trec").write_text(RUN, encoding="utf-8")
    Path("old").write_text("old", encoding="utf-8")
    for link, target in (("link", "old"), ("dangling", "new"), ("null", "/dev/null")):
        Path(link).symlink_to(target)
    os.mkfifo("pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_text(encoding="utf-8")))
    if place == "pipe":
        reader.start()
    assert cli.main(["evaluate", "--run", "run.trec", "--qrels", "qrels.tsv", "--json", place]) == 0
    printed = capsys.readouterr()
    if place == "pipe":
        reader.join()
        written = read[0]
    elif place in ("-", "/dev/stdout"):
        written = printed.out
        assert "NDCG" in printed.err
    else:
        written = '{"benchmarks": 0}' if place == "null" else Path(place).read_text(encoding="utf-8")
        assert Path(place).is_symlink() is (place != "plain")
        assert "NDCG" in printed.out
    assert "benchmarks" in json.loads(written)
    assert Path("pipe").is_fifo()
    assert Path("/dev/null").is_char_device()


def test_a_models_place_is_expanded_after_the_word_that_says_what_is_made_of_it(monkeypatch):
    from dupmae.cli.places import KINDS, settled
    from dupmae.retrievers.hybrid import FORMS

    monkeypatch.setenv("MODELS", "/somewhere")
    assert set(KINDS) == {"dense", "sparse", *FORMS}
    for kind in KINDS:
        assert settled("evaluate", "model", [f"{kind}:$MODELS/m"]) == [f"{kind}:/somewhere/m"]
    assert settled("evaluate", "model", "hybrid") == "hybrid"
