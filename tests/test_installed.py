"""What is installed without any extra builds an index and searches; run by itself with `--noconftest`, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def dupmae(folder: Path, *words: str) -> str:
    """Run a command in a folder and give what it printed."""
    command = [sys.executable, "-m", "dupmae", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_sample_is_indexed_and_searched_from_an_empty_folder(tmp_path: Path) -> None:
    corpus = "data/sample/corpus.jsonl"
    dupmae(tmp_path, "index", "build", "--corpus", corpus, "--output", "index", "--backend", "onnx")
    found = dupmae(tmp_path, "search", "index", "why are there two high tides a day?", "--k", "1")
    assert "Tide  30718" in found
    assert "words:" in found
    static = dupmae(tmp_path, "search", "index", "high tides", "--k", "1", "--query_encoder", "static")
    assert "Tide" in static
    assert "scifact" in dupmae(tmp_path, "recipes")
    dupmae(tmp_path, "index", "verify", "index")
