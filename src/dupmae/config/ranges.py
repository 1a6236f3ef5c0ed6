"""Say with a setting's type which numbers it may be, and check that whenever settings are made."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

from dupmae.config.renamed import RENAMED
from dupmae.errors import DupmaeError

LARGEST = 2**63 - 1
"""The largest whole number that arrays and files hold."""


@dataclass(frozen=True, slots=True)
class Range:
    """The finite numbers from `least` to `most`, both included unless said otherwise."""

    least: float
    most: float = math.inf
    above_least: bool = False
    below_most: bool = False

    def __contains__(self, number: float) -> bool:
        if isinstance(number, int) and abs(number) > LARGEST:
            return False
        low = self.least < number if self.above_least else self.least <= number
        high = number < self.most if self.below_most else number <= self.most
        return low and high and (isinstance(number, int) or math.isfinite(number))

    def __str__(self) -> str:
        low = f"{'above' if self.above_least else 'at least'} {self.least}"
        return low if self.most == math.inf else f"{low} and {'below' if self.below_most else 'at most'} {self.most}"


Count = Annotated[int, Range(0)]
"""A number of things, of which there may be none."""
Positive = Annotated[int, Range(1)]
"""A number of things, at least one."""
Length = Annotated[int, Range(3)]
"""Tokens of a text: one, and the two special ones around it, are the least."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""What NumPy's and torch's generators all take."""
Weight = Annotated[float, Range(0)]
"""A factor or a rate, which may switch something off."""
Factor = Annotated[float, Range(0, 1000)]
"""What a part of a score is multiplied by: numbers beyond would leave single precision."""
AboveZero = Annotated[float, Range(0, above_least=True)]
"""A factor, a divisor or a duration."""
Fraction = Annotated[float, Range(0, 1)]
"""A share, from none to all."""
FractionBelowOne = Annotated[float, Range(0, 1, below_most=True)]
"""A share of what must not be used up."""


class OutOfRangeError(DupmaeError):
    """A setting outside its range.

    Args:
        setting: Its name, without the section that it stands in.
        problem: What is wrong with it, to be read after the name.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting} {problem}.")
        self.setting, self.problem = setting, problem


class _TakesFormerNames(type):
    """Lets settings be made with the names that they had in version 0.1, with a warning."""

    __dataclass_fields__: dict[str, Any]

    def __call__(cls, *values: Any, **named: Any) -> Any:
        fields = cls.__dataclass_fields__
        for former in [name for name in named if name not in fields]:
            new = next((now for old, now in _FORMER if old == former and now in fields and now not in named), None)
            if new is not None:
                text = f"{former} of {cls.__name__} is now called {new}; the old name goes with version 0.3"
                warnings.warn(text, FutureWarning, stacklevel=2)
                named[new] = named.pop(former)
        return super().__call__(*values, **named)


_FORMER = [(old.rpartition(".")[2], new.rpartition(".")[2]) for old, new in RENAMED.items()]


class CheckedSettings(metaclass=_TakesFormerNames):
    """Base of the settings dataclasses: what is outside its range is refused when one is made.

    Raises:
        OutOfRangeError: A number is not in the :class:`Range` that its type names.
    """

    def __post_init__(self) -> None:
        refuse_out_of_range(type(self), vars(self))


def refuse_out_of_range(kind: Any, values: Mapping[str, Any]) -> None:
    """Refuse a value outside its range.

    Args:
        kind: A dataclass whose fields, or a function whose parameters, are annotated with a :class:`Range`.
        values: By the names of these.

    Raises:
        OutOfRangeError: A number is not in the range that its annotation names.
    """
    for name, allowed in _ranges(kind).items():
        value = values.get(name)
        if value is not None and value not in allowed:
            large = isinstance(value, int) and value > LARGEST
            raise OutOfRangeError(name, f"must be {'smaller' if large else allowed}, not {_shortened(value)}")


def _shortened(value: float) -> str:
    """Write a number, of a very long one the beginning."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}... ({len(text)} digits)"


@cache
def _ranges(kind: Any) -> dict[str, Range]:
    """Find the fields of a class, or the parameters of a function, whose types name a range, or that or None."""
    return {
        name: allowed
        for name, hint in get_type_hints(kind, include_extras=True).items()
        for part in (hint, *get_args(hint))
        for allowed in getattr(part, "__metadata__", ())
        if isinstance(allowed, Range)
    }
