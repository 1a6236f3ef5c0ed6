"""Filters evaluated on a segment's columns by Arrow's own compute functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dupmae.index.where import DATE, NUMBER, Condition, Every, Filter, Not, as_number, is_date, is_year, spellings

_COMPARE = {"<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}
_TRUTH = {"true": True, "false": False}


def matching(condition: Filter, columns: Mapping[str, Any], count: int) -> NDArray[np.bool_]:
    """Mark the passages that meet a filter.

    Numbers are compared with numbers, in columns of texts with those that read as one; dates (ISO 8601) with dates, as
    texts, and with years; any other value with all texts that are no numbers. What cannot be compared is not met, as a
    missing value. So a filter means the same when numbers have become texts, beside others in one column.

    Args:
        condition: The filter.
        columns: Metadata by field, each (n,).
        count: n.

    Returns:
        (n,)
    """
    if isinstance(condition, Condition):
        column = columns.get(condition.field)
        if column is None:
            return np.zeros(count, np.bool_)
        return np.asarray(_met(column, condition).fill_null(False))
    if isinstance(condition, Not):
        return ~matching(condition.part, columns, count)
    marks = (matching(part, columns, count) for part in condition.parts)
    together = np.logical_and if isinstance(condition, Every) else np.logical_or
    met = np.full(count, isinstance(condition, Every))
    for mark in marks:
        together(met, mark, out=met)
    return met


def _met(column: Any, condition: Condition) -> Any:
    """Mark where one condition is met; it may be null where a value is missing."""
    if condition.sign == "=":
        return pc.is_in(column, value_set=pa.array(_equal(column.type, condition.values), column.type))
    (value,) = condition.values
    if condition.sign == "^=":
        return pc.starts_with(column.cast(pa.large_string()), value)
    compare, number = _COMPARE[condition.sign], as_number(value)
    if column.type == pa.large_string():
        dates, numeric = (pc.match_substring_regex(column, pattern) for pattern in (f"^{DATE}", f"^{NUMBER}$"))
        as_text = compare(column, pa.scalar(value, column.type))
        if number is None:
            return pc.and_kleene(dates if is_date(value) else pc.invert(numeric), as_text)
        numbers = pc.if_else(numeric, column, pa.scalar(None, column.type)).cast(pa.float64())
        met = compare(numbers, float(number)).fill_null(False)
        return pc.or_kleene(met, pc.and_kleene(dates, as_text)) if is_year(value) else met
    if number is None or column.type == pa.bool_():
        return pa.array(np.zeros(len(column), np.bool_))
    if column.type == pa.int64() and isinstance(number, int) and _fits(number):
        return compare(column, pa.scalar(number, pa.int64()))
    return compare(column.cast(pa.float64(), safe=False), float(number))


def _equal(kind: Any, values: tuple[str, ...]) -> list[Any]:
    """Read values as those of a column; what cannot stand there is left out."""
    if kind == pa.large_string():
        return spellings(values)
    if kind == pa.bool_():
        return [_TRUTH[value.lower()] for value in values if value.lower() in _TRUTH]
    numbers = [number for number in map(as_number, values) if number is not None]
    if kind == pa.int64():
        return [int(number) for number in numbers if number == int(number) and _fits(int(number))]
    return [float(number) for number in numbers]


def _fits(number: int) -> bool:
    """Tell whether a column of whole numbers may hold a number."""
    return -(1 << 63) <= number < 1 << 63
