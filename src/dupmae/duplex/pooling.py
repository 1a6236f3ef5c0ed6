"""Compute the duplex representation (Eq. 10-12) in one sentence-transformers module.

This file is copied into every saved model, so that plain sentence-transformers can load it where `dupmae` is not
installed: it imports nothing of `dupmae` that it cannot do without.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from sentence_transformers.base.modules.module import Module
from torch import nn
from transformers.activations import ACT2FN

try:
    from dupmae.kernels import linear_max_pool
except ImportError:  # the copy inside a model folder, on a machine without dupmae

    def linear_max_pool(
        hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, mask: torch.Tensor
    ) -> torch.Tensor:
        """Compute the same numbers one sequence at a time: hidden (B, L, D), mask (B, L) -> (B, V)."""
        shift = 0.0 if bias is None else bias
        pooled = [
            (weight @ states[keep].T).amax(dim=1) + shift if keep.any() else weight.new_zeros(len(weight))
            for states, keep in zip(hidden, mask, strict=True)
        ]
        return torch.stack(pooled)


logger = logging.getLogger(__name__)

CODE_FILE = "modeling_duplex.py"
"""Name under which this file travels in a model folder, where sentence-transformers looks for it."""
WORDS_FILE = "words.json"
"""Name of what a model's folder says of how words are read."""
FORMER_KEYS = {
    "cls_dimension": "dense_dimension",
    "ot_projection": "lexical_projection",
    "ot_activation": "lexical_activation",
    "query_entries": "query_terms",
}
"""What version 0.1 called settings in a model's configuration -> what they are called now."""


