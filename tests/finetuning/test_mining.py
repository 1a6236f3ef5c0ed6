"""Mined lists against a naive twin that ranks with full matrices; what is resumed, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dupmae.config import MiningConfig
from dupmae.corpus import Benchmark, Passage
from dupmae.duplex import DuplexEncoder
from dupmae.errors import DupmaeError
from dupmae.finetuning import jsonl_blocks as blocks
from dupmae.finetuning import mining
from dupmae.finetuning.candidates import CandidateList, read_lists
from dupmae.finetuning.mining import mine
from dupmae.index import DuplexIndex
from dupmae.retrievers import bm25_run
from dupmae.runtime.bars import bars_shown
from dupmae.runtime.resuming import sole_run

Rankings = dict[str, dict[str, float]]


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embed in float32 on every machine, and work in blocks of five queries."""
    monkeypatch.setattr("dupmae.duplex.inference.bfloat16_pays", lambda _: False)
    monkeypatch.setattr(blocks, "BLOCK", 5)


@pytest.fixture
def encoder(make_encoder: Callable[..., DuplexEncoder]) -> DuplexEncoder:
    return make_encoder()


@pytest.fixture
def index(encoder: DuplexEncoder, benchmark: Benchmark, tmp_path: Path) -> DuplexIndex:
    return DuplexIndex.build(tmp_path / "index", encoder, benchmark.corpus.values(), model="tiny")


@pytest.fixture
def duplex(encoder: DuplexEncoder, benchmark: Benchmark) -> Rankings:
    """Every passage's score for every query, by the dot product of whole vectors."""
    ids = list(benchmark.corpus)
    queries = encoder.encode_query(list(benchmark.queries.values()), convert_to_tensor=True).to_dense()
    passages = encoder.encode_document([one.full_text for one in benchmark.corpus.values()], convert_to_tensor=True)
    scores = (queries @ passages.to_dense().T).tolist()
    return {
        query: dict(sorted(zip(ids, row, strict=True), key=lambda pair: -pair[1]))
        for query, row in zip(benchmark.queries, scores, strict=True)
    }


def answers(benchmark: Benchmark, query: str) -> set[str]:
    return {passage for passage, grade in benchmark.qrels[query].items() if grade}


def mined(index: DuplexIndex | None, benchmark: Benchmark, output: Path, **settings: Any) -> list[CandidateList]:
    return list(read_lists(mine(index, benchmark, output, MiningConfig(**settings)), benchmark).values())


def test_the_indexs_best_but_for_the_positives_are_the_negatives(index, benchmark, duplex, tmp_path):
    lists = mined(index, benchmark, tmp_path / "out", first=2, last=6)
    assert [one.query_id for one in lists] == sorted(benchmark.queries)
    for one in lists:
        right = answers(benchmark, one.query_id)
        expected = [passage for passage in duplex[one.query_id] if passage not in right][1:6]
        assert list(one.negatives) == expected
        assert list(one.negatives.values()) == pytest.approx([duplex[one.query_id][p] for p in expected], rel=2e-3)
        assert set(one.positives) == right
        for passage, score in one.positives.items():
            place = list(duplex[one.query_id]).index(passage)
            if score is None:
                assert place >= 6
            else:
                assert score == pytest.approx(duplex[one.query_id][passage], rel=2e-3)


@pytest.mark.parametrize("source", ["duplex", "bm25", "both"])
def test_what_reads_like_a_positive_is_neither_negative_nor_positive(encoder, benchmark, tmp_path, source):
    duplicates = {
        f"duplicate-{name}": replace(passage, id=f"duplicate-{name}") for name, passage in benchmark.corpus.items()
    }
    doubled = replace(benchmark, corpus=benchmark.corpus | duplicates)
    index = DuplexIndex.build(tmp_path / "index", encoder, doubled.corpus.values(), model="tiny")
    lists = mined(index, doubled, tmp_path / "out", source=source, last=50)
    assert any(name.startswith("duplicate-") for one in lists for name in one.negatives)
    for one in lists:
        right = answers(benchmark, one.query_id)
        assert set(one.positives) == right
        assert not {name.removeprefix("duplicate-") for name in one.negatives} & right


@pytest.mark.parametrize("source", ["duplex", "bm25", "both"])
def test_what_reads_like_the_query_is_left_out_and_moves_no_margin(encoder, benchmark, tmp_path, source):
    asked = {f"equal-{query}": Passage(f"equal-{query}", "Title", text) for query, text in benchmark.queries.items()}
    index = DuplexIndex.build(tmp_path / "plain", encoder, benchmark.corpus.values(), model="tiny")
    settings = {"source": source, "last": 50, "margin": 0.01}
    before = {one.query_id: one for one in mined(index, benchmark, tmp_path / "before", **settings)}
    more = replace(benchmark, corpus=benchmark.corpus | asked)
    index = DuplexIndex.build(tmp_path / "more", encoder, more.corpus.values(), model="tiny")
    for one in mined(index, more, tmp_path / "after", **settings):
        assert f"equal-{one.query_id}" not in one.negatives
        if source == "duplex":  # BM25's scores depend on the other passages
            kept = [name for name in one.negatives if not name.startswith("equal-")]
            assert kept == list(before[one.query_id].negatives)


