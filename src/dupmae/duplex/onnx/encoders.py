"""The supported encoders as ONNX graphs, written from what their files say: no PyTorch is needed to make one.

What transformers computes is written down here once more, operator by operator, with the same names of weights; a test
compares the two for each family. Numbers that do not matter to the result differ: padded tokens have other positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.duplex.onnx.graph import OnnxGraph
from dupmae.duplex.queries.reading import first_position
from dupmae.errors import DupmaeError
from dupmae.models.mapped import MappedWeights

FAR = -1e30
"""What is added to the score of a token that is not to be looked at."""
ACTIVATIONS: dict[str, Callable[[OnnxGraph, str], str]] = {
    "gelu": lambda graph, value: graph.node("Gelu", value),
    "gelu_python": lambda graph, value: graph.node("Gelu", value),
    "gelu_new": lambda graph, value: graph.node("Gelu", value, approximate="tanh"),
    "gelu_fast": lambda graph, value: graph.node("Gelu", value, approximate="tanh"),
    "gelu_pytorch_tanh": lambda graph, value: graph.node("Gelu", value, approximate="tanh"),
    "relu": lambda graph, value: graph.node("Relu", value),
    "silu": lambda graph, value: graph.node("Mul", value, graph.node("Sigmoid", value)),
    "tanh": lambda graph, value: graph.node("Tanh", value),
}
"""What transformers calls activations -> how they are computed."""


@dataclass(frozen=True, slots=True)
class Input:
    """What an encoder reads, and shapes that its nodes need."""

    ids: str
    """(B, L), int64."""
    mask: str
    """1 or 0, (B, L), int64."""
    far: str
    """0, or `FAR` where there is no token, (B, 1, 1, L), float32."""
    shape: str
    """B and L, (2,), int64."""
    limit: int
    """Tokens of a text, at most."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a family whose layers are built as BERT's keeps their weights, and what its settings call their sizes."""

    layer: str = "encoder.layer.{}"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    inner: str = "intermediate.dense"
    outer: str = "output.dense"
    norm: str = "output.LayerNorm"
    layers: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    activation: str = "hidden_act"
    token_types: bool = True
    """Whether the vector of the first type is added to each token."""
    relative: bool = False
    """Whether the distance of two tokens counts, in MPNet's way."""


_BERT = Layout()
LAYOUTS = {
    "bert": _BERT,
    "electra": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "mpnet": Layout(
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        output="attention.attn.o",
        attention_norm="attention.LayerNorm",
        token_types=False,
        relative=True,
    ),
    "distilbert": Layout(
        layer="transformer.layer.{}",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        output="attention.out_lin",
        attention_norm="sa_layer_norm",
        inner="ffn.lin1",
        outer="ffn.lin2",
        norm="output_layer_norm",
        layers="n_layers",
        heads="n_heads",
        activation="activation",
        token_types=False,
    ),
}
"""The families whose layers are built as BERT's, by the `model_type` of their settings."""
MODERN = "modernbert"


def encode(graph: OnnxGraph, config: Mapping[str, Any], weights: MappedWeights, read: Input, label: str) -> str:
    """Add an encoder to a graph: token states (B * L, D).

    Args:
        graph: The graph.
        config: The encoder's settings.
        weights: The encoder's weights.
        read: What it reads.
        label: What the user calls the model.

    Raises:
        DupmaeError: It is of a family, or has a setting, that is not written down here, or lacks one.
    """
    kind = config.get("model_type")
    try:
        if kind == MODERN:
            return _Modern(graph, config, weights, read, label).states()
        if kind in LAYOUTS:
            return _Bert(graph, config, weights, read, label, LAYOUTS[kind]).states()
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DupmaeError(f"{label}: its config.json lacks what its encoder needs ({str(error)[:80]}).") from error
    known = ", ".join((*LAYOUTS, MODERN))
    raise DupmaeError(f"{label}: encoders of the kind {str(kind)[:40]!r} run in PyTorch alone, none of {known}.")


