"""Filters: conditions on metadata, what they are written as and what they mean.

Read as text by a grammar for `lark`; evaluated on stored columns in :mod:`dupmae.index.storage.matching`, and handed
to engines in their own languages. A passage without a field meets no condition on it but those that deny one: `!=`,
`not in` and `not` are true wherever what they deny is not.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

from dupmae.corpus.passage import value_text
from dupmae.errors import DupmaeError

logger = logging.getLogger(__name__)

Sign = Literal["=", "<", "<=", ">", ">=", "^="]
LONGEST = 10_000
"""Characters of a filter, at most."""
DEEPEST = 50
"""Parts of a filter within each other, at most: whoever evaluates one goes down into them."""
NUMBER = r"-?\d{1,200}(\.\d{1,200})?([eE][+-]?\d{1,2})?"
"""What is compared as a number; no such text overflows a double."""
DATE = r"\d{4}-\d\d-\d\d"
"""How what is compared as a date begins."""
_YEAR = r"\d{4}"
_GRAMMAR = r"""
?either: both (_OR both)* -> some
?both: inverse (_AND inverse)* -> every
?inverse: _NOT inverse -> denied | "(" either ")" | condition
condition: field SIGN value -> compared
    | field _IN values -> among
    | field _NOT _IN values -> not_among
