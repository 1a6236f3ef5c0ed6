"""The cross-encoder teacher: what it learns, how training goes on, and its scores against one pair at a time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from dupmae.config import DuplexConfig, TeacherConfig
from dupmae.corpus import Benchmark, Passage
from dupmae.duplex import DuplexEncoder
from dupmae.errors import DupmaeError
from dupmae.finetuning import jsonl_blocks as blocks
from dupmae.finetuning import teacher
from dupmae.finetuning.candidates import CandidateList, read_lists, read_scores, write_lists
from dupmae.finetuning.teacher import draw_rows, score_lists, train_teacher
from dupmae.retrievers import scorers
from dupmae.retrievers.scorers import load_cross_encoder, rerank, score_pairs, start_cross_encoder
from dupmae.runtime.resuming import sole_run

STEPS = 6


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score in float32 on every machine."""
    monkeypatch.setattr("dupmae.runtime.precision.bfloat16_pays", lambda _: False)


@pytest.fixture
def teacher_config() -> TeacherConfig:
    """Six steps of four queries."""
    return TeacherConfig(
        epochs=2, batch_size=4, negatives=3, max_length=40, save_steps=2, dropout=0.1, precision="float32"
    )


@pytest.fixture
def lists(benchmark: Benchmark, tmp_path: Path) -> Path:
    """Six negatives of each query, drawn at random."""
    draw = random.Random(1)
    made = []
    for query, grades in benchmark.qrels.items():
        right = [passage for passage, grade in grades.items() if grade]
        others = draw.sample([passage for passage in benchmark.corpus if passage not in grades], 6)
        made.append(CandidateList(query, dict.fromkeys(right), {p: 9.0 - n for n, p in enumerate(others)}))
    write_lists(tmp_path / "negatives.jsonl", made)
    return tmp_path / "negatives.jsonl"


