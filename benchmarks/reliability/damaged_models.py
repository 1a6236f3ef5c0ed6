"""Damaged models: does one ever give another result without a word, or a traceback?

    python benchmarks/reliability/damaged_models.py [--kinds duplex encoder] [--every 1] [--json damaged.json]

Tiny models of six kinds (a duplex model, one without checksums as version 0.2 left them, a plain encoder, a
sentence-transformers embedder, a cross-encoder, a packed file) are damaged in every way below, each copy is opened in a
process of its own, and two texts are encoded. Right is either of two: the same numbers as those of the whole model, or
one sentence of a `DupmaeError`. A copy that opens with other numbers, ends in a traceback, hangs or dies of a signal is
a fault, and is named. Without checksums some cannot be told: a flipped bit of a weight, two norms swapped.
Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np

SECONDS = 20
"""What takes longer hangs."""
LONGEST = 500
"""Characters of a sentence."""
KINDS = ("duplex", "unsealed", "encoder", "embedder", "cross-encoder", "packed")
TEXTS = ["the keeper lights a lamp", "bread rises"]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 437951328\n"
PAGE = b"<!DOCTYPE html><html><head><title>404</title></head><body>Not Found</body></html>\n"
Damage = Callable[[Path], None]


def write_models(folder: Path) -> dict[str, Path]:
    """Write a tiny random model of each kind; kind -> its folder or file."""
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, PreTrainedTokenizerFast

    from dupmae import DuplexConfig, DuplexEncoder
    from dupmae.models.packing import pack

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["the", "keeper", "lights", "a", "lamp", "bread", "rises", "at", "night", "ships", "see", "it"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = [*special, *words, *letters, *(f"##{letter}" for letter in letters)]
    ids = {term: number for number, term in enumerate(dict.fromkeys(vocabulary))}
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{token.strip('[]').lower()}_token": token for token in special}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=32, **names)
    config = {
        "vocab_size": len(ids),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 32,
        "initializer_range": 0.3,
    }
    torch.manual_seed(0)
    for name, kind in (("encoder", BertForMaskedLM), ("scorer", BertForSequenceClassification)):
        model = kind(BertConfig(**config, **({"num_labels": 1} if name == "scorer" else {})))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter += 0.2 * torch.randn_like(parameter)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    encoder = str(folder / "encoder")
    DuplexEncoder.from_encoder(encoder, DuplexConfig(top_k=8, dense_dimension=8)).save(str(folder / "duplex"))
    shutil.copytree(folder / "duplex", folder / "unsealed", ignore=shutil.ignore_patterns("SHA256SUMS"))
    modules = [Transformer(encoder), Pooling(16, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "embedder"), create_model_card=False)
    CrossEncoder(str(folder / "scorer"), device="cpu").save_pretrained(str(folder / "cross-encoder"))
    pack(folder / "duplex", folder / "packed")
    return {kind: folder / kind for kind in KINDS}


def use(kind: str, path: Path) -> list[np.ndarray]:
    """Open a model as the commands do, and encode two texts or score one pair."""
    import torch

    from dupmae import DuplexConfig, DuplexEncoder

    torch.manual_seed(0)
    if kind in ("duplex", "unsealed", "packed", "encoder"):
        if kind == "encoder":
            duplex = DuplexEncoder.from_encoder(str(path), DuplexConfig(top_k=8, dense_dimension=8))
        else:
            duplex = DuplexEncoder(str(path))
        documents, queries = duplex.embed_documents(TEXTS), duplex.embed_queries(TEXTS)
        return [documents.cls, documents.weights, documents.ids, queries.cls, queries.weights]
    if kind == "embedder":
        from dupmae.retrievers.vectors import load_encoder, split_kind

        vectors = load_encoder(*split_kind(str(path)))
        return [np.asarray(vectors.embed(TEXTS, "query")), np.asarray(vectors.embed(TEXTS, "document"))]
    from dupmae.corpus import Benchmark, Passage
    from dupmae.retrievers.scorers import load_cross_encoder, score_pairs

    benchmark = Benchmark("b", "test", {"p": Passage("p", "", TEXTS[1])}, {"q": TEXTS[0]}, {"q": {"p": 1}})
    return [np.array(list(score_pairs(load_cross_encoder(str(path)), benchmark, {"q": ["p"]})["q"].values()))]


# Damages


def damages(model: Path, seed: int = 0) -> Iterator[tuple[str, Damage]]:
    """Yield every damage of a model, a folder or a file, with what it is called; each is done to a copy of it."""
    if model.is_file():
        yield from ((what, _inside("", change)) for what, change in _of_bytes(model.read_bytes(), seed))
        yield from ((what, _inside("", change)) for what, change in _of_packed(model.read_bytes()))
        return
    for file in sorted(path for path in model.rglob("*") if path.is_file()):
        name, content = file.relative_to(model).as_posix(), file.read_bytes()
        if name in ("README.md", "modeling_duplex.py", "SHA256SUMS"):
            continue
        yield f"{name}: deleted", lambda copy, name=name: (copy / name).unlink()
        yield f"{name}: renamed", lambda copy, name=name: (copy / name).rename((copy / name).with_suffix(".old"))
        yield f"{name}: a folder in its place", lambda copy, name=name: _folder_for(copy / name)
        yield from ((f"{name}: {what}", _inside(name, change)) for what, change in _of_bytes(content, seed))
        if name.endswith(".json"):
            yield from ((f"{name}: {what}", _inside(name, change)) for what, change in _of_json(content))
        if name.endswith(".safetensors"):
            yield from ((f"{name}: {what}", _inside(name, change)) for what, change in _of_weights(content))
    for folder in sorted(path for path in model.iterdir() if path.is_dir()):
        yield f"{folder.name}/: deleted", lambda copy, name=folder.name: shutil.rmtree(copy / name)


def _inside(name: str, change: Callable[[bytes], bytes]) -> Damage:
    """Change a file of a copy, or the copy itself where it is a file."""

    def damage(copy: Path) -> None:
        file = copy / name if name else copy
        file.write_bytes(change(file.read_bytes()))

    return damage


def _folder_for(file: Path) -> None:
    """Put a folder in a file's place."""
    file.unlink()
    file.mkdir()


