"""Pack a model folder into one small safetensors file: matrices in a few bits a weight, everything else as it is.

| tensor | what |
|---|---|
| `0`, `1`, ... | a matrix's levels as a zlib stream, a vector in float16, anything else as it was |
| `0.rows`, `0.columns` | of a matrix: what its rows and columns are multiplied with, float16 |
| `file:NAME` | a file without weights, compressed with xz |

The header says which tensor of which file each number is; tensors that are equal are stored once. A weight w_ij of b
bits is r_i c_j (u_ij - (2^b - 1) / 2) with u_ij = 0 .. 2^b - 1: c_j is the root mean square of column j, so that an
encoder's few wide columns do not take all others' levels, and r_i is chosen for the least squared error of row i.

A later edition of a model may be packed beside an earlier one: it then holds what differs alone, and its header names
the earlier file by its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder, atomic_path, file_sha256
from dupmae.models.checks import leads_out, read_header
from dupmae.models.checksums import write_checksums
from dupmae.models.files import STATIC_FILE
from dupmae.runtime.bars import bar
from dupmae.runtime.checksums import CHECKSUMS_FILE
from dupmae.runtime.json_text import parse_json

FORMAT = "dupmae-packed"
"""What the header's `format` says."""
VERSION = 1
"""Of the layout, the header's `version`."""
VERSION_WITH_BASE = 2
"""Of a file that leaves out what another one holds."""
OF_BASE = "base:"
"""What stands before the names of the parts of that other file."""
MOST_ERROR = 0.03
"""Relative error above which a matrix that is not of the vocabulary is kept in float16."""
SPANS = np.linspace(0.3, 1.0, 15)
"""Fractions of a row's largest weight that the outermost level is tried at."""
BLOCK = 4096
"""Rows worked on at a time."""
TINY = np.float32(1e-30)
"""What is divided by instead of zero."""

MOST_TEXT = 300_000_000
"""Bytes of all files without weights, unpacked, at most: xz makes thousands of bytes of one."""
MOST_MEMORY = 200_000_000
"""Bytes that xz may take for that; what :func:`pack` writes needs a third."""
MOST_GROWTH = 100
"""How often their size in a packed file weights may take, at most: 32 times at a bit a level, twice where tied."""

Record = dict[str, Any]


def pack(
    folder: Path, file: Path, bits: int = 8, vocabulary_bits: int = 8, base: Path | None = None
) -> dict[str, float]:
    """Pack a model folder into one file.

    Args:
        folder: A Hugging Face or sentence-transformers folder whose weights are safetensors.
        file: Where to; replaced if it is there.
        bits: Of a weight in a matrix, 2 to 8.
        vocabulary_bits: The same in the matrices that have a row for each term of the vocabulary.
        base: A packed model; what is equal to the bit in it is left out, and taken from there again. None packs all.

    Returns:
        `bytes` of the file, and the largest relative error (Frobenius norm) of a matrix, `error`.

    Raises:
        DupmaeError: `folder` holds no weights in safetensors, no `config.json` with a `vocab_size`, or a link that
            leads out of it; `file` lies in it; or a width that is not between 2 and 8.
    """
    for name, width in (("bits", bits), ("vocabulary_bits", vocabulary_bits)):
        if not 2 <= width <= 8:
            raise DupmaeError(f"{name} is {width}: a weight takes 2 to 8 bits")
    if file.resolve().is_relative_to(folder.resolve()):
        raise DupmaeError(f"{file} lies in the folder {folder} that is packed: name a file outside of it")
    files = _files_of(folder)
    sources = [path for path in files if path.suffix == ".safetensors"]
    if not sources:
        raise DupmaeError(f"{folder} holds no weights: there is no .safetensors file in it")
    terms = _vocabulary_size(folder)
    parts: dict[str, npt.NDArray[Any]] = {}
    records: list[Record] = []
    known = {} if base is None else _known_of(base)
    inherited, worst = len(known), 0.0
    for source in sources:
        for name, tensor in bar(sorted(_tensors(source).items()), "Pack", "tensors"):
            place = {"file": source.relative_to(folder).as_posix(), "name": name}
            content = _content(tensor)
            if content not in known:
                of_vocabulary = tensor.shape[:1] == (terms,)
                width = vocabulary_bits if of_vocabulary else bits
                most = np.inf if of_vocabulary else MOST_ERROR
                known[content], error = _store(tensor, width, most, str(len(known) - inherited), parts)
                worst = max(worst, error)
            records.append(place | known[content])
    for path in files:
        if path.suffix != ".safetensors":
            packed = lzma.compress(path.read_bytes(), preset=9)
            parts[f"file:{path.relative_to(folder).as_posix()}"] = np.frombuffer(packed, dtype=np.uint8)
    header = {"format": FORMAT, "version": str(VERSION), "tensors": json.dumps(records)}
    if base is not None:
        header |= {"version": str(VERSION_WITH_BASE), "base": file_sha256(base)}
    with atomic_path(file) as temporary:
        save_file(parts, temporary, metadata=header)
        size = temporary.stat().st_size
    return {"bytes": size, "error": worst}


