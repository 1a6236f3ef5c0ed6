"""Settings outside their ranges are refused where they are made, from Python as from a recipe."""

import math
from dataclasses import fields, is_dataclass, replace
from typing import get_type_hints

import pytest

from dupmae.config import recipe, sections
from dupmae.config.ranges import AboveZero, CheckedSettings, Fraction, FractionBelowOne, Positive, Range
from dupmae.errors import DupmaeError

SETTINGS = [
    kind
    for module in (sections, recipe)
    for kind in vars(module).values()
    if is_dataclass(kind) and kind.__module__ == module.__name__
]
ANY_NUMBER = {"margin", "relative_margin", "teacher_margin"}
"""Differences of scores, which may be below zero."""


@pytest.mark.parametrize(
    ("kind", "inside", "outside", "words"),
    [
        (Positive, [1, 10**9], [0, -1], "at least 1"),
        (Fraction, [0, 0.5, 1], [-0.1, 1.1], "at least 0 and at most 1"),
        (FractionBelowOne, [0, 0.999], [-0.1, 1, 1.1], "at least 0 and below 1"),
        (AboveZero, [1e-9, 1e9], [0, -1], "above 0"),
    ],
)
def test_a_range_holds_what_its_words_say_and_nothing_that_is_no_finite_number(kind, inside, outside, words):
    (allowed,) = kind.__metadata__
    assert all(number in allowed for number in inside)
    assert not any(number in allowed for number in [*outside, math.nan, math.inf, -math.inf])
    assert str(allowed) == words


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_number_of_the_settings_has_a_range_that_is_checked(kind):
    assert issubclass(kind, CheckedSettings)
    plain = get_type_hints(kind)
    numbers = {
        field.name for field in fields(kind) if plain[field.name] in (int, float, int | None, float | None)
    } - ANY_NUMBER
    for name in numbers:
        with pytest.raises(DupmaeError, match=rf"^{name} must be .*, not -7\.$"):
            replace(kind(), **{name: -7})


def test_none_is_in_the_range_of_what_may_be_none():
    assert sections.DuplexConfig(document_max_length=None).document_max_length is None
    with pytest.raises(DupmaeError, match="document_max_length must be at least 3, not 2"):
        sections.DuplexConfig(document_max_length=2)


def test_a_range_with_open_ends_says_so():
    assert str(Range(0, 1, above_least=True)) == "above 0 and at most 1"
    assert 0 not in Range(0, 1, above_least=True)
