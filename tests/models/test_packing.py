"""Models in one file of a few bits a weight: what comes back, what is stored once, what is refused."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors

from dupmae.config import DuplexConfig
from dupmae.duplex import DuplexEncoder
from dupmae.errors import DupmaeError
from dupmae.files import file_sha256
from dupmae.models import is_duplex, packing
from dupmae.models import names as models
from dupmae.models.packing import pack, unpack

ENTRIES = 50


def folder_of(place: Path, weights: dict[str, Any], more: dict[str, Any] | None = None) -> Path:
    """A model folder with these tensors, and others in a folder below."""
    (place / "below").mkdir(parents=True)
    (place / "config.json").write_text(json.dumps({"vocab_size": ENTRIES}), encoding="utf-8")
    (place / "below" / "notes.txt").write_text("word\n" * 100, encoding="utf-8")
    save_file(weights, place / "model.safetensors")
    save_file(more or {}, place / "below" / "model.safetensors")
    return place


def matrix(rows: int, columns: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_every_weight_comes_back_to_within_half_a_level(bits: int, rows: int, columns: int, seed: int) -> None:
    values = matrix(rows, columns, seed)
    parts: dict[str, Any] = {}
    record, error = packing._store(values, bits, np.inf, "0", parts)
    found = packing._restore(record, parts)
    assert np.linalg.norm(found - values) == pytest.approx(error * np.linalg.norm(values), rel=1e-4)
    levels = (found / parts["0.columns"].astype(np.float32)) / parts["0.rows"].astype(np.float32)[:, None]
    np.testing.assert_allclose(levels * 2 % 2, 1, atol=1e-2)  # odd halves: 2^b levels around zero
    naive = np.abs(values).max(axis=1, keepdims=True) / (2**bits - 1)  # plain levels, the outermost at the largest
    if rows > 24 and columns > 24:  # of smaller ones a single row can exceed it: 17 of 9,203 drawn from 9 to 40
        plain = (
            (np.clip(np.rint(values / (2 * naive) - 0.5), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) + 0.5) * 2 * naive
        )
        assert np.linalg.norm(found - values) < 1.1 * np.linalg.norm(plain - values)


@pytest.mark.parametrize("bits", range(2, 9))
def test_levels_of_b_bits_come_back_from_little_more_than_b_bits_each(bits: int) -> None:
    levels = np.random.default_rng(bits).integers(0, 2**bits, 77_000).astype(np.uint8)
    packed = packing._compressed(levels)
    assert packed.nbytes < levels.size * (bits + 0.3) / 8  # all levels are alike often: the most that they can take
    assert np.array_equal(np.frombuffer(zlib.decompress(packed.tobytes()), dtype=np.uint8), levels)
    assert np.array_equal(packing._decompressed(packed, 77_000), levels)
    assert len(packing._decompressed(packed, 100)) == 100  # whatever a file says of itself


def test_what_is_written_may_be_read_by_whoever_may_read_other_new_files(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "new" / "packed.safetensors"
    plain.touch()
    pack(folder_of(tmp_path / "model", {"table": matrix(ENTRIES, 8)}), packed)
    unpack(packed, tmp_path / "back")
    files = [packed, *(tmp_path / "back").rglob("*.*")]
    assert {file.stat().st_mode for file in files} == {plain.stat().st_mode}


def test_a_folder_comes_back_with_all_its_files(tmp_path: Path) -> None:
    weights = {
        "table": matrix(ENTRIES, 8),
        "square": matrix(8, 8, 1),
        "norm": matrix(1, 8)[0],
        "zero": 0 * matrix(3, 4),
    }
    weights |= {"eye": np.eye(300, dtype=np.float32) + 0.01 * matrix(300, 300), "count": np.arange(4)}
    source = folder_of(
        tmp_path / "model", weights, {"again": weights["table"], "scale": np.array(3.0, dtype=np.float32)}
    )
    figures = pack(source, tmp_path / "small.safetensors", bits=8, vocabulary_bits=4)
    unpack(tmp_path / "small.safetensors", tmp_path / "out")
    found, below = (load_file(tmp_path / "out" / name / "model.safetensors") for name in ("", "below"))
    assert {name: (value.shape, value.dtype) for name, value in found.items()} == {
        name: (value.shape, value.dtype) for name, value in weights.items()
    }
    errors = {name: np.abs(found[name] - weights[name]).max() for name in weights}
    assert errors["count"] == errors["zero"] == 0
    assert errors["square"] < 0.02
    assert errors["norm"] < 0.002
    assert errors["eye"] < 0.002  # 8 bits do not hold it, so it is in float16
    assert 0.02 < errors["table"] < 1
    assert np.array_equal(below["again"], found["table"])
    assert below["scale"] == 3.0
    assert below["scale"].shape == ()
    assert (tmp_path / "out" / "below" / "notes.txt").read_bytes() == (source / "below" / "notes.txt").read_bytes()
    assert figures["bytes"] == (tmp_path / "small.safetensors").stat().st_size
    parts = load_file(tmp_path / "small.safetensors")
    assert sum(name.isdigit() for name in parts) == len(weights) + 1  # the table that is there twice stands there once
    relative = np.linalg.norm(found["table"] - weights["table"]) / np.linalg.norm(weights["table"])
    assert figures["error"] == pytest.approx(relative, rel=1e-4)


def test_half_precision_is_packed_like_float32(tmp_path: Path) -> None:
    rounded = torch.as_tensor(matrix(8, 8)).bfloat16()
    half = folder_of(tmp_path / "half", {})
    save_tensors({"square": rounded}, half / "model.safetensors")
    for source in (half, folder_of(tmp_path / "whole", {"square": rounded.float().numpy()})):
        pack(source, tmp_path / f"{source.name}.safetensors")
        unpack(tmp_path / f"{source.name}.safetensors", tmp_path / f"{source.name}-out")
    found, expected = (load_file(tmp_path / f"{name}-out" / "model.safetensors") for name in ("half", "whole"))
    assert np.array_equal(found["square"], expected["square"])


def test_a_packed_duplex_model_ranks_as_the_whole_one(bert_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("dupmae.duplex.inference.bfloat16_pays", lambda _: False)
    whole = DuplexEncoder.from_encoder(str(bert_folder), DuplexConfig(dense_dimension=16, top_k=10))
    whole.save(str(tmp_path / "model"))
    pack(tmp_path / "model", tmp_path / "small.safetensors")
    restored = models.resolve_model(str(tmp_path / "small.safetensors"))
    assert restored.startswith(str(tmp_path / "cache" / "dupmae" / "models" / "small-"))
    assert is_duplex(restored)
    before = Path(restored, "model.safetensors").stat().st_mtime_ns
    assert models.resolve_model(str(tmp_path / "small.safetensors")) == restored
    assert Path(restored, "model.safetensors").stat().st_mtime_ns == before
    texts = ["ba be bi", "bo bu ba", "be bo"]
    first, second = (model.embed_documents(texts).cls for model in (whole, DuplexEncoder(restored)))
    cosines = torch.cosine_similarity(torch.as_tensor(first).float(), torch.as_tensor(second).float())
    assert cosines.min() > 0.99


def test_a_file_that_is_not_the_known_one_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pack(folder_of(tmp_path / "model", {"table": matrix(ENTRIES, 8)}), tmp_path / "small.safetensors")
    monkeypatch.setattr(models, "SMALL_FILE", tmp_path / "small.safetensors")
    monkeypatch.setattr(models, "SMALL_SHA256", "0" * 64)
    with pytest.raises(DupmaeError, match=r"is damaged: its SHA-256 is \w{64} instead of 0{64}"):
        models.resolve_model(models.SMALL)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(models, "SMALL_SHA256", file_sha256(tmp_path / "small.safetensors"))
    assert Path(models.resolve_model(models.SMALL), "model.safetensors").is_file()


def test_what_cannot_be_packed_is_refused(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "model", {"table": matrix(ENTRIES, 8)})
    with pytest.raises(DupmaeError, match="bits is 9: a weight takes 2 to 8 bits"):
        pack(source, tmp_path / "small.safetensors", bits=9)
    (source / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DupmaeError, match=r"config\.json names no vocab_size"):
        pack(source, tmp_path / "small.safetensors")
    with pytest.raises(DupmaeError, match="holds no weights"):
        pack(source / "nowhere", tmp_path / "small.safetensors")
    assert not (tmp_path / "small.safetensors").exists()


@pytest.mark.parametrize("harm", ["other", "part", "text", "version", "name"])
def test_what_is_no_packed_model_is_refused(tmp_path: Path, harm: str) -> None:
    file = tmp_path / "small.safetensors"
    pack(folder_of(tmp_path / "model", {"table": matrix(ENTRIES, 8)}), file)
    header, parts = json_header(file), load_file(file)
    sentence = "is damaged: fetch it again"
    match harm:
        case "other":
            header, sentence = {}, "is not a packed model"
        case "part":
            del parts["0.rows"]
        case "text":
            parts["file:config.json"] = parts["file:config.json"][:-5]
        case "version":
            header["version"], sentence = "3", "was written by a later version of dupmae"
        case "name":
            parts["file:../evil.json"], sentence = parts["file:config.json"], "outside of its folder"
    save_file(parts, file, metadata=header)
    with pytest.raises(DupmaeError, match=sentence):
        unpack(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil.json").exists()


def test_a_later_edition_holds_what_differs_and_comes_back_whole(tmp_path: Path) -> None:
    first = {"table": matrix(ENTRIES, 40), "square": matrix(40, 40, 1), "norm": matrix(1, 8)[0], "count": np.arange(4)}
    pack(folder_of(tmp_path / "model", first), tmp_path / "first.safetensors", vocabulary_bits=4)
    unpack(tmp_path / "first.safetensors", tmp_path / "first")
    same = load_file(tmp_path / "first" / "model.safetensors")
    later = folder_of(tmp_path / "later", same | {"norm": same["norm"] * 2}, {"again": same["table"]})
    (later / "words.json").write_text("{}", encoding="utf-8")
    pack(later, tmp_path / "later.safetensors", base=tmp_path / "first.safetensors")
    parts = load_file(tmp_path / "later.safetensors")
    assert sorted(parts) == ["0", "file:below/notes.txt", "file:config.json", "file:words.json"]
    unpack(tmp_path / "later.safetensors", tmp_path / "out", tmp_path / "first.safetensors")
    found, below = (load_file(tmp_path / "out" / name / "model.safetensors") for name in ("", "below"))
    assert {name: value.tobytes() for name, value in found.items()} == {
        name: value.tobytes() for name, value in (same | {"norm": same["norm"] * 2}).items()
    }
    assert np.array_equal(below["again"], same["table"])
    assert (tmp_path / "out" / "words.json").is_file()

    pack(later, tmp_path / "other.safetensors")
    for base in (None, tmp_path / "other.safetensors"):
        with pytest.raises(DupmaeError, match="that one is not at hand"):
            unpack(tmp_path / "later.safetensors", tmp_path / "none", base)
    with pytest.raises(DupmaeError, match="that one is not at hand"):
        pack(later, tmp_path / "third.safetensors", base=tmp_path / "later.safetensors")
    assert not (tmp_path / "none").exists()


def json_header(file: Path) -> dict[str, str]:
    """What a safetensors file says of itself."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header: dict[str, str] = json.loads(opened.read(size))["__metadata__"]
    return header


