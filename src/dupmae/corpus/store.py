"""The token store: texts as token ids, once, in a memory-mapped Arrow file with word borders and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from dupmae.config import StoreConfig
from dupmae.corpus.chunking import UNSPACED, chunk_lengths, unspaced_word_starts
from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder, fingerprint, write_json

FORMAT = "dupmae token store, version 1"
TOKENS_FILE = "tokens.arrow"
RECORD_FILE = "store.json"
BATCH_TEXTS = 1000
BATCH_CHARACTERS = 2_000_000


class Chunk(TypedDict):
    """One chunk of text as the trainer takes it."""

    input_ids: npt.NDArray[np.int64]
    """Token ids (L,), the first and the last special."""
    word_starts: npt.NDArray[np.bool_]
    """True at the first token of each word, false at the two special tokens (L,)."""


class TokenStore:
    """A store on disk, read through a memory map: `len(store)` chunks, `store[i]` one of them.

    Several processes may read it; pickled, it is its folder's name.

    Attributes:
        folder: Where it lies.
        fingerprint: Changes with the tokenizer, the settings and the texts.
        report: Counts: `texts` read; `chunks` and `tokens` kept (special tokens not counted); `texts_cut` into several
            chunks; `chunks_dropped` as too short; `texts_empty`, those that tokenised to nothing.
        lengths: Tokens of each chunk, special ones included, int32 (N,).
    """

    def __init__(self, folder: Path, record: dict[str, Any], table: pa.Table) -> None:
        self.folder = folder
        self.fingerprint: str = record["fingerprint"]
        self.report: dict[str, int] = record["counts"]
        ids = table.column("input_ids").chunks
        self._offsets = [array.offsets.to_numpy() for array in ids]  # views of the map, one (n + 1,) a batch
        self._ids = [array.values.to_numpy() for array in ids]
        self._word_starts = [array.values for array in table.column("word_starts").chunks]
        self._first = np.cumsum([0, *map(len, ids)])  # number of each batch's first chunk
        self.lengths: npt.NDArray[np.int32] = np.concatenate([np.diff(offsets) for offsets in self._offsets])

    @classmethod
    def open(cls, folder: str | Path) -> TokenStore:
        """Open a store.

        Raises:
            DupmaeError: The folder is no token store, or a damaged one.
        """
        folder = Path(folder)
        if not is_token_store(folder):
            raise DupmaeError(f"{folder} is not a token store that this version can read: build it anew.")
        try:
            record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
            table = pa.ipc.open_file(pa.memory_map(str(folder / TOKENS_FILE))).read_all()
            store = cls(folder, record, table)
            stored = {"chunks": len(store), "tokens": int(store.lengths.sum()) - 2 * len(store)}
            if stored != {name: store.report[name] for name in stored}:
                raise ValueError(f"{TOKENS_FILE} and {RECORD_FILE} disagree")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
            raise DupmaeError(f"The token store {folder} is damaged ({error}): build it anew.") from None
        return store

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> Chunk:
        if not -len(self) <= index < len(self):
            raise IndexError(f"chunk {index} of {len(self)}")
        index %= len(self)
        batch = int(np.searchsorted(self._first, index, side="right")) - 1
        begin, end = self._offsets[batch][index - self._first[batch] :][:2]
        words = self._word_starts[batch].slice(begin, end - begin)
        return {
            "input_ids": self._ids[batch][begin:end].astype(np.int64),
            "word_starts": words.to_numpy(zero_copy_only=False),
        }

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return TokenStore.open, (self.folder,)


def is_token_store(folder: Path) -> bool:
    """Whether a folder holds a token store of this version, whole or damaged."""
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("format") == FORMAT


def build_token_store(texts: Iterable[str], tokenizer: Any, folder: str | Path, config: StoreConfig) -> TokenStore:
    """Tokenise texts once and write them as a token store.

    Each text is tokenised whole and cut into chunks of `config.max_length` tokens (see :mod:`dupmae.corpus.chunking`),
    the special token at the start and the one at the end included. A word is what the tokenizer's pre-tokenizer calls
    one, or each token in scripts without spaces; a piece of a word too long for one chunk counts as a word. A special
    token's name written out in a text is ordinary text. At no time are more than a batch of texts in memory.

    Args:
        texts: The texts.
        tokenizer: A fast tokenizer of `transformers`; it is not changed.
        folder: Where the store goes; a store that lies there is replaced.
        config: Lengths, in tokens with the special ones.

    Returns:
        The store, opened.

    Raises:
        DupmaeError: The tokenizer is slow, has no special tokens or does not tell words apart; the lengths leave no
            room; the folder holds something else; a text is not valid Unicode; nothing is left to store.
    """
    folder = Path(folder)
    budget = config.max_length - 2
    if not 1 <= config.min_length <= config.max_length or budget < 1:
        raise DupmaeError(
            f"The token store needs a max_length of at least 3 and a min_length from 1 to it, not {config.max_length} "
            f"and {config.min_length}."
        )
    if folder.exists() and not (folder.is_dir() and (is_token_store(folder) or not any(folder.iterdir()))):
        raise DupmaeError(f"{folder} exists and is not a token store: remove it or choose another folder.")
    backend, first, last = _prepare(tokenizer)
    dtype = np.uint16 if max(tokenizer.get_vocab().values()) <= 65_535 else np.uint32
    schema = pa.schema([("input_ids", pa.list_(pa.from_numpy_dtype(dtype))), ("word_starts", pa.list_(pa.bool_()))])
    counts = dict.fromkeys(("texts", "chunks", "tokens", "texts_cut", "chunks_dropped", "texts_empty"), 0)
    content = hashlib.sha256()
    with atomic_folder(folder) as temporary:
        with pa.ipc.new_file(str(temporary / TOKENS_FILE), schema) as writer:
            for batch in _batches(tqdm(texts, desc="Tokenising", unit=" texts", unit_scale=True, delay=2)):
                for number, text in enumerate(batch, counts["texts"] + 1):
                    content.update(_bytes(text, number))
                ids, word_starts, lengths = _tokenise(batch, backend, budget, counts)
                keep = lengths + 2 >= config.min_length
                counts["chunks_dropped"] += int((~keep).sum())
                kept = np.repeat(keep, lengths)
                ids, word_starts, lengths = ids[kept], word_starts[kept], lengths[keep]
                counts["chunks"] += len(lengths)
                counts["tokens"] += len(ids)
                if len(lengths):
                    writer.write_batch(_record_batch(ids.astype(dtype), word_starts, lengths, first, last, schema))
        if not counts["chunks"]:
            raise DupmaeError(
                f"Nothing is left to put into the token store {folder}: of {counts['texts']} texts "
                f"{counts['texts_empty']} tokenise to nothing, the others have fewer than {config.min_length} tokens."
            )
        tokenizer_hash = hashlib.sha256(backend.to_str().encode()).hexdigest()
        record: dict[str, Any] = {"settings": asdict(config), "tokenizer": tokenizer_hash, "ends": [first, last]}
        mark = fingerprint({"format": FORMAT, "content": content.hexdigest(), **record})
        write_json(temporary / RECORD_FILE, {"format": FORMAT, "fingerprint": mark, **record, "counts": counts})
    return TokenStore.open(folder)


def _prepare(tokenizer: Any) -> tuple[Any, int, int]:
    """Copy the Rust tokenizer without truncation and padding; find the special tokens of both ends."""
    from tokenizers import Tokenizer

    name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
    if not getattr(tokenizer, "is_fast", False):
        raise DupmaeError(f"The tokenizer {name} is a slow one, which does not tell words apart: use a fast tokenizer.")
    ends = [
        next((token for token in pair if token is not None), None)
        for pair in (
            (tokenizer.cls_token_id, tokenizer.bos_token_id),
            (tokenizer.sep_token_id, tokenizer.eos_token_id),
        )
    ]
    if ends[0] is None or ends[1] is None:
        raise DupmaeError(f"The tokenizer {name} lacks a special token for the start (cls, bos) or the end (sep, eos).")
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    if len(set(backend.encode("a b", add_special_tokens=False).word_ids)) < 2:
        raise DupmaeError(f"The tokenizer {name} does not split a text into words, which whole-word masking needs.")
    return backend, ends[0], ends[1]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Group texts, bounded in number and in characters."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == BATCH_TEXTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _bytes(text: str, number: int) -> bytes:
    """A text as bytes that no other sequence of texts yields."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise DupmaeError(f"Text {number} holds half of a surrogate pair, not valid Unicode.") from None
    return len(encoded).to_bytes(8, "big") + encoded