values: "(" value ("," value)* ")"
field: FIELD | QUOTED
value: FIRST MORE* | QUOTED
_OR.2: /or(?=[\s()]|$)/i
_AND.2: /and(?=[\s()]|$)/i
_NOT.2: /not(?=[\s()]|$)/i
_IN.2: /in(?=[\s()]|$)/i
SIGN: /==|!=|<=|>=|\^=|=|<|>/
FIELD: /[^\s(),'"=<>!^]+/
FIRST: /[^\s(),'"=<>!^][^\s(),]*/
MORE: /[^\s(),'"=<>!^]+/
QUOTED: /'([^']|'')*'|"([^"]|"")*"/
%ignore /\s+/
"""


@dataclass(frozen=True, slots=True)
class Condition:
    """What the value of one metadata field must be."""

    field: str
    sign: Sign
    """`^=` is how a value begins."""
    values: tuple[str, ...]
    """One; of `=` several, any of which will do."""

    def __post_init__(self) -> None:
        for text in (self.field, *self.values):
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                raise DupmaeError(f"The filter on {self.field!a} holds half a character: {ascii(text)[:100]}.")


@dataclass(frozen=True, slots=True)
class Every:
    """All of several filters."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of several filters."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a filter."""

    part: Filter


Filter = Condition | Every | Some | Not
Value = str | int | float
Where = str | Sequence[str] | Mapping[str, Value | Sequence[Value]] | Filter
"""A filter: an expression such as `year>=2020 and lang in (en, de)`; several of them, as :func:`read_filter` joins
them; or metadata field to the value, or the values, that a passage must have one of, in all fields."""


def read_filter(where: Where) -> Filter:
    """Read a filter.

    Of several expressions all must be met, but of those that are no more than `FIELD=VALUE` with the same field one.

    Raises:
        DupmaeError: An expression that cannot be read.
    """
    if isinstance(where, Condition | Every | Some | Not):
        return where
    if isinstance(where, Mapping):
        return _every([Condition(field, "=", _texts(values)) for field, values in where.items()])
    parts: list[Filter] = []
    equal: dict[str, tuple[str, ...]] = {}
    for text in [where] if isinstance(where, str) else where:
        part = _read(text)
        if isinstance(part, Condition) and part.sign == "=" and len(part.values) == 1:
            equal[part.field] = (*equal.get(part.field, ()), *part.values)
        else:
            parts.append(part)
    return _every([*(Condition(field, "=", values) for field, values in equal.items()), *parts])


def fields_of(condition: Filter) -> list[str]:
    """List the metadata fields that a filter asks for."""
    if isinstance(condition, Condition):
        return [condition.field]
    parts = (condition.part,) if isinstance(condition, Not) else condition.parts
    return list(dict.fromkeys(field for part in parts for field in fields_of(part)))


def as_number(text: str) -> int | float | None:
    """Read a value as a number; None if it is none."""
    if not re.fullmatch(NUMBER, text, re.ASCII):
        return None
    return int(text) if re.fullmatch(r"-?\d+", text, re.ASCII) else float(text)


def spellings(values: Iterable[str]) -> list[str]:
    """List values as they may be stored as text: as given, numbers and truth values also as they are written there."""
    found: dict[str, None] = {}
    for value in values:
        number = as_number(value)
        written = value.lower() if value.lower() in ("true", "false") else value
        found |= {value: None, written if number is None else value_text(number): None}
    return list(found)


def is_year(text: str) -> bool:
    """Tell whether a value may be compared with dates, though it is a number."""
    return re.fullmatch(_YEAR, text, re.ASCII) is not None


def is_date(text: str) -> bool:
    """Tell whether a value is compared as a date."""
    return re.match(DATE, text, re.ASCII) is not None


def _texts(values: Value | Sequence[Value]) -> tuple[str, ...]:
    """Write the values of one field of a mapping as text."""
    several = [values] if isinstance(values, str | int | float) else values
    return tuple(value_text(value) for value in several)


def _every(parts: Sequence[Filter]) -> Filter:
    """Join filters that all must be met."""
    return parts[0] if len(parts) == 1 else Every(tuple(parts))


def _read(text: str) -> Filter:
    """Read one expression, or `FIELD=VALUE` with a value of any characters but those of comparisons."""
    from lark.exceptions import UnexpectedInput

    try:
        if len(text) <= LONGEST and not _is_deep(found := _parser().parse(text)):
            return found  # type: ignore[no-any-return]
        raise DupmaeError(
            f"The filter {text[:50]!r}... is too long: it may have {LONGEST:,} characters, and {DEEPEST} parts within"
            " each other."
        )
    except UnexpectedInput as error:
        ends = getattr(getattr(error, "token", None), "type", "") == "$END"
        rest = "" if ends or error.pos_in_stream is None else text[error.pos_in_stream :]
    field, sign, value = (part.strip() for part in text.partition("="))
    if field and sign and not re.search(r"[<>!^'\"()]", field) and not re.search("[<=>!^]", value):
        if re.search(r"[()]|\b(and|or|not|in)\b", value, re.IGNORECASE):
            logger.warning("The filter %r asks for the value %r: write it in quotes, if that is meant.", text, value)
        return Condition(field, "=", (value,))
    place = f"from {rest[:60]!r} on" if rest else "it ends too early"
    raise DupmaeError(
        f"The filter {text[:120]!r} cannot be read ({place}): write FIELD=VALUE, also with != < <= > >= or ^= (begins"
        " with), or FIELD in (A, B), joined by and, or, not; a value with such words or signs in quotes."
    )


def _is_deep(condition: Filter) -> bool:
    """Tell whether a filter has too many parts within each other; it takes no more memory for deep ones."""
    left = [(condition, 1)]
    while left:
        part, depth = left.pop()
        if depth > DEEPEST:
            return True
        if not isinstance(part, Condition):
            left += [(inner, depth + 1) for inner in ((part.part,) if isinstance(part, Not) else part.parts)]
    return False


@cache
def _parser() -> Any:
    """Make the parser of expressions: it needs no recursion, and makes filters as it reads."""
    from lark import Lark, Transformer, v_args

    @v_args(inline=True)
    class Filters(Transformer):  # type: ignore[type-arg]
        """Makes what each rule of the grammar means."""

        def some(self, *parts: Filter) -> Filter:
            return parts[0] if len(parts) == 1 else Some(parts)

        def every(self, *parts: Filter) -> Filter:
            return _every(parts)

        def denied(self, part: Filter) -> Filter:
            return part.part if isinstance(part, Not) else Not(part)

        def compared(self, field: str, sign: str, value: str) -> Filter:
            if sign == "!=":
                return Not(Condition(field, "=", (value,)))
            return Condition(field, "=" if sign == "==" else cast(Sign, str(sign)), (value,))

        def among(self, field: str, values: tuple[str, ...]) -> Filter:
            return Condition(field, "=", values)

        def not_among(self, field: str, values: tuple[str, ...]) -> Filter:
            return Not(Condition(field, "=", values))

        def values(self, *values: str) -> tuple[str, ...]:
            return values

        def value(self, *words: str) -> str:
            return " ".join(map(_unquoted, words))

        field = value

    return Lark(_GRAMMAR, start="either", parser="lalr", transformer=Filters())


def _unquoted(word: str) -> str:
    """Take the quotation marks off a word that has them; within them a doubled one is one."""
    return word[1:-1].replace(2 * word[0], word[0]) if word[0] in "'\"" else str(word)
