"""Write an ONNX graph: its nodes in the order of computation, its weights as places in other files or in its own.

The few messages of the format (https://onnx.ai/onnx/repo-docs/IR.html) that a graph needs are written as they stand in
protocol buffers, whose numbers of fields never change: to write ten of them takes less than to import a library that
can read and write all, at every start of a search.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.errors import DupmaeError
from dupmae.files import atomic_path

OPSET = 20
"""Version of the operators: the first that has Gelu."""
IR_VERSION = 9
"""Version of the format that came with it."""
TYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}
"""Numbers of the data types."""

MOST_BYTES = 2**31 - 1
"""Of a graph in one file, which protocol buffers set."""

Attribute = int | float | Sequence[int] | str


class OnnxGraph:
    """A graph that is being put together: each method adds something and returns the name of its value.

    Examples:
        >>> import numpy as np
        >>> from dupmae.duplex.onnx.graph import OnnxGraph
        >>> graph = OnnxGraph("double")
        >>> numbers = graph.input("numbers", np.float32, ["n"])
        >>> graph.output(graph.node("Add", numbers, numbers), "doubled", np.float32, ["n"])
        >>> len(graph.serialised()) < 200
        True
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: list[bytes] = []
        self._constants: dict[str, bytes] = {}
        self._weights: dict[str, tuple[NDArray[Any], Path, int]] = {}
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []

    def input(self, name: str, dtype: Any, shape: Sequence[int | str]) -> str:
        """Declare what is given at each run; lengths that may differ have a name."""
        self._inputs.append(_value_info(name, np.dtype(dtype), shape))
        return name

    def output(self, value: str, name: str, dtype: Any, shape: Sequence[int | str]) -> None:
        """Declare a value as a result, under a name."""
        self._add("Identity", [value], name, {})
        self._outputs.append(_value_info(name, np.dtype(dtype), shape))

    def weight(self, name: str, values: NDArray[Any], origin: tuple[Path, int] | None = None) -> str:
        """Name an array, which is read from a file, if it stands there as it is.

        Args:
            name: Of the value.
            values: The array.
            origin: The file, and where in it the array begins; None keeps it within the graph.
        """
        if origin is None:
            self._constants[name] = _tensor(name, values, [_field(9, values.tobytes())])
        else:
            file, start = origin
            self._weights[name] = values, file.resolve(), start
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Keep a few numbers within the graph."""
        array = np.asarray(values, dtype)
        return self.weight(f"constant_{array.dtype}_{'x'.join(map(str, array.shape))}_{array.tobytes().hex()}", array)

    def node(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        """Apply an operator of the standard to values."""
        return self._add(operator, inputs, f"{operator}_{len(self._nodes)}", attributes)

    def largest(self, values: str, count: int) -> tuple[str, str]:
        """Find the largest numbers of each row (n, m), the first of equal ones: themselves and their places, (n, k)."""
        found, places = (f"TopK_{len(self._nodes)}_{part}" for part in ("values", "places"))
        self._add("TopK", [values, self.constant([count], np.int64)], found, {"axis": -1}, places)
        return found, places

    @property
    def folder(self) -> Path:
        """The folder that holds all files of weights, links followed; what opens the graph has to be told of it."""
        return Path(os.path.commonpath([file.parent for _, file, _ in self._weights.values()] or [Path()]))

    def serialised(self) -> bytes:
        """Write the graph, places of weights as they lie in :attr:`folder`."""
        weights, folder = list[bytes](), self.folder
        for name, (values, file, start) in self._weights.items():
            place = {"location": file.relative_to(folder).as_posix(), "offset": start, "length": values.nbytes}
            entries = [_field(1, key.encode()) + _field(2, str(value).encode()) for key, value in place.items()]
            weights.append(_tensor(name, values, [*(_field(13, entry) for entry in entries), _number(14, 1)]))
        return self._with(weights, {})

    def save(self, file: Path, notes: Mapping[str, str]) -> None:
        """Write the graph with all its weights into one file, whole or not at all.

        Args:
            file: Where to.
            notes: What the file shall say of itself.

        Raises:
            DupmaeError: It would be larger than such a file may be.
        """
        size = sum(values.nbytes for values, _, _ in self._weights.values())
        if size > 0.98 * MOST_BYTES:
            raise DupmaeError(f"A graph of {size / 1e9:.1f} GB is too large for one file of ONNX, which holds 2 GB.")
        weights = [
            _tensor(name, values, [_field(9, values.tobytes())]) for name, (values, _, _) in self._weights.items()
        ]
        with atomic_path(file) as temporary:
            temporary.write_bytes(self._with(weights, notes))

    def _with(self, weights: Sequence[bytes], notes: Mapping[str, str]) -> bytes:
        """Write the graph with weights that are written."""
        parts = [_field(1, node) for node in self._nodes]
        parts += [_field(2, self.name.encode())]
        parts += [_field(5, tensor) for tensor in (*self._constants.values(), *weights)]
        parts += [_field(11, value) for value in self._inputs]
        parts += [_field(12, value) for value in self._outputs]
        operators = _field(1, b"") + _number(2, OPSET)
        said = [_field(14, _field(1, key.encode()) + _field(2, value.encode())) for key, value in notes.items()]
        model = _number(1, IR_VERSION) + _field(2, b"dupmae") + _field(7, b"".join(parts)) + _field(8, operators)
        return model + b"".join(said)

    def _add(
        self, operator: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Attribute], *others: str
    ) -> str:
        """Add a node, and name its outputs, the first of which also names the node."""
        node = [_field(1, name.encode()) for name in inputs]
        node += [_field(2, name.encode()) for name in (output, *others)]
        node += [_field(3, output.encode()), _field(4, operator.encode())]
        node += [_field(5, _attribute(name, value)) for name, value in attributes.items()]
        self._nodes.append(b"".join(node))
        return output


def _attribute(name: str, value: Attribute) -> bytes:
    """Write an AttributeProto."""
    kinds = {float: 1, int: 2, str: 3}
    written = _field(1, name.encode())
    if isinstance(value, float):
        written += _key(2, 5) + struct.pack("<f", value)
    elif isinstance(value, int):
        written += _number(3, value)
    elif isinstance(value, str):
        written += _field(4, value.encode())
    else:
        return written + b"".join(_number(8, one) for one in value) + _number(20, 7)
    return written + _number(20, kinds[type(value)])


def _tensor(name: str, values: NDArray[Any], content: Sequence[bytes]) -> bytes:
    """Write a TensorProto, whose numbers are in `content` or elsewhere."""
    dimensions = b"".join(_number(1, length) for length in values.shape)
    return dimensions + _number(2, TYPES[values.dtype]) + _field(8, name.encode()) + b"".join(content)


def _value_info(name: str, dtype: np.dtype[Any], shape: Sequence[int | str]) -> bytes:
    """Write a ValueInfoProto."""
    lengths = b"".join(
        _field(1, _number(1, length) if isinstance(length, int) else _field(2, length.encode())) for length in shape
    )
    tensor_type = _number(1, TYPES[dtype]) + _field(2, lengths)
    return _field(1, name.encode()) + _field(2, _field(1, tensor_type))


def _field(number: int, content: bytes) -> bytes:
    """Write a field of a length, such as text or a message."""
    return _key(number, 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    """Write a field of a whole number."""
    return _key(number, 0) + _varint(value % 2**64)


def _key(number: int, kind: int) -> bytes:
    """Write what stands before a field's content."""
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    """Write a whole number in groups of seven bits, the lowest first."""
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    groups.append(value)
    return bytes(groups)
