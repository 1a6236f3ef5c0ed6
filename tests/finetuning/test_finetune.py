"""Fine-tuning runs: what they learn, how they go on, what they refuse, what they show."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.normalizers import BertNormalizer

from dupmae.corpus import Benchmark, Passage
from dupmae.duplex import DuplexEncoder
from dupmae.errors import DupmaeError
from dupmae.finetuning import finetune, trainer, validation
from dupmae.finetuning.candidates import CandidateList, read_lists, write_lists, write_scores
from dupmae.runtime.bars import bars_shown
from dupmae.runtime.resuming import sole_run

STEPS = 9


def weights(encoder: DuplexEncoder) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in encoder.state_dict().items()}


def assert_same_weights(one: DuplexEncoder, other: DuplexEncoder) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def metrics(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt training right after the losses of a step are written, half a line of the next one included."""
    log = trainer.StepLog.on_step_end

    def dying(self: Any, args: Any, state: Any, *rest: Any, **names: Any) -> None:
        log(self, args, state, *rest, **names)
        if state.global_step == step:
            self.flush()
            with self.path.open("a", encoding="utf-8") as file:
                file.write('{"step": ')
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer.StepLog, "on_step_end", dying)


def test_loss_of_each_part_goes_down_and_every_part_learns(benchmark, config, make_encoder, tmp_path):
    base_model = make_encoder()
    before = weights(make_encoder())
    config = replace(config, epochs=8, dropout=0.0, learning_rate=1e-3, head_learning_rate=3e-3)
    model = finetune(base_model, benchmark, tmp_path / "run", config)
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, 25))
    for part in ("loss", "contrastive", "contrastive_cls", "contrastive_ot"):
        first, last = ([line[part] for line in some] for some in (lines[:6], lines[-6:]))
        assert sum(last) < 0.8 * sum(first), part
    after = weights(model)
    for name in ("1.cls_projection.weight", "1.transform.0.weight", "1.output.weight", "1.ot_log_scale"):
        assert not torch.equal(before[name], after[name]), name
    # the loss is the sum of its parts
    for line in lines:
        parts = [value for key, value in line.items() if key.startswith("contrastive")]
        assert line["loss"] == pytest.approx(sum(parts), abs=2e-4)


def test_an_encoder_without_a_learning_rate_stays_as_it_is_and_gets_no_gradient(
    benchmark, config, make_encoder, tmp_path
):
    base_model = make_encoder()
    before = weights(make_encoder())
    model = finetune(base_model, benchmark, tmp_path / "run", replace(config, learning_rate=0.0))
    assert {name for name, each in base_model.named_parameters() if each.grad is not None or each.requires_grad} == {
        name for name, _ in base_model.named_parameters() if name.startswith("1.")
    }
    after = weights(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith("0.") for name in changed)
    assert {"1.transform.0.weight", "1.output.weight", "1.cls_projection.weight"} <= changed


