"""Immutable parts of an index on disk: how they are written, opened and checked.

A segment is a folder that holds up to 65,536 passages, sorted by id, so that a row number breaks ties between them. Its
inverted lists are kept per block of up to 16,384 passages. `vectors.safetensors` holds:

==============  ================  =====================================================================================
array           type and shape    meaning
==============  ================  =====================================================================================
`high`, `low`   int8 (n, d')      dense halves: a number is `cls_units` times (256 high + low)
`cls_units`     float32 (n,)      powers of two
`slack`         float32 (n,)      how far the score by `high` alone can be off, for a query of length 1
`starts`        uint32 (B, V+1)   where each term's inverted list begins, per block
`documents`     uint16 (P,)       the lists one after the other: passage numbers within the block, rising
`weights`       int16 (P,)        the lists' weights, in units of the passage
`column_ids`    uint32 (C,)       terms that more than half of the passages have, rising; they are columns instead
`columns`       int16 (C n,)      their weights for every passage: (C, n of the block) block by block
`ot_units`      float32 (n,)      powers of two
==============  ================  =====================================================================================

The lexical half is kept in its inverted form alone: each term of each passage takes four bytes, or two in a column.
Ids and texts lie beside it, see `passages`.

In an index with words there are lists of those, too, three bytes a word of a passage. How many passages have a word is
kept nowhere: it is the length of its lists less the deleted passages in them.

==================  =============  ====================================================================================
array               type, shape    meaning
==================  =============  ====================================================================================
`word_borders`      uint32 (B+1,)  where each block's words begin in the next array
`word_ids`          uint32 (W,)    dimensions of the words that a block has, rising, block by block
`word_starts`       uint32 (W+1,)  where each one's inverted list begins
`word_documents`    uint16 (M,)    the lists one after the other: passage numbers within the block, rising
`word_frequencies`  uint8 (M,)     saturated frequencies, in steps of 1/256
==================  =============  ====================================================================================
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from numpy.typing import NDArray

from dupmae.duplex.words import WORD_DIMENSIONS
from dupmae.files import atomic_folder
from dupmae.index.storage.arrays import MappedFile, damaged, describe, refuse_other_arrays, write_arrays
from dupmae.index.storage.manifest import Manifest, SegmentEntry
from dupmae.index.storage.passages import StoredPassages, write_passages
from dupmae.index.storage.quantise import Rows, dense_slack

VECTORS_FILE = "vectors.safetensors"
BLOCK_PASSAGES = 16_384
"""Passages in a block: small enough for its sums to stay in the processor's second-level cache."""


@dataclass(frozen=True, slots=True)
class Block:
    """A run of a segment's passages; the arrays are described above."""

    first: int
    """Row of its first passage within the segment."""
    high: NDArray[np.int8]
    low: NDArray[np.int8]
    dense_units: NDArray[np.float32]
    """`cls_units` on disk."""
    slack: NDArray[np.float32]
    starts: NDArray[np.uint32]
    documents: NDArray[np.uint16]
    weights: NDArray[np.int16]
    column_ids: NDArray[np.uint32]
    columns: NDArray[np.int16]
    lexical_units: NDArray[np.float32]
    """`ot_units` on disk."""
    words: tuple[NDArray[Any], ...]
    """Its words as the compiled loops take them: `word_ids`, `word_starts`, `word_documents`, `word_frequencies`."""

    def __len__(self) -> int:
        return len(self.high)

    @property
    def dense(self) -> tuple[NDArray[Any], ...]:
        """The dense half as the compiled loops take it."""
        return self.high, self.low, self.dense_units, self.slack

    @property
    def lists(self) -> tuple[NDArray[Any], ...]:
        """The lexical half as the compiled loops take it."""
        return self.starts, self.documents, self.weights, self.column_ids, self.columns, self.lexical_units


def _no_words() -> tuple[NDArray[Any], ...]:
    """Make the words of a block without any."""
    arrays = np.zeros(0, np.uint32), np.zeros(1, np.uint32), np.zeros(0, np.uint16), np.zeros(0, np.uint8)
    for array in arrays:
        array.flags.writeable = False  # as mapped ones are, so that the loops are compiled once
    return arrays


