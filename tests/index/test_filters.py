"""Searches limited by metadata: what expressions mean, and on columns of which kinds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fake_index import (
    FakeEncoder,
    expected,
    random_rows,
    ranking,
    rows,
)

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex
from dupmae.index.storage.passages import concatenate_passages, passage_table
from dupmae.index.where import DEEPEST, Condition, Every, Not, Some, read_filter

BOOKS: dict[str, dict[str, str | int | float | bool]] = {
    "a": {"year": 1990, "lang": "en", "price": 10.5, "open": True, "date": "1990-03-01", "path": "reports/x.md"},
    "b": {"year": 2020, "lang": "de", "price": 7, "open": False, "date": "2020-12-31", "path": "reports/old/y.md"},
    "c": {"year": 2021, "lang": "en", "price": -1.25, "date": "2021-01-01T10:00", "path": "notes/reports/"},
    "d": {"lang": "fr", "author": "O'Brien, Flann", "date": "no date", "path": "r", "number": "12"},
    "e": {"year": 2020, "author": "War and Peace", "number": "n/a", "path": "(1) = 2"},
    "f": {"year": 5, "number": "3.5", "dc.title": "x", "Publication Year": 1999},
}


def library(folder: Path, books: Any = BOOKS, segment: int = 2) -> DuplexIndex:
    """Two passages a segment, so that each field stands in some of them alone."""
    corpus = [Passage(name, "", str(row), metadata) for row, (name, metadata) in enumerate(books.items())]
    encoder = FakeEncoder(*random_rows(np.random.default_rng(1), 10))
    return DuplexIndex.build(folder, encoder, corpus, model="m", segment_passages=segment)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> DuplexIndex:
    return library(tmp_path_factory.mktemp("books") / "i")


def found(index: DuplexIndex, where: Any) -> str:
    (hits,) = index.search(["1"], 100, where)
    return "".join(sorted(hit.id for hit in hits))


MEANINGS = {
    "year>=2020": "bce",
    "year>2020": "c",
    "year<2020": "af",
    "year<=1990.0": "af",
    "year=2020.0": "be",
    "year==2020": "be",
    "year!=2020": "acdf",  # also where there is none
    "not year>=2020": "adf",
    "year>=2020 and year<2021": "be",
    "year in (1990, 5)": "af",
    "year not in (1990, 5)": "bcde",
    "year<10": "f",  # as numbers
    "year<abc": "",
    "year^=20": "bce",
    "price>7": "a",
    "price<-1": "c",
    "price=7": "b",
    "price>1e0": "ab",
    "open=true": "a",
    "open=True": "a",
    "open!=true": "bcdef",
    "open>0": "",
    "lang=en": "ac",
    "lang!=de": "acdef",
    "lang=en or lang=fr": "acd",
    "lang in (en, 'fr')": "acd",
    "lang>=en": "acd",
    "lang>e and lang<f": "ac",
    "date>=2020-12-31": "bc",  # as texts, among dates alone
    "date<2020-12-31": "a",
    "date>=2020": "bc",
    "date<2020": "a",
    "date>no": "d",
    "number>3": "df",  # a text that is a number
    "number<10": "f",
    "number=12": "d",
    "number!=12": "abcef",
    "path^=reports/": "ab",
    "not path^=reports/": "cdef",
    "path='(1) = 2'": "e",
    'author="O\'Brien, Flann"': "d",
    "author='O''Brien, Flann'": "d",
    "author=War and Peace": "e",
    "dc.title=x": "f",
    "'Publication Year'>1990": "f",
    "Publication Year=1999": "f",
    "lang=en and year>=2020 or lang=fr": "cd",
    "lang=en and (year>=2020 or lang=fr)": "c",
    "NOT (lang=en OR year=5) AND lang!=fr": "be",
    "not not lang=en": "ac",
    "((lang=en))": "ac",
    "lang = en  and  open=true": "a",
}


@pytest.mark.parametrize("text", MEANINGS)
def test_an_expression_finds_what_it_means(books: DuplexIndex, text: str) -> None:
    assert found(books, text) == MEANINGS[text]


def test_several_expressions_are_all_met_but_of_plain_values_of_one_field_one(books: DuplexIndex) -> None:
    assert found(books, ["lang=en", "lang=de", "year>=2020"]) == "bc"
    assert found(books, ["lang!=en", "lang!=de"]) == "def"
    assert found(books, ["lang=en", "year=2021"]) == "c"
    assert found(books, {"lang": ["en", "de"], "year": 2020}) == "b"
    assert found(books, {"year": [1990, "2021"], "open": True}) == "a"
    assert found(books, {}) == "abcdef"
    assert found(books, {"lang": []}) == ""
    assert found(books, Some((Not(Condition("lang", "=", ("en",))), Condition("year", ">", ("2020",))))) == "bcdef"


def test_expressions_are_as_python_would_evaluate_them(books: DuplexIndex) -> None:
    """Random nesting of conditions, each with its twin."""
    rng = np.random.default_rng(3)
    conditions: dict[str, Callable[[dict[str, Any]], bool]] = {
        "year>=2020": lambda book: book.get("year", -1) >= 2020,
        "lang=en": lambda book: book.get("lang") == "en",
        "lang!=en": lambda book: book.get("lang") != "en",
        "path^=r": lambda book: book.get("path", "").startswith("r"),
        "price<8": lambda book: book.get("price", 99) < 8,
        "open=false": lambda book: book.get("open") is False,
    }

    def drawn(depth: int) -> tuple[str, Callable[[dict[str, Any]], bool]]:
        if depth == 0:
            text = str(rng.choice(list(conditions)))
            return text, conditions[text]
        (first, one), (second, two) = drawn(depth - 1), drawn(depth - 1)
        kind = rng.integers(3)
        if kind == 0:
            return f"not ({first})", lambda book: not one(book)
        if kind == 1:
            return f"({first} and {second})", lambda book: one(book) and two(book)
        return f"({first} or {second})", lambda book: one(book) or two(book)

    for number in range(60):
        text, twin = drawn(number % 3 + 1)
        assert found(books, text) == "".join(name for name, book in BOOKS.items() if twin(book)), text


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "ends too early"),
        ("year", "ends too early"),
        ("year>=", "ends too early"),
        ("year>>3", "from '>3' on"),
        ("lang=en and", None),
        ("lang=en nad year>=2020", "from '>=2020' on"),
        ("(lang=en", "ends too early"),
        ("year>3)", r"from '\)' on"),
        ("author in ()", r"from '\)' on"),
        ("author in (a, b", "ends too early"),
        ("=x", "from '=x' on"),
        ("year=>2020", "from '>2020' on"),
        ("lang='en", None),
    ],
)
def test_an_expression_that_cannot_be_read_is_one_sentence(
    books: DuplexIndex, caplog: pytest.LogCaptureFixture, text: str, place: str | None
) -> None:
    if place is None:  # the whole value, as ever
        assert read_filter(text) == Condition("lang", "=", (text.removeprefix("lang="),))
        return
    with pytest.raises(DupmaeError, match=place) as caught:
        found(books, text)
    assert len(str(caught.value)) <= 500


def test_a_value_that_reads_like_an_expression_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert read_filter("author=Jane Doe, John") == Condition("author", "=", ("Jane Doe, John",))
        assert not caplog.records
        assert read_filter("lang=en or de") == Condition("lang", "=", ("en or de",))
    assert "asks for the value 'en or de': write it in quotes" in caplog.text


def test_long_and_deep_expressions_are_read_or_refused(books: DuplexIndex) -> None:
    level, levels = "not (lang=en and ", DEEPEST // 2 - 1
    assert found(books, level * levels + "lang=en" + ")" * levels) == "abcdef"
    assert found(books, " or ".join(["lang=en"] * 800)) == "ac"
    assert found(books, "not " * 1500 + "lang=en") == "ac"
    assert found(books, "lang='" + "(" * 100 + "'") == ""
    assert found(books, "(" * 1000 + "lang=en" + ")" * 1000) == "ac"
    hidden = "lang=x' or " + level * 500 + "lang=en" + ")" * 500 + " or lang=y'"
    for text in (level * 500 + "lang=en" + ")" * 500, hidden, " or ".join(["lang=en"] * 1000)):
        with pytest.raises(DupmaeError, match="is too long: it may have 10,000 characters, and 50 parts within"):
            found(books, text)


def test_a_filter_limits_what_is_found_before_the_top_k_is_formed(index: DuplexIndex) -> None:
    odd = rows(*range(1, 60, 2))
    assert ranking(index, 4, where="parity=odd") == expected(index, odd, 4)
    assert ranking(index, 4, where={"parity": "odd"}) == expected(index, odd, 4)
    assert ranking(index, 4, where={"parity": ["odd", "even"]}) == ranking(index, 4)
    assert ranking(index, 4, where={"parity": "none"})[0] == [[]] * 6
    index.delete(["p01"])
    assert ranking(index, 4, where={"parity": "odd"}) == expected(index, rows(*range(3, 60, 2)), 4)
    (hits,) = index.search(["2"], 3, where={"parity": "even"})
    assert [hit.metadata for hit in hits] == [{"parity": "even"}] * 3


def test_numbers_and_truth_values_of_a_filter_are_compared_as_they_are_stored(index: DuplexIndex) -> None:
    index.add([Passage("new", "", "70", {"year": "2020", "open": "true"})])  # as versions before 0.3 stored them
    assert ranking(index, where={"year": 2020})[0] == ranking(index, where={"year": 2020.0})[0] == [["new"]] * 6
    assert ranking(index, where={"open": True, "year": [2019, 2020]})[0] == [["new"]] * 6
    assert ranking(index, where={"open": True, "parity": "odd"})[0] == [[]] * 6
    assert ranking(index, where="year>2019 and year<=2020")[0] == [["new"]] * 6


def test_a_field_that_no_passage_has_is_refused(index: DuplexIndex) -> None:
    for where in ({"language": "en"}, "parity=odd and not language=en"):
        with pytest.raises(DupmaeError, match="no metadata field 'language'; it has parity"):
            ranking(index, where=where)


@pytest.mark.parametrize("field", ["title", "check", "chunk:document"])
def test_a_metadata_field_may_not_be_called_like_a_passages_own(index: DuplexIndex, field: str) -> None:
    with pytest.raises(DupmaeError, match=f"metadata field '{field}'"):
        index.add([Passage("new", "", "1", {field: "x"})])


@pytest.mark.parametrize(
    ("values", "kind", "stored"),
    [
        ([1, None, 3], pa.int64(), [1, None, 3]),
        ([True, False], pa.bool_(), [True, False]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([True, 1], pa.large_string(), ["true", "1"]),
        (["x", 1, 2.0], pa.large_string(), ["x", "1", "2"]),
        ([2**63, 1], pa.large_string(), [str(2**63), "1"]),
        ([2**60 + 1, 0.5], pa.large_string(), [str(2**60 + 1), "0.5"]),
        ([float("inf"), 0.5], pa.large_string(), ["inf", "0.5"]),
    ],
)
def test_metadata_are_stored_in_the_narrowest_kind_that_holds_all_values(
    values: list[Any], kind: Any, stored: list[Any]
) -> None:
    metadata: list[dict[str, Any]] = [{} if value is None else {"field": value} for value in values]
    passages = [Passage(f"p{number}", "", "", own) for number, own in enumerate(metadata)]
    column = passage_table(passages).column("field")
    assert (column.type, column.to_pylist()) == (kind, stored)
    apart = concatenate_passages([passage_table([passage]) for passage in passages]).column("field")
    assert (apart.type, apart.to_pylist()) == (kind, stored)


def test_metadata_keep_their_kinds_through_compaction_and_mixed_ones_become_texts(tmp_path: Path) -> None:
    index = library(tmp_path / "i", dict(list(BOOKS.items())[:2]), 100)
    for row, name in enumerate("cdef", start=2):
        index.add([Passage(name, "", str(row), BOOKS[name])])
    before = {text: found(index, text) for text in MEANINGS}
    index.add([Passage("g", "", "7", {"year": "unknown", "price": 3})])
    index.delete(["f"])
    index.compact()
    index.verify()
    assert len(index.manifest.segments) == 1
    stored = {passage.id: passage.metadata for passage in index}
    assert stored["a"] == BOOKS["a"] | {"year": "1990"}
    assert stored["g"] == {"year": "unknown", "price": 3.0}
    for text, names in before.items():
        if not ("Publication" in text or "dc.title" in text):  # no passage has these any more
            assert found(index, text).replace("g", "") == names.replace("f", ""), text
    assert found(index, "year>=2020") == "bce"
    assert found(index, "year=unknown") == "g"


@pytest.mark.parametrize("where", ["lang='\ud800'", {"lang": "\udfff"}, {"\ud800": 1}])
def test_half_a_character_is_one_sentence(books: DuplexIndex, where: Any) -> None:
    with pytest.raises(DupmaeError, match="holds half a character"):
        found(books, where)


def test_a_filter_is_read_once_and_may_be_given_again() -> None:
    read = read_filter(["lang=en", "year>=2020"])
    assert read == Every((Condition("lang", "=", ("en",)), Condition("year", ">=", ("2020",))))
    assert read_filter(read) is read
