"""Open what encodes the passages of an index: a model in PyTorch, or in ONNX Runtime."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from dupmae.config import BackendName
from dupmae.errors import DupmaeError
from dupmae.models import Model

if TYPE_CHECKING:
    from dupmae.duplex import DuplexEncoder
    from dupmae.duplex.onnx.encoder import OnnxEncoder


def open_encoder(
    model: Model, backend: BackendName | None, precision: Literal["auto", "float32", "bfloat16"] = "auto"
) -> DuplexEncoder | OnnxEncoder:
    """Open an encoder of passages and queries.

    Args:
        model: A duplex model.
        backend: `torch`; `onnx`, the same weights in ONNX Runtime; or `onnx-int8`, what `dupmae export` made of them.
            None takes PyTorch where it is installed, and else ONNX Runtime.
        precision: Of PyTorch.

    Raises:
        DupmaeError: It cannot be opened: why is said, and what to do; or a precision of another backend than PyTorch.
    """
    if backend is None:
        backend = "onnx" if find_spec("torch") is None else "torch"
    if backend == "torch":
        from dupmae.duplex import DuplexEncoder

        encoder = DuplexEncoder(model)
        if precision != "auto":
            encoder.precision = precision
        return encoder
    if precision == "bfloat16":
        raise DupmaeError(f"--backend {backend} does not compute in bfloat16: leave --precision out, or take torch.")
    from dupmae.duplex.onnx.encoder import OnnxEncoder

    if backend == "onnx":
        return OnnxEncoder(model)
    from dupmae.duplex.onnx.exported import open_exported

    return OnnxEncoder(model, open_exported(model), "int8")
