"""Mixtures of two rankings: both formulas against naive twins, and every query that has a defined result."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dupmae.corpus import Benchmark, Passage, Run, read_benchmark
from dupmae.errors import DupmaeError
from dupmae.retrievers import bm25_run, dense_run, duplex_run, hybrid_run, several
from dupmae.retrievers.hybrid import CANDIDATES, FORMS, split_mixture
from dupmae.retrievers.lengths import UNCHANGED
from dupmae.retrievers.several import Systems


def naive_scaled(lexical: dict[str, float], dense: dict[str, float], candidates: int) -> dict[str, float]:
    """Both rankings as arrays over the candidates, gaps filled, min-max scaled, averaged."""
    names = sorted({*lexical, *dense})
    sides = []
    for scores in (lexical, dense):
        known = np.array([scores.get(name, np.nan) for name in names])
        filled = np.where(np.isnan(known), 0.0 if len(scores) < candidates else np.nanmin(known), known)
        spread = filled.max() - filled.min()
        sides.append((filled - filled.min()) / spread if spread else np.zeros(len(names)))
    return dict(zip(names, ((sides[0] + sides[1]) / 2).tolist(), strict=True))


def naive_ranks(lexical: dict[str, float], dense: dict[str, float], candidates: int) -> dict[str, float]:
    """The definition: a passage's rank is 1 + how many stand before it."""
    return {
        name: sum(
            1 / (60 + 1 + sum((-score, other) < (-scores[name], name) for other, score in scores.items()))
            for scores in (lexical, dense)
            if name in scores
        )
        for name in {*lexical, *dense}
    }


@pytest.mark.parametrize(("form", "naive"), [("hybrid", naive_scaled), ("hybrid-rrf", naive_ranks)])
def test_a_mixture_is_what_a_naive_twin_computes(form: Any, naive: Any) -> None:
    draw = random.Random(2)
    names = [f"p{number:02d}" for number in range(30)]
    for _ in range(60):
        # few values, so that many are equal; 12 of 12 candidates are a ranking that is cut off
        sides = [{name: draw.randint(1, 6) / 2 for name in draw.sample(names, draw.randint(0, 12))} for _ in range(2)]
        found = hybrid_run({"q": sides[0]}, {"q": sides[1]}, 30, form=form, candidates=12)["q"]
        expected = naive(*sides, 12)
        assert found == pytest.approx(expected, abs=1e-12)
        assert list(found) == sorted(found, key=lambda name: (-found[name], name))
        assert hybrid_run({"q": sides[0]}, {"q": sides[1]}, 3, form=form, candidates=12)["q"] == dict(
            list(found.items())[:3]
        )


def test_a_passage_that_one_ranking_lacks_has_the_least_of_the_others() -> None:
    lexical, dense = {"a": 8.0, "b": 4.0}, {"a": 0.9, "c": 0.7, "d": 0.5}
    # BM25 was asked for 3 and found 2: whatever else there is scores 0 there, so b has 4/8
    assert hybrid_run({"q": lexical}, {"q": dense}, candidates=3)["q"] == pytest.approx(
        {"a": 1.0, "b": 0.25, "c": 0.25, "d": 0.0}
    )
    # BM25 was asked for 2: of what it did not give is known that it scores no more than b
    assert hybrid_run({"q": lexical}, {"q": dense}, candidates=2)["q"] == pytest.approx({"a": 1.0, "b": 0.0, "c": 0.0})
    ranks = hybrid_run({"q": lexical}, {"q": dense}, candidates=10, form="hybrid-rrf")["q"]
    assert ranks == {"a": 1 / 61 + 1 / 61, "b": 1 / 62, "c": 1 / 62, "d": 1 / 63}


