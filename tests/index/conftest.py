"""An index to change, filter and damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_index import FakeEncoder, random_rows

from dupmae.corpus import Passage
from dupmae.index import DuplexIndex
from dupmae.index.scoring import choice


@pytest.fixture
def index(tmp_path: Path) -> DuplexIndex:
    """60 passages in three segments; the text "n ..." of passage pn is embedded as row n of 100."""
    cls, sparse = random_rows(np.random.default_rng(7), 100)
    corpus = [Passage(f"p{n:02}", "", f"{n}", {"parity": "even" if n % 2 == 0 else "odd"}) for n in range(60)]
    return DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), corpus, model="m", segment_passages=25)


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score in the compiled loops, which small indexes go without at first; `test_plain_loops` compares the two."""
    monkeypatch.setattr(choice, "FEW_PASSAGES", -1)
