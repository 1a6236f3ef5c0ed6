"""Embed many texts, as :meth:`DuplexEncoder.embed_documents` and `embed_queries` do.

Where bfloat16 pays, the matrices are converted to it once and kept as long as the call lasts (autocast would convert
them for every batch, and the activations at every layer); where it does not, most terms of a document are ruled out in
bytes (:mod:`dupmae.duplex.screening`). Texts are tokenised in a thread, one slab ahead, and cut into batches of similar
numbers of tokens, small ones on a processor. Memory beyond the result is a slab's token ids and a batch's activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch.func import functional_call

from dupmae.corpus.unknown_words import warn_of_unknown_words
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.pooling import DuplexPooling
from dupmae.duplex.queries.reading import warn_of_long_queries
from dupmae.duplex.screening import screened
from dupmae.duplex.words import Words
from dupmae.errors import DupmaeError, refuse_string, refuse_surrogates
from dupmae.kernels.shapes import padded_length
from dupmae.runtime.bars import bar
from dupmae.runtime.precision import bfloat16_pays

Task = Literal["query", "document"]
Features = dict[str, Any]

SLAB_BATCHES = 32
"""Batches that are tokenised at a time and sorted by their texts' tokens."""
CACHED_TOKENS = 2048
"""Tokens of a batch on a processor, at most, unless one text has more: its caches then hold a layer's activations."""
SCREENED_TEXTS = 16
"""From so many texts on it pays to convert the output matrix to bytes (:mod:`dupmae.duplex.screening`)."""
IN_FULL = (
    "cls_projection.weight",
    "cls_log_scale",
    "ot_log_scale",
    "entry_log_scale",
    "token_log_scale",
    "output.bias",
)
"""Parameters of the pooling module that stay as they are: small, and their products carry the score."""


class Encoder(Protocol):
    """What embedding needs of a :class:`DuplexEncoder`."""

    device: torch.device
    prompts: dict[str, str]
    precision: Literal["auto", "float32", "bfloat16"]
    on_batch: Callable[[int, int], None] | None

    @property
    def pooling(self) -> DuplexPooling:
        """The last of its modules."""

    @property
    def tokenizer(self) -> Any:
        """Says which of a text's words it does not know."""

    @property
    def words(self) -> Words | None:
        """How it reads whole words."""

    def __iter__(self) -> Iterator[torch.nn.Module]:
        """Yield its modules, each of which takes the features that the one before it gives."""

    def reads(self, task: Task) -> int:
        """Tell how many tokens of a text it reads, special ones left out."""

    def eval(self) -> Any:
        """Switch dropout off."""

    def preprocess(self, inputs: list[str], prompt: str | None = None, *, task: Task) -> Features:
        """Tokenise texts: `input_ids` and `attention_mask`, (n, L), among others."""


@torch.inference_mode()
def embed(
    encoder: Encoder, texts: Sequence[str], task: Task, batch_size: int, show_progress_bar: bool
) -> DuplexEmbeddings:
    """Embed texts, whatever their order, in batches of `batch_size` texts of similar length.

    Raises:
        DupmaeError: A batch of no texts, one string instead of a list, or a text that is not valid Unicode.
    """
    refuse_string(texts, "texts")
    refuse_surrogates(texts, "Text")
    if batch_size < 1:
        raise DupmaeError(f"A batch holds at least one text, not {batch_size}.")
    if task == "document":
        warn_of_unknown_words(encoder.tokenizer, texts)
    else:
        warn_of_long_queries(
            encoder.tokenizer,
            texts,
            encoder.prompts.get("query") or "",
            encoder.reads("query"),
            words=encoder.words is not None,
        )
    encoder.eval()
    forward = _forward(encoder, screening=task == "document" and len(texts) >= SCREENED_TEXTS)
    vocabulary = encoder.pooling.vocabulary_size
    cls = np.zeros((len(texts), encoder.pooling.dense_dimension), np.float32)
    ids: npt.NDArray[Any] = np.zeros((len(texts), 0), np.uint16 if vocabulary <= 2**16 - 1 else np.uint32)
    weights = np.zeros((len(texts), 0), np.float32)
    with bar(None, f"Encode ({task})", "texts", len(texts), show=show_progress_bar) as progress:
        for rows, features in _batches(encoder, texts, task, batch_size):
            vectors = forward(features, task)  # (B, V + d')
            pooled = vectors[:, :vocabulary]
            width = int((pooled != 0).sum(dim=1).max())
            heaviest = pooled.abs().topk(width, dim=1).indices  # (B, k)
            if width > ids.shape[1]:
                ids, weights = (np.pad(old, ((0, 0), (0, width - old.shape[1]))) for old in (ids, weights))
            cls[rows] = vectors[:, vocabulary:].cpu().numpy()
            ids[rows, :width] = heaviest.cpu().numpy()
            weights[rows, :width] = pooled.gather(1, heaviest).cpu().numpy()
            progress.update(len(rows))
            if encoder.on_batch is not None:
                encoder.on_batch(len(rows), int(features["attention_mask"].sum()))
    return DuplexEmbeddings(cls, ids, weights, _words(encoder, texts, task))