# What is packed, and what may be unpacked


def test_nothing_hidden_and_no_checksums_are_packed(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "model", {"table": matrix(ENTRIES, 8)})
    for name in (".git/config", ".env", "below/.secret", "SHA256SUMS"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("secret", encoding="utf-8")
    pack(source, tmp_path / "small.safetensors")
    names = {name for name in load_file(tmp_path / "small.safetensors") if name.startswith("file:")}
    assert names == {"file:config.json", "file:below/notes.txt"}


def test_a_link_that_leads_out_is_named_and_one_within_is_followed(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "model", {"table": matrix(ENTRIES, 8)})
    (source / "again.json").symlink_to(source / "config.json")
    pack(source, tmp_path / "small.safetensors")
    assert "file:again.json" in load_file(tmp_path / "small.safetensors")
    for target in ("/etc/passwd", "/etc", "../elsewhere"):
        (source / "link").symlink_to(target)
        with pytest.raises(DupmaeError, match="link is a link that leads out of the folder"):
            pack(source, tmp_path / "other.safetensors")
        (source / "link").unlink()
    assert not (tmp_path / "other.safetensors").exists()


def test_a_model_in_the_hubs_cache_is_packed_though_its_files_are_links(tmp_path: Path) -> None:
    blobs = folder_of(tmp_path / "models--a--b" / "blobs", {"table": matrix(ENTRIES, 8)})
    snapshot = tmp_path / "models--a--b" / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).symlink_to(blobs / name)
    pack(snapshot, tmp_path / "small.safetensors")
    assert "file:config.json" in load_file(tmp_path / "small.safetensors")


