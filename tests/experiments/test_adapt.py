"""Adaptation to text alone, end to end: its report, what is held out, what is refused, what survives a kill."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from leftovers import left_over

from dupmae.cli import entry as cli
from dupmae.cli.parsing import parse_command
from dupmae.config import (
    AdaptConfig,
    DuplexConfig,
    FieldsConfig,
    FinetuneConfig,
    FurtherStageConfig,
    MiningConfig,
    PretrainConfig,
    StoreConfig,
)
from dupmae.corpus import Benchmark, Passage, TokenStore, read_pairs, read_passages, write_benchmark
from dupmae.corpus.pseudo_queries import known_items
from dupmae.errors import DupmaeError
from dupmae.evaluation import evaluate_run
from dupmae.experiments import adapt as adapting
from dupmae.experiments import stages
from dupmae.experiments.adapt import adapt
from dupmae.experiments.adapt_data import passages_to_train_on, with_pairs
from dupmae.models import open_model
from dupmae.retrievers import bm25_run, dense_run, hybrid_run
from dupmae.retrievers.hybrid import FORMS

RUNS = ("bm25", "dense", "duplex")
SYSTEMS = ["bm25", "base-model", "hybrid", "hybrid-rrf", "duplex", "duplex-dense", "duplex-lexical", "duplex-words"]


@pytest.fixture(scope="module")
def corpus(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty passages of three sentences, each about its own two words, most of them with a title."""
    draw = random.Random(6)
    file = tmp_path_factory.mktemp("texts") / "articles.jsonl"
    lines = []
    for number in range(80):
        subject = [words[number % 100], words[(number * 7 + 3) % 100]]
        sentences = [" ".join([*draw.choices(words, k=7), *subject]).capitalize() + "." for _ in range(3)]
        title = " ".join([*subject, words[number + 10]]) if number % 4 else ""
        lines.append({"_id": f"a b {number}", "title": title, "text": " ".join(sentences)})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture(scope="module")
def config() -> AdaptConfig:
    """Two and two steps of pre-training, nine of fine-tuning, known items among 30 passages."""
    return AdaptConfig(
        known_items=8,
        known_item_pool=30,
        store=StoreConfig(max_length=32, min_length=4),
        pretrain=PretrainConfig(
            dense_pooling="mean",
            warm_start_sequences=40,
            new_layers_steps=2,
            steps=2,
            batch_size=8,
            held_out_texts=0,
            save_steps=1,
        ),
        duplex=DuplexConfig(dense_pooling="mean", top_k=24, document_max_length=48),
        finetune=FinetuneConfig(epochs=1, batch_size=8, save_steps=2, max_length=32),
    )


