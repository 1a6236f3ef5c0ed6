"""Several seeds of the same variants."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two seeds' figures: 768:0 is .05 and .01 below the tuned sum, and one row is of the second seed alone."""
    for seed, both, dense in ((1, 0.75, 0.7), (2, 0.71, 0.7)):
        rows: dict[str, Any] = {
            "both": {"ndcg@10": 0.6, "ndcg@10 OT": 0.5, "p": 0.1, "mrr@10": 0.9},
            "both, balanced": {"ndcg@10": both},
            "768:0": {"ndcg@10": dense, "p": 0.2},
        } | ({"none": {"ndcg@10": 0.1}} if seed == 2 else {})
        record = {"seed": seed, "benchmark": f"somewhere{seed}/toy", "held out": rows}
        (tmp_path / f"{seed}.json").write_text(json.dumps(record), encoding="utf-8")
    return [str(tmp_path / "1.json"), str(tmp_path / "2.json")]


def test_means_spreads_and_differences_from_the_sum_with_a_tuned_lexical_weight(
    files: list[str], run_script: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    run_script("spread", *files)
    shown = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    rows = {row[0]: row[1:] for row in shown if row}
    assert list(rows) == ["both", "both OT", "both, balanced", "768:0"]
    assert rows["both, balanced"] == ["0.7500", "0.7100", "0.7300 ± 0.0283", "+0.0000 ± 0.0000"]
    assert rows["768:0"] == ["0.7000", "0.7000", "0.7000 ± 0.0000", "-0.0300 ± 0.0283"]


def test_what_has_no_spread_is_refused(
    files: list[str], tmp_path: Path, run_script: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((tmp_path / "1.json").read_text(encoding="utf-8"))
    (tmp_path / "other.json").write_text(json.dumps(record | {"seed": 3, "benchmark": "another"}), encoding="utf-8")
    for arguments, message in (
        (files[:1], "several seeds"),
        ([*files, files[0]], "1.json has the seed 1"),
        ([*files, str(tmp_path / "other.json")], "on one benchmark"),
        ([*files, "--queries", "test"], "no figures of test queries"),
    ):
        with pytest.raises(SystemExit) as stopped:
            run_script("spread", *arguments)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
