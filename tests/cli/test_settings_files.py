"""Settings: those of a file win over the defaults, those of the command line over both."""

from __future__ import annotations

import pytest

from dupmae.cli import entry as cli
from dupmae.cli import load_recipe
from dupmae.cli.parsing import parse_command
from dupmae.config import FinetuneConfig
from dupmae.errors import DupmaeError


def test_recipe_file_wins_over_defaults_and_command_line_over_both(write, run_recipe):
    file = write("r.yaml", "output: here\nseed: 7\npretrain: {steps: 5, learning_rate: 1e-4}\n")
    assert cli.main(["run", "--pretrain.steps", "10", file, "--data.benchmark", "b"]) == 0
    (recipe,) = run_recipe.call_args.args
    assert (recipe.pretrain.steps, recipe.pretrain.learning_rate, recipe.seed) == (10, 1e-4, 7)
    assert (recipe.output, recipe.data.benchmark) == ("here", "b")
    assert recipe.finetune == FinetuneConfig()


def test_recipe_null_means_none_only_where_none_is_allowed(write):
    recipe = load_recipe(write("a.yaml", "duplex:\n  dense_dimension: null\n"))
    assert recipe.duplex.dense_dimension is None
    with pytest.raises(DupmaeError, match=r"b.yaml, line 2: output has no value"):
        load_recipe(write("b.yaml", "name: x\noutput:\n"))


def test_recipe_booleans_may_be_spelled_as_yaml_does(write):
    assert load_recipe(write("r.yaml", "data: {allow_unknown: yes}\n")).data.allow_unknown is True


def test_a_wrong_value_in_the_file_does_no_harm_when_the_command_line_overrides_it(write):
    assert load_recipe(write("r.yaml", "seed: many\n"), ["--seed=3"]).seed == 3


@pytest.mark.parametrize("corpus", ["a", "[a]"])
def test_config_file_may_give_required_options_and_lists(corpus, write):
    file = write("p.yaml", f"corpus: {corpus}\nmodel: m\noutput: o\nsteps: 7\nmax_length: 50\n")
    _, read, _ = parse_command("pretrain", cli.COMMANDS["pretrain"], ["--config", file, "--steps", "8"])
    assert (read["corpus"], read["model"], read["output"]) == (["a"], "m", "o")
    assert (read["settings"].steps, read["store"].max_length) == (8, 50)
    words = ["--steps", "9", f"--config={file}", "--corpus", "b"]
    _, read, _ = parse_command("pretrain", cli.COMMANDS["pretrain"], words)
    assert (read["corpus"], read["settings"].steps) == (["b"], 9)


def test_a_flag_may_stand_in_a_file(write):
    for word, value in (("true", True), ("off", False)):
        words = ["c", "--output", "o", "--config", write("a.yaml", f"allow_unknown: {word}\n")]
        _, read, _ = parse_command("adapt", cli.COMMANDS["adapt"], words)
        assert read["allow_unknown"] is value


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed: 1\npretrain:\n  stesp: 3\n", "line 3: unknown key 'pretrain.stesp'; did you mean pretrain.steps?"),
        ("steps: 3\n", "line 1: unknown key 'steps'; did you mean pretrain.steps?"),
        ("pretrain: 3\n", "line 1: unknown key 'pretrain'; it is a section"),
        ("seed: 1\nseed: 2\n", "line 2: 'seed' already stands in line 1\n"),
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
def test_a_bad_recipe_gets_one_sentence_with_file_and_line(text, sentence, write, capsys):
    file = write("recipe.yaml", text)
    assert cli.main(["run", file]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dupmae: error: {file}")
    assert sentence in error
    assert error.count("\n") == 1
