"""Checksums of large files are remembered from one process to the next, and never those of another state of a file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from dupmae.files import file_sha256
from dupmae.runtime import checksums


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose checksum is worth remembering, and a cache that knows nothing."""
    monkeypatch.setenv("DUPMAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums, "LARGE", 100)
    monkeypatch.setattr(checksums, "SETTLED", 0)
    file = tmp_path / "weights"
    file.write_bytes(b"a" * 1000)
    time.sleep(0.01)
    return file


def in_a_new_process(file: Path) -> str:
    checksums._sha256.cache_clear()
    return checksums.known_sha256(file)


def test_a_large_file_is_read_once_for_all_processes(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = file_sha256(large)
    assert in_a_new_process(large) == expected
    monkeypatch.setattr(checksums, "file_sha256", lambda file: pytest.fail("read again"))
    assert in_a_new_process(large) == expected


def test_a_file_that_changed_is_read_again_though_size_and_date_are_the_same(large: Path) -> None:
    before, state = in_a_new_process(large), large.stat()
    large.write_bytes(b"b" * 1000)
    os.utime(large, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert in_a_new_process(large) == file_sha256(large) != before


def test_a_file_that_was_just_written_is_not_remembered(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "SETTLED", 60_000_000_000)
    in_a_new_process(large)
    assert not (large.parent / "cache" / checksums.KNOWN_FILE).exists()


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', '{"x": "no checksum"}'])
def test_a_spoilt_memory_is_of_no_use_and_no_harm(large: Path, content: str) -> None:
    expected = in_a_new_process(large)
    known = large.parent / "cache" / checksums.KNOWN_FILE
    known.write_text(content, encoding="utf-8")
    assert in_a_new_process(large) == expected
    assert expected in json.loads(known.read_text(encoding="utf-8")).values()