def unpack(file: Path, folder: Path, base: Path | None = None) -> None:
    """Unpack a file into a model folder with checksums, its weights in float32; whole or not at all.

    Args:
        file: The packed model.
        folder: Where to.
        base: The packed model that it was packed beside, if it was.

    Raises:
        DupmaeError: The file is not a packed model, a damaged one, one whose header lies, or `base` is not its own.
    """
    records = _records(file, base)
    try:
        sizes, parts = _sizes_of(file), load_file(file)
        texts = _texts(parts)
        if base is not None:
            sizes |= {OF_BASE + name: shape for name, shape in _sizes_of(base).items()}
            parts |= {OF_BASE + name: part for name, part in load_file(base).items()}
        _refuse_lies(records, sizes, set(texts), sum(part.nbytes for part in parts.values()))
        weights: dict[str, dict[str, npt.NDArray[Any]]] = {}
        for record in records:
            weights.setdefault(record["file"], {})[record["name"]] = _restore(record, parts)
    except (
        KeyError,
        ValueError,
        TypeError,
        IndexError,
        OverflowError,
        SafetensorError,
        lzma.LZMAError,
        zlib.error,
    ) as error:
        raise DupmaeError(f"{file} is damaged: fetch it again") from error
    names = {*weights, *texts}
    for name in names:
        path = PurePosixPath(name)
        if leads_out(name) or not path.name or "\0" in name or not names.isdisjoint(map(str, path.parents)):
            raise DupmaeError(f"{file} holds a file {name[:80]!r} outside of its folder or of no name: do not use it")
    with atomic_folder(folder) as temporary:
        for name in (*weights, *texts):
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        for name, tensors in weights.items():
            save_file(tensors, temporary / name, metadata={"format": "pt"})
        for name, content in texts.items():
            (temporary / name).write_bytes(content)
        write_checksums(temporary)


def _sizes_of(file: Path) -> dict[str, list[int]]:
    """Read the shapes of a packed file's parts from its header."""
    return {name: shape for name, (_, shape) in read_header(file, str(file), file.parent).items()}


def _known_of(base: Path) -> dict[str, Record]:
    """Find the records of a packed file, under :func:`_content` of the tensors that they restore."""
    parts, known = load_file(base), dict[str, Record]()
    for record in _records(base, None):
        values = {key: record[key] for key in record.keys() - {"file", "name"}}
        known[_content(_restore(record, parts))] = values | {"part": OF_BASE + record["part"]}
    return known


def _content(tensor: npt.NDArray[Any]) -> str:
    """Tell tensors apart by type, shape and every number."""
    return hashlib.sha256(f"{tensor.dtype} {tensor.shape}".encode() + tensor.tobytes()).hexdigest()


