"""The `dupmae` command itself: help, names of commands, what it keeps quiet."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dupmae.cli import entry as cli
from dupmae.cli.parsing import option_types


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_each_command_teaches_with_an_example_and_every_option(name, capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main([*name.split(), "--help-all"])
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
    assert "Share of the ordinary tokens that the encoder sees masked, chosen by whole words. (a number; def" in words


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["reproduce"], "usage: dupmae reproduce {table1,table2,table3,table4,all} [options]"),
        (["index", "push"], "usage: dupmae index push {qdrant,pgvector} INDEX URL [options]"),
        (["search"], "usage: dupmae search [INDEX] [QUERY] [options]"),
        (["finetune"], "usage: dupmae finetune --model MODEL --output OUTPUT [options]"),
    ],
)
def test_usage_says_what_must_be_given_and_what_may_be_chosen(words, usage, capsys):
    with pytest.raises(SystemExit):
        cli.main([*words, "--help"])
    assert capsys.readouterr().out.startswith(f"{usage}\n")


@pytest.mark.parametrize("group", ["", "index"])
def test_help_lists_every_command_with_its_first_sentence(group, capsys):
    assert cli.main([*group.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: dupmae {group} COMMAND" if group else "usage: dupmae COMMAND")
    listed = [line for line in text.splitlines() if line.startswith("  ") and "dupmae" not in line.split()[:1]]
    commands = {name: function for name, function in cli.COMMANDS.items() if name.startswith(group)}
    assert len(listed) == len(commands)
    for line, (name, function) in zip(listed, commands.items(), strict=True):
        assert line.split(None, len(name.split())) == [*name.split(), (function.__doc__ or "").splitlines()[0]]


@pytest.mark.parametrize("words", [[], ["index"]])
def test_no_command_prints_the_help_and_fails(words, capsys):
    assert cli.main(words) == 2
    printed = capsys.readouterr().out
    assert cli.main([*words, "--help"]) == 0
    assert capsys.readouterr().out == printed


def test_version_is_the_installed_one(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dupmae 0.")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["serach", "x"], "unknown command 'serach'; did you mean search?"),
        (
            ["index", "biuld"],
            "dupmae index is followed by one of build, add, delete, compact, info, verify, tune, push",
        ),
    ],
)
def test_an_unknown_command_gets_one_sentence(words, sentence, capsys):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dupmae: error: {sentence}")
    assert error.count("\n") == 1


def test_a_reader_that_went_away_is_not_worth_a_word():
    code = (
        "import sys, dupmae.cli.entry as cli; cli._overview = lambda: 'x' * 10_000_000; sys.exit(cli.main(['--help']))"
    )
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.run([sys.executable, "-c", code], stdout=write_end, stderr=subprocess.PIPE, check=False)
    os.close(write_end)
    assert (process.returncode, process.stderr) == (141, b"")


def test_library_noise_is_silenced_unless_asked_for(run_recipe, write, monkeypatch):
    silenced: list[bool] = []
    monkeypatch.setattr(cli, "silence", lambda: silenced.append(True))
    file = write("r.yaml", "output: out\n")
    assert cli.main(["run", file, "--verbose"]) == 0
    assert silenced == []
    assert cli.main(["run", file]) == 0
    assert silenced == [True]
