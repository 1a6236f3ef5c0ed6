"""The weights of the lexical half and of words, chosen on held-out queries."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dupmae.config import FinetuneConfig
from dupmae.corpus import Benchmark
from dupmae.duplex import DuplexEncoder
from dupmae.evaluation import evaluate_run
from dupmae.finetuning import finetune
from dupmae.finetuning.validation import dev_pool, rank
from dupmae.finetuning.weights import FACTORS, tune_weights

Maker = Callable[..., DuplexEncoder]
Halves = tuple[Benchmark, Benchmark]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dupmae.duplex.inference.bfloat16_pays", lambda _: False)  # it would round to ties


def scaled(encoder: DuplexEncoder, factor: float) -> DuplexEncoder:
    with torch.no_grad():
        encoder.pooling.ot_log_scale.add_(math.log(factor))
    return encoder


def weighed(encoder: DuplexEncoder, factor: float) -> DuplexEncoder:
    with torch.no_grad():
        encoder.pooling.word_log_scale.add_(math.log(factor))
    return encoder


@pytest.mark.parametrize(("before", "language"), [(0.02, "none"), (1.0, "none"), (50.0, "none"), (0.02, "english")])
def test_the_factors_are_those_whose_model_ranks_best(
    make_encoder: Maker, benchmark: Benchmark, before: float, language: str
) -> None:
    naive = {}
    for factor, other in itertools.product(FACTORS, FACTORS if language == "english" else (1.0,)):
        encoder = scaled(make_encoder(words=language), before * factor)
        run = rank(encoder if other == 1 else weighed(encoder, other), benchmark)
        naive[factor, other] = evaluate_run(run, benchmark.qrels)["ndcg@10"]
    encoder = scaled(make_encoder(words=language), before)
    found = tune_weights(encoder, benchmark)
    chosen = found["lexical"], found["words"]
    distance = {factors: sum(abs(math.log(factor)) for factor in factors) for factors in naive}
    best = [factors for factors in naive if naive[factors] == pytest.approx(max(naive.values()))]
    assert distance[chosen] == pytest.approx(min(distance[factors] for factors in best))
    assert found["before"] == pytest.approx(naive[1.0, 1.0])
    assert found["after"] == pytest.approx(naive[chosen]) == max(naive.values())
    expected = scaled(make_encoder(words=language), before * found["lexical"]).pooling
    torch.testing.assert_close(encoder.pooling.ot_log_scale, expected.ot_log_scale)
    assert encoder.pooling.word_scale == pytest.approx(expected.word_scale * found["words"])


def test_a_part_that_misleads_is_turned_down_and_one_that_leads_up(make_encoder: Maker, benchmark: Benchmark) -> None:
    both = functools.partial(make_encoder, words="english")
    alone = [rank(scaled(make_encoder(), factor), benchmark) for factor in (1e-6, 1e6)]  # dense, lexical
    alone.append(rank(weighed(both(), 1e6), benchmark))
    first = [{query: {max(run[query], key=run[query].__getitem__): 1} for query in run} for run in alone]
    dense, lexical, words = (replace(benchmark, qrels=qrels) for qrels in first)
    assert tune_weights(scaled(make_encoder(), 3.0), dense)["lexical"] < 1
    assert tune_weights(scaled(make_encoder(), 0.3), lexical)["lexical"] > 1
    assert tune_weights(weighed(both(), 10.0), dense)["words"] < 1
    assert tune_weights(weighed(both(), 0.1), words)["words"] > 1


@pytest.mark.parametrize("eval_steps", [0, 4])
def test_fine_tuning_tunes_the_weights_of_its_result_if_it_is_asked_to(
    halves: Halves, config: FinetuneConfig, make_encoder: Maker, tmp_path: Path, eval_steps: int
) -> None:
    train, dev = halves
    config = replace(config, epochs=2, eval_steps=eval_steps, dev_pool_size=20)
    plain = finetune(make_encoder(words="english"), train, tmp_path / "plain", config, dev=dev)
    config = replace(config, tune_weights=True)
    tuned = finetune(make_encoder(words="english"), train, tmp_path / "tuned", config, dev=dev)
    found = json.loads((tmp_path / "tuned" / "finetune.json").read_text(encoding="utf-8"))["weights"]
    pool = dev_pool(dev, 20, config.seed)
    assert evaluate_run(rank(plain, pool), pool.qrels)["ndcg@10"] == pytest.approx(found["before"])
    assert evaluate_run(rank(tuned, pool), pool.qrels)["ndcg@10"] == pytest.approx(found["after"])
    first, second = plain.state_dict(), tuned.state_dict()
    scales = {"1.ot_log_scale": found["lexical"], "1.word_log_scale": found["words"]}
    assert {name for name in first if not torch.equal(first[name], second[name])} == {
        name for name, factor in scales.items() if factor != 1
    }
    assert "weights" not in json.loads((tmp_path / "plain" / "finetune.json").read_text(encoding="utf-8"))


def test_one_half_alone_and_no_held_out_queries_have_nothing_to_tune(
    halves: Halves, config: FinetuneConfig, make_encoder: Maker, tmp_path: Path
) -> None:
    train, dev = halves
    config = replace(config, epochs=1, eval_steps=0, tune_weights=True)
    finetune(make_encoder(), train, tmp_path / "no queries", config)
    finetune(
        make_encoder(top_k=0, words="none"),
        train,
        tmp_path / "dense alone",
        replace(config, lexical_loss_weight=0.0),
        dev=dev,
    )
    for name in ("no queries", "dense alone"):
        assert "weights" not in json.loads((tmp_path / name / "finetune.json").read_text(encoding="utf-8"))
