"""Damaged files, kills and failing writes: nothing wrong is ever answered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_index import (
    QUERIES,
    build,
)

from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex

ROOT = Path(__file__).parents[2]


def test_a_newer_format_and_a_damaged_manifest_are_refused(tmp_path: Path) -> None:
    build(tmp_path / "i")
    path = tmp_path / "i" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    assert manifest["passages"] == 23
    path.write_text(json.dumps(manifest | {"format_version": 6}), encoding="utf-8")
    with pytest.raises(DupmaeError, match=r"format version 6 .* install a newer"):
        DuplexIndex.open(tmp_path / "i")
    path.write_text('{"format": "dupmae-index", "format_version": 2}', encoding="utf-8")
    with pytest.raises(DupmaeError, match="damaged"):
        DuplexIndex.open(tmp_path / "i")
    for content in (b"{", b'{"format": "\xff"}'):
        path.write_bytes(content)
        with pytest.raises(DupmaeError, match="damaged"):
            DuplexIndex.open(tmp_path / "i")


def test_a_flipped_bit_is_named_by_verify_and_a_missing_or_truncated_file_by_open(tmp_path: Path) -> None:
    index, _, _ = build(tmp_path / "i")
    path = tmp_path / "i" / "segment-000002" / "vectors.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DupmaeError, match=r"segment-000002/vectors\.safetensors does not have the checksum"):
        index.verify()
    path.write_bytes(content[:-2])
    with pytest.raises(
        DupmaeError, match=rf"vectors\.safetensors has {len(content) - 2} bytes instead of {len(content)}"
    ):
        DuplexIndex.open(tmp_path / "i")
    path.unlink()
    with pytest.raises(DupmaeError, match=r"vectors\.safetensors is missing"):
        DuplexIndex.open(tmp_path / "i")


@pytest.mark.parametrize("file", ["vectors.safetensors", "ids.arrow"])
def test_a_search_never_answers_from_a_flipped_bit(index: DuplexIndex, file: str) -> None:
    path, queries = index.folder / index.manifest.segments[1].name / file, index.encoder.embed_queries(QUERIES)
    content = path.read_bytes()
    for place in range(0, len(content), len(content) // 23):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(DupmaeError, match=r"segment-000002/.*damaged"):
            DuplexIndex.open(index.folder).search_embeddings(queries, 5)
        with pytest.raises(DupmaeError, match=r"segment-000002/.*damaged"):
            DuplexIndex.open(index.folder).verify()


def test_a_hit_never_shows_a_text_with_a_flipped_bit(index: DuplexIndex) -> None:
    path = index.folder / index.manifest.segments[1].name / "texts.arrow"
    content = path.read_bytes()
    wanted = [[hit.text for hit in hits] for hits in index.search(QUERIES, 60)]
    refused = 0
    for place in range(0, len(content), max(1, len(content) // 40)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(DupmaeError, match="damaged"):
            DuplexIndex.open(index.folder).verify()
        opened = DuplexIndex.open(index.folder)
        opened.encoder = index.encoder
        try:
            assert [[hit.text for hit in hits] for hits in opened.search(QUERIES, 60)] == wanted  # padding was hit
        except DupmaeError:
            refused += 1
    assert refused > 10


def test_a_damaged_manifest_or_list_of_deletions_is_refused(index: DuplexIndex) -> None:
    index.delete(["p01"])
    assert index.manifest.deleted is not None
    for path in (index.folder / "manifest.json", index.folder / index.manifest.deleted["name"]):
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[-20] ^= 2
        path.write_bytes(damaged)
        with pytest.raises(DupmaeError, match="damaged"):
            DuplexIndex.open(index.folder)
        path.write_bytes(content)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills and file size limits are tried on Unix")
def test_kills_and_failing_writes_lose_nothing_and_readers_see_committed_states_alone() -> None:
    """A few rounds of what the benchmark does 200 times."""
    script = ROOT / "benchmarks" / "reliability" / "index_crashes.py"
    words = ["--kills", "4", "--failures", "4", "--readers", "2", "--changes", "6"]
    run = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    result = json.loads(run.stdout)
    assert sum(result["kills"].values()) == 4
    assert sum(result["failing_writes"].values()) == 4
    assert result["states_read_during_changes"] > 2
    assert result["second_writer_refused"] is True
