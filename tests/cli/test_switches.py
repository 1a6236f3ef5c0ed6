"""Short options, variables, printed settings, sections of help, completion, levels of messages."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dupmae.cli import main
from dupmae.cli.entry import COMMANDS
from dupmae.cli.parsing import parse_command
from dupmae.errors import DupmaeError


def parsed(name: str, *words: str):
    return parse_command(name, COMMANDS[name], list(words))


def test_letters_stand_for_options_where_a_command_has_them() -> None:
    words = ["-m", "model", "--pairs", "p", "-o", "out", "-q"]
    _, keyword, switches = parsed("finetune", *words)
    assert (keyword["model"], keyword["output"], switches.quiet, switches.verbose) == ("model", "out", True, False)
    assert parsed("search", "i", "q", "-k", "3")[1]["k"] == 3
    with pytest.raises(DupmaeError):
        parsed("index info", "i", "-k", "3")


def test_variables_stand_between_the_file_and_the_command_line(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "c.yaml").write_text("k: 1\nterms: 8\n")
    words = ("i", "q", "--config", str(tmp_path / "c.yaml"))
    assert parsed("search", *words)[1]["k"] == 1
    monkeypatch.setenv("DUPMAE_K", "2")
    monkeypatch.setenv("DUPMAE_QUIET", "true")
    _, keyword, switches = parsed("search", *words)
    assert (keyword["k"], keyword["terms"], switches.quiet) == (2, 8, True)
    assert parsed("search", *words, "--k", "3")[1]["k"] == 3
    monkeypatch.setenv("DUPMAE_PRETRAIN_STEPS", "7")
    assert parsed("adapt", "t", "--output", "o")[1]["settings"].pretrain.steps == 7
    monkeypatch.setenv("DUPMAE_K", "many")
    with pytest.raises(DupmaeError, match=r"^the variable DUPMAE_K: k takes a whole number, not 'many'$"):
        parsed("search", *words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("search", ["i", "q", "--where", "a=1", "b=2", "--k", "4"]),
        ("adapt", ["t", "--output", "o", "--pretrain.steps", "3", "--precision", "float32"]),
        ("finetune", ["--model", "m", "--pairs", "p", "--output", "o", "--epochs", "2"]),
        ("index build", ["--corpus", "a", "b", "--output", "o", "--strict"]),
    ],
)
def test_printed_settings_do_the_same(name, words, tmp_path: Path, capsys, monkeypatch) -> None:
    if name == "adapt":
        words = words[:-2]
    with pytest.raises(SystemExit) as ended:
        parsed(name, *words, "--print-config")
    assert ended.value.code == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    assert yaml.safe_load(file.read_text())
    positional = [word for word in words[:2] if not word.startswith("-")] if words[0][0] != "-" else []
    positional = positional[: 1 if name == "adapt" else 2]
    assert parsed(name, *positional, "--config", str(file)) == parsed(name, *words)


def test_help_of_many_settings_lists_sections_and_shows_one(capsys) -> None:
    def shown(*words: str) -> str:
        with pytest.raises(SystemExit):
            main(["run", *words])
        return capsys.readouterr().out

    overview, section, everything = shown("--help"), shown("--help", "mining"), shown("--help-all")
    assert "--mining.teacher" not in overview
    assert "dupmae run --help SECTION" in overview
    assert "--mining.teacher" in section
    assert "--pretrain.steps" not in section
    assert "--mining.teacher" in everything
    assert "--pretrain.steps" in everything
    assert "(some of bm25, " in " ".join(overview.split())


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_names_commands_options_and_choices(shell, capsys) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for words in ("distil-queries", "--query_encoder", "onnx-int8", "compact"):
        assert words in script
    if shell == "bash":
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_a_level_shows_messages_with_their_origin(tmp_path: Path) -> None:
    code = (
        "import logging, sys\nfrom dupmae.cli import entry\n"
        "def talk() -> None:\n    logging.getLogger('a.library').info('heard')\n"
        "entry.COMMANDS['talk'] = talk\nsys.exit(entry.main(['talk', *sys.argv[1:]]))"
    )
    for words, heard in (((), False), (("--log_level", "info"), True)):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert ("INFO a.library: heard" in done.stderr) == heard
    assert logging.getLogger().level == logging.WARNING