def _of_bytes(content: bytes, seed: int) -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    """Yield what may happen to any file."""
    draw = random.Random(seed)
    for part in (0.0, 0.1, 0.5, 0.9, 1.0):
        cut = min(int(part * len(content)), len(content) - 1)
        yield f"cut to {cut} bytes", lambda content, cut=cut: content[:cut]
    yield "a Git LFS pointer", lambda content: POINTER
    yield "a page of HTML", lambda content: PAGE
    yield "zeros", lambda content: bytes(len(content))
    yield "bytes behind it", lambda content: content + b"\0" * 64
    for _ in range(4):
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        yield (
            f"bit {bit} of byte {place} flipped",
            lambda content, place=place, bit=bit: (
                content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]
            ),
        )


def _of_json(content: bytes) -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    """Yield damages of a JSON file: other values in place of the whole, of each key's, and each key dropped."""
    whole = json.loads(content)
    for other in ([], {}, None, "text", 7, [1, 2], {"a": 1}):
        yield f"is {json.dumps(other)}", lambda content, other=other: json.dumps(other).encode()
    paths = list(_paths(whole))
    for path in paths if len(paths) < 80 else random.Random(0).sample(paths, 80):
        shown = ".".join(map(str, path))
        yield f"{shown} dropped", lambda content, path=path: _with(content, path, None, drop=True)
        for other in (None, "text", -1, [], {}, 10**9, 0.5):
            yield f"{shown} is {other!r}", lambda content, path=path, other=other: _with(content, path, other)


def _paths(value: Any, depth: int = 3) -> Iterator[tuple[Any, ...]]:
    """Yield the places of a JSON value's parts, of long lists and large objects the first few."""
    if depth and isinstance(value, (dict, list)):
        parts = list(value.items() if isinstance(value, dict) else enumerate(value))
        for key, part in parts if len(parts) < 40 else parts[:3]:
            yield (key,)
            yield from ((key, *rest) for rest in _paths(part, depth - 1))


def _with(content: bytes, path: tuple[Any, ...], value: Any, drop: bool = False) -> bytes:
    """Put another value into JSON, or drop the one there."""
    whole = place = json.loads(content)
    for key in path[:-1]:
        place = place[key]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(whole).encode()


def _of_weights(content: bytes) -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    """Yield damages of a safetensors file."""
    yield from _of_packed(content)
    names = sorted(_tensors(content))
    for name in names:
        yield f"{name} dropped", lambda content, name=name: _saved(_without(_tensors(content), name))
        for what, change in (
            ("not a number", lambda tensor: np.full_like(tensor, np.nan)),
            ("infinite at one place", _one_infinite),
            ("of integers", lambda tensor: (tensor * 10).astype(np.int32)),
            ("longer by a row", lambda tensor: np.concatenate([np.atleast_1d(tensor)] * 2)),
            ("shorter by a row", lambda tensor: np.atleast_1d(tensor)[:-1]),
            ("flat", lambda tensor: tensor.reshape(-1) if tensor.ndim > 1 else tensor[None]),
        ):
            yield (
                f"{name} is {what}",
                lambda content, name=name, change=change: _saved(
                    _tensors(content) | {name: change(_tensors(content)[name])}
                ),
            )
        yield (
            f"{name} under another name",
            lambda content, name=name: _saved(_renamed(_tensors(content), name, f"another.{name}")),
        )
    for one, other in pairwise(names):
        yield (
            f"{one} and {other} swapped",
            lambda content, one=one, other=other: _saved(
                _tensors(content) | {one: _tensors(content)[other], other: _tensors(content)[one]}
            ),
        )


