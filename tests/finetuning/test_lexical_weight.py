"""The weight of the lexical half, chosen on held-out queries."""

from __future__ import annotations

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
from dupmae.finetuning.lexical_weight import FACTORS, tune_lexical_weight
from dupmae.finetuning.validation import dev_pool, rank

Maker = Callable[..., DuplexEncoder]
Halves = tuple[Benchmark, Benchmark]


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dupmae.duplex.inference.bfloat16_pays", lambda _: False)  # it would round to ties


def scaled(encoder: DuplexEncoder, factor: float) -> DuplexEncoder:
    with torch.no_grad():
        encoder.pooling.ot_log_scale.add_(math.log(factor))
    return encoder


@pytest.mark.parametrize("before", [0.02, 1.0, 50.0])
def test_the_factor_is_the_one_whose_model_ranks_best(make_encoder: Maker, benchmark: Benchmark, before: float) -> None:
    naive = {}
    for factor in FACTORS:
        run = rank(scaled(make_encoder(), before * factor), benchmark)
        naive[factor] = evaluate_run(run, benchmark.qrels)["ndcg@10"]
    encoder = scaled(make_encoder(), before)
    found = tune_lexical_weight(encoder, benchmark)
    best = [factor for factor in FACTORS if naive[factor] == max(naive.values())]
    assert found["factor"] == min(best, key=lambda factor: abs(math.log(factor)))
    assert found["before"] == pytest.approx(naive[1.0])
    assert found["after"] == pytest.approx(max(naive.values()))
    expected = scaled(make_encoder(), before * found["factor"]).pooling.ot_log_scale
    torch.testing.assert_close(encoder.pooling.ot_log_scale, expected)


def test_a_half_that_misleads_is_turned_down_and_one_that_leads_up(make_encoder: Maker, benchmark: Benchmark) -> None:
    alone = [rank(scaled(make_encoder(), factor), benchmark) for factor in (1e-6, 1e6)]  # dense half, lexical half
    dense, words = ({query: {max(run[query], key=run[query].__getitem__): 1} for query in run} for run in alone)
    assert tune_lexical_weight(scaled(make_encoder(), 3.0), replace(benchmark, qrels=dense))["factor"] < 1
    assert tune_lexical_weight(scaled(make_encoder(), 0.3), replace(benchmark, qrels=words))["factor"] > 1


@pytest.mark.parametrize("eval_steps", [0, 4])
def test_fine_tuning_tunes_the_lexical_weight_of_its_result_if_it_is_asked_to(
    halves: Halves, config: FinetuneConfig, make_encoder: Maker, tmp_path: Path, eval_steps: int
) -> None:
    train, dev = halves
    config = replace(config, epochs=2, eval_steps=eval_steps, dev_pool_size=20)
    plain = finetune(make_encoder(), train, tmp_path / "plain", config, dev=dev)
    tuned = finetune(make_encoder(), train, tmp_path / "tuned", replace(config, tune_lexical_weight=True), dev=dev)
    found = json.loads((tmp_path / "tuned" / "finetune.json").read_text(encoding="utf-8"))["lexical_weight"]
    pool = dev_pool(dev, 20, config.seed)
    assert evaluate_run(rank(plain, pool), pool.qrels)["ndcg@10"] == pytest.approx(found["before"])
    assert evaluate_run(rank(tuned, pool), pool.qrels)["ndcg@10"] == pytest.approx(found["after"])
    first, second = plain.state_dict(), tuned.state_dict()
    assert [name for name in first if not torch.equal(first[name], second[name])] == (
        ["1.ot_log_scale"] if found["factor"] != 1 else []
    )
    assert "lexical_weight" not in json.loads((tmp_path / "plain" / "finetune.json").read_text(encoding="utf-8"))


def test_one_half_alone_and_no_held_out_queries_have_nothing_to_tune(
    halves: Halves, config: FinetuneConfig, make_encoder: Maker, tmp_path: Path
) -> None:
    train, dev = halves
    config = replace(config, epochs=1, eval_steps=0, tune_lexical_weight=True)
    finetune(make_encoder(), train, tmp_path / "no queries", config)
    finetune(make_encoder(top_k=0), train, tmp_path / "dense alone", replace(config, lexical_loss_weight=0.0), dev=dev)
    for name in ("no queries", "dense alone"):
        assert "lexical_weight" not in json.loads((tmp_path / name / "finetune.json").read_text(encoding="utf-8"))
