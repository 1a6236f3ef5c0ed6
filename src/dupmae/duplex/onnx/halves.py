"""Write what a duplex model makes of texts (Eq. 6-7, 10-12) as graphs of ONNX, one for queries and one for passages.

Padding stands on the right. The logits of all tokens are never in memory at once: the output matrix is applied a few
thousand terms at a time, and of each term the largest logit kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dupmae.duplex.onnx.encoders import FAR, Input, activation, encode
from dupmae.duplex.onnx.graph import OnnxGraph
from dupmae.duplex.queries.reading import TINY, TextReader
from dupmae.models.files import WEIGHTS
from dupmae.models.mapped import MappedWeights

TILE = 1024
"""Terms whose logits are computed at a time."""
IDS, MASK = "input_ids", "attention_mask"
"""The names of what graphs are given: token ids, and 1 for each token or 0 for padding, int64 (B, L)."""


def query_graph(reader: TextReader) -> OnnxGraph:
    """Write what a model makes of queries: token ids and mask (B, L) in, `dense` and `lexical` out.

    `dense` (B, d') is as it enters the score, and left out if the model has no dense half; `lexical` (B, V) likewise,
    and left out where terms are looked up.

    Raises:
        DupmaeError: The encoder is none that is written down in :mod:`dupmae.duplex.onnx.encoders`.
    """
    graph, pooling = OnnxGraph("query"), reader.pooling
    encoded = _encoded(graph, reader)
    if pooling.dense_dimension:
        dense = _scaled(graph, reader, _dense(graph, reader, encoded), "cls")
        graph.output(dense, "dense", np.float32, ["texts", pooling.dense_dimension])
    if pooling.has_terms and not pooling.own_tokens:
        lexical = _scaled(graph, reader, _lexical(graph, reader, encoded), "ot")
        graph.output(lexical, "lexical", np.float32, ["texts", pooling.vocabulary_size])
    return graph


def passage_graph(reader: TextReader) -> OnnxGraph:
    """Write what a model makes of passages: token ids and mask (B, L) in, `dense`, `ids` and `weights` out.

    `dense` (B, d') is left out if the model has no dense half, `ids` and `weights` (B, k), the terms with the largest
    weights, largest first, if it has no lexical half. A weight of 0 is of a term that the passage does not have.

    Raises:
        DupmaeError: The encoder is none that is written down in :mod:`dupmae.duplex.onnx.encoders`.
    """
    graph, pooling = OnnxGraph("passage"), reader.pooling
    encoded = _encoded(graph, reader)
    if pooling.dense_dimension:
        dense = _dense(graph, reader, encoded)
        dense = _unit(graph, dense) if pooling.normalize else dense
        graph.output(dense, "dense", np.float32, ["texts", pooling.dense_dimension])
    if pooling.has_terms:
        top_k = pooling.settings["top_k"]
        weights, ids = graph.largest(_lexical(graph, reader, encoded), top_k)
        if pooling.normalize and pooling.settings["document_norm"] == "unit":
            weights = _unit(graph, weights)
        graph.output(ids, "ids", np.int64, ["texts", top_k])
        graph.output(weights, "weights", np.float32, ["texts", top_k])
    return graph


@dataclass(frozen=True, slots=True)
class _Encoded:
    """What both halves are computed from."""

    read: Input
    present: str
    """1 for a token, 0 for padding, float32 (B, L)."""
    states: str
    """Of all tokens, (B * L, D)."""


def _encoded(graph: OnnxGraph, reader: TextReader) -> _Encoded:
    """Declare what a graph is given, and add the encoder."""
    weights = MappedWeights(reader.encoder_folder / WEIGHTS, reader.label, reader.root)
    ids = graph.input(IDS, np.int64, ["texts", "tokens"])
    mask = graph.input(MASK, np.int64, ["texts", "tokens"])
    present = graph.node("Cast", mask, to=1)
    far = graph.node("Mul", graph.node("Sub", present, graph.constant(1)), graph.constant(-FAR))
    read = Input(
        ids=ids,
        mask=mask,
        far=graph.node("Unsqueeze", far, graph.constant([1, 2], np.int64)),
        shape=graph.node("Shape", ids),
        limit=reader.limit,
    )
    return _Encoded(read, present, encode(graph, reader.config, weights, read, reader.label))


def _dense(graph: OnnxGraph, reader: TextReader, encoded: _Encoded) -> str:
    """Add the reduced state of a text (Eq. 10), not yet scaled, to a graph: (B, d')."""
    by_text = _by_text(graph, encoded.states, encoded, reader.pooling.settings["hidden_size"])
    if reader.pooling.dense_pooling == "cls":
        pooled = graph.node("Gather", by_text, graph.constant(0, np.int64), axis=1)
    else:
        last, first = graph.constant([2], np.int64), graph.constant([1], np.int64)
        sums = graph.node("Mul", by_text, graph.node("Unsqueeze", encoded.present, last))
        counts = graph.node("ReduceSum", encoded.present, first)
        pooled = graph.node("Div", graph.node("ReduceSum", sums, first, keepdims=0), counts)
    return graph.node("Gemm", pooled, _of_pooling(graph, reader, "cls_projection.weight"), transB=1)


def _lexical(graph: OnnxGraph, reader: TextReader, encoded: _Encoded) -> str:
    """Add the activated, weighted logits of a text's tokens (Eq. 6-7, 11), not yet scaled, to a graph: (B, V)."""
    settings, states = reader.pooling.settings, encoded.states

    def named(name: str) -> str:
        return _of_pooling(graph, reader, name)

    if settings["lexical_projection"] == "mlm_head":
        states = graph.node("Gemm", states, named("transform.0.weight"), named("transform.0.bias"), transB=1)
        states = activation(graph, states, settings["head_activation"], reader.label)
        epsilon = float(settings["layer_norm_eps"])
        states = graph.node(
            "LayerNormalization", states, named("transform.2.weight"), named("transform.2.bias"), epsilon=epsilon
        )
    ordinary = graph.weight("pooling.ordinary", reader.ordinary.astype(np.float32))  # (V,)
    pooled = graph.node("Mul", encoded.present, graph.node("Gather", ordinary, encoded.read.ids))  # (B, L)
    terms = graph.node("Add", _largest_logits(graph, reader, states, pooled, encoded), named("output.bias"))  # (B, V)
    if settings["lexical_activation"] != "none":
        terms = graph.node("Relu", terms)
    if settings["lexical_activation"] == "log1p_relu":
        terms = graph.node("Log", graph.node("Add", terms, graph.constant(1)))
    of_terms = reader.ordinary * np.exp(reader.weights["entry_log_scale"])
    terms = graph.node("Mul", terms, graph.weight("pooling.of_terms", of_terms.astype(np.float32)))
    return graph.node("Mul", terms, graph.node("ReduceMax", pooled, graph.constant([1], np.int64)))


def _largest_logits(graph: OnnxGraph, reader: TextReader, states: str, pooled: str, encoded: _Encoded) -> str:
    """Add the largest logit of each term over a text's ordinary tokens, without the terms' biases: (B, V).

    The other tokens get the state of the first ordinary one, which changes no maximum. What comes out for a text that
    has none is of no use.
    """
    matrix = reader.weights["output.weight"]  # (V, D)
    width, first = matrix.shape[1], graph.constant([1], np.int64)
    by_text = _by_text(graph, states, encoded, width)  # (B, L, D)
    place = graph.node("ArgMax", pooled, axis=1)  # (B, 1)
    instead = graph.node("GatherND", by_text, place, batch_dims=1)  # (B, D)
    is_pooled = graph.node("Cast", graph.node("Unsqueeze", pooled, graph.constant([2], np.int64)), to=9)
    chosen = graph.node("Where", is_pooled, by_text, graph.node("Unsqueeze", instead, first))
    rows = graph.node("Reshape", chosen, graph.constant([-1, width], np.int64))  # (B * L, D)
    origin, tiles = reader.weights.origin("output.weight"), list[str]()
    for start in range(0, len(matrix), TILE):
        part = matrix[start : start + TILE]
        begins = None if origin is None else (origin[0], origin[1] + start * matrix.strides[0])
        weight = graph.weight(f"pooling.output.weight.{start}", part, begins)
        logits = _by_text(graph, graph.node("Gemm", rows, weight, transB=1), encoded, len(part))
        tiles.append(graph.node("ReduceMax", logits, first, keepdims=0))
    return graph.node("Concat", *tiles, axis=1)


def _by_text(graph: OnnxGraph, rows: str, encoded: _Encoded, width: int) -> str:
    """Lay rows of tokens out by texts: (B * L, D) -> (B, L, D)."""
    shape = graph.node("Concat", encoded.read.shape, graph.constant([width], np.int64), axis=0)
    return graph.node("Reshape", rows, shape)


def _of_pooling(graph: OnnxGraph, reader: TextReader, name: str) -> str:
    """Name a weight of the pooling module."""
    return graph.weight(f"pooling.{name}", reader.weights[name], reader.weights.origin(name))


def _unit(graph: OnnxGraph, value: str) -> str:
    """Scale rows (B, d) to unit length."""
    length = graph.node("ReduceL2", value, graph.constant([1], np.int64))
    return graph.node("Div", value, graph.node("Max", length, graph.constant(TINY)))


def _scaled(graph: OnnxGraph, reader: TextReader, value: str, half: str) -> str:
    """Scale a half of queries (B, d) to unit length, if the model does, and with its learned scale."""
    value = _unit(graph, value) if reader.pooling.normalize else value
    return graph.node("Mul", value, graph.constant(reader.scale(half)))