def _of_packed(content: bytes) -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    """Yield damages of a safetensors header."""
    length = struct.unpack("<Q", content[:8])[0]
    for other in (0, 8, length - 8, length + 8, 2**40, 2**63):
        yield f"header of {other} bytes", lambda content, other=other: struct.pack("<Q", other) + content[8:]
    header = json.loads(content[8 : 8 + length])
    for name in [name for name in header if name != "__metadata__"][:8]:
        for key, value in (("dtype", "I8"), ("dtype", 3), ("shape", [2**31, 2**31]), ("data_offsets", [0, 2**50])):
            yield (
                f"header's {key} of {name} is {value}",
                lambda content, name=name, key=key, value=value: _with_header(content, (name, key), value),
            )
    for key in header.get("__metadata__", {}):
        for value in ("", "[]", "{}", "7", 7, None, "x" * 100):
            yield (
                f"header's {key} is {value!r}",
                lambda content, key=key, value=value: _with_header(content, ("__metadata__", key), value),
            )


def _with_header(content: bytes, path: tuple[str, ...], value: Any) -> bytes:
    """Change a value in a safetensors header."""
    length = struct.unpack("<Q", content[:8])[0]
    header = _with(content[8 : 8 + length], path, value)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _tensors(content: bytes) -> dict[str, np.ndarray]:
    """Read safetensors."""
    from safetensors.numpy import load

    return load(content)


def _saved(tensors: dict[str, np.ndarray]) -> bytes:
    """Write safetensors."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata={"format": "pt"})


def _without(tensors: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Leave a tensor out."""
    return {other: tensor for other, tensor in tensors.items() if other != name}


def _renamed(tensors: dict[str, np.ndarray], name: str, to: str) -> dict[str, np.ndarray]:
    """Give a tensor another name."""
    return {(to if other == name else other): tensor for other, tensor in tensors.items()}


def _one_infinite(tensor: np.ndarray) -> np.ndarray:
    """Make a tensor's middle number infinite."""
    tensor = tensor.copy()
    tensor.reshape(-1)[tensor.size // 2] = np.inf
    return tensor


# Trying


def outcome(kind: str, model: Path, damage: Damage | None, work: Path) -> tuple[str, Any]:
    """Open a damaged copy of a model in a process of its own.

    Returns:
        `opened` and its numbers, `refused` and the sentence, `traceback` and the error, `hang` or `signal`.
    """
    copy = work / model.name
    (shutil.copytree if model.is_dir() else shutil.copy)(model, copy)
    result = work / "result"
    try:
        if damage is not None:
            damage(copy)
        child = os.fork()
        if not child:
            _child(kind, copy, result)
        begun = time.monotonic()
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() - begun > SECONDS:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return "hang", f"more than {SECONDS} s"
            time.sleep(0.005)
        if os.WIFSIGNALED(ended[1]) or not result.exists():
            return "signal", ended[1]
        told: tuple[str, Any] = pickle.loads(result.read_bytes())  # its own process wrote it
        return told
    finally:
        for path in (copy, result):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _child(kind: str, copy: Path, result: Path) -> None:
    """Use the copy, note what came of it, and end."""
    from dupmae.errors import DupmaeError

    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        told: tuple[str, Any] = ("opened", use(kind, copy))
    except DupmaeError as error:
        told = ("refused", str(error))
    except BaseException as error:
        told = ("traceback", f"{type(error).__name__}: {error}")
    result.with_suffix(".part").write_bytes(pickle.dumps(told))
    result.with_suffix(".part").rename(result)
    os._exit(0)


def verdict(told: tuple[str, Any], whole: list[np.ndarray]) -> str:
    """Name what an outcome is: `same` and `refused` are right, all others faults."""
    what, value = told
    if what == "opened":
        same = len(value) == len(whole) and all(
            one.shape == other.shape and np.allclose(one, other, atol=1e-6)
            for one, other in zip(value, whole, strict=True)
        )
        return "same" if same else "another result"
    if what == "refused" and (len(value) > LONGEST or "\n" in value or not value.strip()):
        return "no sentence"
    return what


def main() -> None:
    """Damage, open and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--every", type=int, default=1, help="try one damage of so many")
    parser.add_argument("--json", type=Path, help="file for every outcome")
    arguments = parser.parse_args()
    record: dict[str, dict[str, list[str]]] = {}
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = os.environ["DUPMAE_CACHE"] = str(Path(place) / "cache")
        models = write_models(Path(place))
        for kind in arguments.kinds:
            work = Path(place) / "work"
            work.mkdir(exist_ok=True)
            what, whole = outcome(kind, models[kind], None, work)
            if what != "opened":
                sys.exit(f"the whole {kind} does not open: {whole}")
            counts: Counter[str] = Counter()
            for name, damage in list(damages(models[kind]))[:: arguments.every]:
                told = outcome(kind, models[kind], damage, work)
                found = verdict(told, whole)
                counts[found] += 1
                detail = "" if told[0] == "opened" else " ".join(str(told[1]).split())[:300]
                record.setdefault(kind, {}).setdefault(found, []).append(f"{name}: {detail}")
            print(f"{kind}: {sum(counts.values())} damages: {dict(counts.most_common())}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
