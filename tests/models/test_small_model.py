"""The model that comes with the package: restored, found by name, good enough to search with at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dupmae.cli import entry as cli
from dupmae.corpus import Passage
from dupmae.duplex import DuplexEncoder
from dupmae.files import file_sha256
from dupmae.index import DuplexIndex
from dupmae.index.storage.manifest import Manifest
from dupmae.models import is_duplex, open_model
from dupmae.models import names as models

LARGEST = 25_000_000
"""Bytes that the file may have."""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr(cli, "silence", lambda: None)
        yield folder


def test_the_file_is_small_and_the_known_one() -> None:
    assert models.SMALL_FILE.stat().st_size <= LARGEST
    assert file_sha256(models.SMALL_FILE) == models.SMALL_SHA256


def test_it_is_restored_into_a_folder_with_its_card(cache: Path) -> None:
    folder = Path(models.resolve_model(models.SMALL))
    assert cache in folder.parents
    assert is_duplex(str(folder))
    card = (folder / "README.md").read_text(encoding="utf-8")
    for word in ("Apache-2.0", "CC BY-SA", "all-MiniLM-L6-v2", "Limits"):
        assert word in card
    assert card == models.SMALL_FILE.with_suffix(".md").read_text(encoding="utf-8")


def test_text_is_indexed_and_searched_without_naming_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    passages = {
        "light": "A lighthouse burns a lamp behind a lens, so that sailors see the coast at night.",
        "bread": "Sourdough rises slowly, because wild yeast in the dough ferments the flour.",
        "heart": "A heart attack happens when the blood flow to the cardiac muscle is blocked.",
    }
    (tmp_path / "texts").mkdir()
    for name, text in passages.items():
        (tmp_path / "texts" / f"{name}.txt").write_text(text, encoding="utf-8")
    index = str(tmp_path / "index")
    assert cli.main(["index", "build", "--corpus", str(tmp_path / "texts"), "--output", index]) == 0
    capsys.readouterr()
    for query, wanted in (("myocardial infarction", "heart"), ("baking with natural leaven", "bread")):
        assert cli.main(["search", index, query, "--k", "1", "--json"]) == 0
        ((hit,),) = [result["hits"] for result in json.loads(capsys.readouterr().out)["results"]]
        assert wanted in hit["id"]
    assert Manifest.read(tmp_path / "index").model == models.SMALL


def test_an_index_names_the_model_rather_than_its_folder_in_this_users_cache(cache: Path, tmp_path: Path) -> None:
    assert cache in Path(open_model(models.SMALL).path).parents
    DuplexIndex.build(tmp_path / "index", DuplexEncoder(models.SMALL), [Passage("a", "", "Bread is baked.")])
    manifest = Manifest.read(tmp_path / "index")
    assert (manifest.model, manifest.model_relative) == (models.SMALL, None)
    assert [hit.id for hit in DuplexIndex.open(tmp_path / "index").search(["who bakes?"])[0]] == ["a"]


def test_its_unpacked_copy_is_the_known_one(cache: Path) -> None:
    folder = Path(models.resolve_model(models.SMALL))
    assert file_sha256(folder / "SHA256SUMS") == models.SMALL_CONTENTS
