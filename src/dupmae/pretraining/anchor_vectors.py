"""The anchor model's vectors of a token store's chunks: computed once, kept in block files, read by chunk number.

    vectors/FINGERPRINT/000000000.npy    # float16, a row of unit length for each of the first 1,024 chunks
    vectors/FINGERPRINT/000001024.npy    # and so on

The fingerprint is that of the model, the store, and how the one reads the other. A block is there whole or not at all,
so that a call that was interrupted goes on, and a run with other settings finds what is there. In float16 a component
is off by 2^-11 of itself at most: 1 - the cosine between a vector of all-MiniLM-L6-v2 and what was stored of it was at
most 3e-8, over 6,400 passages.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sentence_transformers.base.modules import Transformer

from dupmae.backbones.embedder import encoding_options, open_embedder
from dupmae.backbones.opening import opening
from dupmae.config import PretrainConfig
from dupmae.corpus.cutting import cut_texts
from dupmae.corpus.unknown_words import warn_of_unknown_words
from dupmae.errors import DupmaeError
from dupmae.files import atomic_write, fingerprint
from dupmae.models import Model, open_model
from dupmae.pretraining.anchor import isometry
from dupmae.pretraining.data import Sequences, collator, shuffled
from dupmae.pretraining.objective import DupMAE
from dupmae.runtime.bars import bar
from dupmae.runtime.precision import autocast, bfloat16_pays
from dupmae.runtime.processes import is_first_process, join_processes, wait_for_others

logger = logging.getLogger(__name__)

BLOCK = 1024
"""Chunks whose vectors are computed, written and lost by a kill together."""
TOLD = 256
"""Chunks after which the progress bar moves, and which are sorted by length together."""
MAPPED = 64
"""Block files that are mapped at the same time, so that a large store does not use up what a process may open."""
TURNED_BY = 1000
"""Chunks whose vectors by the encoder the projection is found by; 40 a second on two cores."""
NARROWED_BY = 10
"""Times as many whose vectors by the anchor model are looked at."""
TOLERANCE = 0.01
"""How far a stored vector's length may be from 1."""
_OTHER_KINDS = {
    "cross-encoder": "a cross-encoder, which scores pairs of texts",
    "sparse": "a sparse encoder",
    "duplex": "a duplex model, of which the dense vector is only a half",
    "encoder": "an encoder whose files do not say how a text's vector is made (modules.json)",
}


def open_anchor_model(config: PretrainConfig) -> Model | None:
    """Find the model that the setting `anchor_model` names, without loading it; None if it names none.

    Raises:
        DupmaeError: There is no such model, it gives no dense vector of a text, or `anchor_weight` is 0.
    """
    if config.anchor_model is None:
        return None
    if not config.anchor_weight:
        raise DupmaeError(
            f"anchor_model is {config.anchor_model}, but anchor_weight is 0, so that nothing would be drawn to its "
            "vectors: set anchor_weight, to 20 for instance, or leave anchor_model out."
        )
    model = open_model(config.anchor_model, option="anchor_model")
    if model.kind == "encoder":
        from transformers import AutoConfig

        with opening(model.label):
            AutoConfig.from_pretrained(model.encoder_path)  # raises an error if there is no such model at all
    if model.kind != "dense":
        raise DupmaeError(
            f"{model.label} is {_OTHER_KINDS[model.kind]}: name an embedder of sentence-transformers that gives one "
            "dense vector."
        )
    return model


