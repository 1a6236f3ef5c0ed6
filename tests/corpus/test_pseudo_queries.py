"""Pseudo-queries: what becomes a query, what is left of its passage, and what the draws depend on."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from dupmae.config import PseudoQueryConfig
from dupmae.corpus import Passage
from dupmae.corpus.chunking import sentences_of
from dupmae.corpus.pseudo_queries import draw_queries, known_items, pseudo_queries
from dupmae.errors import DupmaeError

TITLES = PseudoQueryConfig(sentence_weight=0, crop_weight=0)
SENTENCES = PseudoQueryConfig(title_weight=0, crop_weight=0)
CROPS = PseudoQueryConfig(title_weight=0, sentence_weight=0)
TEXT = (
    "Lamps burned oil for two thousand years. Keepers trimmed the wicks at night! The lens of 1822 changed it all:\n"
    "it bends light into a beam. Short one. Electric lamps came late (in 1875)."
)


def passages(count: int) -> list[Passage]:
    """Passages no two of which have a sentence in common, but for the short one."""
    return [
        Passage(f"p{n}", f"On lamp {n}", re.sub(r"\b(two|wicks|bends|late)\b", rf"\g<1>{n}", TEXT))
        for n in range(count)
    ]


def test_a_title_becomes_the_query_and_leaves_the_passage():
    assert draw_queries(Passage("p", "On \n lamps", TEXT), TITLES) == (["On lamps"], Passage("p", "", TEXT))
    assert draw_queries(Passage("p", "", TEXT), TITLES) == ([], Passage("p", "", TEXT))
    assert draw_queries(Passage("p", "On lamps", "Too short."), TITLES)[0] == []


def test_a_sentence_becomes_the_query_and_leaves_the_passage():
    config = replace(SENTENCES, queries_per_passage=9)
    wanted = {
        "Lamps burned oil for two thousand years.",
        "Keepers trimmed the wicks at night!",
        "The lens of 1822 changed it all: it bends light into a beam.",
        "Electric lamps came late (in 1875).",
    }
    for identifier in "abcde":
        queries, rest = draw_queries(Passage(identifier, "On lamps", TEXT), config)
        assert set(queries) < wanted
        assert len(queries) == len(set(queries)) == 3
        assert len(rest.text) >= 40
        assert rest.title == "On lamps"
        assert "Short one." in rest.text
        (left,) = wanted.difference(queries)
        assert left in " ".join(rest.text.split())
        assert [query for query in queries if query in " ".join(rest.text.split())] == []


def test_a_crop_is_a_run_of_words_that_the_passage_keeps():
    starts = set()
    for number in range(40):
        (query,), rest = draw_queries(Passage(f"p{number}", "On lamps", TEXT), CROPS)
        assert rest.text == TEXT
        assert query in " ".join(TEXT.split())
        assert 4 <= len(query.split()) <= 16
        starts.add(query.split()[0])
    assert len(starts) > 8


def test_a_script_without_spaces_is_cropped_between_characters():
    text = "灯塔的光来自透镜它把光弯成一束照向远方的海面守夜人修剪灯芯直到天亮"
    queries = {draw_queries(Passage(f"p{number}", "", text), CROPS)[0][0] for number in range(20)}
    assert len(queries) > 5
    assert all(query in text and 4 <= len(query) <= 16 for query in queries)


def test_sentences_of_a_script_without_spaces_are_told_apart():
    text = (
        "灯塔的光来自透镜它把光弯成一束照向远方的海面。守夜人修剪灯芯直到天亮他们的生活十分孤独而且常常艰苦寂寞。"
        "电灯来得很晚大约在十九世纪末期才出现于海岸边上的塔楼。"
    )
    (query,), rest = draw_queries(Passage("p", "", text), SENTENCES)
    assert query.endswith("。")
    assert query not in rest.text
    assert len(query) + len(rest.text) == len(text)


def test_all_passages_stay_under_their_ids_and_each_query_has_its_own():
    made = pseudo_queries(passages(30), "lamps", replace(SENTENCES, queries_per_passage=2, title_weight=1.0))
    assert (made.name, made.split) == ("lamps", "pseudo")
    assert list(made.corpus) == [f"p{n}" for n in range(30)]
    assert made.queries.keys() == made.qrels.keys()
    for query, grades in made.qrels.items():
        assert grades == {query.split("#")[0]: 1}
        assert made.queries[query] not in made.corpus[query.split("#")[0]].full_text


def test_queries_that_several_passages_would_give_are_left_out():
    alike = [replace(p, title=t) for p, t in zip(passages(3), ["Introduction", "Introduction", "Lenses"], strict=True)]
    assert pseudo_queries(alike, "lamps", TITLES).queries == {"p2#1": "Lenses"}


def test_a_passage_that_stands_there_twice_gives_no_query_and_is_no_known_item():
    duplicates = [replace(passage, id=f"{passage.id}-again") for passage in passages(30)[:29]]
    found = pseudo_queries([*passages(30), *duplicates], "lamps", SENTENCES)
    assert set(found.qrels) == {"p29#1"}
    assert len(found.corpus) == 59
    more = [replace(passage, id=f"{passage.id}-more", text=f"Now: {passage.text}") for passage in passages(10)]
    corpus = {passage.id: passage for passage in [*passages(30), *duplicates, *more]}
    items = known_items(corpus, "lamps", 5, 69, seed=1)
    assert len(items.corpus) == 69
    assert len(items.qrels) == 2
    assert {passage for grades in items.qrels.values() for passage in grades} < {one.id for one in more} | {"p29"}


def test_draws_depend_on_the_seed_and_the_passage_alone():
    config = PseudoQueryConfig(queries_per_passage=2)
    some, more = pseudo_queries(passages(10), "x", config), pseudo_queries(passages(20)[::-1], "x", config)
    assert some.queries.items() <= more.queries.items()
    assert all(more.corpus[name] == passage for name, passage in some.corpus.items())
    assert pseudo_queries(passages(10), "x", replace(config, seed=1)).queries != some.queries


def test_a_large_corpus_gives_queries_of_some_passages_at_random():
    made = pseudo_queries(passages(30), "lamps", replace(TITLES, passages=7))
    chosen = {query.split("#")[0] for query in made.queries}
    assert len(chosen) == 7
    assert len(made.corpus) == 30
    assert chosen != {f"p{n}" for n in range(7)}
    assert {name for name, passage in made.corpus.items() if not passage.title} == chosen


def test_weights_say_how_often_each_kind_is_drawn():
    made = pseudo_queries(passages(400), "lamps", PseudoQueryConfig(title_weight=2.0, crop_weight=1.0))
    titles = sum(text.startswith("On lamp") for text in made.queries.values())
    sentences = sum(made.corpus[passage.id].text != passage.text for passage in passages(400))
    assert 160 < titles < 240
    assert 70 < sentences < 130


def test_nothing_to_draw_from_is_refused():
    with pytest.raises(DupmaeError, match="give titles, sentences or crops a weight"):
        pseudo_queries(passages(3), "lamps", replace(TITLES, title_weight=0))
    with pytest.raises(DupmaeError, match="lamps gives no pseudo-queries"):
        pseudo_queries([Passage("a", "", "Too short.")], "lamps", PseudoQueryConfig())


def test_known_items_are_found_among_a_pool_without_their_titles_and_sentences():
    corpus = {passage.id: passage for passage in passages(60)}
    items = known_items(corpus, "lamps", 5, 20, 3)
    assert (items.split, len(items.corpus)) == ("known items", 20)
    answers = {passage for grades in items.qrels.values() for passage in grades}
    assert len(answers) == 5
    for query, grades in items.qrels.items():
        (answer,) = grades
        assert items.queries[query] not in items.corpus[answer].full_text
        assert items.queries[query] in " ".join(corpus[answer].full_text.split())
    assert any(text.startswith("On lamp") for text in items.queries.values())
    assert all(passage == corpus[name] for name, passage in items.corpus.items() if name not in answers)
    assert known_items(corpus, "lamps", 5, 20, 3) == items
    assert known_items(corpus, "lamps", 5, 20, 4) != items
    assert len(known_items(corpus, "lamps", 50, 99, 3).corpus) == 60
    with pytest.raises(DupmaeError, match="has 9 passages that stand there once, too few to hold some out"):
        known_items({passage.id: passage for passage in passages(9)}, "lamps", 5, 20, 3)


def test_short_texts_give_crops_of_half_their_words_at_most():
    for count in range(4, 13):
        text = " ".join(f"word{n}" for n in range(count))
        (query,), rest = draw_queries(Passage("p", "", text), CROPS)
        assert rest.text == text
        assert query in text
        assert min(4, count // 2) <= len(query.split()) <= count // 2
    assert draw_queries(Passage("p", "", "three words only"), CROPS)[0] == []


@pytest.mark.parametrize("least", [4, 9])
def test_questions_and_captions_are_known_items_by_runs_of_their_words(least: int):
    corpus = {f"q{n}": Passage(f"q{n}", "", " ".join(f"w{n}x{m}" for m in range(least + n % 4))) for n in range(40)}
    items = known_items(corpus, "questions", 4, 40, seed=1)
    assert len(items.qrels) >= 4
    for query, grades in items.qrels.items():
        (answer,) = grades
        assert items.corpus[answer] == corpus[answer]
        assert items.queries[query] in corpus[answer].text


def test_the_true_reason_is_told_where_short_texts_give_no_queries():
    short = [Passage(f"q{n}", "", f"how do lamps of kind {n} work") for n in range(20)]
    with pytest.raises(DupmaeError, match=r"no sentence of 20 characters.*crop_weight"):
        pseudo_queries(short, "questions", replace(CROPS, crop_weight=0, sentence_weight=1))
    with pytest.raises(DupmaeError, match="shorter than 4 words"):
        pseudo_queries([Passage("a", "", "Too short.")], "questions", CROPS)
    with pytest.raises(DupmaeError, match="each of its 2 passages stands there more than once"):
        pseudo_queries([Passage(name, "", TEXT) for name in "ab"], "questions", CROPS)


def test_passages_without_a_query_are_counted(caplog: pytest.LogCaptureFixture):
    pseudo_queries([*passages(3), Passage("s", "", "Too short.")], "lamps", CROPS)
    assert "1 of the 4 passages of lamps that queries are drawn from give none, such as 's'" in caplog.text


@pytest.mark.parametrize("script", ["hindi", "burmese", "khmer", "arabic", "half-width"])
def test_sentences_end_at_the_full_stop_of_their_script(script: str):
    stop = {"hindi": "।", "burmese": "။", "khmer": "។", "arabic": "؟", "half-width": "｡"}[script]
    assert sentences_of(f"अ{stop} ब{stop}") == [f"अ{stop}", f" ब{stop}"]
