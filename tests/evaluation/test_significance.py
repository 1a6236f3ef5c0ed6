"""Significance, against enumeration by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dupmae.errors import DupmaeError
from dupmae.evaluation.significance import compare_with_baseline, holm


def every_flip(gains: list[float]) -> float:
    """The randomisation test in full: the share of all sign patterns with a mean at least as far from 0."""
    seen = abs(sum(gains))
    flips = [
        abs(sum(s * g for s, g in zip(signs, gains, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(gains))
    ]
    return sum(flip >= seen - 1e-9 for flip in flips) / len(flips)


def test_with_few_queries_every_flip_of_signs_is_counted() -> None:
    gains = [0.3, 0.1, -0.2, 0.4, 0.0, 0.2, 0.1]
    baseline = {f"q{n}": 0.5 for n in range(7)}
    system = {f"q{n}": 0.5 + gain for n, gain in enumerate(gains)}
    (found,) = compare_with_baseline(baseline, {"s": system})
    assert found.p == pytest.approx(every_flip(gains))
    assert (found.system, found.wins, found.losses) == ("s", 5, 1)
    assert found.mean == pytest.approx(sum(gains) / 7)


def test_luck_is_called_luck_and_a_steady_gain_is_not() -> None:
    draw = np.random.default_rng(1)
    baseline = {f"q{n}": float(value) for n, value in enumerate(draw.random(200))}
    noisy = {query: float(value + draw.normal(0, 0.1)) for query, value in baseline.items()}
    better = {query: float(value + draw.normal(0.05, 0.1)) for query, value in baseline.items()}
    luck, gain = compare_with_baseline(baseline, {"noisy": noisy, "better": better})
    assert luck.p > 0.05
    assert gain.p < 0.001
    assert gain.corrected == pytest.approx(2 * gain.p)
    assert compare_with_baseline(baseline, {"noisy": noisy})[0] == compare_with_baseline(baseline, {"noisy": noisy})[0]


def test_a_single_query_says_nothing() -> None:
    (found,) = compare_with_baseline({"q": 0.1}, {"other": {"q": 0.9}})
    assert found.p == 1.0


def test_equal_systems_do_not_differ() -> None:
    baseline = {"q1": 0.5, "q2": 1.0}
    (found,) = compare_with_baseline(baseline, {"twin": dict(baseline)})
    assert (found.p, found.corrected, found.wins, found.losses) == (1.0, 1.0, 0, 0)


def test_holms_correction_steps_down_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([]) == []


def test_values_of_other_queries_cannot_be_paired() -> None:
    with pytest.raises(DupmaeError, match="s was measured on other queries"):
        compare_with_baseline({"q1": 0.5}, {"s": {"q2": 0.5}})
