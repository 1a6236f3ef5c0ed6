"""Check a model's files before anything of them is loaded: readable, whole, of the right content."""

from __future__ import annotations

import math
import struct
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from dupmae.errors import DupmaeError
from dupmae.models.checksums import verify_checksums
from dupmae.runtime.json_text import parse_json, parse_strict_json

POINTER = b"version https://git-lfs"
"""How a Git LFS pointer begins, which stands in a file's place where only Git has fetched it."""
PAGES = (b"<!doctype", b"<html", b"<?xml")
"""How a page of the web begins, which a download may leave where the file was not to be had."""
MOST_HEADER = 100_000_000
"""Bytes of a safetensors header, at most; the library's own bound."""
MOST_JSON = 50_000_000
"""Bytes of a file of settings, at most."""
BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6} | {
    name: bits
    for bits, names in {
        8: "U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
        16: "I16 U16 F16 BF16",
        32: "I32 U32 F32",
        64: "I64 U64 F64 C64",
    }.items()
    for name in names.split()
}
"""What safetensors calls data types -> bits of a number."""
COUNTS = ("position_ids", "token_type_ids", "num_batches_tracked")
"""What tensors of whole numbers are called, which older checkpoints hold beside their weights."""
SETTINGS = (
    "config.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "adapter_config.json",
    "*.index.json",
    "dupmae.json",
)
"""Files that hold a JSON object."""
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Where an encoder's weights may be."""
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.bpe", "*.tiktoken", "tekken.json")
"""Where a tokenizer's entries may be."""
OF_DUPLEX = ("config.json", "config_sentence_transformers.json", "sentence_bert_config.json")
"""What a duplex model holds besides its modules' own files."""

SIZES = ("hidden_size", "vocab_size", "intermediate_size", "max_position_embeddings", "num_hidden_layers")
"""What a configuration calls the sizes that decide how much memory an encoder takes."""
MOST_LAYERS = 2000
"""An encoder's layers, at most."""
TRACES = ("1_Pooling", "1_DuplexPooling")
"""What models of sentence-transformers hold beside their `modules.json`."""
DECLARATION = "config_sentence_transformers.json"
"""Prompts and the class of a model of sentence-transformers; with prompts alone it may lie beside any encoder."""
CLASSES = ("SentenceTransformer", "SparseEncoder", "CrossEncoder", "MultiVectorEncoder")
"""What sentence-transformers writes as a model's class."""
AGAIN = "fetch or save the model again."
"""What to do about most of it."""

Tensors = dict[str, tuple[str, list[int]]]
"""Data type and shape by name."""


def check_files(folder: Path, label: str) -> None:
    """Refuse a model folder whose files cannot be what they should be.

    Reads settings, headers and (where there are any) checksums, no more.

    Args:
        folder: The model.
        label: What the user calls it.

    Raises:
        DupmaeError: A file is missing, damaged or cut, or is of other content; or a module lies outside of the folder
            or is of a class that only code within the folder defines.
    """
    modules = read_modules(folder, label)
    for place in sorted({"", *(module["path"] for module in modules or [])}):
        _check_place(folder / place, label, folder)
    declared = read_object(folder / DECLARATION, label, folder).get("model_type")
    traces = [name for name in TRACES if _is_there(folder / name)]
    traces += [DECLARATION] * (declared not in (None, "CrossEncoder"))
    if modules is None and traces:
        raise DupmaeError(f"{label} holds {traces[0]}, but no modules.json, which says what to do with it: {AGAIN}")
    modules = modules or [{"type": "Transformer", "path": ""}]
    if declared not in (None, *CLASSES):
        raise DupmaeError(
            f"{label}: {DECLARATION} has the model_type {str(declared)[:60]!r}, which is none of "
            f"{', '.join(CLASSES)}: {AGAIN}"
        )
    for module in modules:
        inside = folder / module["path"]
        if module["type"].endswith("Transformer"):
            _check_encoder(inside, label, folder)
        if module["type"].endswith(".DuplexPooling"):
            for file in (*(folder / name for name in OF_DUPLEX), inside / "config.json", inside / "model.safetensors"):
                _require(file, label, folder)
    verify_checksums(folder, label)


