"""Tokenise texts once into a token store: a memory-mapped Arrow file with word borders and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from itertools import compress
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dupmae.config import StoreConfig
from dupmae.corpus.folders import files_within
from dupmae.corpus.passage import Passage
from dupmae.corpus.tokenising import batches, prepare, text_bytes, tokenise, with_ends
from dupmae.corpus.unknown_words import warn_of_unknown_words
from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder, fingerprint, write_json
from dupmae.runtime.bars import bar
from dupmae.runtime.json_text import parse_json

FORMAT = "dupmae token store, version 2"
TOKENS_FILE = "tokens.arrow"
TEXTS_FILE = "texts.arrow"
"""The chunks as they stood in their texts, where they are kept."""
TEXTS_SCHEMA = pa.schema([("text", pa.large_string())])
RECORD_FILE = "store.json"


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
        begins: Whether each chunk is the first of its text that was kept, bool (N,).
        title_lengths: Tokens of the text's title right after the chunk's first token, int32 (N,); 0 in later chunks.

    Tokens and texts stay on disk until they are asked for; the three arrays, 9 bytes a chunk, are in memory.
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
        self.begins: npt.NDArray[np.bool_] = table.column("begins").to_numpy()
        self.title_lengths: npt.NDArray[np.int32] = table.column("title_length").to_numpy()

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
            if not (folder / TOKENS_FILE).is_file():  # a pipe would keep its reader waiting
                raise ValueError(f"{TOKENS_FILE} is no file")
            record = parse_json((folder / RECORD_FILE).read_text(encoding="utf-8"))
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

    def __iter__(self) -> Iterator[Chunk]:
        return (self[index] for index in range(len(self)))

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

    @property
    def keeps_texts(self) -> bool:
        """Whether the chunks are kept as they stood in their texts, too."""
        return (self.folder / TEXTS_FILE).is_file()

    def texts(self, start: int, stop: int) -> list[str]:
        """Read some chunks as they stood in their texts, without white space around them.

        Args:
            start: The first one's number.
            stop: The number behind the last one's.

        Raises:
            DupmaeError: They are not kept, or damaged.
        """
        try:
            column = pa.ipc.open_file(pa.memory_map(str(self.folder / TEXTS_FILE))).read_all().column("text")
            if len(column) != len(self):
                raise ValueError(f"{TEXTS_FILE} and {TOKENS_FILE} disagree")
            part = column.slice(start, stop - start)
            part.validate(full=True)
            found: list[str] = part.to_pylist()
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise DupmaeError(f"The token store {self.folder} is damaged ({error}): build it anew.") from None
        return found

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return TokenStore.open, (self.folder,)


def is_token_store(folder: Path) -> bool:
    """Tell whether a folder holds a token store of this version, whole or damaged."""
    return _record_of(folder).get("format") == FORMAT


def build_token_store(
    texts: Iterable[str | Passage],
    tokenizer: Any,
    folder: str | Path,
    config: StoreConfig,
    sources: Sequence[str | Path] = (),
    *,
    read_as: object = None,
    longest: int | None = None,
    in_use: bool = False,
    keep_texts: bool = False,
) -> TokenStore:
    """Tokenise texts once and write them as a token store.

    Each text is tokenised whole and cut into chunks of `config.max_length` tokens (see :mod:`dupmae.corpus.chunking`),
    the special token at the start and the one at the end included. A word is what the tokenizer's pre-tokenizer calls
    one, or each token in scripts without spaces; a piece of a word too long for one chunk counts as a word. A special
    token's name written out in a text is ordinary text. At no time are more than a batch of texts in memory.

    Args:
        texts: The texts; of a passage, its full text, and where its title ends is noted.
        tokenizer: A fast tokenizer of `transformers`; it is not changed.
        folder: Where the store goes; a store that lies there is replaced.
        config: Lengths, in tokens with the special ones.
        sources: Files and folders that the texts come from. If the store in `folder` was made from the same ones
            (by name, size and time of the last change) with the same tokenizer and settings, no text is read.
        read_as: How they are read, if not as they usually are: a store of texts that were read in another way is not
            that of these.
        longest: Tokens of the longest sequence that is of use; a longer one is refused where it is met.
        in_use: Whether a run has begun with the store that lies there, so that another one is not to take its place.
        keep_texts: Keep the chunks as they stand in their texts, too, for a model with another tokenizer to read
            (`PretrainConfig.anchor_model`).

    Returns:
        The store, opened.

    Raises:
        DupmaeError: The tokenizer is slow, has no special tokens or does not tell words apart; the lengths leave no
            room; the folder holds something else; a text is not valid Unicode; nothing is left to store; a sequence
            is too long, or the store that lies there is in use and another.

    Examples:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from dupmae import StoreConfig, build_token_store
        >>> names = ["[CLS]", "[SEP]", "[UNK]", "a", "lamp", "lens", "and"]
        >>> words = Tokenizer(models.WordLevel(dict(zip(names, range(7))), unk_token="[UNK]"))
        >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, cls_token="[CLS]", sep_token="[SEP]")
        >>> store = build_token_store(["a lamp and a lens"], tokenizer, "store", StoreConfig(min_length=4))
        >>> store.report["tokens"], store[0]["input_ids"].tolist()
        (5, [0, 3, 4, 6, 3, 5, 1])
    """
    folder = Path(folder)
    budget = config.max_length - 2
    if config.min_length > config.max_length:
        raise DupmaeError(
            f"No chunk has {config.min_length} tokens at least and {config.max_length} at most: lower min_length."
        )
    if folder.exists() and not (folder.is_dir() and (is_token_store(folder) or not any(folder.iterdir()))):
        raise DupmaeError(f"{folder} exists and is not a token store: remove it or choose another folder.")
    backend, first, last = prepare(tokenizer)
    record: dict[str, Any] = {
        "settings": asdict(config),
        "tokenizer": hashlib.sha256(backend.to_str().encode()).hexdigest(),
        "ends": [first, last],
    }
    sources_fingerprint = _fingerprint_of(sources, read_as)
    if sources and _record_of(folder).items() >= {**record, "format": FORMAT, "sources": sources_fingerprint}.items():
        found = TokenStore.open(folder)
        if found.keeps_texts or not keep_texts:
            return found
    dtype = np.uint16 if max(tokenizer.get_vocab().values()) <= 65_535 else np.uint32
    schema = pa.schema(
        [
            ("input_ids", pa.list_(pa.from_numpy_dtype(dtype))),
            ("word_starts", pa.list_(pa.bool_())),
            ("begins", pa.bool_()),
            ("title_length", pa.int32()),
        ]
    )
    counts = dict.fromkeys(("texts", "chunks", "tokens", "texts_cut", "chunks_dropped", "texts_empty"), 0)
    content = hashlib.sha256()
    with atomic_folder(folder) as temporary:
        with (
            pa.ipc.new_file(str(temporary / TOKENS_FILE), schema) as writer,
            pa.ipc.new_file(str(temporary / TEXTS_FILE), TEXTS_SCHEMA) if keep_texts else nullcontext() as texts_writer,
        ):
            for batch in batches(bar(texts, "Tokenise", "texts")):
                for number, (title, text) in enumerate(batch, counts["texts"] + 1):
                    content.update(text_bytes(text, title, number))
                warn_of_unknown_words(tokenizer, [text for _, text in batch])
                ids, word_starts, lengths, numbers, titles, written = tokenise(batch, backend, budget, counts)
                keep = lengths + 2 >= config.min_length
                counts["chunks_dropped"] += int((~keep).sum())
                kept = np.repeat(keep, lengths)
                ids, word_starts, lengths = ids[kept].astype(dtype), word_starts[kept], lengths[keep]
                if longest is not None and len(lengths) and (most := int(lengths.max()) + 2) > longest:
                    raise DupmaeError(
                        f"The texts make sequences of {most} tokens, but the encoder has positions for {longest}: set "
                        f"max_length to {longest} or less."
                    )
                begins = np.diff(numbers[keep], prepend=-1) != 0
                counts["chunks"] += len(lengths)
                counts["tokens"] += len(ids)
                if len(lengths):
                    columns = [
                        *with_ends(ids, word_starts, lengths, first, last),
                        pa.array(begins),
                        pa.array(titles[keep]),
                    ]
                    writer.write_batch(pa.record_batch(columns, schema=schema))
                    if texts_writer is not None:
                        column = pa.array(compress(written, keep), pa.large_string())
                        texts_writer.write_batch(pa.record_batch([column], schema=TEXTS_SCHEMA))
        if not counts["chunks"]:
            raise DupmaeError(
                f"Nothing is left to put into the token store {folder}: of {counts['texts']} texts "
                f"{counts['texts_empty']} tokenise to nothing, the others have fewer than {config.min_length} tokens."
            )
        own_fingerprint = fingerprint({"format": FORMAT, "content": content.hexdigest(), **record})
        if in_use and _record_of(folder).get("fingerprint") not in (None, own_fingerprint):
            raise DupmaeError(
                f"{folder} is the store of a run that was begun with other text or other settings: choose another "
                "output folder or delete it."
            )
        whole = {"format": FORMAT, "fingerprint": own_fingerprint, **record}
        write_json(temporary / RECORD_FILE, whole | {"sources": sources_fingerprint, "counts": counts})
    return TokenStore.open(folder)


def _record_of(folder: Path) -> dict[str, Any]:
    """Read the record of the store in a folder; empty if there is none."""
    try:
        record = parse_json((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _fingerprint_of(sources: Sequence[str | Path], read_as: object) -> str:
    """Fingerprint files and all files in folders by their names, sizes and times of the last change, and how they are
    read.
    """
    files: list[tuple[str, int, int]] = []
    for source in map(Path, sources):
        inside = sorted(files_within(source)) if source.is_dir() else [source]
        found = ((path.resolve(), path.stat()) for path in inside if path.is_file())
        files += [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in found]
    return fingerprint(files if read_as is None else [files, read_as])
