"""What is installed without extras is enough to index and search; for the rest one sentence names the extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import contextlib, io, sys

ABSENT = {"torch", "transformers", "sentence_transformers", "accelerate", "datasets", "ir_measures", "bm25s",
          "matplotlib", "jinja2", "fastapi", "uvicorn", "mcp", "mteb", "onnx", "faiss", "qdrant_client", "psycopg",
          "ir_datasets"}


sys.modules.update(dict.fromkeys(ABSENT))  # as if they were not installed
from dupmae.cli import main


def run(command):
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        status = main(command.split())
    print(status, command, "|", errors.getvalue().strip().splitlines()[-1:])
    return status


for command in (
    "index build --corpus corpus.jsonl --output index",
    "index info index",
    "index verify index",
    "search index lamps --k 1",
    "explain index lamps --k 1",
    "index add index --corpus more.jsonl",
    "index delete index --ids b",
    "index compact index",
    "sync index corpus.jsonl",
    "encode --model dupmae-small --input corpus.jsonl --output encoded",
    "unpack dupmae-small small",
    "search index lamps --query_encoder static",
):
    assert run(command) == 0, command
for command, extra in {
    "index build --corpus corpus.jsonl --output other --backend torch": "train",
    "search index lamps --query_encoder torch": "train",
    "pretrain --corpus corpus.jsonl --model small --output p": "train",
    "finetune --model small --pairs pairs.jsonl --output f": "train",
    "mine --pairs pairs.jsonl --source bm25 --output m": "train",
    "adapt corpus.jsonl --output a": "train",
    "evaluate --model bm25 --benchmark sample": "train",
    "rerank --model small --run run --benchmark sample --output o": "train",
    "export small": "train",
    "serve index": "serve",
    "serve index --mcp": "mcp",
    "index push qdrant index http://localhost:1/x": "qdrant",
}.items():
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = main(command.split())
    said = errors.getvalue()
    assert status == 2, (command, said)
    assert f"pip install 'dupmae[{extra}]'" in said, (command, said)
    assert "Traceback" not in said
import dupmae

try:
    dupmae.DuplexEncoder
except dupmae.DupmaeError as error:
    assert "dupmae[train]" in str(error)
else:
    raise AssertionError("DuplexEncoder without PyTorch")
index = dupmae.DuplexIndex.open("index")
assert index.search(["ships"], 1)[0][0].document == "a"
assert not any(sys.modules[name] for name in ABSENT)
"""


def test_it_searches_without_what_training_needs(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "a", "text": "Lamps guide ships at night."}\n{"_id": "b", "text": "Yeast makes dough rise."}\n'
    )
    (tmp_path / "more.jsonl").write_text('{"_id": "c", "text": "Bees dance."}\n')
    (tmp_path / "pairs.jsonl").write_text('{"query": "lamps", "positive": "Lamps guide ships."}\n')
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
def test_the_extra_of_a_package_is_known(name: str) -> None:
    from dupmae.errors import missing_package

    found = missing_package(ModuleNotFoundError("none", name=name))
    assert (found is not None) == (name == "torch")
    assert missing_package(ValueError("torch")) is None