@pytest.fixture(scope="module")
def finished(
    corpus: Path, embedder_folder: Path, config: AdaptConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert adapt(corpus, str(embedder_folder), folder, config) == folder
    return folder


def in_stages(config: AdaptConfig, stages: Literal[2, 3]) -> AdaptConfig:
    """So many stages of a few steps each, on lists of five negatives."""
    return replace(
        config,
        stages=stages,
        finetune=replace(config.finetune, epochs=0.3),
        mining=MiningConfig(last=5),
        hard_negatives=FurtherStageConfig(epochs=0.3, batch_size=8, negatives=2, negative_depth=5),
        distil=FurtherStageConfig(epochs=0.3, batch_size=8, negatives=2, negative_depth=5),
    )


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def test_the_report_compares_known_items_before_and_after(finished: Path) -> None:
    found = report(finished)
    assert [row["name"] for row in found["systems"]] == SYSTEMS
    assert all(0 <= row["ndcg@10"] <= 1 for row in found["systems"])
    assert found["systems"][0]["mrr@10"] > 0.3  # BM25 finds sentences by the passage's own words
    words = (finished / "report.md").read_text()
    rows = {row["name"]: row["ndcg@10"] for row in found["systems"]}
    best = max(SYSTEMS[:4], key=lambda name: rows[name])
    after = f"NDCG@10 {rows[best]:.3f}; duplex has {rows['duplex']:.3f} after: {rows['duplex'] - rows[best]:+.3f}."
    assert f"The best before is {best}, {after}" in words
    assert "of 8 passages that nothing was trained on" in words
    assert "among 30." in words
    assert "drawn from 72 passages." in words
    assert (finished / "figures" / "fine-tuning.png").is_file()
    assert "titles and sentences of 8 passages" in words
    assert "runs of words" not in words


def test_the_known_items_mixtures_are_those_of_bm25_and_the_base_model(
    finished: Path, corpus: Path, embedder_folder: Path
) -> None:
    read = {passage.id: passage for passage in read_passages(corpus)}
    items = known_items(read, "articles", 8, 30, AdaptConfig().seed)
    lexical, dense = bm25_run(items, 1000), dense_run(str(embedder_folder), items, 1000)
    rows = {row["name"]: row for row in report(finished)["systems"]}
    for form in FORMS:
        expected = evaluate_run(hybrid_run(lexical, dense, candidates=1000, form=form), items.qrels)
        assert {metric: rows[form][metric] for metric in expected} == pytest.approx(expected)


def test_held_out_passages_are_indexed_but_neither_read_nor_asked_about(finished: Path, corpus: Path) -> None:
    from dupmae.index import DuplexIndex

    assert len(DuplexIndex.open(finished / "index")) == 80
    assert TokenStore.open(finished / "1-store" / "store").report["texts"] == 72
    passages = [json.loads(line) for line in corpus.read_text().splitlines()]
    pairs = read_pairs(finished / "0-queries" / "pairs.jsonl")
    assert 60 < len(pairs.queries) <= 72
    read = {line["_id"]: Passage(line["_id"], line["title"], line["text"]) for line in passages}
    items = known_items(read, "articles", 8, 30, AdaptConfig().seed)
    held_out = [read[name] for name in {passage for grades in items.qrels.values() for passage in grades}]
    assert len(held_out) == 8
    trained_on = " ".join([*pairs.queries.values(), *(passage.full_text for passage in pairs.corpus.values())])
    for passage in held_out:
        for sentence in passage.text.removesuffix(".").split(". "):
            assert sentence not in trained_on


def test_the_index_answers(finished: Path, corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(cli, "silence", lambda: None)
    query = json.loads(corpus.read_text().splitlines()[5])["text"]
    assert cli.main(["search", str(finished / "index"), query, "--k", "3", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_finished_adaptation_leaves_nothing_that_only_an_unfinished_one_needs(finished: Path) -> None:
    assert left_over(finished) == []


def test_a_killed_run_ends_as_one_that_was_not(
    finished: Path, corpus: Path, embedder_folder: Path, config: AdaptConfig, tmp_path: Path, monkeypatch: Any
) -> None:
    folder = tmp_path / "killed"
    for name in ("dupmae.pretraining.pretrain", "dupmae.finetuning.finetune", "dupmae.experiments.adapt.evaluate_run"):
        with monkeypatch.context() as patch:

            def die(*_: Any, **__: Any) -> None:
                raise KeyboardInterrupt

            patch.setattr(name, die)
            with pytest.raises(KeyboardInterrupt):
                adapt(corpus, str(embedder_folder), folder, config)
        assert not (folder / "report.json").exists()
    adapt(corpus, str(embedder_folder), folder, config)
    assert report(folder)["systems"] == report(finished)["systems"]
    weights = Path("3-finetune/model/model.safetensors")
    assert (folder / weights).read_bytes() == (finished / weights).read_bytes()

    for module, name in ((stages, "build_token_store"), *((adapting, f"{kind}_run") for kind in RUNS)):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("a stage ran again"))
    adapt(corpus, str(embedder_folder), folder, config)


def test_a_second_stage_trains_on_negatives_that_the_first_ones_model_mined(
    corpus: Path, embedder_folder: Path, config: AdaptConfig, tmp_path: Path
) -> None:
    settings = in_stages(config, 2)
    folder = adapt(corpus, str(embedder_folder), tmp_path / "run", settings)
    pairs = read_pairs(folder / "0-queries" / "pairs.jsonl")
    lists = [json.loads(line) for line in (folder / "4-mine" / "negatives.jsonl").read_text().splitlines()]
    assert len(lists) == len(pairs.queries)
    for one in lists:
        (answer,) = one["positives"]
        assert one["query_id"] == f"{answer}#1"
        assert len(one["negatives"]) == 5
    first, second = (folder / name / "model" / "model.safetensors" for name in ("3-finetune", "5-hard-negatives"))
    assert first.read_bytes() != second.read_bytes()
    model = json.loads((folder / "index" / "manifest.json").read_text())["model"]
    assert model == str(folder / "8-result" / "model")
    assert [row["name"] for row in report(folder)["systems"]] == SYSTEMS


def test_a_third_stage_distils_what_a_teacher_says_of_the_mined_lists(
    corpus: Path, embedder_folder: Path, config: AdaptConfig, tmp_path: Path
) -> None:
    settings = in_stages(config, 3)
    folder = adapt(corpus, str(embedder_folder), tmp_path / "run", settings)
    lists, taught = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("4-mine/negatives.jsonl", "6-teacher/teacher.jsonl")
    )
    for asked, said in zip(lists, taught, strict=True):
        assert list(said["scores"]) == [*asked["positives"], *asked["negatives"]]
        assert all(-20.01 < score < 20.01 for score in said["scores"].values())
    losses = [json.loads(line) for line in (folder / "7-distil" / "metrics.jsonl").read_text().splitlines()]
    assert all("distil" in line for line in losses)
    second, third = (folder / name / "model" / "model.safetensors" for name in ("5-hard-negatives", "7-distil"))
    assert second.read_bytes() != third.read_bytes()
    result = folder / "8-result" / "model" / "model.safetensors"
    assert result.read_bytes() == third.read_bytes()
    other = folder / "2-pretrain" / "model"
    for teacher, start in ((str(other), embedder_folder), (None, other)):
        with pytest.raises(DupmaeError, match="neither an embedder nor a cross-encoder, so it has no scores to distil"):
            adapt(corpus, str(start), tmp_path / "none", replace(settings, teacher=teacher))
    assert not (tmp_path / "none").exists()


def test_the_folder_of_another_run_is_refused(
    finished: Path, corpus: Path, embedder_folder: Path, config: AdaptConfig, tmp_path: Path
) -> None:
    changed = tmp_path / "articles.jsonl"
    changed.write_text(corpus.read_text().replace("a b 7", "a b seven"))
    other = finished / "3-finetune" / "model"
    for text, model in ((changed, embedder_folder), (corpus, other)):
        with pytest.raises(DupmaeError, match=r"another base model or other data: choose another output or delete it$"):
            adapt(text, str(model), finished, config)


def test_other_queries_are_drawn_and_trained_on_without_pre_training_again(
    finished: Path, corpus: Path, embedder_folder: Path, config: AdaptConfig, tmp_path: Path, monkeypatch: Any
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    changed = replace(config, queries=replace(config.queries, title_weight=0.0))
    for place in ("dupmae.pretraining.pretrain", "dupmae.experiments.adapt.bm25_run"):
        monkeypatch.setattr(place, lambda *_, **__: pytest.fail("a stage ran again"))
    adapt(corpus, str(embedder_folder), folder, changed)
    drawn = [read_pairs(run / "0-queries" / "pairs.jsonl").queries for run in (finished, folder)]
    assert drawn[0] != drawn[1]
    trained = [(run / "3-finetune" / "model" / "model.safetensors").read_bytes() for run in (finished, folder)]
    assert trained[0] != trained[1]
    assert adapt(corpus, str(embedder_folder), tmp_path / "none", changed, dry_run=True) == tmp_path / "none"
    assert not (tmp_path / "none").exists()


def test_corrected_answers_of_the_given_pairs_are_another_run(
    corpus: Path, embedder_folder: Path, config: AdaptConfig, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(adapting.Adaptation, "all_stages", lambda _: [])
    monkeypatch.setattr(adapting.Adaptation, "_report", lambda _: None)
    for answer in ("a wrong answer", "the right one"):
        (tmp_path / "pairs.jsonl").write_text(json.dumps({"query": "what is baba?", "positive": answer}) + "\n")
        run = corpus, str(embedder_folder), tmp_path / "run", config, read_pairs(tmp_path / "pairs.jsonl")
        if answer == "a wrong answer":
            adapt(*run)
            (tmp_path / "run" / "work").touch()  # a folder in which nothing was made takes another run
        else:
            with pytest.raises(DupmaeError, match="another base model or other data"):
                adapt(*run)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"stages": 2, "mining": MiningConfig(first=9, last=5)}, r"mining\.first is 9 and mining\.last 5"),
        ({"finetune": FinetuneConfig(batch_size=999)}, r"fewer than one batch of 999: lower finetune\.batch_size"),
    ],
)
def test_what_a_later_stage_would_refuse_is_refused_before_any_work(
    changes: dict[str, Any], sentence: str, corpus: Path, embedder_folder: Path, config: AdaptConfig, tmp_path: Path
) -> None:
    with pytest.raises(DupmaeError, match=sentence):
        adapt(corpus, str(embedder_folder), tmp_path / "run", replace(config, **changes))
    assert not (tmp_path / "run").exists()


