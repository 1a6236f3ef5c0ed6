"""The one file that says what an index holds; replacing it is what commits a change."""

from __future__ import annotations

import os
import re
import reprlib
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dupmae.duplex.words import WordSpace, check_space
from dupmae.errors import DupmaeError
from dupmae.files import fingerprint, write_json
from dupmae.models.names import edition_of
from dupmae.runtime.json_text import parse_json

FORMAT = "dupmae-index"
FORMAT_VERSION = 5
OLDEST_VERSION = 2
"""The oldest version that is read. It knows no precision, it and the next one know no words, and none before the
present one knows chunks, or metadata that are no strings."""
FILE_NAME = "manifest.json"
MOST_BYTES = 1 << 26
"""Bytes of a manifest, at most: a segment takes less than a thousand."""
MAX_PASSAGES = 65_536
"""Passages in a segment."""
SEGMENT_FILES = ("vectors.safetensors", "ids.arrow", "texts.arrow")
"""What lies in a segment's folder, see `segments` and `passages`."""
CHUNKS_FILE = "chunks.arrow"
"""What lies there, too, if one of its passages is a chunk."""


@dataclass(frozen=True, kw_only=True)
class SegmentEntry:
    """What the manifest says of one segment."""

    name: str
    """Folder, relative to the index."""
    passages: int
    """How many passages it holds, deleted ones included."""
    deleted: int = 0
    """How many of them are deleted."""
    fingerprint: str
    """Of its passages in the order they were given; empty after compaction."""
    files: dict[str, dict[str, Any]]
    """File name to `{"bytes": size, "xxh3": checksum}`."""


@dataclass(kw_only=True)
class Manifest:
    """The committed state of an index folder, as written to `manifest.json`."""

    model: str
    """The model's path as it was given."""
    model_relative: str | None
    """The model's path relative to the index; None when the model is not a local folder."""
    model_fingerprint: str
    """Of the model's files, see :attr:`dupmae.models.Model.fingerprint`."""
    cls_dimension: int
    """d'."""
    vocabulary_size: int
    """V."""
    top_k: int
    """Terms kept of a passage, at most."""
    segment_passages: int
    """Passages in a segment that is full."""
    complete: bool = False
    """False while a build has passages left to encode."""
    next_number: int = 1
    """Number of the next file or folder; none is used twice, so an old manifest never names new content."""
    segments: list[SegmentEntry] = field(default_factory=list)
    """In the order they were committed."""
    deleted: dict[str, Any] | None = None
    """File of the deleted passages: `{"name", "bytes", "xxh3"}`; None when nothing is deleted."""
    clusters: dict[str, Any] | None = None
    """File of the clusters for approximate search: `{"name", "bytes", "xxh3", "segments"}`; None without."""
    precision: str | None = None
    """Arithmetic that passages were encoded in, `float32`, `bfloat16` or `int8`, and queries are, but for `int8`; None
    where that was not kept, which takes what pays on the machine."""
    words: dict[str, Any] | None = None
    """How words became terms, the values of a :class:`dupmae.duplex.words.WordSpace`; None in an index without."""
    chunks: dict[str, int] | None = None
    """How documents were cut at building, `{"tokens", "overlap"}`; None where passages are as they came."""

    @property
    def cut(self) -> tuple[int, int]:
        """The tokens of a chunk and those that chunks share, at building; both 0 where passages are as they came."""
        return (0, 0) if self.chunks is None else (self.chunks["tokens"], self.chunks["overlap"])

    @property
    def word_space(self) -> WordSpace | None:
        """How words became terms; None in an index without words."""
        return None if self.words is None else WordSpace(**self.words)

    @property
    def passages(self) -> int:
        """Passages that can be found."""
        return sum(segment.passages - segment.deleted for segment in self.segments)

    def new_name(self, kind: str) -> str:
        """Choose a name that was never used in this index."""
        self.next_number += 1
        return f"{kind}-{self.next_number - 1:06d}"

    def write(self, folder: Path) -> None:
        """Commit: replace the manifest in `folder` atomically."""
        values = {"passages": self.passages} | asdict(self)
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "check": fingerprint(values)}
        write_json(folder / FILE_NAME, head | values)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of an index folder.

        Raises:
            DupmaeError: There is none, it is unreadable, or another version of this package wrote it.
        """
        path = folder / FILE_NAME
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            if any(folder.glob("process-*-of-*")):
                raise DupmaeError(
                    f"The index {folder} is unfinished: run the command that builds it again, it goes on from there."
                ) from None
            raise DupmaeError(
                f"{folder} is not an index: it has no {FILE_NAME}; build one with `dupmae index build`."
            ) from None
        if path.is_symlink() or not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            raise DupmaeError(f"{path} is a link, no file, or larger than {MOST_BYTES} bytes: it is no manifest.")
        try:
            values = parse_json(path.read_bytes())
            if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
                raise DupmaeError(f"{path} is not the manifest of an index: it does not say format {FORMAT!r}.")
            version = values.pop("format_version")
            if type(version) is not int or not OLDEST_VERSION <= version <= FORMAT_VERSION:
                remedy = "build the index again" if version < OLDEST_VERSION else "install a newer dupmae"
                raise DupmaeError(
                    f"{path} has format version {version} and this package reads version {FORMAT_VERSION}: {remedy}."
                )
            if values.pop("check") != fingerprint(values):
                raise ValueError("its content does not have the fingerprint it was written with")
            return _manifest(values)
        except (ValueError, KeyError, TypeError) as error:
            raise DupmaeError(f"{path} is damaged ({str(error)[:200]}): build the index again.") from error

    def model_path(self, folder: Path) -> str:
        """Find the model: where it was relative to the index if it is still there, else the path or name as given.

        Of a name that means a newer edition by now, the edition that built the index is found.
        """
        if self.model_relative is not None and (folder / self.model_relative).is_dir():
            return os.path.normpath(folder / self.model_relative)
        return edition_of(self.model, self.model_fingerprint)


def relative_model(folder: Path, model: str) -> str | None:
    """Find the model's path relative to the index folder; None when it is not a local folder."""
    return os.path.relpath(Path(model).resolve(), folder.resolve()) if Path(model).is_dir() else None