def test_bm25_alone_needs_no_index_and_lists_what_shares_a_word(benchmark, tmp_path):
    ranked = bm25_run(benchmark, 30)
    for one in mined(None, benchmark, tmp_path, source="bm25", last=4):
        right = answers(benchmark, one.query_id)
        expected = {p: s for p, s in ranked[one.query_id].items() if p not in right}
        assert one.negatives == dict(list(expected.items())[:4])
        assert one.positives == {passage: ranked[one.query_id].get(passage) for passage in one.positives}


def test_both_sources_take_turns_and_no_passage_comes_twice(index, benchmark, tmp_path):
    single = {
        source: mined(index, benchmark, tmp_path / source, source=source, last=5) for source in ("duplex", "bm25")
    }
    both = mined(index, benchmark, tmp_path / "both", source="both", last=5)
    for one, first, second in zip(both, single["duplex"], single["bm25"], strict=True):
        assert set(one.negatives) == set(first.negatives) | set(second.negatives)
        assert next(iter(one.negatives)) == next(iter(first.negatives))
        places = {passage: round(1 / score) for passage, score in one.negatives.items()}
        found = {passage: round(1 / score) for passage, score in one.positives.items() if score is not None}
        assert sorted({**places, **found}.values()) == list(range(1, len(places) + len(found) + 1))
        assert list(places.values()) == sorted(places.values())


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({"margin": 1.5}, lambda best: best - 1.5),
        ({"relative_margin": 0.1}, lambda best: best - 0.1 * abs(best)),
        ({"margin": 0.0, "relative_margin": 0.02}, lambda best: best - 0.02 * abs(best)),
    ],
)
def test_margins_leave_out_what_scores_like_the_best_positive(index, benchmark, duplex, tmp_path, settings, limit):
    kept = dropped = 0
    for one in mined(index, benchmark, tmp_path / "out", last=30, **settings):
        right = answers(benchmark, one.query_id)
        most = limit(max(duplex[one.query_id][passage] for passage in right))
        expected = {p for p, score in duplex[one.query_id].items() if p not in right and score <= most}
        assert set(one.negatives) == expected
        kept, dropped = kept + len(expected), dropped + 24 - len(right) - len(expected)
    assert kept
    assert dropped


def test_a_relative_margin_of_negative_scores_goes_down_too():
    ranking = {"a": -1.0, "right": -2.0, "b": -2.1, "c": -2.5}
    config = MiningConfig(relative_margin=0.1)
    assert list(mining._within(ranking, {"right"}, config)) == ["right", "c"]
    assert mining._within(ranking, {"elsewhere"}, config) == {}


def test_the_teacher_leaves_out_what_it_takes_for_answers(index, benchmark, tmp_path, monkeypatch):
    from dupmae.retrievers import scorers as cross_encoder

    def score_pairs(teacher: Any, train: Benchmark, passages: dict[str, list[str]]) -> Rankings:
        assert teacher.label == "--teacher teacher"
        # a passage of the query's own subject is worth 2, one with an even number 1, any other 0
        return {
            query: {p: 2.0 if p[1:-1] == query[1:] else float(int(p[1:-1]) % 2 == 0) for p in some}
            for query, some in passages.items()
        }

    monkeypatch.setattr(cross_encoder, "load_cross_encoder", lambda name: name)
    monkeypatch.setattr(cross_encoder, "score_pairs", score_pairs)
    for margin, allowed in ((0.0, {0, 1, 2}), (0.5, {0, 1}), (1.5, {0})):
        output = tmp_path / str(margin)
        for one in mined(index, benchmark, output, last=30, teacher="teacher", teacher_margin=margin):
            worth = {
                passage: 2 if passage[1:-1] == one.query_id[1:] else int(int(passage[1:-1]) % 2 == 0)
                for passage in set(benchmark.corpus) - answers(benchmark, one.query_id)
            }
            assert set(one.negatives) == {passage for passage, value in worth.items() if value in allowed}


def test_a_killed_run_goes_on_at_its_block_and_a_finished_one_is_left_alone(index, benchmark, tmp_path, monkeypatch):
    config = MiningConfig(last=3)
    whole = mine(index, benchmark, tmp_path / "whole", config)
    write, searched = mining.write_lists, []

    def dying(path: Path, lists: list[CandidateList]) -> None:
        searched.append([one.query_id for one in lists])
        if len(searched) == 2:
            raise KeyboardInterrupt
        write(path, lists)

    monkeypatch.setattr(mining, "write_lists", dying)
    with pytest.raises(KeyboardInterrupt):
        mine(index, benchmark, tmp_path / "killed", config)
    assert not (tmp_path / "killed" / "negatives.jsonl").exists()
    resumed = mine(index, benchmark, tmp_path / "killed", config)
    names = sorted(benchmark.queries)
    assert searched == [names[:5], names[5:10], names[5:10], names[10:]]
    assert resumed.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in resumed.parent.iterdir()) == ["mining.json", "negatives.jsonl"]
    assert json.loads((resumed.parent / "mining.json").read_text(encoding="utf-8"))["settings"]["last"] == 3

    resumed.write_text("mine now\n", encoding="utf-8")  # whoever edits the lists keeps them
    assert mine(index, benchmark, tmp_path / "killed", config).read_text(encoding="utf-8") == "mine now\n"
    assert len(searched) == 4


