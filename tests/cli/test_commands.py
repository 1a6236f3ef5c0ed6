"""What commands hand to the stages, and what they write and print."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dupmae.cli import entry as cli
from dupmae.config import AdaptConfig, DuplexConfig, FieldsConfig, FinetuneConfig, Recipe
from dupmae.corpus import build_token_store, read_benchmark, read_pairs, split_queries
from dupmae.duplex import DuplexEmbeddings, DuplexEncoder
from dupmae.experiments.adapt import adapt
from dupmae.experiments.run import run_recipe as real_run_recipe
from dupmae.index.writing.encoding import passages_within
from dupmae.models import Model, packing


@pytest.fixture
def corpus(write, texts):
    """Writes some of the texts as passages with ids."""

    def write_corpus(name: str, numbers: range) -> str:
        lines = [json.dumps({"_id": f"p{number}", "text": texts[number]}) for number in numbers]
        return write(name, "\n".join(lines) + "\n")

    return write_corpus


@pytest.fixture
def pretrain(stand_in, tmp_path):
    """Stands in for pre-training."""
    return stand_in("dupmae.pretraining.pretrain", return_value=tmp_path / "out" / "model")


def test_pretrain_tokenises_every_corpus_and_hands_on_flat_settings(
    pretrain, stand_in, corpus, texts, bert_folder, tmp_path, capsys
):
    read: list[str] = []

    def build(passages, *rest: Any, **named: Any):
        passages = list(passages)
        read.extend(passage.full_text for passage in passages)
        return build_token_store(passages, *rest, **named)

    store = stand_in("dupmae.corpus.build_token_store", side_effect=build)
    paths, output = [corpus("a.jsonl", range(1)), corpus("b.jsonl", range(1, 4))], tmp_path / "out"
    words = ["pretrain", "--corpus", *paths, "--model", str(bert_folder), "--output", str(output), "--steps", "5"]
    assert cli.main([*words, "--max_length", "20", "--min_length", "3"]) == 0
    assert read == texts[:4]
    _, tokenizer, folder, config, sources = store.call_args.args
    assert (folder, config.max_length, config.min_length, sources) == (output / "store", 20, 3, paths)
    assert tokenizer.convert_tokens_to_ids("[CLS]") == 2
    token_store, model, place, settings = pretrain.call_args.args
    assert (model, place, settings.steps) == (str(bert_folder), output, 5)
    assert max(token_store.lengths) == 20
    printed = capsys.readouterr().out
    assert f"texts 4, chunks {len(token_store)}," in printed
    assert f"Written: {output / 'model'}\n" in printed


def test_finetune_trains_on_all_pairs_a_model_whose_new_layers_the_seed_decides(stand_in, write, bert_folder):
    begin, train_on = stand_in("dupmae.duplex.starting.begin_duplex"), stand_in("dupmae.finetuning.finetune")
    pairs = write("pairs.jsonl", '{"query": "a", "positive": "b"}\n{"query": "c", "positive": "d"}\n')
    words = ["--model", str(bert_folder), "--pairs", pairs, "--output", "o", "--top_k", "9", "--epochs", "2"]
    assert cli.main(["finetune", *words, "--seed", "5"]) == 0
    given = read_pairs(Path(pairs))
    begin.assert_called_once_with(Model(str(bert_folder)), None, DuplexConfig(top_k=9), given.corpus, 5)
    settings = FinetuneConfig(epochs=2, seed=5)
    train_on.assert_called_once_with(begin.return_value, given, Path("o"), settings, dev=None, lists=None, scores=None)


@pytest.mark.parametrize(
    ("case", "held_out", "told"),
    [
        ("own passages", 6, "Held out: 6 of 60 queries, to measure on"),
        ("not measured", 0, ""),
        ("few", 0, "No queries are held out, so nothing is measured: 20 are too few"),
        ("one passage", 0, "its queries share so many passages"),
        ("large batches", 0, "gives 54 training pairs, fewer than one batch of 60"),
    ],
)
def test_finetune_holds_a_tenth_of_pairs_out_where_training_and_measuring_can_do_with_it(
    stand_in, write, duplex_folder, capsys, case, held_out, told
):
    stand_in("dupmae.duplex.starting.begin_duplex")
    stand_in("dupmae.finetuning.validation.compared", return_value={})
    train_on = stand_in("dupmae.finetuning.finetune")
    records = [
        {"query": f"q{n}", "positive": ["all", f"p{n}"] if case == "one passage" else f"p{n}"}
        for n in range(20 if case == "few" else 60)
    ]
    pairs = write("pairs.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    words = ["finetune", "--model", str(duplex_folder), "--pairs", pairs, "--output", "o"]
    words += ["--batch_size", "60" if case == "large batches" else "8"]
    assert cli.main([*words, *(["--eval_steps", "0"] if case == "not measured" else [])]) == 0
    dev = train_on.call_args.kwargs["dev"]
    assert (len(train_on.call_args.args[1].queries), len(dev.queries) if dev else 0) == (
        len(records) - held_out,
        held_out,
    )
    printed = capsys.readouterr().out
    assert told in printed
    assert ("held out" in printed.casefold()) == (case != "not measured")


def test_finetune_distils_the_scores_of_a_file_that_is_given_for_pairs_and_for_scores(
    stand_in, write, duplex_folder, caplog
):
    stand_in("dupmae.duplex.starting.begin_duplex")
    train_on = stand_in("dupmae.finetuning.finetune")
    pairs = write("mined.jsonl", '{"query": "a", "positive": "b", "negative": "c", "scores": [0.75, 0.5]}\n')
    words = ["finetune", "--model", str(duplex_folder), "--pairs", pairs, "--scores", pairs, "--output", "o"]
    assert cli.main([*words, "--teacher_temperature", "0.05"]) == 0
    assert train_on.call_args.args[1] == read_pairs(pairs)
    assert train_on.call_args.kwargs == {"dev": None, "lists": None, "scores": {"q1": {"p1": 0.75, "p2": 0.5}}}
    assert "as of cosines" not in caplog.text
    assert cli.main(words) == 0
    assert "as of cosines" in caplog.text
    assert cli.main([*words, "--lists", "n.jsonl"]) == 0
    assert train_on.call_args.kwargs["scores"] == Path(pairs)


def test_finetune_takes_held_out_queries_lists_and_scores(stand_in, write_data, duplex_folder, tmp_path):
    stand_in("dupmae.duplex.starting.begin_duplex")
    train_on = stand_in("dupmae.finetuning.finetune")
    data = write_data(tmp_path / "data")
    train, test = read_benchmark(data, "train"), read_benchmark(data, "test")
    words = ["finetune", "--model", str(duplex_folder), "--benchmark", str(data), "--output", "o"]
    assert cli.main([*words, "--dev_split", "test", "--lists", "n.jsonl", "--scores", "t.jsonl"]) == 0
    assert train_on.call_args.args[1] == train
    assert train_on.call_args.kwargs == {"dev": test, "lists": Path("n.jsonl"), "scores": Path("t.jsonl")}
    for hold_out in ("passages", "queries"):
        assert cli.main([*words, "--dev_fraction", "0.25", "--seed", "3", "--hold_out", hold_out]) == 0
        kept, held_out = split_queries(train, 0.25, 3, hold_out)
        assert held_out.queries
        assert (train_on.call_args.args[1], train_on.call_args.kwargs["dev"]) == (kept, held_out)
    assert cli.main([*words, "--dev_split", "train"]) == 2


@pytest.mark.parametrize("task", ["query", "document"])
def test_encode_writes_embeddings_of_the_task_and_ids_in_order(task, corpus, texts, duplex_folder, tmp_path):
    output = tmp_path / "e"
    words = ["--model", str(duplex_folder), "--input", corpus("c.jsonl", range(3, 6)), "--output", str(output)]
    assert cli.main(["encode", *words, "--task", task]) == 0
    assert cli.main(["encode", *words, "--task", task]) == 0  # an earlier result is replaced
    encoder = DuplexEncoder(str(duplex_folder))
    expected = (encoder.embed_queries if task == "query" else encoder.embed_documents)(texts[3:6])
    saved = DuplexEmbeddings.load(output)
    for one, other in ((saved.cls, expected.cls), (saved.ids, expected.ids), (saved.weights, expected.weights)):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert json.loads((output / "ids.json").read_text(encoding="utf-8")) == ["p3", "p4", "p5"]


def test_encode_computes_in_the_precision_that_it_is_given(corpus, texts, duplex_folder, tmp_path):
    words = ["encode", "--model", str(duplex_folder), "--input", corpus("c.jsonl", range(3, 6)), "--output"]
    found = {}
    for precision in ("float32", "bfloat16"):
        assert cli.main([*words, str(tmp_path / precision), "--precision", precision]) == 0
        encoder = DuplexEncoder(str(duplex_folder))
        encoder.precision = precision
        found[precision] = DuplexEmbeddings.load(tmp_path / precision).cls
        np.testing.assert_array_equal(found[precision], encoder.embed_documents(texts[3:6]).cls)
    assert not np.array_equal(found["float32"], found["bfloat16"])
    np.testing.assert_allclose(found["float32"], found["bfloat16"], atol=0.05)


def test_of_a_text_file_every_line_is_a_query_and_the_whole_a_document(write, duplex_folder, tmp_path, capsys):
    file = write("my q.txt", "first\n  second \n\n third\n")
    words = ["encode", "--model", str(duplex_folder), "--input", file, "--output", str(tmp_path / "e"), "--task"]
    assert cli.main([*words, "document"]) == 0
    assert len(DuplexEmbeddings.load(tmp_path / "e")) == 1
    assert cli.main([*words, "query"]) == 0
    expected = DuplexEncoder(str(duplex_folder)).embed_queries(["first", "second", "third"])
    np.testing.assert_allclose(DuplexEmbeddings.load(tmp_path / "e").cls, expected.cls, rtol=1e-5, atol=1e-5)
    ids = json.loads((tmp_path / "e" / "ids.json").read_text(encoding="utf-8"))
    assert ids == ["my_q.txt#1", "my_q.txt#2", "my_q.txt#4"]
    write("my q.txt", "\n \n")
    assert cli.main([*words, "query"]) == 2
    assert "my q.txt is empty: no query was found in it." in capsys.readouterr().err


def test_the_fields_of_a_corpus_are_named_and_what_cannot_be_read_of_a_folder_stops_it_only_if_strict(
    duplex_folder, tmp_path, capsys, caplog
):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.csv").write_text("no,body,head\nx,one,\ny,two,t\n", encoding="utf-8")
    (folder / "b.jsonl").write_text('{"no": "z"}\n', encoding="utf-8")
    (folder / "c.png").write_text("", encoding="utf-8")
    words = ["encode", "--model", str(duplex_folder), "--input", str(folder), "--output", str(tmp_path / "e")]
    assert cli.main([*words, "--strict"]) == 2
    assert "no column 'text' (the text); its columns are 'no', 'body', 'head'" in capsys.readouterr().err
    named = ["--text-field", "body", "--id_field", "no"]
    assert cli.main([*words, *named, "--strict"]) == 2
    assert "b.jsonl, line 1: no field 'body'" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()
    assert cli.main([*words, *named]) == 0
    assert json.loads((tmp_path / "e" / "ids.json").read_text(encoding="utf-8")) == ["x", "y"]
    assert "b.jsonl, line 1: no field 'body' (the text); its fields are 'no'" in caplog.text
    assert f"Not read of {folder}: 1 .png, 1 fault in one file (named above)." in caplog.text


def test_encode_never_replaces_a_folder_that_holds_something_else(write, tmp_path, capsys):
    thesis = write("thesis.txt", "years of work")
    assert cli.main(["encode", "--model", "m", "--input", "i", "--output", str(tmp_path)]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert Path(thesis).read_text(encoding="utf-8") == "years of work"


def test_pack_writes_one_file_and_says_what_it_cost(bert_folder, tmp_path, capsys):
    words = ["pack", str(bert_folder), str(tmp_path / "small.safetensors"), "--vocabulary_bits", "5"]
    assert cli.main(words) == 0
    assert packing.is_packed(tmp_path / "small.safetensors")
    assert re.fullmatch(
        r"Written: .*small\.safetensors \(\d\.\d MB, .* by more than \d+\.\d%\)\n", capsys.readouterr().out
    )
    assert cli.main([*words, "--bits", "1"]) == 2
    assert "bits is 1: a weight takes 2 to 8 bits" in capsys.readouterr().err


def test_index_build_streams_the_passages_of_every_corpus(stand_in, corpus, duplex_folder):
    read: list[str] = []
    build = stand_in(
        "dupmae.index.writing.build.build_segments",
        side_effect=lambda folder, encoder, passages, **_: read.extend(passage.id for passage in passages),
    )
    paths = [corpus("a.jsonl", range(2)), corpus("b.jsonl", range(2, 4))]
    words = ["--model", str(duplex_folder), "--corpus", *paths, "--output", "o", "--batch_size", "4"]
    assert cli.main(["index", "build", *words, "--memory_mb", "7"]) == 0
    assert read == ["p0", "p1", "p2", "p3"]
    assert build.call_args.args[0] == Path("o")
    options = {"batch_size": 4, "segment_passages": passages_within(7), "process": (0, 1)}
    options |= {"chunks": {"tokens": 200, "overlap": 40}}
    given = dict(build.call_args.kwargs)
    assert given.pop("count")() == 4
    assert given == {"model": Model(str(duplex_folder)), **options}


def test_a_run_says_where_its_results_are(run_recipe, write, capsys):
    assert cli.main(["run", write("r.yaml", "output: here\n")]) == 0
    run_recipe.assert_called_once_with(Recipe(output="here"))
    assert capsys.readouterr().out == "Written: here\n"


@pytest.mark.skipif(
    "dry_run" not in inspect.signature(real_run_recipe).parameters
    or "dry_run" not in inspect.signature(adapt).parameters,
    reason="runs cannot be asked for their stages alone",
)
def test_a_dry_run_asks_for_the_stages_alone_and_writes_nothing(run_recipe, stand_in, write, capsys):
    assert cli.main(["run", write("r.yaml", "output: here\n"), "--dry_run"]) == 0
    run_recipe.assert_called_once_with(Recipe(output="here"), dry_run=True)
    adapt_to = stand_in("dupmae.experiments.adapt.adapt")
    assert cli.main(["adapt", "c.jsonl", "--model", "m", "--output", "o", "--dry_run"]) == 0
    adapt_to.assert_called_once_with(
        "c.jsonl", "m", Path("o"), AdaptConfig(), None, fields=FieldsConfig(), strict=False, dry_run=True
    )
    assert "Written" not in capsys.readouterr().out