class _Parts:
    """What all encoders are built of."""

    def __init__(
        self, graph: OnnxGraph, config: Mapping[str, Any], weights: MappedWeights, read: Input, label: str
    ) -> None:
        self.graph, self.config, self.weights, self.read, self.label = graph, config, weights, read, label
        self.width = int(config.get("hidden_size") or config["dim"])
        if config.get("is_decoder"):
            raise DupmaeError(f"{label}: decoders run in PyTorch alone.")

    def weight(self, name: str) -> str:
        """Name one of the encoder's weights."""
        return self.graph.weight(name, self.weights[name], self.weights.origin(name))

    def linear(self, value: str, name: str) -> str:
        """Apply a linear layer to rows: (n, D) -> (n, E)."""
        bias = [self.weight(f"{name}.bias")] if f"{name}.bias" in self.weights else []
        return self.graph.node("Gemm", value, self.weight(f"{name}.weight"), *bias, transB=1)

    def norm(self, value: str, name: str, epsilon: float) -> str:
        """Apply a LayerNorm, with a bias or without."""
        bias = [self.weight(f"{name}.bias")] if f"{name}.bias" in self.weights else []
        return self.graph.node(
            "LayerNormalization", value, self.weight(f"{name}.weight"), *bias, axis=-1, epsilon=float(epsilon)
        )

    def activated(self, value: str, name: str) -> str:
        """Apply an activation."""
        return activation(self.graph, value, name, self.label)

    def heads(self, value: str, heads: int) -> str:
        """Part rows into heads: (B * L, D) -> (B, H, L, D / H)."""
        graph = self.graph
        lengths = graph.constant([heads, self.width // heads], np.int64)
        shape = graph.node("Concat", self.read.shape, lengths, axis=0)
        return graph.node("Transpose", graph.node("Reshape", value, shape), perm=[0, 2, 1, 3])

    def attended(self, query: str, key: str, value: str, heads: int, bias: str | None = None) -> str:
        """Let tokens attend to each other: three times (B, H, L, D / H) -> (B * L, D)."""
        graph = self.graph
        scale = graph.constant(1 / math.sqrt(self.width // heads))
        products = graph.node("MatMul", query, graph.node("Transpose", key, perm=[0, 1, 3, 2]))
        scores = graph.node("Add", graph.node("Mul", products, scale), self.read.far)
        if bias is not None:
            scores = graph.node("Add", scores, bias)
        states = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)  # (B, H, L, D / H)
        rows = graph.constant([-1, self.width], np.int64)
        return graph.node("Reshape", graph.node("Transpose", states, perm=[0, 2, 1, 3]), rows)

    def rows(self, value: str, width: int) -> str:
        """Lay tokens one behind the other: (B, L, E) -> (B * L, E)."""
        return self.graph.node("Reshape", value, self.graph.constant([-1, width], np.int64))


class _Bert(_Parts):
    """BERT and its likes: layers that normalise what they add up."""

    def __init__(
        self,
        graph: OnnxGraph,
        config: Mapping[str, Any],
        weights: MappedWeights,
        read: Input,
        label: str,
        layout: Layout,
    ) -> None:
        super().__init__(graph, config, weights, read, label)
        self.layout, self.epsilon = layout, float(config.get("layer_norm_eps", 1e-12))
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise DupmaeError(f"{label}: encoders of relative positions run in PyTorch alone.")

    def states(self) -> str:
        """Compute the states of the last layer, (B * L, D)."""
        layout, config = self.layout, self.config
        state, heads = self.embeddings(), int(config[layout.heads])
        bias = self.distances() if layout.relative else None
        for number in range(int(config[layout.layers])):
            state = self.layer(state, f"{layout.layer.format(number)}.", heads, bias)
        return state

    def layer(self, state: str, at: str, heads: int, bias: str | None) -> str:
        """Compute a layer whose weights' names begin with `at`."""
        layout, graph = self.layout, self.graph
        query, key, value = (
            self.heads(self.linear(state, at + name), heads) for name in (layout.query, layout.key, layout.value)
        )
        attended = self.linear(self.attended(query, key, value, heads, bias), at + layout.output)
        state = self.norm(graph.node("Add", attended, state), at + layout.attention_norm, self.epsilon)
        inner = self.activated(self.linear(state, at + layout.inner), self.config[layout.activation])
        return self.norm(
            graph.node("Add", self.linear(inner, at + layout.outer), state), at + layout.norm, self.epsilon
        )

    def embeddings(self) -> str:
        """Add up what is looked up for each token: (B * L, D)."""
        graph, read, layout = self.graph, self.read, self.layout
        words = self.weight("embeddings.word_embeddings.weight")
        places = self.places()
        added = graph.node(
            "Add",
            graph.node("Gather", words, read.ids),
            graph.node("Gather", self.weight("embeddings.position_embeddings.weight"), places),
        )
        if layout.token_types:
            types = self.weight("embeddings.token_type_embeddings.weight")
            added = graph.node("Add", added, graph.node("Gather", types, graph.constant(0, np.int64)))
        normed = self.norm(added, "embeddings.LayerNorm", self.epsilon)
        states = self.rows(normed, self.weights["embeddings.word_embeddings.weight"].shape[1])
        return self.linear(states, "embeddings_project") if "embeddings_project.weight" in self.weights else states

    def places(self) -> str:
        """Number the tokens of each text, (B, L), in families that count past the padding token's id as these do."""
        graph, read, counted, first = self.graph, self.read, self.read.mask, first_position(self.config)
        if first:
            is_padding = graph.node("Equal", read.ids, graph.constant(first - 1, np.int64))
            counted = graph.node("Mul", counted, graph.node("Cast", graph.node("Not", is_padding), to=7))
        numbers = graph.node("CumSum", counted, graph.constant(1, np.int64))  # from 1
        numbers = graph.node("Mul", graph.node("Add", numbers, graph.constant(first - 1, np.int64)), counted)
        if not first:
            return numbers
        uncounted = graph.node("Sub", graph.constant(1, np.int64), counted)
        return graph.node("Add", numbers, graph.node("Mul", uncounted, graph.constant(first - 1, np.int64)))

    def distances(self) -> str:
        """Look up what distances of tokens add to the scores, (1, H, L, L)."""
        graph, limit = self.graph, self.read.limit
        table = graph.weight("buckets", distance_buckets(limit))  # (limit, limit)
        length = graph.node("Slice", self.read.shape, graph.constant([1], np.int64), graph.constant([2], np.int64))
        ends = graph.node("Concat", length, length, axis=0)
        used = graph.node(
            "Slice", table, graph.constant([0, 0], np.int64), ends, graph.constant([0, 1], np.int64)
        )  # (L, L)
        values = graph.node("Gather", self.weight("encoder.relative_attention_bias.weight"), used)  # (L, L, H)
        return graph.node("Unsqueeze", graph.node("Transpose", values, perm=[2, 0, 1]), graph.constant([0], np.int64))


class _Modern(_Parts):
    """ModernBERT: layers that normalise what they begin with, positions as rotations, gated inner layers."""

    def states(self) -> str:
        """Compute the states of the last layer, (B * L, D)."""
        config, graph = self.config, self.graph
        layers, epsilon = int(config["num_hidden_layers"]), float(config.get("norm_eps", 1e-5))
        window = int(config.get("local_attention", 128)) // 2
        every = int(config.get("global_attn_every_n_layers", 3))
        kinds = config.get("layer_types") or [
            "sliding_attention" if number % every else "full_attention" for number in range(layers)
        ]
        rotations = {kind: self.rotations(kind) for kind in sorted(set(kinds))}
        far = self.beyond(window) if self.read.limit > window + 1 else None
        embedded = graph.node("Gather", self.weight("embeddings.tok_embeddings.weight"), self.read.ids)
        state = self.rows(self.norm(embedded, "embeddings.norm", epsilon), self.width)
        for number in range(layers):
            at = f"layers.{number}."
            normed = self.norm(state, f"{at}attn_norm", epsilon) if number else state
            kind = kinds[number]
            bias = far if kind == "sliding_attention" else None
            state = graph.node("Add", state, self.attention(normed, at, *rotations[kind], bias))
            inner = self.linear(self.norm(state, f"{at}mlp_norm", epsilon), f"{at}mlp.Wi")
            value, gate = self.parts(inner, 2)
            gated = graph.node("Mul", self.activated(value, config.get("hidden_activation", "gelu")), gate)
            state = graph.node("Add", state, self.linear(gated, f"{at}mlp.Wo"))
        return self.norm(state, "final_norm", epsilon)

    def beyond(self, window: int) -> str:
        """Compute what is added to the scores of tokens more than `window` places apart: `FAR`, or else 0, (L, L)."""
        graph = self.graph
        length = graph.node("Gather", self.read.shape, graph.constant(1, np.int64))
        places = graph.node("Range", graph.constant(0, np.int64), length, graph.constant(1, np.int64))
        first, second = (graph.node("Unsqueeze", places, graph.constant([axis], np.int64)) for axis in (0, 1))
        distance = graph.node("Abs", graph.node("Sub", first, second))
        beyond = graph.node("Cast", graph.node("Greater", distance, graph.constant(window, np.int64)), to=1)
        return graph.node("Mul", beyond, graph.constant(FAR))

    def attention(self, state: str, at: str, cosines: str, sines: str, bias: str | None) -> str:
        """Compute the attention of a layer, (B * L, D)."""
        heads = int(self.config["num_attention_heads"])
        query, key, value = (self.heads(part, heads) for part in self.parts(self.linear(state, f"{at}attn.Wqkv"), 3))
        query, key = self.rotated(query, cosines, sines), self.rotated(key, cosines, sines)
        return self.linear(self.attended(query, key, value, heads, bias), f"{at}attn.Wo")

    def parts(self, value: str, count: int) -> list[str]:
        """Cut rows into parts of equal width."""
        graph, first = self.graph, self.width if count == 3 else int(self.config["intermediate_size"])
        axis = graph.constant([1], np.int64)
        return [
            graph.node(
                "Slice",
                value,
                graph.constant([number * first], np.int64),
                graph.constant([(number + 1) * first], np.int64),
                axis,
            )
            for number in range(count)
        ]

    def rotations(self, kind: str) -> tuple[str, str]:
        """Compute cosines and sines of the angles by which places are told apart, each (L, D / H)."""
        parameters = (self.config.get("rope_parameters") or {}).get(kind) or {}
        if parameters.get("rope_type", "default") != "default":
            raise DupmaeError(f"{self.label}: its scaled rotary positions run in PyTorch alone.")
        former = ("global_rope_theta", 160_000.0) if kind == "full_attention" else ("local_rope_theta", 10_000.0)
        base = float(parameters.get("rope_theta") or self.config.get(*former))
        size = self.width // int(self.config["num_attention_heads"])
        rates = 1 / base ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
        angles = np.arange(self.read.limit, dtype=np.float32)[:, None] * rates.astype(np.float32)
        angles = np.concatenate([angles, angles], axis=1)  # (limit, D / H)
        length = self.graph.node(
            "Slice", self.read.shape, self.graph.constant([1], np.int64), self.graph.constant([2], np.int64)
        )
        start, axis = self.graph.constant([0], np.int64), self.graph.constant([0], np.int64)
        cosines, sines = (
            self.graph.node("Slice", self.graph.weight(f"{kind}.{name}", values), start, length, axis)
            for name, values in (("cos", np.cos(angles)), ("sin", np.sin(angles)))
        )
        return cosines, sines

    def rotated(self, value: str, cosines: str, sines: str) -> str:
        """Rotate heads (B, H, L, D / H) by their places."""
        graph, size = self.graph, self.width // int(self.config["num_attention_heads"])
        axis, middle = graph.constant([3], np.int64), graph.constant([size // 2], np.int64)
        first = graph.node("Slice", value, graph.constant([0], np.int64), middle, axis)
        second = graph.node("Slice", value, middle, graph.constant([size], np.int64), axis)
        turned = graph.node("Concat", graph.node("Neg", second), first, axis=-1)
        return graph.node("Add", graph.node("Mul", value, cosines), graph.node("Mul", turned, sines))


def activation(graph: OnnxGraph, value: str, name: str, label: str) -> str:
    """Add an activation to a graph, by the name that transformers has for it.

    Raises:
        DupmaeError: It is not written down here.
    """
    if name not in ACTIVATIONS:
        raise DupmaeError(f"{label}: the activation {str(name)[:40]!r} runs in PyTorch alone.")
    return ACTIVATIONS[name](graph, value)


def distance_buckets(length: int) -> NDArray[np.int64]:
    """Number distances of tokens as MPNet (and T5) does: near ones each, far ones by their logarithm, (length, length).

    Those ahead have the numbers of the upper half.
    """
    half, most = 16, 128
    exact = half // 2
    ahead = np.arange(length)[None, :] - np.arange(length)[:, None]
    distance = np.abs(ahead)
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact)) / np.float32(math.log(most / exact))
    far = np.minimum(exact + (ratio * np.float32(half - exact)).astype(np.int64), half - 1)
    return np.asarray(np.where(distance < exact, distance, far) + half * (ahead > 0), np.int64)