def read_modules(folder: Path, label: str) -> list[dict[str, str]] | None:
    """Read what `modules.json` lists: each module's `path` and `type`; None without that file.

    Raises:
        DupmaeError: It is no such list, or a module lies outside of the folder or is of a foreign class.
    """
    file = folder / "modules.json"
    if not _is_there(file):
        return None
    _check_file(file, label, folder)
    listed = _parse(file, label, folder)
    fields = ("path", "type")
    if not isinstance(listed, list) or not listed:
        raise DupmaeError(f"{label}: modules.json is no list of modules: {AGAIN}")
    for module in listed:
        if not isinstance(module, dict) or not all(isinstance(module.get(field), str) for field in fields):
            raise DupmaeError(f"{label}: modules.json lists a module without its path or type: {AGAIN}")
        path, kind = module["path"], module["type"]
        if leads_out(path):
            raise DupmaeError(
                f"{label}: modules.json names {path[:80]!r}, outside of the folder: do not use this model."
            )
        if not (kind.startswith("sentence_transformers.") or kind.endswith(".DuplexPooling")):
            raise DupmaeError(
                f"{label}: modules.json names the class {kind[:80]!r}, whose code would have to be run from the model: "
                "dupmae runs none; name another model."
            )
    names = [module["name"] for module in listed if isinstance(module.get("name"), str)]
    if len(set(names)) < len(names):
        raise DupmaeError(f"{label}: modules.json gives two modules one name: {AGAIN}")
    return listed


def read_header(file: Path, label: str, root: Path) -> Tensors:
    """Read data type and shape of each tensor in a safetensors file; see :func:`read_places`."""
    _, tensors = read_places(file, label, root)
    return {tensor: (entry["dtype"], entry["shape"]) for tensor, entry in tensors.items()}


def read_places(file: Path, label: str, root: Path) -> tuple[int, dict[str, Any]]:
    """Read what a safetensors file says of its tensors, and verify that its bytes are all there.

    Returns:
        Where the tensors begin, and by name their `dtype`, `shape` and, from there on, `data_offsets`.

    Raises:
        DupmaeError: It is no such file, or a damaged or cut one.
    """
    name, size = _inside(file, root), file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MOST_HEADER, size - 8):
            raise DupmaeError(f"{label}: {name} is no safetensors file, or its beginning is damaged or cut: {AGAIN}")
        content = opened.read(length)
    try:
        header = parse_strict_json(content.decode())
        tensors = {tensor: entry for tensor, entry in header.items() if tensor != "__metadata__"}
        ends = _places(tensors)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise DupmaeError(f"{label}: the header of {name} is damaged: {AGAIN}") from None
    if ends != size - 8 - length:
        found, right = size - 8 - length, ends
        what = f"holds {found:,} of {right:,} bytes" if found < right else f"holds {found - right:,} bytes too many"
        raise DupmaeError(f"{label}: {name} {what}: {AGAIN}")
    return 8 + length, tensors


def _places(tensors: dict[str, Any]) -> int:
    """Verify that tensors lie one behind the other, each as long as its shape says; tell where the last one ends."""
    end = 0
    for entry in sorted(tensors.values(), key=lambda entry: tuple(entry["data_offsets"])):
        begin, stop = entry["data_offsets"]
        shape = entry["shape"]
        if not all(isinstance(number, int) and number >= 0 for number in (begin, stop, *shape)):
            raise ValueError("a negative number")
        if begin != end or (stop - begin) * 8 != BITS[entry["dtype"]] * math.prod(shape):
            raise ValueError("a gap")
        end = int(stop)
    return end


def _check_place(place: Path, label: str, root: Path) -> None:
    """Refuse files in the folder of a model or of one of its modules that are not what they should be."""
    for file in sorted(place.glob("*")):
        if any(file.match(pattern) for pattern in (*SETTINGS, *VOCABULARIES, "*.safetensors", "*.bin")):
            _check_file(file, label, root)
        elif file.exists() and not file.is_file() and not file.is_dir():
            raise DupmaeError(f"{label}: {_inside(file, root)} is a pipe or a device: {AGAIN}")
    quantised = "quantization_config" in read_object(root / "config.json", label, root)
    for file in sorted(place.glob("*.safetensors")):
        kinds = {name: kind for name, (kind, _) in read_header(file, label, root).items() if not name.endswith(COUNTS)}
        odd = [name for name, kind in kinds.items() if kind[0] in "IUB" and kind != "BF16"]
        if odd and not quantised:
            raise DupmaeError(
                f"{label}: {_inside(file, root)} holds {odd[0]} in whole numbers ({kinds[odd[0]]}), where weights are "
                f"floating-point numbers: {AGAIN}"
            )
    for file in sorted(place.glob("*.index.json")):
        _check_shards(file, label, root)


