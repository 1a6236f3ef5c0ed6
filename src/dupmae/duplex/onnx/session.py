"""Run a graph in ONNX Runtime over texts that are given as token ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.duplex.onnx.graph import OnnxGraph
from dupmae.duplex.onnx.halves import IDS, MASK
from dupmae.errors import DupmaeError

BATCH_TOKENS = 2048
"""Tokens of a batch, at most, unless one text has more."""


class Session:
    """A graph that is ready to run.

    Args:
        source: The graph, whose weights are mapped from the model's files, or a file that holds one with its weights.
        label: What the user calls the model.
        prepacked: Whether weights are laid out anew for products, which are then faster; they take their size again.
        instead: What else the user could do, for sentences.

    Attributes:
        notes: What a file says of itself.
        outputs: The names of the results.

    Raises:
        DupmaeError: ONNX Runtime is missing or too old, or does not take the graph.
    """

    def __init__(self, source: OnnxGraph | Path, label: str, *, prepacked: bool, instead: str) -> None:
        self.label = label
        try:
            import onnxruntime
        except ImportError as error:
            raise DupmaeError(
                f"ONNX Runtime cannot be loaded ({reason(error)}): pip install onnxruntime, or take {instead}."
            ) from error
        try:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # what is wrong is raised
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # queries come one by one
            options.add_session_config_entry("session.disable_prepacking", "0" if prepacked else "1")
            if isinstance(source, OnnxGraph):
                place = "session.model_external_initializers_file_folder_path"
                options.add_session_config_entry(place, str(source.folder))
            graph = source.serialised() if isinstance(source, OnnxGraph) else str(source)
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's are of no common kind
            raise DupmaeError(
                f"{label} cannot be opened in ONNX Runtime {onnxruntime.__version__} ({reason(error)}): take {instead}."
            ) from error
        self.outputs: list[str] = [output.name for output in self._session.get_outputs()]
        self.notes: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map

    def run(self, rows: Sequence[NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        """Run the graph over texts of similar length: its results by name.

        Raises:
            DupmaeError: ONNX Runtime fails.
        """
        try:
            results = self._session.run(self.outputs, padded(rows))
        except Exception as error:  # ONNX Runtime's are of no common kind
            raise DupmaeError(f"{self.label}: ONNX Runtime fails ({reason(error)}).") from error
        return dict(zip(self.outputs, results, strict=True))


def padded(rows: Sequence[NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """Lay texts out as a graph is given them: token ids, padded on the right, and where they are, each (B, L)."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for row, one in enumerate(rows):
        ids[row, : len(one)], mask[row, : len(one)] = one, 1
    return {IDS: ids, MASK: mask}


def batches(rows: Sequence[NDArray[np.int64]], batch_size: int) -> Iterator[list[int]]:
    """Group texts of similar length, longest first, bounded in number and tokens: their places."""
    batch, held = list[int](), 0
    for place in sorted(range(len(rows)), key=lambda place: -len(rows[place])):
        if batch and (len(batch) == batch_size or (len(batch) + 1) * held > BATCH_TOKENS):
            yield batch
            batch = []
        held = held if batch else len(rows[place])
        batch.append(place)
    if batch:
        yield batch


def reason(error: BaseException) -> str:
    """Put what a library says into a few words of one line."""
    words = " ".join(str(error).split())
    return f"{words[:160]}..." if len(words) > 160 else words or type(error).__name__
