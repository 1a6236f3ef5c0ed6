"""Test whether systems differ by more than luck: paired over the queries, corrected for many comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.errors import DupmaeError

RESAMPLES = 9_999
"""Random flips of signs; fewer where all flips are fewer."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A system against a baseline in one metric."""

    system: str
    """The system's name."""
    mean: float
    """Mean over the queries of the system's value minus the baseline's."""
    wins: int
    """Queries in which the system is better."""
    losses: int
    """Queries in which the baseline is better; in the rest they are equal."""
    p: float
    """How often a mean at least as far from 0 comes about if each query's sign is drawn at random (two-sided)."""
    corrected: float
    """The same after Holm's correction for all systems that are compared."""


def compare_with_baseline(
    baseline: Mapping[str, float], systems: Mapping[str, Mapping[str, float]], seed: int = 0
) -> list[Difference]:
    """Test every system against a baseline by Fisher's randomisation test.

    Args:
        baseline: Query -> value.
        systems: Name -> query -> value, of the same queries.
        seed: Draws the signs.

    Raises:
        DupmaeError: A system was measured on other queries.
    """
    from scipy.stats import permutation_test

    rows = []
    for name, values in systems.items():
        if values.keys() != baseline.keys():
            raise DupmaeError(f"{name} was measured on other queries than the baseline: their values cannot be paired.")
        gains = np.array([values[query] - baseline[query] for query in baseline])
        p = 1.0
        if len(gains) > 1 and gains.any():
            p = permutation_test(
                (gains,),
                _mean,
                permutation_type="samples",
                n_resamples=RESAMPLES,
                batch=200,
                rng=np.random.default_rng(seed),
            ).pvalue
        rows.append((name, float(gains.mean()), int((gains > 0).sum()), int((gains < 0).sum()), float(p)))
    corrected = holm([row[-1] for row in rows])
    return [Difference(*row, value) for row, value in zip(rows, corrected, strict=True)]


def holm(values: Sequence[float]) -> list[float]:
    """Correct p-values by Holm's step-down procedure.

    The smallest of m values is multiplied by m, the next by m - 1, and so on; none becomes smaller than the one before
    and none larger than 1.
    """
    corrected = [0.0] * len(values)
    largest = 0.0
    for place, number in enumerate(sorted(range(len(values)), key=lambda number: values[number])):
        largest = max(largest, min(1.0, (len(values) - place) * values[number]))
        corrected[number] = largest
    return corrected


def _mean(gains: NDArray[np.float64], axis: int = -1) -> Any:
    """Compute the statistic."""
    return np.round(np.mean(gains, axis=axis), 12)  # so that equal sums in another order are equal