@pytest.mark.parametrize("form", FORMS)
def test_a_query_that_one_ranking_finds_nothing_for_is_ranked_by_the_other(form: Any) -> None:
    some = {"b": 0.9, "a": 0.9, "c": -0.3}
    assert list(hybrid_run({"q": {}}, {"q": some}, candidates=9, form=form)["q"]) == ["a", "b", "c"]
    assert list(hybrid_run({}, {"q": some}, candidates=9, form=form)["q"]) == ["a", "b", "c"]
    assert list(hybrid_run({"q": some}, {"q": {}}, candidates=9, form=form)["q"]) == ["a", "b", "c"]
    assert hybrid_run({"q": {}}, {"q": {}}, candidates=9, form=form) == {"q": {}}


def test_equal_scores_leave_the_order_to_the_other_ranking() -> None:
    equal, dense = {"a": 3.0, "b": 3.0, "c": 3.0}, {"c": 0.9, "b": 0.8, "a": 0.7}
    assert hybrid_run({"q": equal}, {"q": dense}, candidates=9)["q"] == pytest.approx({"c": 0.5, "b": 0.25, "a": 0.0})
    assert hybrid_run({"q": equal}, {"q": equal}, candidates=9)["q"] == {"a": 0.0, "b": 0.0, "c": 0.0}


@pytest.mark.parametrize("form", FORMS)
def test_the_querys_own_passage_is_taken_out_before_scores_are_scaled_where_the_rules_say_so(form: Any) -> None:
    lexical, dense = {"a": 2.0, "b": 1.0}, {"b": 0.5, "a": 0.4}
    plain = hybrid_run({"q": lexical}, {"q": dense}, candidates=9, form=form)
    own = [{"q": scores | {"q": 90.0}} for scores in (lexical, dense)]
    assert hybrid_run(own[0], own[1], candidates=9, form=form, drop_self=True) == plain
    assert next(iter(hybrid_run(own[0], own[1], candidates=9, form=form)["q"])) == "q"


@pytest.mark.parametrize("name", ["hybrid", "hybrid:", "hybrid-rrf", "hybrid:bm25", "hybrid:hybrid-rrf:m"])
def test_a_mixture_without_an_embedder_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(DupmaeError, match=r"^hybrid\S* names no embedder to mix BM25 with: give hybrid\S*:MODEL, such"):
        split_mixture(name)


def test_what_is_no_mixture_is_none() -> None:
    for name in ("bm25", "hybrids", "hybrid-model", "./hybrid", "runs/hybrid:1", "sparse:m"):
        assert split_mixture(name) is None
    assert split_mixture("hybrid:dense:m") == ("hybrid", "dense:m")


# As systems


def systems(data: Benchmark, names: list[str], folder: Path, **options: Any) -> dict[str, Run]:
    opened = Systems(data, names, UNCHANGED, folder, **options)
    return {row.name: opened.rank(row, 20) for name in names for row in opened.open(name)}


def test_a_mixture_is_that_of_bm25_and_the_embedder(
    benchmark_folder: Path, embedder_folder: Path, tmp_path: Path
) -> None:
    data = read_benchmark(benchmark_folder, "test")
    data.queries["q0"] = "?!"  # no word
    lexical, dense = bm25_run(data, CANDIDATES), dense_run(str(embedder_folder), data, CANDIDATES)
    assert lexical["q0"] == {}
    for form in FORMS:
        name = f"{form}:{embedder_folder}"
        opened = Systems(data, [name], UNCHANGED, tmp_path)
        (row,) = opened.open(name)
        expected = hybrid_run(lexical, dense, 20, candidates=CANDIDATES, form=form)
        for found in (opened.rank(row, 20), row.search(data.queries, 20)):
            assert found.keys() == expected.keys()
            for query, scores in expected.items():
                assert list(found[query]) == list(scores)
                assert found[query] == pytest.approx(scores)
        parts: list[Any] = [*opened.open("bm25"), *opened.open(str(embedder_folder))]
        assert (row.stored, row.seconds) == (sum(part.stored for part in parts), sum(part.seconds for part in parts))


