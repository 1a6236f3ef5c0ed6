"""Weights as arrays that are mapped from their files: what is not used is never read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.errors import DupmaeError
from dupmae.models.checks import read_places

NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I8": "i1"}
"""What safetensors calls data types -> what NumPy does; it does not know bfloat16, of which these are the bits."""


def map_tensors(file: Path, label: str, root: Path) -> dict[str, tuple[str, int, NDArray[Any]]]:
    """Map the tensors of a safetensors file: by name the data type, where it begins, the array; only those of `NUMPY`.

    Args:
        file: The file.
        label: What the user calls the model.
        root: The model's folder.

    Raises:
        DupmaeError: A damaged or cut file.
    """
    start, places = read_places(file, label, root)
    content = np.asarray(np.memmap(file, np.uint8, "r"))
    found = {}
    for name, place in places.items():
        if (kind := place["dtype"]) in NUMPY:
            begin, end = (start + offset for offset in place["data_offsets"])
            found[name] = kind, begin, content[begin:end].view(NUMPY[kind]).reshape(place["shape"])
    return found


class MappedWeights:
    """The weights in a safetensors file as arrays of float32, by their names; what is float32 there is not copied.

    Args:
        file: The file.
        label: What the user calls the model.
        root: The model's folder.

    Raises:
        DupmaeError: There is no such file, or a damaged or cut one.
    """

    def __init__(self, file: Path, label: str, root: Path) -> None:
        self._file, self._where = file, f"{label}: {file.relative_to(root).as_posix()}"
        if not file.is_file():
            raise DupmaeError(f"{self._where} is missing: the weights are in a file of another kind.")
        self._tensors = map_tensors(file, label, root)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """Give a tensor by its name.

        Raises:
            DupmaeError: There is none, or one of whole numbers.
        """
        kind, _, values = self._tensors.get(name, ("none", 0, np.empty(0)))
        if kind == "BF16":  # the upper half of a float32
            return (values.astype(np.uint32) << 16).view(np.float32)
        if not kind.startswith("F"):
            raise DupmaeError(f"{self._where} holds no {name} of floating-point numbers.")
        return values.astype(np.float32, copy=False)

    def origin(self, name: str) -> tuple[Path, int] | None:
        """Tell in which file a tensor stands as float32, and where it begins there; None if it does not."""
        kind, start, _ = self._tensors[name]
        return (self._file, start) if kind == "F32" else None