def test_lists_of_something_else_are_not_overwritten(index, encoder, benchmark, tmp_path):
    output = tmp_path / "out"
    path = mine(index, benchmark, output, MiningConfig(source="both"))
    before = path.read_bytes()
    passage = Passage("p0a", "", benchmark.corpus["p0a"].text + " baba")
    changed = replace(benchmark, corpus=benchmark.corpus | {"p0a": passage})
    other = DuplexIndex.build(tmp_path / "other", encoder, changed.corpus.values(), model="tiny")
    for at, data, settings in (
        (index, benchmark, {"last": 9}),
        (other, benchmark, {}),
        (index, changed, {}),
        (index, replace(benchmark, queries=benchmark.queries | {"q3": "baba"}), {}),
        (index, replace(benchmark, qrels=benchmark.qrels | {"q3": {"p3b": 1}}), {}),
    ):
        with pytest.raises(DupmaeError, match="holds a mining run with other settings"):
            mine(at, data, output, MiningConfig(**{"source": "both"} | settings))
    assert path.read_bytes() == before
    (output / "mining.json").unlink()
    with pytest.raises(DupmaeError, match="holds other results"):
        mine(index, benchmark, output, MiningConfig(source="both"))


def test_a_folder_that_another_process_mines_into_is_refused(benchmark, tmp_path):
    with sole_run(tmp_path / "mined"), pytest.raises(DupmaeError, match="Another process is at work"):
        mine(None, benchmark, tmp_path / "mined", MiningConfig(source="bm25"))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_mined_is_refused(index, benchmark, encoder, tmp_path):
    with pytest.raises(DupmaeError, match="Ranks 9 to 8 hold no passage"):
        mine(index, benchmark, tmp_path / "out", MiningConfig(first=9, last=8))
    with pytest.raises(DupmaeError, match="the source both needs an index"):
        mine(None, benchmark, tmp_path / "out", MiningConfig(source="both"))
    unanswered = replace(benchmark, qrels={query: {"p0a": 0} for query in benchmark.queries})
    with pytest.raises(DupmaeError, match="no query with a positive"):
        mine(index, unanswered, tmp_path / "out", MiningConfig())
    smaller = replace(benchmark, corpus={name: one for name, one in benchmark.corpus.items() if name != "p5a"})
    smaller = replace(smaller, qrels={query: smaller.qrels[query] for query in ("q1", "q2")})
    with pytest.raises(DupmaeError, match="holds the passage 'p5a', which toy does not"):
        mine(index, smaller, tmp_path / "out", MiningConfig())
    assert mine(
        index, benchmark, tmp_path / "out", MiningConfig()
    ).is_file()  # what was refused has not taken the folder


def test_mining_shows_one_bar(index, benchmark, tmp_path, capfd):
    capfd.readouterr()
    with bars_shown():
        mine(index, benchmark, tmp_path / "out", MiningConfig())
    shown = capfd.readouterr()
    assert shown.out == ""
    lines = [line for line in shown.err.replace("\r", "\n").splitlines() if line.strip()]
    assert [line for line in lines if not line.startswith("mining: ")] == []
    assert "/12" in lines[-1]


def test_queries_without_a_negative_are_counted(benchmark, tmp_path, caplog):
    corpus = benchmark.corpus | {"p": Passage("p", "", "lala")}
    heard = {query: f"{text} lala" for query, text in benchmark.queries.items()}
    some = replace(benchmark, corpus=corpus, queries=heard | {"q0": "unheard", "q3": "of"})
    path = mine(None, some, tmp_path / "out", MiningConfig(source="bm25"))
    lists = read_lists(path, some).values()
    assert [one.query_id for one in lists if not one.negatives] == ["q0", "q3"]
    assert "Mining from BM25 found no negative for 2 of the 12 queries of toy (train)." in caplog.text


def test_negatives_that_bm25_cannot_find_for_any_query_are_refused_before_anything_is_written(benchmark, tmp_path):
    strangers = replace(benchmark, queries={query: f"unheard{query}" for query in benchmark.queries})
    with pytest.raises(DupmaeError, match="finds no negative for any of the 12 queries of toy"):
        mine(None, strangers, tmp_path / "out", MiningConfig(source="bm25"))
    assert not (tmp_path / "out").exists()


def test_lists_of_which_none_has_a_negative_are_refused(index, benchmark, tmp_path):
    with pytest.raises(DupmaeError, match="No negative was found for any of the 12 queries"):
        mine(index, benchmark, tmp_path / "out", MiningConfig(margin=1e6))