def _check_encoder(folder: Path, label: str, root: Path) -> None:
    """Refuse an encoder's folder that lacks its settings, weights or tokenizer."""
    _check_sizes(folder, label, root)
    adapted = _is_there(folder / "adapter_config.json")
    if not adapted:
        _require(folder / "config.json", label, root)
    if not any(_is_there(folder / name) for name in (ADAPTERS if adapted else WEIGHTS)):
        raise DupmaeError(f"{label} holds no weights: {_inside(folder / WEIGHTS[0], root)} is missing: {AGAIN}")
    if not any(next(folder.glob(name), None) for name in VOCABULARIES):
        raise DupmaeError(
            f"{label} has no tokenizer: {_inside(folder / 'tokenizer.json', root)} is missing; copy the tokenizer's "
            "files from where the model comes from."
        )


def _check_sizes(folder: Path, label: str, root: Path) -> None:
    """Refuse an encoder's settings that ask for far more memory than its weights have numbers."""
    config = read_object(folder / "config.json", label, root)
    numbers = sum(file.stat().st_size for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern))
    sizes = {name: config[name] for name in SIZES if isinstance(config.get(name), int)}
    width = sizes.get("hidden_size", 1)
    if sizes.get("num_hidden_layers", 0) > MOST_LAYERS or width * max(sizes.values(), default=0) > 8 * numbers + 10**6:
        shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DupmaeError(f"{label}: config.json has sizes that its weights cannot have ({shown}): {AGAIN}")


def _check_shards(file: Path, label: str, root: Path) -> None:
    """Refuse weights in several files if one that the index names is missing."""
    named = read_object(file, label, root).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(shard, str) for shard in named.values()):
        raise DupmaeError(f"{label}: {_inside(file, root)} names no files of weights: {AGAIN}")
    for shard in sorted(set(named.values())):
        if leads_out(shard):
            raise DupmaeError(
                f"{label}: {file.name} names {shard[:80]!r}, outside of the folder: do not use this model."
            )
        _require(file.with_name(shard), label, root)


def _check_file(file: Path, label: str, root: Path) -> None:
    """Refuse what is no file, a pointer or a web page instead of one, and settings that are no JSON object."""
    name = _inside(file, root)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "is a link that leads nowhere" if file.is_symlink() else "is no file"
        raise DupmaeError(f"{label}: {name} {what}, where a file of the model belongs: {AGAIN}")
    try:
        with file.open("rb") as opened:
            start = opened.read(len(POINTER))
    except OSError as error:
        raise DupmaeError(f"{label}: {name} cannot be read ({(error.strerror or '').lower()}).") from None
    if start == POINTER:
        raise DupmaeError(f"{label}: {name} is a Git LFS pointer instead of the file: fetch it with git lfs pull.")
    if not start.strip(b"\0 \n"):
        raise DupmaeError(f"{label}: {name} is empty or holds zeros alone: {AGAIN}")
    if start.lower().startswith(PAGES):
        raise DupmaeError(f"{label}: {name} is a page of the web instead of the file: {AGAIN}")
    if any(file.match(pattern) for pattern in SETTINGS):
        read_object(file, label, root)


def _require(file: Path, label: str, root: Path) -> None:
    """Refuse a model without a file."""
    if not _is_there(file):
        raise DupmaeError(f"{label} lacks {_inside(file, root)}: {AGAIN}")


def read_object(file: Path, label: str, root: Path) -> dict[str, Any]:
    """Read a JSON object; empty where there is no such file."""
    if not _is_there(file):
        return {}
    found = _parse(file, label, root)
    if not isinstance(found, dict):
        raise DupmaeError(f"{label}: {_inside(file, root)} holds no JSON object: {AGAIN}")
    return found


def _parse(file: Path, label: str, root: Path) -> Any:
    """Read a JSON file of bounded size."""
    if file.stat().st_size > MOST_JSON:
        raise DupmaeError(f"{label}: {_inside(file, root)} is larger than settings are: {AGAIN}")
    try:
        return parse_json(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        raise DupmaeError(f"{label}: {_inside(file, root)} cannot be read as JSON: {AGAIN}") from None


def _is_there(path: Path) -> bool:
    """Tell whether there is something of a name, even a link that leads nowhere."""
    return path.exists() or path.is_symlink()


def leads_out(path: str) -> bool:
    """Tell whether a relative path leads out of its folder, on this system or another."""
    return any(
        kind(path).is_absolute() or kind(path).drive or ".." in kind(path).parts
        for kind in (PurePosixPath, PureWindowsPath)
    )


def _inside(file: Path, root: Path) -> str:
    """Name a file by its path in the model's folder."""
    return file.relative_to(root).as_posix()