def test_what_mixtures_and_their_parts_share_is_opened_and_searched_once(
    benchmark_folder: Path, duplex_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, searched = list[str](), list[tuple[str, int]]()
    genuine = several.open_retrievers

    def counted(model: str, *rest: Any, **options: Any) -> Any:
        opened.append(model)

        def search(row: Any) -> Any:
            return lambda queries, k: searched.append((row.name, k)) or row.search(queries, k)

        return [several.replace(row, search=search(row)) for row in genuine(model, *rest, **options)]

    monkeypatch.setattr(several, "open_retrievers", counted)
    data, name = read_benchmark(benchmark_folder, "test"), str(duplex_folder)
    names = [name, "bm25", f"hybrid:{name}", f"hybrid-rrf:{name}"]
    found = systems(data, names, tmp_path, halves=True)
    assert list(found) == [name, *(f"{name} {part}" for part in ("dense", "lexical", "words")), *names[1:]]
    assert sorted(opened) == sorted(["bm25", name])
    assert sorted(searched) == sorted(
        [
            (name, 20),
            (f"{name} lexical", 20),
            (f"{name} words", 20),
            (f"{name} dense", CANDIDATES),
            ("bm25", CANDIDATES),
        ]
    )
    assert all(len(scores) <= 20 for run in found.values() for scores in run.values())
    # of a duplex model it is the dense half that is mixed
    from dupmae.duplex import DuplexEncoder
    from dupmae.index import DuplexIndex

    index = DuplexIndex.build(tmp_path / "index", DuplexEncoder(name), data.corpus.values(), model=name)
    expected = hybrid_run(
        bm25_run(data, CANDIDATES), duplex_run(index, data, CANDIDATES, "dense"), 20, candidates=CANDIDATES
    )
    assert found[names[2]] == {query: pytest.approx(scores) for query, scores in expected.items()}


def test_a_querys_own_passage_takes_no_place_of_a_mixture(
    embedder_folder: Path, words: list[str], tmp_path: Path
) -> None:
    texts = {"q": words[:3], "a": words[1:5], "b": words[2:9], "c": words[20:24]}
    corpus = {name: Passage(name, "", " ".join(text)) for name, text in texts.items()}
    data = Benchmark("b", "test", corpus, {"q": " ".join(words[:3])}, {"q": {"a": 1}})
    without = Benchmark("b", "test", {name: corpus[name] for name in "abc"}, data.queries, data.qrels)
    name = f"hybrid-rrf:{embedder_folder}"
    found = systems(data, [name], tmp_path, drop_self=True)[name]
    assert found == systems(without, [name], tmp_path)[name]
    assert next(iter(systems(data, [name], tmp_path)[name]["q"])) == "q"


def test_documents_cut_into_chunks_are_mixed_by_what_their_best_chunks_score(
    embedder_folder: Path, tmp_path: Path, words: list[str]
) -> None:
    corpus = {f"d{n}": Passage(f"d{n}", "", " ".join(words[n : n + 5 + 20 * n])) for n in range(4)}
    data = Benchmark("b", "test", corpus, {"q": " ".join(words[60:63])}, {"q": {"d3": 1}})
    names = ["bm25", str(embedder_folder), f"hybrid:{embedder_folder}"]
    lexical, dense, mixed = systems(data, names, tmp_path, chunks=(6, 3)).values()
    assert mixed["q"] == pytest.approx(hybrid_run(lexical, dense, 20, candidates=CANDIDATES)["q"])
    assert next(iter(mixed["q"])) == "d3"


def test_a_duplex_model_without_a_dense_half_is_refused(
    benchmark_folder: Path, bert_folder: Path, tmp_path: Path
) -> None:
    from dupmae.config import DuplexConfig
    from dupmae.duplex import DuplexEncoder

    DuplexEncoder.from_encoder(str(bert_folder), DuplexConfig(top_k=8, dense_dimension=0)).save(str(tmp_path / "m"))
    data = read_benchmark(benchmark_folder, "test")
    with pytest.raises(DupmaeError, match="has no dense half, and BM25 is mixed with dense vectors: name an embedder"):
        systems(data, [f"hybrid:{tmp_path / 'm'}"], tmp_path)
