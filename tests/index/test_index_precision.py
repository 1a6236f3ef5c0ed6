"""Passages and queries of an index are computed in one precision, which the index keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_index import FakeEncoder, random_rows

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex


class Precise(FakeEncoder):
    """Notes the precision of each text that it embeds."""

    seen: list[str]

    def __init__(self, precision: str) -> None:
        super().__init__(*random_rows(np.random.default_rng(7), 9))
        self.precision, self.seen = precision, []

    def embed_documents(self, *arguments: Any, **options: Any) -> Any:
        self.seen.append(self.precision)
        return super().embed_documents(*arguments, **options)

    def embed_queries(self, *arguments: Any, **options: Any) -> Any:
        self.seen.append(self.precision)
        return super().embed_queries(*arguments, **options)


def corpus(*rows: int) -> list[Passage]:
    return [Passage(f"p{row}", "", str(row)) for row in rows]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_added_and_asked_later_is_computed_as_the_index_was(precision: str, tmp_path: Path) -> None:
    DuplexIndex.build(tmp_path / "i", Precise(precision), corpus(0, 1), model="m")
    for given in ("float32", "bfloat16", "auto"):
        index, encoder = DuplexIndex.open(tmp_path / "i"), Precise(given)
        index.encoder = encoder
        index.add(corpus(2, 3))
        index.search(["1"])
        assert set(encoder.seen) - {"auto"} <= {precision}
        assert encoder.precision == given  # whose it is may use it elsewhere
    assert index.manifest.precision == index.info()["precision"] == precision


def test_a_build_goes_on_as_it_began(tmp_path: Path) -> None:
    DuplexIndex.build(tmp_path / "i", Precise("bfloat16"), corpus(0, 1), model="m")
    DuplexIndex.build(tmp_path / "i", Precise("auto"), corpus(0, 1), model="m")
    with pytest.raises(DupmaeError, match="encoded in bfloat16, not in float32"):
        DuplexIndex.build(tmp_path / "i", Precise("float32"), corpus(0, 1), model="m")
