"""What the figures of reports show, read off the figures themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dupmae.evaluation import figures
from dupmae.evaluation.figures import differences_figure, draw_systems, groups_figure, systems_figure
from dupmae.evaluation.insight import Group
from dupmae.runtime import curves

SYSTEMS = [("bm25", 0.5, False), ("unknown", None, False), ("ours", 0.75, False), ("paper", 0.7, True)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were drawn, in order."""
    found: list[Any] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: found.append(figure))
    monkeypatch.setattr(figures, "_svg", lambda figure: found.append(figure) or "")
    return found


def test_every_known_system_is_a_bar_of_its_value_from_above_and_quoted_ones_are_hatched(drawn: list[Any]) -> None:
    draw_systems(Path("systems.png"), SYSTEMS)
    systems_figure(SYSTEMS, "MRR@10")
    for figure, metric in zip(drawn, ("NDCG@10", "MRR@10"), strict=True):
        (axes,) = figure.axes
        assert [bar.get_width() for bar in axes.patches] == [0.5, 0.75, 0.7]
        assert [bool(bar.get_hatch()) for bar in axes.patches] == [False, False, True]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["bm25", "ours", "paper"]
        assert [text.get_text() for text in axes.texts] == ["0.500", "0.750", "0.700"]
        assert axes.yaxis_inverted()
        assert axes.get_xlabel() == metric
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["computed here", "quoted from the paper"]


def test_differences_are_a_line_a_system_over_the_share_of_the_queries(drawn: list[Any]) -> None:
    differences_figure({"one": [-0.5, 0.0, 0.25, 1.0], "other": [0.0, 0.5]}, "NDCG@10")
    one, other, zero = drawn[0].axes[0].lines
    assert (one.get_label(), list(one.get_xdata()), list(one.get_ydata())) == (
        "one",
        [12.5, 37.5, 62.5, 87.5],
        [-0.5, 0.0, 0.25, 1.0],
    )
    assert (other.get_label(), list(other.get_xdata())) == ("other", [25.0, 75.0])
    assert set(zero.get_ydata()) == {0}


def test_a_group_has_a_bar_a_system_side_by_side(drawn: list[Any]) -> None:
    groups_figure([Group("short", 3, {"a": 0.1, "b": 0.2}), Group("long", 4, {"a": 0.3, "b": 0.4})], "NDCG@10")
    (axes,) = drawn[0].axes
    bars = sorted((bar.get_x(), bar.get_height()) for bar in axes.patches)
    assert [height for _, height in bars] == [0.1, 0.2, 0.3, 0.4]
    assert [x for x, _ in bars] == pytest.approx([-0.4, 0.0, 0.6, 1.0])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["short\n3 queries", "long\n4 queries"]


def test_an_svg_holds_its_text_and_is_the_same_each_time() -> None:
    first, again = (systems_figure(SYSTEMS, "NDCG@10") for _ in range(2))
    assert first == again
    for text in ("bm25", "ours", "0.750", "quoted from the paper"):
        assert f">{text}<" in first or f"<!-- {text} -->" in first, text