class AnchorVectors:
    """The vectors of a store's chunks, memory-mapped.

    Args:
        folder: Of the block files.
        count: Chunks of the store.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self._block = lru_cache(MAPPED)(lambda number: _mapped(_file(folder, number * BLOCK)))

    @property
    def width(self) -> int:
        """Components D of a vector."""
        return int(self._block(0).shape[1])

    def __getitem__(self, number: int) -> npt.NDArray[np.float32]:
        """Read a chunk's vector, (D,)."""
        vector: npt.NDArray[np.float32] = self._block(number // BLOCK)[number % BLOCK].astype(np.float32)
        return vector


def encode_store(store: Sequences, tokenizer: Any, model: Model, folder: Path, config: PretrainConfig) -> AnchorVectors:
    """Compute the anchor model's vectors of all chunks of a token store, as far as they are not there.

    The model reads a chunk as it stood in its text, where the store keeps that, with the prompt for documents that the
    model declares, and as far as the model reads; else what the tokens are decoded to. Of several processes each
    computes some blocks.

    Args:
        store: The token store.
        tokenizer: What it was made with.
        model: As :func:`open_anchor_model` returns it.
        folder: Where vectors are kept, those of this model and this store in a folder of their own.
        config: The settings.

    Raises:
        DupmaeError: The model cannot be loaded, or gives no vector of a chunk.
    """
    processes, bfloat16 = join_processes(), bfloat16_pays(config.precision)
    kept = folder / fingerprint([model.fingerprint, store.fingerprint, store.keeps_texts, bfloat16, BLOCK])
    starts = range(0, len(store), BLOCK)[processes.process_index :: processes.num_processes]
    sizes = {start: min(BLOCK, len(store) - start) for start in starts}
    missing = {start: size for start, size in sizes.items() if not _is_whole(_file(kept, start), size)}
    if missing:
        encode = _encoder(model, config.precision, processes.device)
        logger.info("The vectors of %s are kept in %s.", model.label, kept)
        total, done = sum(sizes.values()), sum(sizes.values()) - sum(missing.values())
        with bar(None, "Anchor vectors", "chunks", total, done=done) as progress:
            for start, size in missing.items():
                texts, parts = _texts(store, tokenizer, start, start + size), list[torch.Tensor]()
                for begin in range(0, size, TOLD):
                    parts.append(encode(texts[begin : begin + TOLD]))
                    progress.update(len(parts[-1]))
                vectors = torch.cat(parts)
                _refuse_no_vectors(vectors, model, start)
                with atomic_write(_file(kept, start), "wb") as file:
                    np.save(file, F.normalize(vectors, dim=1).half().numpy())
    wait_for_others()
    return AnchorVectors(kept, len(store))


def _encoder(model: Model, precision: str, device: torch.device) -> Any:
    """Load the model: a function from texts to their vectors (n, D), float32."""
    embedder = open_embedder(model, precision, device=str(device))
    limit = None
    if isinstance(embedder[0], Transformer):
        limit = embedder[0].document_length or embedder[0].max_seq_length
    options = encoding_options(embedder, [limit])

    def encode(texts: list[str]) -> torch.Tensor:
        warn_of_unknown_words(embedder.tokenizer, texts)
        texts = cut_texts(texts, embedder.tokenizer, limit)
        vectors: Any = embedder.encode_document(texts, convert_to_tensor=True, show_progress_bar=False, **options)
        return vectors.float().cpu()  # type: ignore[no-any-return]

    return encode


def _texts(store: Sequences, tokenizer: Any, start: int, stop: int) -> list[str]:
    """Read chunks as they stood in their texts, or decode their tokens."""
    if store.keeps_texts:
        return store.texts(start, stop)
    ids = [store[number]["input_ids"] for number in range(start, stop)]
    decoded: list[str] = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return decoded


def _refuse_no_vectors(vectors: torch.Tensor, model: Model, start: int) -> None:
    """Refuse vectors (n, D) without a direction.

    Raises:
        DupmaeError: One of them is zero, or not a number.
    """
    norms = vectors.norm(dim=1)
    bad = ~((norms > 0) & norms.isfinite())
    if bad.any():
        raise DupmaeError(
            f"{model.label} gives no vector of the token store's chunk {start + int(bad.nonzero()[0])} (zeros, or what "
            "is not a number): name another model."
        )


def _file(folder: Path, start: int) -> Path:
    """Name the file of the block that begins with a chunk."""
    return folder / f"{start:09d}.npy"


def _mapped(file: Path) -> npt.NDArray[np.float16]:
    """Map a block, (n, D)."""
    return np.load(file, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def _is_whole(file: Path, rows: int) -> bool:
    """Tell whether a block is there; warn of a damaged one.

    All its vectors are looked at: what a disk or a power cut has made of them is hardly of unit length.
    """
    if not file.exists():
        return False
    try:
        block = _mapped(file)
        norms = np.linalg.norm(block.astype(np.float32), axis=1)
        whole = block.dtype == np.float16 and len(block) == rows and bool((abs(norms - 1) < TOLERANCE).all())
    except (OSError, ValueError, EOFError, np.exceptions.AxisError):
        whole = False
    if not whole:
        logger.warning("The vectors %s are damaged: they are computed again.", file)
    return whole


@torch.no_grad()
def projection_to(
    objective: DupMAE, store: Sequences, vectors: AnchorVectors, pad_token_id: int, file: Path
) -> npt.NDArray[np.float32]:
    """Find what takes the vectors to the encoder's width (:func:`dupmae.pretraining.anchor.isometry`), or read it.

    Args:
        objective: The base model, before its first step.
        store: The token store.
        vectors: The anchor model's vectors of its chunks.
        pad_token_id: Padding.
        file: Where it is kept while the run lasts, for its other processes and for when it goes on.

    Returns:
        The projection, (d, D).

    Raises:
        DupmaeError: The file is damaged.
    """
    if is_first_process() and not file.exists():
        rows = shuffled(np.arange(min(TURNED_BY * NARROWED_BY, len(store))), len(store), [objective.settings.seed])
        theirs = torch.from_numpy(np.stack([vectors[int(row)] for row in rows]))
        found = isometry(_own_vectors(objective, store, rows[:TURNED_BY], pad_token_id), theirs)
        kept = (theirs.double() @ found.T).norm(dim=1).square().mean()
        logger.info("Of the anchor vectors' squared length %.1f %% fits into the encoder's width.", 100 * kept)
        with atomic_write(file, "wb") as opened:
            np.save(opened, found.float().numpy())
    wait_for_others()
    try:
        projection: npt.NDArray[np.float32] = np.load(file, allow_pickle=False)
        if projection.shape != (objective.backbone.hidden_size, vectors.width) or projection.dtype != np.float32:
            raise ValueError("it is of another shape")
    except (OSError, ValueError, EOFError) as error:
        raise DupmaeError(
            f"{file} is damaged ({str(error)[:100]}): delete the folder {file.parent.parent}, and the same command "
            "begins anew."
        ) from None
    return projection


def _own_vectors(objective: DupMAE, store: Sequences, rows: npt.NDArray[np.int64], pad_token_id: int) -> torch.Tensor:
    """Compute the dense vectors of some chunks, (n, d), in the order of their numbers given."""
    backbone, device = objective.backbone, objective.special.device
    collate = collator(pad_token_id, backbone.vocab_size, backbone.max_length)
    order = store.lengths[rows].argsort(kind="stable")
    training, found = objective.training, []
    objective.eval()
    with autocast(device.type, objective.settings.precision):
        for start in bar(range(0, len(rows), 32), "Find the anchor's projection", "batches"):
            batch = collate([store[int(row)] for row in rows[order[start : start + 32]]])
            ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
            found.append(objective.h_cls(backbone.states(ids, mask), mask).float().cpu())
    objective.train(training)
    return torch.cat(found)[torch.from_numpy(order.argsort())]


class WithVectors:
    """A token store each of whose chunks has what its dense vector is to be drawn to: `anchor`, (d,), float32.

    Args:
        store: The store.
        vectors: The anchor model's vectors of its chunks.
        projection: What takes them to the width of the encoder, (d, D).
    """

    def __init__(self, store: Sequences, vectors: AnchorVectors, projection: npt.NDArray[np.float32]) -> None:
        self._store, self._vectors, self._projection = store, vectors, projection
        self.fingerprint, self.keeps_texts, self.texts = store.fingerprint, store.keeps_texts, store.texts
        self.lengths, self.begins, self.title_lengths = store.lengths, store.begins, store.title_lengths

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {**self._store[index], "anchor": self._projection @ self._vectors[index]}