def _tokenise(
    texts: list[str], backend: Any, budget: int, counts: dict[str, int]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Tokenise and cut a batch of texts, and count what happened.

    Returns:
        All texts' token ids in a row (T,), whether each starts a word (T,), and the lengths of the chunks, which cover
        the row without gaps.
    """
    encodings = backend.encode_batch(texts, add_special_tokens=False)
    ends = np.cumsum([len(encoding) for encoding in encodings])
    ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.uint32, ends[-1])
    words = np.fromiter(chain.from_iterable(encoding.word_ids for encoding in encodings), np.int64, ends[-1])
    word_starts = np.diff(words, prepend=-1) != 0  # (T,), the first tokens of texts are set below
    lengths: list[int] = []
    for text, encoding, end in zip(texts, encodings, ends.tolist(), strict=True):
        length = len(encoding)
        if length and UNSPACED.search(text):
            word_starts[end - length : end] |= unspaced_word_starts(text, [start for start, _ in encoding.offsets])
        if length > budget:
            starts = [start for start, _ in encoding.offsets]
            lengths += chunk_lengths(text, starts, word_starts[end - length : end], budget)
        elif length:
            lengths.append(length)
        counts["texts_cut"] += length > budget
        counts["texts_empty"] += not length
    counts["texts"] += len(texts)
    chunks = np.array(lengths, np.int64)
    word_starts[np.cumsum(chunks) - chunks] = True
    return ids, word_starts, chunks


def _record_batch(
    ids: npt.NDArray[Any],
    word_starts: npt.NDArray[np.bool_],
    lengths: npt.NDArray[np.int64],
    first: int,
    last: int,
    schema: Any,
) -> Any:
    """Put the special tokens around each chunk and make an Arrow record batch of the chunks."""
    offsets = np.concatenate([[0], np.cumsum(lengths + 2)]).astype(np.int32)
    ordinary = np.ones(offsets[-1], bool)
    ordinary[offsets[:-1]] = ordinary[offsets[1:] - 1] = False
    all_ids = np.empty(offsets[-1], ids.dtype)
    all_ids[offsets[:-1]], all_ids[offsets[1:] - 1], all_ids[ordinary] = first, last, ids
    all_starts = np.zeros(offsets[-1], bool)
    all_starts[ordinary] = word_starts
    columns = [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in (all_ids, all_starts)]
    return pa.record_batch(columns, schema=schema)