def _manifest(values: dict[str, Any]) -> Manifest:
    """Make a manifest of values that were read, unless one is missing, unknown, of another type or out of range.

    Raises:
        ValueError: Says which.
    """
    passages = values.pop("passages", None)
    _refuse_others(values, _MANIFEST, {field.name for field in fields(Manifest)} - {"precision", "words", "chunks"})
    segments = []
    for entry in values.pop("segments"):
        _refuse_others(entry, _SEGMENT, _SEGMENT.keys())
        segments.append(SegmentEntry(**entry))
    manifest = Manifest(segments=segments, **values)
    names = [entry.name for entry in segments]
    if len(set(names)) < len(names):
        raise ValueError("it names a segment twice")
    files = [file["name"] for file in (manifest.deleted, manifest.clusters) if file is not None]
    if any(int(re.findall(r"\d+", name)[0]) >= manifest.next_number for name in names + files):
        raise ValueError("its next_number is taken")
    if passages != manifest.passages or any(entry.deleted > entry.passages for entry in segments):
        raise ValueError("its numbers of passages do not agree")
    if any(entry.deleted for entry in segments) != (manifest.deleted is not None):
        raise ValueError("it names no file of the deleted passages, or one for none")
    if manifest.clusters is not None and not set(names).issuperset(manifest.clusters["segments"]):
        raise ValueError("it names clusters of segments that it does not name")
    return manifest


def _refuse_others(values: Any, wanted: Mapping[str, Callable[[Any], bool]], needed: Iterable[str]) -> None:
    """Refuse what is no mapping, lacks a key, has an unknown one, or a value that its key cannot have."""
    if not isinstance(values, dict):
        raise ValueError(f"{reprlib.repr(values)} stands where several values should")
    if missing := set(needed).difference(values):
        raise ValueError(f"it has no {min(missing)}")
    for key, value in values.items():
        if key not in wanted:
            raise ValueError(f"it has an unknown key {reprlib.repr(key)}")
        if not wanted[key](value):
            raise ValueError(f"its {key} is {reprlib.repr(value)}")


def _whole(least: int, most: int) -> Callable[[Any], bool]:
    """Make a test for whole numbers in a range."""
    return lambda value: type(value) is int and least <= value <= most


def _text(pattern: str) -> Callable[[Any], bool]:
    """Make a test for texts of a form."""
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL) is not None


def _or_none(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Let None pass a test, too."""
    return lambda value: value is None or test(value)


def _file(name: str, **more: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Make a test for what is kept of a file: its name, if it is of a form, its size and its checksum."""
    wanted = _SIZE | ({"name": _text(name)} if name else {}) | more

    def test(value: Any) -> bool:
        return (
            isinstance(value, dict) and value.keys() == wanted.keys() and all(wanted[key](value[key]) for key in value)
        )

    return test


def _is_word_space(value: Any) -> bool:
    """Tell whether a value is how words become terms."""
    if not isinstance(value, dict) or value.keys() != {field.name for field in fields(WordSpace)}:
        return False
    try:
        check_space(WordSpace(**value))
    except (ValueError, TypeError):
        return False
    return True


_SIZE = {"bytes": _whole(1, 1 << 50), "xxh3": _text("[0-9a-f]{16}")}
_NUMBERED = r"-\d{6,18}"
_PATH = _text(r"[^\0]{1,4096}")
_NAMES = _text("segment" + _NUMBERED)
_SEGMENT: dict[str, Callable[[Any], bool]] = {
    "name": _NAMES,
    "passages": _whole(1, MAX_PASSAGES),
    "deleted": _whole(0, MAX_PASSAGES),
    "fingerprint": _text("([0-9a-f]{16})?"),
    "files": lambda value: (
        isinstance(value, dict)
        and set(SEGMENT_FILES) <= value.keys() <= {*SEGMENT_FILES, CHUNKS_FILE}
        and all(map(_file(""), value.values()))
    ),
}
_MANIFEST: dict[str, Callable[[Any], bool]] = {
    "model": _PATH,
    "model_relative": _or_none(lambda value: _PATH(value) and not os.path.isabs(value)),  # noqa: PTH117
    "model_fingerprint": _text("[^\0]{0,200}"),
    "cls_dimension": _whole(0, 1 << 20),
    "vocabulary_size": _whole(0, 1 << 31),
    "top_k": _whole(0, 1 << 31),
    "segment_passages": _whole(1, MAX_PASSAGES),
    "complete": lambda value: isinstance(value, bool),
    "next_number": _whole(1, 10**18),
    "segments": lambda value: isinstance(value, list),
    "deleted": _or_none(_file("deleted" + _NUMBERED + r"\.safetensors")),
    "clusters": _or_none(
        _file(
            "clusters" + _NUMBERED + r"\.(safetensors|faiss)",
            segments=lambda value: (
                isinstance(value, list) and all(map(_NAMES, value)) and len(set(value)) == len(value) > 0
            ),
        )
    ),
    "precision": _or_none(_text("float32|bfloat16|int8")),
    "words": _or_none(_is_word_space),
    "chunks": _or_none(
        lambda value: (
            isinstance(value, dict)
            and value.keys() == {"tokens", "overlap"}
            and all(map(_whole(0, 1 << 31), value.values()))
        )
    ),
}
