"""Searches limited by metadata."""

from __future__ import annotations

import pytest
from fake_index import (
    expected,
    ranking,
    rows,
)

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex


def test_a_filter_limits_what_is_found_before_the_top_k_is_formed(index: DuplexIndex) -> None:
    odd = rows(*range(1, 60, 2))
    assert ranking(index, 4, where={"parity": "odd"}) == expected(index, odd, 4)
    assert ranking(index, 4, where={"parity": ["odd", "even"]}) == ranking(index, 4)
    assert ranking(index, 4, where={"parity": "none"})[0] == [[]] * 6
    index.delete(["p01"])
    assert ranking(index, 4, where={"parity": "odd"}) == expected(index, rows(*range(3, 60, 2)), 4)
    (hits,) = index.search(["2"], 3, where={"parity": "even"})
    assert [hit.metadata for hit in hits] == [{"parity": "even"}] * 3


def test_numbers_and_truth_values_of_a_filter_are_compared_as_they_are_stored(index: DuplexIndex) -> None:
    index.add([Passage("new", "", "70", {"year": "2020", "open": "true"})])
    assert ranking(index, where={"year": 2020})[0] == ranking(index, where={"year": 2020.0})[0] == [["new"]] * 6
    assert ranking(index, where={"open": True, "year": [2019, 2020]})[0] == [["new"]] * 6
    assert ranking(index, where={"open": True, "parity": "odd"})[0] == [[]] * 6


def test_a_field_that_no_passage_has_is_refused(index: DuplexIndex) -> None:
    with pytest.raises(DupmaeError, match="no metadata field 'language'; it has parity"):
        ranking(index, where={"language": "en"})


def test_a_metadata_field_may_not_be_called_like_a_passages_own(index: DuplexIndex) -> None:
    with pytest.raises(DupmaeError, match="metadata field 'title'"):
        index.add([Passage("new", "", "1", {"title": "x"})])
