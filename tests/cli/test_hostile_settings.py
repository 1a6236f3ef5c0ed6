"""Settings files and options that are bombs, or mean to be: one sentence with file and line, in no time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from dupmae.cli import load_recipe, main
from dupmae.cli.entry import COMMANDS
from dupmae.cli.parsing import FLAG, option_types, parse_command
from dupmae.config.ranges import LARGEST, OutOfRangeError
from dupmae.errors import DupmaeError, nearest

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LAUGHS, "line 1: anchors and aliases"),
        ("output: x\nname: *y\n", "line 2: anchors and aliases"),
        ("name: !!python/object/apply:os.system [ls]\n", "line 1: tags (tag:yaml.org,2002:python/object"),
        ("name: !!int 5\n", "line 1: tags"),
        ("output: " + "[" * 20_000 + "\n", "line 1: more than 16 mappings or lists"),
        ("output: " + "{a: " * 5_000 + "\n", "line 1: more than 16 mappings or lists"),
        ("".join(" " * n + "a:\n" for n in range(600)), "line 17: more than 16 mappings or lists"),
        ("# " + "x" * 300_000, "larger than 256 KB"),
        ("seed: " + "9" * 5000, "line 1: seed "),
        ("seed: 1\nseed: 2\n", "line 2: 'seed' already stands in line 1"),
        ("? [a, b]\n: 1\n", "line 1: a key must be one word"),
        ("1: 2\n", "line 1: unknown key '1'"),
        ("null: 2\n", "line 1: unknown key 'null'"),
        ("<<: {seed: 1}\n", "line 1: unknown key"),
        ("baselines: [[bm25], {a: b}]\n", "line 1: the list 'baselines' must hold single values"),
        ("seed: 1\nname: a\x1bb\n", "line 2: not valid YAML (the character U+001B"),
        ("seed: 1\nname: a\x00b\n", "line 2: not valid YAML (the character U+0000"),
        ("data:\n  dev_fraction: .nan\n", "line 2: data.dev_fraction must be at least 0"),
        ("data:\n  dev_fraction: .inf\n", "line 2: data.dev_fraction must be at least 0"),
        ("data:\n  dev_fraction: 1e999\n", "line 2: data.dev_fraction must be at least 0"),
        ("seed: 2020-01-01\n", "line 1: seed takes a whole number"),
        ("--- {}\n--- {}\n", "line 2: not valid YAML"),
        ("- a\n- b\n", "a settings file is a mapping"),
    ],
)
def test_a_hostile_recipe_gets_one_sentence_with_its_line(
    text: str, sentence: str, write: Callable[[str, str], str]
) -> None:
    file = write("r.yaml", text)
    with pytest.raises(DupmaeError) as caught:
        load_recipe(file)
    assert str(caught.value).startswith(file)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) <= 500


def test_a_recipe_that_is_a_pipe_without_a_writer_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "r.yaml")
    with pytest.raises(DupmaeError, match="is no regular file"):
        load_recipe(tmp_path / "r.yaml")


ODD = [
    "[" * 3000,
    "{a: [b]}",
    "&a [*a, *a]",
    "9" * 5000,
    "1e999",
    ".nan",
    "1_000_0x",
    "!!python/name:os.system",
    "",
]


def _is_number(hint: Any) -> bool:
    """Tell whether an option takes a number, or that or nothing."""
    parts = get_args(hint) or (hint,)
    return get_origin(hint) is not Literal and any(kind in parts for kind in (int, float)) and str not in parts


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_of_a_number_takes_anything_else(name: str) -> None:
    numbers = [key for key, hint in option_types(COMMANDS[name]).items() if hint is not FLAG and _is_number(hint)]
    turns = min(3, len(numbers))  # each value meets every third option
    for number, key in enumerate(numbers[:12]):
        for value in ODD[number % turns :: turns]:
            with pytest.raises(DupmaeError) as caught:
                parse_command(name, COMMANDS[name], [f"--{key}={value}"])
            assert len(str(caught.value)) <= 500


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_options_and_those_typed_otherwise_are_never_answered_with_themselves(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in list(option_types(COMMANDS[name]))[:5]:
        for typed in (key.upper(), f"{key}s", key[:-1], f"{key}-{key}", "nonsense" * 200):
            if typed.replace("-", "_") in option_types(COMMANDS[name]):
                continue
            assert main([*name.split(), f"--{typed}", "1"]) == 2
            error = capsys.readouterr().err
            assert f"did you mean --{typed}?" not in error
            assert len(error.splitlines()[-1]) < 520


def test_what_is_nearest_is_never_what_was_typed() -> None:
    known = ["model", "dry_run", "finetune.epochs"]
    assert [nearest(name, known) for name in known] == [None, None, None]
    assert nearest("Model", known) == "model"
    assert nearest("dry-run", known) == "dry_run"
    assert nearest("epoch", known) == "finetune.epochs"
    assert nearest("zzz", known) is None


@pytest.mark.parametrize("value", [LARGEST + 1, 10**400])
def test_whole_numbers_are_what_arrays_hold(value: int) -> None:
    from dupmae import PretrainConfig

    with pytest.raises(OutOfRangeError, match="steps must be smaller, not ") as caught:
        PretrainConfig(steps=value)
    assert len(str(caught.value)) < 200