def _files_of(folder: Path) -> list[Path]:
    """List the files of a model's folder that are packed: none that is hidden, no checksums, which it gets anew, and no
    table for static queries, which was made for other weights than rounded ones.

    Raises:
        DupmaeError: A link leads out of the folder, or is no file.
    """
    places = [folder.resolve()]
    if folder.parent.name == "snapshots":  # the hub's cache, whose files are links to its blobs
        places.append(folder.resolve().parents[1] / "blobs")
    files = []
    for path in sorted(folder.rglob("*")):
        within = path.relative_to(folder)
        if any(part.startswith(".") for part in within.parts) or path.name in (CHECKSUMS_FILE, STATIC_FILE):
            continue
        if path.is_symlink() and not any(path.resolve().is_relative_to(place) for place in places):
            raise DupmaeError(f"{path} is a link that leads out of the folder: delete it, or put the file in its place")
        if path.is_file():
            files.append(path)
        elif path.is_symlink() or not path.is_dir():
            raise DupmaeError(f"{path} is no file: a packed model holds files alone")
    return files


def _texts(parts: dict[str, npt.NDArray[Any]]) -> dict[str, bytes]:
    """Decompress the files without weights, within :data:`MOST_TEXT` bytes in all."""
    left = MOST_TEXT
    texts = {}
    for name, part in parts.items():
        if name.startswith("file:"):
            reader = lzma.LZMADecompressor(memlimit=MOST_MEMORY)
            texts[name[5:]] = reader.decompress(part.tobytes(), max_length=left + 1)
            left -= len(texts[name[5:]])
            if left < 0 or not reader.eof:
                raise ValueError("more than a model's files hold, or cut")
    return texts


def _refuse_lies(records: list[Record], sizes: dict[str, list[int]], texts: set[str], size: int) -> None:
    """Verify that records are what :func:`pack` writes, and ask for no more memory than its files can.

    Raises:
        ValueError: They are not (or another error of what has no such keys and types).
    """
    numbers, names = 0, set[tuple[str, str]]()
    for record in records:
        file, name, shape, stored = record["file"], record["name"], record["shape"], sizes[record["part"]]
        if not all(isinstance(length, int) and length >= 0 for length in shape):
            raise ValueError("no shape")
        count = math.prod(shape)
        numbers += count
        if "bits" in record:
            rows, columns = shape
            # Huffman's code takes a bit a level or more
            whole = count <= 8 * stored[0] and [sizes[f"{record['part']}.{side}"] for side in ("rows", "columns")] == [
                [rows],
                [columns],
            ]
            if not (whole and isinstance(record["bits"], int) and 2 <= record["bits"] <= 8):
                raise ValueError("other lengths")
        elif count != math.prod(stored):
            raise ValueError("another length")
        if (file, name) in names or file in texts or not file.endswith(".safetensors") or not isinstance(name, str):
            raise ValueError("a name twice")
        names.add((file, name))
    if 4 * numbers > MOST_GROWTH * size + 2**20:
        raise ValueError("one part for many tensors")


def is_packed(file: Path) -> bool:
    """Tell whether a file is a packed model."""
    try:
        with safe_open(file, "numpy") as opened:
            return (opened.metadata() or {}).get("format") == FORMAT
    except (OSError, SafetensorError):
        return False


def _records(file: Path, base: Path | None) -> list[Record]:
    """Read which tensor of which file each part is.

    Raises:
        DupmaeError: The file is not a packed model, one of a later version, or `base` is not what it was packed beside.
    """
    if not is_packed(file):
        raise DupmaeError(f"{file} is not a packed model")
    with safe_open(file, "numpy") as opened:
        header = opened.metadata()
    try:
        version, records = int(header["version"]), parse_json(header["tensors"])
    except (KeyError, ValueError):
        raise DupmaeError(f"{file} is damaged: fetch it again") from None
    if version > VERSION_WITH_BASE:
        raise DupmaeError(f"{file} was written by a later version of dupmae: install that, or pack the model again")
    if header.get("base") != (None if base is None else file_sha256(base)):
        raise DupmaeError(f"{file} holds what differs from another packed model alone, and that one is not at hand")
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DupmaeError(f"{file} is damaged: fetch it again")
    return records