class DuplexPooling(Module):  # type: ignore[misc]
    """Token states in, one vector over V + d' dimensions out; the dot product of a query's and a document's is Eq. 12.

    Dimensions 0 .. V-1 hold the lexical half: logits of the ordinary tokens, max-pooled, activated, weighted per
    term, and of a document only the `top_k` largest. Dimensions V .. V+d'-1 hold the reduced dense vector. With
    `normalize` each half of a document is a unit vector, and each half of a query a unit vector times a learned scale,
    so that a score is

        exp(cls_log_scale) cos(h^_q, h^_d) + exp(ot_log_scale) cos(mu_q, mu^_d),

    which neither a long text nor a large logit can dominate, and in which either half can be given another weight
    without encoding the documents again. (With a `document_norm` of their own, documents' lexical halves are not unit
    vectors.)

    Args:
        hidden_size: Width D of the token states.
        vocabulary_size: V.
        dense_dimension: d'; 0 leaves the dense half out.
        top_k: Terms kept of a document; 0 leaves the lexical half out.
        special_ids: Token ids that are never pooled into the lexical half.
        dense_pooling: The dense half reduces the first token's state (`cls`) or the mean over all tokens (`mean`).
        lexical_projection: `mlm_head` (dense layer, activation, LayerNorm, output matrix) or `linear` (output matrix).
        lexical_activation: `log1p_relu`, `relu` or `none`, applied to the pooled logits.
        head_activation: Name of the MLM head's activation.
        layer_norm_eps: Of the MLM head's LayerNorm.
        head_size: Width of the MLM head's output matrix, where it is not that of the token states.
        normalize: Whether each half is scaled to unit length.
        query_terms: Which terms a query's lexical half has: all that its tokens' `logits` raise (Eq. 11), or its own
            `tokens` alone, each with a weight that depends on nothing else, so that no query passes the output matrix.
        document_norm: With `normalize`, a document's lexical half is scaled to `unit` length, or it keeps its `own`,
            so that a long document, which raises more terms, may weigh more than a short one.
        words: Whether whole words are a third part of the score, which this module only has the scale of: `dupmae`
            computes them from the text.

    Raises:
        ValueError: `top_k` exceeds the vocabulary, both halves are left out, a size is negative, or a linear projection
            has to use an output matrix of another width.
    """

    forward_kwargs = {"task"}  # noqa: RUF012 (the base class declares it so)
    config_keys = [  # noqa: RUF012
        "hidden_size",
        "vocabulary_size",
        "dense_dimension",
        "top_k",
        "special_ids",
        "dense_pooling",
        "lexical_projection",
        "lexical_activation",
        "head_activation",
        "layer_norm_eps",
        "head_size",
        "normalize",
        "query_terms",
        "document_norm",
        "words",
    ]
    save_in_root = False
    words_read: bytes | None = None
    special: torch.Tensor

    def __init__(
        self,
        *,
        hidden_size: int,
        vocabulary_size: int,
        dense_dimension: int,
        top_k: int,
        special_ids: list[int],
        dense_pooling: Literal["cls", "mean"] = "cls",
        lexical_projection: Literal["mlm_head", "linear"] = "mlm_head",
        lexical_activation: Literal["log1p_relu", "relu", "none"] = "log1p_relu",
        head_activation: str = "gelu",
        layer_norm_eps: float = 1e-12,
        head_size: int | None = None,
        normalize: bool = True,
        query_terms: Literal["logits", "tokens"] = "logits",
        document_norm: Literal["unit", "own"] = "unit",
        words: bool = False,
    ) -> None:
        super().__init__()
        if top_k > vocabulary_size:
            raise ValueError(f"top_k is {top_k}, but the vocabulary has only {vocabulary_size} terms: lower it.")
        if min(top_k, dense_dimension) < 0 or top_k == dense_dimension == 0:
            raise ValueError("dense_dimension and top_k must not be negative, and one of them must be above 0.")
        head_size = head_size or hidden_size
        if lexical_projection == "linear" and head_size != hidden_size:
            raise ValueError(
                f"lexical_projection linear needs an output matrix as wide as the encoder, but it is {head_size} wide "
                f"and the encoder {hidden_size}: use mlm_head."
            )
        self.hidden_size, self.vocabulary_size, self.head_size = hidden_size, vocabulary_size, head_size
        self.dense_dimension, self.top_k = dense_dimension, top_k
        self.special_ids = special_ids
        self.dense_pooling = dense_pooling
        self.lexical_projection, self.lexical_activation = lexical_projection, lexical_activation
        self.head_activation, self.layer_norm_eps, self.normalize = head_activation, layer_norm_eps, normalize
        self.query_terms, self.document_norm, self.words = query_terms, document_norm, words

        with warnings.catch_warnings():  # of having nothing to initialise, where there are no dimensions
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.cls_projection = nn.Linear(hidden_size, dense_dimension, bias=False)  # W_cls of Eq. 10
        self.cls_log_scale = nn.Parameter(torch.tensor(0.0))
        self.transform: nn.Module = nn.Identity()
        if lexical_projection == "mlm_head":
            dense, norm = nn.Linear(hidden_size, head_size), nn.LayerNorm(head_size, eps=layer_norm_eps)
            self.transform = nn.Sequential(dense, ACT2FN[head_activation], norm)
        self.output = nn.Linear(head_size, vocabulary_size)  # Eq. 6
        self.entry_log_scale = nn.Parameter(torch.zeros(vocabulary_size))
        self.ot_log_scale = nn.Parameter(torch.tensor(0.0))
        if query_terms == "tokens":
            self.token_log_scale = nn.Parameter(torch.zeros(vocabulary_size))
        if words:
            self.add_words(1.0)
        special = torch.zeros(vocabulary_size, dtype=torch.bool)
        special[special_ids] = True
        self.register_buffer("special", special, persistent=False)

    def forward(self, features: dict[str, Any], task: Literal["query", "document"] | None = None) -> dict[str, Any]:
        """Add `sentence_embedding`, (B, V + d'), to `features` with `token_embeddings`, `input_ids`, `attention_mask`.

        Args:
            features: Token states (B, L, D), their ids and mask (B, L). With `terms`, an array of the ids of T terms
                (:meth:`terms_of`), the lexical half has those alone, none of them cut, and the result is (B, T + d').
                With `word_scale`, of any value, it has one column more, the scale of whole words: training asks for it,
                because all that gets a gradient has to come out of here.
            task: `document` cuts the lexical half to its `top_k` terms; `query` and None keep it whole and carry the
                scales. By default it is what `features` say: sentence-transformers' trainers note it there.
        """
        dense, pooled = self.halves(features, task or features.get("task"))
        parts = [pooled, dense]
        if "word_scale" in features:
            parts.append(self.word_log_scale.exp().expand(len(dense), 1))
        features["sentence_embedding"] = torch.cat(parts, dim=1)  # (B, V + d')
        return features

    def halves(
        self, features: dict[str, Any], task: Literal["query", "document"] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the dense half (B, d') and the lexical half (B, V) of `features`, as they enter the score."""
        return self.dense_half(features, task), self.lexical_half(features, task)

    def dense_half(self, features: dict[str, Any], task: Literal["query", "document"] | None) -> torch.Tensor:
        """Compute h^ = W_cls^T h_cls (Eq. 10), (B, d')."""
        dense: torch.Tensor = self.cls_projection(self.text_states(features)).float()
        if self.normalize:
            dense = F.normalize(dense, dim=1)
        return dense if task == "document" else dense * self.cls_log_scale.exp()

    def text_states(self, features: dict[str, Any]) -> torch.Tensor:
        """Compute h_cls, the first token's state or the mean of all, (B, D)."""
        states, mask = features["token_embeddings"], features["attention_mask"].bool()
        if self.dense_pooling == "cls":
            first = mask.int().argmax(dim=1)  # padding may stand on the left
            h_cls: torch.Tensor = states[torch.arange(len(states), device=states.device), first]
            return h_cls.to(self.cls_projection.weight.dtype)
        states = states.to(self.cls_projection.weight.dtype)
        weights = mask.to(states.dtype)[:, :, None]  # (B, L, 1)
        mean: torch.Tensor = (states * weights).sum(dim=1) / weights.sum(dim=1)
        return mean

    def lexical_half(self, features: dict[str, Any], task: Literal["query", "document"] | None) -> torch.Tensor:
        """Compute the weights of the terms (Eq. 11), (B, V), zero where cut."""
        if self.top_k == 0:
            states: torch.Tensor = features["token_embeddings"]
            return states.new_zeros(len(states), self.vocabulary_size, dtype=torch.float32)
        terms = features.get("terms")
        if task != "document" and self.query_terms == "tokens":
            mu = _chosen(self.own_tokens(features) * self.token_log_scale.exp(), terms)
        else:
            mu = self.activated(features)
        if task == "document" and terms is None and self.top_k < self.vocabulary_size:
            kept = mu.topk(self.top_k, dim=1)
            mu = torch.zeros_like(mu).scatter(1, kept.indices, kept.values)
        return self.scaled(mu, task)

    def scaled(self, mu: torch.Tensor, task: Literal["query", "document"] | None) -> torch.Tensor:
        """Scale a lexical half (B, V) to its length and, of a query, with its learned scale."""
        if self.normalize and (task != "document" or self.document_norm == "unit"):
            mu = F.normalize(mu, dim=1)
        return mu if task == "document" else mu * self.ot_log_scale.exp()

    def terms_of(self, features: dict[str, Any]) -> torch.Tensor | None:
        """Find the terms that decide the scores of queries.

        If queries have their own tokens alone and documents a norm of their own, no other term of a document enters a
        score or its gradient: in training none but these need to be computed.

        Args:
            features: Of the queries.

        Returns:
            True or false for each term, (V,), or None if all may.
        """
        unit = self.normalize and self.document_norm == "unit"
        if self.top_k == 0 or self.query_terms == "logits" or unit:
            return None
        return self.own_tokens(features).any(dim=0)

    def own_tokens(self, features: dict[str, Any]) -> torch.Tensor:
        """Find which terms the texts' ordinary tokens are, 1 or 0, (B, V)."""
        ids, ordinary = features["input_ids"], self.pooled_tokens(features)
        occurs = torch.zeros(len(ids), self.vocabulary_size, device=ids.device)
        return occurs.scatter_reduce(1, ids, ordinary.float(), "amax")

    def activated(self, features: dict[str, Any]) -> torch.Tensor:
        """Activate the logits and multiply them with the weights of the terms, (B, V)."""
        mu = self.weighted(self.logits(features), features.get("terms"))
        return mu.masked_fill(~self.pooled_tokens(features).any(dim=1, keepdim=True), 0.0)

    def weighted(self, logits: torch.Tensor, terms: Any = None) -> torch.Tensor:
        """Activate pooled logits (..., V), or of some terms (..., T), and multiply them with the terms' weights."""
        weights, special = _chosen(self.entry_log_scale, terms).exp(), _chosen(self.special, terms)
        return (self.activation(logits) * weights).masked_fill(special, 0.0)

    def activation(self, mu: torch.Tensor) -> torch.Tensor:
        """Apply `lexical_activation` to logits of any shape."""
        if self.lexical_activation != "none":
            mu = mu.relu()
        return mu.log1p() if self.lexical_activation == "log1p_relu" else mu

    def logits(self, features: dict[str, Any]) -> torch.Tensor:
        """Compute mu, the largest logit of each term over the ordinary tokens (Eq. 6-7), (B, V)."""
        states, terms = self.transform(features["token_embeddings"]), features.get("terms")
        weight = self.output.weight if terms is None else self.output.weight[terms]  # (V, D) or (T, D)
        return linear_max_pool(states, weight, _chosen(self.output.bias, terms), self.pooled_tokens(features))

    def pooled_tokens(self, features: dict[str, Any]) -> torch.Tensor:
        """Find the tokens that are pooled, which are neither padding nor special, (B, L)."""
        mask: torch.Tensor = features["attention_mask"].bool()
        return mask & ~self.special[features["input_ids"]]

    def add_words(self, scale: float) -> None:
        """Make whole words a third part of the score, multiplied by `scale`."""
        self.words = True
        self.word_log_scale = nn.Parameter(torch.tensor(scale).log())

    @property
    def word_scale(self) -> float:
        """What a query's words are multiplied by; 0 without words."""
        return float(self.word_log_scale.detach().exp()) if self.words else 0.0

    def get_embedding_dimension(self) -> int:
        """Tell the number of dimensions, V + d'."""
        return self.vocabulary_size + self.dense_dimension

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write configuration and weights (always safetensors) to this module's folder.

        The model's folder gets this file, and how words are read as it was loaded, for whoever computes them.
        """
        Path(output_path).mkdir(parents=True, exist_ok=True)
        shutil.copy(__file__, Path(output_path).parent / CODE_FILE)
        if self.words_read is not None:
            (Path(output_path).parent / WORDS_FILE).write_bytes(self.words_read)
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=True)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> DuplexPooling:
        """Load the module from a model folder or a Hugging Face id."""
        hub = {key: kwargs.get(key) for key in ("token", "cache_folder", "revision")}
        hub["local_files_only"] = kwargs.get("local_files_only", False)
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **hub)
        settings = {FORMER_KEYS.get(key, key): value for key, value in config.items()}
        module: DuplexPooling = cls.load_torch_weights(
            model_name_or_path, subfolder=subfolder, model=cls(**settings), **hub
        )
        words_file = cls.load_file_path(model_name_or_path, WORDS_FILE, **hub) if module.words else None
        module.words_read = None if words_file is None else Path(words_file).read_bytes()
        if module.words and cls.__module__ != "dupmae.duplex.pooling":
            logger.warning(
                "The third part of this model's score, whole words, is left out: dupmae computes it (DuplexEncoder)."
            )
        return module


def _chosen(values: torch.Tensor, terms: Any) -> torch.Tensor:
    """Choose from values (..., V) those of some terms, (..., T), or keep all."""
    return values if terms is None else values[..., terms]
