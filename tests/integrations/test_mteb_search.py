"""MTEB measures what we measure, with our index and with rankings that were made before; so do beir and ranx."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from dupmae import DuplexEncoder, DuplexIndex, evaluate_run
from dupmae.cli import main
from dupmae.corpus import Benchmark, read_benchmark
from dupmae.retrievers import duplex_run

mteb = pytest.importorskip("mteb")


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory, write_benchmark) -> list[Benchmark]:
    """Two tiny tasks."""
    folder = tmp_path_factory.mktemp("tasks")
    return [read_benchmark(write_benchmark(folder / f"task{seed}", seed), "test") for seed in (3, 4)]


def scores_in(folder: Path, task: str) -> dict[str, float]:
    """Read what MTEB wrote of a task."""
    (file,) = folder.glob(f"results/*/*/{task}.json")
    ((scores,),) = json.loads(file.read_text(encoding="utf-8"))["scores"].values()
    return scores


def test_mteb_finds_what_the_index_finds(benchmarks, duplex_folder, tmp_path, monkeypatch) -> None:
    from dupmae.integrations.mteb import DuplexSearch, local_task

    model = DuplexSearch(str(duplex_folder))
    tasks = [local_task(benchmark) for benchmark in benchmarks]
    mteb.evaluate(model, tasks, cache=mteb.ResultCache(tmp_path), co2_tracker=False, show_progress_bar=False)
    for benchmark in benchmarks:
        encoder = DuplexEncoder(str(duplex_folder))
        passages = benchmark.corpus.values()
        index = DuplexIndex.build(tmp_path / benchmark.name, encoder, passages, chunk_tokens=0)
        ours = evaluate_run(duplex_run(index, benchmark), benchmark.qrels, ["ndcg@10", "recall@100", "mrr@10"])
        theirs = scores_in(tmp_path, benchmark.name)
        assert theirs["ndcg_at_10"] == pytest.approx(ours["ndcg@10"], abs=5e-4)
        assert theirs["mrr_at_10"] == pytest.approx(ours["mrr@10"], abs=5e-4)
        assert ours["ndcg@10"] > 0
    meta = model.mteb_model_meta
    assert meta.name == f"dupmae/{duplex_folder.name}"
    assert meta.training_datasets is None  # nobody said so
    assert meta.revision == model.model.fingerprint


def test_candidates_that_a_task_gives_are_ordered(benchmarks, duplex_folder) -> None:
    from dupmae.integrations.mteb import DuplexSearch

    model, benchmark = DuplexSearch(str(duplex_folder)), benchmarks[0]
    corpus = [{"id": one.id, "title": one.title, "text": one.text} for one in benchmark.corpus.values()]
    model.index(corpus, encode_kwargs={"batch_size": 4})
    queries = [{"id": query, "text": text} for query, text in benchmark.queries.items()]
    given = {query: ["p03", "p11", "p20"] for query in benchmark.queries}
    everything = model.search(queries, top_k=len(corpus))
    some = model.search(queries, top_k=2, top_ranked=given)
    without = model.search(queries[:1], top_k=2, top_ranked={})
    assert without == {queries[0]["id"]: {}}  # for which the task gives no candidates
    for query, ranking in everything.items():
        assert list(some[query]) == [name for name in ranking if name in given[query]][:2]


def test_small_says_what_it_was_trained_on() -> None:
    from dupmae.integrations.mteb import SMALL_TRAINED_ON

    known = {task.metadata.name for task in mteb.get_tasks(task_types=["Retrieval"])}
    assert known >= SMALL_TRAINED_ON


def test_evaluate_writes_results_as_mteb_does(tmp_path, write_benchmark, duplex_folder) -> None:
    folder = write_benchmark(tmp_path / "tiny")
    options = [
        "--model",
        str(duplex_folder),
        "--benchmark",
        str(folder),
        "--ties",
        "trec_eval",
        "--json",
        str(tmp_path / "r.json"),
    ]
    assert main(["evaluate", *options, "--mteb", str(tmp_path / "mteb")]) == 0
    (ours,) = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["benchmarks"][0]["systems"]
    theirs = scores_in(tmp_path / "mteb", "tiny")
    assert theirs["ndcg_at_10"] == pytest.approx(ours["ndcg@10"], abs=5e-4)
    assert 0 < ours["ndcg@10"] < 1
    assert len(list((tmp_path / "mteb" / "results").glob("local__*/local/model_meta.json"))) == 1


def test_mteb_asks_for_a_benchmark(tmp_path, capsys) -> None:
    (tmp_path / "run").write_text("q1 Q0 a 1 1 x\n")
    (tmp_path / "qrels").write_text("q1 0 a 1\n")
    given = ["--run", str(tmp_path / "run"), "--qrels", str(tmp_path / "qrels"), "--mteb", str(tmp_path / "m")]
    assert main(["evaluate", *given]) == 2
    assert "give --benchmark" in capsys.readouterr().err


@pytest.fixture(scope="module")
def some_run(benchmarks) -> dict[str, dict[str, float]]:
    """Passages in a random order, no two scores of a query the same."""
    draw = random.Random(0)
    return {query: {name: draw.random() for name in benchmarks[0].corpus} for query in benchmarks[0].queries}


def test_beir_measures_the_same(benchmarks, some_run) -> None:
    evaluation = pytest.importorskip("beir.retrieval.evaluation")
    qrels = benchmarks[0].qrels
    ndcg, _, recall, _ = evaluation.EvaluateRetrieval.evaluate(qrels, some_run, [10, 100])
    ours = evaluate_run(some_run, qrels, ["ndcg@10", "recall@100"])
    assert ndcg["NDCG@10"] == pytest.approx(ours["ndcg@10"], abs=5e-4)
    assert recall["Recall@100"] == pytest.approx(ours["recall@100"], abs=5e-4)
    assert 0 < ours["ndcg@10"] < 1


def test_ranx_measures_the_same(benchmarks, some_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path))
    ranx = pytest.importorskip("ranx")
    qrels = benchmarks[0].qrels
    theirs = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(some_run), ["ndcg@10", "mrr@10"], make_comparable=True)
    ours = evaluate_run(some_run, qrels, ["ndcg@10", "mrr@10"])
    assert theirs["ndcg@10"] == pytest.approx(ours["ndcg@10"], abs=5e-4)
    assert theirs["mrr@10"] == pytest.approx(ours["mrr@10"], abs=5e-4)