_NO_WORDS = _no_words()


Groups = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
"""The documents of a block's passages: the place of each in the order of documents and, within one, of their places
there; who stands at each of these places; and the number, from 0, of the document there. Empty where each passage is a
document, which their ids put in that order already."""


def _groups(documents: NDArray[np.int32], starts: NDArray[np.int64]) -> Groups:
    """Lay out which passages belong together.

    Args:
        documents: Numbers of the passages' documents in the order of their ids (n,).
        starts: Where each begins there (n,).
    """
    order = np.lexsort((starts, documents))
    places = np.empty(len(order), np.int32)
    places[order] = np.arange(len(order))
    numbers = np.cumsum(np.diff(documents[order], prepend=documents[order[:1]]) != 0)
    groups = places, order.astype(np.int32), numbers.astype(np.int32)
    for array in groups:
        array.flags.writeable = False
    return groups


NO_GROUPS: Groups = _groups(np.empty(0, np.int32), np.empty(0, np.int64))


def write_segment(folder: Path, name: str, rows: Rows, passages: pa.Table) -> dict[str, dict[str, Any]]:
    """Write a segment, whole or not at all.

    Args:
        folder: The index.
        name: The segment's folder below it.
        rows: Vectors of the n passages.
        passages: The passages, see `passages.passage_table`.

    Returns:
        Size in bytes and checksum of each file, as the manifest keeps them.
    """
    order = np.asarray(pc.sort_indices(passages.column("id"))).astype(np.int64)
    rows, passages = rows.take(order), passages.take(pa.array(order))
    dense: dict[str, NDArray[Any]] = {
        "high": rows.high,
        "low": rows.low,
        "cls_units": rows.dense_units,
        "slack": dense_slack(rows),
    }
    with atomic_folder(folder / name) as temporary:
        write_arrays(temporary / VECTORS_FILE, dense | _inverted(rows) | _inverted_words(rows))
        write_passages(temporary, passages)
        files = {file.name: describe(file) for file in sorted(temporary.iterdir())}
    return files


def _inverted(rows: Rows) -> dict[str, NDArray[Any]]:
    """Lay out the lexical half as inverted lists and columns."""
    count, vocabulary = rows.lexical.shape
    frequency = np.bincount(rows.lexical.indices, minlength=vocabulary)
    column_ids = np.flatnonzero(2 * frequency > count)
    number = np.full(vocabulary, -1)
    number[column_ids] = np.arange(len(column_ids))
    term_rows = np.repeat(np.arange(count), np.diff(rows.lexical.indptr))
    in_column = number[rows.lexical.indices] >= 0
    columns = np.zeros((len(column_ids), count), np.int16)
    columns[number[rows.lexical.indices[in_column]], term_rows[in_column]] = rows.lexical.data[in_column]
    blocks, starts, documents, weights, position = [], [], [], [], 0
    for first, last in _block_borders(count):
        blocks.append(columns[:, first:last].ravel())
        part = rows.lexical[first:last].tocoo()
        kept = number[part.col] < 0
        lists = sp.csc_array((part.data[kept], (part.row[kept], part.col[kept])), shape=part.shape)
        lists.sort_indices()
        starts.append(position + lists.indptr.astype(np.int64))
        documents.append(lists.indices.astype(np.uint16))
        weights.append(lists.data.astype(np.int16))
        position += lists.nnz
    return {
        "starts": np.stack(starts).astype(np.uint32),
        "documents": np.concatenate(documents),
        "weights": np.concatenate(weights),
        "column_ids": column_ids.astype(np.uint32),
        "columns": np.concatenate(blocks),
        "ot_units": rows.lexical_units,
    }


