"""The names that settings had in version 0.1 are taken from files and from the command line, with a warning."""

from __future__ import annotations

from typing import Any

import pytest

from dupmae.cli import entry as cli
from dupmae.cli import load_recipe
from dupmae.cli.parsing import option_types, parse_command
from dupmae.config.renamed import RENAMED, RENAMED_VALUES, with_new_names
from dupmae.errors import DupmaeError

VALUES = {
    "base_model": "m",
    "teacher_model": "m",
    "dense_dimension": "7",
    "query_terms": "logits",
    "lexical_activation": "relu",
    "lexical_projection": "linear",
    "tune_weights": "true",
}
"""What a setting that is no fraction may be, other than its default."""


def parsed(name: str, *words: str) -> dict[str, Any]:
    return parse_command(name, cli.COMMANDS[name], words)[1]


def test_every_former_name_leads_to_a_key_of_a_recipe_and_is_none_itself():
    keys = option_types(cli.COMMANDS["run"])
    assert set(RENAMED.values()) <= keys.keys()
    assert not RENAMED.keys() & keys.keys()
    assert set(RENAMED_VALUES) <= keys.keys()


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_recipe_with_a_former_name_says_the_same_as_with_the_new_one(old, new, write, caplog):
    value = VALUES.get(new.rpartition(".")[2], "0.25")

    def text(key: str) -> str:
        section, dot, name = key.rpartition(".")
        return f"{section}: {{{name}: {value}}}\n" if dot else f"{name}: '{value}'\n"

    expected = load_recipe(write("new.yaml", text(new)))
    assert expected != load_recipe(write("none.yaml", ""))
    assert not caplog.messages
    assert load_recipe(write("old.yaml", text(old))) == expected
    assert load_recipe(write("none.yaml", ""), [f"--{old}", value]) == expected
    assert load_recipe(write("none.yaml", ""), [f"--{old}={value}"]) == expected
    assert caplog.messages == [f"{old} is now called {new}; the old name goes with version 0.3"] * 3


def test_commands_without_sections_take_the_former_names_without_them(caplog):
    words = [
        "--model",
        "m",
        "--output",
        "o",
        "--balance",
        "true",
        "--share",
        ".5",
        "--cls_weight=2",
        "--cls_scale",
        "3",
    ]
    read = parsed("finetune", *words)
    settings = read["settings"]
    assert (settings.tune_weights, settings.interpolation, settings.dense_loss_weight) == (True, 0.5, 2.0)
    assert read["representation"].dense_scale == 3.0
    assert caplog.messages[0] == "balance is now called tune_weights; the old name goes with version 0.3"
    assert len(caplog.messages) == 4


def test_a_name_that_stays_in_one_section_is_not_taken_for_anothers_former_name(caplog):
    words = ["--corpus", "c", "--output", "o", "--cls_weight", "0.5", "--ot_projection", "linear"]
    settings = parsed("pretrain", *words)["settings"]
    assert (settings.cls_weight, settings.lexical_projection) == (0.5, "linear")
    assert caplog.messages == ["ot_projection is now called lexical_projection; the old name goes with version 0.3"]


def test_settings_files_of_other_commands_may_have_former_names(write, caplog):
    flat = write("pretrain.yaml", "corpus: [c]\noutput: o\not_projection: linear\n")
    assert parsed("pretrain", "--config", flat)["settings"].lexical_projection == "linear"
    nested = write("adapt.yaml", "finetune: {share: 0.25}\nduplex: {query_entries: logits}\n")
    settings = parsed("adapt", "corpus.jsonl", "--output", "o", "--config", nested, "--finetune.balance=true")[
        "settings"
    ]
    assert (settings.finetune.interpolation, settings.finetune.tune_weights) == (0.25, True)
    assert settings.duplex.query_terms == "logits"
    assert len(caplog.messages) == 4


def test_the_command_line_wins_over_a_file_whichever_names_they_use(write, caplog):
    file = write("r.yaml", "finetune: {share: 0.25}\nstart: m\n")
    assert load_recipe(file, ["--finetune.interpolation", "0.5"]).finetune.interpolation == 0.5
    caplog.clear()
    recipe = load_recipe(file, ["--finetune.share", "0.5", "--base_model", "n"])
    assert (recipe.finetune.interpolation, recipe.base_model) == (0.5, "n")
    assert sorted(message.split()[0] for message in caplog.messages) == ["finetune.share", "start"]


@pytest.mark.parametrize(
    ("text", "words", "sentence"),
    [
        (
            "finetune:\n  interpolation: 1\n  share: 1\n",
            [],
            "r.yaml, line 3: 'finetune.share' already stands in line 2 as 'finetune.interpolation'",
        ),
        ("start: m\nbase_model: m\n", [], "r.yaml, line 2: 'base_model' already stands in line 1 as 'start'"),
        ("", ["--start", "m", "--base_model=m"], "--start is now called --base_model, which is given as well"),
        ("", ["--base_model=m", "--start", "m"], "--start is now called --base_model, which is given as well"),
        ("finetune: {share: 2}", [], "r.yaml, line 1: finetune.interpolation must be above 0 and at most 1, not 2"),
    ],
)
def test_both_names_together_and_wrong_values_get_one_sentence(text, words, sentence, write, capsys):
    assert cli.main(["run", write("r.yaml", text), *words]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dupmae: error: ")]
    assert sentence in line


@pytest.mark.parametrize("words", [["--baselines", "[bm25, start]"], ["--baselines=[bm25,start]"], []])
def test_a_former_value_is_taken_too(words, write, caplog):
    file = write("r.yaml", "output: o\n" if words else "baselines: [bm25, start]\n")
    assert load_recipe(file, words).baselines == ["bm25", "base-model"]
    assert caplog.messages == ["start among baselines is now called base-model; the old name goes with version 0.3"]


def test_a_baseline_may_be_appended_under_its_former_name(write):
    assert load_recipe(write("r.yaml", "baselines: [bm25]\n"), ["--baselines+=start"]).baselines == [
        "bm25",
        "base-model",
    ]


def test_only_whole_words_are_former_values(write, caplog):
    file = write("start.yaml", "output: start\nname: start\n")
    recipe = load_recipe(file, ["--base_model", "start"])
    assert (recipe.output, recipe.name, recipe.base_model) == ("start", "start", "start")
    with pytest.raises(DupmaeError, match="baselines takes"):
        load_recipe(file, ["--baselines", "[start-again]"])
    assert not caplog.messages


def test_a_record_of_a_whole_recipe_is_read_under_the_new_names():
    record = {"start": "m", "baselines": ["bm25", "start"], "finetune": {"share": 0.5}, "pretrain": {"cls_weight": 1}}
    assert with_new_names("", record) == {
        "base_model": "m",
        "baselines": ["bm25", "base-model"],
        "finetune": {"interpolation": 0.5},
        "pretrain": {"cls_weight": 1},
    }


def test_windows_of_words_are_chunks_of_tokens_now_and_the_warning_says_so(caplog):
    assert parsed("evaluate", "--model", "bm25", "--benchmark", "b", "--window_words", "8")["chunk_tokens"] == 8
    (message,) = caplog.messages
    assert message.startswith("window_words is now called chunk_tokens, and counts tokens, of which three words")