@pytest.mark.parametrize(("missing", "step"), [(None, 4), ("optimizer.pt", 2)])
def test_killed_and_resumed_run_ends_like_an_uninterrupted_one(
    benchmark, config, make_encoder, tmp_path, monkeypatch, missing, step
):
    whole = finetune(make_encoder(), benchmark, tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        kill_at(5, patch)
        with pytest.raises(KeyboardInterrupt):
            finetune(make_encoder(), benchmark, tmp_path / "killed", config)
    saved = tmp_path / "killed" / "checkpoints"
    assert sorted(path.name for path in saved.iterdir()) == ["checkpoint-2", "checkpoint-4"]
    if missing:
        (saved / "checkpoint-4" / missing).unlink()
    begun = []
    begin = trainer.StepLog.on_train_begin
    monkeypatch.setattr(
        trainer.StepLog,
        "on_train_begin",
        lambda self, args, state, *rest, **names: (
            begun.append(state.global_step) or begin(self, args, state, *rest, **names)
        ),
    )
    resumed = finetune(make_encoder(), benchmark, tmp_path / "killed", replace(config, save_steps=50))
    assert begun == [step]
    assert_same_weights(resumed, whole)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert len(metrics(tmp_path / "whole")) == STEPS
    assert not (tmp_path / "killed" / "checkpoints").exists()


def test_run_killed_before_its_first_checkpoint_starts_again(benchmark, config, make_encoder, tmp_path, monkeypatch):
    config = replace(config, epochs=1)
    whole = finetune(make_encoder(), benchmark, tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        kill_at(1, patch)
        with pytest.raises(KeyboardInterrupt):
            finetune(make_encoder(), benchmark, tmp_path / "killed", config)
    # and once more while a checkpoint is written
    half = tmp_path / "killed" / "checkpoints" / "checkpoint-2"
    half.mkdir(parents=True)
    (half / "trainer_state.json").write_text('{"global_', encoding="utf-8")
    assert_same_weights(finetune(make_encoder(), benchmark, tmp_path / "killed", config), whole)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


def test_finished_run_gives_its_model_at_once_and_other_runs_are_refused(
    benchmark, config, make_encoder, tmp_path, monkeypatch
):
    config = replace(config, epochs=1)
    unjudged = Passage("unjudged", "", "ba")
    benchmark = replace(benchmark, corpus=benchmark.corpus | {"unjudged": unjudged})
    model = finetune(make_encoder(), benchmark, tmp_path / "run", config)
    assert isinstance(model, DuplexEncoder)
    assert_same_weights(DuplexEncoder(str(tmp_path / "run" / "model")), model)
    monkeypatch.setattr(trainer, "make_examples", lambda *_, **__: pytest.fail("trains again"))
    assert_same_weights(finetune(make_encoder(), benchmark, tmp_path / "run", replace(config, save_steps=9)), model)

    other_start, other_tokenizer = make_encoder(), make_encoder()
    with torch.no_grad():
        next(other_start.parameters())[7, 7] += 1e-6
    other_tokenizer.tokenizer.backend_tokenizer.normalizer = BertNormalizer(lowercase=False)
    passage = Passage("p0a", "", "baba")
    qrels = benchmark.qrels | {"q0": {"p0a": 1, "p0b": 1}}
    for encoder, data, settings in (
        (make_encoder(), benchmark, replace(config, seed=1)),
        (make_encoder(top_k=19), benchmark, config),
        (make_encoder(document_max_length=30), benchmark, config),
        (make_encoder(query_prompt="ba"), benchmark, config),
        (other_start, benchmark, config),
        (other_tokenizer, benchmark, config),
        (make_encoder(), replace(benchmark, qrels=qrels), config),
        (make_encoder(), replace(benchmark, queries=benchmark.queries | {"q1": "baba"}), config),
        (make_encoder(), replace(benchmark, corpus=benchmark.corpus | {"p0a": passage}), config),
        (
            make_encoder(),
            replace(benchmark, corpus=benchmark.corpus | {"unjudged": replace(unjudged, title="ba")}),
            config,
        ),
    ):
        with pytest.raises(DupmaeError, match="with other settings, another base model or other data"):
            finetune(encoder, data, tmp_path / "run", settings)
    assert_same_weights(DuplexEncoder(str(tmp_path / "run" / "model")), model)


def test_folder_with_other_results_is_refused(benchmark, config, make_encoder, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(DupmaeError, match="holds other results"):
        finetune(make_encoder(), benchmark, tmp_path, config)
    (tmp_path / "finetune.json").write_text("{", encoding="utf-8")
    with pytest.raises(DupmaeError, match=r"finetune\.json is damaged"):
        finetune(make_encoder(), benchmark, tmp_path, config)


def test_refused_settings_leave_no_trace(benchmark, config, make_encoder, tmp_path):
    with pytest.raises(DupmaeError, match="fewer than one batch"):
        finetune(make_encoder(), benchmark, tmp_path / "run", replace(config, batch_size=100))
    assert not (tmp_path / "run").exists()


def test_loss_that_is_no_number_stops_the_run(benchmark, config, make_encoder, tmp_path):
    encoder = make_encoder()
    encoder.pooling.ot_log_scale.data.fill_(float("nan"))
    with pytest.raises(DupmaeError, match="not a finite number before the first step"):
        finetune(encoder, benchmark, tmp_path / "run", config)
    assert not (tmp_path / "run" / "model").exists()


def test_model_keeps_its_lengths_whatever_was_trained_at(benchmark, config, make_encoder, tmp_path):
    encoder = make_encoder(query_max_length=10, document_max_length=48)
    model = finetune(encoder, benchmark, tmp_path / "run", replace(config, epochs=1, max_length=16))
    assert (model[0].query_length, model[0].document_length, model.max_seq_length) == (10, 48, 48)


@pytest.mark.parametrize(("of_biases", "rate"), [(None, 3.0), (4.0, 4.0)])
def test_every_parameter_has_the_learning_rate_of_its_kind(
    benchmark, config, make_encoder, tmp_path, monkeypatch, of_biases, rate
):
    rates: dict[str, float] = {}

    def only_look(self: Any, **_: Any) -> None:
        numbers = {id(parameter): name for name, parameter in self.model.named_parameters()}
        for group in self.create_optimizer().param_groups:
            rates.update({numbers[id(parameter)]: group["lr"] for parameter in group["params"]})
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer._Trainer, "train", only_look)
    config = replace(
        config, learning_rate=1.0, head_learning_rate=2.0, scale_learning_rate=3.0, bias_learning_rate=of_biases
    )
    with pytest.raises(KeyboardInterrupt):
        finetune(make_encoder(query_terms="tokens", words="english"), benchmark, tmp_path / "run", config)
    kinds = {name: rate for name, rate in rates.items() if name.startswith("1.")}
    assert {rate for name, rate in rates.items() if name.startswith("0.")} == {1.0}
    assert kinds == {
        "1.cls_projection.weight": 2.0,
        "1.transform.0.weight": 2.0,
        "1.transform.0.bias": 2.0,
        "1.transform.2.weight": 2.0,
        "1.transform.2.bias": 2.0,
        "1.output.weight": 2.0,
        "1.output.bias": rate,
        "1.cls_log_scale": 3.0,
        "1.ot_log_scale": 3.0,
        "1.entry_log_scale": 3.0,
        "1.token_log_scale": 3.0,
        "1.word_log_scale": 3.0,
    }


def test_longer_gradients_are_cut_to_the_length_that_is_set(benchmark, config, make_encoder, tmp_path, monkeypatch):
    lengths: dict[float, float] = {}

    def look(self: Any, args: Any, *_: Any, **names: Any) -> None:
        gradients = [each.grad for each in names["model"].parameters() if each.grad is not None]
        lengths.setdefault(args.max_grad_norm, torch.nn.utils.get_total_norm(gradients).item())

    monkeypatch.setattr(trainer.StepLog, "on_pre_optimizer_step", look)
    for longest in (0.0, 1.0, 0.25, 1e6):
        finetune(make_encoder(), benchmark, tmp_path / str(longest), replace(config, epochs=1, max_grad_norm=longest))
    assert lengths[0.0] == lengths[1e6] > 1
    assert [lengths[longest] for longest in (1.0, 0.25)] == pytest.approx([1.0, 0.25], rel=1e-3)


@pytest.mark.parametrize("saved_in", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_is_trained_in_float32(benchmark, config, make_encoder, tmp_path, saved_in):
    model = finetune(make_encoder().to(saved_in), benchmark, tmp_path / "run", replace(config, epochs=1))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("judged", ["all queries have one answer", "a query has all answers"])
def test_a_run_in_which_no_query_meets_a_negative_is_refused(benchmark, config, make_encoder, tmp_path, judged):
    answers = {"p0a": 1} if judged == "all queries have one answer" else dict.fromkeys(benchmark.corpus, 1)
    queries = benchmark.queries if judged == "all queries have one answer" else {"q0": "baba"}
    alone = replace(benchmark, queries=queries, qrels=dict.fromkeys(queries, answers))
    config = replace(config, negatives=0)
    with pytest.raises(DupmaeError, match="toy gives no query a negative, so that every loss would be 0"):
        finetune(make_encoder(), alone, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_run_shows_one_bar_and_nothing_else(benchmark, config, make_encoder, tmp_path, capfd):
    encoder = make_encoder()
    capfd.readouterr()
    with bars_shown():
        finetune(encoder, benchmark, tmp_path / "run", replace(config, epochs=1, save_steps=1))
    shown = capfd.readouterr()
    assert shown.out == ""
    lines = [line for line in shown.err.replace("\r", "\n").splitlines() if line.strip()]
    assert lines
    assert [line for line in lines if not line.startswith("fine-tuning: ")] == []
    assert "/3" in lines[-1]


@pytest.fixture
def lists(benchmark, tmp_path) -> Path:
    """Every query's positives against the passages of the next two queries."""
    found = []
    for number, (query, grades) in enumerate(benchmark.qrels.items()):
        others = [f"p{(number + step) % 12}{copy}" for step in (1, 2) for copy in "ab"]
        negatives = {passage: -float(place) for place, passage in enumerate(others)}
        found.append(CandidateList(query, {name: 1.0 for name, grade in grades.items() if grade}, negatives))
    write_lists(tmp_path / "negatives.jsonl", found)
    return tmp_path / "negatives.jsonl"


@pytest.fixture
def scores(lists, tmp_path) -> Path:
    """A teacher that knows the answers."""
    records = [json.loads(line) for line in lists.read_text(encoding="utf-8").splitlines()]
    taught = {
        each["query_id"]: dict.fromkeys(each["positives"], 3.0) | dict.fromkeys(each["negatives"], -1.0)
        for each in records
    }
    write_scores(tmp_path / "teacher.jsonl", taught)
    return tmp_path / "teacher.jsonl"


def measurements(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "held_out.jsonl").read_text(encoding="utf-8").splitlines()]


def test_second_and_third_stage_learn_what_the_lists_and_the_teacher_say(
    benchmark, config, make_encoder, lists, scores, tmp_path
):
    config = replace(config, epochs=8, dropout=0.0, negatives=2, learning_rate=1e-3, head_learning_rate=3e-3)
    second = finetune(make_encoder(query_terms="logits"), benchmark, tmp_path / "second", config, lists=lists)
    assert {name for name in metrics(tmp_path / "second")[0] if name.startswith("con")} == {
        "contrastive",
        "contrastive_cls",
        "contrastive_ot",
    }
    config = replace(config, teacher_temperature=0.5)
    third = finetune(second, benchmark, tmp_path / "third", config, lists=lists, scores=scores)
    lines = metrics(tmp_path / "third")
    assert set(lines[0]) == {"step", "loss", "learning_rate", "distil", "distil_cls", "distil_ot"}
    for part in ("loss", "distil", "distil_cls", "distil_ot"):
        first, last = ([line[part] for line in some] for some in (lines[:6], lines[-6:]))
        assert sum(last) < sum(first), part
    ranked = validation.rank(third, benchmark)
    assert all(ranked[query][f"p{query[1:]}a"] > ranked[query][f"p{(int(query[1:]) + 1) % 12}a"] for query in ranked)


def test_scores_without_lists_are_those_of_judged_passages_or_refused(
    benchmark, config, make_encoder, lists, scores, tmp_path, caplog
):
    with pytest.raises(DupmaeError, match="scores belongs to candidate lists"):
        finetune(make_encoder(), benchmark, tmp_path / "run", config, scores=scores)
    assert not (tmp_path / "run").exists()
    config, found = replace(config, epochs=1), read_lists(lists, benchmark)
    taught = {query: dict.fromkeys(one.positives, 3.0) | one.negatives for query, one in found.items()}
    write_scores(scores, taught)
    finetune(make_encoder(), benchmark, tmp_path / "lists", config, lists=lists, scores=scores)
    judged = {
        query: benchmark.qrels[query] | dict.fromkeys(one.negatives, -1) | dict.fromkeys(one.positives, 1)
        for query, one in found.items()
    }
    judged |= {"alone": {"p0a": 1}}  # without scores
    pairs = replace(benchmark, qrels=judged, queries=benchmark.queries | {"alone": "baba"})
    finetune(make_encoder(), pairs, tmp_path / "pairs", config, scores=taught)
    assert metrics(tmp_path / "pairs") == metrics(tmp_path / "lists")
    assert json.loads((tmp_path / "pairs" / "finetune.json").read_text("utf-8"))["trained_on"]["stage"] == 3
    assert "1 of 13 queries lack scores" in caplog.text
    with pytest.raises(DupmaeError, match="with other settings, another base model or other data"):
        finetune(make_encoder(), pairs, tmp_path / "pairs", config, scores=taught | {"q0": {}})
    with pytest.raises(DupmaeError, match="no query with scores of both an answer and a negative"):
        finetune(make_encoder(), pairs, tmp_path / "none", config, scores={"q0": {"p0a": 1.0}})


def test_a_folder_that_another_run_is_at_work_in_is_refused(benchmark, config, make_encoder, tmp_path):
    with sole_run(tmp_path / "run"), pytest.raises(DupmaeError, match="Another process is at work"):
        finetune(make_encoder(), benchmark, tmp_path / "run", config)
    assert not list(tmp_path.iterdir())


def test_runs_on_other_lists_or_scores_are_refused(benchmark, config, make_encoder, lists, scores, tmp_path):
    config = replace(config, epochs=1)
    finetune(make_encoder(), benchmark, tmp_path / "run", config, lists=lists, scores=scores)
    refused = pytest.raises(DupmaeError, match="with other settings, another base model or other data")
    with refused:
        finetune(make_encoder(), benchmark, tmp_path / "run", config, lists=lists)
    scores.write_text(scores.read_text(encoding="utf-8").replace("3.0", "2.0"), encoding="utf-8")
    with refused:
        finetune(make_encoder(), benchmark, tmp_path / "run", config, lists=lists, scores=scores)


def test_training_reads_the_prompts_that_search_reads(benchmark, config, make_encoder, tmp_path):
    encoder = make_encoder(query_prompt="ba be ", document_prompt="zo ")
    examples = trainer.make_examples(benchmark, config)
    batch = trainer.row_collator(encoder, examples)([{"label": row} for row in range(2)])
    for column, prompt in (("query", "ba be "), ("positive", "zo "), ("negative_1", "zo ")):
        texts = [prompt + examples.texts(row)[column] for row in range(2)]
        expected = encoder.tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
        assert torch.equal(batch[f"{column}_input_ids"], expected)
    assert batch["label"].tolist() == [0, 1]
    encoder.save_pretrained(str(tmp_path / "model"))
    assert DuplexEncoder(str(tmp_path / "model")).prompts == {"query": "ba be ", "document": "zo "}
    # and the features say what they are, which alone cuts documents
    features = {name.removeprefix("positive_"): value for name, value in batch.items() if name.startswith("positive_")}
    vectors = encoder(features)["sentence_embedding"]
    assert ((vectors[:, : encoder.pooling.vocabulary_size] != 0).sum(dim=1) <= 20).all()


def test_held_out_queries_choose_the_state_and_the_same_when_killed(
    halves, config, make_encoder, lists, tmp_path, monkeypatch
):
    monkeypatch.setattr("dupmae.duplex.inference.bfloat16_pays", lambda _: False)  # it would round to ties
    train, dev = halves
    settings = {"eval_steps": 2, "dev_pool_size": 20, "learning_rate": 3e-3, "batch_size": 4}
    config = replace(config, **settings)
    whole = finetune(make_encoder(), train, tmp_path / "whole", config, dev=dev, lists=lists)
    found = measurements(tmp_path / "whole")
    steps = [line["step"] for line in found]
    last = metrics(tmp_path / "whole")[-1]["step"]
    assert steps == sorted({0, *range(2, last, 2), last})
    best = max(found, key=lambda line: line["ndcg@10"])
    assert best != found[-1], "the settings of this test are too gentle: the last state is the best"
    assert json.loads((tmp_path / "whole" / "finetune.json").read_text(encoding="utf-8"))["kept"] == best
    assert (whole[0].document_length, whole.max_seq_length) == (64, 64)
    pool = validation.dev_pool(dev, 20, config.seed)
    assert validation.evaluate_run(validation.rank(whole, pool), pool.qrels)["ndcg@10"] == best["ndcg@10"]
    assert (tmp_path / "whole" / "curves.png").is_file()
    for step in (1, best["step"], best["step"] + 1):
        with monkeypatch.context() as patch:
            kill_at(step, patch)
            with pytest.raises(KeyboardInterrupt):
                finetune(make_encoder(), train, tmp_path / "killed", config, dev=dev, lists=lists)
    assert_same_weights(finetune(make_encoder(), train, tmp_path / "killed", config, dev=dev, lists=lists), whole)
    for file in (metrics, measurements):
        assert file(tmp_path / "killed") == file(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [
        "curves.png",
        "finetune.json",
        "held_out.jsonl",
        "metrics.jsonl",
        "model",
    ]


def test_a_share_of_what_training_changed_is_kept_and_the_same_when_killed(
    benchmark, config, make_encoder, tmp_path, monkeypatch
):
    base_model, whole = make_encoder(), finetune(make_encoder(), benchmark, tmp_path / "whole", config)
    part = replace(config, interpolation=0.25)
    with monkeypatch.context() as patch:
        kill_at(5, patch)
        with pytest.raises(KeyboardInterrupt):
            finetune(make_encoder(), benchmark, tmp_path / "part", part)
    kept = finetune(make_encoder(), benchmark, tmp_path / "part", part)
    assert metrics(tmp_path / "part") == metrics(tmp_path / "whole")
    first, last, found = weights(base_model), weights(whole), weights(kept)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, first[name].lerp(last[name], 0.25) if tensor.is_floating_point() else tensor)
    assert not torch.equal(found["1.output.weight"], last["1.output.weight"])


def test_held_out_queries_measure_what_would_be_the_result(halves, config, make_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("dupmae.duplex.inference.bfloat16_pays", lambda _: False)
    train, dev = halves
    ranked, rank, name = [], validation.rank, "1.output.weight"

    def remember(encoder: DuplexEncoder, pool: Benchmark) -> Any:
        ranked.append(weights(encoder)[name].clone())
        return rank(encoder, pool)

    monkeypatch.setattr(validation, "rank", remember)
    finetune(make_encoder(), train, tmp_path / "whole", replace(config, eval_steps=4), dev=dev)
    whole, ranked = ranked, []
    model = finetune(
        make_encoder(), train, tmp_path / "part", replace(config, eval_steps=4, interpolation=0.5), dev=dev
    )
    for full, half in zip(whole, ranked, strict=True):
        torch.testing.assert_close(half, whole[0].lerp(full, 0.5))
    steps = [line["step"] for line in measurements(tmp_path / "part")]
    kept = json.loads((tmp_path / "part" / "finetune.json").read_text(encoding="utf-8"))["kept"]["step"]
    assert torch.equal(weights(model)[name], ranked[steps.index(kept)])


def test_training_stops_where_nothing_is_gained_and_leaves_no_model_worse(
    halves, config, make_encoder, tmp_path, monkeypatch, caplog
):
    train, dev = halves
    values = iter([0.9, 0.3, 0.5, 0.5, 0.4, 0.9])  # before the first step, then every second
    monkeypatch.setattr(validation, "evaluate_run", lambda *_: {"ndcg@10": next(values)})
    config = replace(config, epochs=6, batch_size=4, eval_steps=2, patience=2, save_steps=2)
    arguments: dict[str, Any] = {"train": train, "config": config, "dev": dev, "output": tmp_path / "run"}
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune(make_encoder(), **arguments)
    assert [line["step"] for line in measurements(tmp_path / "run")] == [0, 2, 4, 6, 8]
    result = finetune(make_encoder(), **arguments)  # takes no further step
    assert metrics(tmp_path / "run")[-1]["step"] == 8
    record = json.loads((tmp_path / "run" / "finetune.json").read_text(encoding="utf-8"))
    assert record["kept"] == {"step": 0, "ndcg@10": 0.9}
    assert_same_weights(result, make_encoder())
    assert "gained nothing on the held-out queries" in caplog.text


def test_scales_do_not_decay_towards_one(benchmark, config, make_encoder, tmp_path):
    encoder = make_encoder()
    with torch.no_grad():
        encoder.pooling.entry_log_scale.fill_(0.5)
    tuned = finetune(encoder, benchmark, tmp_path / "run", replace(config, scale_learning_rate=0.1, weight_decay=0.5))
    unmoved = tuned.pooling.entry_log_scale == 0.5
    assert 0 < unmoved.sum() < len(unmoved)  # terms that no query has: no gradient, and no decay


def test_pool_holds_what_is_judged_and_what_bm25_finds_and_others(halves, monkeypatch):
    _, dev = halves
    judged = {passage for grades in dev.qrels.values() for passage in grades}
    pool = validation.dev_pool(dev, len(judged) + 6, seed=1)
    assert len(pool.corpus) == len(judged) + 6
    assert judged < pool.corpus.keys()
    assert (pool.queries, pool.qrels) == (dev.queries, dev.qrels)
    best = {next(iter(set(run) - judged), None) for run in validation.bm25_run(dev).values()}
    assert len(best & pool.corpus.keys()) > 0
    assert validation.dev_pool(dev, 24, seed=1) is dev
    with monkeypatch.context() as patched:
        patched.setattr(validation, "bm25_run", None)  # not searched where the judged ones are enough
        assert validation.dev_pool(dev, 1, seed=1).corpus.keys() == judged
    assert validation.dev_pool(dev, len(judged) + 6, seed=2).corpus != pool.corpus


def test_ranking_without_an_index_is_that_of_the_vectors(benchmark, make_encoder, monkeypatch):
    monkeypatch.setattr("dupmae.duplex.inference.bfloat16_pays", lambda _: False)
    encoder = make_encoder()
    ids = sorted(benchmark.corpus)
    documents = encoder.encode_document([benchmark.corpus[name].full_text for name in ids], convert_to_tensor=True)
    queries = encoder.encode_query(list(benchmark.queries.values()), convert_to_tensor=True)
    expected = (queries.to_dense() @ documents.to_dense().T).tolist()
    found = validation.rank(encoder, benchmark, k=5)
    for query, row in zip(benchmark.queries, expected, strict=True):
        best = sorted(zip(ids, row, strict=True), key=lambda pair: -pair[1])[:5]
        assert list(found[query]) == [name for name, _ in best]
        assert list(found[query].values()) == pytest.approx([score for _, score in best], rel=1e-4)