def _vocabulary_size(folder: Path) -> int:
    """Read the size of the vocabulary from `config.json`."""
    try:
        return int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DupmaeError(f"{folder} is not a model folder: its config.json names no vocab_size") from error


def _tensors(source: Path) -> dict[str, npt.NDArray[Any]]:
    """Read a safetensors file's tensors; bfloat16, which NumPy does not know, as float32."""
    import torch
    from safetensors.torch import load_file as load_tensors

    return {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        for name, tensor in load_tensors(source).items()
    }


def _store(
    tensor: npt.NDArray[Any], bits: int, most_error: float, key: str, parts: dict[str, npt.NDArray[Any]]
) -> tuple[Record, float]:
    """Put a tensor into `parts`; give its record and the relative error of the matrix that will be restored."""
    shape = list(tensor.shape)
    if tensor.dtype.kind != "f":
        parts[key] = np.ascontiguousarray(tensor)
        return {"part": key, "shape": shape}, 0.0
    values = tensor.astype(np.float32)
    if tensor.ndim == 2 and tensor.any():
        columns = np.sqrt(np.square(values).mean(axis=0)).astype(np.float16)
        levels, rows = _quantise(values / np.maximum(columns.astype(np.float32), TINY), bits)
        restored = _values(levels, rows, bits) * columns.astype(np.float32)
        error = float(np.linalg.norm(restored - values) / np.linalg.norm(values))
        if error <= most_error:
            parts[key], parts[f"{key}.rows"], parts[f"{key}.columns"] = _compressed(levels), rows, columns
            return {"part": key, "shape": shape, "bits": bits}, error
    parts[key] = values.astype(np.float16)
    return {"part": key, "shape": shape, "float": True}, 0.0


def _restore(record: Record, parts: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Restore a tensor from its record."""
    part, shape = parts[record["part"]], record["shape"]
    if "bits" in record:
        levels = _decompressed(part, shape[0] * shape[1]).reshape(shape)
        rows, columns = (parts[f"{record['part']}.{side}"] for side in ("rows", "columns"))
        return _values(levels, rows, record["bits"]) * columns.astype(np.float32)
    return part.reshape(shape).astype(np.float32 if "float" in record else part.dtype)


def _quantise(values: npt.NDArray[np.float32], bits: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    """Find levels (R, C) and their rows' factors (R,) with the least squared error among `SPANS`, for values (R, C)."""
    largest, middle = 2**bits - 1, (2**bits - 1) / 2
    levels = np.empty(values.shape, dtype=np.uint8)
    factors = np.empty(len(values), dtype=np.float16)
    for start in range(0, len(values), BLOCK):
        rows = values[start : start + BLOCK]
        widest = np.abs(rows).max(axis=1) / middle
        least = np.full(len(rows), np.inf)
        for span in SPANS:
            tried = (span * widest).astype(np.float16)
            steps = np.maximum(tried.astype(np.float32), TINY)[:, None]
            found = np.clip(np.rint(rows / steps + middle), 0, largest).astype(np.uint8)
            errors = np.square(_values(found, tried, bits) - rows).sum(axis=1)
            better = errors < least
            least[better] = errors[better]
            levels[start : start + BLOCK][better] = found[better]
            factors[start : start + BLOCK][better] = tried[better]
    return levels, factors


def _values(levels: npt.NDArray[np.uint8], rows: npt.NDArray[np.float16], bits: int) -> npt.NDArray[np.float32]:
    """Multiply levels (R, C) out with their rows' factors (R,), before the columns' are applied."""
    centred = levels.astype(np.float32) - np.float32((2**bits - 1) / 2)
    return centred * rows.astype(np.float32)[:, None]


def _compressed(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Compress levels by Huffman's code alone: rounded weights repeat nothing, but the middle levels are frequent."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    return np.frombuffer(packer.compress(levels.tobytes()) + packer.flush(), dtype=np.uint8)


def _decompressed(part: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint8]:
    """Undo :func:`_compressed`, for `count` levels at most."""
    return np.frombuffer(zlib.decompressobj().decompress(part.tobytes(), count), dtype=np.uint8)
