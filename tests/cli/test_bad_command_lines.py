"""Command lines that cannot be meant: one sentence, exit status 2, and no work begun."""

from __future__ import annotations

import pytest

from dupmae.cli import entry as cli
from dupmae.cli.parsing import parse_command


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pretrain"], "dupmae pretrain needs --corpus, --output"),
        (["index", "delete", "i"], "takes either --ids or --file"),
        (["index", "push", "solr", "i", "u"], "dupmae index push takes one of qdrant, pgvector, not 'solr' (see"),
        (["index", "push"], "dupmae index push needs {qdrant,pgvector}, INDEX, URL"),
        (["index", "push", "pgvector", "i", "http://h/c"], "http://h/c is no URL of pgvector"),
        (["reproduce", "table9"], "dupmae reproduce takes one of table1, table2, table3, table4, all, not 'table9'"),
        (["reproduce"], "dupmae reproduce needs {table1,table2,table3,table4,all}"),
        (
            ["search", "i", "q", "--where", "year"],
            "The filter 'year' cannot be read (it ends too early): write FIELD=VALUE",
        ),
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
        (["pretrain", "--corpus", "c", "--output", "o"], "either --model NAME or --from_scratch: give one of the two"),
        (["encode", "--task", "both"], "--task takes one of query, document, not 'both'"),
        (["run", "missing.yaml"], "missing.yaml: no such settings file"),
        (["search", "i", "--k", "0"], "--k counts the documents to show, at least 1, not 0"),
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
def test_a_bad_command_line_gets_one_sentence_and_exit_2(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("dupmae: error: ")
    assert sentence in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["encode", "--model", "m", "--input", "i", "--output", "a.jsonl/y"], "a.jsonl/y cannot be written (a.jsonl:"),
        (["pack", "m", "a.jsonl/y"], "a.jsonl/y cannot be written (a.jsonl: not a directory): name another place."),
        (["pack", "m", "folder"], "folder is a folder: name a file."),
        (["rerank", "--model", "m", "--run", "r", "--benchmark", "b", "--output", "folder"], "folder is a folder:"),
        (["evaluate", "--model", "m", "--benchmark", "b", "--json", "folder"], "folder is a folder: name a file."),
        (
            ["evaluate", "--model", "m", "--benchmark", "b", "--output", "a.jsonl"],
            "a.jsonl cannot be written (a.jsonl: is a file)",
        ),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work_for_it(
    words, sentence, stand_in, write, tmp_path, monkeypatch, capsys
):
    work = [
        stand_in(name)
        for name in (
            "dupmae.duplex.DuplexEncoder",
            "dupmae.models.packing.pack",
            "dupmae.retrievers.scorers.load_cross_encoder",
            "dupmae.evaluation.comparison.compare",
        )
    ]
    monkeypatch.chdir(tmp_path)
    write("a.jsonl", "")
    (tmp_path / "folder").mkdir()
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not any(step.called for step in work)


def test_hyphens_in_an_option_are_underscores_but_those_of_its_value_stay():
    _, keyword, _ = parse_command(
        "search", cli.COMMANDS["search"], ["i", "q", "--model=some-model", "--candidates", "7"]
    )
    assert keyword["model"] == "some-model"
    words = ["texts", "--output=out-put", "--dry-run", "--known-items", "7", "--pretrain.new-layers-steps=3"]
    _, keyword, _ = parse_command("adapt", cli.COMMANDS["adapt"], words)
    assert (keyword["output"], keyword["dry_run"]) == ("out-put", True)
    assert (keyword["settings"].known_items, keyword["settings"].pretrain.new_layers_steps) == (7, 3)


def test_what_follows_two_hyphens_is_text_and_no_option():
    positional, *_ = parse_command("search", cli.COMMANDS["search"], ["i", "--", "--start-up costs"])
    assert positional == ["i", "--start-up costs"]