def test_a_pooling_that_the_start_was_not_trained_for_is_refused(
    finished: Path, corpus: Path, embedder_folder: Path, config: AdaptConfig, tmp_path: Path
) -> None:
    first_token = replace(
        config,
        pretrain=replace(config.pretrain, dense_pooling="cls"),
        duplex=replace(config.duplex, dense_pooling="cls"),
    )
    for start in (embedder_folder, finished / "2-pretrain" / "model"):
        with pytest.raises(DupmaeError, match=r"was trained with the pooling mean: set pretrain\.dense_pooling"):
            adapt(corpus, str(start), tmp_path / "run", first_token)
    with pytest.raises(DupmaeError, match=r"pretrain\.dense_pooling is cls and duplex\.dense_pooling is mean"):
        adapt(corpus, str(embedder_folder), tmp_path / "run", replace(first_token, duplex=config.duplex))
    assert not (tmp_path / "run").exists()


def test_given_pairs_are_trained_on_as_well(
    corpus: Path, embedder_folder: Path, tmp_path: Path, monkeypatch: Any, config: AdaptConfig
) -> None:
    seen: list[Benchmark] = []

    def finetune(encoder: Any, train: Benchmark, *_: Any, dev: Benchmark) -> None:
        assert not dev.queries
        seen.append(train)
        raise KeyboardInterrupt

    monkeypatch.setattr("dupmae.finetuning.finetune", finetune)
    (tmp_path / "pairs.jsonl").write_text('{"query": "what is baba?", "positive": ["Baba is a word.", "And so on."]}\n')
    given = read_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(KeyboardInterrupt):
        adapt(corpus, str(embedder_folder), tmp_path / "run", config, given)
    (train,) = seen
    assert train.queries["given:q1"] == "what is baba?"
    assert train.qrels["given:q1"] == {"given:p1": 1, "given:p2": 1}
    assert train.corpus["given:p1"].text == "Baba is a word."
    assert len(train.queries) > 60