def _inverted_words(rows: Rows) -> dict[str, NDArray[Any]]:
    """Lay out words as inverted lists, if there are any."""
    if rows.words is None:
        return {}
    ids, lengths, documents, frequencies = [], [], [], []
    for first, last in _block_borders(len(rows)):
        part = rows.words[first:last]
        numbers = np.repeat(np.arange(last - first), np.diff(part.indptr).astype(np.int64))
        # one number a posting, so that a single sort orders them by dimension and passage
        postings = np.sort(part.indices.astype(np.int64) << 24 | numbers << 8 | part.data)
        dimensions = postings >> 24
        begins = np.flatnonzero(np.diff(dimensions, prepend=-1))
        ids.append(dimensions[begins].astype(np.uint32))
        lengths.append(np.diff(begins, append=len(postings)))
        documents.append((postings >> 8 & 0xFFFF).astype(np.uint16))
        frequencies.append((postings & 0xFF).astype(np.uint8))
    return {
        "word_borders": np.cumsum([0, *map(len, ids)]).astype(np.uint32),
        "word_ids": np.concatenate(ids),
        "word_starts": np.cumsum(np.concatenate([[0], *lengths])).astype(np.uint32),
        "word_documents": np.concatenate(documents),
        "word_frequencies": np.concatenate(frequencies),
    }


