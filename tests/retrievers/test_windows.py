"""Documents by their best window."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dupmae.corpus import Passage, Run
from dupmae.errors import DupmaeError
from dupmae.retrievers.windows import by_best_window, cut_windows


def test_windows_overlap_by_half_cover_every_word_and_carry_the_title() -> None:
    corpus = {"d": Passage("d", "T", "1 2 3 4 5 6 7"), "s": Passage("s", "", "1 2"), "e": Passage("e", "T", "")}
    windows = cut_windows(corpus, 4)
    assert {name: window.full_text for name, window in windows.items()} == {
        "d#0": "T 1 2 3 4",
        "d#1": "T 3 4 5 6",
        "d#2": "T 5 6 7",
        "s#0": "1 2",
        "e#0": "T ",
    }
    assert cut_windows({"d": Passage("d", "", "1 2 3 4")}, 4)["d#0"].text == "1 2 3 4"
    assert len(cut_windows({"d": Passage("d", "", "1 2 3 4")}, 4)) == 1
    with pytest.raises(DupmaeError, match="at least 2 words, not 1"):
        cut_windows(corpus, 1)


def test_a_document_scores_what_its_best_window_scores_however_many_windows_come_before() -> None:
    scores = {f"long#{n}": 10.0 - n / 100 for n in range(50)} | {"b#0": 3.0, "b#1": 4.0, "a#0": 4.0, "c#7": 1.0}
    asked: list[int] = []

    def search(queries: Mapping[str, str], k: int) -> Run:
        asked.append(k)
        ranked = sorted(scores, key=lambda name: (-scores[name], name))
        return {query: {name: scores[name] for name in ranked[:k]} for query in queries}

    found = by_best_window(search)({"q": "text", "r": "text"}, 3)
    assert list(found["q"].items()) == [("long", 10.0), ("a", 4.0), ("b", 4.0)]
    assert found["r"] == found["q"]
    assert asked == [6, 12, 24, 48, 96]
    assert list(by_best_window(search)({"q": "text"}, 9)["q"]) == ["long", "a", "b", "c"]


def test_documents_without_spaces_are_cut_into_windows_too() -> None:
    text = "灯塔的光来自透镜它把光弯成一束照向远方的海面守夜人修剪灯芯直到天亮"
    windows = [window.text for window in cut_windows({"d": Passage("d", "", text)}, 4).values()]
    assert len(windows) > 5
    assert all(len(window) <= 8 and window in text for window in windows)