def test_the_balance_is_chosen_by_given_queries_that_are_held_out(
    corpus: Path, embedder_folder: Path, tmp_path: Path, config: AdaptConfig
) -> None:
    lines = [json.loads(line) for line in corpus.read_text().splitlines()][:20]
    pairs = [{"query": line["text"].split(".")[0], "positive": line["text"]} for line in lines]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    given = read_pairs(tmp_path / "pairs.jsonl")
    balanced = replace(config, finetune=replace(config.finetune, tune_weights=True, eval_steps=0), dev_fraction=0.4)
    folder = adapt(corpus, str(embedder_folder), tmp_path / "run", balanced, given)
    trained_on = read_pairs(folder / "0-queries" / "pairs.jsonl").queries.values()
    assert 0 < len(set(given.queries.values()).difference(trained_on)) < 20
    chosen = json.loads((folder / "3-finetune" / "finetune.json").read_text())["weights"]
    assert chosen["after"] >= chosen["before"] > 0

    for settings, pairs_too in ((replace(balanced, dev_fraction=0.0), given), (balanced, None)):
        with pytest.raises(DupmaeError, match=r"finetune\.tune_weights chooses by held-out queries"):
            adapt(corpus, str(embedder_folder), tmp_path / "none", settings, pairs_too)
    assert not (tmp_path / "none").exists()


def test_a_given_passage_of_the_corpus_is_that_passage_and_a_held_out_one_teaches_nothing() -> None:
    corpus = {name: Passage(name, "On", f"text {name}") for name in "abc"}
    train = Benchmark("t", "pseudo", {n: Passage(n, "", f"text {n}") for n in "ab"}, {"a#1": "On"}, {"a#1": {"a": 1}})
    given = Benchmark(
        "g",
        "train",
        {"x": Passage("x", "", "On text b"), "y": Passage("y", "", "TEXT  c"), "z": Passage("z", "On", "else")},
        {"1": "one", "2": "two", "3": "three"},
        {"1": {"x": 2, "y": 1}, "2": {"y": 1}, "3": {"z": 1, "x": 0}},
    )
    joined = with_pairs(train, given, corpus)
    assert joined.corpus == train.corpus | {"given:z": Passage("given:z", "On", "else")}
    assert joined.queries == {"a#1": "On", "given:1": "one", "given:3": "three"}
    assert joined.qrels == {"a#1": {"a": 1}, "given:1": {"b": 2}, "given:3": {"given:z": 1, "b": 0}}


