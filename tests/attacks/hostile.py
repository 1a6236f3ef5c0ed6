"""Hostile files in front of the real command line, which is watched."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from forked import Forked

COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "encode duplex": (
        ["encode", "--model", "models/duplex", "--input", "queries.txt", "--output", "out"],
        ["models/duplex", "queries.txt"],
    ),
    "pack duplex": (["pack", "models/duplex", "out.safetensors"], ["models/duplex"]),
    "evaluate duplex": (
        ["evaluate", "--model", "models/duplex", "--benchmark", "benchmark", "--k", "20"],
        ["models/duplex", "benchmark"],
    ),
    "finetune encoder": (
        [
            "finetune",
            "--model",
            "models/encoder",
            "--pairs",
            "pairs.jsonl",
            "--output",
            "out",
            "--top_k",
            "12",
            "--epochs",
            "0.1",
            "--batch_size",
            "4",
            "--max_length",
            "16",
            "--negatives",
            "0",
            "--query_max_length",
            "16",
            "--document_max_length",
            "16",
        ],
        ["models/encoder", "pairs.jsonl"],
    ),
    "pretrain encoder": (
        [
            "pretrain",
            "--model",
            "models/encoder",
            "--corpus",
            "corpus.jsonl",
            "--output",
            "out",
            "--steps",
            "1",
            "--new_layers_steps",
            "0",
            "--warm_start_sequences",
            "4",
            "--max_length",
            "16",
            "--min_length",
            "4",
            "--held_out_texts",
            "0",
            "--batch_size",
            "4",
        ],
        ["models/encoder", "corpus.jsonl"],
    ),
    "evaluate embedder": (
        ["evaluate", "--model", "models/embedder", "--benchmark", "benchmark", "--k", "20"],
        ["models/embedder", "benchmark"],
    ),
    "rerank cross": (
        [
            "rerank",
            "--model",
            "models/cross",
            "--run",
            "run.trec",
            "--benchmark",
            "benchmark",
            "--output",
            "out.trec",
            "--depth",
            "2",
        ],
        ["models/cross", "run.trec", "benchmark"],
    ),
}
"""A command and the kind of model that it opens -> its words, the parts of the world that it needs."""


class Attack:
    """One hostile case."""

    def __init__(self, server: Forked) -> None:
        self.server, self.case, self.secret, self.ran = server, server.case, server.secret, server.ran
        if self.secret.exists():
            shutil.rmtree(self.secret)
        self.secret.mkdir()
        (self.secret / "words.txt").write_text("kanad secretword lonat\n", encoding="utf-8")
        self.lay_out = server.lay_out

    def run(self, *argv: str, stdin: str | None = None) -> dict[str, Any]:
        """Run a command and assert that it kept to its own folder; how it ended."""
        before = _contents(self.secret)
        ended = self.server.run(argv, stdin)
        assert not self.ran.exists(), "code of the input was run"
        assert ended["seen"] == [], ended["seen"]
        assert _contents(self.secret) == before
        assert ended["kind"] in ("done", "refused"), ended
        return ended

    def refused(self, *argv: str, stdin: str | None = None) -> str:
        """Run a command that must refuse, with a sentence, which is returned."""
        ended = self.run(*argv, stdin=stdin)
        assert ended["kind"] == "refused", ended
        return str(ended["said"])


def _contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
