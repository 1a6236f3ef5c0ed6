"""A small index of a tiny model, and a server of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dupmae import DuplexEncoder, DuplexIndex, Passage
from dupmae.serving.app import make_app
from dupmae.serving.limits import Limits

HOSTILE = "<img src=x onerror=\"document.title='broken'\"> & \U0001f600 \x1b[31m"
"""A text that must stay text."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, duplex_folder: Path, texts: list[str]) -> Path:
    """An index of some passages, one of them hostile, one of several chunks."""
    passages = [
        Passage(f"p{number:02}", f"Title {number}", text, {"year": 2000 + number, "lang": "en" if number % 2 else "de"})
        for number, text in enumerate(texts)
    ]
    passages.append(Passage("a/../b c.md", HOSTILE, f"{HOSTILE} {texts[3]}", {"year": 1999, "lang": "en"}))
    passages.append(Passage("long", "", ". ".join(texts), {"year": 1998, "lang": "de"}))
    place = tmp_path_factory.mktemp("served") / "small"
    DuplexIndex.build(place, DuplexEncoder(str(duplex_folder)), passages, chunk_tokens=20)
    return place


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy of the index that may be changed."""
    return Path(shutil.copytree(built, tmp_path / "small"))


def app_of(folder: Path, **options: Any) -> Any:
    """A server of one index."""
    return make_app({"small": partial(DuplexIndex.open, folder)}, **options)


@pytest.fixture(scope="module")
def client(built: Path) -> Iterator[TestClient]:
    """A server with small limits."""
    limits = Limits(queries=4, k=20, hits=60, explained=5, texts=3, characters=500, body_bytes=20_000)
    with TestClient(app_of(built, limits=limits), raise_server_exceptions=False) as found:
        yield found