@pytest.fixture(scope="session")
def ready(bert_config: Any, write_tokenizer: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ready cross-encoder, random but not near zero."""
    from transformers import BertForSequenceClassification

    folder = tmp_path_factory.mktemp("models") / "ready"
    torch.manual_seed(7)
    bert_config = type(bert_config)(**bert_config.to_dict() | {"num_labels": 1})
    BertForSequenceClassification(bert_config).save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


def metrics(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_teacher_learns_to_rank_the_positive_first(bert_folder, benchmark, lists, tmp_path, teacher_config):
    config = replace(teacher_config, epochs=20, learning_rate=2e-3, head_learning_rate=2e-3, dropout=0.0)
    folder = train_teacher(str(bert_folder), benchmark, lists, tmp_path / "run", config)
    assert folder == str(tmp_path / "run" / "model")
    losses = [line["loss"] for line in metrics(tmp_path / "run")]
    assert len(losses) == 20 * 3
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    scores = read_scores(score_lists(folder, benchmark, lists, tmp_path / "scores"), read_lists(lists, benchmark))
    first = [max(row, key=row.__getitem__) in benchmark.qrels[query] for query, row in scores.items()]
    assert sum(first) >= 10
    assert CrossEncoder(folder).max_seq_length == 40


def test_scores_are_the_raw_logits_of_each_pair_alone(ready, benchmark, lists, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 5)
    candidates = read_lists(lists, benchmark)
    path = score_lists(ready, benchmark, lists, tmp_path / "scores", batch_size=7)
    scores = read_scores(path, candidates)
    assert list(scores) == list(candidates)
    model = CrossEncoder(ready).eval()
    values = []
    for query, row in scores.items():
        assert list(row) == candidates[query].passages
        for passage, score in row.items():
            pair = model.tokenizer(benchmark.queries[query], benchmark.corpus[passage].full_text, return_tensors="pt")
            with torch.no_grad():
                assert model.model(**pair.to(model.device)).logits.item() == pytest.approx(score, abs=1e-4)
            values.append(score)
    assert max(values) - min(values) > 0.01


def test_scores_in_bfloat16_are_not_rounded_to_it(ready, benchmark, lists, tmp_path, monkeypatch):
    monkeypatch.setattr("dupmae.runtime.precision.bfloat16_pays", lambda _: True)
    scores = read_scores(
        score_lists(ready, benchmark, lists, tmp_path / "scores"), read_lists(lists, benchmark)
    ).values()
    rounded = [torch.tensor(list(row.values())).bfloat16().float().tolist() for row in scores]
    assert rounded != [list(row.values()) for row in scores]


def test_killed_scoring_goes_on_and_finished_scores_are_kept(ready, benchmark, lists, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 5)
    whole = score_lists(ready, benchmark, lists, tmp_path / "whole")
    write, blocks_written = teacher.write_scores, []

    def dying(path: Path, scores: Any) -> None:
        blocks_written.append(len(scores))
        if len(blocks_written) == 2:
            raise KeyboardInterrupt
        write(path, scores)

    monkeypatch.setattr(teacher, "write_scores", dying)
    with pytest.raises(KeyboardInterrupt):
        score_lists(ready, benchmark, lists, tmp_path / "killed")
    assert score_lists(ready, benchmark, lists, tmp_path / "killed").read_bytes() == whole.read_bytes()
    assert blocks_written == [5, 5, 5, 2]
    monkeypatch.setattr(scorers, "load_cross_encoder", lambda _: pytest.fail("loads the teacher again"))
    assert score_lists(ready, benchmark, lists, tmp_path / "killed") == tmp_path / "killed" / "teacher.jsonl"
    changed = replace(benchmark, queries=benchmark.queries | {"q1": "baba"})
    with pytest.raises(DupmaeError, match="holds a scoring run with other settings"):
        score_lists(ready, changed, lists, tmp_path / "killed")


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt training right after the losses of a step are written."""
    log = teacher.StepLog.on_step_end

    def dying(self: Any, args: Any, state: Any, *rest: Any, **names: Any) -> None:
        log(self, args, state, *rest, **names)
        if state.global_step == step:
            self.flush()
            raise KeyboardInterrupt

    monkeypatch.setattr(teacher.StepLog, "on_step_end", dying)


def test_killed_and_resumed_training_ends_like_an_uninterrupted_one(
    bert_folder, benchmark, lists, tmp_path, monkeypatch, teacher_config
):
    whole = Path(train_teacher(str(bert_folder), benchmark, lists, tmp_path / "whole", teacher_config))
    with monkeypatch.context() as patch:
        kill_at(5, patch)
        with pytest.raises(KeyboardInterrupt):
            train_teacher(str(bert_folder), benchmark, lists, tmp_path / "killed", teacher_config)
    saved = tmp_path / "killed" / "checkpoints"
    assert sorted(path.name for path in saved.iterdir()) == ["checkpoint-2", "checkpoint-4"]
    (saved / "checkpoint-4" / "rng_state.pth").unlink()  # so that it goes on from the one before
    resumed = Path(train_teacher(str(bert_folder), benchmark, lists, tmp_path / "killed", teacher_config))
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert len(metrics(tmp_path / "whole")) == STEPS
    assert not (tmp_path / "killed" / "checkpoints").exists()

    monkeypatch.setattr(teacher, "draw_rows", lambda *_: pytest.fail("trains again"))
    assert train_teacher(str(bert_folder), benchmark, lists, tmp_path / "whole", teacher_config) == str(whole)
    passage = Passage("p0a", "", "baba")
    for data, settings in (
        (benchmark, replace(teacher_config, seed=1)),
        (replace(benchmark, corpus=benchmark.corpus | {"p0a": passage}), teacher_config),
    ):
        with pytest.raises(DupmaeError, match="holds a teacher run with other settings"):
            train_teacher(str(bert_folder), data, lists, tmp_path / "whole", settings)


def test_a_folder_that_another_teacher_is_at_work_in_is_refused(ready, benchmark, lists, tmp_path, teacher_config):
    with sole_run(tmp_path / "run"), pytest.raises(DupmaeError, match="Another process is at work"):
        train_teacher(ready, benchmark, lists, tmp_path / "run", teacher_config)
    assert not (tmp_path / "run").exists()


def test_a_ready_cross_encoder_may_be_trained_on(ready, benchmark, lists, tmp_path, teacher_config):
    config = replace(teacher_config, epochs=1, learning_rate=0.0, head_learning_rate=0.0)
    folder = train_teacher(ready, benchmark, lists, tmp_path / "run", config)
    before, after = (load_cross_encoder(name).model.classifier.weight for name in (ready, folder))
    assert torch.equal(before.cpu(), after.cpu())


def test_each_epoch_draws_other_negatives_of_every_query(benchmark, lists, teacher_config):
    candidates = read_lists(lists, benchmark)
    rows = draw_rows(benchmark, candidates, teacher_config)
    assert len(rows) == 24
    seen: dict[str, list[set[str]]] = {query: [] for query in candidates}
    for query, (first, *others) in rows:
        assert first in candidates[query].positives
        assert set(others) <= set(candidates[query].negatives)
        assert len(set(others)) == len(others) == 3
        seen[query].append(set(others))
    assert {len(draws) for draws in seen.values()} == {2}
    assert any(one != other for one, other in seen.values())
    assert draw_rows(benchmark, candidates, teacher_config) == rows
    assert draw_rows(benchmark, candidates, replace(teacher_config, seed=1)) != rows


def test_lists_without_negatives_teach_nothing(benchmark, lists, teacher_config):
    candidates = read_lists(lists, benchmark)
    few = candidates | {query: replace(one, negatives={}) for query, one in list(candidates.items())[:9]}
    with pytest.raises(DupmaeError, match="3 lists have negatives, too few for a step of 4"):
        draw_rows(benchmark, few, teacher_config)
    rows = draw_rows(benchmark, few, replace(teacher_config, batch_size=3, negatives=99))
    assert {query for query, _ in rows} == set(list(candidates)[9:])
    assert {len(passages) for _, passages in rows} == {7}


def test_an_encoder_gets_a_new_head_to_train_but_none_to_score_with(
    bert_folder, embedder_folder, make_encoder, tmp_path
):
    make_encoder().save_pretrained(str(tmp_path / "duplex"))
    for folder in (bert_folder, embedder_folder, tmp_path / "duplex"):
        assert start_cross_encoder(str(folder)).model.classifier.out_features == 1
        with pytest.raises(DupmaeError, match="is not a cross-encoder: it has no head"):
            load_cross_encoder(str(folder))


def test_a_classifier_of_several_classes_is_refused(bert_config, write_tokenizer, tmp_path):
    from transformers import BertForSequenceClassification

    BertForSequenceClassification(type(bert_config)(**bert_config.to_dict() | {"num_labels": 3})).save_pretrained(
        tmp_path / "classes"
    )
    write_tokenizer(tmp_path / "classes")
    with pytest.raises(DupmaeError, match="gives 3 numbers for a query and a passage"):
        load_cross_encoder(str(tmp_path / "classes"))


def test_reranking_orders_the_best_by_the_models_score_and_keeps_the_rest_below(ready, benchmark):
    model = load_cross_encoder(ready)
    run = {
        "q0": {name: float(number) for number, name in enumerate(sorted(benchmark.corpus))},
        "q1": {"p1a": 1.0, "p1b": 1.0},
    }
    scorer = partial(score_pairs, model, benchmark)
    result = rerank(scorer, benchmark, run, depth=5)
    assert {query: set(row) for query, row in result.items()} == {query: set(row) for query, row in run.items()}
    best, rest = sorted(benchmark.corpus)[:-6:-1], sorted(benchmark.corpus)[-6::-1]
    scores = model.predict(
        [(benchmark.queries["q0"], benchmark.corpus[name].full_text) for name in best],
        activation_fn=torch.nn.Identity(),
    )
    expected = [name for _, name in sorted(zip(scores.tolist(), best, strict=True), reverse=True)]
    assert list(result["q0"]) == [*expected, *rest]
    assert list(result["q0"].values()) == sorted(result["q0"].values(), reverse=True)
    with pytest.raises(DupmaeError, match=r"the query 'nobody', which toy \(train\) has not"):
        rerank(scorer, benchmark, {"nobody": {}})
    with pytest.raises(DupmaeError, match="the passage 'nothing', which toy does not have"):
        rerank(scorer, benchmark, {"q0": {"nothing": 1.0}})


def test_an_embedders_scores_are_cosines_of_each_pair_made_logits(
    embedder_folder, benchmark, lists, tmp_path, monkeypatch
):
    monkeypatch.setattr(blocks, "BLOCK", 5)
    monkeypatch.setattr("dupmae.retrievers.encodings.SLAB", 7)
    monkeypatch.setattr("dupmae.retrievers.vectors.bfloat16_pays", lambda _: False)
    candidates = read_lists(lists, benchmark)
    path = score_lists(str(embedder_folder), benchmark, lists, tmp_path / "scores")
    scores = read_scores(path, candidates)
    model = SentenceTransformer(str(embedder_folder))
    for query, row in scores.items():
        assert list(row) == candidates[query].passages
        asked = model.encode(benchmark.queries[query])
        for passage, score in row.items():
            alone = model.encode(benchmark.corpus[passage].full_text)
            assert score == pytest.approx(20 * float(model.similarity(asked, alone)), abs=1e-3)
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == ["scores.json", "teacher.jsonl"]


def test_a_duplex_teacher_scores_as_it_searches(embedder_folder, benchmark, lists, tmp_path):
    encoder = DuplexEncoder.from_encoder(str(embedder_folder), DuplexConfig(dense_pooling="mean", top_k=24))
    encoder.save(str(tmp_path / "model"))
    scores = read_scores(
        score_lists(str(tmp_path / "model"), benchmark, lists, tmp_path / "scores"), read_lists(lists, benchmark)
    )
    for query, row in scores.items():
        asked = encoder.encode_query([benchmark.queries[query]])
        answers = encoder.encode_document([benchmark.corpus[passage].full_text for passage in row])
        expected = encoder.similarity(asked, answers)[0].tolist()
        assert list(row.values()) == pytest.approx(expected, abs=1e-3)