def _words(encoder: Encoder, texts: Sequence[str], task: Task) -> sp.csr_array | None:
    """Weigh the whole words of texts, those of queries without their rarity."""
    if encoder.words is None:
        return None
    if task == "document":
        return encoder.words.space.passages(texts)
    found = encoder.words.space.queries(texts)
    found.data *= np.float32(encoder.pooling.word_scale)
    return found


def _forward(encoder: Encoder, screening: bool) -> Callable[[Features, Task], torch.Tensor]:
    """Make the encoder a function from features to vectors (B, V + d'), its matrices converted where that pays."""
    *modules, pooling = encoder
    converted: list[dict[str, torch.Tensor]] = [{} for _ in encoder]
    if bfloat16_pays(encoder.precision):
        for module, weights in zip(encoder, converted, strict=True):
            for name, parameter in module.named_parameters():
                if module is not pooling or name not in IN_FULL:
                    weights[name] = parameter.to(torch.bfloat16)
    screen = screened(encoder.pooling) if screening and not any(converted) else None

    def forward(features: Features, task: Task) -> torch.Tensor:
        for module, weights in zip(modules, converted[:-1], strict=True):
            features = functional_call(module, weights, (features,))
        if screen is not None:
            return screen(features)
        vectors: torch.Tensor = functional_call(pooling, converted[-1], (features, task))["sentence_embedding"]
        return vectors

    return forward


def _batches(
    encoder: Encoder, texts: Sequence[str], task: Task, batch_size: int
) -> Iterator[tuple[npt.NDArray[np.int64], Features]]:
    """Yield batches on the encoder's device, long texts first, with the places of their texts."""
    order = np.array(sorted(range(len(texts)), key=lambda row: -len(texts[row])), np.int64)
    slabs = [
        order[start : start + SLAB_BATCHES * batch_size] for start in range(0, len(order), SLAB_BATCHES * batch_size)
    ]

    def tokenise(slab: npt.NDArray[np.int64]) -> Features:
        return encoder.preprocess([texts[row] for row in slab], prompt=encoder.prompts.get(task) or None, task=task)

    with ThreadPoolExecutor(1, "tokenise") as ahead:
        waiting = [ahead.submit(tokenise, slab) for slab in slabs[:1]]
        for number, slab in enumerate(slabs):
            features = waiting.pop().result()
            waiting = [ahead.submit(tokenise, following) for following in slabs[number + 1 : number + 2]]
            mask = features["attention_mask"]  # (n, L)
            tokens, places = mask.sum(dim=1).sort(descending=True, stable=True)
            lengths = [padded_length(count, mask.shape[1]) for count in tokens.tolist()]
            for rows in torch.split(places, _sizes(lengths, batch_size, encoder.device)):
                columns = mask[rows].any(dim=0)  # padding may stand on either side
                used = int(columns.sum())
                columns[(~columns).nonzero()[: padded_length(used, len(columns)) - used, 0]] = True
                yield (
                    slab[rows.numpy()],
                    {
                        name: _part(value, mask.shape, rows, columns).to(encoder.device)
                        if isinstance(value, torch.Tensor)
                        else value
                        for name, value in features.items()
                    },
                )


def _sizes(lengths: list[int], batch_size: int, device: torch.device) -> list[int]:
    """Size batches by the lengths of their texts, the longest first, so that few shapes are seen."""
    sizes: list[int] = []
    while (begun := sum(sizes)) < len(lengths):
        cached = max(1, CACHED_TOKENS // max(1, lengths[begun])) if device.type == "cpu" else batch_size
        sizes.append(min(batch_size, cached, len(lengths) - begun))
    return sizes


def _part(value: torch.Tensor, shape: torch.Size, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Take some rows, and of what has a column for each token those columns that are in use."""
    return value[rows][:, columns] if value.shape == shape else value[rows]