def _block_borders(count: int) -> list[tuple[int, int]]:
    """Cut rows into as few blocks as allowed, of nearly equal size: each one's first row and the row after its last."""
    blocks = -(-count // BLOCK_PASSAGES)
    borders = [count * number // blocks for number in range(blocks + 1)]
    return list(itertools.pairwise(borders))


class Segment:
    """A segment opened for reading: everything is mapped at once, nothing of it in memory before it is used.

    What it holds is checked before its first use: every number that says where another one stands.
    """

    def __init__(self, folder: Path, manifest: Manifest, entry: SegmentEntry) -> None:
        """Map the files, unless one is missing, or its size, header or arrays' shapes are not as they should be.

        Args:
            folder: The index.
            manifest: Tells how wide the vectors are.
            entry: What it says of this segment.
        """
        self.name = entry.name
        self.size = entry.passages
        self.files = entry.files
        """Size in bytes and checksum of each file."""
        self.vectors_file = MappedFile(folder, f"{entry.name}/{VECTORS_FILE}", entry.files[VECTORS_FILE])
        self.passages = StoredPassages(folder, entry)
        self._arrays = self.vectors_file.arrays()
        self.checked = False
        """Whether :meth:`check` found vectors and ids to be sound."""
        count, dimension, places = self.size, manifest.cls_dimension, manifest.vocabulary_size + 1
        sized = ("documents", "column_ids", "word_ids", "word_documents")
        postings, columns, words, word_postings = (self._arrays.get(name, np.empty(0)).size for name in sized)
        blocks = len(_block_borders(count))
        self.has_words = manifest.words is not None
        wanted: dict[str, tuple[Any, tuple[int, ...]]] = {
            "high": (np.int8, (count, dimension)),
            "low": (np.int8, (count, dimension)),
            "cls_units": (np.float32, (count,)),
            "slack": (np.float32, (count,)),
            "starts": (np.uint32, (blocks, places)),
            "documents": (np.uint16, (postings,)),
            "weights": (np.int16, (postings,)),
            "column_ids": (np.uint32, (columns,)),
            "columns": (np.int16, (columns * count,)),
            "ot_units": (np.float32, (count,)),
        }
        if self.has_words:
            wanted |= {
                "word_borders": (np.uint32, (blocks + 1,)),
                "word_ids": (np.uint32, (words,)),
                "word_starts": (np.uint32, (words + 1,)),
                "word_documents": (np.uint16, (word_postings,)),
                "word_frequencies": (np.uint8, (word_postings,)),
            }
        elif "word_ids" in self._arrays:
            raise damaged(self.vectors_file.path, "has words in an index without")
        refuse_other_arrays(self.vectors_file.path, self._arrays, wanted)

    @property
    def part_bytes(self) -> dict[str, int]:
        """Bytes of the vectors by part of the score: `dense`, `lexical`, `word`."""
        dense = ("high", "low", "cls_units", "slack")
        parts = {"dense": 0, "lexical": 0, "word": 0}
        for name, array in self._arrays.items():
            parts["dense" if name in dense else "word" if name.startswith("word_") else "lexical"] += array.nbytes
        return parts

    def __len__(self) -> int:
        return self.size

    @cached_property
    def blocks(self) -> list[Block]:
        """The segment's blocks, in order."""
        self.check()
        return self._blocks()

    @cached_property
    def groups(self) -> list[Groups]:
        """For each block, which of its passages belong to one document."""
        self.check()
        borders = _block_borders(self.size)
        if not self.passages.has_chunks:
            return [NO_GROUPS] * len(borders)
        found = self.passages.documents.dictionary_encode()
        ranks = np.empty(len(found.dictionary), np.int32)
        ranks[np.asarray(pc.sort_indices(found.dictionary))] = np.arange(len(ranks))
        documents = ranks[np.asarray(found.indices)]
        return [_groups(documents[first:last], self.passages.starts[first:last]) for first, last in borders]

    def _blocks(self) -> list[Block]:
        """Cut the arrays into blocks."""
        arrays = self._arrays
        width = len(arrays["column_ids"])
        return [
            Block(
                first,
                high=arrays["high"][first:last],
                low=arrays["low"][first:last],
                dense_units=arrays["cls_units"][first:last],
                slack=arrays["slack"][first:last],
                starts=arrays["starts"][number],
                documents=arrays["documents"],
                weights=arrays["weights"],
                column_ids=arrays["column_ids"],
                columns=arrays["columns"][width * first : width * last].reshape(width, last - first),
                lexical_units=arrays["ot_units"][first:last],
                words=self._words_of_block(number),
            )
            for number, (first, last) in enumerate(_block_borders(self.size))
        ]

    def _words_of_block(self, number: int) -> tuple[NDArray[Any], ...]:
        """Cut a block's words out of the arrays; without words it has none."""
        if not self.has_words:
            return _NO_WORDS
        first, last = self._arrays["word_borders"][number : number + 2].tolist()
        ids, starts = self._arrays["word_ids"][first:last], self._arrays["word_starts"][first : last + 1]
        return ids, starts, self._arrays["word_documents"], self._arrays["word_frequencies"]

    def words_of(self, alive: NDArray[np.uint8]) -> int:
        """Count the words of the living passages, marked with 1 (n,), each once a passage."""
        total = 0
        for block in self.blocks:
            _, starts, documents, _ = block.words
            living = alive[block.first : block.first + len(block)]
            here = documents[int(starts[0]) : int(starts[-1])]
            total += len(here) if living.all() else int(living[here].sum(dtype=np.int64))
        return total

    def check(self) -> None:
        """Refuse vectors or ids that are damaged or inconsistent; what was found sound is not read again."""
        if self.checked:
            return
        self.vectors_file.check()
        self._refuse_inconsistent()
        self.passages.check()
        self.checked = True

    def verify(self) -> None:
        """Refuse the segment if any byte is damaged, whether that was looked for before or not."""
        self.checked = False
        for file in (self.vectors_file, *self.passages.files):
            file.verify()
        self.check()
        self.passages.check_texts()

    def _refuse_inconsistent(self) -> None:
        """Refuse numbers with which the compiled loops would leave an array, or miss what a list holds.

        A checksum tells what has changed since it was written; this holds for a file that was written to deceive.
        """
        arrays, path = self._arrays, self.vectors_file.path
        starts = arrays["starts"].astype(np.int64).ravel()
        if starts[0] != 0 or starts[-1] != len(arrays["documents"]) or (np.diff(starts) < 0).any():
            raise damaged(path, "has lists that do not begin where others end")
        columns = arrays["column_ids"].astype(np.int64)
        if (np.diff(columns) <= 0).any() or (columns >= arrays["starts"].shape[1] - 1).any():
            raise damaged(path, "has columns of terms that do not rise, or that the vocabulary does not have")
        for name in ("cls_units", "slack", "ot_units"):
            least = 0 if name == "slack" else np.finfo(np.float32).tiny
            if not ((arrays[name] >= least) & (arrays[name] < np.inf)).all():
                raise damaged(path, f"has {name!r} that are no finite numbers above 0")
        if self.has_words:
            self._refuse_inconsistent_words()
        for block in self._blocks():
            _, word_starts, word_documents, _ = block.words
            if not (
                _are_lists(block.starts, block.documents, len(block))
                and _are_lists(word_starts, word_documents, len(block))
            ):
                raise damaged(path, "has lists of passages that do not rise, or that are not there")

    def _refuse_inconsistent_words(self) -> None:
        """Refuse words that are not where their borders say, or whose lists do not follow each other."""
        arrays, path = self._arrays, self.vectors_file.path
        ids, borders, starts = (arrays[f"word_{name}"].astype(np.int64) for name in ("ids", "borders", "starts"))
        if borders[0] != 0 or borders[-1] != len(ids) or (np.diff(borders) < 0).any():
            raise damaged(path, "has blocks of words that do not begin where others end")
        rising, begins = ids[1:] > ids[:-1], np.zeros(len(ids) + 1, np.bool_)
        begins[borders] = True
        if ids.max(initial=0) >= WORD_DIMENSIONS or not (rising | begins[1:-1]).all():
            raise damaged(path, "has words that do not rise, or that have no dimension")
        if starts[0] != 0 or starts[-1] != len(arrays["word_documents"]) or (np.diff(starts) < 1).any():
            raise damaged(path, "has lists of words that do not begin where others end")
        if not arrays["word_frequencies"].all():
            raise damaged(path, "has words that a passage holds 0 times")

    def rows(self) -> Rows:
        """Read the vectors of all passages, as they were given to :func:`write_segment`, in the order of the ids."""
        self.check()
        arrays = self._arrays
        vocabulary = arrays["starts"].shape[1] - 1
        parts, words = [], []
        for block in self.blocks:
            words.append(_words_by_passage(block) if self.has_words else None)
            first, last = int(block.starts[0]), int(block.starts[-1])
            ids = np.repeat(np.arange(vocabulary), np.diff(block.starts).astype(np.int64))
            listed = (block.weights[first:last], (block.documents[first:last].astype(np.int64), ids))
            numbers, documents = np.nonzero(block.columns)
            columns = (block.columns[numbers, documents], (documents, block.column_ids[numbers].astype(np.int64)))
            shape = (len(block), vocabulary)
            parts.append(sp.csr_array(sp.coo_array(listed, shape=shape) + sp.coo_array(columns, shape=shape)))
        lexical = sp.csr_array(sp.vstack(parts, format="csr"), dtype=np.int16)
        lexical.sort_indices()
        joined = sp.csr_array(sp.vstack(words, format="csr")) if self.has_words else None
        return Rows(arrays["high"], arrays["low"], arrays["cls_units"], lexical, arrays["ot_units"], joined)


def _are_lists(starts: NDArray[np.uint32], documents: NDArray[np.uint16], passages: int) -> bool:
    """Tell whether the lists between `starts` all rise, below the number of passages; they follow each other."""
    first, last = int(starts[0]), int(starts[-1])
    listed, begins = documents[first:last], np.zeros(last - first + 1, np.bool_)
    begins[starts.astype(np.int64) - first] = True
    rising = listed[1:] > listed[:-1]
    return bool((rising | begins[1:-1]).all()) and not (len(listed) and listed.max() >= passages)


def _words_by_passage(block: Block) -> Any:
    """Turn a block's words around: CSR, uint8 (n, `WORD_DIMENSIONS`), columns sorted."""
    ids, starts, documents, frequencies = block.words
    first, last = int(starts[0]), int(starts[-1])
    columns = np.repeat(ids.astype(np.int32), np.diff(starts).astype(np.int64))
    order = np.argsort(documents[first:last], kind="stable")
    counts = np.bincount(documents[first:last], minlength=len(block))
    indptr = np.concatenate(([0], np.cumsum(counts)))
    kept = (frequencies[first:last][order], columns[order], indptr)
    return sp.csr_array(kept, shape=(len(block), WORD_DIMENSIONS))
