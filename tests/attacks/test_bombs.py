"""Small files that unpack to large ones, nest deeply or multiply are refused, in bounded time and memory."""

from __future__ import annotations

import gzip
import json
import lzma
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import Attack

BIG = 1_500_000_000
"""Bytes: more than a command over small inputs may take (`fuzz_child.RESIDENT`)."""
ENCODE = ["encode", "--model", "models/duplex", "--output", "out", "--input"]


def compressed(path: Path, block: bytes, size: int = BIG) -> None:
    """Write `size` bytes of a repeated block, compressed as the name says, in blocks of a megabyte."""
    megabyte = (block * (1_000_000 // len(block) + 1))[:1_000_000]
    if path.suffix == ".gz":  # a stream of members: each is one megabyte
        path.write_bytes(gzip.compress(megabyte, 9) * (size // 1_000_000))
    elif path.suffix == ".xz":
        path.write_bytes(lzma.compress(megabyte) * (size // 1_000_000))
    else:
        import pyarrow as pa

        frame = pa.compress(megabyte, codec="zstd", asbytes=True)
        path.write_bytes(frame * (size // 1_000_000))


@pytest.mark.parametrize("ending", ["gz", "xz", "zst"])
def test_one_endless_line(ending: str, attack: Attack) -> None:
    attack.lay_out("models/duplex")
    compressed(attack.case / f"corpus.jsonl.{ending}", b'{"text": "a')
    attack.refused(*ENCODE, f"corpus.jsonl.{ending}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("queries.txt.gz", ["search", "index", "--json"]),
        ("qrels.tsv.gz", ["evaluate", "--run", "run.trec", "--qrels", "qrels.tsv.gz"]),
        ("run.trec.xz", ["evaluate", "--run", "run.trec.xz", "--qrels", "benchmark/qrels/test.tsv"]),
        ("pairs.jsonl.gz", ["mine", "--source", "bm25", "--pairs", "pairs.jsonl.gz", "--output", "out"]),
        ("ids.txt.gz", ["index", "delete", "index", "--file", "ids.txt.gz"]),
        ("corpus.txt.gz", [*ENCODE, "corpus.txt.gz"]),
        ("corpus.tsv.gz", [*ENCODE, "corpus.tsv.gz"]),
    ],
)
def test_one_endless_line_at_every_reader(name: str, words: list[str], attack: Attack) -> None:
    attack.lay_out("models/duplex", "index", "benchmark", "run.trec")
    compressed(attack.case / name, b"kanad ")
    if words[0] == "search":  # the standard input is read as it is
        (attack.case / "plain.txt").write_bytes(b"kanad " * 20_000_000)
        attack.refused(*words, stdin="plain.txt")
    else:
        attack.refused(*words)


def test_parquet_of_one_repeated_text(attack: Attack) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    attack.lay_out("models/duplex")
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, np.int32)), pa.array(["a" * 1_000_000]))
    pq.write_table(pa.table({"text": texts}), attack.case / "corpus.parquet")
    assert (attack.case / "corpus.parquet").stat().st_size < 3_000_000
    attack.run(*ENCODE, "corpus.parquet")


def test_deeply_nested_json(attack: Attack) -> None:
    attack.lay_out("models/duplex", "index")
    deep = "[" * 200_000 + "]" * 200_000
    (attack.case / "corpus.jsonl").write_text(f'{{"text": "a", "metadata": {deep}}}\n', encoding="utf-8")
    attack.refused(*ENCODE, "corpus.jsonl")
    (attack.case / "index/manifest.json").write_text(deep, encoding="utf-8")
    attack.refused("search", "index", "kanad")


def test_deeply_nested_json_in_each_file_of_a_model(door: tuple[list[str], Path], attack: Attack) -> None:
    words, model = door
    for path in model.glob("*.json"):
        path.write_text("[" * 200_000 + "]" * 200_000, encoding="utf-8")
    attack.refused(*words)


def test_numbers_of_a_million_digits(attack: Attack) -> None:
    attack.lay_out("models/duplex")
    (attack.case / "corpus.jsonl").write_text('{"_id": ' + "9" * 1_000_000 + ', "text": "a"}\n', encoding="utf-8")
    attack.refused(*ENCODE, "corpus.jsonl")


YAML = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "baselines: *i\n",
    "brackets": "baselines: " + "[" * 100_000 + "]" * 100_000 + "\n",
    "blocks": "".join(" " * depth + "a:\n" for depth in range(3000)),
    "keys": "".join(f"k{number}: 1\n" for number in range(500_000)),
    "a number": "seed: " + "9" * 1_000_000 + "\n",
    "a text": "name: " + "a" * 30_000_000 + "\n",
    "a circle": "baselines: &a [*a]\n",
}


@pytest.mark.parametrize("kind", list(YAML))
def test_settings(kind: str, attack: Attack) -> None:
    attack.lay_out("models/encoder", "benchmark")
    (attack.case / "recipe.yaml").write_text(YAML[kind], encoding="utf-8")
    attack.refused("run", "recipe.yaml", "--dry_run")


# Packed models


def packed(path: Path, change: Any) -> None:
    """Rewrite a packed model: `change` gets its tensors and its metadata and may change both."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    with safe_open(path, "numpy") as file:
        header = dict(file.metadata())
    change(tensors, header)
    save_file(tensors, path, metadata=header)


def as_bytes(content: bytes) -> Any:
    return np.frombuffer(content, np.uint8)


def unpack(attack: Attack) -> str:
    return attack.refused("encode", "--model", "models/packed.safetensors", "--input", "queries.txt", "--output", "out")


def test_a_file_in_a_packed_model_that_unpacks_to_gigabytes(attack: Attack) -> None:
    attack.lay_out("models/packed.safetensors", "queries.txt")
    block = lzma.compress(b"\0" * 100_000_000)

    def change(tensors: dict[str, Any], header: dict[str, str]) -> None:
        tensors["file:README.md"] = as_bytes(block * (BIG // 100_000_000))

    packed(attack.case / "models/packed.safetensors", change)
    unpack(attack)


def test_levels_of_a_packed_model_that_unpack_to_gigabytes(attack: Attack) -> None:
    attack.lay_out("models/packed.safetensors", "queries.txt")

    def change(tensors: dict[str, Any], header: dict[str, str]) -> None:
        records = json.loads(header["tensors"])
        record = next(record for record in records if "bits" in record)
        squeezer, parts = zlib.compressobj(), []
        for _ in range(BIG // 1_000_000):
            parts.append(squeezer.compress(b"\0" * 1_000_000))
        tensors[record["part"]] = as_bytes(b"".join([*parts, squeezer.flush()]))

    packed(attack.case / "models/packed.safetensors", change)
    unpack(attack)


@pytest.mark.parametrize("shape", [[1 << 20, 1 << 20], [1 << 62, 4], [-1, 4], [], "a", [4.5, 2], [1 << 31, 1]])
def test_shapes_of_a_packed_model_that_are_not_its_levels(shape: Any, attack: Attack) -> None:
    attack.lay_out("models/packed.safetensors", "queries.txt")

    def change(tensors: dict[str, Any], header: dict[str, str]) -> None:
        records = json.loads(header["tensors"])
        for record in records:
            if "bits" in record:
                record["shape"] = shape
        header["tensors"] = json.dumps(records)

    packed(attack.case / "models/packed.safetensors", change)
    unpack(attack)


def test_many_tensors_of_one_part(attack: Attack) -> None:
    attack.lay_out("models/packed.safetensors", "queries.txt")

    def change(tensors: dict[str, Any], header: dict[str, str]) -> None:
        tensors["large"] = np.zeros(4_000_000, np.float16)
        records = json.loads(header["tensors"])
        more = [
            {"file": "model.safetensors", "name": f"n{number}", "part": "large", "shape": [4_000_000], "float": True}
            for number in range(300)
        ]
        header["tensors"] = json.dumps(records + more)

    packed(attack.case / "models/packed.safetensors", change)
    unpack(attack)


def test_stored_vectors_in_a_zip(attack: Attack) -> None:
    words = ["evaluate", "--model", "models/embedder", "--benchmark", "benchmark", "--k", "20", "--output", "out"]
    attack.lay_out("models/embedder", "benchmark")
    attack.run(*words)
    for array in attack.case.rglob("out/encodings/**/*.npy"):
        with zipfile.ZipFile(array, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("vectors.npy", b"\0" * 100_000_000)
    attack.run(*words)


def test_a_header_of_stored_vectors_that_claims_terabytes(attack: Attack) -> None:
    words = ["evaluate", "--model", "models/embedder", "--benchmark", "benchmark", "--k", "20", "--output", "out"]
    attack.lay_out("models/embedder", "benchmark")
    attack.run(*words)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 16), }\n"
    for array in attack.case.rglob("out/encodings/**/*.npy"):
        array.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64)
    attack.run(*words)