def test_the_commands_defaults_are_those_of_the_settings() -> None:
    positional, keyword, _ = parse_command("adapt", cli.COMMANDS["adapt"], ["texts", "--output", "o"])
    assert positional == ["texts"]
    assert asdict(keyword["settings"]) == asdict(AdaptConfig())
    words = ["texts", "--output", "o", "--pretrain.steps", "7", "--queries.crop_weight", "0"]
    settings = parse_command("adapt", cli.COMMANDS["adapt"], words)[1]["settings"]
    assert (settings.pretrain.steps, settings.pretrain.dense_pooling, settings.queries.crop_weight) == (7, "mean", 0)


def test_the_command_hands_on_what_it_is_given(monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    calls: list[tuple[Any, ...]] = []
    adapter: Callable[..., Any] = lambda *call, **named: calls.append((*call, named)) or call[2]  # noqa: E731
    monkeypatch.setattr(adapting, "adapt", adapter)
    monkeypatch.setattr(cli, "silence", lambda: None)
    (tmp_path / "pairs.jsonl").write_text('{"query": "q", "positive": "p"}\n')
    words = ["adapt", "texts", "--output", "o", "--model", "m", "--pairs", str(tmp_path / "pairs.jsonl"), "--seed", "5"]
    assert cli.main([*words, "--text_field", "body", "--strict"]) == 0
    ((corpus, model, output, settings, given, named),) = calls
    assert named == {"fields": FieldsConfig(text_field="body"), "strict": True, "dry_run": False}
    assert (corpus, model, output, settings.seed) == ("texts", "m", Path("o"), 5)
    assert list(given.queries.values()) == ["q"]
    assert capsys.readouterr().out == "Written: o\n"
    assert cli.main([*words, "--benchmark", "b"]) == 2


@pytest.mark.parametrize(("rate", "kept"), [(0.0, "adapted"), (3.0, "base-model")])
def test_a_duplex_start_never_knows_less_afterwards(
    finished: Path, corpus: Path, config: AdaptConfig, tmp_path: Path, rate: float, kept: str
) -> None:
    """Fine-tuning at rate 3 ruins the model."""
    from dupmae.duplex import DuplexEncoder

    start = finished / "8-result" / "model"
    rates = {"learning_rate": rate, "head_learning_rate": rate, "scale_learning_rate": rate}
    settings = replace(
        config,
        pretrain=replace(config.pretrain, new_layers_steps=0, steps=0),
        finetune=replace(config.finetune, **rates),
    )
    folder = adapt(corpus, str(start), tmp_path / "run", settings)
    assert not (folder / "1-store").exists()
    result = json.loads((folder / "8-result" / "done.json").read_text())["metrics"]
    assert result["kept"] == kept
    rows = {row["name"]: row["ndcg@10"] for row in report(folder)["systems"]}
    assert list(rows) == [
        "bm25",
        "base-model",
        "base-model-dense",
        "base-model-lexical",
        "base-model-words",
        "hybrid",
        "hybrid-rrf",
        "duplex",
        "duplex-dense",
        "duplex-lexical",
        "duplex-words",
    ]
    assert rows["duplex"] == rows["base-model"]
    assert rows["duplex-dense"] == rows["base-model-dense"]
    assert ("the result is the base model" in (folder / "report.md").read_text()) == (kept == "base-model")
    pair = [DuplexEncoder(str(model)).pooling.output.weight for model in (start, folder / "8-result" / "model")]
    assert torch.equal(*pair)


def test_a_duplex_start_is_pre_trained_for_its_own_pooling(finished: Path, corpus: Path, tmp_path: Path) -> None:
    start = finished / "8-result" / "model"
    with pytest.raises(DupmaeError, match=r"pretrain\.dense_pooling is cls and the base model's dense_pooling is mean"):
        adapt(corpus, str(start), tmp_path / "run", AdaptConfig(pretrain=PretrainConfig()))


def test_the_small_models_recipe_runs_small(finished: Path, corpus: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """All that is made smaller are sizes and lengths."""
    monkeypatch.setattr(cli, "silence", lambda: None)
    questions = tmp_path / "questions"
    syllables = ["ba", "be", "bi", "bo", "bu", "da"]
    passages = [Passage(f"n{one}", one, f"{one} and its like {one}") for one in syllables]
    asked = {f"q{one}": f"what is {one}" for one in syllables}
    write_benchmark(questions, passages, asked, {"test": {f"q{one}": {f"n{one}": 1} for one in syllables}})
    recipe = Path(__file__).parents[2] / "recipes" / "small.yaml"
    folder = tmp_path / "run"
    words = f"--config {recipe} --model {finished / '2-pretrain' / 'model'} --benchmark {questions} --output {folder}"
    sizes = "--known_items 8 --known_item_pool 30 --store.max_length 32 --store.min_length 4 --duplex.top_k 24"
    sizes += " --duplex.document_max_length 48 --finetune.max_length 32"
    assert cli.main(["adapt", str(corpus), *words.split(), *sizes.split()]) == 0
    found = report(folder)
    assert [row["name"] for row in found["systems"]] == SYSTEMS
    assert found["settings"]["pretrain"]["steps"] == 0
    assert "weights" in json.loads((folder / "3-finetune" / "finetune.json").read_text())
    assert (folder / "8-result" / "model" / "modules.json").is_file()


def test_wikipedia_articles_become_passages_under_their_headings(tmp_path: Path) -> None:
    sentence = "This sentence of eight words says quite little. "
    lines = [6 * sentence, "History.", "Old times.", 3 * sentence, 40 * sentence, "See also.", "A list of things."]
    file = tmp_path / "articles.jsonl"
    file.write_text(json.dumps({"_id": "7", "title": "Lighthouse", "text": "\n".join(lines)}) + "\n")
    script = Path(__file__).parents[2] / "recipes" / "wikipedia_passages.py"
    words = [sys.executable, str(script), str(file), "--output", str(tmp_path / "passages.jsonl"), "--first", "2"]
    subprocess.run([*words, "--others", "1"], check=True, capture_output=True)
    passages = [json.loads(line) for line in (tmp_path / "passages.jsonl").read_text().splitlines()]
    assert [(passage["_id"], passage["title"], len(passage["text"].split())) for passage in passages] == [
        ("7-0", "Lighthouse", 48),
        ("7-1", "Lighthouse: Old times", 160),
        (passages[2]["_id"], "Lighthouse: Old times", len(passages[2]["text"].split())),
    ]
    assert passages[2]["_id"] in ("7-2", "7-3")
    assert all(passage["text"].endswith("little.") for passage in passages)
    subprocess.run([*words, "--sample", "1"], check=True, capture_output=True)
    assert len((tmp_path / "passages.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(("least", "most"), [(4, 12), (9, 14)])
def test_questions_and_captions_are_adapted_to_by_runs_of_their_words(
    least: int, most: int, words: list[str], embedder_folder: Path, config: AdaptConfig, tmp_path: Path
) -> None:
    draw = random.Random(3)
    file = tmp_path / "questions.jsonl"
    texts = [" ".join(draw.choices(words, k=draw.randint(least, most))) + "?" for _ in range(90)]
    file.write_text("".join(json.dumps({"_id": f"q{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    folder = adapt(file, str(embedder_folder), tmp_path / "run", config)
    items = known_items({f"q{n}": Passage(f"q{n}", "", text) for n, text in enumerate(texts)}, "questions", 8, 30, 42)
    assert len(items.queries) >= 8
    written = (folder / "report.md").read_text()
    assert f"{len(items.queries)} titles, sentences and runs of words of 8 passages" in written
    assert f"{len(items.queries)} are runs of words of short passages, which keep them" in written
    pairs = (folder / "0-queries" / "pairs.jsonl").read_text().splitlines()
    assert len(pairs) >= 70
    assert len(read_pairs(folder / "0-queries" / "pairs.jsonl").queries) == len(pairs)


@pytest.mark.parametrize("kind", ["encoder", "duplex"])
def test_long_documents_are_trained_on_in_parts_that_repeat_nothing_and_share_no_title(
    kind: str, bert_folder: Path, duplex_folder: Path, words: list[str]
) -> None:
    base_model = open_model(str({"encoder": bert_folder, "duplex": duplex_folder}[kind]))
    text = " ".join(" ".join(words[start : start + 8]).capitalize() + "." for start in range(0, 80, 8))
    documents = [Passage("long", "A title", text), Passage("short", "Its title", "One sentence.")]
    found = passages_to_train_on(documents, base_model, AdaptConfig(chunk_tokens=20))
    assert found.pop("short") == documents[1]
    parts = list(found.values())
    assert len(parts) > 3
    assert {part.chunk for part in parts} == {None}  # each is a passage to find by itself
    assert [part.title for part in parts] == ["A title", *[""] * (len(parts) - 1)]
    assert " ".join(part.text for part in parts) == text
    assert list(passages_to_train_on(documents, base_model, AdaptConfig(chunk_tokens=0)).values()) == documents
