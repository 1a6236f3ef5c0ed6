"""The one file that says what an index holds; replacing it is what commits a change."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dupmae.errors import DupmaeError
from dupmae.files import fingerprint, write_json

FORMAT = "dupmae-index"
FORMAT_VERSION = 2
FILE_NAME = "manifest.json"


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
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            if any(folder.glob("process-*-of-*")):
                raise DupmaeError(
                    f"The index {folder} is unfinished: run the command that builds it again, it goes on from there."
                ) from None
            raise DupmaeError(
                f"{folder} is not an index: it has no {FILE_NAME}; build one with `dupmae index build`."
            ) from None
        try:
            values = json.loads(content)
            if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
                raise DupmaeError(f"{path} is not the manifest of an index: it does not say format {FORMAT!r}.")
            version = values.pop("format_version")
            if version != FORMAT_VERSION:
                remedy = "install a newer dupmae" if version > FORMAT_VERSION else "build the index again"
                raise DupmaeError(
                    f"{path} has format version {version} and this package reads version {FORMAT_VERSION}: {remedy}."
                )
            if values.pop("check") != fingerprint(values):
                raise ValueError("its content does not have the fingerprint it was written with")
            del values["passages"]
            segments = [SegmentEntry(**entry) for entry in values.pop("segments")]
            return cls(segments=segments, **values)
        except (ValueError, KeyError, TypeError) as error:
            raise DupmaeError(f"{path} is damaged ({error}): build the index again.") from error

    def model_path(self, folder: Path) -> str:
        """Find the model: where it was relative to the index if it is still there, else the path as given."""
        if self.model_relative is not None and (folder / self.model_relative).is_dir():
            return os.path.normpath(folder / self.model_relative)
        return self.model


def relative_model(folder: Path, model: str) -> str | None:
    """Find the model's path relative to the index folder; None when it is not a local folder."""
    return os.path.relpath(Path(model).resolve(), folder.resolve()) if Path(model).is_dir() else None
