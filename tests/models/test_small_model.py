"""The model that comes with the package: restored, found by name, good enough to search with at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dupmae.cli import entry as cli
from dupmae.corpus import Passage
from dupmae.duplex import DuplexEncoder
from dupmae.files import file_sha256
from dupmae.index import DuplexIndex
from dupmae.index.storage.manifest import Manifest
from dupmae.models import is_duplex, model_fingerprint, open_model
from dupmae.models import names as models

LARGEST = 25_500_000
"""Bytes that the files may have together."""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr(cli, "silence", lambda: None)
        yield folder


def test_the_files_are_small_and_the_known_ones() -> None:
    assert sum(edition.file.stat().st_size for edition in models.EDITIONS.values()) <= LARGEST
    for edition in models.EDITIONS.values():
        assert file_sha256(edition.file) == edition.sha256


@pytest.mark.parametrize("name", models.EDITIONS)
def test_it_is_restored_into_a_folder_with_its_card(cache: Path, name: str) -> None:
    folder = Path(models.resolve_model(name))
    assert cache in folder.parents
    assert is_duplex(str(folder))
    card = (folder / "README.md").read_text(encoding="utf-8")
    for word in ("Apache-2.0", "CC BY-SA", "all-MiniLM-L6-v2", "Limits"):
        assert word in card
    source = models.EDITIONS[models.SMALL].file.with_suffix(".md").read_text(encoding="utf-8")
    assert (card == source) == (name == models.SMALL)


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
        assert wanted in json.loads(capsys.readouterr().out)["id"]
    assert Manifest.read(tmp_path / "index").model == models.SMALL


def test_an_index_names_the_model_rather_than_its_folder_in_this_users_cache(cache: Path, tmp_path: Path) -> None:
    assert cache in Path(open_model(models.SMALL).path).parents
    DuplexIndex.build(tmp_path / "index", DuplexEncoder(models.SMALL), [Passage("a", "", "Bread is baked.")])
    manifest = Manifest.read(tmp_path / "index")
    assert (manifest.model, manifest.model_relative) == (models.SMALL, None)
    assert [hit.id for hit in DuplexIndex.open(tmp_path / "index").search(["who bakes?"])[0]] == ["a"]


@pytest.mark.parametrize("name", models.EDITIONS)
def test_its_unpacked_copy_is_the_known_one(cache: Path, name: str) -> None:
    folder, edition = Path(models.resolve_model(name)), models.EDITIONS[name]
    assert file_sha256(folder / "SHA256SUMS") == edition.contents
    assert open_model(name).fingerprint == model_fingerprint(name) == edition.fingerprint


def test_the_editions_differ_in_words_and_scales_alone(cache: Path) -> None:
    first, second = DuplexEncoder(f"{models.SMALL}-1"), DuplexEncoder(models.SMALL)
    assert first.words is None
    assert second.words is not None
    assert second.words.space.language == "english"
    before, after = first.state_dict(), second.state_dict()
    assert {name for name in after if name not in before or not torch.equal(before[name], after[name])} == {
        "1.ot_log_scale",
        "1.word_log_scale",
    }


def test_an_index_of_the_first_edition_goes_on_with_it(cache: Path, tmp_path: Path) -> None:
    first = f"{models.SMALL}-1"
    DuplexIndex.build(tmp_path / "index", DuplexEncoder(first), [Passage("a", "", "Bread is baked.")])
    manifest = Manifest.read(tmp_path / "index")
    manifest.model = models.SMALL  # as it was called when there was no other
    manifest.write(tmp_path / "index")
    index = DuplexIndex.open(tmp_path / "index")
    assert [hit.id for hit in index.search(["who bakes?"])[0]] == ["a"]
    assert index.info()["model"] == first
    assert models.edition_of("some/model", models.EDITIONS[first].fingerprint) == "some/model"
    assert models.edition_of(models.SMALL, "of no edition") == models.SMALL
