"""Encode queries with a model's encoder in ONNX Runtime, straight from the weights in its folder.

The graph is written when the model is opened (:mod:`dupmae.duplex.queries.onnx_encoders`), in some milliseconds, and
the weights are mapped from the model's own files: nothing is exported, so nothing can be of another model than it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.queries.onnx_encoders import FAR, Input, activation, encode
from dupmae.duplex.queries.onnx_graph import OnnxGraph
from dupmae.duplex.queries.reading import NO_TERMS, TINY, QueryReader, Terms, as_rows
from dupmae.errors import DupmaeError
from dupmae.models import Model
from dupmae.models.files import WEIGHTS
from dupmae.models.mapped import MappedWeights

BATCH_TOKENS = 2048
"""Tokens of a batch, at most, unless one query has more."""
LOGITS = 16_000_000
"""Logits of a batch, at most, where terms come from these."""


class OnnxQueries:
    """Encodes queries as :meth:`dupmae.DuplexEncoder.embed_queries` does, in float32, without PyTorch.

    Args:
        model: A duplex model.

    Raises:
        DupmaeError: ONNX Runtime is missing, or the model is none that it can run: why is said.
    """

    def __init__(self, model: Model) -> None:
        self.reader = QueryReader(model)
        self.pooling, self.tokenizer, self.words = self.reader.pooling, self.reader.tokenizer, self.reader.words
        self._session: Any = None
        self._outputs = list[str]()
        if self.pooling.dense_dimension or (self.pooling.has_terms and not self.pooling.own_tokens):
            graph = query_graph(self.reader)
            self._session = _session(graph, model.label)
            self._outputs = [output.name for output in self._session.get_outputs()]

    def embed_queries(
        self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False
    ) -> DuplexEmbeddings:
        """Embed queries: the dense half, every term of the lexical half that has a weight, and the words' shares.

        Args:
            texts: Queries.
            batch_size: Queries in a forward pass, at most.
            show_progress_bar: Taken for likeness with :meth:`dupmae.DuplexEncoder.embed_queries`; queries take no time.

        Raises:
            DupmaeError: A batch of no texts, one string instead of a list, a text that is not valid Unicode, or ONNX
                Runtime fails.
        """
        if batch_size < 1:
            raise DupmaeError(f"A batch holds at least one text, not {batch_size}.")
        rows = self.reader.token_ids(texts)
        dense, terms = self.computed(rows, batch_size)
        if self.pooling.own_tokens:
            terms = self.reader.looked_up_terms(rows)
        names, weights = as_rows(terms, self.pooling.vocabulary_size)
        return DuplexEmbeddings(dense, names, weights, self.reader.word_shares(texts))

    def computed(
        self, rows: Sequence[NDArray[np.int64]], batch_size: int = 32
    ) -> tuple[NDArray[np.float32], list[Terms]]:
        """Run the network over n queries that are given as token ids: (n, d'), and the terms of each.

        There are no terms where queries have their own tokens alone, which are looked up.
        """
        pooling = self.pooling
        dense = np.zeros((len(rows), pooling.dense_dimension), np.float32)
        terms: list[Terms] = [NO_TERMS] * len(rows)
        if self._session is not None:
            for places in self._batches(rows, batch_size):
                found = self._run([rows[place] for place in places])
                if "dense" in found:
                    dense[places] = found["dense"]
                for place, weights in zip(places, found.get("lexical", ()), strict=False):
                    ids = np.flatnonzero(weights)
                    terms[place] = ids, weights[ids]
        return dense, terms

    def _run(self, rows: Sequence[NDArray[np.int64]]) -> dict[str, NDArray[np.float32]]:
        """Run the graph over queries of similar length: its results by name."""
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for row, one in enumerate(rows):
            ids[row, : len(one)], mask[row, : len(one)] = one, 1
        try:
            results = self._session.run(self._outputs, {"input_ids": ids, "attention_mask": mask})
        except Exception as error:  # ONNX Runtime's are of no common kind
            raise DupmaeError(f"{self.reader.label}: ONNX Runtime fails ({_reason(error)}).") from error
        return dict(zip(self._outputs, results, strict=True))

    def _batches(self, rows: Sequence[NDArray[np.int64]], batch_size: int) -> list[list[int]]:
        """Group queries of similar length, bounded in number, tokens and logits."""
        most = BATCH_TOKENS
        if "lexical" in self._outputs:
            most = min(most, LOGITS // self.pooling.vocabulary_size)
        batches, held = list[list[int]](), 0
        for place in sorted(range(len(rows)), key=lambda place: -len(rows[place])):
            if not batches or len(batches[-1]) == batch_size or (len(batches[-1]) + 1) * held > most:
                batches.append([])
                held = len(rows[place])
            batches[-1].append(place)
        return batches


def query_graph(reader: QueryReader) -> OnnxGraph:
    """Write what a model makes of queries as a graph: token ids and mask (B, L) in, `dense` and `lexical` out.

    Padding stands on the right. `dense` (B, d') is normalised and scaled as it enters the score, and left out if the
    model has no dense half; `lexical` (B, V) likewise, and left out where terms are looked up.

    Raises:
        DupmaeError: The encoder is none that is written down in :mod:`dupmae.duplex.queries.onnx_encoders`.
    """
    graph, pooling, label = OnnxGraph("query"), reader.pooling, reader.label
    weights = MappedWeights(reader.encoder_folder / WEIGHTS, label, reader.root)
    ids = graph.input("input_ids", np.int64, ["queries", "tokens"])
    mask = graph.input("attention_mask", np.int64, ["queries", "tokens"])
    present = graph.node("Cast", mask, to=1)  # (B, L), float32
    absent = graph.node("Sub", present, graph.constant(1))
    far = graph.node("Mul", absent, graph.constant(-FAR))
    read = Input(
        ids=ids,
        mask=mask,
        far=graph.node("Unsqueeze", far, graph.constant([1, 2], np.int64)),
        shape=graph.node("Shape", ids),
        limit=reader.limit,
    )
    states = encode(graph, reader.config, weights, read, label)  # (B * L, D)
    if pooling.dense_dimension:
        width = graph.constant([pooling.settings["hidden_size"]], np.int64)
        by_text = graph.node("Reshape", states, graph.node("Concat", read.shape, width, axis=0))  # (B, L, D)
        if pooling.dense_pooling == "cls":
            pooled = graph.node("Gather", by_text, graph.constant(0, np.int64), axis=1)
        else:
            last, first = graph.constant([2], np.int64), graph.constant([1], np.int64)
            sums = graph.node("Mul", by_text, graph.node("Unsqueeze", present, last))
            counts = graph.node("ReduceSum", present, first)
            pooled = graph.node("Div", graph.node("ReduceSum", sums, first, keepdims=0), counts)
        projection = _of_pooling(graph, reader, "cls_projection.weight")
        dense = _scaled(graph, reader, graph.node("Gemm", pooled, projection, transB=1), "cls")
        graph.output(dense, "dense", np.float32, ["queries", pooling.dense_dimension])
    if pooling.has_terms and not pooling.own_tokens:
        lexical = _scaled(graph, reader, _lexical(graph, reader, states, read, present), "ot")
        graph.output(lexical, "lexical", np.float32, ["queries", pooling.vocabulary_size])
    return graph


def _lexical(graph: OnnxGraph, reader: QueryReader, states: str, read: Input, present: str) -> str:
    """Add the activated, weighted logits of a query's tokens (Eq. 6-7, 11) to a graph: (B, V)."""
    weights, settings, label = reader.weights, reader.pooling.settings, reader.label

    def named(name: str) -> str:
        return _of_pooling(graph, reader, name)

    if settings["lexical_projection"] == "mlm_head":
        states = graph.node("Gemm", states, named("transform.0.weight"), named("transform.0.bias"), transB=1)
        states = activation(graph, states, settings["head_activation"], label)
        epsilon = float(settings["layer_norm_eps"])
        states = graph.node(
            "LayerNormalization", states, named("transform.2.weight"), named("transform.2.bias"), epsilon=epsilon
        )
    logits = graph.node("Gemm", states, named("output.weight"), transB=1)  # (B * L, V)
    vocabulary = graph.constant([reader.pooling.vocabulary_size], np.int64)
    logits = graph.node("Reshape", logits, graph.node("Concat", read.shape, vocabulary, axis=0))  # (B, L, V)
    ordinary = graph.weight("pooling.ordinary", reader.ordinary.astype(np.float32))  # (V,)
    pooled = graph.node("Mul", present, graph.node("Gather", ordinary, read.ids))  # (B, L)
    absent = graph.node("Mul", graph.node("Sub", pooled, graph.constant(1)), graph.constant(-FAR))
    first, last = graph.constant([1], np.int64), graph.constant([2], np.int64)
    largest = graph.node(
        "ReduceMax", graph.node("Add", logits, graph.node("Unsqueeze", absent, last)), first, keepdims=0
    )
    terms = graph.node("Add", largest, named("output.bias"))  # (B, V)
    if settings["lexical_activation"] != "none":
        terms = graph.node("Relu", terms)
    if settings["lexical_activation"] == "log1p_relu":
        terms = graph.node("Log", graph.node("Add", terms, graph.constant(1)))
    of_terms = reader.ordinary * np.exp(weights["entry_log_scale"])
    terms = graph.node("Mul", terms, graph.weight("pooling.of_terms", of_terms.astype(np.float32)))
    return graph.node("Mul", terms, graph.node("ReduceMax", pooled, first))


def _of_pooling(graph: OnnxGraph, reader: QueryReader, name: str) -> str:
    """Name a weight of the pooling module."""
    return graph.weight(f"pooling.{name}", reader.weights[name], reader.weights.origin(name))


def _scaled(graph: OnnxGraph, reader: QueryReader, value: str, half: str) -> str:
    """Scale a half of queries (B, d) to unit length, if the model does, and with its learned scale."""
    if reader.pooling.normalize:
        length = graph.node("ReduceL2", value, graph.constant([1], np.int64))
        value = graph.node("Div", value, graph.node("Max", length, graph.constant(TINY)))
    return graph.node("Mul", value, graph.constant(reader.scale(half)))


def _session(graph: OnnxGraph, label: str) -> Any:
    """Open a graph in ONNX Runtime, which maps its weights from the model's files.

    Raises:
        DupmaeError: ONNX Runtime is missing or too old, or does not take the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DupmaeError(
            f"ONNX Runtime cannot be loaded ({_reason(error)}): pip install onnxruntime, or take --query_encoder torch."
        ) from error
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is wrong is raised
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # queries come one by one
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.folder))
        # Packed anew they would take their size once more, in each process, to save a millisecond or two a query.
        options.add_session_config_entry("session.disable_prepacking", "1")
        return onnxruntime.InferenceSession(graph.serialised(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's are of no common kind
        raise DupmaeError(
            f"{label} cannot be opened in ONNX Runtime {onnxruntime.__version__} ({_reason(error)}): take "
            "--query_encoder torch."
        ) from error


def _reason(error: BaseException) -> str:
    """Put what a library says into a few words of one line."""
    words = " ".join(str(error).split())
    return f"{words[:160]}..." if len(words) > 160 else words or type(error).__name__
