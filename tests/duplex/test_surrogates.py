"""Text that is not valid Unicode, such as a web form or an old name of a file gives, at every door of Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from dupmae import DuplexEncoder, DuplexIndex
from dupmae.corpus import Passage
from dupmae.errors import DupmaeError

HALF = "caf\udce9"


@pytest.fixture(scope="module")
def encoder(duplex_folder: Path) -> DuplexEncoder:
    return DuplexEncoder(str(duplex_folder), device="cpu")


@pytest.mark.parametrize(
    "door", ["embed_queries", "embed_documents", "encode", "encode_query", "encode_document", "preprocess"]
)
def test_half_a_surrogate_pair_is_refused_by_one_sentence(door: str, encoder: DuplexEncoder) -> None:
    with pytest.raises(DupmaeError, match=r"Text [12] holds half of a surrogate pair at character 4"):
        getattr(encoder, door)(["fine", HALF])


def test_an_index_refuses_it_in_queries_and_passages(
    encoder: DuplexEncoder, duplex_folder: Path, tmp_path: Path
) -> None:
    index = DuplexIndex.build(tmp_path / "index", encoder, [Passage("a", "", "bado")], model=str(duplex_folder))
    for work in (
        lambda: index.search([HALF], k=1),
        lambda: index.add([Passage("b", "", HALF)]),
    ):
        with pytest.raises(DupmaeError, match="surrogate pair"):
            work()
    assert len(index) == 1
