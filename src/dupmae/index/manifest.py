"""The one file that says what an index holds; replacing it is what commits a change."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dupmae.errors import DupmaeError
from dupmae.files import write_json

FORMAT = "dupmae-index"
FORMAT_VERSION = 1
FILE_NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class SegmentEntry:
    """What the manifest says of one segment."""

    name: str
    """Folder, relative to the index."""
    passages: int
    """How many passages it holds."""
    fingerprint: str
    """Of its passages' ids, titles and texts, in order."""
    files: dict[str, dict[str, Any]]
    """File name to `{"bytes": size, "sha256": first sixteen hexadecimal digits}`."""


@dataclass(kw_only=True)
class Manifest:
    """The committed state of an index folder, as written to `manifest.json`."""

    model: str
    """The model's path as it was given."""
    model_relative: str | None
    """The model's path relative to the index; None when the model is not a local folder."""
    model_fingerprint: str
    """Of the model's files, see :func:`dupmae.models.model_fingerprint`."""
    cls_dimension: int
    """d'."""
    vocabulary_size: int
    """V."""
    top_k: int
    """Vocabulary entries kept of a passage, at most."""
    segment_passages: int
    """Passages in every segment but the last."""
    complete: bool = False
    """False while a build has passages left to encode."""
    segments: list[SegmentEntry] = field(default_factory=list)
    """In the order of the passages."""

    @property
    def passages(self) -> int:
        """Passages in all segments."""
        return sum(segment.passages for segment in self.segments)

    def write(self, folder: Path) -> None:
        """Commit: replace the manifest in `folder` atomically."""
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "passages": self.passages}
        write_json(folder / FILE_NAME, head | asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of an index folder.

        Raises:
            DupmaeError: There is none, it is unreadable, or a newer version of this package wrote it.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise DupmaeError(f"{folder} is not an index: it has no {FILE_NAME}; build one with `dupmae index build`.")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
                raise DupmaeError(f"{path} is not the manifest of an index: it does not say format {FORMAT!r}.")
            version = values.pop("format_version")
            if version != FORMAT_VERSION:
                raise DupmaeError(
                    f"{path} has format version {version} and this package reads version {FORMAT_VERSION}:"
                    " install a newer dupmae."
                )
            del values["passages"]
            segments = [SegmentEntry(**entry) for entry in values.pop("segments")]
            return cls(segments=segments, **values)
        except (ValueError, KeyError, TypeError) as error:
            raise DupmaeError(f"{path} is damaged ({error}): build the index again.") from error

    def model_path(self, folder: Path) -> str:
        """Where the model is now: at its place relative to the index if it is still there, else the path as given."""
        if self.model_relative is not None and (folder / self.model_relative).is_dir():
            return os.path.normpath(folder / self.model_relative)
        return self.model


def relative_model(folder: Path, model: str) -> str | None:
    """The model's path relative to the index folder, or None when it is not a local folder."""
    return os.path.relpath(Path(model).resolve(), folder.resolve()) if Path(model).is_dir() else None
