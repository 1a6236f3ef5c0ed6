"""Reports and their figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dupmae.errors import DupmaeError
from dupmae.evaluation import System, write_report
from dupmae.runtime import curves
from dupmae.runtime.curves import read_curves


@pytest.fixture(autouse=True)
def _drawn(save_figure: Callable[[Any, Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn."""
    monkeypatch.setattr(curves, "save_figure", save_figure)


SYSTEMS = [
    System(name="bm25", metrics={"ndcg@10": 0.6769, "mrr@10": 0.6423, "recall@100": 0.9287}, seconds=2.25),
    System(name="duplex", metrics={"ndcg@10": 0.7311, "mrr@10": 0.7, "recall@100": 0.95}, notes="ours"),
    System(name="DupMAE", metrics={"ndcg@10": 0.999}, quoted=True),
]


def metrics_file(folder: Path) -> Path:
    path = folder / "metrics.jsonl"
    rows = [{"phase": "new layers", "step": n, "mlm": 9 / n, "bow": 8 / n, "loss": 17 / n} for n in range(1, 31)]
    rows += [
        {"phase": "joint", "step": n, "mlm": 1 / n, "cls": 7, "bow": 1 / n, "loss": 7 + 2 / n} for n in range(1, 9)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_json_lists_every_system_with_null_for_what_is_unknown(tmp_path: Path) -> None:
    write_report(tmp_path / "run", "SciFact", SYSTEMS, notes=["Three were cut."], settings={"seed": 42})
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["title"] == "SciFact"
    assert report["systems"] == [
        {
            "name": "bm25",
            "ndcg@10": 0.6769,
            "mrr@10": 0.6423,
            "recall@100": 0.9287,
            "quoted": False,
            "seconds": 2.2,
        },
        {"name": "duplex", "ndcg@10": 0.7311, "mrr@10": 0.7, "recall@100": 0.95, "quoted": False, "notes": "ours"},
        {"name": "DupMAE", "ndcg@10": 0.999, "mrr@10": None, "recall@100": None, "quoted": True},
    ]
    assert report["notes"] == ["Three were cut."]
    assert report["settings"] == {"seed": 42}
    assert report["figures"] == ["figures/systems.png"]


def test_the_table_marks_quoted_rows_and_the_best_computed_value(tmp_path: Path) -> None:
    write_report(tmp_path, "SciFact", SYSTEMS, notes=["Three were cut."], settings={"data": {"fraction": 0.1}})
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# SciFact\n\n| System | NDCG@10 | MRR@10 | R@100 | Source | Seconds | Remarks |\n")
    assert "| bm25 | 0.677 | 0.642 | 0.929 | computed | 2 |  |" in text
    assert "| duplex | **0.731** | **0.700** | **0.950** | computed | — | ours |" in text
    assert "| DupMAE | 0.999 | — | — | quoted from the paper | — |  |" in text
    assert "\n\nThree were cut.\n\n" in text
    assert "```yaml\ndata:\n  fraction: 0.1\n```" in text


def test_every_figure_named_in_the_report_exists_and_is_small(tmp_path: Path) -> None:
    many = [System(name=f"system {n}", metrics={"ndcg@10": n / 20}, quoted=n > 12) for n in range(20)]
    curves = {"Pre-training": metrics_file(tmp_path)}
    write_report(tmp_path / "run", "Many", many, curves=curves)
    names = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))["figures"]
    assert names == ["figures/systems.png", "figures/pre-training.png"]
    for name in names:
        image = (tmp_path / "run" / name).read_bytes()
        assert image.startswith(b"\x89PNG")
        assert 2_000 < len(image) <= 100_000
        assert f"({name})" in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert len(list((tmp_path / "run").rglob("*.*"))) == 4


def test_writing_the_same_report_again_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two", "two"):
        write_report(tmp_path / folder, "T", SYSTEMS, curves={"Pre-training": metrics_file(tmp_path)})
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_curves_are_read_by_term_and_phases_follow_each_other(tmp_path: Path) -> None:
    curves = read_curves(metrics_file(tmp_path))
    assert curves.phases == {"new layers": 0, "joint": 30}
    assert set(curves.terms) == {"loss", "mlm", "cls", "bow"}
    assert curves.terms["cls"] == (list(range(31, 39)), [7.0] * 8)
    assert curves.terms["mlm"][0] == list(range(1, 39))
    assert curves.terms["mlm"][1][30] == 1.0


def test_curves_pass_over_other_rows_and_a_line_cut_short_by_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(
        '{"step": 1, "loss": 2.0}\n{"step": 1, "dev_ndcg": 0.5}\n{"step": 2, "loss": NaN}\n{"step": 3, "lo',
        encoding="utf-8",
    )
    assert read_curves(path).terms == {"loss": ([1], [2.0])}


def test_missing_and_malformed_metrics_are_refused_by_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(DupmaeError, match=r"none\.jsonl does not exist"):
        read_curves(tmp_path / "none.jsonl")
    path = tmp_path / "m.jsonl"
    damaged = ("[" * 100_000, '{"step": 1, "loss": ""}', '{"step": "a"}', '{"step": 1, "loss": [1]}', "\xff")
    for bad in ("{", "[1]", '{"loss": 1}', *damaged):
        path.write_text(f'{{"step": 1, "loss": 2.0}}\n{bad}\n', encoding="latin-1")
        with pytest.raises(DupmaeError, match=r"m\.jsonl, line 2: this is not a JSON object with a step"):
            read_curves(path)
