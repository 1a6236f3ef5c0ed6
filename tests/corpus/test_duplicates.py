"""Which passages are duplicates, and which are equal to a query."""

from __future__ import annotations

import random

import pytest

from dupmae.corpus import Passage
from dupmae.corpus.duplicates import equal_to_query, unrepeated, with_duplicates


def corpus(*contents: tuple[str, str]) -> dict[str, Passage]:
    """Passages of titles and texts, called 0, 1, ..."""
    return {str(number): Passage(str(number), title, text) for number, (title, text) in enumerate(contents)}


@pytest.mark.parametrize(
    ("one", "other", "duplicates"),
    [
        (("", "A lamp."), ("", "A lamp."), True),
        (("", "A lamp."), ("", " a  LAMP.\n"), True),
        (("", "A lamp."), ("", "A lamp"), False),
        (("Lamps", "A lamp."), ("", "A lamp."), True),
        (("Lamps", "A lamp."), ("lamps ", "A lamp."), True),
        (("Lamps", "A lamp."), ("Lights", "A lamp."), False),
        (("Lamps", ""), ("", "lamps"), True),
        (("Lamps", ""), ("Lights", ""), False),
        (("", ""), ("", ""), True),
    ],
)
def test_texts_count_and_titles_that_differ(one, other, duplicates):
    for passages in (corpus(one, other), corpus(other, one)):
        assert with_duplicates(passages, {"q": ["0"]}) == {"q": frozenset("01" if duplicates else "0")}


def test_a_passage_whose_normalized_text_is_the_querys_is_equal_to_it_whatever_its_title():
    passages = corpus(("", "a?"), ("Any title", "B  or\nA?"), ("", "b"), ("", "b or a"), ("", "A?"))
    assert equal_to_query(passages, {"q": "b or a?", "r": "c", "s": "A?"}) == {
        "q": frozenset("1"),
        "s": frozenset("04"),
    }


def test_every_positive_keeps_itself_and_queries_do_not_mix():
    passages = corpus(("", "a"), ("", "b"), ("", "A"), ("t", "b"), ("", "c"))
    found = with_duplicates(passages, {"q": ["0", "4"], "r": {"3"}, "s": []})
    assert found == {"q": frozenset("024"), "r": frozenset("13"), "s": frozenset()}


def test_it_finds_what_comparing_all_with_all_finds():
    draw = random.Random(0)
    passages = corpus(*((draw.choice(["", "s", "T", "t"]), draw.choice(["", "x", "X ", "y"])) for _ in range(60)))

    def are_duplicates(a: Passage, b: Passage) -> bool:
        (one, title), (other, second) = (
            (p.text.strip().lower(), p.title.lower()) if p.text else (p.title.lower(), "") for p in (a, b)
        )
        return one == other and (title == second or not title or not second)

    positives = {f"q{number}": draw.sample(sorted(passages), 3) for number in range(40)}
    naive = {
        query: {b.id for b in passages.values() if any(are_duplicates(passages[a], b) for a in found)}
        for query, found in positives.items()
    }
    assert with_duplicates(passages, positives) == naive


def test_a_text_is_unrepeated_whatever_the_titles_are():
    passages = corpus(("", "b"), ("s", "A lamp."), ("t", "a  lamp."), ("", "c"), ("B", ""), ("t", "d"))
    assert unrepeated(passages) == ["3", "5"]