def test_the_folder_that_is_packed_is_not_written_to(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "model", {"table": matrix(ENTRIES, 8)})
    before = sorted(source.rglob("*"))
    for place in (source / "packed.safetensors", source / "below" / "packed.safetensors"):
        with pytest.raises(DupmaeError, match=r"lies in the folder .* that is packed"):
            pack(source, place)
    assert sorted(source.rglob("*")) == before


@pytest.mark.parametrize(
    "lie", ["rows", "many", "bits", "bits of 9", "twice", "of a text", "ending", "records", "number", "bomb", "memory"]
)
def test_a_header_that_lies_is_refused_before_its_memory_is_taken(tmp_path: Path, lie: str) -> None:
    file = tmp_path / "small.safetensors"
    pack(folder_of(tmp_path / "model", {"table": matrix(ENTRIES, 8), "norm": matrix(1, 8)[0]}), file)
    header, parts = json_header(file), load_file(file)
    records = json.loads(header["tensors"])
    table = next(record for record in records if record["name"] == "table")
    match lie:
        case "rows":
            table["shape"] = [2**31, 2**20]
        case "many":
            records += [table | {"name": f"copy {number}"} for number in range(100_000)]
        case "bits":
            table["bits"] = "8"
        case "bits of 9":
            table["bits"] = 9
        case "twice":
            records.append(dict(table))
        case "of a text":
            table["file"] = "config.json"
        case "ending":
            table["file"] = "sitecustomize.py"
        case "records":
            records = {"table": table}  # type: ignore[assignment]
        case "number":
            table["shape"] = [-1, 8]
        case "bomb":
            import lzma

            bomb = lzma.compress(bytes(packing.MOST_TEXT + 1), preset=0)
            parts["file:tokenizer.json"] = np.frombuffer(bomb, dtype=np.uint8)
        case "memory":
            import lzma

            greedy = lzma.compress(b"{}", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**30}])
            parts["file:tokenizer.json"] = np.frombuffer(greedy, dtype=np.uint8)
    header["tensors"] = json.dumps(records)
    save_file(parts, file, metadata=header)
    with pytest.raises(DupmaeError, match="is damaged: fetch it again"):
        unpack(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_copy_in_the_cache_that_was_changed_is_unpacked_again(
    tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pack(folder_of(tmp_path / "model", {"table": matrix(ENTRIES, 8)}), tmp_path / "small.safetensors")
    name = str(tmp_path / "small.safetensors")
    folder = Path(models.resolve_model(name))
    whole = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    changes = {
        "weights": lambda: (folder / "model.safetensors").write_bytes(whole["model.safetensors"][:-1] + b"\x01"),
        "settings": lambda: (folder / "config.json").write_text("{}", encoding="utf-8"),
        "missing": lambda: (folder / "below" / "notes.txt").unlink(),
        "more": lambda: (folder / "adapter_config.json").write_text("{}", encoding="utf-8"),
        "no checksums": lambda: (folder / "SHA256SUMS").unlink(),
    }
    for change in changes.values():
        caplog.clear()
        change()
        assert models.resolve_model(name) == str(folder)
        assert "it is unpacked again" in caplog.text
        assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == whole


def test_the_small_models_copy_is_known_even_if_its_checksums_were_changed_with_it(
    tmp_path: Path, monkeypatch: Any
) -> None:
    from dupmae.models.checksums import write_checksums

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pack(folder_of(tmp_path / "model", {"table": matrix(ENTRIES, 8)}), tmp_path / "small.safetensors")
    unpack(tmp_path / "small.safetensors", tmp_path / "out")
    monkeypatch.setattr(models, "SMALL_FILE", tmp_path / "small.safetensors")
    monkeypatch.setattr(models, "SMALL_SHA256", file_sha256(tmp_path / "small.safetensors"))
    monkeypatch.setattr(models, "SMALL_CONTENTS", file_sha256(tmp_path / "out" / "SHA256SUMS"))
    folder = Path(models.resolve_model(models.SMALL))
    (folder / "config.json").write_text('{"vocab_size": 1}', encoding="utf-8")
    write_checksums(folder)
    models.resolve_model(models.SMALL)
    assert json.loads((folder / "config.json").read_text(encoding="utf-8")) == {"vocab_size": ENTRIES}
