"""Encoders of queries, which search with a model without PyTorch: in ONNX Runtime, or with a table of vectors.

They are interchangeable with :class:`dupmae.DuplexEncoder` where queries are concerned
(:class:`dupmae.duplex.queries.protocol.QueryEncoder`).
"""

from __future__ import annotations

import logging

from dupmae.config import QueryEncoderName
from dupmae.duplex.queries.protocol import QueryEncoder
from dupmae.errors import DupmaeError
from dupmae.models import Model

__all__ = ["QueryEncoder", "open_queries"]

logger = logging.getLogger(__name__)


def open_queries(model: Model, name: QueryEncoderName | None = None) -> QueryEncoder:
    """Open an encoder of queries of a duplex model.

    Args:
        model: The model.
        name: Which one. None takes the model in ONNX Runtime, or with a warning in PyTorch where that cannot run it.

    Raises:
        DupmaeError: It cannot be opened: why is said, and what to do.
    """
    if name == "static":
        from dupmae.duplex.queries.static import StaticQueries

        return StaticQueries(model)
    if name != "torch":
        from dupmae.duplex.queries.onnx import OnnxQueries

        try:
            return OnnxQueries(model)
        except DupmaeError as error:
            if name is not None:
                raise
            logger.warning("%s The model is loaded in PyTorch.", error)
    from dupmae.duplex.encoder import DuplexEncoder

    return DuplexEncoder(model)
