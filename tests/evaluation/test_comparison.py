"""Several systems on one benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dupmae.corpus import Benchmark, Passage, Run, read_benchmark, read_run, write_run
from dupmae.errors import DupmaeError
from dupmae.evaluation import comparison, evaluate_run
from dupmae.evaluation.benchmarks import Definition
from dupmae.evaluation.comparison import as_record, compare, from_qrels, write_runs
from dupmae.retrievers import bm25_run, dense_run, hybrid_run

PLAIN = Definition(name="tiny")


def by_hand(name: str = "hand", **qrels: dict[str, int]) -> Benchmark:
    corpus = {f"d{n}": Passage(f"d{n}", "", f"text {n}") for n in range(5)} | {"q1": Passage("q1", "", "query")}
    judged = qrels or {"q1": {"d1": 1}, "q2": {"d2": 1}}
    return Benchmark(name, "test", corpus, dict.fromkeys(judged, "query"), judged)


def test_bm25_is_measured_with_its_cost(benchmark_folder: Path, tmp_path: Path) -> None:
    data = read_benchmark(benchmark_folder, "test")
    (system,) = compare(PLAIN, [data], ["bm25"], [], tmp_path).systems
    assert system.runs == {"": bm25_run(data, 1000)}
    assert {name: system.metrics[name] for name in ("ndcg@10", "mrr@10", "recall@100")} == pytest.approx(
        evaluate_run(bm25_run(data), data.qrels)
    )
    assert system.bytes_per_passage is not None
    assert 20 < system.bytes_per_passage < 1000
    assert system.passages_per_second
    assert system.query_ms


def test_a_duplex_model_and_its_halves_are_measured_and_indexed_once(
    benchmark_folder: Path, duplex_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dupmae import DuplexEncoder

    data = read_benchmark(benchmark_folder, "test")
    name = str(duplex_folder)
    first = compare(PLAIN, [data], [name], [], tmp_path, halves=True).systems
    assert [system.name for system in first] == [name, *(f"{name} {part}" for part in ("dense", "lexical", "words"))]
    whole, dense, lexical, words = (system.runs[""]["q0"] for system in first)
    assert dense.keys() & lexical.keys() & words.keys()
    for passage in dense.keys() & lexical.keys() & words.keys():
        assert whole[passage] == pytest.approx(dense[passage] + lexical[passage] + words[passage], rel=1e-4)
    monkeypatch.setattr(DuplexEncoder, "embed_documents", None)  # a second encoding would fail
    again = compare(PLAIN, [data], [name], [], tmp_path).systems
    assert again[0].runs == first[0].runs
    assert again[0].bytes_per_passage == first[0].bytes_per_passage
    assert again[0].passages_per_second == first[0].passages_per_second


def test_a_querys_own_id_is_taken_out_where_the_rules_say_so_and_only_there(tmp_path: Path) -> None:
    write_run(tmp_path / "r.trec", {"q1": {"q1": 9.0, "d1": 8.0}, "q2": {"d2": 1.0}}, "t")
    rules = replace(PLAIN, drop_self=True)
    for definition, value in [(PLAIN, 0.5), (rules, 1.0)]:
        (system,) = compare(definition, [by_hand()], [], [tmp_path / "r.trec"], tmp_path).systems
        assert system.values["mrr@10"] == {"q1": value, "q2": 1.0}


def test_a_self_hit_takes_no_place_of_the_k(tmp_path: Path) -> None:
    data = by_hand()
    data.corpus["q1"] = Passage("q1", "", "query query query")
    data.corpus["d1"] = Passage("d1", "", "query text")
    rules = replace(PLAIN, drop_self=True)
    (system,) = compare(rules, [data], ["bm25"], [], tmp_path, k=1).systems
    assert list(system.runs[""]["q1"]) == ["d1"]


def test_parts_count_alike_whatever_their_numbers_of_queries(tmp_path: Path) -> None:
    parts = [by_hand("one", q1={"d1": 1}), by_hand("two", **{f"q{n}": {"d2": 1} for n in range(3)})]
    write_run(tmp_path / "r" / "one.trec", {"q1": {"d1": 1.0}}, "t")
    write_run(tmp_path / "r" / "two.trec", {"q0": {"d2": 1.0}}, "t")
    (system,) = compare(PLAIN, parts, [], [tmp_path / "r"], tmp_path).systems
    assert system.metrics["ndcg@10"] == pytest.approx((1 + 1 / 3) / 2)
    assert system.values["mrr@10"] == {"one/q1": 1.0, "two/q0": 1.0, "two/q1": 0.0, "two/q2": 0.0}
    write_runs(tmp_path / "out", [system])
    assert sorted(file.name for file in (tmp_path / "out").rglob("*.trec")) == ["one.trec", "two.trec"]
    write_run(tmp_path / "single.trec", {"q1": {"d1": 1.0}}, "t")
    with pytest.raises(DupmaeError, match=r"must be a folder with a run for each part, such as one\.trec"):
        compare(PLAIN, parts, [], [tmp_path / "single.trec"], tmp_path)


def test_every_system_is_followed_by_itself_reranked(benchmark_folder: Path, tmp_path: Path) -> None:
    data = read_benchmark(benchmark_folder, "test")

    def turn_round(benchmark: Benchmark, run: Run) -> Run:
        return {query: {name: -score for name, score in scores.items()} for query, scores in run.items()}

    write_run(tmp_path / "r.trec", {"q0": {"p01": 2.0, "p02": 1.0}}, "t")
    found = compare(PLAIN, [data], ["bm25"], [tmp_path / "r.trec"], tmp_path, rerank=("turned", turn_round)).systems
    run = str(tmp_path / "r.trec")
    assert [system.name for system in found] == ["bm25", run, "bm25 > turned", f"{run} > turned"]
    assert found[3].runs[""] == {"q0": {"p01": -2.0, "p02": -1.0}}
    assert found[2].query_ms is None


def test_chunks_are_searched_and_documents_measured(tmp_path: Path) -> None:
    data = by_hand()
    data.corpus["d1"] = Passage("d1", "", "filler " * 30 + "query " * 3)
    plain, cut = (compare(PLAIN, [data], ["bm25"], [], tmp_path, chunks=c).systems[0] for c in (None, (6, 3)))
    assert plain.runs[""]["q2"].keys() == cut.runs[""]["q2"].keys() == {"d1", "q1"}
    assert next(iter(cut.runs[""]["q2"])) == "d1"
    assert next(iter(plain.runs[""]["q2"])) == "q1"


def test_the_grades_that_count_come_from_the_rules(tmp_path: Path) -> None:
    data = by_hand(q1={"d1": 1, "d2": 2})
    write_run(tmp_path / "r.trec", {"q1": {"d1": 2.0, "d2": 1.0}}, "t")
    for grade, value in [(1, 1.0), (2, 0.5)]:
        definition = replace(PLAIN, relevant_from=grade)
        assert compare(definition, [data], [], [tmp_path / "r.trec"], tmp_path).systems[0].metrics["mrr@10"] == value


def test_the_record_says_what_was_measured_and_how_far_it_is_not_the_published_set(tmp_path: Path) -> None:
    write_run(tmp_path / "r.trec", {"q1": {"d1": 1.0}, "q2": {"d1": 1.0}}, "t")
    definition = Definition(name="scifact", passages=5_183, queries=2, split="test")
    record = as_record(compare(definition, [by_hand()], [], [tmp_path / "r.trec"], tmp_path))
    (system,) = record.pop("systems")
    assert record == {
        "benchmark": "scifact",
        "split": "test",
        "passages": 6,
        "queries": 2,
        "relevant_from": 1,
        "note": "Not the published scifact: 6 passages instead of 5,183.",
    }
    assert (system["ndcg@10"], system["map"], system["judged@10"], system["query_ms"]) == (0.5, 0.5, 0.5, None)


def test_runs_are_measured_against_judgements_alone(tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text("q1 0 d1 1\nq2 0 d2 1\n", encoding="utf-8")
    (tmp_path / "r.tsv").write_text("q1\td1\t1\n", encoding="utf-8")
    (system,) = from_qrels(tmp_path / "q.tsv", [tmp_path / "r.tsv"]).systems
    assert system.metrics["mrr@10"] == 0.5


def test_a_run_that_lacks_judged_queries_is_told_of_and_one_that_lacks_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text("q1 0 d1 1\nq2 0 d2 1\n", encoding="utf-8")
    for name, queries, note in [
        ("all", ["q1", "q2", "q3"], ""),
        ("some", ["q1", "q3"], "some has 1 of the 2 judged queries; the others count 0."),
    ]:
        write_run(tmp_path / name, {query: {"d1": 1.0} for query in queries}, "t")
        assert from_qrels(tmp_path / "q.tsv", [tmp_path / name]).note.removeprefix(f"{tmp_path}/") == note
    write_run(tmp_path / "none", {"Q1": {"d1": 1.0}}, "t")
    with pytest.raises(DupmaeError, match=r"none ranks passages for none of the 2 queries that .*q\.tsv judges"):
        from_qrels(tmp_path / "q.tsv", [tmp_path / "none"])


# The command


def run_command(*words: str) -> int:
    from dupmae.cli import entry as cli

    return cli.main(["evaluate", *words])


def test_the_command_prints_and_writes_every_system_on_every_benchmark(
    write_benchmark: Callable[..., Path], embedder_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("scifact", "quora")):
        write_benchmark(tmp_path / "data" / name, seed)
    words = ["--model", "bm25", str(embedder_folder), "bm25", "--benchmark", "quora", "scifact"]
    words += ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "out"), "--json", str(tmp_path / "r.json")]
    assert run_command(*words) == 0
    printed = capsys.readouterr().out
    for text in ("Quora test: 8 queries", "SciFact test", "Not the published SciFact", "All benchmarks", "mean"):
        assert text in printed
    record = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert record == json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [one["benchmark"] for one in record["benchmarks"]] == ["quora", "scifact"]
    assert [system["name"] for system in record["benchmarks"][0]["systems"]] == ["bm25", str(embedder_folder)]
    runs = sorted((tmp_path / "out" / "runs" / "scifact-test").iterdir())
    data = read_benchmark(tmp_path / "data" / "scifact", "test")
    found = evaluate_run(read_run(runs[0]), data.qrels)["ndcg@10"]
    assert found == pytest.approx(record["benchmarks"][1]["systems"][0]["ndcg@10"])


def test_the_command_measures_runs_against_judgements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "q.tsv").write_text("q1 0 d1 1\nq2 0 d2 1\n", encoding="utf-8")
    (tmp_path / "r.tsv").write_text("q1\td1\t1\n", encoding="utf-8")
    assert run_command("--run", str(tmp_path / "r.tsv"), "--qrels", str(tmp_path / "q.tsv")) == 0
    assert "0.5000" in capsys.readouterr().out


def test_metrics_that_look_deeper_than_what_is_ranked_are_left_out(
    write_benchmark: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("scifact", "msmarco-document"):
        write_benchmark(tmp_path / name)
    (tmp_path / "msmarco-document" / "qrels" / "test.tsv").rename(tmp_path / "msmarco-document" / "qrels" / "dev.tsv")
    words = ["--model", "bm25", "--data", str(tmp_path), "--k", "20", "--output", str(tmp_path / "out"), "--benchmark"]
    assert run_command(*words, "scifact") == 0
    printed, page = capsys.readouterr().out, (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    (system,) = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["benchmarks"][0]["systems"]
    assert [name for name in ("ndcg@10", "mrr@100", "map", "recall@100", "recall@1000") if name in system] == [
        "ndcg@10",
        "map",
    ]
    assert "NDCG@10" in printed
    assert "NDCG@10" in page
    assert "R@100" not in printed + page
    assert run_command(*words, "msmarco-document-dev") == 2
    assert "msmarco-document-dev is ranked by MRR@100: give --k 100 or more" in capsys.readouterr().err


def test_the_command_reranks_with_a_cross_encoder(
    benchmark_folder: Path, bert_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(bert_folder), num_labels=1).save_pretrained(str(tmp_path / "teacher"))
    assert run_command("--run", "r.trec", "--qrels", "q.tsv", "--reranker", "teacher") == 2
    assert "which --qrels does not have" in capsys.readouterr().err
    words = ["--model", "bm25", "--benchmark", str(benchmark_folder), "--reranker", str(tmp_path / "teacher")]
    assert run_command(*words, "--rerank_depth", "3", "--json", str(tmp_path / "r.json")) == 0
    plain, reranked = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["benchmarks"][0]["systems"]
    assert reranked["name"] == f"bm25 > {tmp_path / 'teacher'}"
    assert reranked["recall@100"] == plain["recall@100"]


def test_a_benchmark_that_cannot_be_had_is_named_before_anything_is_measured(
    benchmark_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "compare", None)
    words = ["--model", "bm25", "--benchmark", str(benchmark_folder), "robust04", "--data", str(tmp_path)]
    assert run_command(*words) == 2
    assert "robust04 cannot be fetched" in capsys.readouterr().err


def test_a_comparison_says_how_many_queries_bm25_finds_nothing_for(tmp_path, caplog) -> None:
    corpus = {name: Passage(name, "", text) for name, text in {"a": "灯塔的光", "b": "绿茶的叶子"}.items()}
    part = Benchmark("b", "test", corpus, {"q": "灯塔", "r": "Vulkan"}, {"q": {"a": 1}, "r": {"b": 1}})
    found = compare(PLAIN, [part], ["bm25"], [], tmp_path)
    assert "BM25 finds nothing for 1 of the 2 queries of b (test), such as 'r'" in caplog.text
    assert found.systems[0].runs[""]["q"].keys() == {"a"}


def test_mixtures_are_rows_like_any_other(
    benchmark_folder: Path, embedder_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    from sentence_transformers import CrossEncoder

    monkeypatch.setenv("MODELS", str(embedder_folder.parent))
    CrossEncoder(str(embedder_folder), num_labels=1).save_pretrained(str(tmp_path / "teacher"))
    mixtures = [f"{form}:$MODELS/{embedder_folder.name}" for form in ("hybrid", "hybrid-rrf")]
    words = ["--model", "bm25", *mixtures, "--benchmark", str(benchmark_folder), "--k", "10", "--rerank_depth", "2"]
    assert run_command(*words, "--reranker", str(tmp_path / "teacher"), "--output", str(tmp_path / "out")) == 0
    (found,) = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["benchmarks"]
    names = ["bm25", f"hybrid:{embedder_folder}", f"hybrid-rrf:{embedder_folder}"]
    assert [row["name"] for row in found["systems"]] == [
        *names,
        *(f"{name} > {tmp_path / 'teacher'}" for name in names),
    ]
    first, *mixed = found["systems"][:3]
    assert all(row["bytes_per_passage"] > first["bytes_per_passage"] and row["query_ms"] for row in mixed)
    data = read_benchmark(benchmark_folder, "test")
    expected = hybrid_run(bm25_run(data, 1000), dense_run(str(embedder_folder), data, 1000), 10, candidates=1000)
    (file,) = (tmp_path / "out" / "runs" / f"{benchmark_folder.name}-test").glob("02-*.trec")
    assert read_run(file) == {query: pytest.approx(scores) for query, scores in expected.items()}
    assert f"hybrid:{embedder_folder}" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "NDCG@10 of hybrid" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hybrid", "names no embedder to mix BM25 with: give hybrid:MODEL"),
        ("hybrid-rrf:", "names no embedder to mix BM25 with: give hybrid-rrf:MODEL"),
        ("hybrid:bm25", "names no embedder to mix BM25 with: give hybrid:MODEL"),
        ("hybrid:./nowhere", "nowhere"),
        ("hybrid:{teacher}", "is a cross-encoder, which cannot search: give it as --reranker"),
    ],
)
def test_a_mixture_of_nothing_is_refused_in_one_sentence_before_anything_is_measured(
    name: str,
    sentence: str,
    benchmark_folder: Path,
    bert_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sentence_transformers import CrossEncoder

    if "{" in name:
        CrossEncoder(str(bert_folder), num_labels=1).save_pretrained(str(tmp_path / "teacher"))
    monkeypatch.setattr(comparison, "_latencies", None)
    words = ["--model", "bm25", name.format(teacher=tmp_path / "teacher"), "--benchmark", str(benchmark_folder)]
    capsys.readouterr()
    assert run_command(*words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert sentence in lines[-1]
    assert len(lines[-1]) < 500
