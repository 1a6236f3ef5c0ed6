"""The passages' side of a model as files of ONNX, in the folder `onnx` of the model: written, quantised, opened.

Each file is one graph with all its weights (:func:`dupmae.duplex.onnx.halves.passage_graph`); what it says of itself is
in its metadata. They go when the model is saved again, and do not count for its fingerprint.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dupmae.duplex.onnx.halves import passage_graph
from dupmae.duplex.onnx.session import Session, batches, padded, reason
from dupmae.duplex.queries.reading import TextReader
from dupmae.errors import DupmaeError
from dupmae.models import Model
from dupmae.runtime.bars import bar
from dupmae.runtime.checksums import known_sha256, read_checksums, write_checksums
from dupmae.runtime.quiet import without_root_messages

FOLDER = "onnx"
"""In the model's folder."""
FLOAT32_FILE, INT8_FILE = "passages.onnx", "passages-int8.onnx"
INSTEAD = "--backend torch"
FORMAT = "dupmae-passages 1"
"""What a file's metadata says under `format`: what it is, and the version of its inputs and outputs."""
BATCH = 16
"""Texts that are calibrated with at a time."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What queries found with passages in float32, and with passages in bytes."""

    queries: int
    passages: int
    float32: float
    """NDCG@10."""
    int8: float
    most_loss: float
    """By which int8 may stay behind, for an index to be built with it."""

    @property
    def loss(self) -> float:
        """By how much it does."""
        return self.float32 - self.int8


def write_float32(model: Model, folder: Path) -> Path:
    """Write a model's passages' side in float32.

    Raises:
        DupmaeError: The encoder is none that ONNX Runtime runs here, or the file would be too large.
    """
    file = folder / FLOAT32_FILE
    passage_graph(TextReader(model, "document")).save(file, _notes(model))
    return file


def quantise(model: Model, source: Path, texts: Sequence[str], target: Path) -> None:
    """Make products of bytes of the linear layers of a graph, with ranges that texts decide (static quantisation).

    Weights have a scale for each row, the inputs of a layer one scale and zero point. The dense half's projection
    stays in float32. Weights keep to seven bits: processors without VNNI add pairs of products in sixteen.

    Args:
        model: What the graph was made of.
        source: The graph in float32.
        texts: Passages, some hundred.
        target: Where to.

    Raises:
        DupmaeError: The package `onnx` is missing, or the quantiser fails.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise DupmaeError(
            f"Quantising needs the package onnx ({reason(error)}): pip install 'dupmae[export]'."
        ) from error
    graph = onnx.load(source)
    projections = [node.name for node in graph.graph.node if "pooling.cls_projection.weight" in node.input]

    class Texts(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Gives the quantiser batches."""

        def __init__(self) -> None:
            rows = TextReader(model, "document").token_ids(texts)
            parts = [padded([rows[place] for place in places]) for places in batches(rows, BATCH)]
            self._batches = iter(bar(parts, "Calibrate", "batches"))

        def get_next(self) -> dict[str, NDArray[np.int64]] | None:
            """Give the next batch."""
            return next(self._batches, None)

    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as place, without_root_messages():
            made = Path(place) / INT8_FILE
            quantization.quantize_static(
                graph,
                str(made),
                Texts(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Gemm"],
                nodes_to_exclude=projections,
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
            )
            made.replace(target)
    except DupmaeError:
        raise
    except Exception as error:  # the quantiser's are of no common kind
        raise DupmaeError(f"{model.label} cannot be quantised ({reason(error)}).") from error


def note(file: Path, model: Model, probed: Probed) -> None:
    """Write into a quantised file of which model it is, and what was measured with it."""
    import onnx

    graph = onnx.load(file)
    onnx.helper.set_model_props(graph, _notes(model) | {"probe": json.dumps(asdict(probed))})
    onnx.save(graph, file)


def finish(folder: Path) -> None:
    """Write the checksums of the files in a folder of exports."""
    write_checksums(folder, sorted(file.name for file in folder.iterdir() if file.suffix == ".onnx"))


def open_exported(model: Model) -> Session:
    """Open the passages' side of a model in bytes.

    Raises:
        DupmaeError: There is none, or one of another state of the model, or a damaged one, or one that loses more than
            it may.
    """
    file, again = (
        Path(model.path) / FOLDER / INT8_FILE,
        "make it again with `dupmae export MODEL --corpus ...`",
    )
    if not file.is_file():
        raise DupmaeError(
            f"{model.label} has no {FOLDER}/{INT8_FILE}: make it with `dupmae export MODEL --corpus ...`, or "
            "take --backend onnx."
        )
    try:
        whole = read_checksums(file.parent).get(file.name) == known_sha256(file)
    except (OSError, ValueError):
        whole = False
    if not whole:
        raise DupmaeError(f"{file} is damaged: {again}.")
    session = Session(file, model.label, prepacked=True, instead=INSTEAD)
    if session.notes.get("format") != FORMAT:
        raise DupmaeError(f"{file} is of another version of dupmae: {again}.")
    if session.notes.get("model") != model.fingerprint:
        raise DupmaeError(f"{file} was made of another state of the model: {again}.")
    probed = read_probe(session, file)
    if probed.loss > probed.most_loss:
        raise DupmaeError(
            f"{file} loses {probed.loss:.4f} of NDCG@10 ({probed.float32:.4f} in float32, {probed.int8:.4f} in int8; "
            f"{probed.queries} queries, {probed.passages:,} passages), more than the {probed.most_loss:g} that it may: "
            "take --backend onnx, or export it with a larger --most_loss."
        )
    return session


def read_probe(session: Session, file: Path) -> Probed:
    """Read what was measured with a quantised file.

    Raises:
        DupmaeError: It does not say.
    """
    try:
        return Probed(**json.loads(session.notes["probe"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DupmaeError(f"{file} does not say what was measured with it: export it again.") from error


def open_quantised(file: Path, model: Model) -> Session:
    """Open a quantised file that nothing was measured with yet."""
    return Session(file, model.label, prepacked=True, instead=INSTEAD)


def _notes(model: Model) -> dict[str, str]:
    """Say what a file is, and of which model."""
    return {"format": FORMAT, "model": model.fingerprint}
