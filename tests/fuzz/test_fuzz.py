"""Damaged files of every kind in front of the real command line end in a result or in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
from forked import forked

INPUTS = 40


@pytest.fixture(scope="module")
def outcomes() -> list[dict[str, Any]]:
    """What became of the first inputs of the fuzz (`benchmarks/reliability/fuzz.py` runs 2,000)."""
    server = forked()
    return [server.ask(input=number) for number in range(INPUTS)]


@pytest.mark.parametrize(
    "kind", ["traceback", "signal", "hang", "memory", "status", "sentence", "control", "left", "another", "undamaged"]
)
def test_no_damaged_input_ends_so(kind: str, outcomes: list[dict[str, Any]]) -> None:
    told = [
        " | ".join(str(found[key]) for key in ("input", "command", "file", "damage", "place", "said"))
        for found in outcomes
        if found["kind"] == kind
    ]
    assert told == []


def test_there_are_results_and_refusals(outcomes: list[dict[str, Any]]) -> None:
    kinds = [found["kind"] for found in outcomes]
    assert kinds.count("done") > 10
    assert kinds.count("refused") > 20
